"""``structjob prune``: deletes what is past its retention, after a preview of the amount."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from structjob.cli import options
from structjob.cli.database import execute, reading, writing
from structjob.cli.screen import (
    Failure,
    command_line,
    console,
    put_json,
    require_confirmation,
    say,
    suggest,
)
from structjob.cli.times import age as read_age
from structjob.cli.times import full
from structjob.text.appearance import lasting, speaks_unicode
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.levels import Level
    from structjob.models import PruneResult
    from structjob.retention.policy import Retention
    from structjob.statuses import JobStatusName

F = TypeVar("F", bound=Callable[..., Any])

FOREVER = "forever"

_PRUNE_TIMEOUT = 30.0
"""Seconds to wait while another process prunes."""

_COUNTED = ("jobs", "attempts", "steps", "events", "dead_letters", "sessions")
"""The fields of a `PruneResult` that are numbers of rows."""

_MEASURED, _LEAST_SHARE = 3.0, 20
"""The time left is shown after `_MEASURED` seconds, once 1/`_LEAST_SHARE` of the rows is gone."""


def _ages(
    ctx: click.Context, param: click.Parameter, given: Sequence[str]
) -> dict[str, timedelta | None]:
    """Parse options such as ``debug=2d`` or ``failed=forever``."""
    found: dict[str, timedelta | None] = {}
    for text in options.parts(given):
        name, equals, age = text.partition("=")
        if not equals or not name or not age:
            raise click.BadParameter(
                f"{text!r} has no age: write {text.rstrip('=') or 'NAME'}=30d, or ={FOREVER}",
                ctx,
                param,
            )
        found[name] = None if age == FOREVER else read_age(ctx, param, age)
    return found


def _age_by(name: str, many: str, what: str) -> Callable[[F], F]:
    return click.option(
        f"--{name}",
        many,
        metavar=f"{name.upper()}=AGE",
        multiple=True,
        callback=_ages,
        help=f"Age for {what} of this {name}, or {FOREVER} to keep them; may be repeated, or take several with commas.",
    )


@click.command(
    epilog="""\b
Examples:
  structjob prune --older-than 30d --dry-run                         preview: count what would be deleted
  structjob prune --older-than 30d --status failed=365d --level debug=2d
  structjob prune --older-than 90d --archive /backup/structjob --yes

