"""Read sessions by their numbers, for a tail.

This finds the next numbers, the explanations of missing numbers, and missing events that have
arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, func, or_, select
from sqlalchemy.engine import RowMapping

from structjob.models import Gap
from structjob.queries import event_rows, rows
from structjob.queries.paging import Listing
from structjob.queries.tail_position import MISSING, Item, Number, Position, advance
from structjob.store.contract import Fetch
from structjob.store.expressions import together
from structjob.store.gaps import Range
from structjob.store.portions import portions
from structjob.store.tables import gaps, jobs, logs
from structjob.store.types import moment

JOB_PATIENCE = 2.0
"""Seconds to wait for the row of an event's job, if the parent of the job must be known."""

PAGE = 1_000
"""Maximum number of rows per read."""

LOOKBACK = 10_000
"""Number of numbers per session among which a starting tail searches for missing ones."""

EXPLANATIONS = 1_000
"""Maximum number of rows of ``structjob_gaps`` per read."""

BRANCHES = 50
"""Maximum number of sessions, or of ranges of numbers, in one query."""

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a tail.

    Args:
        matching: The condition that an event matches.
        listing: Creates the listing of the stored events for which a further condition holds.
        family_of: The jobs whose descendants also match, including descendants that are created
            later.
    """

    matching: ColumnElement[bool]
    listing: Callable[[ColumnElement[bool]], Awaitable[Listing]]
    family_of: tuple[str, ...]


class SessionReader:
    """Reads the numbers of sessions.

    Args:
        query: The query of the tail.
        build: Creates an event from a `structjob.queries.event_rows.Line`, for events that are read
            together with their numbers. None: only numbers are read.
    """

    def __init__(self, fetch: Fetch, query: Query, build: Callable[[Any], Any] | None) -> None:
        self._fetch = fetch
        self._query = query
        self._build = build
        self._most_match = True
        """Whether most events match, so that it pays to read them whole."""
        self._unknown_jobs: dict[str, float] = {}
        """Jobs without a row, and since when they are waited for."""

    async def missing(self, known: Mapping[int, int]) -> list[tuple[int, Range]]:
        """Return the numbers that are neither stored nor explained.

        It examines the latest numbers of each session.
        """
        found: list[tuple[int, Range]] = []
        for session_id, upto in await self._incomplete(known):
            least = max(upto - LOOKBACK, 0)
            following = func.lead(logs.c.seq).over(order_by=logs.c.seq).label("next")
            recent = (logs.c.session_id == session_id) & (logs.c.seq > least)
            pairs = select(logs.c.seq, following).where(recent, logs.c.seq <= upto).subquery()
            breaks = await self._fetch(
                select(pairs).where(pairs.c.next > pairs.c.seq + 1).order_by(pairs.c.seq)
            )
            if not breaks:
                continue
            explained = await self.explanations({session_id: (least + 1, upto)})
            for row in breaks:
                successor = Number(0, row["next"], _NEVER, matches=False)
                holes, _ = advance(
                    session_id, row["seq"], [successor], explained.get(session_id, ()), row["next"]
                )
                gaps_ = [
                    item.gap
                    for item in holes
                    if item.gap is not None and item.gap.reason == MISSING
                ]
                found += [(session_id, (gap.first_seq, gap.last_seq)) for gap in gaps_]
        return found

    async def _incomplete(self, known: Mapping[int, int]) -> list[tuple[int, int]]:
        """Return those of the sessions of whose latest numbers one may be missing."""
        short = [number for number, upto in known.items() if 0 < upto <= LOOKBACK]
        complete = set()
        for some in portions(short, PAGE):
            counted = select(
                logs.c.session_id, func.count().label("stored"), func.max(logs.c.seq).label("last")
            )
            for row in await self._fetch(
                counted.where(logs.c.session_id.in_(some)).group_by(logs.c.session_id)
            ):
                if row["stored"] == row["last"]:
                    complete.add(row["session_id"])
        return [(number, upto) for number, upto in known.items() if upto and number not in complete]

    async def beyond(
        self, position: Position, of: Sequence[RowMapping]
    ) -> tuple[dict[int, list[Number]], set[int]]:
        """Return the next numbers of some sessions, and the sessions that have more."""
        limit = max(PAGE // len(of), 20)
        build = self._build if self._most_match else None
        columns: list[ColumnElement[Any]] = (
            [logs.c.id, logs.c.session_id, logs.c.seq, logs.c.ts]
            if build is None
            else [*event_rows.COLUMNS]
        )
        columns.append(case((self._query.matching, 1), else_=0).label("matches"))
        if self._query.family_of:
            known = or_(
                logs.c.job_id.is_(None),
                logs.c.job_id.in_(self._query.family_of),
                exists().where(jobs.c.id == logs.c.job_id),
            )
            columns.append(case((known, 1), else_=0).label("known"))
            if build is None:
                columns.append(logs.c.job_id)
        branches = [
            select(*columns)
            .where(
                logs.c.session_id == row["session_id"],
                logs.c.seq > position.sessions[row["session_id"]],
            )
            .order_by(logs.c.seq)
            .limit(limit)
            for row in of
        ]
        numbers: dict[int, list[Number]] = {row["session_id"]: [] for row in of}
        cut: set[int] = set()
        matched = 0
        found_rows = await self._fetch(_together(branches))
        for row in sorted(found_rows, key=lambda row: int(row["seq"])):
            session_id = row["session_id"]
            if self._query.family_of and not row["known"] and self._is_waited_for(row["job_id"]):
                cut.add(session_id)
            if session_id in cut:
                continue
            ts = row["ts"] if build is None else moment(row["ts"])
            matches = bool(row["matches"])
            matched += matches
            event = build(event_rows.line(row)) if build is not None and matches else None
            numbers[session_id].append(Number(row["id"], row["seq"], ts, matches, event=event))
        self._most_match = 2 * matched >= len(found_rows)
        full = {session_id for session_id, found in numbers.items() if len(found) == limit}
        for row in of:
            session_id, found = row["session_id"], numbers[row["session_id"]]
            last = found[-1].seq if found else position.sessions[session_id]
            if (
                row["ended_at"] is not None
                and row["last_seq"] > last
                and session_id not in full | cut
            ):
                # Nothing more can come, except explained numbers.
                found.append(
                    Number(0, row["last_seq"], row["ended_at"], matches=False, absent=True)
                )
        return numbers, full

    def _is_waited_for(self, job_id: str) -> bool:
        """Return whether the row of a job may still arrive.

        The first event of a job may be stored slightly before the row.
        """
        now = asyncio.get_running_loop().time()
        return now - self._unknown_jobs.setdefault(job_id, now) < JOB_PATIENCE

    async def explanations(self, ranges: Mapping[int, Range]) -> dict[int, list[Gap]]:
        """Return the explanations of missing numbers in these ranges, by first number.

        If there are very many, only some are returned.
        """
        branches = [
            select(gaps)
            .where(
                gaps.c.session_id == session_id, gaps.c.last_seq >= first, gaps.c.first_seq <= last
            )
            .order_by(gaps.c.first_seq)
            .limit(EXPLANATIONS)
            for session_id, (first, last) in ranges.items()
        ]
        found: dict[int, list[Gap]] = {}
        for row in sorted(
            await self._fetch(_together(branches)), key=lambda row: int(row["first_seq"])
        ):
            found.setdefault(row["session_id"], []).append(rows.gap(row))
        return found

    async def found_after_all(self, position: Position) -> list[Item]:
        """Return the events that were missing and have arrived."""
        ranges = [
            (session_id, *missing)
            for session_id, several in position.absent.items()
            for missing in several
        ]
        items = []
        for some in portions(ranges, BRANCHES):
            branches = [
                select(
                    logs.c.id,
                    logs.c.session_id,
                    logs.c.seq,
                    logs.c.ts,
                    case((self._query.matching, 1), else_=0).label("matches"),
                )
                .where(logs.c.session_id == session_id, logs.c.seq >= first, logs.c.seq <= last)
                .order_by(logs.c.seq)
                .limit(PAGE)
                for session_id, first, last in some
            ]
            items += [
                Item(
                    row["session_id"],
                    row["seq"],
                    row["ts"],
                    row["id"] if row["matches"] else None,
                    late=True,
                )
                for row in await self._fetch(_together(branches))
            ]
        return sorted(items, key=lambda item: (item.ts, item.session_id, item.upto))


def _together(branches: Sequence[Select[Any]]) -> Select[Any]:
    """Return one query that combines several, each with its own order and limit."""
    return branches[0] if len(branches) == 1 else select(together(branches).subquery())
