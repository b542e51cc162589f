"""The sessions that log to this database, with their status."""

from __future__ import annotations

import builtins
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func, select

from structjob.exceptions import InvalidFilter, SessionNotFound
from structjob.filters import MAX_LIMIT
from structjob.machine.host import process_exists
from structjob.models import Gap, SessionRecord
from structjob.queries import rows
from structjob.queries.verify import STALE_AFTER
from structjob.store.contract import Fetch, Flush
from structjob.store.expressions import equals, utc_now
from structjob.store.sessions import CLOSED
from structjob.store.tables import gaps, jobs, sessions


class Presence(StrEnum):
    """Whether a session gives signs of life."""

    LIVE = "live"
    """It sends heartbeats."""
    SILENT = "silent"
    """It has not ended, and its last heartbeat is more than 1 minute old. Its process may be
    stopped.
    """
    CLOSED = "closed"
    """It ended in the normal way."""
    DIED = "died"
    """Its process no longer exists, or sent no heartbeat for so long that another tracker ended the
    session.
    """


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """The present state of a session.

    Args:
        session: Its row. ``last_seq`` is the number of events that it has logged, as far as known.
        presence: Whether it gives signs of life.
        heartbeat_age: Seconds since its last heartbeat, by the database's clock; None without a
            heartbeat.
        running_jobs: The number of jobs that it is running.
        process_exists: Whether its process exists on this host. None if this cannot be determined
            from here (see `structjob.machine.host.process_exists`), or if the session has ended.
    """

    session: SessionRecord
    presence: Presence
    heartbeat_age: float | None
    running_jobs: int
    process_exists: bool | None = None


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
        exists = process_exists(row["host"], row["boot_id"], row["pid"], row["started_at"])
        if row["now"] - row["seen"] > STALE_AFTER or exists is False:
            process = f"pid {row['pid']} on {row['host']}{', which exists: it may be stopped' if exists else ''}"
            found[row["session_id"]] = Silence(
                max((row["now"] - row["seen"]).total_seconds(), 0.0), process
            )
    return found


class Sessions:
    """Reads the sessions in the store.

    Args:
        fetch: Runs a statement on the store and returns its rows.
        flush: Delivers pending events.
    """

    def __init__(self, fetch: Fetch, flush: Flush) -> None:
        self._fetch = fetch
        self._flush = flush

    async def list(self, *, limit: int = 100, live: bool = False) -> builtins.list[SessionStatus]:
        """Return sessions, the newest first.

        Args:
            limit: Maximum number of sessions, 1–10,000; 100 by default.
            live: Only sessions that have not ended. False by default.

        Raises:
            InvalidFilter: if *limit* is out of range.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
            raise InvalidFilter(
                f"limit must be a whole number from 1 to {MAX_LIMIT:,}, not {limit!r}"
            )
        await self._flush()
        return await self._read(limit, *((sessions.c.ended_at.is_(None),) if live else ()))

    async def get(self, session_id: int) -> SessionStatus:
        """Return one session.

        Raises:
            SessionNotFound: if there is no session with this id.
        """
        equals("session_id", sessions.c.session_id, session_id)
        await self._flush()
        found = await self._read(1, sessions.c.session_id == session_id)
        if not found:
            raise SessionNotFound(session_id)
        return found[0]

    async def gaps(self, session_id: int, *, limit: int = 1_000) -> builtins.list[Gap]:
        """Return the explained gaps of a session: ranges of numbers without a stored event.

        Args:
            session_id: The session.
            limit: Maximum number of ranges, 1,000 by default. The first ones are returned.

        Raises:
            SessionNotFound: if there is no session with this id.
        """
        await self.get(session_id)
        columns = (gaps.c.session_id, gaps.c.first_seq, gaps.c.last_seq, gaps.c.reason)
        statement = (
            select(*columns)
            .where(gaps.c.session_id == session_id)
            .order_by(gaps.c.first_seq)
            .limit(limit)
        )
        return [Gap(**row) for row in await self._fetch(statement)]

    async def _read(
        self, limit: int, *conditions: ColumnElement[bool]
    ) -> builtins.list[SessionStatus]:
        running = (
            select(func.count())
            .where(jobs.c.session_id == sessions.c.session_id, jobs.c.status == "running")
            .correlate(sessions)
        ).scalar_subquery()
        statement = select(sessions, utc_now().label("now"), running.label("running"))
        statement = (
            statement.where(*conditions)
            .order_by(sessions.c.started_at.desc(), sessions.c.session_id)
            .limit(limit)
        )
        return [_status(row) for row in await self._fetch(statement)]

    async def silences(self, ids: Collection[int]) -> dict[int, Silence]:
        """Return those of the sessions *ids* that seem to be dead.

        They have not ended, and either sent no heartbeat for more than 1 minute, or their process
        no longer exists.
        """
        await self._flush()
        return await silences(self._fetch, ids)


def _status(row: Any) -> SessionStatus:
    session = rows.session(row)
    age = (
        None
        if session.heartbeat_at is None
        else max((row["now"] - session.heartbeat_at).total_seconds(), 0.0)
    )
    exists = None
    if session.ended_at is not None:
        presence = Presence.CLOSED if session.end_reason == CLOSED else Presence.DIED
    elif (
        exists := process_exists(session.host, session.boot_id, session.pid, session.started_at)
    ) is False:
        presence = Presence.DIED
    else:
        presence = (
            Presence.LIVE
            if age is not None and age <= STALE_AFTER.total_seconds()
            else Presence.SILENT
        )
    return SessionStatus(session, presence, age, row["running"], exists)
