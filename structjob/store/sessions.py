"""The life of a session in the database: its start, its heartbeats and its end.

A session ends itself, or another process ends it after finding it dead.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from itertools import count
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    RowMapping,
    Select,
    Table,
    Update,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)

from structjob.machine.clock import moment
from structjob.spool.line import seal_event
from structjob.spool.session import Session
from structjob.store.contract import Ended, Ending, Fetch, LeftRunning, LogIngest, Notices, Store
from structjob.store.expressions import utc_now
from structjob.store.gaps import TAKEN, Range
from structjob.store.holes import Holes, find
from structjob.store.portions import portions
from structjob.store.tables import attempts, cancellations, gaps, jobs, logs, sessions, steps
from structjob.store.withdrawal import withdraw

CLOSED = "closed"
"""``end_reason`` of a session whose tracker was closed, or whose process exited normally."""
LEFT_RUNNING = "its tracker was closed while it ran"
"""``error_message`` of a job or step that still runs when its tracker closes."""
DIED = "died"
"""``end_reason`` of a session whose process is gone, and whose spool is completely stored."""
VANISHED = "vanished"
"""``end_reason`` of a session whose process no longer exists on its host. Its spool was not
read.
"""
LEASE_EXPIRED = "lease_expired"
"""``end_reason`` of a session without a heartbeat for the length of a lease. Its spool was not
read.
"""
PRESUMED = (VANISHED, LEASE_EXPIRED)
"""The reasons for sessions that are presumed dead, whose last number is unknown."""

# A literal, not a bound value: with a bound value the database would not use the index of running
# attempts and steps.
_RUNNING: ColumnElement[str] = literal_column("'running'")
_LAST_LINES = 5
"""How many of a crashed job's last lines the event contains."""

EXPLAINED_AT_ONCE = 1_000
"""Maximum number of holes that one transaction explains. The limit exists because the statement
is built on the event loop.
"""


def enter(connection: Connection, session: Session) -> None:
    """Insert *session* into the database; do nothing if it is there already."""
    values = {name: getattr(session, name) for name in _ENTERED} | {
        "started_at": moment(session.started_at)
    }
    connection.execute(_enter(), {f"its_{name}": value for name, value in values.items()})


_ENTERED = ("session_id", "host", "boot_id", "pid", "service", "version", "started_at")


@functools.cache
def _enter() -> Insert:
    """Return the statement of `enter`. Building it takes longer than running it."""
    given = {name: bindparam(f"its_{name}", type_=sessions.c[name].type) for name in _ENTERED}
    absent = ~exists(
        select(sessions.c.session_id).where(sessions.c.session_id == given["session_id"])
    )
    row = select(*given.values(), literal(0, sessions.c.last_seq.type), utc_now()).where(absent)
    return insert(sessions).from_select([*given, "last_seq", "heartbeat_at"], row)


def beat(connection: Connection, session_id: int, last_seq: int, confirmed: int = 0) -> bool:
    """Implement `structjob.store.contract.StateStore.heartbeat`."""
    values = {"heartbeat_at": utc_now(), "last_seq": _greatest(sessions.c.last_seq, last_seq)}
    values["confirmed"] = _greatest(sessions.c.confirmed, confirmed)
    return bool(
        connection.execute(
            update(sessions).where(sessions.c.session_id == session_id).values(values)
        ).rowcount
    )


def _greatest(column: ColumnElement[int], value: int) -> ColumnElement[int]:
    return case((column < value, value), else_=column)


def reach(connection: Connection, session_id: int, last_seq: int) -> None:
    """Record the greatest number that the session has assigned."""
    behind = (sessions.c.session_id == session_id) & (sessions.c.last_seq < last_seq)
    connection.execute(update(sessions).where(behind).values(last_seq=last_seq))


