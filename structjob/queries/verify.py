"""Prove that no event was lost: every number that a session assigned is stored or explained.

A session numbers its events 1, 2, 3 … without holes, and deliberately dropped events leave a row in
``structjob_gaps``. So a number that is in neither table is a lost event, and without such numbers
no event was lost. A session's row also contains the number of events that the database had
confirmed. A database with fewer events was restored from a backup or failed over to an older copy,
or rows were deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, func, select, true
from sqlalchemy.engine import RowMapping

from structjob.machine.host import process_exists
from structjob.statuses import JobStatus
from structjob.store.contract import Fetch
from structjob.store.expressions import utc_now
from structjob.store.gaps import PRUNED, TAKEN, Range
from structjob.store.holes import Holes, find, size
from structjob.store.portions import portions
from structjob.store.sessions import PRESUMED
from structjob.store.tables import attempts, gaps, jobs, logs, sessions, steps

LOOKS_RESTORED = "it looks restored from a backup or failed over to an older copy, or rows were deleted without structjob"
"""The probable cause if a database holds fewer events than it had confirmed."""

STALE_AFTER = timedelta(seconds=60)
"""The age of the last heartbeat from which a session counts as dead.

This applies to sessions that have not ended, and whose process cannot be checked.
"""

SAMPLE = 20
"""Maximum number of ids that a `VerifyResult` lists for each kind of inconsistency. The counts are
exact.
"""

_SESSIONS_AT_ONCE = 500


class SessionState(StrEnum):
    """The result of the check of a session's events."""

    COMPLETE = "complete"
    """The session has ended, and every number is stored or explained."""
    INCOMPLETE = "incomplete"
    """Events were lost: numbers of an ended session are neither stored nor explained, or the
    database has fewer events than it confirmed.
    """
    LIVE = "live"
    """The session is running. Numbers that are not stored yet may still arrive."""
    UNKNOWN_TAIL = "unknown_tail"
    """Every known number is stored or explained, but the process ended and its spool was not found.
    There may have been more events.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionVerification:
    """The result for one session.

    Args:
        last_seq: The greatest assigned number that is known.
        stored: Number of distinct numbers in ``structjob_logs``.
        explained: Number of numbers that are not stored, but explained by a row of
            ``structjob_gaps``.
        pruned: How many of them were stored, and deleted at the end of their retention.
        holes: Ranges of numbers that are in neither table; in a live session, only those below the
            greatest stored number.
        duplicates: Further rows with a number that is already stored. The database's unique index
            forbids them.
        fewer: The number of events that the database had confirmed but no longer has.
        live: Whether the session is running.
    """

    session_id: int
    status: SessionState
    last_seq: int
    stored: int
    explained: int
    pruned: int = 0
    holes: tuple[Range, ...]
    duplicates: int
    fewer: int = 0
    live: bool = False

    @property
    def missing(self) -> int:
        """The number of lost events. For a `SessionState.LIVE` session, the number of events below
        the last stored one that have not arrived yet.
        """
        return self.fewer if self.live and self.fewer else size(self.holes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """Rows whose job has no row: their number, and the ids of some of the jobs."""

    attempts: int
    steps: int
    logs: int
    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """The result of `verify`.

    Args:
        sessions: One entry per session, by session id.
        orphans: Attempts, steps and events whose job has no row.
        running: The number of jobs that are still running in sessions that have ended.
        running_job_ids: The ids of some of them.
    """

    sessions: tuple[SessionVerification, ...]
    orphans: Orphans
    running: int
    running_job_ids: tuple[str, ...]

    @property
    def missing(self) -> int:
        """The number of lost events in all sessions, without events of `SessionState.LIVE` sessions
        that may still arrive.
        """
        return sum(
            session.missing for session in self.sessions if session.status is not SessionState.LIVE
        )

    @property
    def ok(self) -> bool:
        """Whether the data is complete: no hole, no duplicate, no orphan, no job left running, and
        no unknown tail.
        """
        good = (SessionState.COMPLETE, SessionState.LIVE)
        return (
            all(session.status in good and not session.duplicates for session in self.sessions)
            and not self.running
            and not (self.orphans.attempts or self.orphans.steps or self.orphans.logs)
        )


async def verify(fetch: Fetch) -> VerifyResult:
    """Compare the assigned numbers with the stored events.

    The work is done in the database with its indexes. The size of the result depends on the number
    of sessions and losses, not on the size of the log.
    """
    found = {session.session_id: session for session in await _look(fetch)}
    # Events that were pruned between two queries seem to be lost. A second look finds them
    # explained.
    doubtful = [
        session.session_id
        for session in found.values()
        if session.status is SessionState.INCOMPLETE
    ]
    for some in portions(doubtful, _SESSIONS_AT_ONCE):
        for session_id in some:
            del found[session_id]
        found |= {session.session_id: session for session in await _look(fetch, some)}
    running = (jobs.c.status == JobStatus.RUNNING.value) & jobs.c.session_id.in_(
        select(sessions.c.session_id).where(sessions.c.ended_at.is_not(None))
    )
    (left,) = await fetch(select(func.count().label("n")).select_from(jobs).where(running))
    return VerifyResult(
        sessions=tuple(found[session_id] for session_id in sorted(found)),
        orphans=await _orphans(fetch),
        running=left["n"],
        running_job_ids=tuple(
            row["id"]
            for row in await fetch(
                select(jobs.c.id).where(running).order_by(jobs.c.id).limit(SAMPLE)
            )
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """The counts of one session in ``structjob_logs`` and ``structjob_gaps``."""

    rows: int = 0
    lowest: int = 1
    highest: int = 0
    total: int = 0
    """The sum of all stored numbers."""
    explained: int = 0
    """The greatest explained number."""
    pruned: int = 0
    taken: int = 0
    """The number of events that the database had confirmed, and no longer stores as events."""

    def whole(self, last: int) -> bool:
        """Return whether the numbers 1 to *last* are all stored once. Then no search is
        necessary.
        """
        return (self.rows, self.lowest, self.highest, self.total) == (
            last,
            1,
            last,
            last * (last + 1) // 2,
        )


async def _look(fetch: Fetch, only: Sequence[int] | None = None) -> list[SessionVerification]:
    """Return the results of all sessions, or *only* of some."""

    def of(column: ColumnElement[int]) -> ColumnElement[bool]:
        return true() if only is None else column.in_(only)

    # Read the sessions first: a live session may then have more events stored than its row says,
    # but not fewer. Read the events before the gaps: events pruned in between are then counted
    # twice, but never missing.
    known = {
        row["session_id"]: row
        for row in await fetch(
            select(sessions, utc_now().label("now")).where(of(sessions.c.session_id))
        )
    }
    counts: dict[int, _Counts] = {}
    for row in await fetch(_stored().where(of(logs.c.session_id))):
        counts[row["session_id"]] = _Counts(
            rows=row["rows"], lowest=row["lowest"], highest=row["highest"], total=int(row["total"])
        )  # fmt: skip
    for row in await fetch(_given_up().where(of(gaps.c.session_id))):
        counts[row["session_id"]] = replace(
            counts.get(row["session_id"], _Counts()),
            explained=row["last"],
            pruned=int(row["pruned"]),
            taken=int(row["taken"]),
        )
    return [
        await _verify_one(
            fetch, session_id, known.get(session_id), counts.get(session_id, _Counts())
        )
        for session_id in sorted(known.keys() | counts.keys())
    ]


async def _verify_one(
    fetch: Fetch, session_id: int, session: RowMapping | None, counts: _Counts
) -> SessionVerification:
    last = max(session["last_seq"] if session is not None else 0, counts.highest, counts.explained)
    found = Holes() if counts.whole(last) else await find(fetch, session_id, counts.highest, last)
    tail = _tail(session)
    live = tail is SessionState.LIVE
    stored = counts.rows - found.repeated
    confirmed = session["confirmed"] if session is not None else 0
    # Only absent numbers can be lost, whatever the counts are.
    fewer = min(max(0, confirmed - stored - counts.taken), found.count)
    explained = last - stored - found.count
    # In a live session, numbers after the last stored one may still arrive.
    holes = [hole for hole in found.ranges if not live or hole[0] <= counts.highest]
    return SessionVerification(
        session_id=session_id,
        status=SessionState.INCOMPLETE if fewer or (holes and not live) else tail,
        last_seq=last,
        stored=stored,
        explained=explained,
        pruned=min(explained, counts.pruned),
        holes=tuple(holes),
        duplicates=found.repeated,
        fewer=fewer,
        live=live,
    )


def _tail(session: RowMapping | None) -> SessionState:
    """Return what is known about numbers after the last known one."""
    if session is None or session["end_reason"] in PRESUMED:
        return SessionState.UNKNOWN_TAIL
    if session["ended_at"] is not None:
        return SessionState.COMPLETE
    exists = has_process(session)
    if exists is None:  # then only its heartbeat shows whether it lives
        exists = session["now"] - (session["heartbeat_at"] or session["started_at"]) <= STALE_AFTER
    return SessionState.LIVE if exists else SessionState.UNKNOWN_TAIL


def has_process(session: RowMapping) -> bool | None:
    """Return whether the process of a session's row exists; None if that is not known here."""
    return process_exists(
        session["host"], session["boot_id"], session["pid"], session["started_at"]
    )


