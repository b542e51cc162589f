"""A live step, as the library sees it: how it starts and ends, and what is recorded of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from structjob.context.errors import annotate, attrs_at_end, describe, is_noted
from structjob.context.scope import current_scope, new_id
from structjob.context.tracing import begin_span, end_span
from structjob.exceptions import InvalidState
from structjob.lifecycle.arguments import (
    check_description,
    check_label,
    check_metadata,
    check_total,
    required,
)
from structjob.lifecycle.attributes import Checked
from structjob.lifecycle.core import Core
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.observers import OBSERVERS
from structjob.lifecycle.outcome import add_error, duration_fields, outcome
from structjob.lifecycle.rows import StepRow
from structjob.lifecycle.shared import Shared
from structjob.machine.clock import time_text
from structjob.models import ErrorInfo
from structjob.statuses import StepStatus, check_step_transition
from structjob.text.amounts import percent_of

_STATUSES = {status.value: status for status in StepStatus}
"""A fifth of the time of `StepStatus(value)`."""
_RETRY = ("attempt_number", "max_attempts", "retry_delay")
"""Keys of a step's metadata that describe it as one attempt of several. Its events contain them,
too.
"""


class StepCore(Core):
    """A live step of a job, as the library sees it; see `structjob.Step` for most attributes.

    Attributes:
        job: The job that it belongs to.
        reported_percent: The percentage that was reported. Without it, `percent` is derived from
            the units.
    """

    __slots__ = (
        "_ended_at", "_set_description", "_set_metadata", "_set_name", "_set_total", "_started", "completed", "duration_ms", "error",
        "id", "job", "parent_step_id", "reported_percent", "seq", "status",
    )  # fmt: skip
    table = "step"
    job: JobCore
    name = Checked(required(check_label, "the name of a step", 200))
    total = Checked(check_total, optional=True)
    description = Checked(check_description, optional=True)
    metadata = Checked(check_metadata)

    def __init__(
        self,
        job: JobCore,
        name: str,
        *,
        total: float | None,
        description: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(job.host)
        self.job = job
        self.id = new_id()
        self.name = name
        self.total = total
        self.description = description
        self.metadata = metadata
        self.status: StepStatus | None = None
        self.error: ErrorInfo | None = None
        self.completed: float = 0
        self.seq = 0
        self.parent_step_id: str | None = None
        self.reported_percent: float | None = None
        self._started: str | None = None
        self._ended_at: str | None = None
        self.duration_ms: float | None = None

    @property
    def shared(self) -> Shared:
        return self.job.shared

    @property
    def ended(self) -> bool:
        """Whether the step has started and ended."""
        return (
            self.status is not None and self.status is not StepStatus.RUNNING and not self.abandoned
        )

    @property
    def percent(self) -> float | None:
        """The progress, 0–100: the reported percentage, otherwise derived from the units; ``None``
        if neither is known.
        """
        if self.reported_percent is not None:
            return self.reported_percent
        return percent_of(self.completed, self.total) if self.total else None

    def begin(self) -> None:
        """Start it; see `structjob.Step.start`."""
        job = self.job
        if self.status is not None:
            raise InvalidState(
                f"{self.named()} began already; make a new one with job.step() to do it again"
            )
        job.require_running(f"the step {self.name!r}")
        job.cancellation.stop_if_asked()
        try:
            self._begin(job)
        except BaseException as exc:  # see `JobCore.begin`
            self.fail(exc)
            raise

    def _begin(self, job: JobCore) -> None:
        scope = current_scope()
        if scope is not None and scope.job is job:
            self.parent_step_id = scope.step_id
        if not job.host.tracked:
            self.status, self.began = StepStatus.RUNNING, time.monotonic()
            self.scope = job.scope_of(self, self.span)
            return
        job.shared.begun += 1
        job.shared.open[self.id] = self
        self.seq = next(job.shared.numbers)
        job.shared.current = self.name
        self._started = time_text()
        self.began = self.recorded_at = time.monotonic()
        self.status = StepStatus.RUNNING  # not before its times, from which its duration follows
        self.span = begin_span(self.handle, scope if self.parent_step_id is not None else job.scope)
        self.scope = job.scope_of(self, self.span)
        self.record()
        job.progressed()
        attrs = self.named_in_events()
        if self.total is not None:
            attrs["total"] = self.total
        self.event("info", "step_start", attrs)
        if OBSERVERS:
            self._announce("started")

    def may_end(self, status: str) -> bool:
        """Return whether it may end as *status* now. It may not if its tracker has ended it.

        Raises:
            InvalidState: if it has already ended, or has not started.
        """
        if self.status is None:
            raise InvalidState(
                f"{self.named()} has not begun; begin it with step.start(), `with` or `async with`"
            )
        if not self.abandoned:
            check_step_transition(self.named(), self.status, StepStatus(status))
        return not self.abandoned

    def fail(self, exc: BaseException) -> None:
        if self.status is StepStatus.RUNNING:
            self.finish(outcome(exc), exc)

    def interrupted(self, exc: BaseException) -> None:
        """Leave its block and end it, after *exc* of a signal handler has interrupted that."""
        self.leave_scope()
        self.fail(exc)
        if self.ended and self.job.shared.open.pop(self.id, None) is not None:
            self.record()  # its end was interrupted before it was recorded

    def abandon(self, reason: str) -> None:
        """Record the step as cancelled because its tracker or process ends now; see
        `JobCore.abandon`.

        *reason* is recorded as the reason.
        """
        if self.status is StepStatus.RUNNING:
            self.abandoned = True
            self.finish("cancelled", asyncio.CancelledError(reason))

    def finish(
        self, status: str, exc: BaseException | None, summary: Mapping[str, Any] | None = None
    ) -> None:
        """End it, and record this; see `JobCore.finish`."""
        job = self.job
        if status == "completed":
            exc = None  # the block was left by `sys.exit(0)`
        if not job.host.tracked:
            self.status = StepStatus(status)
            self.abandoned = True  # without a tracker, a second end is not an error
            return
        self.pending = False
        self.status = _STATUSES[status]
        self._ended_at = time_text()
        seconds = time.monotonic() - self.began
        self.duration_ms = round(seconds * 1000, 3)
        fields = self.named_in_events()
        if self.status is StepStatus.RETRYING:
            job.shared.retried += 1
        if self.status is StepStatus.COMPLETED:
            job.shared.completed += 1
            self.reported_percent = 100.0
        try:
            if exc is not None:
                self._record_error(exc, fields)
        finally:  # record the step even if the exception cannot be described
            self.record()
            # Not before: what is interrupted until here is recorded when the job ends.
            job.shared.open.pop(self.id, None)
        attrs = {**fields, "status": status, **duration_fields(seconds)}
        if self.completed:
            attrs["completed"] = self.completed
        attrs |= self.summary
        attrs |= summary or {}
        self.event("warning" if status == "cancelled" else "info", "step_end", attrs)
        if OBSERVERS:
            self._announce("ended", exc, self.duration_ms)
        if self.span is not None:
            end_span(self.handle)
        if self.scope is not None and not self.abandoned:
            # What refers to it does so no longer. Otherwise only the garbage collector would free
            # it, much later, and each step would take memory that is in no cache.
            self.handle = None  # nothing reads it after the end
            self.scope.end_step()

    def _record_error(self, exc: BaseException, fields: dict[str, Any]) -> None:
        """Record the error: in the step, on the exception, and as an event."""
        job = self.job
        self.error = describe(exc)
        if not is_noted(exc, self.id, job.id):
            annotate(exc, job_id=job.id, step_id=self.id, operation=job.operation)
        if self.status not in (StepStatus.FAILED, StepStatus.RETRYING):
            return
        described = attrs_at_end(exc, job.classifier, self.scope)
        if self.status is StepStatus.FAILED:
            job.shared.failed = job.shared.failed or self._failed_name()
            self.event("error", "step_error", {**fields, **described})
        else:
            self.event("warning", "step_error", {**fields, **described, "retry_possible": True})

    def _failed_name(self) -> str:
        """Return the name of the work that failed: of the step around it, for one of its tries."""
        whole = self.job.shared.open.get(self.parent_step_id or "")
        return whole.name if whole is not None and "attempt_number" in self.metadata else self.name

    def not_running(self, what: str) -> InvalidState:
        """Return the error of *what*, which needs it running."""
        return InvalidState(
            f"{self.named()} is {self.status.value if self.status else 'not begun'}; {what} needs it running"
        )

    def named_in_events(self) -> dict[str, Any]:
        """Return its name and number, as attributes of its events."""
        named = {"step": self.name, "step_number": self.seq}
        if (total := self.job.total_steps) is not None:
            named["total_steps"] = total
        if metadata := self.metadata:
            named |= {name: metadata[name] for name in _RETRY if name in metadata}
        return named

    def numbers(self) -> dict[str, Any]:
        """Return its number, as attributes of the events of `structjob.Step.log`."""
        if not self.host.tracked:
            return {}
        return {name: value for name, value in self.named_in_events().items() if name != "step"}

    def named(self) -> str:
        return f"step {self.name!r} of job {self.job.id}"

    def reported(self) -> dict[str, Any]:
        if not self.completed and self.percent is None:
            return {}
        found = {
            "step": self.name,
            "completed": self.completed,
            "total": self.total,
            "percent": self.percent,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _row(self) -> StepRow:
        claim = self.job.claim
        row = StepRow(
            id=self.id,
            job_id=self.job.id,
            attempt=claim.attempt,
            parent_step_id=self.parent_step_id,
            seq=self.seq,
            name=self.name,
            status=self.status,
            percent_complete=self.percent,
            completed=self.completed,
            total=self.total,
            description=self.description,
            metadata=self._encoded("metadata", self.metadata or None),
            started_at=self._started,
            completed_at=self._ended_at,
            duration_ms=self.duration_ms,
            provisional=claim.provisional,
        )
        add_error(row, self.error)
        return row
