"""Find the live job of this process to which an id refers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from structjob.exceptions import InvalidState
from structjob.models import AnyJob, JobRecord, id_of
from structjob.statuses import JobStatus

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore
    from structjob.queries.jobs import Jobs
    from structjob.queries.session_status import Sessions
    from structjob.spool.session import Session


async def find_live(
    jobs: Jobs, sessions: Sessions, live: Sequence[JobCore], any_id: AnyJob, what: str
) -> JobCore | JobRecord:
    """Return the job with the id *any_id* that runs in this process, or its record if it has ended.

    Args:
        jobs: Reads jobs that are not in *live*.
        sessions: Reads which process runs the job.
        live: The jobs that run in this process.
        any_id: See `structjob.queries.jobs.Jobs.find`.
        what: The requested action, for the message.

    Raises:
        JobNotFound: if there is no such job.
        InvalidState: if it has not started, or runs in another process.
    """
    job = _newest(live, id_of(any_id))
    if job is not None:
        return job
    record = await jobs.find(any_id)
    job = _newest(live, record.id)
    if job is not None:
        return job
    if record.status.terminal:
        return record
    named = f"job {record.id} ({record.operation})"
    if record.status is JobStatus.PENDING:
        raise InvalidState(f"{named} has not begun; cancel it with tracker.cancel({record.id!r})")
    where = next(
        (
            f"process {one.pid} on {one.host}"
            for one in await sessions.list(live=True)
            if one.session_id == record.session_id
        ),
        "another process",
    )
    raise InvalidState(
        f"{named} runs in {where}: {what} it there; tracker.cancel({record.id!r}) stops it from anywhere"
    )


def _newest(live: Sequence[JobCore], job_id: str) -> JobCore | None:
    return max((job for job in live if job.id == job_id), key=lambda job: job.attempt, default=None)


def find_running(live: Sequence[JobCore], any_id: AnyJob, session: Session) -> JobCore:
    """Return the job that runs in this process, by any of its ids, without a query.

    Args:
        live: The jobs that run in this process.
        any_id: See `structjob.queries.jobs.Jobs.find`.
        session: The session of this process, for the message.

    Raises:
        InvalidState: if no such job runs here.
    """
    wanted = id_of(any_id)
    found = [job for job in live if wanted in (job.id, job.external_job_id, job.context_id)]
    if not found:
        raise InvalidState(
            f"no job {wanted!r} runs in this process (session {session.session_id}, process "
            f"{session.pid} on {session.host}); `await tracker.jobs.find({wanted!r})` says "
            "where it runs, and whether it has ended"
        )
    # a match by job id comes before a match by other ids; among attempts the newest wins
    return max(found, key=lambda job: (job.id == wanted, job.id, job.attempt))
