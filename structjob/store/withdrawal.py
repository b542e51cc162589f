"""Withdraw crash reports that were wrong.

The process was presumed dead but is alive, or it had finished the job before it died.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select, update

from structjob.statuses import JobStatus
from structjob.store.portions import portions
from structjob.store.tables import attempts, jobs, logs

_AT_ONCE = 500
"""Maximum number of events that one statement changes."""


def withdraw(connection: Connection, session_id: int, *, alive: bool) -> Sequence[RowMapping]:
    """Clear the errors of jobs that were reported as crashed by mistake.

    The crash events stay in the log, but no longer count as errors.

    Args:
        connection: A connection in a transaction.
        session_id: The session.
        alive: Whether its process is known to be alive: then none of its jobs has crashed.
            Otherwise the status of each attempt decides.

    Returns:
        For each withdrawn crash, the job's id, operation and so on, and the attempt and its status.
    """
    wrong = attempts.c.session_id == session_id
    if not alive:
        wrong &= attempts.c.status != JobStatus.CRASHED.value
    about = logs.join(
        attempts, (attempts.c.job_id == logs.c.job_id) & (attempts.c.attempt == logs.c.attempt)
    )
    counted = (logs.c.kind == "operation_crashed") & logs.c.fingerprint.is_not(None)
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
            found.select_from(about.join(jobs, jobs.c.id == logs.c.job_id)).where(counted, wrong)
        )
        .mappings()
        .all()
    )
    for some in portions(rows, _AT_ONCE):
        events = [row["event"] for row in some]
        connection.execute(update(logs).where(logs.c.id.in_(events)).values(fingerprint=None))
    return rows
