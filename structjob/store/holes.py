"""Find the numbers of one session that are neither stored nor explained.

They are found in portions, by comparing adjacent numbers. No query reads more than `PORTION` rows,
however long the session is. So no query blocks the server, or the event loop that reads its result,
for long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, and_, exists, func, or_, select

from structjob.store.contract import Fetch
from structjob.store.gaps import Range, merged
from structjob.store.tables import gaps, logs
from structjob.store.worker import in_own_thread

PORTION = 10_000
"""Stored numbers that one query compares."""

ANSWER = 1_000
"""Maximum number of rows that one query returns. The limit exists because rows are built on the
event loop.
"""

_MANY = 1_000
"""Number of ranges above which a thread compares them, because it would take too long on the
event loop.
"""


@dataclass(slots=True)
class Holes:
    """The holes of one session.

    Attributes:
        ranges: Runs of numbers that are neither stored nor explained, in ascending order.
        repeated: Number of rows that repeat a number; the database's unique index forbids them.
    """

    ranges: list[Range] = field(default_factory=list)
    repeated: int = 0

    @property
    def count(self) -> int:
        """How many numbers the ranges contain."""
        return size(self.ranges)


def size(ranges: Sequence[Range]) -> int:
    """Return how many numbers *ranges* contain; the ranges must not overlap."""
    return sum(last - first + 1 for first, last in ranges)


async def find(fetch: Fetch, session_id: int, stored: int, last: int) -> Holes:
    """Return the holes of a session among the numbers 1 to *last*.

    *stored* is the greatest of these numbers that is stored.
    """
    found = Holes()
    absent: list[Range] = []
    after = 0
    while after < stored:
        end = await fetch(_numbers(session_id, after).offset(PORTION - 1).limit(1))
        upto = min(stored, end[0]["seq"]) if end else stored
        at = after
        while True:
            breaks = await fetch(_breaks(session_id, at, upto).limit(ANSWER))
            for row in breaks:
                if row["seq"] == row["before"]:
                    found.repeated += 1
                else:
                    absent.append((row["before"] + 1, row["seq"] - 1))
            if len(breaks) < ANSWER:
                break
            at = breaks[-1]["seq"]
        after = upto
    if stored < last:
        absent.append((stored + 1, last))
    explained = await _explanations(fetch, session_id, absent)
    if len(absent) + len(explained) > _MANY:
        found.ranges = await in_own_thread(lambda: list(without(absent, explained)))
    else:
        found.ranges = list(without(absent, explained))
    return found


def _numbers(session_id: int, after: int) -> Select[Any]:
    return (
        select(logs.c.seq)
        .where(logs.c.session_id == session_id, logs.c.seq > after)
        .order_by(logs.c.seq)
    )


def _breaks(session_id: int, after: int, upto: int) -> Select[Any]:
    """Return the stored numbers that do not directly follow the number before.

    Gaps that one row of ``structjob_gaps`` explains are left out. A partly pruned log has about as
    many of these as it has rows, so the database filters them.
    """
    # A fixed frame: MariaDB takes quadratic time for a frame that begins with the first row.
    before = func.coalesce(func.lag(logs.c.seq).over(order_by=logs.c.seq), after).label("before")
    pairs = (
        select(logs.c.seq, before)
        .where(logs.c.session_id == session_id, logs.c.seq > after, logs.c.seq <= upto)
        .subquery()
    )
    explained = exists().where(
        gaps.c.session_id == session_id,
        # by the primary key; gaps that need several rows to explain are filtered afterwards
        gaps.c.first_seq == pairs.c.before + 1,
        gaps.c.last_seq >= pairs.c.seq - 1,
    )
    return (
        select(pairs.c.seq, pairs.c.before)
        .where(
            or_(pairs.c.seq == pairs.c.before, and_(pairs.c.seq > pairs.c.before + 1, ~explained))
        )
        .order_by(pairs.c.seq)
    )


async def _explanations(fetch: Fetch, session_id: int, absent: Sequence[Range]) -> list[Range]:
    """Return the ranges in ``structjob_gaps`` between the first and the last absent number."""
    found: list[Range] = []
    if not absent:
        return found
    first, last = absent[0][0], absent[-1][1]
    overlapping = (
        (gaps.c.session_id == session_id) & (gaps.c.last_seq >= first) & (gaps.c.first_seq <= last)
    )
    after = -1
    while True:
        some = await fetch(
            select(gaps.c.first_seq, gaps.c.last_seq)
            .where(overlapping, gaps.c.first_seq > after)
            .order_by(gaps.c.first_seq)
            .limit(ANSWER)
        )
        found += [(row["first_seq"], row["last_seq"]) for row in some]
        if len(some) < ANSWER:
            return found
        after = found[-1][0]


def without(ranges: Sequence[Range], explained: Sequence[Range]) -> Iterator[Range]:
    """Yield *ranges* without *explained*, which may overlap."""
    disjoint = merged(explained)
    ends = [last for _, last in disjoint]
    for first, last in ranges:
        at = first
        for gap_first, gap_last in disjoint[bisect_left(ends, first) :]:
            if gap_first > last:
                break
            if at < gap_first:
                yield at, gap_first - 1
            at = gap_last + 1
        if at <= last:
            yield at, last
