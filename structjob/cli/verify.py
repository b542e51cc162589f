"""``structjob verify``: proves that no line was lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from structjob.cli import options
from structjob.cli.database import deliver_from, reading, running
from structjob.cli.screen import Failure, command_line, console, put_json, put_table, say, suggest
from structjob.cli.times import brief
from structjob.text.amounts import in_bytes
from structjob.text.appearance import speaks_unicode
from structjob.text.escaping import escape
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from structjob.cli.database import Database, Reader
    from structjob.models import SessionRecord
    from structjob.queries.verify import SessionVerification, VerifyResult

_LOOKS = {
    "complete": ("✓", "green"), "live": ("●", "blue"), "incomplete": ("✗", "red"), "unknown_tail": ("?", "yellow"),
    "undelivered": ("?", "yellow"),
}  # fmt: skip
_HOLES = 10


def _existing(
    ctx: click.Context, param: click.Parameter, paths: tuple[Path, ...]
) -> tuple[Path, ...]:
    """Refuse a directory that was typed and does not exist. A variable may name one to come."""
    if ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
        for path in paths:
            if not path.is_dir():
                raise click.BadParameter(f"Directory '{path}' does not exist.", ctx, param)
    return paths


@click.command(
    epilog="""\b
Examples:
  structjob verify
  structjob verify --spool /var/lib/app/spool
  structjob verify --json | jq .missing

Each session (one tracker in one process) numbers its lines 1, 2, 3 …  A number that is neither stored nor explained is a lost line. A
number is explained if structjob recorded why its line is not stored: it was pruned, or dropped because the disk was full, for example.

\b
Exit code 0: every line is accounted for; all sessions are complete or live. Exit code 1 (and "ok": false) if
  a session is incomplete: lines are missing without an explanation;
  a session has an unknown tail: its process ended and its spool was not found, so there may have been more lines;
  a session is undelivered: lines of an ended program wait in a spool and could not be stored;
  a job is marked running although its process has ended, or rows belong to jobs that do not exist."""
)
@click.option(
    "--spool", "spools", metavar="DIR", multiple=True, envvar="STRUCTJOB_SPOOL", show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path), callback=_existing,
    help="Also search this spool directory; may be repeated. Needed for programs that set Tracker(spool=DIR).",
)  # fmt: skip
@options.utc
@options.json_and_db
@running
async def verify(db: Database, *, spools: tuple[Path, ...], as_json: bool, utc: bool) -> None:
    """Prove that no log line was lost.

    Checks, session by session, that every line is stored, or that the reason for its absence is
    known.
    """
    from structjob.urls.url import places as places_in

    async with reading(db) as reader:
        named = [path.absolute() for path in spools]
        for root in named:
            if root.is_dir() and (places := places_in(db.url, root)) is not None:
                await deliver_from(db, places, spool=root)
        found = await reader.verify()
        reasons = await _reasons(reader, found)
        known = await reader.lookups.sessions([one.session_id for one in found.sessions])
        # What can be delivered was delivered just before.
        roots, directories = _spools(db, named)
        left, busy = _waiting(directories)
    if as_json:
        plain = [_plain(session, known.get(session.session_id), left) for session in found.sessions]
        put_json({
            "ok": found.ok and not left, "missing": found.missing, "undelivered": sorted(left), "running": found.running,
            "running_job_ids": found.running_job_ids, "orphans": found.orphans, "spools": [str(root) for root in roots], "sessions": plain,
        })  # fmt: skip
    else:
        _print(found, known, left, utc=utc)
        _remark(found, db, left, busy, reasons)
        missing = [root for root in named if not root.is_dir()]
        searched = [f"{root}{' (does not exist)' if root in missing else ''}" for root in roots]
        say(f"spool directories searched: {', '.join(searched) or 'none'}")
    if (failure := _failure(found, left, db)) is not None:
        raise failure


def _spools(db: Database, named: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the possible spool roots of the database, the usual one first, and the existing
    spools.
    """
    from structjob.spool import directory as spool_directory

    places = db.places
    directories = [
        *(spool_directory.left_in(places) if places is not None else ()),
        *(one for root in named for one in spool_directory.directories(root)),
    ]
    usual = [places.candidates[0]] if places is not None else []
    return list(
        dict.fromkeys([*usual, *(directory.parent for directory in directories), *named])
    ), list(dict.fromkeys(directories))


def _waiting(directories: Sequence[Path]) -> tuple[dict[int, int], set[int]]:
    """Return the idle spools that wait, with their bytes, and the sessions whose spools are in
    use.
    """
    from structjob.spool import directory as spool_directory

    left: dict[int, int] = {}
    busy: set[int] = set()
    for directory, size in spool_directory.waiting(directories):
        if spool_directory.is_alive(directory):
            busy.add(int(directory.name))
        elif size:
            left[int(directory.name)] = size
    return left, busy


def _failure(found: VerifyResult, left: Mapping[int, int], db: Database) -> Failure | None:
    """Return the failure that makes the exit code 1; ``None`` where ``ok`` is true."""
    if found.missing:
        lines = count_of(found.missing, "line", "is", "are")
        return Failure(
            f"{lines} missing: they were logged and are not stored, and no reason is recorded"
        )
    if left:
        return Failure(
            f"{in_bytes(sum(left.values()))} of {count_of(len(left), 'program')} that ended wait in the spool and cannot be stored now: "
            "whether they are complete is unknown",
            hint=command_line("doctor", db=db.option),
        )
    if unknown := _unknown(found):
        return Failure(
            f"{count_of(len(unknown), 'session', 'has', 'have')} an unknown tail: there may be lines that are not stored"
        )
    if not found.ok:
        return Failure("no line is missing, but some rows contradict each other: see above")
    return None


