"""Proving that nothing was lost: every number that a session gave out is stored, or its absence is explained.

A session numbers its events 1, 2, 3 … without holes, and whatever is given up on purpose leaves a row in ``structjob_gaps``. So a
number that is in neither is an event that was lost, and if there is no such number, none was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select, true
from sqlalchemy.engine import RowMapping

from structjob.models import JobStatus
from structjob.store.expressions import utc_now
from structjob.store.gaps import PRUNED
from structjob.store.paging import Fetch
from structjob.store.sessions import PRESUMED
from structjob.store.tables import attempts, gaps, jobs, logs, sessions, steps

STALE_AFTER = timedelta(seconds=60)
"""A session that has not ended and whose last heartbeat is older than this is taken for dead."""

SAMPLE = 20
"""How many ids a `Verification` lists of each kind of inconsistency; the counts beside them are exact."""

_SESSIONS_AT_ONCE = 500

Range = tuple[int, int]
"""The first and the last number of a run, both included."""


class SessionState(StrEnum):
    """What is known of a session's events."""

    COMPLETE = "complete"
    """Every number is stored or explained."""
    INCOMPLETE = "incomplete"
    """Some numbers are neither: those events were lost."""
    LIVE = "live"
    """The session goes on: numbers that are not stored yet may be under way."""
    UNKNOWN_TAIL = "unknown tail"
    """All that is known of is there, but the process vanished, or its spool did: it may have given out further numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionVerification:
    """What was found of one session.

    Args:
        last_seq: The greatest number known to have been given out.
        stored: Different numbers that are in ``structjob_logs``.
        explained: Numbers that are not there, and a row of ``structjob_gaps`` says why.
        pruned: How many of them were stored, and deleted when their time was over.
        holes: Runs of numbers that are in neither; in a live session, those below the greatest stored number only.
        duplicates: Rows beyond the first of their number; the database's unique index forbids them.
    """

    session_id: int
    status: SessionState
    last_seq: int
    stored: int
    explained: int
    pruned: int = 0
    holes: tuple[Range, ...]
    duplicates: int

    @property
    def missing(self) -> int:
        """How many events the holes stand for."""
        return sum(last - first + 1 for first, last in self.holes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """Rows whose job has no row: how many there are, and the ids of some of the jobs."""

    attempts: int
    steps: int
    logs: int
    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found.

    Args:
        sessions: One entry for each session, by its id.
        orphans: Attempts, steps and events whose job's row is absent.
        running: How many jobs are still running in sessions that have ended.
        running_job_ids: The ids of some of them.
    """

    sessions: tuple[SessionVerification, ...]
    orphans: Orphans
    running: int
    running_job_ids: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many events were lost, all sessions together; those of live sessions may be under way and do not count."""
        return sum(session.missing for session in self.sessions if session.status is not SessionState.LIVE)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against completeness: no hole, no duplicate, no orphan, no job left running, no unknown tail."""
        good = (SessionState.COMPLETE, SessionState.LIVE)
        return (
            all(session.status in good and not session.duplicates for session in self.sessions)
            and not self.running
            and not (self.orphans.attempts or self.orphans.steps or self.orphans.logs)
        )


async def verify(fetch: Fetch, *, stale_after: timedelta = STALE_AFTER) -> Verification:
    """Compare what was given out with what is stored.

    The work is done in the database, by its indexes; what comes back is of the size of the sessions and of the losses, not of the log.

    Args:
        fetch: Runs a statement on the store and returns its rows.
        stale_after: See `STALE_AFTER`.
    """
    found = {session.session_id: session for session in await _look(fetch, stale_after)}
    # What was pruned between two queries seems to be lost: it is not there any more, or explained, when one looks at it again.
    doubtful = [session.session_id for session in found.values() if session.status is SessionState.INCOMPLETE]
    for start in range(0, len(doubtful), _SESSIONS_AT_ONCE):
        some = doubtful[start : start + _SESSIONS_AT_ONCE]
        for session_id in some:
            del found[session_id]
        found |= {session.session_id: session for session in await _look(fetch, stale_after, some)}
    running = (jobs.c.status == JobStatus.RUNNING.value) & jobs.c.session_id.in_(
        select(sessions.c.session_id).where(sessions.c.ended_at.is_not(None))
    )
    (left,) = await fetch(select(func.count().label("n")).select_from(jobs).where(running))
    return Verification(
        sessions=tuple(found[session_id] for session_id in sorted(found)),
        orphans=await _orphans(fetch),
        running=left["n"],
        running_job_ids=tuple(row["id"] for row in await fetch(select(jobs.c.id).where(running).order_by(jobs.c.id).limit(SAMPLE))),
    )


