"""Requests to cancel a job: any program makes them, and the session that runs the job handles
them.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Select, delete, insert, select, update

from structjob.exceptions import InvalidState, JobNotFound
from structjob.statuses import JobStatus, being_cancelled
from structjob.store.expressions import utc_now
from structjob.store.tables import attempts, cancellations, jobs


def request(
    connection: Connection,
    job_id: str,
    reason: str,
    requested_by: str | None,
    *,
    force: bool = False,
) -> JobStatus:
    """Request the cancellation of a job; a pending job is cancelled immediately.

    Args:
        connection: A connection in a transaction.
        job_id: The job's id.
        reason: The reason for the cancellation.
        requested_by: The name of the person or program that makes the request.
        force: Request again, even if the attempt is being cancelled already.

    Returns:
        The status that the job had.

    Raises:
        JobNotFound: if there is no such job.
        InvalidState: if the job has ended, or is being cancelled already and *force* is not set.
    """
    # Locked: transactions that start, end or cancel the same job run before or after this one.
    wanted = (
        select(jobs.c.operation, jobs.c.status, jobs.c.attempt, jobs.c.session_id)
        .where(jobs.c.id == job_id)
        .with_for_update()
    )
    job = connection.execute(wanted).mappings().first()
    if job is None:
        raise JobNotFound(job_id)
    status = JobStatus(job["status"])
    if status is JobStatus.PENDING:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(
                status="cancelled",
                completed_at=utc_now(),
                cancelled_at=utc_now(),
                error_type="Cancelled",
                error_message=reason,
            )
        )
    elif status is JobStatus.RUNNING:
        same = (cancellations.c.job_id == job_id) & (cancellations.c.attempt == job["attempt"])
        earlier = connection.execute(
            select(cancellations.c.reason, cancellations.c.requested_by).where(same)
        ).first()
        if earlier is not None and not force:
            raise InvalidState(being_cancelled(f"job {job_id} ({job['operation']})", *earlier))
        connection.execute(delete(cancellations).where(cancellations.c.job_id == job_id))
        connection.execute(
            insert(cancellations).values(
                job_id=job_id,
                attempt=job["attempt"],
                session_id=job["session_id"],
                reason=reason,
                requested_by=requested_by,
                requested_at=utc_now(),
                forced=force,
            )
        )
    else:
        raise InvalidState(f"job {job_id} ({job['operation']}) has already ended: {status.value}")
    return status


def requests(
    session_id: int,
) -> Select[tuple[str, int, str | None, str | None, datetime, bool, datetime | None]]:
    """Return the query for a session's cancellation requests, with the start of each attempt."""
    columns = cancellations.c
    asked = select(
        columns.job_id,
        columns.attempt,
        columns.reason,
        columns.requested_by,
        columns.requested_at,
        columns.forced,
        attempts.c.started_at,
    )
    meant = (attempts.c.job_id == columns.job_id) & (attempts.c.attempt == columns.attempt)
    return asked.select_from(cancellations.outerjoin(attempts, meant)).where(
        columns.session_id == session_id
    )


def forget(connection: Connection, session_id: int, job_id: str, attempt: int) -> None:
    """Delete a request whose attempt has ended."""
    columns = cancellations.c
    connection.execute(
        delete(cancellations).where(
            columns.job_id == job_id, columns.session_id == session_id, columns.attempt == attempt
        )
    )
