"""The sessions that log to this database, with their status."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.engine import RowMapping

from structjob.exceptions import SessionNotFound
from structjob.filter_checks import check_limit
from structjob.models import Gap, SessionRecord
from structjob.queries import rows
from structjob.queries.verify import STALE_AFTER, has_process
from structjob.statuses import SessionStatus
from structjob.store.contract import Fetch, Flush
from structjob.store.expressions import equals, utc_now
from structjob.store.sessions import CLOSED
from structjob.store.tables import gaps, jobs, sessions


@dataclass(frozen=True, slots=True)
class Silence:
    """A session that seems to be dead, but that is not recorded as ended.

    Args:
        seconds: Seconds since its last heartbeat, by the database's clock.
        process: Its process and host, as text.
    """

    seconds: float
    process: str


async def silences(fetch: Fetch, ids: Collection[int]) -> dict[int, Silence]:
    """Return those of the sessions *ids* that seem to be dead.

    They have not ended, and either sent no heartbeat for more than 1 minute, or their process no
    longer exists.
    """
    if not ids:
        return {}
    seen = func.coalesce(sessions.c.heartbeat_at, sessions.c.started_at).label("seen")
    statement = select(sessions, seen, utc_now().label("now")).where(
        sessions.c.session_id.in_(ids), sessions.c.ended_at.is_(None)
    )
    found = {}
    for row in await fetch(statement):
        exists = has_process(row)
        if row["now"] - row["seen"] > STALE_AFTER or exists is False:
            process = f"pid {row['pid']} on {row['host']}{', which exists: it may be stopped' if exists else ''}"
            found[row["session_id"]] = Silence(
                max((row["now"] - row["seen"]).total_seconds(), 0.0), process
            )
    return found


class Sessions:
    """Reads the sessions in the store."""

    def __init__(self, fetch: Fetch, flush: Flush) -> None:
        self._fetch = fetch
        self._flush = flush

    async def list(self, *, limit: int = 100, live: bool = False) -> builtins.list[SessionRecord]:
        """Return sessions, the newest first.

        Args:
            limit: Maximum number of sessions, 1–10,000; 100 by default.
            live: Only sessions that have not ended. False by default.

        Raises:
            InvalidFilter: if *limit* is out of range.
        """
        check_limit(limit, hint="")
        await self._flush()
        return await _read(self._fetch, limit, *((sessions.c.ended_at.is_(None),) if live else ()))

    async def get(self, session_id: int) -> SessionRecord:
        """Return one session.

        Raises:
            SessionNotFound: if there is no session with this id.
        """
        equals("session_id", sessions.c.session_id, session_id)
        await self._flush()
        found = await _read(self._fetch, 1, sessions.c.session_id == session_id)
        if not found:
            raise SessionNotFound(session_id)
        return found[0]

    async def gaps(self, session_id: int, *, limit: int = 1_000) -> builtins.list[Gap]:
        """Return the explained gaps of a session: ranges of numbers without a stored event.

        Args:
            session_id: The session.
            limit: Maximum number of ranges, 1–10,000; 1,000 by default. The first ones are
                returned.

        Raises:
            InvalidFilter: if *limit* is out of range.
            SessionNotFound: if there is no session with this id.
        """
        check_limit(limit, hint="")
        await self.get(session_id)
        columns = (gaps.c.session_id, gaps.c.first_seq, gaps.c.last_seq, gaps.c.reason)
        first = select(*columns).where(gaps.c.session_id == session_id).order_by(gaps.c.first_seq)
        return [Gap(**row) for row in await self._fetch(first.limit(limit))]


async def records(fetch: Fetch, ids: Sequence[int]) -> dict[int, SessionRecord]:
    """Return these sessions by id. Sessions without a row are left out."""
    found = await rows.read_many(fetch, _every(), sessions.c.session_id, ids)
    return {row["session_id"]: _session(row) for row in found}


async def _read(fetch: Fetch, limit: int, *conditions: ColumnElement[bool]) -> list[SessionRecord]:
    newest = _every().order_by(sessions.c.started_at.desc(), sessions.c.session_id)
    return [_session(row) for row in await fetch(newest.where(*conditions).limit(limit))]


def _every() -> Select[Any]:
    running = (
        select(func.count())
        .where(jobs.c.session_id == sessions.c.session_id, jobs.c.status == "running")
        .correlate(sessions)
    ).scalar_subquery()
    return select(sessions, utc_now().label("now"), running.label("running"))


def _session(row: RowMapping) -> SessionRecord:
    seen, ended = row["heartbeat_at"], row["ended_at"]
    age = None if seen is None else max((row["now"] - seen).total_seconds(), 0.0)
    exists = None
    if ended is not None:
        status = SessionStatus.CLOSED if row["end_reason"] == CLOSED else SessionStatus.DIED
    elif (exists := has_process(row)) is False:
        status = SessionStatus.DIED
    elif age is not None and age <= STALE_AFTER.total_seconds():
        status = SessionStatus.LIVE
    else:
        status = SessionStatus.SILENT
    return SessionRecord(
        **{column.name: row[column.name] for column in sessions.c},
        status=status,
        heartbeat_age_seconds=age,
        running_jobs=row["running"],
        process_exists=exists,
    )
