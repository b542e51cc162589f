"""What programs do with the jobs of a tracker: make them, watch them, report on them, end them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Unpack

from structjob.capture.emit import emit
from structjob.context.scope import Scope
from structjob.exceptions import InvalidState
from structjob.lifecycle.arguments import check_label
from structjob.lifecycle.core import warn_ignored
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import (
    UNCHANGED,
    Job,
    JobContext,
    JobKeywords,
    JobUpdate,
    RetryKeywords,
    job_of,
    parent_scope,
)
from structjob.lifecycle.options import JobOptions
from structjob.models import AnyJob, JobRecord, id_of
from structjob.statuses import EndStatus, JobStatus
from structjob.values.normalizer import normalize
from structjob.values.redaction import stored_forms

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from structjob.engine.hosting import Host
    from structjob.lifecycle.bars import Bars
    from structjob.lifecycle.policy import Policy
    from structjob.lifecycle.retries import Retrying
    from structjob.queries.jobs import Jobs
    from structjob.queries.session_status import Sessions


class JobControl:
    """The calls of a tracker that concern jobs. A subclass opens host and readers."""

    _host: Host
    jobs: Jobs
    sessions: Sessions

    def _current_host(self) -> Host:
        return self._host

    def job(self, operation: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a job, to be used as a context manager or as a decorator.

        Use it with ``async with``, with ``with`` in code without a loop, or as a decorator of
        functions and coroutine functions.

        Args:
            operation: The name of the work, at most 255 characters. Statistics are grouped by it.
            options: The job's options:

                - ``job_type``: text of at most 128 characters.
                - ``owner``, ``project``: text of at most 128 characters. By default inherited from
                  the enclosing job.
                - ``category``: text of at most 64 characters, ``system`` by default.
                - ``total_steps``: the number of steps, if it is known.
                - ``description``: text.
                - ``metadata``: a mapping, stored as JSON. Secrets in it are redacted.
                - ``external_job_id`` (at most 255 characters), ``context_id`` (at most 64): your
                  own ids, by which the job can be found.
                - ``correlation_id``: at most 128 characters. By default inherited from the
                  enclosing job.
                - ``job_id``: an id of your own, at most 64 characters. If a job with this id
                  exists, its next attempt is started.
                - ``idempotency_key``: at most 255 characters. The first start wins. A second start
                  gets a handle to that job, with ``job.existing`` set. For a decorated function,
                  each of these five ids may be a function that gets the arguments of the call by
                  name: ``job_id=lambda call: f"order-{call['order']}"``.
                - ``parent``: a job, a job's id, or the return value of `structjob.extract`. By
                  default the enclosing job.
                - ``wait``: whether to wait until the start is committed, for 1 second at most. True
                  by default.
                - ``offline``: whether to start a job with *job_id* or *idempotency_key* although
                  the database is unavailable. False by default. ``job.attempt`` is then
                  provisional: one more than the last attempt that this process knows. The final
                  number is assigned when the attempt is stored, after all attempts that other
                  processes made in the meantime. Reads return the final number. If another job has
                  taken the key by then, this job is stored without the key, and its metadata
                  contains both ids.

        Raises:
            InvalidArgument: if an argument is invalid.
        """
        return JobContext(self._current_host, operation, options)

    def retrying(
        self, operation: str, policy: Policy | None = None, **options: Unpack[RetryKeywords]
    ) -> Retrying[Job]:
        """Return attempts at a whole job.

        Use it with ``async for``, with ``for`` in code without a loop, or as a decorator of
        functions and coroutine functions.

        ::

            async for attempt in tracker.retrying("nightly", max_attempts=3, delay=60):
                async with attempt as job:
                    await load()

        All attempts belong to one job. An attempt that is followed by a retry ends ``failed``, and
        its last event contains ``retry_delay`` (seconds). The exception of the last attempt is
        re-raised unchanged.

        Args:
            operation: See `job`.
            policy: A ``tenacity.AsyncRetrying`` or ``tenacity.Retrying`` that decides when to
                retry. Without it, the retry options *max_attempts*, *delay*, *backoff*,
                *max_delay*, *jitter* and *on* decide; see `structjob.retrying`.
            options: The retry options, and the options of `job`.

        Raises:
            InvalidArgument: if an argument is invalid.
        """
        from structjob.lifecycle.retrying import retrying_job

        return retrying_job(self._current_host, operation, policy, options)

    async def create_job(self, operation: str, **options: Unpack[JobKeywords]) -> Job:
        """Record a pending job that is started later with `Job.start`.

        Another process can start it, too: ``tracker.job(operation, job_id=job.id)``.

        Args:
            operation: See `job`.
            options: See `job`. A second call with the same *idempotency_key* returns a handle to
                the first call's job, with ``job.existing`` set, whether that job has started or
                not.

        Raises:
            InvalidArgument: if an argument is invalid.
            StoreUnavailable: if there is an *idempotency_key* and the database is unavailable (see
                *offline*).
        """
        self._host.require_open()
        settings = JobOptions.of(options)
        parent = parent_scope(settings.parent)
        job = Job(JobCore(self._host, operation, parent=parent, options=settings))
        await core_of(job).create()
        return job

    def progress_bars(self, stream: IO[str] | None = None) -> Bars:
        """Show progress bars within the ``async with`` or ``with`` block.

        There is one bar for each step that runs in this process, and one for each job that reported
        a percentage. On a terminal the bars stay below all logged or printed output, which is
        collected and written ten times a second. They disappear at the end. Elsewhere, a line every
        10 seconds reports the progress of each step, and a last line reports its outcome.

        Args:
            stream: Where to write, ``sys.stderr`` by default.
        """
        from structjob.lifecycle.bars import Bars

        return Bars(self._host.live, stream)

    async def cancel(
        self,
        any_id: AnyJob,
        reason: str | None = None,
        *,
        by: str | None = None,
        force: bool = False,
    ) -> None:
        """Ask a job to stop, in whichever process it runs.

        A pending job is cancelled at once, and never starts. A job that runs under ``async with``
        gets a `CancelledError` with *reason* in its own task; if another process runs it, within
        about 1 second. It is recorded as cancelled when it ends because of that error. Its child
        jobs run inside it and are cancelled with it. An attempt is cancelled only once, because a
        second cancellation would interrupt its cleanup and replace the reason.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            reason: Recorded as the job's error message; ``cancelled by request`` by default.
            by: The person or service that asks, at most 128 characters. It is recorded in the job's
                log.
            force: Cancel the job again although it is already being cancelled.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if the job has ended, runs in this process without a task to cancel, or is
                already being cancelled and *force* is not set.
            StoreUnavailable: if the database is unavailable.
        """
        reason = check_label("reason", reason, 2_000) or "cancelled by request"
        by = check_label("by", by, 128)
        record = await self.jobs.find(any_id)
        if (job := self._newest(record.id)) is not None:
            job.request_cancel(reason, by, force=force)
        else:
            await self._cancel_elsewhere(record, reason, by, force=force)

    async def _cancel_elsewhere(
        self, record: JobRecord, reason: str, by: str | None, *, force: bool
    ) -> None:
        from structjob.store import cancellations

        def request(connection: Connection) -> JobStatus:
            return cancellations.request(connection, record.id, reason, by, force=force)

        if await self._host.transact(request) is not JobStatus.PENDING:
            return
        scope = Scope(
            recorder=self._host.recorder, job_id=record.id, operation=record.operation,
            correlation_id=record.correlation_id, parent_job_id=record.parent_job_id, category=record.category,
            project=record.project,
        )  # fmt: skip
        attrs = {
            "operation": record.operation,
            "status": "cancelled",
            "reason": reason,
            **({"requested_by": by} if by else {}),
        }
        emit(scope, "warning", "operation_end", attrs, kind="operation_end")

    def live_job(self, any_id: AnyJob) -> Job:
        """Return the handle of a job that runs in this process. This does not query the database.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`.

        Raises:
            InvalidState: if no such job runs here. ``tracker.jobs.find`` returns where it runs.
        """
        wanted = id_of(any_id)
        forms = stored_forms(str(normalize(wanted)))
        session = self._host.recorder.session
        found = [
            job
            for job in list(self._host.live)
            if not {job.id, job.external_job_id, job.context_id}.isdisjoint(forms)
        ]
        if not found:
            raise InvalidState(
                f"no job {wanted!r} runs in this process (session {session.session_id}, process "
                f"{session.pid} on {session.host}); `await tracker.jobs.find({wanted!r})` says "
                "where it runs, and whether it has ended"
            )
        # a match by job id comes before a match by other ids; among attempts the newest wins
        return job_of(max(found, key=lambda job: (job.id in forms, job.id, job.attempt)))

    async def update(self, any_id: AnyJob, **progress: Unpack[JobUpdate]) -> None:
        """Report progress of a job that runs in this process, by any of its ids; see `Job.update`.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            progress: *percent*, *current_step*, *metadata* and *description*, as in `Job.update`.
                Progress after the end of the job is ignored with a warning.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if the job runs in another process or has not started. The message names
                the process.
        """
        job = await self._find_here(any_id, "update")
        if isinstance(job, JobCore):
            job_of(job).update(**progress)
        else:
            late = f"job {job.id} ({job.operation}) is {job.status.value}; update needs it running"
            warn_ignored(self._host.recorder, late)

    async def end(
        self,
        any_id: AnyJob,
        status: EndStatus | JobStatus | None = None,
        *,
        error: BaseException | None = None,
        result: Any = UNCHANGED,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """End a job that was started manually in this process, by any of its ids; see `Job.end`.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            status: See `Job.end`.
            error: See `Job.end`.
            result: See `Job.end`.
            summary: See `Job.end`.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if the job has ended, has not started, or runs in another process. The
                message names the process.
            InvalidArgument: see `Job.end`.
        """
        job = await self._find_here(any_id, "end")
        if not isinstance(job, JobCore):
            raise InvalidState(
                f"job {job.id} ({job.operation}) is {job.status.value} already: a job can end only once"
            )
        await job_of(job).end(status, error=error, result=result, summary=summary)

    def _newest(self, job_id: str) -> JobCore | None:
        """Return the latest attempt at a job that runs here."""
        found = [job for job in list(self._host.live) if job.id == job_id]
        return max(found, key=lambda job: job.attempt, default=None)

    async def _find_here(self, any_id: AnyJob, what: str) -> JobCore | JobRecord:
        """Return the job that runs in this process, or its record if it has ended.

        Args:
            any_id: See `Jobs.find`.
            what: The requested action, for the message.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if it has not started, or runs in another process.
        """
        if (job := self._newest(id_of(any_id))) is not None:
            return job
        record = await self.jobs.find(any_id)
        if (job := self._newest(record.id)) is not None:
            return job
        if record.status.terminal:
            return record
        named = f"job {record.id} ({record.operation})"
        if record.status is JobStatus.PENDING:
            raise InvalidState(
                f"{named} has not begun; cancel it with tracker.cancel({record.id!r})"
            )
        where = next(
            (
                f"process {one.pid} on {one.host}"
                for one in await self.sessions.list(live=True)
                if one.session_id == record.session_id
            ),
            "another process",
        )
        raise InvalidState(
            f"{named} runs in {where}: {what} it there; tracker.cancel({record.id!r}) stops it from anywhere"
        )