async def end(store: Store, session: Session, ending: Ending, notices: Notices) -> Ended:
    """Implement `structjob.store.contract.Store.end_session`."""
    number = session.session_id
    # This is outside the transaction that ends the session: a long session is read in portions, so
    # that other writers are not blocked. Events may be pruned meanwhile, which explains their
    # numbers. Or they are stored late, and an unnecessary explanation does no harm.
    rows = await store.fetch(
        select(sessions.c.last_seq, sessions.c.confirmed).where(sessions.c.session_id == number)
    )
    reported, confirmed = (rows[0]["last_seq"], rows[0]["confirmed"]) if rows else (0, 0)
    last, fewer, holes = await _examine(
        store, number, max(reported, ending.last_seq), max(confirmed, ending.confirmed)
    )
    explain = not fewer and holes.count <= ending.most
    if explain:
        await _explain(store, number, ending.absent, holes.ranges)

    def finish(connection: Connection) -> Sequence[RowMapping]:
        enter(connection, session)
        # Locked: another process that ends the session at the same moment waits here, and then
        # finds it ended.
        former = connection.scalar(
            select(sessions.c.end_reason).where(sessions.c.session_id == number).with_for_update()
        )
        # Everything the session reported is stored: jobs that it had finished did not crash.
        withdrawn = withdraw(connection, number, alive=False) if former in PRESUMED else ()
        values = {
            "last_seq": _greatest(sessions.c.last_seq, last),
            "confirmed": _greatest(sessions.c.confirmed, ending.confirmed),
            "ended_at": func.coalesce(sessions.c.ended_at, utc_now()),
            "end_reason": case(
                (sessions.c.end_reason.not_in(PRESUMED), sessions.c.end_reason), else_=ending.reason
            ),
        }
        connection.execute(update(sessions).where(sessions.c.session_id == number).values(values))
        if ending.reason == CLOSED:
            report(connection, store.ingest, notices.session, notices.of((), withdrawn))
            return leave(connection, session)
        return crash(connection, store.ingest, session, notices, withdrawn)

    left = await store.transact(finish)
    explained, missing = (holes.count, 0) if explain else (0, holes.count)
    return Ended(left=left, explained=explained, missing=missing, fewer=fewer)


async def _examine(
    store: Store, number: int, reported: int, confirmed: int
) -> tuple[int, int, Holes]:
    """Return the last number of a session, how many events are missing, and its holes.

    Events are missing if the database holds fewer than it has *confirmed*.
    """
    # Count the events first: those pruned between the two queries are then counted twice, not
    # missed.
    (stored,) = await store.fetch(
        select(func.count().label("rows"), func.max(logs.c.seq).label("last")).where(
            logs.c.session_id == number
        )
    )
    (given_up,) = await store.fetch(
        select(
            func.max(gaps.c.last_seq).label("last"),
            func.coalesce(func.sum(TAKEN), 0).label("taken"),
        ).where(gaps.c.session_id == number)
    )
    highest = stored["last"] or 0
    last = max(reported, highest, given_up["last"] or 0)
    holes = await find(store.fetch, number, highest, last) if stored["rows"] != last else Holes()
    # Only absent numbers can have been lost, whatever the counts are.
    return (
        last,
        min(max(0, confirmed - stored["rows"] - int(given_up["taken"])), holes.count),
        holes,
    )


async def _explain(store: Store, number: int, reason: str, ranges: Sequence[Range]) -> None:
    """Write *ranges* to ``structjob_gaps``, a portion in each transaction.

    If this process ends between two transactions, the next process repeats the work.
    """
    for some in portions(ranges, EXPLAINED_AT_ONCE):
        rows = msgspec.json.encode(
            [
                {"session_id": number, "first_seq": first, "last_seq": last, "reason": reason}
                for first, last in some
            ]
        )
        await store.transact(
            functools.partial(store.ingest.upsert, table="structjob_gaps", rows=rows)
        )


def _last_sign(connection: Connection, number: int) -> datetime | None:
    """Return the time of a session's last sign of life, or ``None``.

    The time of its death is unknown, and its death may be found much later.
    """
    beat = connection.execute(
        select(sessions.c.heartbeat_at).where(sessions.c.session_id == number)
    ).scalar_one_or_none()
    logged = connection.execute(
        select(logs.c.ts).where(logs.c.session_id == number).order_by(logs.c.seq.desc()).limit(1)
    ).scalar_one_or_none()
    return max((sign for sign in (beat, logged) if sign is not None), default=None)


async def jobs_of(fetch: Fetch, number: int) -> set[str]:
    """Implement `structjob.store.contract.LogStore.jobs_of`."""
    its = select(logs.c.job_id).where(logs.c.session_id == number, logs.c.job_id.is_not(None))
    return {row["job_id"] for row in await fetch(its.distinct())}


async def left_running(fetch: Fetch, number: int) -> list[LeftRunning]:
    """Return the running jobs of the session *number*, with the data for their crash events.

    Call this before the transaction that marks the jobs as crashed.
    """
    found = []
    for job in await fetch(_running(number)):
        open_steps = await fetch(
            select(steps.c.name)
            .where(
                steps.c.job_id == job["id"],
                steps.c.attempt == job["attempt"],
                steps.c.status == "running",
            )
            .order_by(steps.c.seq)
        )
        last_lines = await fetch(
            select(logs.c.message)
            .where(
                logs.c.job_id == job["id"],
                logs.c.session_id == number,
                logs.c.kind.in_(("log", "output")),
            )
            .order_by(logs.c.ts.desc(), logs.c.id.desc())
            .limit(_LAST_LINES)
        )
        found.append(
            LeftRunning(
                dict(job),
                tuple(row["name"] for row in open_steps),
                tuple(row["message"] for row in reversed(last_lines)),
            )
        )
    return found


