"""``structjob jobs --watch``: redraws a table every second, or, without a terminal, prints a line
for each change.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from structjob.cli.database import reading
from structjob.cli.ids import resolved
from structjob.cli.options import none_found
from structjob.cli.screen import console, put_json_line, put_lines
from structjob.cli.tables import table
from structjob.exceptions import JobNotFound
from structjob.text.appearance import colour_of, local, symbol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from structjob.cli.database import Database, Reader
    from structjob.models import JobRecord

WATCH_EVERY = 1.0
"""Seconds between two updates."""

_AROUND = 4
"""Lines of the screen that are not for jobs: the summary, the headings, and room for the cursor."""


async def watch_jobs(
    db: Database, filters: Mapping[str, Any], *, as_json: bool, utc: bool, grouped: bool
) -> None:
    """Show the matching jobs, running ones first, until Ctrl-C.

    Args:
        db: The database.
        filters: Fields of `structjob.JobFilter`.
        as_json: As lines of JSON, one for each change.
        utc: Times in UTC.
        grouped: On a terminal: show child jobs below their root.
    """
    screen = console()
    async with reading(db) as reader:
        filters = await resolved(reader, filters)
        if as_json or not screen.is_terminal:
            await _report(reader, filters, screen, as_json=as_json, utc=utc)
        else:
            await _draw(reader, filters, screen, db, utc=utc, grouped=grouped)


async def _found(reader: Reader, filters: Mapping[str, Any], limit: int) -> list[JobRecord]:
    """Return the running jobs, newest first, and as many of the others as fit."""
    wanted = {**filters, "limit": limit}
    if "status" in filters:
        return list(await reader.jobs.list(**wanted))
    running = list(await reader.jobs.list(**{**wanted, "status": "running"}))
    seen = {job.id for job in running}
    return (running + [job for job in await reader.jobs.list(**wanted) if job.id not in seen])[
        :limit
    ]


async def _draw(
    reader: Reader,
    filters: Mapping[str, Any],
    screen: Console,
    db: Database,
    *,
    utc: bool,
    grouped: bool,
) -> None:
    from rich.live import Live
    from rich.text import Text

    if grouped:
        filters = {**filters, "root_only": True}
    with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            await reader.deliver_now_and_then()
            jobs = await _found(
                reader, filters, min(int(filters["limit"]), max(screen.height - _AROUND, 1))
            )
            lines = [Text(none_found("jobs", db), style="dim")]
            if jobs:
                below = await reader.lookups.families(jobs) if grouped else None
                roots = filters.get("root_only", False)
                lines = await table(
                    reader, jobs, screen, utc=utc, dated=False, roots=roots, below=below
                )
            live.update(Text("\n").join([_head(jobs, utc=utc), *lines]), refresh=True)
            await asyncio.sleep(WATCH_EVERY)


def _head(jobs: list[JobRecord], *, utc: bool) -> Text:
    from rich.text import Text

    counts = Counter(job.status for job in jobs)
    parts = [
        Text(f"{symbol(status)} {count} {status}", style=colour_of(status))
        for status, count in counts.items()
    ]
    now = Text(f"{local(datetime.now(UTC), utc=utc):%H:%M:%S}", style="dim")
    return Text("  ").join([now, *parts, Text("Ctrl-C ends", style="dim")])


async def _report(
    reader: Reader, filters: Mapping[str, Any], screen: Console, *, as_json: bool, utc: bool
) -> None:
    reported: dict[str, tuple[Any, ...]] = {}
    headed = False
    while True:
        await reader.deliver_now_and_then()
        found = (await _found(reader, filters, int(filters["limit"])))[::-1]
        # A reported job that is no longer among the newest may have ended or have been deleted in
        # the meantime.
        there = {job.id for job in found}
        for id_ in [
            id_
            for id_, (status, *_) in reported.items()
            if id_ not in there and not status.terminal
        ]:
            try:
                found.append(await reader.jobs.get(id_))
            except JobNotFound:
                del reported[id_]
        changed = [job for job in found if reported.get(job.id) != _state(job)]
        reported |= {job.id: _state(job) for job in changed}
        if as_json:
            for job in changed:
                put_json_line(job)
        elif changed:
            heading, *lines = await table(
                reader, changed, screen, utc=utc, roots=filters.get("root_only", False)
            )
            put_lines(lines if headed else [heading, *lines], screen)
            headed = True
            screen.file.flush()
        await asyncio.sleep(WATCH_EVERY)


def _state(job: JobRecord) -> tuple[Any, ...]:
    """Return the values whose change is worth a line; for progress, every 10 %."""
    return (
        job.status,
        job.attempt,
        job.current_step,
        None if job.percent_complete is None else int(job.percent_complete // 10),
    )
