"""Events: pages, one event with its neighbors, counts."""

from __future__ import annotations

import re
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from structjob.models import EventContext, EventRecord
from structjob.statistics import LogHistogram
from structjob.web.answers import Count, PageOf, Reads, page_of, reads
from structjob.web.params import Asked, LogMatch, LogQuery, NoQuery, Query
from structjob.web.problems import Refused

router = APIRouter(tags=["logs"])

_NAME = re.compile(r"(\d{1,19}):(\d{1,19})", re.ASCII)


class HistogramQuery(LogMatch):
    """Parameters of a histogram."""

    buckets: int = Field(default=60, ge=1, le=240, description="Stretches of time at most.")


class ContextQuery(Query):
    """Parameters of an event's neighbors."""

    before: int = Field(default=5, ge=0, le=1_000, description="Events before it.")
    after: int = Field(default=5, ge=0, le=1_000, description="Events after it.")
    within: Literal["job", "session"] | None = Field(
        default=None, description="Whose neighbours; by default its job's, if it has one."
    )


@reads(router, "/logs", PageOf[EventRecord], problems=(404,))
async def list_logs(reader: Reads, query: Asked[LogQuery]) -> Any:
    """List events, oldest first."""
    start = None if query.start is None else identity(query.start)
    return page_of(await reader.logs.list(query.filter(), cursor=query.cursor, start=start))


@reads(router, "/logs/count", Count)
async def count_logs(reader: Reads, query: Asked[LogMatch]) -> Any:
    """Count the matching events."""
    return Count(await reader.logs.count(**query.values()))


@reads(router, "/logs/histogram", LogHistogram)
async def count_logs_by_time(reader: Reads, query: Asked[HistogramQuery]) -> Any:
    """Count the matching events by level and time interval."""
    return await reader.logs.histogram(buckets=query.buckets, **query.values("buckets"))


@reads(router, "/logs/{name}", EventRecord, problems=(404,))
async def get_event(reader: Reads, name: str, query: Asked[NoQuery]) -> Any:
    """Return one event, named SESSION:SEQ."""
    return (await reader.logs.around(identity(name), before=0, after=0)).event


@reads(router, "/logs/{name}/context", EventContext, problems=(404,))
async def get_context(reader: Reads, name: str, query: Asked[ContextQuery]) -> Any:
    """Return an event, named SESSION:SEQ, with the events before and after it."""
    return await reader.logs.around(
        identity(name), before=query.before, after=query.after, within=query.within
    )


def identity(name: str) -> tuple[int, int]:
    """Return the session and the number that *name* contains.

    Raises:
        Refused: with 404, if *name* is not of the form SESSION:SEQ.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise Refused(
            404, f"event not found: {name}; an event is named SESSION:SEQ, such as 4711:12"
        )
    return int(found[1]), int(found[2])
