"""The life of a session in the database: it is entered, its heart beats, it is ended by itself or by whoever finds it dead."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    update,
)

from structjob.clock import moment
from structjob.session import Session
from structjob.store.expressions import utc_now
from structjob.store.ingest import Crashed, Ingest, Tell
from structjob.store.tables import attempts, cancellations, gaps, jobs, logs, sessions, steps

CLOSED = "closed"
"""``end_reason`` of a session that ended by itself."""
DIED = "died"
"""``end_reason`` of a session whose process is gone, and of whose spool all is stored."""
VANISHED = "vanished"
"""``end_reason`` of a session whose host has no such process any more; nobody has seen its spool."""
LEASE_EXPIRED = "lease_expired"
"""``end_reason`` of a session whose heartbeat stood still for a lease; nobody has seen its spool."""
PRESUMED = (VANISHED, LEASE_EXPIRED)
"""Those of sessions whose last number nobody knows."""

# Bound, it would not be seen that the index of running attempts and steps serves the query.
_RUNNING: ColumnElement[str] = literal_column("'running'")
_LAST_LINES = 5
"""How many of a crashed job's last lines are told."""

# The numbers that are neither stored nor explained, as ranges: before each known number, between it and the one before.
_HOLES = text(
    """
WITH known (lowest, highest) AS (
  SELECT seq, seq FROM structjob_logs WHERE session_id = :session
  UNION ALL SELECT first_seq, last_seq FROM structjob_gaps WHERE session_id = :session
  UNION ALL SELECT :last + 1, :last + 1
), placed AS (
  SELECT lowest, max(highest) OVER (ORDER BY lowest, highest ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached FROM known
)
SELECT coalesce(reached, 0) + 1 AS first_seq, lowest - 1 AS last_seq FROM placed WHERE lowest > coalesce(reached, 0) + 1
"""
).bindparams(bindparam("session", type_=BigInteger()), bindparam("last", type_=BigInteger()))


def enter(connection: Connection, session: Session) -> None:
    """Enter *session*; harmless if it is there."""
    values = {
        "session_id": session.session_id,
        "host": session.host,
        "boot_id": session.boot_id,
        "pid": session.pid,
        "service": session.service,
        "version": session.version,
        "started_at": moment(session.started_at),
        "last_seq": 0,
    }
    row = [literal(value, sessions.c[name].type) for name, value in values.items()]
    absent = ~exists(select(sessions.c.session_id).where(sessions.c.session_id == session.session_id))
    connection.execute(insert(sessions).from_select([*values, "heartbeat_at"], select(*row, utc_now()).where(absent)))


def beat(connection: Connection, session_id: int, last_seq: int) -> None:
    """Say by the database's clock that the session lives, and how many numbers it gave out."""
    known = sessions.c.last_seq
    highest = case((known < last_seq, last_seq), else_=known)
    connection.execute(update(sessions).where(sessions.c.session_id == session_id).values(heartbeat_at=utc_now(), last_seq=highest))


def reach(connection: Connection, session_id: int, last_seq: int) -> None:
    """Say how many numbers the session gave out."""
    behind = (sessions.c.session_id == session_id) & (sessions.c.last_seq < last_seq)
    connection.execute(update(sessions).where(behind).values(last_seq=last_seq))


def end(
    connection: Connection, ingest: Ingest, session: Session, last_seq: int, reason: str, *, unexplained: str, tell: Tell
) -> list[Crashed]:
    """Do as `structjob.store.ingest.Store.end_session` says."""
    number = session.session_id
    enter(connection, session)
    # Locked: whoever else ends it at the same moment waits here, and finds it done.
    told = connection.execute(select(sessions.c.last_seq).where(sessions.c.session_id == number).with_for_update()).scalar_one()
    stored, highest = connection.execute(select(func.count(), func.max(logs.c.seq)).where(logs.c.session_id == number)).one()
    known = connection.execute(select(func.max(gaps.c.last_seq)).where(gaps.c.session_id == number)).scalar_one()
    last = max(highest or 0, known or 0, told, last_seq)
    if stored < last:
        holes = connection.execute(_HOLES, {"session": number, "last": last}).mappings().all()
        explained = [{**hole, "session_id": number, "reason": unexplained} for hole in holes]
        if explained:
            ingest.upsert(connection, "structjob_gaps", msgspec.json.encode(explained))
    connection.execute(
        update(sessions)
        .where(sessions.c.session_id == number)
        .values(
            last_seq=last,
            ended_at=func.coalesce(sessions.c.ended_at, utc_now()),
            end_reason=case((sessions.c.end_reason.not_in(PRESUMED), sessions.c.end_reason), else_=reason),
        )
    )
    crashed = crash(connection, session)
    if crashed:
        # Here and not through the spool: should this process be killed next, it is said nevertheless, and once.
        teller, lines = tell(crashed)
        if lines:
            ingest.events(connection, teller, lines)
    return crashed


def _last_sign(connection: Connection, number: int) -> ColumnElement[datetime]:
    """Return when a session is known to have lived last: when it died nobody knows, and it is found out about any time later."""
    beat = connection.execute(select(sessions.c.heartbeat_at).where(sessions.c.session_id == number)).scalar_one_or_none()
    logged = connection.execute(
        select(logs.c.ts).where(logs.c.session_id == number).order_by(logs.c.seq.desc()).limit(1)
    ).scalar_one_or_none()
    last = max((sign for sign in (beat, logged) if sign is not None), default=None)
    return utc_now() if last is None else literal(last, sessions.c.heartbeat_at.type)


def crash(connection: Connection, session: Session) -> list[Crashed]:
    """Mark what *session* left running; say so only where its latest change of state is the session's own."""
    number = session.session_id
    running = select(jobs).where(jobs.c.session_id == number, jobs.c.status == "running").order_by(jobs.c.id).with_for_update()
    crashed = []
    for job in connection.execute(running).mappings().all():
        open_steps = connection.scalars(
            select(steps.c.name)
            .where(steps.c.job_id == job["id"], steps.c.attempt == job["attempt"], steps.c.status == "running")
            .order_by(steps.c.seq)
        ).all()
        last_lines = connection.scalars(
            select(logs.c.message)
            .where(logs.c.job_id == job["id"], logs.c.session_id == number, logs.c.kind.in_(("log", "output")))
            .order_by(logs.c.ts.desc(), logs.c.id.desc())
            .limit(_LAST_LINES)
        ).all()
        crashed.append(Crashed(dict(job), tuple(open_steps), tuple(last_lines)[::-1]))
    died = _last_sign(connection, number)
    why = f"process {session.pid} on {session.host} ended without finishing it"
    for table in (jobs, attempts, steps):
        # The session and its state_seq stay as they are: should its own later truth turn up, it wins.
        connection.execute(
            update(table)
            .where(table.c.session_id == number, table.c.status == _RUNNING)
            .values(status="crashed", completed_at=func.coalesce(table.c.completed_at, died), error_type="Crashed", error_message=why)
        )
    connection.execute(delete(cancellations).where(cancellations.c.session_id == number))  # nobody takes them up any more
    return crashed
