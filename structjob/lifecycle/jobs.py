"""Live jobs and steps, as users see them, and what makes a job.

The classes that name each other are together here: a job makes steps and child jobs, a step has its
job.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast

import msgspec

from structjob.context.propagation import RemoteContext, remote_scope
from structjob.context.scope import Scope, current_scope
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.lifecycle.arguments import (
    check_current_step,
    check_description,
    check_metadata,
    check_percent,
    check_text,
    decorates_coroutines,
)
from structjob.lifecycle.attributes import Absent, ReadOnly, Settable
from structjob.lifecycle.both import decorated
from structjob.lifecycle.cancellable import Cancellable
from structjob.lifecycle.described_job import check_arguments
from structjob.lifecycle.handle import Handle, core_of
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.options import IDS, IdOfCall, JobOptions
from structjob.lifecycle.outcome import ending, outcome
from structjob.lifecycle.policy import RetryOptions
from structjob.lifecycle.step_core import StepCore
from structjob.lifecycle.steps import MADE, StepHandle
from structjob.lifecycle.waiting import Done
from structjob.models import ErrorInfo
from structjob.statuses import EndStatus, JobStatus, check_job_transition
from structjob.values.redaction import identified

if TYPE_CHECKING:
    from structjob.lifecycle.policy import Policy
    from structjob.lifecycle.process_result import ProcessResult
    from structjob.lifecycle.processes import ProcessKeywords
    from structjob.lifecycle.retries import Retrying

P = ParamSpec("P")
T = TypeVar("T")

UNCHANGED: Any = object()
"""The default of an argument that is not given."""

_ENDS = ("completed", "failed", "cancelled")
_END = "call job.end(), or leave `async with`"
_PERCENT = "call job.update(percent=…)"
_UNITS = "a step counts units: step.advance(), job.step(name, total=…)"
_BELOW = "a job is below the job whose child() made it"


def _given(option: str) -> str:
    return f"give it when the job is made: tracker.job(…, {option}=…)"


class JobKeywords(TypedDict, total=False):
    """The fields of `JobOptions` as keywords, for type checkers and code completion."""

    job_type: str | None
    description: str | None
    owner: str | None
    project: str | None
    category: str | None
    metadata: Mapping[str, Any] | None
    total_steps: int | None
    external_job_id: str | IdOfCall | None
    context_id: str | IdOfCall | None
    correlation_id: str | IdOfCall | None
    job_id: str | IdOfCall | None
    idempotency_key: str | IdOfCall | None
    parent: Job | RemoteContext | str | None
    offline: bool
    wait: bool


class RetryKeywords(JobKeywords, RetryOptions):
    """The keywords of `Tracker.retrying`, in addition to the operation and a policy."""


class JobUpdate(TypedDict, total=False):
    """The arguments of `Job.update`."""

    percent: float | None
    current_step: str | None
    metadata: Mapping[str, Any] | None
    description: str | None


class Step(StepHandle):
    """A live step of a job, created by ``job.step()`` or ``structjob.step()``.

    It starts with ``async with`` or `start`.

    Attributes:
        id: A UUIDv7.
        name: The name of the step's work.
        seq: Its position among the steps that this process has begun in the job's attempt, from 1;
            in a worker of a process pool, that this task has begun.
        status: A `StepStatus`; ``None`` before the start.
        completed: Number of units done.
        total: Number of units to process, if it is known.
    """

    __slots__ = ()
    job: ReadOnly[Job] = ReadOnly(MADE, "job.handle")


class Job(Cancellable):
    """A live job, created by ``tracker.job()``, ``job.child()`` or ``tracker.create_job()``.

    Attributes:
        id: A UUIDv7, or the caller's id.
        operation: The name of the work.
        attempt: The number of this attempt, from 1; 0 before the start. It is provisional for a job
            that was started *offline* while the database was unavailable, and does not change in
            this handle.
        correlation_id: Inherited by child jobs, unless they set their own; so are *owner* and
            *project*.
        total_steps: The number of steps, if it is known. The events of its steps and its last event
            contain it. Like *metadata* and *result*, it can be set; the other attributes are
            read-only.
        status: A `JobStatus`.
        metadata: The mapping given at creation. Changes are recorded with the next change of state.
        result: A value that can be stored as JSON. It is stored with the next change of state, or
            at once if the job has ended.
        existing: Whether another start with the same idempotency key came first. Then this handle
            shows the existing job and records no changes.
    """

    __slots__ = ()
    id: ReadOnly[str] = ReadOnly(_given("job_id"))
    operation: ReadOnly[str] = ReadOnly("it is given when the job is made")
    parent_job_id: ReadOnly[str | None] = ReadOnly(_BELOW)
    root_job_id: ReadOnly[str] = ReadOnly(_BELOW)
    correlation_id: ReadOnly[str] = ReadOnly(_given("correlation_id"))
    job_type: ReadOnly[str | None] = ReadOnly(_given("job_type"))
    description: ReadOnly[str | None] = ReadOnly("call job.update(description=…)")
    owner: ReadOnly[str | None] = ReadOnly(_given("owner"))
    project: ReadOnly[str | None] = ReadOnly(_given("project"))
    category: ReadOnly[str] = ReadOnly(_given("category"))
    external_job_id: ReadOnly[str | None] = ReadOnly(_given("external_job_id"))
    context_id: ReadOnly[str | None] = ReadOnly(_given("context_id"))
    idempotency_key: ReadOnly[str | None] = ReadOnly(_given("idempotency_key"))
    metadata: Settable[dict[str, Any]] = Settable()
    total_steps: Settable[int | None] = Settable()
    status: ReadOnly[JobStatus] = ReadOnly(_END)
    error: ReadOnly[ErrorInfo | None] = ReadOnly("call job.end(error=…)")
    attempt: ReadOnly[int] = ReadOnly(
        "each start of the job with the same job_id counts it", "claim.attempt"
    )
    duration_ms: ReadOnly[float | None] = ReadOnly("it is measured", "run.duration_ms")
    existing: ReadOnly[bool] = ReadOnly("it follows from idempotency_key", "claim.existing")
    percent: ReadOnly[float | None] = ReadOnly(_PERCENT)
    current_step: ReadOnly[str | None] = ReadOnly(
        "call job.update(current_step=…)", "shared.current"
    )
    if not TYPE_CHECKING:
        progress = Absent(_PERCENT)
        completed = Absent(_UNITS)
        done = Absent(_UNITS)
        total = Absent(_UNITS)

    def __repr__(self) -> str:
        return f"<Job {self.operation!r} {self.id} {self.status.value}>"

    @property
    def result(self) -> Any:
        """The job's result, a value that can be stored as JSON."""
        return self._core.result

    @result.setter
    def result(self, value: Any) -> None:
        core = self._core
        core.result = value
        # no later change of state would record the result
        if core.status.terminal and not core.existing:
            core.record()

    async def start(self) -> Self:
        """Start the job, and wait until its start is committed, for 1 second at most.

        If a job with its id exists, this starts that job's next attempt.

        Raises:
            NotOpen: if the tracker is not open.
            InvalidState: if it was started before.
            JobCancelled: if it was pending and was cancelled.
            StoreUnavailable: if it has a *job_id* or *idempotency_key* and the database is
                unavailable (see *offline*).
        """
        await self._core.start()
        return self

    async def __aenter__(self) -> Self:
        core = self._core
        core.entered = True
        await core.start()
        try:  # not within `enter_scope`, because a signal handler may raise where a call begins
            core.cancellation.task = asyncio.current_task()
            core.enter_scope()
        except BaseException as exc:
            core.interrupted(exc)
            raise
        return self

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        try:
            late = await self._core.cancellation.overdue(exc)
            exc = late or exc
            self._core.leave(outcome(exc), exc)
        except BaseException as interruption:  # of a signal handler
            self._core.interrupted(interruption)
            raise
        if late is not None:
            raise late

    def __enter__(self) -> Self:
        core = self._core
        core.entered = True
        core.start_here()
        try:  # see `__aenter__`
            core.cancellation.thread = threading.get_ident()
            core.enter_scope()
        except BaseException as exc:
            core.interrupted(exc)
            raise
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        try:
            self._core.leave(outcome(exc), exc)
        except BaseException as interruption:  # of a signal handler
            self._core.interrupted(interruption)
            raise

    def end(
        self,
        status: EndStatus | JobStatus | None = None,
        *,
        error: BaseException | None = None,
        result: Any = UNCHANGED,
        summary: Mapping[str, Any] | None = None,
        cpu_ms: float | None = None,
        max_rss_kb: int | None = None,
    ) -> Done[None]:
        """End the job manually. It has ended when this returns; awaiting the result is optional.

        Args:
            status: ``completed``, ``failed`` or ``cancelled``. By default ``failed`` if there is an
                *error* (``cancelled`` if it is a cancellation), otherwise ``completed``.
            error: The exception that ended the job.
            result: The job's result, a value that can be stored as JSON. By default the value of
                the attribute `result`.
            summary: Further attributes for the job's last event.
            cpu_ms: CPU time in milliseconds, if the work was done elsewhere, for example in a child
                process.
            max_rss_kb: Peak memory in kilobytes. If neither *cpu_ms* nor *max_rss_kb* is given,
                both are measured for this process: its CPU time since the job started, and its peak
                memory so far.

        Raises:
            InvalidState: if the job has already ended, or has not started.
            InvalidArgument: if *status* is not one of these values, *error* is not an exception, a
                completed job is given an error, or a number is negative.
        """
        core, ended_as = self._core, ending("a job", status, error, _ENDS)
        if core.existing:
            core.require_running("end")
        if core.abandoned:
            return Done(None)
        check_job_transition(core.named(), core.status, JobStatus(ended_as))
        core.run.used(cpu_ms, max_rss_kb)
        if result is not UNCHANGED:
            core.result = result
        core.summary.update(summary or {})
        core.finish(ended_as, error)
        return Done(None)

    def update(
        self,
        *,
        percent: float | None = None,
        current_step: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> None:
        """Report progress. It is recorded at most four times a second.

        It never raises, unless logging is strict. An invalid value, or a call after the end of the
        job, is ignored with a warning on the logger ``structjob``, at most one a minute. In a
        ``with`` block it raises `Cancelled` if the job was asked to stop, as `check_cancelled`
        does.

        Args:
            percent: 0–100.
            current_step: What the job is doing, at most 200 characters. By default the name of the
                step that started last.
            metadata: Merged into the existing metadata.
            description: Replaces the previous description.
        """
        core = self._core
        if (error := core.not_running("update")) is not None:
            core.misused(error)
            return
        percent = core.checked(check_percent, percent)
        current_step = core.checked(check_current_step, current_step)
        described = core.checked(check_description, description)
        added = core.checked(check_metadata, metadata)
        core.metadata.update(added or {})
        # Only what is given is set: another thread may have reported the rest since.
        if percent is not None:
            core.percent = percent
        if current_step is not None:
            core.shared.current = current_step
        if described is not None:
            core.description = described
        core.progressed()
        core.cancellation.stop_if_asked()  # last, so that the report is not lost

    def step(
        self,
        name: str,
        *,
        total: float | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Step:
        """Return a new step of this job, for ``async with`` or `Step.start`.

        Args:
            name: At most 200 characters.
            total: The number of units to process, if it is known.
            description: What the step does.
            metadata: A mapping, stored as JSON.
        """
        return Step(
            StepCore(self._core, name, total=total, description=description, metadata=metadata)
        )

    def start_step(self, name: str, /, *, total: float | None = None, **metadata: Any) -> Step:
        """Start a step manually, and return it. ``step.end()`` ends it.

        Args:
            name: At most 200 characters.
            total: The number of units to process, if it is known.
            metadata: The step's metadata.

        Raises:
            InvalidState: if the job is not running.
        """
        step = self.step(name, total=total, metadata=metadata)
        step.start()
        return step

    def retrying(
        self, name: str, policy: Policy | None = None, **options: Unpack[RetryOptions]
    ) -> Retrying[Step]:
        """Return attempts at one piece of this job's work.

        Each attempt is a step ``attempt-N`` within the step *name*; see `structjob.retrying`.

        Args:
            name: At most 200 characters.
            policy: A ``tenacity.AsyncRetrying`` or ``tenacity.Retrying`` that decides when to
                retry.
            options: The retry options *max_attempts*, *delay*, *backoff*, *max_delay*, *jitter* and
                *on*, instead of *policy*.

        Raises:
            InvalidArgument: if an argument is invalid.
        """
        from structjob.lifecycle.retries import retrying_in

        return retrying_in(lambda: (self._core.classifier, self.step), name, policy, options)

    async def run_process(
        self, command: Sequence[str | os.PathLike[str]], **options: Unpack[ProcessKeywords]
    ) -> ProcessResult:
        """Run a program as a step of this job.

        Each line that the program prints becomes an event of kind ``output``, with its stream. The
        program belongs to the job: jobs that it starts with ``structjob run`` or a tracker are
        child jobs.

        Args:
            command: The program and its arguments. No shell is used.
            options: The options of the run:

                - ``timeout``: seconds after which the program is ended. No limit by default.
                - ``check``: whether to raise if the exit code is not 0. True by default.
                - ``cwd``: the working directory.
                - ``env``: the environment instead of ``os.environ``. The ids of the job are added.
                - ``input``: the data for stdin, which is empty by default.
                - ``echo``: whether to print the lines here, too. False by default.
                - ``grace``: seconds between SIGTERM and SIGKILL when *timeout* or a cancellation
                  ends the program with its whole process group; 5 by default.
                - ``step``: the name of the step, by default the name of the program; or False for
                  no step.
                - ``levels``: the levels of the lines, such as ``{"stderr": "warning"}``; ``info``
                  by default.

        Returns:
            The outcome: the exit code, the resources used, and the last lines.

        Raises:
            CommandFailed: if *check* is set and the exit code is not 0.
            CommandTimeout: if the program was ended after *timeout* seconds.
            FileNotFoundError: if there is no such program; another `OSError` if it cannot be
                started.
            InvalidArgument: if an argument is invalid, such as a command given as one text.
        """
        from structjob.lifecycle.processes import run_process

        return await run_process(self, command, **options)

    def child(self, operation: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a child job of this job. It inherits the correlation id, project and owner.

        Args:
            operation: The name of the work, at most 255 characters.
            options: See `Tracker.job`; *parent* is not accepted.

        Raises:
            InvalidArgument: if an argument is invalid.
        """
        if options.get("parent") is not None:
            raise InvalidArgument(
                "the parent of a child is the job whose child() is called: leave parent out, or "
                "write tracker.job(…, parent=…)"
            )
        options["parent"] = self
        return JobContext(lambda: self._core.host, operation, options)


class JobContext:
    """The return value of ``tracker.job(…)``: runs a block or a decorated function as a job.

    Use it with ``async with``, or with ``with`` in code without an event loop. As a decorator of a
    function or coroutine function, each call is a job. ``await tracker.job(…)`` starts the job and
    returns it; then ``job.end()`` ends it.
    """

    def __init__(
        self, host: Callable[[], JobHost[JobCore]], operation: str, options: Mapping[str, Any]
    ) -> None:
        self._host = host  # called at each start: a tracker may be closed and opened again
        self._operation = operation
        self._ids: dict[str, IdOfCall] = {
            name: value for name in IDS if callable(value := options.get(name))
        }
        self._options = JobOptions.of(
            {name: value for name, value in options.items() if name not in self._ids}
        )
        self._job: Job | None = None
        # Check the arguments now, where the caller made the mistake, and not at the entry.
        check_arguments(operation, self._options)

    def _make(self) -> Job:
        for name in self._ids:
            raise InvalidArgument(
                f"{name} is a function, which works for a decorated function only: give it as text"
            )
        return self._job_of(self._options)

    def _job_of(self, options: JobOptions) -> Job:
        parent = parent_scope(options.parent)
        return Job(JobCore(self._host(), self._operation, parent=parent, options=options))

    def _maker(self, function: Callable[P, Any]) -> Callable[P, Job]:
        """Return a function that takes the arguments of a call, and returns the job of this
        call.
        """
        if not self._ids:
            return lambda *_, **__: self._job_of(self._options)
        signature = inspect.signature(function)

        def make(*args: P.args, **kwargs: P.kwargs) -> Job:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            ids = {name: id_of(call.arguments) for name, id_of in self._ids.items()}
            return self._job_of(msgspec.structs.replace(self._options, **ids))

        return make

    def _made(self) -> Job:
        """Return the job of the block that starts."""
        if self._job is not None:
            raise InvalidState(
                f"the job {self._operation!r} is entered already; call tracker.job() anew for each run"
            )
        self._job = self._make()
        return self._job

    async def __aenter__(self) -> Job:
        job = self._made()
        try:
            return await job.__aenter__()
        except BaseException:
            self._job = None
            raise

    async def start(self) -> Job:
        """Start the job manually, and return it. ``job.end()`` ends it; see `Job.start`."""
        return await self._make().start()

    def __await__(self) -> Generator[Any, None, Job]:
        return self.start().__await__()

    def begin(self) -> Job:
        """Start the job as `start` does, without ``await``: in code without an event loop."""
        job = self._make()
        core_of(job).start_here()
        return job

    def __enter__(self) -> Job:
        job = self._made()
        try:
            return job.__enter__()
        except BaseException:
            self._job = None
            raise

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        job, self._job = self._job, None
        try:
            if job is not None:
                job.__exit__(kind, exc, trace)
        except BaseException as interruption:  # of a signal handler, where the call begins
            if job is not None:
                core_of(job).interrupted(interruption)
            raise

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        job, self._job = self._job, None
        try:
            if job is not None:
                await job.__aexit__(kind, exc, trace)
        except BaseException as interruption:  # see `__exit__`
            if job is not None:
                core_of(job).interrupted(interruption)
            raise

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function or coroutine function, so that each call is a job.

        The return value becomes the job's result, unless the function sets another result.

        Raises:
            InvalidArgument: if *function* is a generator function, or not a function.
        """
        coroutines = decorates_coroutines(function, "tracker.job()")
        return decorated(function, self._maker(function), kept, coroutines=coroutines)


def kept(job: Job, returned: T) -> T:
    """Return the value that a decorated function returned. It becomes the job's result unless one
    was set.
    """
    if job.result is None and not job.existing:
        job.result = returned
    return returned


def parent_scope(parent: Handle[Any] | RemoteContext | str | None) -> Scope | None:
    if isinstance(parent, Job):
        core = core_of(parent)
        if core.scope is not None:
            return core.scope
        return Scope(
            job=core,
            job_id=parent.id,
            correlation_id=parent.correlation_id,
            root_job_id=parent.root_job_id,
        )
    if isinstance(parent, RemoteContext):
        return remote_scope(parent)
    if isinstance(parent, str):
        id_ = check_text("parent", parent, 64)
        return Scope(job_id=None if id_ is None else identified(id_))
    if parent is not None:
        raise InvalidArgument(
            f"parent must be a job, its id, or what structjob.extract() returned, not {type(parent).__name__}"
        )
    return current_scope()


def job_of(core: JobCore) -> Job:
    """Return the handle of *core*, for users. The other direction is `core_of`."""
    return cast(Job, core.handle)  # only `Job` makes itself the handle of a job's core
