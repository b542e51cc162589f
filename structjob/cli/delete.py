"""``structjob delete``: deletes one job with its child jobs, steps and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import reading, running, writing
from structjob.cli.ids import resolve
from structjob.cli.prune import deleted
from structjob.cli.screen import Failure, command_line, put_json, require_confirmation, say
from structjob.exceptions import InvalidState
from structjob.statuses import JobStatus
from structjob.text.escaping import escape
from structjob.text.rendering import short

if TYPE_CHECKING:
    from structjob.cli.database import Database


@click.command(
    epilog="""\b
Examples:
  structjob delete 019a3f7c
  structjob delete gui-17 --yes
  structjob delete nightly                 the only job of this operation

Only jobs that have ended are deleted. To keep a copy, run `structjob export JOB` first; to delete by age, see `structjob prune`."""
)
@options.job
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@options.json_and_db
@running
async def delete(id_: str, db: Database, *, yes: bool, as_json: bool) -> None:
    """Delete one job with its child jobs, steps and lines."""
    if not yes:
        require_confirmation("add --yes")
    async with reading(db) as reader:
        job = await resolve(reader, id_, only=tuple(JobStatus))
        if not yes:
            click.confirm(
                f"This deletes job {job.id} ({escape(job.operation)}) from {db.shown}, with its "
                "child jobs, steps and lines. Go on?",
                abort=True,
                err=True,
            )
        try:
            async with writing(db) as tracker:
                found = await tracker.jobs.delete(job)
        except InvalidState as exc:
            raise Failure(
                str(exc), hint=command_line("cancel", short(job.id), db=db.option)
            ) from exc
    if as_json:
        put_json(found)
    say(f"deleted {deleted(found)} from {db.shown}")