def _status(session: SessionVerification, left: Mapping[int, int]) -> str:
    return (
        "undelivered"
        if session.session_id in left and session.status != "incomplete"
        else session.status
    )


def _plain(
    session: SessionVerification, row: SessionRecord | None, left: Mapping[int, int]
) -> dict[str, Any]:
    about = (
        {
            name: getattr(row, name)
            for name in ("service", "host", "pid", "started_at", "ended_at", "end_reason")
        }
        if row is not None
        else {}
    )
    return {
        "session_id": session.session_id, "status": _status(session, left), **about, "last_seq": session.last_seq, "stored": session.stored,
        "explained": session.explained, "pruned": session.pruned, "missing": session.missing, "holes": session.holes,
        "duplicates": session.duplicates, "fewer": session.fewer,
    }  # fmt: skip


def _print(
    found: VerifyResult, known: Mapping[int, SessionRecord], left: Mapping[int, int], *, utc: bool
) -> None:
    from rich.text import Text

    rows = []
    # In the order in which the sessions began; a session without a row is known from its lines
    # only.
    order = sorted(
        found.sessions,
        key=lambda session: (
            session.session_id in known,
            str(known[session.session_id].started_at) if session.session_id in known else "",
        ),
    )
    for session in order:
        row = known.get(session.session_id)
        status = _status(session, left)
        sign, colour = _LOOKS[status]
        process = "" if row is None else f"{row.service or 'pid'} {row.pid} on {row.host}"
        rows.append([
            Text(str(session.session_id)),
            Text(f"{sign if speaks_unicode() or sign == '?' else '*'} {status.replace('_', ' ')}", style=colour),
            *(Text(f"{number:,}") for number in (session.last_seq, session.stored, session.explained)),
            Text(f"{session.missing:,}", style="red" if session.missing else ""),
            Text(brief(row.started_at, utc=utc) if row is not None else "", style="dim"),
            Text(escape(process), style="dim"),
        ])  # fmt: skip
    numbers = ("LINES", "STORED", "EXPLAINED", "MISSING")
    headings = ("SESSION", "STATUS", *numbers, "STARTED", "PROCESS")
    put_table(console(), headings, rows, right=numbers, spare=("STARTED", "EXPLAINED"))


def _unknown(found: VerifyResult) -> list[int]:
    """Return the sessions that may have written more than is known."""
    return [session.session_id for session in found.sessions if session.status == "unknown_tail"]


async def _reasons(reader: Reader, found: VerifyResult) -> Counter[str]:
    """Return how many numbers are not stored for each recorded reason, without pruned ones."""
    reasons: Counter[str] = Counter()
    for session in found.sessions:
        left = session.explained - session.pruned
        for gap in await reader.sessions.gaps(session.session_id) if left else ():
            if gap.reason != "pruned":
                reasons[gap.reason] += gap.last_seq - gap.first_seq + 1
    return reasons


def _remark(
    found: VerifyResult,
    db: Database,
    left: Collection[int],
    busy: Collection[int],
    reasons: Counter[str],
) -> None:
    """Explain the numbers."""
    from structjob.queries.verify import LOOKS_RESTORED

    unknown = _unknown(found)
    if not found.missing:
        stored, explained, pruned = (
            sum(getattr(session, name) for session in found.sessions)
            for name in ("stored", "explained", "pruned")
        )
        every = "every known line" if unknown else "every line"
        sessions = count_of(len(found.sessions), "session")
        dropped = explained - pruned
        named = ", ".join(f"{reason} {number:,}" for reason, number in reasons.most_common())
        parts = (
            f"{count_of(stored, 'line', 'is', 'are')} stored in {sessions}",
            f"{count_of(dropped, 'line', 'is', 'are')} not stored ({named})" if dropped else "",
            f"{pruned:,} were pruned" if pruned else "",
        )
        say(f"{every} is accounted for: {', '.join(part for part in parts if part)}")
    for session in found.sessions:
        if session.holes and session.status != "live":
            shown = ", ".join(
                f"{first}" if first == last else f"{first}–{last}"
                for first, last in session.holes[:_HOLES]
            )
            say(
                f"session {session.session_id}: missing numbers {shown}{' …' if len(session.holes) > _HOLES else ''}"
            )
        if session.fewer:
            say(
                f"session {session.session_id}: the database holds {count_of(session.fewer, 'event')} fewer than it had confirmed: "
                f"{LOOKS_RESTORED}"
            )
    unseen = [number for number in unknown if number not in left]
    if delivering := sum(number in busy for number in unseen):
        say(
            f"the spools of {delivering:,} of the sessions are being delivered by another process: repeat the command in a few seconds"
        )
    if len(unseen) > delivering:
        sessions = count_of(len(unseen) - delivering, "session")
        say(
            f"{sessions}: the process has ended and its spool was not found, so there may be more lines. If the spool is "
            "in another directory or on another host, run `structjob verify --spool DIR` there"
        )
    if duplicates := sum(session.duplicates for session in found.sessions):
        say(
            f"{count_of(duplicates, 'row', 'repeats', 'repeat')} a number: the unique index on structjob_logs (session_id, seq) is absent"
        )
    if found.running:
        jobs = count_of(found.running, "job", "is", "are")
        say(
            f"{jobs} still marked running although the process has ended, such as {escape(found.running_job_ids[0])}"
        )
        suggest(command_line("show", found.running_job_ids[0], db=db.option))
    orphans = found.orphans
    if orphans.attempts or orphans.steps or orphans.logs:
        rows = f"{count_of(orphans.logs, 'line')}, {count_of(orphans.steps, 'step')} and {count_of(orphans.attempts, 'attempt')}"
        say(f"{rows} belong to jobs that do not exist, such as {escape(orphans.job_ids[0])}")