A job is deleted with its steps and lines if it ended longer ago than the age. A family of jobs is deleted as a whole, when all of its ended
jobs are due. Pending and running jobs are never deleted. --level deletes lines earlier than their job. `structjob import` restores the
files of an archive. The freed space is used for new rows; the files of the database do not shrink. To shrink them, run
VACUUM (SQLite; locks the database), VACUUM FULL structjob_logs (PostgreSQL; locks the table) or OPTIMIZE TABLE structjob_logs (MariaDB,
MySQL). Each needs as much space again."""
)
@click.option(
    "--older-than",
    "days",
    metavar="AGE",
    callback=read_age,
    help="Delete what is older: 12h, 30d, 2w, 6mo (a month is 30 days), 1y. --level and --status take precedence.",
)
@_age_by("level", "levels", "lines")
@_age_by("status", "statuses", "jobs")
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write what is deleted to compressed files in this directory first.",
)
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@options.utc
@options.json_and_db
def prune(
    db: Database,
    *,
    days: timedelta | None,
    levels: dict[Level, timedelta | None],
    statuses: dict[JobStatusName, timedelta | None],
    archive: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    utc: bool,
) -> None:
    """Delete jobs and lines past their retention."""
    from structjob.retention.policy import Retention

    if days is None and not levels and not statuses:
        raise click.UsageError(
            "Nothing selected: give an age, such as --older-than 30d, --level debug=2d or --status completed=7d."
        )
    retention = Retention(days=days, levels=levels, statuses=statuses, archive=archive)
    if not dry_run and not yes:
        require_confirmation("add --yes, or preview with --dry-run")
    limits = cutoffs(retention, datetime.now(UTC), utc=utc)
    found = execute(_prune(db, retention, limits, dry_run=dry_run, yes=yes))
    if as_json:
        put_json(found)
    if not found:
        say(f"nothing to delete in {db.shown}: {limits}")
    elif found.dry_run:
        say(f"{deleted(found)} would be deleted from {db.shown}: {limits}")
    else:
        say(f"deleted {deleted(found)} from {db.shown}")
    if found.dry_run:
        return
    for path in found.archived:
        say(f"archived in {path}")
    if found.archived:
        suggest(command_line("import", found.archived[0], "--dry-run", db=db.option))
    if found.oldest is not None:
        say(f"the oldest remaining line is from {full(found.oldest, utc=utc)}")


async def _prune(
    db: Database, retention: Retention, limits: str, *, dry_run: bool, yes: bool
) -> PruneResult:
    async with reading(db) as reader:
        due = None
        if dry_run or not yes:
            with _status() as show:
                show("counting what is due")
                due = found = await reader.preview_prune(retention)
            if dry_run or not found:
                return found
            kept = f", after writing it to {retention.archive}" if retention.archive else ""
            question = f"This deletes {deleted(found)} from {db.shown}{kept}: {limits}. Go on?"
            click.confirm(question, abort=True, err=True)
        async with writing(db) as tracker:
            try:
                with _status() as show:
                    show("waiting to delete")
                    return await tracker.prune(
                        retention, patience=_PRUNE_TIMEOUT, progress=shown_progress(due, show)
                    )
            except OSError as exc:
                raise Failure(
                    f"cannot write the archive {retention.archive}: {exc.strerror or exc}; nothing was deleted that is not in the archive"
                ) from exc


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text on the terminal, until the block ends; without a terminal
    it does nothing.
    """
    screen = console(sys.stderr)
    if not screen.is_terminal or screen.is_dumb_terminal:
        yield lambda _: None
        return
    with screen.status("", spinner="dots" if speaks_unicode() else "line") as status:
        yield lambda text: status.update(f"{text} …")


def shown_progress(
    due: PruneResult | None, show: Callable[[str], None]
) -> Callable[[PruneResult], None]:
    """Return a function that shows how much was deleted.

    If it was counted how much is *due*, the time left follows from the speed so far.
    """
    began, total = 0.0, 0 if due is None else _rows(due)

    def progress(found: PruneResult) -> None:
        nonlocal began
        began = began or time.monotonic()  # before that, it waited for another prune
        done, spent = _rows(found), time.monotonic() - began
        rows = (
            f"{done:,} of {count_of(total, 'row')}"
            if total and done <= total
            else count_of(done, "row")
        )
        left = ""
        if spent >= _MEASURED and total / _LEAST_SHARE <= done < total:
            left = f", about {lasting(spent * (total - done) / done)} left"
        show(f"deleted {rows} in {lasting(spent)}{left}")

    return progress


def _rows(found: PruneResult) -> int:
    return sum(getattr(found, name) for name in _COUNTED)


def cutoffs(retention: Retention, now: datetime, *, utc: bool) -> str:
    """Return a text that says what is deleted: what ended or was logged before which time."""

    def before(age: timedelta) -> str:
        return f"before {full(now - age, utc=utc)}"

    from structjob.retention.policy import age_of_level, age_of_rest, age_of_status

    rest = age_of_rest(retention)
    parts = [f"what ended {before(rest)}"] if rest is not None else []
    for status in retention.statuses:
        age = age_of_status(retention, status)
        parts.append(
            f"{status} jobs are kept" if age is None else f"{status} jobs that ended {before(age)}"
        )
    for level in retention.levels:
        age = age_of_level(retention, level)
        parts.append(f"{level} lines are kept" if age is None else f"{level} lines {before(age)}")
    return ", ".join(parts)


def deleted(found: PruneResult) -> str:
    """Return a text that says what was deleted: ``1 job, 1 attempt and 7 lines``."""
    shown = {"events": "line", "dead_letters": "dead letter"}
    parts = [
        count_of(number, shown.get(name, name.removesuffix("s")))
        for name in _COUNTED
        if (number := getattr(found, name))
    ]
    return " and ".join(", ".join(parts).rsplit(", ", 1))
