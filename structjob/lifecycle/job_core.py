"""A live job, as the library sees it: how it starts and ends, and what is recorded of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from structjob.capture.noise import LIMITS, suppressed_in
from structjob.capture.processors import check_overlooked
from structjob.capture.setup import SETUP
from structjob.context.errors import (
    Classifier,
    annotate,
    attrs_at_end,
    describe,
    error_fields,
    is_noted,
)
from structjob.context.scope import Scope, current_scope
from structjob.context.tracing import Span, begin_span, end_span, span_of
from structjob.exceptions import InvalidState
from structjob.lifecycle.cancellation import Cancellation
from structjob.lifecycle.claim import Answer, Claim, decoded, refused
from structjob.lifecycle.core import PROGRESS_EVENT_EVERY
from structjob.lifecycle.described_job import DescribedJob
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.observers import OBSERVERS
from structjob.lifecycle.options import JobOptions
from structjob.lifecycle.outcome import add_error, duration_fields, followed, outcome
from structjob.lifecycle.rows import JobRow
from structjob.lifecycle.run import Run
from structjob.lifecycle.shared import OpenStep
from structjob.machine.clock import time_text
from structjob.machine.loops import require_asyncio
from structjob.models import ErrorInfo
from structjob.statuses import JobStatus, being_cancelled

START_WAITS = 1.0
"""Maximum seconds that the start of a job waits for its commit."""


def current_core() -> JobCore | None:
    """Return the core of the live job that the running code belongs to, or ``None``."""
    scope = current_scope()
    # Only this package creates scopes with a job or a step.
    return cast("JobCore | None", scope.job) if scope is not None else None


_STATUSES = {status.value: status for status in JobStatus}
"""A fifth of the time of `JobStatus(value)`."""


class JobCore(DescribedJob):
    """A live job, as the library sees it; see `structjob.Job` for most attributes.

    Attributes:
        result: A value that can be stored as JSON.
        bound: Fields that every event of the job and its steps gets.
        claim: Which attempt it is.
        run: Its times, and the resources that it used.
        cancellation: Whether it was asked to stop, and what stops it.
    """

    __slots__ = (
        "_parent", "bound", "cancellation", "claim", "error", "percent", "result", "run", "status",
    )  # fmt: skip
    joined = False
    """Whether another process runs it, and this one only adds steps."""
    host: JobHost[JobCore]

    def __init__(
        self, host: JobHost[JobCore], operation: str, *, parent: Scope | None, options: JobOptions
    ) -> None:
        super().__init__(host, operation, parent=parent, options=options)
        self.result: Any = None
        self.bound: dict[str, Any] = {}
        self.status: JobStatus = JobStatus.PENDING
        self.error: ErrorInfo | None = None
        self._parent = parent
        self.percent: float | None = None
        self.claim = Claim(options)
        self.run = Run()
        self.cancellation = Cancellation(parent)

    @property
    def job(self) -> JobCore:
        return self

    @property
    def attempt(self) -> int:
        """The number of the attempt; see `structjob.Job`."""
        return self.claim.attempt

    @property
    def existing(self) -> bool:
        """Whether another start owns the job; see `structjob.Job`."""
        return self.claim.existing

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds from its start to its end; ``None`` until it has ended."""
        return self.run.duration_ms

    @property
    def ended(self) -> bool:
        """Whether the job has started and ended. Always False for an *existing* job, which another
        start ends.
        """
        return self.status.terminal and not self.existing and not self.abandoned

    @property
    def classifier(self) -> Classifier | None:
        """The function that derives the fields of an error in this job."""
        return self.host.classifier

    # -- start
    # --------------------------------------------------------------------------

    async def create(self) -> None:
        """Record the job as pending, to be started later, or show the job that already has the
        idempotency key.
        """
        if self.idempotency_key is not None:
            holder = await self.claim.reserve(self.host, self._unrecorded())
            if holder is not None:
                self._answered((holder, 0))
                return
        self.scope = self.scope_of()
        number = self.record()
        self.event("info", "operation_created", self.described())
        self.claim.known = True
        await self._committed(number)

    def _unrecorded(self) -> dict[str, Any]:
        """Return the row that is stored before any record of the job."""
        session_id = self.host.recorder.session.session_id
        return {**msgspec.structs.asdict(self._row()), "session_id": session_id, "state_seq": 0}

    async def _committed(self, number: int) -> None:
        """Wait until the record is committed, so that other processes can find the job."""
        if self.claim.options.wait and number:
            try:
                await self.host.committed(number, START_WAITS)
            except BaseException as exc:
                # The caller never gets the handle, because `__aexit__` does not run when
                # `__aenter__` raises. So end the job here.
                self.finish(outcome(exc), exc)
                raise

    async def start(self) -> None:
        """Start it; see `structjob.Job.start`."""
        require_asyncio()
        if self._must_claim() and await self._claimed():
            return
        await self._committed(self.begin())

    def start_here(self) -> None:
        """Start as `start` does, in code without an event loop."""
        if self._must_claim() and self.host.run(self._claimed()):
            return
        number = self.begin()
        if self.claim.options.wait and number:
            try:
                self.host.wait_committed(number, START_WAITS)
            except BaseException as exc:
                self.finish(outcome(exc), exc)  # see `_committed`
                raise

    def _must_claim(self) -> bool:
        """Return whether the database must assign the attempt.

        Raises:
            NotOpen: see `start`.
            InvalidState: see `start`.
            Cancelled: if an enclosing job without a task was asked to stop.
        """
        self.host.require_open()
        if self.status is not JobStatus.PENDING or self.existing:
            raise InvalidState(self._begun_already())
        self.cancellation.stop_if_asked()
        return self.host.tracked and (self.claim.known or self.idempotency_key is not None)

    def _begun_already(self) -> str:
        if self.existing and self.status is JobStatus.PENDING:
            return (
                f"{self.named()} is another call's (same idempotency key) and waits to be started: "
                f"tracker.job({self.operation!r}, job_id={self.id!r}) starts it"
            )
        return f"{self.named()} was started already; make a new one to run it again"

    async def _claimed(self) -> bool:
        """Ask the database for the attempt.

        Return whether another start owns the job.
        """
        self.status, self.run.started = JobStatus.RUNNING, time_text()
        row = self._unrecorded() | {"attempt": 1}
        self.status, self.run.started = JobStatus.PENDING, None
        pending = self.scope is not None
        self._answered(
            await self.claim.ask(self.host, self, row, pending=pending, late=self._answered_late)
        )
        return self.existing

    def _answered_late(self, claim: asyncio.Future[Answer]) -> None:
        self.host.claims.discard(claim)
        if claim.cancelled() or claim.exception() is not None or refused(self, claim.result()):
            return
        self._answered(claim.result())
        if not self.existing:
            self.begin()
            self.finish("cancelled", asyncio.CancelledError("cancelled while it was started"))

    def _answered(self, answer: Answer) -> None:
        self.claim.answered(answer)
        former, _ = answer
        if former is None:
            return
        if not self.existing:
            self.take_over(former, self.claim.options)
            return
        self.id, self.operation = former["id"], former["operation"]
        self.correlation_id = former["correlation_id"] or self.correlation_id
        self.status = JobStatus(former["status"])
        self.result = decoded(former["result"])
        self.scope = self.scope_of()

    def begin(self) -> int:
        """Start the job and return the number of the record of the start; 0 if there is no
        record.
        """
        try:
            return self._begin()
        except BaseException as exc:
            # A signal handler may raise at any place, and `__exit__` does not run when `__enter__`
            # raises.
            self.fail(exc)
            raise

    def _begin(self) -> int:
        self.status = JobStatus.RUNNING
        self.claim.attempt = self.claim.attempt or 1
        if not self.host.tracked:
            self.began = time.monotonic()
            self.scope = self.scope_of()
            return 0
        session_id = self.host.recorder.session.session_id
        self.run.begin(session_id, self.claim.provisional or time_text())
        self.began = self.shared.reported_at = self.recorded_at = time.monotonic()
        self.span = begin_span(self.handle, self._parent)
        self.scope = self.scope_of()
        self.host.live.add(self)
        if (kept := self.host.recorder.kept) is not None:
            kept.begin(self.id)
        number = self.record()
        attrs = self.described()
        if self.attempt > 1 and self.claim.provisional is None:
            attrs["attempt"] = self.attempt
        self.event("info", "operation_start", attrs)
        if OBSERVERS:
            self._announce("started")
        return number

    def follow(self, former: JobCore) -> None:
        """Become the attempt after *former*, which this process made, so that the database need not
        confirm it.
        """
        self.claim.follow(former.claim)
        self.id, self.parent_job_id = former.id, former.parent_job_id
        self.root_job_id, self.correlation_id = former.root_job_id, former.correlation_id
        self.metadata = {**former.metadata}
        self.shared.created = former.shared.created

    def scope_of(self, step: OpenStep | None = None, span: Span | None = None) -> Scope:
        """Return the scope of the job, or of one of its steps.

        Args:
            step: The step.
            span: The span of the step, if there is one.
        """
        if not self.host.tracked:  # no ids of its own, because no data is stored under them
            around = self._parent
            if around is None or around.job_id is None:
                outer = around.correlation_id if around is not None else None
                return Scope(job=self, step=step, correlation_id=outer)
            # Events belong to the job around it: one of another process, or one that has ended.
            named = step is not None and around.step_id is None
            scope = around.within(step.name) if step is not None and named else around.copied()
            scope.job, scope.step = self, step
            return scope
        span = span or self.span or span_of(self._parent)
        recorder, claim = self.host.recorder, self.claim
        return Scope(
            recorder=recorder,
            job=self,
            step=step,
            job_id=self.id,
            attempt=claim.attempt or None,
            operation=self.operation,
            parent_job_id=self.parent_job_id,
            step_id=step.id if step is not None else None,
            step_name=step.name if step is not None else None,
            bound=self.bound,
            correlation_id=self.correlation_id,
            trace_id=span.trace_id,
            span_id=span.span_id,
            trace_flags=span.flags,
            tracestate=span.tracestate,
            category=self.category,
            project=self.project,
            provisional=claim.provisional,
            root_job_id=self.root_job_id,
            database=recorder.session.database,
        )

    def leave(
        self, status: str, exc: BaseException | None, summary: Mapping[str, Any] | None = None
    ) -> None:
        """Leave its block, and end it as `finish` does unless it has ended."""
        try:
            self.cancellation.task = self.cancellation.thread = None
            self.leave_scope()
            if not self.existing and self.status is JobStatus.RUNNING:
                self.finish(status, exc, summary)
        except BaseException as interruption:  # of a signal handler
            self.interrupted(interruption)
            raise

    def interrupted(self, exc: BaseException) -> None:
        """Leave its block and end it, after *exc* of a signal handler has interrupted that.

        It may be called again: the handler may have raised before or within `leave`.
        """
        self.cancellation.task = self.cancellation.thread = None
        self.leave_scope()
        self.fail(exc)
        if self.ended and self in self.host.live:  # its end was interrupted before it was recorded
            self.record()
            self.host.live.discard(self)

    # -- end
    # --------------------------------------------------------------------------

    def fail(self, exc: BaseException) -> None:
        if not self.existing and self.status is JobStatus.RUNNING:
            self.finish(outcome(exc), exc)

    def finish(
        self, status: str, exc: BaseException | None, summary: Mapping[str, Any] | None = None
    ) -> None:
        """End it, and record this.

        Args:
            status: How it ended.
            exc: The exception that ended it.
            summary: Further attributes for its last event.
        """
        self.pending = False
        if status == "completed":
            exc = None  # the block was left by `sys.exit(0)`
        if not self.host.tracked:
            self.status = JobStatus(status)
            self.abandoned = True  # without a tracker, a second end is not an error
            return
        # the job was only pending, or has got another operation
        if self.scope is None or self.scope.operation != self.operation:
            self.scope = self.scope_of()
        if time.monotonic() - self.began >= PROGRESS_EVENT_EVERY:
            self.shared.write_progress_event()
        ended = _STATUSES[status]
        seconds = time.monotonic() - self.began if self.began else 0.0
        # Directly before `try`, because a signal handler may raise between any two calls.
        self.status = ended
        try:
            self.run.end(seconds, cancelled=ended is JobStatus.CANCELLED)
            if ended is JobStatus.COMPLETED:
                self.percent = 100.0
            for step in list(self.shared.open.values()):
                if step.ended:  # an exception has interrupted its end
                    step.record()
                    continue
                with suppress(InvalidState):  # another thread has just ended it
                    if step.may_end("cancelled"):
                        step.finish("cancelled", None)
            self.run.measure()
            if exc is not None:
                if not is_noted(exc, self.id):
                    annotate(exc, job_id=self.id, operation=self.operation)
                self.error = describe(exc)
        finally:  # record the job even if the exception cannot be described
            self.record()
            self.host.live.discard(self)
        said = summary or {}
        kept = status == "failed" and not followed(said)
        self.host.recorder.end_kept(self.id, failed=kept)
        level, attrs = self._last_event(status, exc, seconds, said)
        self.event(level, "operation_end", attrs)
        if SETUP.overlooked:
            check_overlooked()
        if OBSERVERS and self.began:
            self._announce("ended", exc, self.duration_ms)
        if self.span is not None:
            end_span(self.handle)

    def abandon(self, reason: str) -> bool:
        """Record the job and its open steps as cancelled because their tracker or process ends now.

        *reason* is recorded as the reason. This never waits. The job's code may continue. Later
        calls on these handles change nothing and raise nothing.

        Returns:
            Whether the job was running.
        """
        # After a fork, the child's live jobs include the parent's jobs. Only the parent may end
        # those.
        if self.run.session_id != self.host.recorder.session.session_id:
            return False
        if self.status is not JobStatus.RUNNING:
            self.record()  # an exception has interrupted its end
            return False
        self.abandoned = True
        for step in reversed(list(self.shared.open.values())):
            step.abandon(reason)
        self.finish("cancelled", asyncio.CancelledError(reason))
        return True

    # -- while running
    # --------------------------------------------------------------------------

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
        """
        return self.status is JobStatus.RUNNING or self.abandoned

    def require_running(self, what: str) -> None:
        """Raise `InvalidState` if the job's code cannot be running.

        Args:
            what: What needs it running, for the message.
        """
        if (error := self.not_running(what)) is not None:
            raise error

    def not_running(self, what: str) -> InvalidState | None:
        """Return the error of *what*, which needs it running; None if it is."""
        if self.existing:
            return InvalidState(
                f"{self.named()} is another start's job (same idempotency key); {what} is up to that one"
            )
        if not self.runs:
            return InvalidState(f"{self.named()} is {self.status.value}; {what} needs it running")
        return None

    def reported(self) -> dict[str, Any]:
        if self.percent is None:
            return {}
        step = self.shared.current
        return {"percent": self.percent, **({} if step is None else {"current_step": step})}

    def cancel(self, reason: str | None, *, force: bool) -> None:
        """Ask it to stop; see `structjob.Job.cancel`."""
        asked = self.cancellation
        if not asked.possible or not self.runs:
            raise InvalidState(
                f"{self.named()} has no running task to cancel; end it with job.end('cancelled')"
            )
        if not force and (first := asked.first()) is not None:
            raise InvalidState(being_cancelled(first.name, first.reason))
        asked.request(self.named(), reason)

    def ask_to_stop(self, reason: str) -> None:
        """Make a ``with`` block in another thread end, because the process ends."""
        if self.cancellation.thread is not None and not self.cancellation.requested:
            self.cancellation.request(self.named(), reason)

    def request_cancel(self, reason: str, requested_by: str | None, *, force: bool) -> None:
        """Cancel it as `cancel` does, and record the request in the job's log.

        See `Tracker.cancel`.
        """
        self.cancel(reason, force=force)
        self.event(
            "warning",
            "cancel_requested",
            {"reason": reason, **({"requested_by": requested_by} if requested_by else {})},
        )

    # -- records
    # --------------------------------------------------------------------------

    def _last_event(
        self, status: str, exc: BaseException | None, seconds: float, summary: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Return the level and the attributes of the last event.

        Args:
            status: How it ended.
            exc: The exception that ended it.
            seconds: How long it took.
            summary: Attributes that are added to those of `structjob.Job.summary`.
        """
        level = {"completed": "info", "failed": "warning" if followed(summary) else "error"}.get(
            status, "warning"
        )
        shared = self.shared
        attrs = {
            "operation": self.operation,
            "status": status,
            # Attempts that were retried do not count as steps.
            "total_steps": shared.begun - shared.retried
            if self.total_steps is None
            else self.total_steps,
            "total_steps_completed": shared.completed,
            "total_duration_ms": self.duration_ms,
            **duration_fields(seconds),
            **self.summary,
            **summary,
        }
        if LIMITS and (suppressed := suppressed_in(self.id)):
            attrs["suppressed"] = suppressed
        if shared.failed is not None and status == "failed":
            attrs["failure_step"] = shared.failed
        if exc is not None:
            if status != "failed":
                return level, {**error_fields(exc, self.classifier), **attrs}
            return level, {**attrs_at_end(exc, self.classifier, self.scope), **attrs}
        if level == "error":
            from structjob.values.fingerprint import of_words  # loaded with the first error only

            attrs = {
                "error_type": "Failed",
                "error_message": "it ended as failed, without an error",
                **attrs,
            }
            attrs["error_fingerprint"] = of_words("Failed", "", self.operation)
        return level, attrs

    def _row(self) -> JobRow:
        shared, run, claim = self.shared, self.run, self.claim
        row = replace(  # it takes half the time of a new one
            self.columns,
            status=self.status,
            percent_complete=self.percent,
            current_step=shared.current,
            attempt=claim.attempt,
            created_at=shared.created,
            started_at=run.started,
            completed_at=run.ended,
            cancelled_at=run.cancelled,
            duration_ms=run.duration_ms,
            cpu_ms=run.cpu_ms,
            max_rss_kb=run.max_rss_kb,
            metadata=self._encoded("metadata", self.metadata or None),
            result=self._encoded("result", self.result),
            provisional=claim.provisional,
        )
        add_error(row, self.error)
        return row
