"""Delete rows by their primary keys, a chunk in each transaction, and record what was deleted.

The rows are read and locked in the same transaction. A row that has changed since it was found is
kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, select
from sqlalchemy.sql.dml import Delete

from structjob.retention.due import Plan
from structjob.statuses import JOB_TERMINAL
from structjob.store.gaps import put_down
from structjob.store.history import count_pruned
from structjob.store.tables import (
    attempts,
    cancellations,
    dead_letters,
    gaps,
    jobs,
    logs,
    sessions,
    steps,
)

Plans = Mapping[str, Plan]


def remove_events(connection: Connection, ids: Sequence[int], plans: Plans | None = None) -> int:
    """Delete events, and record that they were pruned; return how many there were.

    Args:
        connection: A connection in a transaction.
        ids: The events' ids.
        plans: The jobs that the events are deleted with, if any; events of a job that has changed
            are kept.
    """
    has_error = logs.c.fingerprint.is_not(None)
    columns = (
        logs.c.id,
        logs.c.session_id,
        logs.c.seq,
        logs.c.ts,
        logs.c.level,
        logs.c.job_id,
        logs.c.fingerprint,
    )
    texts = (
        case((has_error, logs.c.message)).label("message"),
        case((has_error, logs.c.attrs)).label("attrs"),
    )
    rows: Sequence[Any] = (
        connection.execute(select(*columns, *texts).where(logs.c.id.in_(ids)).with_for_update())
        .mappings()
        .all()
    )
    if plans is not None:
        same = _as_planned(connection, plans, {row["job_id"] for row in rows})
        rows = [row for row in rows if row["job_id"] in same]
    if not rows:
        return 0
    connection.execute(delete(logs).where(logs.c.id.in_([row["id"] for row in rows])))
    put_down(connection, ((row["session_id"], row["seq"]) for row in rows))
    count_pruned(connection, rows)
    return len(rows)


def remove_steps(connection: Connection, ids: Sequence[str], plans: Plans) -> int:
    """Delete steps of jobs that have not changed; return how many there were."""
    found = (
        connection.execute(select(steps.c.id, steps.c.job_id).where(steps.c.id.in_(ids)))
        .mappings()
        .all()
    )
    same = _as_planned(connection, plans, {row["job_id"] for row in found})
    return _deleted(
        connection,
        delete(steps).where(steps.c.id.in_([row["id"] for row in found if row["job_id"] in same])),
    )


def remove_jobs(connection: Connection, plans: Plans) -> tuple[int, int]:
    """Delete jobs that have not changed and own nothing but attempts.

    Return the numbers of deleted jobs and attempts.
    """
    going = _as_planned(connection, plans, plans)
    for table in (logs, steps):  # the next prune deletes what arrived late
        going -= set(
            connection.scalars(select(table.c.job_id).where(table.c.job_id.in_(plans)).distinct())
        )
    found = connection.execute(
        select(jobs.c.id, jobs.c.parent_job_id).where(jobs.c.parent_job_id.in_(plans))
    ).all()
    # the child that closes a circle does not keep its parent
    below = [(child, parent) for child, parent in found if child != plans[parent].top]
    while staying := {parent for child, parent in below if child not in going and parent in going}:
        going -= staying
    if not going:
        return 0, 0
    tried = _deleted(connection, delete(attempts).where(attempts.c.job_id.in_(going)))
    connection.execute(delete(cancellations).where(cancellations.c.job_id.in_(going)))
    return _deleted(connection, delete(jobs).where(jobs.c.id.in_(going))), tried


def remove_dead_letters(connection: Connection, ids: Sequence[int]) -> int:
    """Delete dead letters; return how many there were.

    The absence of their numbers from the logs is explained already.
    """
    return _deleted(connection, delete(dead_letters).where(dead_letters.c.id.in_(ids)))


def remove_sessions(connection: Connection, ids: Sequence[int], due: ColumnElement[bool]) -> int:
    """Delete sessions that are still *due*, with the rows that explain their numbers.

    Return how many there were.
    """
    mine = (
        select(sessions.c.session_id).where(sessions.c.session_id.in_(ids), due).with_for_update()
    )
    going = connection.scalars(mine).all()
    if going:
        connection.execute(delete(gaps).where(gaps.c.session_id.in_(going)))
        connection.execute(delete(sessions).where(sessions.c.session_id.in_(going)))
    return len(going)


def _as_planned(connection: Connection, plans: Plans, ids: Collection[str]) -> set[str]:
    """Return and lock those of these jobs that have not changed since they were found."""
    if not ids:
        return set()
    columns = (jobs.c.id, jobs.c.attempt, jobs.c.session_id, jobs.c.state_seq)
    ended = jobs.c.status.in_(sorted(JOB_TERMINAL))
    found = connection.execute(
        select(*columns).where(jobs.c.id.in_(sorted(ids)), ended).with_for_update()
    ).all()
    return {row.id for row in found if plans.get(row.id) == Plan(*row)}


def _deleted(connection: Connection, statement: Delete) -> int:
    return connection.execute(statement).rowcount
