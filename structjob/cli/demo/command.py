"""``structjob demo``: does real work, shows its progress, and measures the result."""

from __future__ import annotations

import getpass
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import Database, execute
from structjob.cli.demo.measure import measure
from structjob.cli.demo.progress import DemoView
from structjob.cli.demo.workload import PARTS, Migration, make_tree
from structjob.cli.lines import width
from structjob.cli.screen import UNBOUNDED, Failure, coloured, command_line, is_terminal, put_json
from structjob.text.appearance import lasting, paint, wrapped
from structjob.text.rendering import short
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.cli.demo.measure import Speed
    from structjob.cli.demo.workload import Outcome
    from structjob.models import Ledger
    from structjob.queries.verify import SessionVerification

OWN = "structjob-demo.db"
"""The demo's database, in the working directory, unless ``--db`` names another."""

WATCHED = 3.0
"""Seconds for the largest part, when the output is a terminal."""


@click.command(
    epilog="""\b
Examples:
  structjob demo                          watch a directory tree being moved
  structjob demo --source ~/documents     a tree of your own; it is only read
  structjob demo --once                   without progress bars and pauses
  structjob demo --json                   the same; the result as JSON on stdout, all else on stderr"""
)
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Copy this directory, instead of a generated one, and move the copy.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Run without progress bars and pauses; exit code 1 if a line was lost.",
)
@options.json_and_db
def demo(db: Database, *, source: Path | None, once: bool, as_json: bool) -> None:
    """Record a sample workload, and measure it.

    It moves a directory tree in parallel, and is recorded in ./structjob-demo.db or in the database
    that --db names. The files are really copied and verified, in a temporary directory. One part is
    retried and one copy is damaged on purpose.
    """
    if not db.typed:
        # ignore the environment: the demo must not write into a program's database
        db = Database(OWN)
    db.refuse_memory(" and would be gone with the demo; name a file, such as sqlite:///demo.db")
    execute(
        _demo(
            db,
            source,
            watched=not once and not as_json and is_terminal(sys.stdout),
            as_json=as_json,
        )
    )


async def _demo(db: Database, source: Path | None, *, watched: bool, as_json: bool) -> None:
    import tempfile

    import structjob

    shown = sys.stderr if as_json else sys.stdout
    colour = coloured(shown)
    with tempfile.TemporaryDirectory(prefix="structjob-demo-") as name:
        root = Path(name)
        (root / "target").mkdir()
        if source is None:
            source = root / "source"
            source.mkdir()
            make_tree(source)
        elif not any(path.is_file() for path in source.rglob("*")):
            raise Failure(f"{source} holds no files to move", hint="structjob demo")
        print(
            f"{paint('database', 'dim', colour)}  {db.shown}\n{paint('moving', 'dim', colour)}    {source} → a temporary directory\n",
            file=shown,
            flush=True,
        )
        pace = WATCHED / (1.5 * max(PARTS.values())) if watched else 0.0
        with DemoView(shown, bars=watched) as view:
            structjob.configure(console=False, sinks=[view])
            async with structjob.Tracker(db.url, service="structjob demo") as tracker:
                migration = Migration(tracker, source.absolute(), root / "target", view, pace=pace)
                outcome = await migration.run(getpass.getuser())
                began = time.perf_counter()
                await tracker.flush()
                flushed = time.perf_counter() - began
                ledger, session_id = tracker.ledger(), tracker.session_id
                # Only this session: the database may hold others, which do not belong to the demo.
                checked = next(
                    session
                    for session in (await tracker.verify()).sessions
                    if session.session_id == session_id
                )
        speed = await measure(root)
    if as_json:
        put_json(
            {
                "moved": outcome,
                "ledger": ledger,
                "verified": checked,
                "flush_seconds": flushed,
                "speed": speed,
            }
        )
    else:
        _report(outcome, speed, ledger, checked, flushed, colour=colour)
        _advise(db, outcome, colour=colour)
    if missing := lost(ledger, checked, speed):
        raise Failure(
            f"{count_of(missing, 'line')} did not reach the database",
            hint=command_line("verify", db=db.option),
        )


def lost(ledger: Ledger, checked: SessionVerification, speed: Speed) -> int:
    """Return how many lines did not arrive, including rejected lines and those of the measurement.

    The ledger and the verification both count unstored lines; the larger count is used.
    """
    return max(ledger.accepted - ledger.stored, checked.missing) + ledger.rejected + speed.lost


def _report(
    outcome: Outcome,
    speed: Speed,
    ledger: Ledger,
    checked: SessionVerification,
    flushed: float,
    *,
    colour: bool,
) -> None:
    files = f"{outcome.moved:,} of {count_of(outcome.files, 'file')} in {count_of(outcome.parts, 'part')}"
    rates = f"{speed.lines / speed.logging:,.0f} lines/s logged, {speed.lines / speed.storing:,.0f} lines/s stored"
    facts = {
        "moved": f"{files}, {outcome.size / 1e6:,.1f} MB in {lasting(outcome.seconds)}",
        "failed": f"{', '.join(outcome.failed)}: one copy was damaged on purpose, and its checksum differs"
        if outcome.failed
        else "",
        "lines": f"{checked.last_seq:,} logged, {checked.stored:,} stored, {checked.missing:,} missing",
        "dropped": f"{ledger.lost + speed.lost}",
        "flush": f"{flushed * 1000:.1f} ms from the end of the work until its last line was stored",
        "speed": f"{rates} ({count_of(speed.lines, 'line')}, measured separately)",
    }
    print()
    for name, text in facts.items():
        if text:
            for row in wrapped([(f"{name:<9} ", "dim"), (text, "")], _columns(), 10):
                print("".join(paint(part, style, colour) for part, style in row).rstrip())


def _columns() -> int:
    return width() if is_terminal(sys.stdout) else UNBOUNDED


def _advise(db: Database, outcome: Outcome, *, colour: bool) -> None:
    whole = short(outcome.job_id)
    commands = [
        (("jobs",), "all jobs"),
        (("show", whole), "the migration, its parts and its result"),
        *(
            [(("show", short(outcome.failed_job_id)), "the part that failed, and why")]
            if outcome.failed_job_id
            else []
        ),
        (("logs", whole, "-l", "warning"), "what went wrong"),
        (("logs", whole, "--grep", "verified", "--last", "5"), "what went right"),
        (("serve", "--open"), "the same in a browser"),
    ]
    lines = [(command_line(*words, db=db.option), about) for words, about in commands]
    longest = max(len(command) for command, _ in lines)
    print(f"\n{paint('Type next', 'bold', colour)}")
    # A wrapped command cannot be read: if one would not fit, its explanation goes on the line
    # above.
    beside = max(longest + 4 + len(about) for _, about in lines) <= _columns()
    for command, about in lines:
        typed, why = paint(command, "cyan", colour), paint(about, "dim", colour)
        print(
            f"  {typed}{' ' * (longest - len(command))}  {why}"
            if beside
            else f"  {why}\n    {typed}"
        )
    if outcome.failed:
        print(f"\nExit code 0: the failure of {outcome.failed[0]} is part of the demo.")
