"""The lease of a session, which its heartbeat extends.

A session is presumed dead if another session has seen no new heartbeat for the length of a lease.
This is only a presumption: the session's rows keep its id and their numbers, so everything it
reports later revises them (`KEEP_NEWER`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    case,
    select,
    union_all,
    update,
)

from structjob.spool.session import Session
from structjob.store.contract import NO_NOTICES, LogIngest, Notices
from structjob.store.expressions import utc_now
from structjob.store.sessions import CLOSED, crash, report
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


def neighbors(session: Session, ids: Collection[int], size: int) -> Select[Any]:
    """Return a query for the sessions that *session* watches, and for the database's time.

    Among those that have not ended, they are the sessions of its host, the sessions *ids*, and the
    next *size* sessions of other hosts by id, where the smallest id follows the greatest. As ids
    are random, each session is watched from several hosts, and the sessions that all of them read
    grow with the number of hosts, not with its square. The time is the column ``now``.
    """
    elsewhere = OPEN.where(sessions.c.host != session.host)
    is_before = case((sessions.c.session_id > session.session_id, 0), else_=1)
    following = elsewhere.order_by(is_before, sessions.c.session_id).limit(size).subquery()
    watched = union_all(
        select(following),
        OPEN.where(sessions.c.host == session.host),
        OPEN.where(sessions.c.session_id.in_(sorted(ids))),
    ).subquery()
    return select(watched, utc_now().label("now"))


def is_session(*ids: int) -> ColumnElement[bool]:
    """Return the condition on `OPEN` that selects these sessions."""
    return sessions.c.session_id.in_(ids)


@dataclass(frozen=True, slots=True)
class Lease:
    """A session and its heartbeat, as they were read."""

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
    connection: Connection,
    ingest: LogIngest,
    lease: Lease,
    reason: str,
    notices: Notices = NO_NOTICES,
) -> Sequence[RowMapping] | None:
    """End a session that is presumed dead.

    Mark its running jobs as crashed, and store the *notices* of these jobs. Its holes stay
    unexplained, because the content of its spool is unknown.

    Returns:
        The jobs that became crashed, as they were before; ``None`` if the session has sent a
        heartbeat since, or another process has ended it first.
    """
    number = lease.session.session_id
    unbeaten = sessions.c.heartbeat_at == lease.heartbeat_at
    # If several processes try this, the database lets only one succeed.
    ended = connection.execute(
        update(sessions)
        .where(sessions.c.session_id == number, sessions.c.ended_at.is_(None), unbeaten)
        .values(ended_at=utc_now(), end_reason=reason)
    )
    return crash(connection, ingest, lease.session, notices) if ended.rowcount else None


def revive(
    connection: Connection, ingest: LogIngest, session_id: int, notices: Notices = NO_NOTICES
) -> Sequence[RowMapping] | None:
    """Reopen a live session that was presumed dead, and store the *notices* of its jobs.

    The session must record its running jobs again.

    Returns:
        What was withdrawn, see `structjob.store.withdrawal`; ``None`` if the session was not
        presumed dead.
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
    if not connection.execute(alive).rowcount:
        return None
    withdrawn = withdraw(connection, session_id, alive=True)
    report(connection, ingest, notices.session, notices.of((), withdrawn))
    return withdrawn
