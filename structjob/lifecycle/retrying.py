"""Retries of work of the current job, and of whole jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from structjob.capture.emit import emit
from structjob.context.errors import Classifier
from structjob.context.tracebacks import message_of
from structjob.lifecycle.contexts import job_of_steps
from structjob.lifecycle.described_job import check_arguments
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import Job, Step, kept, parent_scope
from structjob.lifecycle.options import JobOptions
from structjob.lifecycle.outcome import outcome
from structjob.lifecycle.policy import DEFAULTS, RetryOptions, policy_maker
from structjob.lifecycle.retries import MakeStep, Retrying, Tries, retrying_in
from structjob.values.objects import type_name

if TYPE_CHECKING:
    from structjob.lifecycle.policy import Policy


def retrying(
    name: str, policy: Policy | None = None, **options: Unpack[RetryOptions]
) -> Retrying[Step]:
    """Return attempts at one piece of work in the current job.

    Use it with ``async for``, with ``for`` in code without a loop, or as a decorator of functions
    and coroutine functions.

    ::

        async for attempt in structjob.retrying("download", max_attempts=5, on=OSError):
            async with attempt:
                await download()

    The work is a step *name*. Each attempt is a step ``attempt-N`` within it. An attempt that is
    followed by a retry ends ``retrying``, with ``retry_delay`` (seconds) in its metadata and
    events. The last attempt, and with it the step *name*, ends as the work does. The last exception
    is re-raised unchanged. Outside a job the work is retried in the same way, but untracked.

    Args:
        name: At most 200 characters.
        policy: A ``tenacity.AsyncRetrying`` or ``tenacity.Retrying`` that decides when to retry,
            instead of *options*. It also decides what is raised in the end: a
            ``tenacity.RetryError`` unless it has ``reraise=True``.
        options: The retry options:

            - ``max_attempts``: total number of attempts, 3 by default.
            - ``delay``: seconds before the second attempt, 1 by default.
            - ``backoff``: factor for each further delay, 2 by default.
            - ``max_delay``: maximum seconds of a delay, 60 by default.
            - ``jitter``: maximum random seconds added to each delay, 0 by default.
            - ``on``: the exceptions to retry: a type, a tuple of types, or a function that takes an
              exception and returns whether to retry. By default these are the exceptions for which
              the tracker's *classifier* returns ``retry_possible``. Without a classifier, these are
              timeouts and lost connections.

    Raises:
        InvalidArgument: if an argument is invalid.
    """

    def current() -> tuple[Classifier | None, MakeStep[Step]]:
        job = job_of_steps(name)
        return core_of(job).classifier, job.step

    return retrying_in(current, name, policy, options)


def retrying_job(
    host: Callable[[], JobHost[JobCore]],
    operation: str,
    policy: Policy | None,
    given: Mapping[str, Any],
) -> Retrying[Job]:
    """Return the attempts at a whole job. *host* is called when they start. *given* contains the
    retry options and the job's options.
    """
    retries = {name: value for name, value in given.items() if name in DEFAULTS}
    options = JobOptions.of({name: value for name, value in given.items() if name not in DEFAULTS})
    # raise errors in the arguments here, where the caller made the mistake
    check_arguments(operation, options)
    make_policy = policy_maker(policy, retries)

    def begin() -> _JobTries:
        current = host()
        return _JobTries(make_policy(current.classifier), current, operation, options)

    return Retrying("tracker.retrying()", begin)


class _JobTries(Tries[Job]):
    """Attempts at one job. Each attempt except the last ends ``failed``, because a job has no
    status ``retrying``.
    """

    def __init__(
        self, policy: Policy, host: JobHost[JobCore], operation: str, options: JobOptions
    ) -> None:
        super().__init__(policy)
        self._host = host
        self._operation = operation
        self._options = options
        self._job: Job | None = None

    async def enter(self, number: int) -> Job:
        core = JobCore(
            self._host,
            self._operation,
            parent=parent_scope(self._options.parent),
            options=self._options,
        )
        job = Job(core)
        if self._job is not None and not self._job.existing:
            core.follow(core_of(self._job))
        if self.blocking:
            job.__enter__()
        else:
            await job.__aenter__()
        self._job = job
        return job

    def keep(self, handle: Job, returned: Any) -> None:
        super().keep(handle, returned)
        kept(handle, returned)

    async def leave(self, exc: BaseException | None) -> bool:
        job = self._job
        assert job is not None  # noqa: S101 -- it was entered
        late = await core_of(job).cancellation.overdue(exc)
        exc = late or exc
        verdict = await self.judge(exc)
        summary: dict[str, Any] = self.numbers()
        if verdict.delay is not None:
            status, failure = "failed", exc
            summary["retry_delay"] = verdict.delay
        else:
            failure = verdict.failure
            status = "completed" if failure is None else outcome(failure)
        core_of(job).leave(status, failure, summary)
        swallowed = verdict.swallows(exc)
        if late is not None:
            raise late
        return swallowed

    def interrupted(self, exc: BaseException) -> None:
        if self._job is not None:
            core_of(self._job).interrupted(exc)

    def given_up(self, exc: BaseException) -> None:
        if self._job is not None and not self._job.existing:
            attrs = {"reason": message_of(exc) or type_name(exc), **self.numbers()}
            emit(
                core_of(self._job).scope, "warning", "retry_given_up", attrs, kind="retry_given_up"
            )
