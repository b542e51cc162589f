"""Find the sessions that may have new events, for a tail.

While few sessions are living, each look examines all of them. While there are many, it examines
those that the newest rows of the log belong to, and a part of the others. Ids do not increase in
the order of the commits, so the newest rows may lack a session; the parts contain every session
within about 30 seconds. So ids decide when a session is read, never what is read of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal_column, or_, select
from sqlalchemy.engine import RowMapping

from structjob.queries.tail_position import Position
from structjob.store.contract import Fetch
from structjob.store.expressions import together, utc_now
from structjob.store.sessions import PRESUMED
from structjob.store.tables import logs, sessions

FEW = 100
"""Number of living sessions from which on a look examines a part of them."""

INTERVAL = 1.0
"""Seconds between two parts while there are many sessions. Looks in between read the newest rows
only.
"""

PARTS = 30
"""Number of parts in a round, within which every known session is examined."""

ROUND = PARTS * INTERVAL
"""Seconds between two rounds that examine ended sessions, too."""

NEWEST = 20_000
"""Maximum number of newest rows of the log of which one look reads the sessions. If there are more,
all sessions are examined at once.
"""

IN_FLIGHT = 2_000
"""Ids of transactions that were open at the first look are presumed to be at most this much lower
than the greatest one.
"""

AT_START = 1_000
"""Number of sessions that a starting tail examines with one query."""

OVERLAP = timedelta(seconds=60)
"""A session may have ended this long before the last look without its end having been seen."""

_UNSEEN_FOR = timedelta(days=30)
"""How long a session that was presumed dead is still read.

Its spool was not found, and may still be delivered.
"""


_LONG_AGO = float("-inf")
_IN_PART: ColumnElement[int] = literal_column("1").label("part")
_BESIDE: ColumnElement[int] = literal_column("0").label("part")


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look.

    Args:
        rows: The examined sessions by id. Each row has the session's greatest stored number
            (``newest``) and the time by the database's clock (``now``).
        over: Known sessions from which no more events can come.
        more: Whether other sessions must be examined at once.
    """

    rows: dict[int, RowMapping]
    over: list[int]
    more: bool


