"""A cancel request of this process, for a job that may run in another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection

from structjob.capture.emit import emit
from structjob.context.scope import Scope
from structjob.models import JobRecord
from structjob.statuses import JobStatus
from structjob.store import cancellations

if TYPE_CHECKING:
    from structjob.engine.hosting import Host


async def cancel(
    host: Host, record: JobRecord, reason: str, requested_by: str | None, *, force: bool
) -> None:
    """Ask a job to stop, here or in the process that runs it; see `structjob.Tracker.cancel`.

    Args:
        host: The tracker.
        record: The job.
        reason: Recorded as the job's error message.
        requested_by: Who asks, for the job's log.
        force: Cancel the job again although it is already being cancelled.

    Raises:
        InvalidState: see `structjob.Tracker.cancel`, also for `StoreUnavailable`.
    """
    mine = [job for job in list(host.live) if job.id == record.id]
    if mine:
        newest = max(mine, key=lambda job: job.attempt)
        newest.request_cancel(reason, requested_by, force=force)
        return

    def request(connection: Connection) -> JobStatus:
        return cancellations.request(connection, record.id, reason, requested_by, force=force)

    if await host.transact(request) is JobStatus.PENDING:
        scope = Scope(
            recorder=host.recorder, job_id=record.id, operation=record.operation, correlation_id=record.correlation_id,
            parent_job_id=record.parent_job_id, category=record.category, project=record.project,
        )  # fmt: skip
        attrs = {
            "operation": record.operation,
            "status": "cancelled",
            "reason": reason,
            **({"requested_by": requested_by} if requested_by else {}),
        }
        emit(scope, "warning", "operation_end", attrs, kind="operation_end")