async def _look(fetch: Fetch, stale_after: timedelta, only: Sequence[int] | None = None) -> list[SessionVerification]:
    """Return what is found of all sessions, or *only* of some."""

    def of(column: ColumnElement[int]) -> ColumnElement[bool]:
        return true() if only is None else column.in_(only)

    # The sessions first: a live one may only have more stored than it is asked for, never less.
    known = {row["session_id"]: row for row in await fetch(select(sessions, utc_now().label("now")).where(of(sessions.c.session_id)))}
    stored = {row["session_id"]: row for row in await fetch(_stored().where(of(logs.c.session_id)))}
    given_up = {row["session_id"]: row for row in await fetch(_given_up().where(of(gaps.c.session_id)))}
    absent: dict[int, list[Range]] = defaultdict(list)
    duplicates: Counter[int] = Counter()
    for row in await fetch(_breaks(of(logs.c.session_id))):
        if row["next"] == row["seq"]:
            duplicates[row["session_id"]] += 1
        else:
            absent[row["session_id"]].append((row["seq"] + 1, row["next"] - 1))

    last: dict[int, int] = {}
    for session_id in sorted(known.keys() | stored.keys() | given_up.keys()):
        told = known[session_id]["last_seq"] if session_id in known else 0
        lowest, highest = (stored[session_id]["lowest"], stored[session_id]["highest"]) if session_id in stored else (1, 0)
        last[session_id] = max(told, highest, given_up[session_id]["last"] if session_id in given_up else 0)
        ends = ((1, lowest - 1), (highest + 1, last[session_id]))
        # What was stored since the first query was asked is left to the second pair.
        within = [hole for hole in absent[session_id] if hole[1] < highest]
        absent[session_id] = within + [(first, final) for first, final in ends if first <= final]

    explanations = await _explanations(fetch, [session_id for session_id in last if absent[session_id]])
    found = []
    for session_id, end in last.items():
        rows, highest = (stored[session_id]["rows"], stored[session_id]["highest"]) if session_id in stored else (0, 0)
        tail = _tail(known.get(session_id), stale_after)
        holes = sorted(_without(absent[session_id], explanations.get(session_id, [])))
        count = rows - duplicates[session_id]
        explained = end - count - sum(final - first + 1 for first, final in holes)
        if tail is SessionState.LIVE:
            holes = [hole for hole in holes if hole[0] <= highest]  # what lies beyond is under way
        found.append(
            SessionVerification(
                session_id=session_id,
                status=tail if tail is SessionState.LIVE or not holes else SessionState.INCOMPLETE,
                last_seq=end,
                stored=count,
                explained=explained,
                pruned=min(explained, int(given_up[session_id]["pruned"])) if session_id in given_up else 0,
                holes=tuple(holes),
                duplicates=duplicates[session_id],
            )
        )
    return found


def _tail(session: RowMapping | None, stale_after: timedelta) -> SessionState:
    """Return what is known of the numbers beyond the last that is known of."""
    if session is None or session["end_reason"] in PRESUMED:
        return SessionState.UNKNOWN_TAIL
    if session["ended_at"] is not None:
        return SessionState.COMPLETE
    seen = session["heartbeat_at"] or session["started_at"]
    return SessionState.LIVE if session["now"] - seen <= stale_after else SessionState.UNKNOWN_TAIL


def _stored() -> Select[Any]:
    columns = (func.count().label("rows"), func.min(logs.c.seq).label("lowest"), func.max(logs.c.seq).label("highest"))
    return select(logs.c.session_id, *columns).group_by(logs.c.session_id)


def _given_up() -> Select[Any]:
    pruned = func.sum(case((gaps.c.reason == PRUNED, gaps.c.last_seq - gaps.c.first_seq + 1), else_=0))
    return select(gaps.c.session_id, func.max(gaps.c.last_seq).label("last"), pruned.label("pruned")).group_by(gaps.c.session_id)


def _breaks(of: ColumnElement[bool]) -> Select[Any]:
    """Return the stored numbers that another than the next number follows, but for gaps that one row of ``structjob_gaps`` explains.

    A log that was thinned on purpose has about as many of those as it has rows, so they stay in the database.
    """
    following = func.lead(logs.c.seq).over(partition_by=logs.c.session_id, order_by=logs.c.seq).label("next")
    pairs = select(logs.c.session_id, logs.c.seq, following).where(of).subquery()
    this, next_ = pairs.c.seq, pairs.c.next
    explained = exists().where(
        gaps.c.session_id == pairs.c.session_id,
        gaps.c.first_seq == this + 1,  # by the primary key; what takes several rows to explain is sorted out afterwards
        gaps.c.last_seq >= next_ - 1,
    )
    return select(pairs).where(or_(next_ == this, and_(next_ > this + 1, ~explained))).order_by(pairs.c.session_id, this)


async def _explanations(fetch: Fetch, session_ids: Sequence[int]) -> dict[int, list[Range]]:
    found: dict[int, list[Range]] = defaultdict(list)
    for start in range(0, len(session_ids), _SESSIONS_AT_ONCE):
        some = session_ids[start : start + _SESSIONS_AT_ONCE]
        statement = select(gaps).where(gaps.c.session_id.in_(some)).order_by(gaps.c.session_id, gaps.c.first_seq)
        for row in await fetch(statement):
            found[row["session_id"]].append((row["first_seq"], row["last_seq"]))
    return found


def _without(ranges: Sequence[Range], explained: Sequence[Range]) -> Iterator[Range]:
    """Yield what is left of *ranges* without *explained*, which is sorted and may overlap."""
    disjoint: list[Range] = []
    for first, last in explained:
        if disjoint and first <= disjoint[-1][1] + 1:
            disjoint[-1] = (disjoint[-1][0], max(last, disjoint[-1][1]))
        else:
            disjoint.append((first, last))
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


async def _orphans(fetch: Fetch) -> Orphans:
    counts: list[int] = []
    sample: set[str] = set()
    for table in (attempts, steps, logs):
        # By job first: a log has many rows for each, and its index alone answers this.
        grouped = select(table.c.job_id, func.count().label("n")).where(table.c.job_id.is_not(None)).group_by(table.c.job_id).subquery()
        lonely = ~exists().where(jobs.c.id == grouped.c.job_id)
        (total,) = await fetch(select(func.coalesce(func.sum(grouped.c.n), 0).label("n")).where(lonely))
        counts.append(int(total["n"]))
        if total["n"]:
            sample.update(
                row["job_id"] for row in await fetch(select(grouped.c.job_id).where(lonely).order_by(grouped.c.job_id).limit(SAMPLE))
            )
    return Orphans(attempts=counts[0], steps=counts[1], logs=counts[2], job_ids=tuple(sorted(sample)[:SAMPLE]))
