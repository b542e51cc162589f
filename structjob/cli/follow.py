"""Follow the log: show the existing lines, then each new one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from structjob.cli.database import reading
from structjob.cli.ids import resolve, resolved
from structjob.cli.lines import Screen
from structjob.models import Gap

if TYPE_CHECKING:
    from structjob.cli.database import Database, Reader
    from structjob.models import EventRecord

FOLLOWED = 10
"""Number of existing lines shown first when all jobs are followed."""

LOOK_EVERY = 0.5
"""Seconds between two checks for spools of dead processes, and for the end of the job."""


async def show_tail(
    db: Database,
    given: str | None,
    filters: Mapping[str, Any],
    *,
    as_json: bool,
    utc: bool,
    last: int | None,
    children: bool,
) -> None:
    """Show the lines that match, and then each new one, until the job ends if one is given.

    Args:
        db: The database.
        given: The job.
        filters: Fields of `structjob.LogFilter`.
        as_json: As lines of JSON.
        utc: Times in UTC.
        last: How many of the newest existing lines to show first; ``None``: all.
        children: Include the lines of child jobs.
    """
    async with reading(db) as reader:
        job_id = None if given is None else (await resolve(reader, given)).id
        scope = {} if job_id is None else {"job_id": job_id, "children": children}
        screen = Screen(as_json=as_json, utc=utc, about=job_id, at_once=True)
        wanted = {**scope, **await resolved(reader, filters)}
        async for event in _follow(reader, wanted, job_id, last):
            if isinstance(event, Gap):
                screen.report(event)
            else:
                screen.put(event)


async def _follow(
    reader: Reader, filters: Mapping[str, Any], job_id: str | None, last: int | None
) -> AsyncIterator[EventRecord | Gap]:
    async with reader.logs.tail(last=last, gaps=True, **filters) as tail:
        ended = False
        while True:
            events = await tail.poll(LOOK_EVERY)
            for event in events:
                yield event
            await reader.deliver_now_and_then()
            if not events:
                if ended and not tail.waiting:
                    return
                # A job's last lines may be stored a moment after its last status. So one more look
                # follows, or several while stored events wait for an earlier one that may come.
                ended = job_id is not None and (await reader.jobs.get(job_id)).status.terminal
