"""``structjob wait``: waits until a job has ended, wherever it runs."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import reading, running
from structjob.cli.ids import resolve
from structjob.cli.screen import command_line, put_json, say, suggest
from structjob.cli.times import stretch
from structjob.text.escaping import escape
from structjob.text.rendering import short

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.models import JobRecord

FAILED, CANCELLED, TIMED_OUT = 1, 130, 124
"""Exit codes; the last one is the same as that of ``timeout``."""

_LOOK_EVERY = 2.0
"""Seconds between two searches for spools of dead processes, whose jobs have crashed."""


@click.command(
    epilog="""\b
Exit codes: 0 completed, 1 failed or crashed, 130 cancelled, 124 timeout, 3 no such job.
\b
Examples:
  structjob wait 019a3f7c && structjob logs 019a3f7c
  structjob wait gui-17 --timeout 10m"""
)
@options.job
@click.option(
    "--timeout",
    metavar="SPAN",
    callback=stretch,
    help="Maximum time to wait, such as 30s or 10m.  [default: no limit]",
)
@options.json_and_db
@running
async def wait(id_: str, db: Database, *, timeout: timedelta | None, as_json: bool) -> None:  # noqa: ASYNC109 -- the name of the option
    """Wait until a job has ended; the exit code is its outcome."""
    deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
    async with reading(db) as reader:
        job = await resolve(reader, id_)
        while not job.status.terminal:
            left = _LOOK_EVERY if deadline is None else deadline - time.monotonic()
            if left <= 0:
                break
            try:
                job = await reader.jobs.wait(job, min(left, _LOOK_EVERY))
            except TimeoutError:
                await reader.deliver_now_and_then()
                job = await reader.jobs.get(job.id)
    if as_json:
        put_json(job)
    else:
        _report(job, db)
    click.get_current_context().exit(_code(job))


def _report(job: JobRecord, db: Database) -> None:
    status = job.status.value if job.status.terminal else f"still {job.status.value}"
    error = "" if job.error is None else f": {escape(job.error.message)}"
    say(f"{escape(job.operation)} {'is ' if not job.status.terminal else ''}{status}{error}")
    suggest(command_line("show", short(job.id), db=db.option))


def _code(job: JobRecord) -> int:
    if not job.status.terminal:
        return TIMED_OUT
    return {"completed": 0, "cancelled": CANCELLED}.get(job.status.value, FAILED)
