"""A live job: how it starts and ends, and what is recorded of it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from structjob.capture.processors import check_overlooked
from structjob.capture.setup import SETUP
from structjob.context.errors import Classifier, annotate, describe, is_noted
from structjob.context.scope import Scope, new_id
from structjob.context.tracing import Span, begin_span, end_span, span_of
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.lifecycle.arguments import (
    check_mapping,
    check_metadata,
    check_percent,
    check_text,
    check_units,
    checked_text,
    required_text,
)
from structjob.lifecycle.attributes import Absent, Checked, ReadOnly
from structjob.lifecycle.cancellation import Cancellable, Cancellation
from structjob.lifecycle.claim import Answer, Claim, named, refused
from structjob.lifecycle.handle import (
    PROGRESS_EVENT_EVERY,
    check_description,
    decoded,
    identifier,
    label,
    redacted,
)
from structjob.lifecycle.hooks import HOOKS
from structjob.lifecycle.options import JobKeywords, JobOptions
from structjob.lifecycle.outcome import ending, error_columns, followed, last_event, outcome
from structjob.lifecycle.run import Run
from structjob.lifecycle.shared import Shared
from structjob.lifecycle.steps import Step
from structjob.lifecycle.waiting import Done
from structjob.machine.clock import database_time, now
from structjob.models import EndStatus, ErrorInfo, JobStatus, check_job_transition

if TYPE_CHECKING:
    from structjob.lifecycle.contexts import JobContext
    from structjob.lifecycle.host import JobHost
    from structjob.lifecycle.policy import Policy, RetryOptions
    from structjob.lifecycle.processes import ProcessKeywords, ProcessResult
    from structjob.lifecycle.retries import Retrying

START_WAITS = 1.0
"""Maximum seconds that the start of a job waits for its commit."""


UNCHANGED: Any = object()
"""The default of an argument that is not given."""

_check_operation = required_text("operation", 255)


def _check_category(value: str | None) -> str:
    return redacted(check_text("category", value, 64)) or "system"


def _check_current_step(value: str | None) -> str | None:
    return redacted(check_text("current_step", value, 200))


def _check_total_steps(value: int | None) -> int | None:
    number = None if value is None else check_units("total_steps", value)
    if number is not None and number != int(number):
        raise InvalidArgument(f"total_steps must be a whole number, not {value!r}")
    return None if number is None else int(number)


def _root_of(host: JobHost, parent: Scope | None) -> str | None:
    """Return the root job of a new job below *parent*.

    If the parent is only an id, the root is looked up among this process's live jobs. If it is not
    there, the parent's own id is returned.
    """
    if parent is None or parent.job_id is None:
        return None
    if parent.root_job_id is not None:
        return parent.root_job_id
    return next(
        (job.root_job_id for job in list(host.live) if job.id == parent.job_id), parent.job_id
    )


_CHECKED = {
    name: "id" if name == "job_id" else name
    for name in JobOptions.__struct_fields__
    if name not in ("parent", "offline", "wait")
}
"""The attribute of a job that checks an option, by the option's name."""

_END = "call job.end(), or leave `async with`"
_PERCENT = "call job.update(percent=…)"
_UNITS = "a step counts units: step.advance(), job.step(name, total=…)"


class JobUpdate(TypedDict, total=False):
    """The arguments of `Job.update`."""

    percent: float | None
    current_step: str | None
    metadata: Mapping[str, Any] | None
    description: str | None