def _stored() -> Select[Any]:
    seq = logs.c.seq
    columns = (
        func.count().label("rows"),
        func.min(seq).label("lowest"),
        func.max(seq).label("highest"),
        func.sum(seq).label("total"),
    )
    return select(logs.c.session_id, *columns).group_by(logs.c.session_id)


def _given_up() -> Select[Any]:
    pruned = func.sum(
        case((gaps.c.reason == PRUNED, gaps.c.last_seq - gaps.c.first_seq + 1), else_=0)
    )
    columns = (
        func.max(gaps.c.last_seq).label("last"),
        pruned.label("pruned"),
        func.sum(TAKEN).label("taken"),
    )
    return select(gaps.c.session_id, *columns).group_by(gaps.c.session_id)


async def _orphans(fetch: Fetch) -> Orphans:
    counts: list[int] = []
    sample: set[str] = set()
    for table in (attempts, steps, logs):
        # Group by job first: a job has many rows in the log, and the index alone answers this
        # query.
        grouped = (
            select(table.c.job_id, func.count().label("n"))
            .where(table.c.job_id.is_not(None))
            .group_by(table.c.job_id)
            .subquery()
        )
        lonely = ~exists().where(jobs.c.id == grouped.c.job_id)
        (total,) = await fetch(
            select(func.coalesce(func.sum(grouped.c.n), 0).label("n")).where(lonely)
        )
        counts.append(int(total["n"]))
        if total["n"]:
            sample.update(
                row["job_id"]
                for row in await fetch(
                    select(grouped.c.job_id).where(lonely).order_by(grouped.c.job_id).limit(SAMPLE)
                )
            )
    return Orphans(
        attempts=counts[0], steps=counts[1], logs=counts[2], job_ids=tuple(sorted(sample)[:SAMPLE])
    )
