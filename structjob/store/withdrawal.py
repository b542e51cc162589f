"""Withdrawing reports of crashes: the process was presumed dead, but lived, or had finished the job
before it died.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select, update

from structjob.models import JobStatus
from structjob.store.tables import attempts, jobs, logs

_AT_ONCE = 500
"""Events that one statement changes."""


def withdraw(connection: Connection, session_id: int, *, alive: bool) -> Sequence[RowMapping]:
    """Let the crashes of a session's jobs that did not crash be no errors any more; the events
    about them stay in the log.

    Args:
        connection: In a transaction.
        session_id: The session.
        alive: Whether its process is known to live: then none of its jobs has crashed. Otherwise
            the status of each attempt says so.

    Returns:
        For each of them its job's id, attempt, operation and so on, and the attempt's status.
    """
    wrong = attempts.c.session_id == session_id
    if not alive:
        wrong &= attempts.c.status != JobStatus.CRASHED.value
    about = logs.join(
        attempts, (attempts.c.job_id == logs.c.job_id) & (attempts.c.attempt == logs.c.attempt)
    )
    told = (logs.c.kind == "operation_crashed") & logs.c.fingerprint.is_not(None)
    columns = (
        jobs.c.id,
        jobs.c.operation,
        jobs.c.correlation_id,
        jobs.c.parent_job_id,
        jobs.c.category,
        jobs.c.project,
    )
    found = select(logs.c.id.label("event"), attempts.c.attempt, attempts.c.status, *columns)
    rows = (
        connection.execute(
            found.select_from(about.join(jobs, jobs.c.id == logs.c.job_id)).where(told, wrong)
        )
        .mappings()
        .all()
    )
    for first in range(0, len(rows), _AT_ONCE):
        events = [row["event"] for row in rows[first : first + _AT_ONCE]]
        connection.execute(update(logs).where(logs.c.id.in_(events)).values(fingerprint=None))
    return rows
