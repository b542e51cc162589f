"""``structjob verify``: proves that no line was lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.database import deliver_from, execute, places_of, reading
from structjob.cli.screen import Failure, columns, command_line, console, put_json, put_lines, say
from structjob.cli.times import brief
from structjob.text.appearance import speaks_unicode
from structjob.text.escaping import escape
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from structjob.cli.database import Database
    from structjob.models import SessionRecord
    from structjob.queries.verify import SessionVerification, VerifyResult

_LOOKS = {
    "complete": ("✓", "green"), "live": ("●", "blue"), "incomplete": ("✗", "red"), "unknown_tail": ("?", "yellow"),
    "undelivered": ("?", "yellow"),
}  # fmt: skip
_HOLES = 10


@click.command(
    epilog="""\b
Examples:
  structjob verify
  structjob verify --spool /var/lib/app/spool
  structjob verify --json | jq .missing

Each process numbers its lines 1, 2, 3 …; a number that is neither stored nor explained is a lost line.

\b
Exit code 0 if every line is accounted for: all sessions are complete or live. Exit code 1 (and "ok": false) if
  a session is incomplete: lines were lost;
  a session has an unknown tail: its process ended and its spool was not seen, so there may have been more lines;
  a session is undelivered: lines of a program that died wait in a spool and could not be delivered;
  a job is marked running although its process has ended, or rows belong to jobs that do not exist."""
)
@click.option(
    "--spool", "spools", metavar="DIR", multiple=True, type=click.Path(file_okay=False, path_type=Path), envvar="STRUCTJOB_SPOOL",
    help="Spool directory of the programs, if it is not the usual one; can be repeated. [env: STRUCTJOB_SPOOL]",
)  # fmt: skip
@options.utc
@options.json_output
@options.database
def verify(db: Database, *, spools: tuple[Path, ...], as_json: bool, utc: bool) -> None:
    """Prove that no line was lost, session by session."""
    execute(_verify(db, spools, as_json=as_json, utc=utc))


async def _verify(db: Database, spools: Sequence[Path], *, as_json: bool, utc: bool) -> None:
    from structjob.urls.url import places as places_in

    async with reading(db) as reader:
        named = [path.absolute() for path in spools]
        for root in named:
            # do not create a directory that does not exist
            if root.is_dir() and (places := places_in(db.url, root)) is not None:
                await deliver_from(db, places, spool=root)
        found = await reader.verify()
        known = await reader.sessions.records([one.session_id for one in found.sessions])
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
        _remark(found, db, busy)
        say(f"spools looked at: {', '.join(map(str, roots)) or 'none'}")
    if (failure := _failure(found, left, db)) is not None:
        raise failure


def _spools(db: Database, named: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the possible spool roots of the database, the usual one first, and the existing
    spools.
    """
    from structjob.spool import directory as spool_directory

    places = places_of(db)
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
            f"{lines} missing: each number was given out, and nothing says why its line is not stored"
        )
    if left:
        return Failure(
            f"{sum(left.values()):,} bytes of {count_of(len(left), 'program')} that died wait in the spool and could not be delivered: "
            "nothing is proved of them",
            hint=command_line("doctor", db=db.option),
        )
    if unknown := _unknown(found):
        return Failure(
            f"{count_of(unknown, 'session', 'has', 'have')} an unknown tail: nothing proves that every line was stored"
        )
    if not found.ok:
        return Failure("no line is missing, but rows do not fit together: see above")
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
    screen = console()
    numbers = ("LINES", "STORED", "EXPLAINED", "MISSING")
    put_lines(
        columns(
            ("SESSION", "STATUS", *numbers, "STARTED", "PROCESS"), rows, screen.width, right=numbers
        ),
        screen,
    )


def _unknown(found: VerifyResult) -> int:
    """Return how many sessions may have written more than is known."""
    return sum(session.status == "unknown_tail" for session in found.sessions)


def _remark(found: VerifyResult, db: Database, busy: Collection[int]) -> None:
    """Explain the numbers."""
    from structjob.queries.verify import LOOKS_RESTORED

    if not found.missing:
        names = ("stored", "explained", "pruned")
        stored, explained, pruned = (
            sum(getattr(session, name) for session in found.sessions) for name in names
        )
        why = f" ({pruned:,} of them pruned)" if pruned else ""
        lines = count_of(stored, "line", "is", "are")
        what = "nothing that is known of is missing" if _unknown(found) else "nothing is missing"
        sessions = count_of(len(found.sessions), "session")
        say(
            f"{what}: {lines} stored, in {sessions}; {explained:,} more {'is' if explained == 1 else 'are'} explained{why}"
        )
    for session in found.sessions:
        if session.holes and session.status != "live":
            shown = ", ".join(
                f"{first}" if first == last else f"{first}–{last}"
                for first, last in session.holes[:_HOLES]
            )
            say(
                f"session {session.session_id} lacks {shown}{' …' if len(session.holes) > _HOLES else ''}"
            )
        if session.fewer:
            say(
                f"session {session.session_id}: the database holds {count_of(session.fewer, 'event')} fewer than it had confirmed: "
                f"{LOOKS_RESTORED}"
            )
    unknown = [session.session_id for session in found.sessions if session.status == "unknown_tail"]
    if delivering := sum(number in busy for number in unknown):
        say(
            f"the spools of {delivering:,} of the sessions are being delivered by another process: repeat the command in a few seconds"
        )
    if len(unknown) > delivering:
        sessions = count_of(len(unknown) - delivering, "session")
        say(
            f"the process of {sessions} ended, and its spool was not seen: there may have been more lines; if the spool is "
            "in another directory or on another host, run this there, with --spool DIR"
        )
    if duplicates := sum(session.duplicates for session in found.sessions):
        say(
            f"{count_of(duplicates, 'row', 'repeats', 'repeat')} a number: the unique index on structjob_logs (session_id, seq) is absent"
        )
    if found.running:
        jobs = count_of(found.running, "job", "is", "are")
        say(
            f"{jobs} still marked running though the process has ended, such as {escape(found.running_job_ids[0])}"
        )
        say(f"next:  {command_line('show', found.running_job_ids[0], db=db.option)}")
    orphans = found.orphans
    if orphans.attempts or orphans.steps or orphans.logs:
        rows = f"{count_of(orphans.logs, 'line')}, {count_of(orphans.steps, 'step')} and {count_of(orphans.attempts, 'attempt')}"
        say(f"{rows} belong to jobs that are not there, such as {escape(orphans.job_ids[0])}")