class Job(Cancellable):
    """A live job, created by ``tracker.job()``, ``job.child()`` or ``tracker.create_job()``.

    Attributes:
        id: A UUIDv7, or the caller's id.
        operation: The name of the work.
        attempt: The number of this attempt, from 1; 0 before the start. It is provisional for a job
            that was started *offline* while the database was unavailable, and does not change in
            this handle.
        provisional: The start time of a provisional attempt; ``None`` for any other attempt.
        correlation_id: Inherited by child jobs, unless they set their own; so are *owner* and
            *project*.
        total_steps: The number of steps, if it is known. The events of its steps and its last event
            contain it. It can be set while the job runs.
        status: A `JobStatus`. Only the library sets *status*, *attempt*, *existing*, *error*,
            *percent* and *current_step*.
        metadata: The mapping given at creation. Changes are recorded with the next change of state.
        result: A value that can be stored as JSON. It is stored with the next change of state, or
            at once if the job has ended.
        existing: Whether another start with the same idempotency key came first. Then this handle
            shows the existing job and records no changes.
    """

    __slots__ = (
        "_bound", "_claim", "_error", "_outer_correlation_id", "_parent", "_percent", "_result", "_run", "_set_category",
        "_set_context_id", "_set_correlation_id", "_set_description", "_set_external_job_id", "_set_id", "_set_idempotency_key",
        "_set_job_type", "_set_metadata", "_set_operation", "_set_owner", "_set_parent_job_id", "_set_project", "_set_root_job_id",
        "_set_total_steps", "_status", "_summary", "shared",
    )  # fmt: skip
    _table = "job"
    id = Checked(identifier(required_text("job_id", 64)))
    operation: Checked[str] = Checked(label(_check_operation))
    parent_job_id = Checked(identifier(checked_text("parent_job_id", 64)), optional=True)
    root_job_id = Checked(identifier(required_text("root_job_id", 64)))
    correlation_id = Checked(identifier(required_text("correlation_id", 128)))
    job_type = Checked(label(checked_text("job_type", 128)), optional=True)
    description = Checked(check_description, optional=True)
    owner = Checked(label(checked_text("owner", 128)), optional=True)
    project = Checked(label(checked_text("project", 128)), optional=True)
    category = Checked(_check_category)
    external_job_id = Checked(identifier(checked_text("external_job_id", 255)), optional=True)
    context_id = Checked(identifier(checked_text("context_id", 64)), optional=True)
    idempotency_key = Checked(identifier(checked_text("idempotency_key", 255)), optional=True)
    metadata = Checked(partial(check_mapping, "metadata"))
    total_steps = Checked(_check_total_steps, optional=True)
    status: ReadOnly[JobStatus] = ReadOnly(_END)
    error: ReadOnly[ErrorInfo | None] = ReadOnly("call job.end(error=…)")
    attempt: ReadOnly[int] = ReadOnly(
        "each start of the job with the same job_id counts it", "_claim.attempt"
    )
    provisional: ReadOnly[str | None] = ReadOnly(
        "it follows from offline=True", "_claim.provisional"
    )
    duration_ms: ReadOnly[float | None] = ReadOnly("it is measured", "_run.duration_ms")
    existing: ReadOnly[bool] = ReadOnly("it follows from idempotency_key", "_claim.existing")
    percent: ReadOnly[float | None] = ReadOnly(_PERCENT)
    current_step: ReadOnly[str | None] = ReadOnly(
        "call job.update(current_step=…)", "shared.current"
    )
    if not TYPE_CHECKING:
        progress = Absent(_PERCENT)
        completed = Absent(_UNITS)
        done = Absent(_UNITS)
        total = Absent(_UNITS)

    def __init__(
        self, host: JobHost, operation: str, *, parent: Scope | None, options: JobOptions
    ) -> None:
        super().__init__(host)
        self.operation = operation
        self.id = new_id() if options.job_id is None else options.job_id
        self.parent_job_id = parent.job_id if parent is not None else None
        self.root_job_id = _root_of(host, parent) or self.id
        inherited = parent.correlation_id if parent is not None else None
        self._outer_correlation_id = inherited
        self.correlation_id = (
            (inherited or new_id()) if options.correlation_id is None else options.correlation_id
        )
        self.job_type = options.job_type
        self.description = options.description
        above = parent.labels if parent is not None else {}
        self.owner = above.get("owner") if options.owner is None else options.owner
        self.project = (
            (above.get("project") or host.project) if options.project is None else options.project
        )
        self.category = options.category
        self.external_job_id = options.external_job_id
        self.context_id = options.context_id
        self.idempotency_key = options.idempotency_key
        self.metadata = options.metadata
        self.total_steps = options.total_steps
        self._result: Any = None
        self._summary: dict[str, Any] = {}
        self._bound: dict[str, Any] = {}
        self._status = JobStatus.PENDING
        self._error: ErrorInfo | None = None
        self._parent = parent
        self._percent: float | None = None
        self._claim = Claim(options)
        self._run = Run()
        self.shared = Shared()
        self.cancellation = Cancellation(parent)

    def __repr__(self) -> str:
        return f"<Job {self.operation!r} {self.id} {self._status.value}>"

    @property
    def result(self) -> Any:
        """The job's result, a value that can be stored as JSON."""
        return self._result

    @result.setter
    def result(self, value: Any) -> None:
        self._result = value
        # no later change of state would record the result
        if self._status.terminal and not self.existing:
            self._record()

    @property
    def ended(self) -> bool:
        """Whether the job has started and ended. Always False for an *existing* job, which another
        start ends.
        """
        return self._status.terminal and not self.existing and not self._abandoned

    @property
    def classifier(self) -> Classifier | None:
        """The function that derives the fields of an error in this job."""
        return self._host.classifier

    # -- start
    # --------------------------------------------------------------------------

    async def _create(self) -> None:
        """Record the job as pending, to be started later, or show the job that already has the
        idempotency key.
        """
        if self.idempotency_key is not None:
            holder = await self._claim.reserve(self._host, self._row() | self._unrecorded())
            if holder is not None:
                self._answered((holder, 0))
                return
        self._scope = self.scope_of()
        number = self._record()
        self._event("info", "operation_created", {"operation": self.operation, **self._described()})
        self._claim.known = True
        await self._committed(number)

    def _unrecorded(self) -> dict[str, Any]:
        """Return the columns of a row that is stored before any record of the job."""
        return {"session_id": self._host.recorder.session.session_id, "state_seq": 0}

    async def _committed(self, number: int) -> None:
        """Wait until the record is committed, so that other processes can find the job."""
        if self._claim.options.wait and number:
            try:
                await self._host.committed(number, START_WAITS)
            except BaseException as exc:
                # The caller never gets the handle, because `__aexit__` does not run when
                # `__aenter__` raises. So end the job here.
                self._finish(outcome(exc), exc)
                raise

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
        if self._must_claim():
            if await self._claimed():
                return self
        else:
            self._claim.attempt = 1
        await self._committed(self._begin())
        return self

    def _start_here(self) -> None:
        """Start as `start` does, in code without an event loop."""
        if self._must_claim():
            if self._host.run(self._claimed()):
                return
        else:
            self._claim.attempt = 1
        number = self._begin()
        if self._claim.options.wait and number:
            try:
                self._host.wait_committed(number, START_WAITS)
            except BaseException as exc:
                self._finish(outcome(exc), exc)  # see `_committed`
                raise

    def _must_claim(self) -> bool:
        """Return whether the database must assign the attempt.

        Raises:
            NotOpen: see `start`.
            InvalidState: see `start`.
            Cancelled: if an enclosing job without a task was asked to stop.
        """
        self._host.require_open()
        if self._status is not JobStatus.PENDING or self.existing:
            raise InvalidState(self._begun_already())
        self.cancellation.stop_if_asked()
        return self._host.tracked and (self._claim.known or self.idempotency_key is not None)

    def _begun_already(self) -> str:
        if self.existing and self._status is JobStatus.PENDING:
            return (
                f"{self._named()} is another call's (same idempotency key) and waits to be started: "
                f"tracker.job({self.operation!r}, job_id={self.id!r}) starts it"
            )
        return f"{self._named()} was started already; make a new one to run it again"

    async def _claimed(self) -> bool:
        """Ask the database for the attempt.

        Return whether another start owns the job.
        """
        self._status, self._run.started = JobStatus.RUNNING, database_time(now())
        row = self._row() | self._unrecorded() | {"attempt": 1}
        self._status, self._run.started = JobStatus.PENDING, None
        pending = self._scope is not None
        self._answered(await self._claim.ask(self, row, pending=pending, late=self._answered_late))
        return self.existing

    def _answered_late(self, claim: asyncio.Future[Answer]) -> None:
        self._host.claims.discard(claim)
        if claim.cancelled() or claim.exception() is not None or refused(self, claim.result()):
            return
        self._answered(claim.result())
        if not self.existing:
            self._begin()
            self._finish("cancelled", asyncio.CancelledError("cancelled while it was started"))

    def _answered(self, answer: Answer) -> None:
        self._claim.answered(self, answer)
        if self.existing and (former := answer[0]) is not None:
            self._status = JobStatus(former["status"])
            self._result = decoded(former["result"])
            self._scope = self.scope_of()

    def begin_untracked(self) -> None:
        """Start the job without a tracker that records it."""
        self._status, self._claim.attempt, self.began = JobStatus.RUNNING, 1, time.monotonic()
        self._scope = self.scope_of()

    def _begin(self) -> int:
        """Start the job and return the number of the record of the start; 0 if there is no
        record.
        """
        if not self._host.tracked:
            self.begin_untracked()
            return 0
        self._status = JobStatus.RUNNING
        session_id = self._host.recorder.session.session_id
        self._run.begin(session_id, self.provisional or database_time(now()))
        self.began = self.shared.reported_at = time.monotonic()
        self._recorded_at = time.monotonic()
        self._span = begin_span(self, self._parent)
        self._scope = self.scope_of()
        self._host.live.add(self)
        if (kept := self._host.recorder.kept) is not None:
            kept.begin(self.id)
        number = self._record()
        self._event("info", "operation_start", {"operation": self.operation, **self._described()})
        if HOOKS:
            self._announce("started")
        return number

    def _follow(self, former: Job) -> None:
        """Become the attempt after *former*, which this process made, so that the database need not
        confirm it.
        """
        self._claim.follow(former)
        self.id, self.parent_job_id, self.root_job_id = (
            former.id,
            former.parent_job_id,
            former.root_job_id,
        )
        self.correlation_id, self.metadata = former.correlation_id, {**former.metadata}
        self.shared.created_ns, self.shared.created = (
            former.shared.created_ns,
            former.shared.created,
        )

    def scope_of(self, step: Step | None = None, span: Span | None = None) -> Scope:
        """Return the scope of the job, or of one of its steps. For the library.

        Args:
            step: The step.
            span: The span of the step, if there is one.
        """
        if not self._host.tracked:  # no ids of its own, because no data is stored under them
            around = self._parent
            if around is None or around.job_id is None:
                return Scope(job=self, step=step, correlation_id=self._outer_correlation_id)
            # Events belong to the job around it: one of another process, or one that has ended.
            named = step is not None and around.step_id is None
            scope = around.within(step.name) if step is not None and named else around.copied()
            scope.job, scope.step = self, step
            return scope
        span = span or self._span or span_of(self._parent)
        return Scope(
            recorder=self._host.recorder,
            job=self,
            step=step,
            job_id=self.id,
            attempt=self.attempt or None,
            operation=self.operation,
            parent_job_id=self.parent_job_id,
            step_id=step.id if step is not None else None,
            step_name=step.name if step is not None else None,
            bound=self._bound,
            correlation_id=self.correlation_id,
            trace_id=span.trace_id,
            span_id=span.span_id,
            trace_flags=span.flags,
            tracestate=span.tracestate,
            category=self.category,
            project=self.project,
            provisional=self.provisional,
            root_job_id=self.root_job_id,
        )

    async def __aenter__(self) -> Self:
        self._entered = True
        await self.start()
        self.cancellation.task = asyncio.current_task()
        self.enter_scope()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        late = await self.cancellation.overdue(exc)
        exc = late or exc
        self._leave("completed" if exc is None else outcome(exc), exc)
        if late is not None:
            raise late

    def __enter__(self) -> Self:
        self._entered = True
        self._start_here()
        self.cancellation.thread = threading.get_ident()
        self.enter_scope()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave("completed" if exc is None else outcome(exc), exc)

    def _leave(
        self, status: str, exc: BaseException | None, summary: Mapping[str, Any] | None = None
    ) -> None:
        self.cancellation.task = self.cancellation.thread = None
        self.leave_scope()
        if not self.existing and self._status is JobStatus.RUNNING:
            self._finish(status, exc, summary)

    # -- end
    # --------------------------------------------------------------------------

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
        ended_as = ending("a job", status, error, ("completed", "failed", "cancelled"))
        if self.existing:
            self.require_running("end")
        if self._abandoned:
            return Done(None)
        check_job_transition(self._named(), self._status, JobStatus(ended_as))
        self._run.used(cpu_ms, max_rss_kb)
        if result is not UNCHANGED:
            self._result = result
        self._summary.update(summary or {})
        self._finish(ended_as, error)
        return Done(None)

    def _fail(self, exc: BaseException) -> None:
        if not self.existing and self._status is JobStatus.RUNNING:
            self._finish(outcome(exc), exc)

    def _finish(
        self, status: str, exc: BaseException | None, summary: Mapping[str, Any] | None = None
    ) -> None:
        self._pending = False
        if status == "completed":
            exc = None  # the block was left by `sys.exit(0)`
        if not self._host.tracked:
            self._status = JobStatus(status)
            self._abandoned = True  # without a tracker, a second end is not an error
            return
        # the job was only pending, or has got another operation
        if self._scope is None or self._scope.operation != self.operation:
            self._scope = self.scope_of()
        if (
            self.shared.unreported is not None
            and time.monotonic() - self.began >= PROGRESS_EVENT_EVERY
        ):
            self.shared.write_progress_event(self._scope)
        self._status = JobStatus(status)
        seconds = time.monotonic() - self.began if self.began else 0.0
        self._run.end(seconds, cancelled=self._status is JobStatus.CANCELLED)
        if self._status is JobStatus.COMPLETED:
            self._percent = 100.0
        try:
            for step in list(self.shared.open.values()):
                with suppress(InvalidState):  # another thread has just ended it
                    step.end("cancelled")
            self._run.measure()
            if exc is not None:
                self._annotate(exc)
                self._error = describe(exc)
        finally:  # record the job even if the exception cannot be described
            self._record()
            self._host.live.discard(self)
        said = summary or {}
        kept = status == "failed" and not followed(said)
        self._host.recorder.end_kept(self.id, failed=kept)
        level, attrs = last_event(self, status, exc, seconds, said)
        self._event(level, "operation_end", attrs)
        if SETUP.overlooked:
            check_overlooked()
        if HOOKS and self.began:
            self._announce("ended", exc, self.duration_ms)
        end_span(self)

    def _annotate(self, exc: BaseException) -> None:
        if not is_noted(exc, self.id):
            annotate(exc, job_id=self.id, operation=self.operation)

    # -- while running
    # --------------------------------------------------------------------------

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
        job, is ignored with one warning on the logger ``structjob``. In a ``with`` block it raises
        `Cancelled` if the job was asked to stop, as `check_cancelled` does.

        Args:
            percent: 0–100.
            current_step: What the job is doing, at most 200 characters. By default the name of the
                step that started last.
            metadata: Merged into the existing metadata.
            description: Replaces the previous description.
        """
        if (error := self._not_running("update")) is not None:
            self._misused(error)
            return
        percent = self._checked(check_percent, percent, None)
        current_step = self._checked(_check_current_step, current_step, None)
        described = self._checked(check_description, description, None)
        added = self._checked(check_metadata, metadata, None)
        self.metadata.update(added or {})
        # Only what is given is set: another thread may have reported the rest since.
        if percent is not None:
            self._percent = percent
        if current_step is not None:
            self.shared.current = current_step
        if described is not None:
            self.description = described
        self.progressed()
        self.cancellation.stop_if_asked()  # last, so that the report is not lost

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
        return Step(self, name, total=total, description=description, metadata=metadata)

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

        return retrying_in(self, name, policy, options)

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
        from structjob.lifecycle.contexts import JobContext

        return JobContext(lambda: self._host, operation, options)

    def restate(self) -> None:
        """Record the job and its open steps again, because another process presumed them
        crashed.
        """
        super().restate()
        for step in list(self.shared.open.values()):
            step.restate()

    @property
    def runs(self) -> bool:
        """Whether the job's code may still be running.

        It is if the job has started and not ended, or if its tracker was closed before it ended.
        For the library.
        """
        return self._status is JobStatus.RUNNING or self._abandoned

    def require_running(self, what: str) -> None:
        """Raise `InvalidState` if the job's code cannot be running. For the library.

        Args:
            what: What needs it running, for the message.
        """
        if (error := self._not_running(what)) is not None:
            raise error

    def _not_running(self, what: str) -> InvalidState | None:
        if self.existing:
            return InvalidState(
                f"{self._named()} is another start's job (same idempotency key); {what} is up to that one"
            )
        if not self.runs:
            return InvalidState(f"{self._named()} is {self._status.value}; {what} needs it running")
        return None

    def _named(self) -> str:
        return named(self)

    def _owner(self) -> Job:
        return self

    def _job_and_step(self) -> tuple[Job, None]:
        return self, None

    def reported(self) -> dict[str, Any]:
        return (
            {}
            if self._percent is None
            else {"percent": self._percent, "current_step": self.shared.current}
        )

    # -- records
    # --------------------------------------------------------------------------

    def _described(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("job_type", "owner", "external_job_id", "context_id")
        }
        if self.attempt > 1 and self.provisional is None:
            given["attempt"] = self.attempt
        return {key: value for key, value in given.items() if value is not None}

    def _row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "parent_job_id": self.parent_job_id,
            "root_job_id": self.root_job_id,
            "job_type": self.job_type,
            "operation": self.operation,
            "description": self.description,
            "status": self._status.value,
            "percent_complete": self._percent,
            "current_step": self.shared.current,
            "owner": self.owner,
            "project": self.project,
            "category": self.category,
            "metadata": self._encoded_metadata(self.metadata),
            "result": self._json("result", self.result),
            **error_columns(self._error),
            "correlation_id": self.correlation_id,
            "external_job_id": self.external_job_id,
            "context_id": self.context_id,
            "idempotency_key": self.idempotency_key,
            "attempt": self.attempt,
            "created_at": self.shared.created,
            **self._run.columns(),
            **({} if self.provisional is None else {"provisional": self.provisional}),
        }

    def abandon(self, reason: str) -> bool:
        """Record the job and its open steps as cancelled because their tracker or process ends now.

        *reason* is recorded as the reason. This never waits. The job's code may continue. Later
        calls on these handles change nothing and raise nothing.

        Returns:
            Whether the job was running.
        """
        # After a fork, the child's live jobs include the parent's jobs. Only the parent may end
        # those.
        if (
            self._status is not JobStatus.RUNNING
            or self._run.session_id != self._host.recorder.session.session_id
        ):
            return False
        self._abandoned = True
        for step in reversed(list(self.shared.open.values())):
            step.abandon(reason)
        self._finish("cancelled", asyncio.CancelledError(reason))
        return True


def check_arguments(operation: str, options: JobOptions) -> None:
    """Check the arguments of a job that is created later.

    Raises:
        InvalidArgument: if an argument is invalid.
    """
    _check_operation(operation)
    for option, attribute in _CHECKED.items():
        if (value := getattr(options, option)) is not None:
            Job.__dict__[attribute].check(value)