class SessionFinder:
    """Finds the sessions that may have new events."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._many = False
        """Whether there are more living sessions than one look examines."""
        self._behind = True
        """Whether a whole round is due at once."""
        self._after = 0
        """The session after which the next part of the living sessions starts."""
        self._living: set[int] = set()
        """The living sessions that this round has examined."""
        self._others: list[int] | None = None
        """Known sessions to examine in this round although they do not seem to be living."""
        self._others_at = self._part_at = self._floors_at = _LONG_AGO
        self._floors = (0, 0)
        """The greatest ids of the log at the part before the last one, and at the last one."""
        self._newest = 0
        """The greatest id of the log at the last look."""

    async def at_start(self, position: Position) -> list[RowMapping]:
        """Return the sessions whose position a starting tail records: living sessions, sessions
        that have ended lately, and sessions that were presumed dead.
        """
        assert position.looked_at is not None  # noqa: S101 -- set before the first query
        unseen = sessions.c.end_reason.in_(PRESUMED) & (
            sessions.c.ended_at >= position.looked_at - _UNSEEN_FOR
        )
        found: list[RowMapping] = []
        after, others = 0, [_that(or_(_ended_lately(position), unseen))]
        while True:
            rows = await self._fetch(_examined(_living(after, AT_START), *others))
            found += rows
            part = [row["session_id"] for row in rows if row["part"]]
            if len(part) < AT_START:
                self._others, self._others_at = [], asyncio.get_running_loop().time()
                return found
            after, others = max(part), []

    async def look(self, position: Position, unfinished: Collection[int]) -> Look:
        """Examine the sessions that may have new events.

        Args:
            position: The position of the tail.
            unfinished: Sessions to examine in any case, because there is more to read.
        """
        now = asyncio.get_running_loop().time()
        if self._others is None:  # the position may have been recorded long ago
            self._others, self._others_at = sorted(position.sessions), now
        if self._many and not self._behind and now - self._part_at < INTERVAL:
            return await self._look_at_newest(unfinished)
        size = max(FEW, len(position.sessions) // PARTS)
        others = self._others[:size]
        candidates = [_living(self._after, size), _that(_ended_lately(position))]
        candidates += _these({*others, *unfinished})
        if self._many and not self._behind:
            candidates.append(_of_newest(self._floors[0]))
        rows = {row["session_id"]: row for row in await self._fetch(_examined(*candidates))}
        self._part_at = now
        self._others = self._others[size:]
        part = [session_id for session_id, row in rows.items() if row["part"]]
        self._living.update(part)
        if len(part) == size:
            self._many, self._after = True, max(part)
        else:
            self._many = self._after > 0
            self._end_round(position, now)
        if rows:
            self._raise_floors(next(iter(rows.values()))["newest_id"] or 0, now)
        over = [session_id for session_id in others if _is_over(rows.get(session_id))]
        return Look(rows, over, more=self._behind)

    async def _look_at_newest(self, unfinished: Collection[int]) -> Look:
        """Examine the sessions of the events that were stored since the last look."""
        rows = await self._fetch(_examined(_of_newest(self._newest), *_these(unfinished)))
        if rows:
            self._check_that_all_were_seen(self._newest, rows[0]["newest_id"] or 0)
            self._newest = rows[0]["newest_id"] or 0
        return Look({row["session_id"]: row for row in rows}, [], more=self._behind)

    def _end_round(self, position: Position, now: float) -> None:
        assert self._others is not None  # noqa: S101 -- set by the first look
        if not self._others:
            self._behind = False
            if now - self._others_at >= ROUND:
                # Ended sessions, too: the spool of a session that was presumed dead may be
                # delivered late.
                self._others = sorted(position.sessions.keys() - self._living)
                self._others_at = now
        self._after, self._living = 0, set()

    def _raise_floors(self, newest: int, now: float) -> None:
        if self._floors_at == _LONG_AGO:
            # transactions that are open at this moment may have lower ids
            self._floors, self._floors_at = (newest - IN_FLIGHT, newest), now
        elif self._many and not self._behind:
            self._check_that_all_were_seen(self._floors[0], newest)
        # One part later, the rows that are committed until then have been read once more.
        if now - self._floors_at >= INTERVAL:
            self._floors, self._floors_at = (self._floors[1], newest), now
        self._newest = newest

    def _check_that_all_were_seen(self, floor: int, newest: int) -> None:
        if newest - floor > NEWEST:
            self._behind, self._after, self._living = True, 0, set()


def _ended_lately(position: Position) -> ColumnElement[bool]:
    assert position.looked_at is not None  # noqa: S101 -- set before the first query
    return sessions.c.ended_at >= position.looked_at - OVERLAP


def _living(after: int, size: int) -> Select[Any]:
    """Return a query for the next *size* living sessions."""
    return (
        select(sessions.c.session_id, _IN_PART)
        .where(sessions.c.ended_at.is_(None), sessions.c.session_id > after)
        .order_by(sessions.c.session_id)
        .limit(size)
    )


def _that(condition: ColumnElement[bool]) -> Select[Any]:
    return select(sessions.c.session_id, _BESIDE).where(condition)


def _these(ids: Collection[int]) -> list[Select[Any]]:
    return [_that(sessions.c.session_id.in_(sorted(ids)))] if ids else []


def _of_newest(floor: int) -> Select[Any]:
    """Return a query for the sessions of the newest rows of the log, those with ids above
    *floor*.
    """
    newest = (
        select(logs.c.session_id)
        .where(logs.c.id > floor)
        .order_by(logs.c.id.desc())
        .limit(NEWEST)
        .subquery()
    )
    return select(newest.c.session_id, _BESIDE).distinct()


def _examined(*candidates: Select[Any]) -> Select[Any]:
    """Return a query for these sessions, each with its greatest stored number."""
    every = together(candidates).subquery()
    once = (
        select(every.c.session_id, func.max(every.c.part).label("part"))
        .group_by(every.c.session_id)
        .subquery()
    )
    # Not `max`, because MariaDB would read all numbers of a session to find the greatest.
    newest = (
        select(logs.c.seq)
        .where(logs.c.session_id == sessions.c.session_id)
        .order_by(logs.c.seq.desc())
        .limit(1)
    )
    return select(
        sessions.c.session_id,
        sessions.c.ended_at,
        sessions.c.end_reason,
        sessions.c.last_seq,
        once.c.part,
        newest.scalar_subquery().label("newest"),
        select(func.max(logs.c.id)).scalar_subquery().label("newest_id"),
        utc_now().label("now"),
    ).join_from(once, sessions, sessions.c.session_id == once.c.session_id)


def _is_over(row: RowMapping | None) -> bool:
    """Return whether no more events can come from a session."""
    if row is None:
        return True
    ended = row["ended_at"]
    if ended is None or ended >= row["now"] - 2 * OVERLAP:
        return False
    return row["end_reason"] not in PRESUMED or ended < row["now"] - _UNSEEN_FOR
