"""``structjob cancel``: request that a job stops, wherever it runs."""

from __future__ import annotations

import getpass
import socket
import time
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import reading, running, writing
from structjob.cli.ids import resolve
from structjob.cli.screen import Failure, command_line, put_json, say, suggest
from structjob.exceptions import InvalidState
from structjob.statuses import JobStatus
from structjob.text.appearance import lasting
from structjob.text.escaping import escape
from structjob.text.rendering import short

if TYPE_CHECKING:
    from structjob.cli.database import Database, Reader
    from structjob.models import JobRecord

STOP_TIMEOUT = 5.0
"""Seconds to wait for the job to end; its cleanup may take longer."""

_LOOK_EVERY = 0.1
_ACTIVE = (JobStatus.PENDING, JobStatus.RUNNING)


@click.command(
    epilog="""\b
Examples:
  structjob cancel 019a3f7c
  structjob cancel gui-17 --reason "the disk is needed"
  structjob cancel nightly                 the only job of this operation that runs or is pending

A job in `async with` gets an asyncio.CancelledError in its task. A program under `structjob run` gets SIGTERM. A pending job is cancelled and
never starts. The command waits 5 seconds at most for the job to end."""
)
@options.job
@click.option("--reason", metavar="TEXT", help="Reason; it becomes the job's error message.")
@click.option(
    "--by", metavar="TEXT", help="Name of the requester, for the job's log.  [default: user@host]"
)
@click.option(
    "--force",
    is_flag=True,
    help="Cancel again a job that is already being cancelled; this interrupts its cleanup.",
)
@options.json_and_db
@running
async def cancel(
    id_: str, db: Database, *, reason: str | None, by: str | None, force: bool, as_json: bool
) -> None:
    """Request that a job stops, in whichever process it runs."""
    async with reading(db) as reader:
        job = await resolve(reader, id_, only=_ACTIVE)
        try:
            async with writing(db) as tracker:
                await tracker.cancel(job.id, reason, by=by or _somebody(), force=force)
        except InvalidState as exc:
            raise Failure(
                str(exc).replace("force=True", "--force"),
                hint=command_line("show", short(job.id), db=db.option),
            ) from exc
        job = await _outcome(reader, job.id)
    if as_json:
        put_json({"id": job.id, "operation": job.operation, "status": job.status})
        return
    say(_said(job))
    suggest(command_line("show", short(job.id), db=db.option))


async def _outcome(reader: Reader, job_id: str) -> JobRecord:
    """Return the job when it has ended, or after `STOP_TIMEOUT` seconds."""
    import asyncio

    deadline = time.monotonic() + STOP_TIMEOUT
    job = await reader.jobs.get(job_id)
    while job.status == "running" and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_EVERY)
        job = await reader.jobs.get(job_id)
    return job


def _said(job: JobRecord) -> str:
    """Return what became of a job: ``sync cancelled after 9.2s: maintenance``."""
    name = escape(job.operation)
    if job.status == "running":
        return f"{name} still runs: it was asked to stop"
    after = "" if job.duration_ms is None else f" after {lasting(job.duration_ms / 1_000)}"
    message = "" if job.error is None else job.error.message or ""
    # without a reason, the message repeats the status: "cancelled by request"
    why = f": {escape(message)}" if message and not message.startswith(job.status) else ""
    return f"{name} {job.status}{after}{why}"


def _somebody() -> str:
    """Return the user and the host that request the cancellation."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:128]
