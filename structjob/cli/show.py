"""``structjob show``: shows everything about one job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import execute, reading
from structjob.cli.failures import raised
from structjob.cli.ids import LEAST, resolve
from structjob.cli.job_page import ROOM, About, JobPage
from structjob.cli.pager import paged
from structjob.cli.screen import Failure, command_line, console, put_json, suggest
from structjob.cli.tables import FAILED
from structjob.text.rendering import short

if TYPE_CHECKING:
    from structjob.cli.database import Database, Reader
    from structjob.models import EventRecord, JobRecord
    from structjob.queries.overview import Overview

LAST = 5
"""Number of log lines shown of a job that went wrong."""


@click.command(
    epilog="""\b
Examples:
  structjob show 9b84fe0f              the end of an id, or its beginning
  structjob show gui-17                your own external or context id
  structjob show backup                the newest job of this operation
  structjob show backup --failed       only the steps and child jobs that failed
  structjob show backup --all | less   all steps and child jobs"""
)
@options.job
@click.option(
    "--all",
    "whole",
    is_flag=True,
    help="Show all steps, child jobs, metadata and traceback lines, however many.",
)
@click.option(
    "--failed", is_flag=True, help="Show only steps and child jobs that failed or crashed."
)
@click.option(
    "--depth",
    type=click.IntRange(0, 100),
    metavar="N",
    help="Show N levels of child jobs; 0 shows none.  [default: all]",
)
@options.pager
@options.utc
@options.json_and_db
def show(
    id_: str,
    db: Database,
    *,
    whole: bool,
    failed: bool,
    depth: int | None,
    pager: bool,
    as_json: bool,
    utc: bool,
) -> None:
    """Show one job: its steps, attempts, child jobs, result and error.

    ID is any id of the job, the beginning or end of a structjob id, or an operation (its newest
    job). If there are more than 20 steps or child jobs, the command shows counts by status, and
    those that failed, run or took longest.
    """
    with paged(wanted=pager and not as_json):
        execute(_show(id_, db, whole=whole, failed=failed, depth=depth, as_json=as_json, utc=utc))


async def _show(
    given: str,
    db: Database,
    *,
    whole: bool,
    failed: bool,
    depth: int | None,
    as_json: bool,
    utc: bool,
) -> None:
    async with reading(db) as reader:
        job = await resolve(reader, given)
        room = None if whole or as_json else ROOM
        found = await reader.lookups.overview(
            job, room=room, depth=depth, failed=failed and not as_json
        )
        attempts = await reader.jobs.history(job.id)
        missing = await reader.jobs.lost_events(job.id)
        tree = found.tree
        estimate = await reader.lookups.estimate(found)
        silences = await reader.lookups.silences(
            {job.session_id} if job.status == "running" and job.session_id is not None else ()
        )
        if as_json:
            about = {
                "attempts": attempts,
                "steps": tree.steps,
                "children": tree.children,
                "missing": missing,
                "estimate": estimate,
            }
            try:
                put_json({"job": job, **about})
            except RecursionError:
                why = f"the children of {job.id} are nested too deeply for one JSON value"
                raise Failure(why, hint=command_line("export", job.id, db=db.option)) from None
            return
        last = await _last_lines(reader, job)
        ended_by = (
            await reader.errors.list(job=job.id, outcome="final", limit=1)
            if job.status in FAILED
            else []
        )
        group = next(iter(ended_by), None)
        about_it = About(
            attempts=attempts,
            last=last,
            missing=missing,
            estimate=estimate,
            silence=next(iter(silences.values()), None),
            group=group,
        )
        JobPage(found, about_it, console(), utc=utc, whole=whole).print()
        suggest(command_line(*_next(job, found, failed=failed), db=db.option))
        if group is not None and group.count > 1:
            suggest(command_line("errors", "show", group.fingerprint[:LEAST], db=db.option))


def _next(job: JobRecord, found: Overview, *, failed: bool) -> tuple[str, ...]:
    """Return the most useful next command for *job*."""
    id_ = short(job.id)
    if job.status == "running":
        return ("logs", id_, "-f")
    bad = sum(found.jobs.get(status, 0) for status in FAILED)
    if (
        not failed
        and bad > sum(one.job.status in FAILED for one in found.picked)
        and not found.tree.children
    ):
        return ("show", id_, "--failed")
    if bad:
        shown = [one.job for one in found.picked] or [child.job for child in found.tree.children]
        worst = next((child for child in shown if child.status in FAILED), None)
        if worst is not None and job.status == "completed":
            return ("show", short(worst.id))
    if job.status == "crashed":
        return ("logs", id_, "--last", "50")
    wrong = job.status == "failed" or any(step.status in FAILED for step in found.tree.steps)
    return ("logs", id_, "-l", "warning") if wrong and job.job_type != "command" else ("logs", id_)


async def _last_lines(reader: Reader, job: JobRecord) -> list[EventRecord]:
    """Return the last lines before the end of a job that went wrong.

    Returns nothing if a traceback says more.
    """
    if job.status not in ("failed", "crashed") or (
        job.error is not None and raised(job.error.traceback)
    ):
        return []
    page = await reader.logs.list(job_id=job.id, children=True, order="desc", limit=4 * LAST)
    return [event for event in page if event.kind in ("log", "output")][:LAST][::-1]
