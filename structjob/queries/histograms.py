"""The number of events by level and interval, as far as the time limit allows."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, func, literal, select, union_all
from sqlalchemy.sql.elements import BooleanClauseList
from sqlalchemy.sql.selectable import CompoundSelect

from structjob.exceptions import InvalidFilter
from structjob.queries.buckets import microseconds
from structjob.queries.paging import SCAN_LIMIT, Listing, Stretch, every_condition, first, stretches
from structjob.statistics import LogBar, LogHistogram
from structjob.store.contract import Fetch
from structjob.store.tables import logs

MOST = 240
"""Maximum number of intervals: a chart cannot show more columns."""

_now = time.monotonic
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OLDEST = datetime.min.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_WIDTHS = tuple(
    timedelta(**{unit: number})
    for unit, numbers in (
        ("milliseconds", (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        ("seconds", (1, 2, 5, 10, 15, 30)),
        ("minutes", (1, 2, 5, 10, 15, 30)),
        ("hours", (1, 2, 3, 6, 12)),
        ("days", (1, 2, 7, 14, 28, 56, 112, 224, 448, 896)),
    )
    for number in numbers
)
"""The round lengths of an interval."""


def check(buckets: int, max_seconds: float) -> None:
    """Raise `InvalidFilter` if one of the numbers is invalid.

    Raises:
        InvalidFilter: if a number is out of range.
    """
    if not isinstance(buckets, int) or isinstance(buckets, bool) or not 1 <= buckets <= MOST:
        raise InvalidFilter(f"buckets must be a whole number from 1 to {MOST}, not {buckets!r}")
    if (
        not isinstance(max_seconds, (int, float))
        or isinstance(max_seconds, bool)
        or not max_seconds > 0
    ):
        raise InvalidFilter(f"max_seconds must be a positive number, not {max_seconds!r}")


async def count(
    fetch: Fetch,
    listing: Listing,
    since: datetime | None,
    until: datetime | None,
    buckets: int,
    max_seconds: float,
) -> LogHistogram:
    """Count the events of *listing*, the newest first.

    Each interval is a range of the index that the listing is read with. This is several times as
    fast as computing the interval of each event.

    Args:
        fetch: Runs a statement on the store and returns its rows.
        listing: What to count, in descending order.
        since: Start time of the listing, if it has one.
        until: End time of the listing, if it has one.
        buckets: Maximum number of intervals.
        max_seconds: Start no further query after this number of seconds.
    """
    ends_at = _now() + max_seconds
    newest = await _edge(fetch, listing)
    if newest is None:
        return LogHistogram(bars=(), width_seconds=0.0, partial=False, looked_at=0)
    if since is None:
        since = await _edge(fetch, replace(listing, order="asc")) or newest
    until = until or newest + _MICROSECOND
    edges = _edges(since, until, buckets)
    counts = [Counter[str]() for _ in edges[1:]]
    looked_at = 0
    counted_since: datetime | None = None
    async for stretch in stretches(fetch, listing):
        if _now() > ends_at and stretch.begins is not None:
            counted_since = stretch.begins
            break
        looked_at += (
            SCAN_LIMIT if stretch.ends is not None else await _size(fetch, listing, stretch)
        )
        statement, unit = _counted(listing, stretch, edges)
        for row in await fetch(statement):
            # events stored in the meantime may be after the last interval
            if 0 <= (number := row["number"] // unit) < len(counts):
                counts[number][row["level"]] += row["n"]
    return LogHistogram(
        bars=tuple(
            LogBar(since=begin, until=end, counts=dict(found))
            for (begin, end), found in zip(itertools.pairwise(edges), counts, strict=True)
        ),
        width_seconds=(edges[1] - edges[0]).total_seconds(),
        partial=counted_since is not None,
        looked_at=looked_at,
        counted_since=counted_since,
    )


async def _edge(fetch: Fetch, listing: Listing) -> datetime | None:
    """Return the time of the first event of a listing, without its searches."""
    found = await fetch(first(replace(listing, limit=1, searches=()), (logs.c.ts, logs.c.id)))
    return found[0]["ts"] if found else None


async def _size(fetch: Fetch, listing: Listing, stretch: Stretch) -> int:
    conditions = every_condition(replace(listing, searches=()))
    counted = select(func.count().label("n")).select_from(logs)
    (row,) = await fetch(counted.where(*conditions, *stretch.conditions))
    return int(row["n"])


def _counted(
    listing: Listing, stretch: Stretch, edges: Sequence[datetime]
) -> tuple[CompoundSelect[Any] | Select[Any], int]:
    """Return the query for the number of events by ``number`` and level, and a divisor.

    ``number`` divided by the divisor is the number of the interval.
    """
    conditions = (*every_condition(listing), *stretch.conditions)
    some = [
        (number, begin, end)
        for number, (begin, end) in enumerate(itertools.pairwise(edges))
        if (stretch.ends is None or end > stretch.ends)
        and (stretch.begins is None or begin <= stretch.begins)
    ]
    if not some or any(isinstance(one, BooleanClauseList) for one in listing.branches):
        # Many jobs, which a subquery finds. Run it once, and not for each interval.
        width = (edges[1] - edges[0]) // _MICROSECOND
        elapsed = microseconds(logs.c.ts) - (edges[0] - _EPOCH) // _MICROSECOND
        events = (
            select((elapsed - elapsed % width).label("number"), logs.c.level)
            .where(*conditions)
            .subquery()
        )
        return (
            select(events.c.number, events.c.level, func.count().label("n")).group_by(
                events.c.number, events.c.level
            ),
            width,
        )
    return _ranges(conditions, some), 1


def _ranges(
    conditions: tuple[ColumnElement[bool], ...], some: Sequence[tuple[int, datetime, datetime]]
) -> CompoundSelect[Any]:
    return union_all(
        *(
            select(
                literal(number, Integer()).label("number"), logs.c.level, func.count().label("n")
            )
            .where(*conditions, logs.c.ts >= begin, logs.c.ts < end)
            .group_by(logs.c.level)
            for number, begin, end in some
        )
    )


def _edges(since: datetime, until: datetime, buckets: int) -> list[datetime]:
    """Return the starts of the intervals between two times, and the end of the last one."""
    for width in _WIDTHS:
        if (since - _OLDEST) < width:
            break
        begin = since - (since - _EPOCH) % width
        number = -((begin - until) // width)
        if number <= buckets:
            return [begin + n * width for n in range(max(1, number) + 1)]
    # a single interval, or centuries
    width = max(-((since - until) // buckets), _MICROSECOND)
    return [*(since + n * width for n in range(buckets)), until]
