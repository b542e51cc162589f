"""The lease of a session: its heartbeat keeps it. Whoever has seen a heartbeat stand still for a
lease presumes the session dead.

A presumption only: the session's rows keep its id and their numbers, so that whatever it says later
revises them (`KEEP_NEWER`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, select, update

from structjob.spool.session import Session
from structjob.store.expressions import utc_now
from structjob.store.ingest import NO_NOTICES, Ingest, Notices
from structjob.store.sessions import CLOSED, crash
from structjob.store.tables import sessions
from structjob.store.withdrawal import withdraw

OPEN = select(
    sessions.c.session_id,
    sessions.c.host,
    sessions.c.boot_id,
    sessions.c.pid,
    sessions.c.started_at,
    sessions.c.heartbeat_at,
).where(sessions.c.ended_at.is_(None))
"""The sessions that have not ended."""


def is_session(session_id: int) -> ColumnElement[bool]:
    """Return the condition on `OPEN` that it is this session."""
    return sessions.c.session_id == session_id


@dataclass(frozen=True, slots=True)
class Lease:
    """A session and its heartbeat, as they were seen."""

    session: Session
    heartbeat_at: datetime | None

    @classmethod
    def of(cls, row: RowMapping) -> Lease:
        """Return the lease in a *row* of `OPEN`."""
        started = row["started_at"].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return cls(
            Session(row["session_id"], row["host"], row["boot_id"], row["pid"], started_at=started),
            row["heartbeat_at"],
        )


def reap(
    connection: Connection, ingest: Ingest, lease: Lease, reason: str, notices: Notices = NO_NOTICES
) -> Sequence[RowMapping] | None:
    """End a session that is presumed dead, mark what it left running as crashed, and store the
    *notices* of it.

    Its holes stay unexplained: nobody knows what its spool still holds.

    Returns:
        The jobs that became crashed, as they were; ``None`` if its heart has beaten since, or
        another process was faster.
    """
    number = lease.session.session_id
    unbeaten = (
        sessions.c.heartbeat_at == lease.heartbeat_at
        if lease.heartbeat_at is not None
        else sessions.c.heartbeat_at.is_(None)
    )
    # Of several who try, the database lets one through.
    ended = connection.execute(
        update(sessions)
        .where(sessions.c.session_id == number, sessions.c.ended_at.is_(None), unbeaten)
        .values(ended_at=utc_now(), end_reason=reason)
    )
    return crash(connection, ingest, lease.session, notices) if ended.rowcount else None


def revive(connection: Connection, session_id: int) -> Sequence[RowMapping] | None:
    """Take back that a session that lives was presumed dead. What it has running it must record
    anew.

    Returns:
        What was withdrawn, see `structjob.store.withdrawal`; ``None`` if it was not presumed dead.
    """
    presumed = (
        (sessions.c.session_id == session_id)
        & sessions.c.ended_at.is_not(None)
        & (sessions.c.end_reason != CLOSED)
    )
    alive = (
        update(sessions)
        .where(presumed)
        .values(ended_at=None, end_reason=None, heartbeat_at=utc_now())
    )
    return (
        withdraw(connection, session_id, alive=True) if connection.execute(alive).rowcount else None
    )
