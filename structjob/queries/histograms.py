"""The number of events by level and interval, as far as the time limit allows."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import BigInteger, ColumnElement, Select, String, func, literal, select, union_all
from sqlalchemy.sql.elements import BooleanClauseList
from sqlalchemy.sql.selectable import CompoundSelect

from structjob.exceptions import InvalidFilter
from structjob.filter_checks import check_whole
from structjob.numeric import is_number
from structjob.queries import rows
from structjob.queries.buckets import EPOCH, FIRST, MICROSECOND, start_of
from structjob.queries.paging import SCAN_LIMIT, Listing, Stretch, every_condition, first, stretches
from structjob.queries.volume import MANY, unusual_values
from structjob.statistics import LogBar, LogHistogram
from structjob.store.contract import Fetch
from structjob.store.tables import USUAL, logs, unusual

MOST = 240
"""Maximum number of intervals: a chart cannot show more columns."""

_FEW = 4
"""Events of unusual levels are read instead of all events, if there are this many times fewer."""

_ALL = ""
"""Stands for the level in the count of all events."""

_now = time.monotonic
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
    """Raise `InvalidFilter` if one of the numbers is out of range."""
    check_whole("buckets", buckets, 1, MOST)
    if not is_number(max_seconds) or not max_seconds > 0:
        raise InvalidFilter(f"max_seconds must be a positive number, not {max_seconds!r}")


async def count(
    fetch: Fetch,
    listing: Listing,
    since: datetime | None,
    until: datetime | None,
    buckets: int,
    max_seconds: float,
    others: tuple[ColumnElement[bool], ...] | None,
) -> LogHistogram:
    """Count the events of *listing*, the newest first.

    Each interval is a range of the index that the listing is read with. This is several times as
    fast as computing the interval of each event. Where most events have the usual level, the events
    themselves are not read: they are all events of the index without those of other levels.

    Args:
        listing: What to count, in descending order.
        others: The conditions that find the listing's events of other levels than the usual one;
            see `structjob.queries.log_listing.of_unusual_levels`.
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
    until = until or newest + MICROSECOND
    edges = _edges(since, until, buckets)
    counts = [Counter[str]() for _ in edges[1:]]
    looked_at = 0
    counted_since: datetime | None = None
    levels: list[str] | None = None
    async for stretch in stretches(fetch, listing):
        if _now() > ends_at and stretch.begins is not None:
            counted_since = stretch.begins
            break
        full = stretch.ends is not None
        looked_at += SCAN_LIMIT if full else await _size(fetch, listing, stretch)
        rare: tuple[ColumnElement[bool], ...] | None = None
        if full and others is not None:
            levels = await unusual_values(fetch, "level") if levels is None else levels
            if len(levels) < MANY:
                rare = await _rare(fetch, others, levels, stretch, edges)
        found = [Counter[str]() for _ in counts]
        for row in await fetch(_counted(listing, stretch, edges, rare)):
            # events stored in the meantime may be after the last interval
            if 0 <= (number := row["number"] // _width(edges)) < len(found):
                found[number][row["level"]] += row["n"]
        for sums, some in zip(counts, found, strict=True):
            if (total := some.pop(_ALL, None)) is not None:
                some[USUAL["level"]] = total - some.total()
            sums.update(some)
    return LogHistogram(
        bars=tuple(
            LogBar(since=begin, until=end, counts=dict(+sums))
            for (begin, end), sums in zip(itertools.pairwise(edges), counts, strict=True)
        ),
        width_seconds=_width(edges) / 1_000_000,
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


async def _rare(
    fetch: Fetch,
    others: tuple[ColumnElement[bool], ...],
    levels: Sequence[str],
    stretch: Stretch,
    edges: Sequence[datetime],
) -> tuple[ColumnElement[bool], ...] | None:
    """Return the conditions of the events of unusual levels, if these are few.

    The events of all jobs in the time of a full chunk are counted.
    """
    rare = (
        unusual("level"),
        logs.c.level.in_(levels),
        logs.c.ts >= stretch.ends,
        logs.c.ts <= (stretch.begins or edges[-1]),
    )
    many = SCAN_LIMIT // _FEW
    number = await rows.count_upto(fetch, many, select(literal(1)).where(*rare))
    return None if number == many else (*rare, *others)


def _counted(
    listing: Listing,
    stretch: Stretch,
    edges: Sequence[datetime],
    rare: tuple[ColumnElement[bool], ...] | None,
) -> CompoundSelect[Any] | Select[Any]:
    """Return the query for the number of events by ``number`` and level.

    ``number`` is the start of an interval, in microseconds after the first one. With *rare*, which
    finds the events of unusual levels, the level `_ALL` has the number of all events.
    """
    conditions = every_condition(listing)
    ranges = _ranges(conditions, stretch, edges, logs.c.level if rare is None else None)
    # Many jobs, which a subquery finds. Run it once, and not for each interval.
    if not ranges or any(isinstance(one, BooleanClauseList) for one in listing.branches):
        return _each((*conditions, *stretch.conditions), edges)
    # One statement, so that all numbers refer to the same moment.
    return union_all(
        *ranges, *([] if rare is None else [_each((*rare, *stretch.conditions), edges)])
    )


def _each(conditions: tuple[ColumnElement[bool], ...], edges: Sequence[datetime]) -> Select[Any]:
    """Return the query that computes the interval of each event."""
    number = start_of(logs.c.ts, edges[0], _width(edges))
    events = select(number.label("number"), logs.c.level).where(*conditions).subquery()
    return select(events.c.number, events.c.level, func.count().label("n")).group_by(
        events.c.number, events.c.level
    )


def _ranges(
    conditions: tuple[ColumnElement[bool], ...],
    stretch: Stretch,
    edges: Sequence[datetime],
    by: ColumnElement[str] | None,
) -> list[Select[Any]]:
    """Return a query for each interval of which a chunk has a part: by a column, or for all
    events.
    """
    level = literal(_ALL, String()) if by is None else by
    found: list[Select[Any]] = []
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        after, before = stretch.ends, stretch.begins
        if (after and end <= after) or (before and begin > before):
            continue
        # Each bound once, because SQLite may choose the wider one of two. Where the chunk has all
        # of the interval, its own conditions would only be slow.
        starts_inside = not (after and begin <= after)
        ends_inside = not (before and end > before)
        bounds = (
            *((logs.c.ts >= begin,) if starts_inside else ()),
            *((logs.c.ts < end,) if ends_inside else ()),
            *(() if starts_inside and ends_inside else stretch.conditions),
        )
        counted = (
            select(
                literal(number * _width(edges), BigInteger()).label("number"),
                level.label("level"),
                func.count().label("n"),
            )
            .select_from(logs)
            .where(*conditions, *bounds)
        )
        found.append(cast("Select[Any]", counted if by is None else counted.group_by(by)))
    return found


def _width(edges: Sequence[datetime]) -> int:
    """Return the length of an interval in microseconds."""
    return (edges[1] - edges[0]) // MICROSECOND


def _edges(since: datetime, until: datetime, buckets: int) -> list[datetime]:
    """Return the starts of the intervals between two times, and the end of the last one."""
    for width in _WIDTHS:
        if (since - FIRST) < width:
            break
        begin = since - (since - EPOCH) % width
        number = -((begin - until) // width)
        if number <= buckets:
            return [begin + n * width for n in range(max(1, number) + 1)]
    # a single interval, or centuries
    width = max(-((since - until) // buckets), MICROSECOND)
    return [*(since + n * width for n in range(buckets)), until]