def crash(
    connection: Connection,
    ingest: LogIngest,
    session: Session,
    notices: Notices,
    withdrawn: Sequence[RowMapping] = (),
) -> Sequence[RowMapping]:
    """Mark the running jobs of *session* as crashed, and store the *notices* of these jobs and of
    the *withdrawn* ones.

    This changes only rows whose latest change of state is the session's own.

    Returns:
        The jobs' rows as they were before.
    """
    running = _end_running(
        connection,
        session.session_id,
        "crashed",
        "Crashed",
        f"process {session.pid} on {session.host} ended without finishing it{notices.reason and f': {notices.reason}'}",
        notices.stack,
    )
    # Stored here and not through the spool: if this process is killed next, the events are stored
    # nevertheless, and only once.
    report(connection, ingest, notices.session, notices.of(running, withdrawn))
    return running


def report(
    connection: Connection, ingest: LogIngest, session: Session, bodies: Sequence[bytes]
) -> None:
    """Store the events *bodies* as *session*, which begins and ends with them.

    A process that finds out something about the jobs of another session says it in this way. It
    cannot continue the numbers of that session, because that may be alive after all. It need not
    have a session itself. A repetition changes nothing.
    """
    if not bodies:
        return
    enter(connection, session)
    lines = b"".join(map(seal_event, bodies, count(1)))
    ingest.events(connection, session.session_id, lines)
    last = len(bodies)
    connection.execute(
        update(sessions)
        .where(sessions.c.session_id == session.session_id)
        .values(last_seq=last, confirmed=last, ended_at=utc_now(), end_reason=CLOSED)
    )


def leave(connection: Connection, session: Session) -> Sequence[RowMapping]:
    """Mark the running jobs of *session* as cancelled when the session is closed normally.

    Its tracker has recorded this already, except for jobs that began while it closed.

    Returns:
        The jobs' rows as they were before.
    """
    return _end_running(connection, session.session_id, "cancelled", "CancelledError", LEFT_RUNNING)


def _running(number: int) -> Select[Any]:
    return (
        select(jobs)
        .where(jobs.c.session_id == number, jobs.c.status == "running")
        .order_by(jobs.c.id)
    )


def _end_running(
    connection: Connection,
    number: int,
    status: str,
    error_type: str,
    why: str,
    stack: str | None = None,
) -> Sequence[RowMapping]:
    """Set the final *status* of the running jobs, attempts and steps of the session *number*.

    Returns:
        The jobs' rows as they were before.
    """
    running = connection.execute(_running(number).with_for_update()).mappings().all()
    last = _last_sign(connection, number)
    values = {"its_number": number, "its_status": status, "its_type": error_type, "its_error": why}
    if last is not None:
        values["its_last"] = last
    for table in (jobs, attempts, steps):
        has_stack = table is not steps and stack is not None
        connection.execute(
            _ending(table, table is jobs and status == "cancelled", has_stack, last is not None),
            {**values, "its_stack": stack} if has_stack else values,
        )
    # the session has ended, so these requests would never be handled
    connection.execute(delete(cancellations).where(cancellations.c.session_id == number))
    return running


@functools.cache
def _ending(table: Table, is_cancelled: bool, has_stack: bool, has_sign: bool) -> Update:
    """Return the statement that ends the rows of *table* that a session left running.

    Cached, because building it takes longer than running it.
    """
    last: ColumnElement[datetime] = utc_now()
    if has_sign:
        last = bindparam("its_last", type_=sessions.c.heartbeat_at.type)
    # The database's clock may be behind the host's, but a job must not end before it begins.
    ended = func.coalesce(
        table.c.completed_at, case((table.c.started_at > last, table.c.started_at), else_=last)
    )
    values = {
        "status": bindparam("its_status"),
        "completed_at": ended,
        "error_type": bindparam("its_type"),
        "error_message": bindparam("its_error"),
    }
    if is_cancelled:
        values["cancelled_at"] = ended
    if has_stack:
        values["error_traceback"] = bindparam("its_stack")
    # The columns session_id and state_seq stay unchanged: a later change from the session itself
    # then replaces this one.
    return (
        update(table)
        .where(table.c.session_id == bindparam("its_number"), table.c.status == _RUNNING)
        .values(values)
    )
