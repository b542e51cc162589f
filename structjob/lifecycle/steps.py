"""A live step of a job."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterable, Iterable, Mapping, Sized
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from structjob.context.errors import (
    annotate,
    describe,
    error_fields,
    exception_attrs,
    is_noted,
    is_recorded,
)
from structjob.context.scope import current_scope, new_id
from structjob.context.tracing import begin_span, end_span
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.lifecycle.arguments import (
    check_mapping,
    check_metadata,
    check_percent,
    check_units,
    required_text,
)
from structjob.lifecycle.attributes import Absent, Checked, ReadOnly, refuse
from structjob.lifecycle.both import WithOrAsyncWith
from structjob.lifecycle.handle import check_description, label
from structjob.lifecycle.hooks import HOOKS
from structjob.lifecycle.items import Items
from structjob.lifecycle.outcome import duration_fields, ending, error_columns, outcome
from structjob.lifecycle.vocabulary import StepVocabulary
from structjob.lifecycle.waiting import Done
from structjob.machine.clock import database_time, now
from structjob.models import ErrorInfo, StepEndStatus, StepStatus, check_step_transition
from structjob.text.amounts import percent_of

if TYPE_CHECKING:
    from structjob.lifecycle.jobs import Job

T = TypeVar("T")

_MANY = 1 << 53
"""Limit of the fast path in `advance`: larger numbers of units are checked."""
_MOST = sys.float_info.max
"""Maximum number of units that the column can hold."""

_RETRY = ("attempt_number", "max_attempts", "retry_delay")
"""Keys of a step's metadata that describe it as one attempt of several. Its events contain them,
too.
"""


_MADE = "it is given when the step is made"
_UNITS = "call step.advance() or step.update(completed=…)"


def _check_total(value: float | None) -> float | None:
    return None if value is None else check_units("total", value)


class Step(StepVocabulary, WithOrAsyncWith["Step"]):
    """A live step of a job, created by ``job.step()`` or ``structjob.step()``.

    It starts with ``async with`` or `start`.

    Attributes:
        id: A UUIDv7.
        name: The name of the step's work.
        seq: Its position among the steps of the job's attempt, from 1.
        status: A `StepStatus`; ``None`` before the start.
        completed: Number of units done.
        total: Number of units to process, if it is known.
    """

    __slots__ = (
        "_completed", "_ended_at", "_error", "_id", "_job", "_parent_step_id", "_percent", "_seq", "_set_description",
        "_set_metadata", "_set_name", "_set_total", "_started", "_status", "_summary",
    )  # fmt: skip
    _table = "step"
    name = Checked(label(required_text("the name of a step", 200)))
    total = Checked(_check_total)
    description = Checked(check_description)
    metadata = Checked(partial(check_mapping, "metadata"))
    id: ReadOnly[str] = ReadOnly(_MADE)
    job: ReadOnly[Job] = ReadOnly(_MADE)
    parent_step_id: ReadOnly[str | None] = ReadOnly(
        "a step that begins within another one is below it"
    )
    seq: ReadOnly[int] = ReadOnly("steps are numbered as they begin")
    status: ReadOnly[StepStatus | None] = ReadOnly(
        "call step.end() or step.skip(), or leave `async with`"
    )
    error: ReadOnly[ErrorInfo | None] = ReadOnly("call step.end(error=…)")
    completed: ReadOnly[float] = ReadOnly(_UNITS)
    if not TYPE_CHECKING:
        done = Absent(_UNITS)
        progress = Absent(_UNITS)
        result = Absent("call step.update(metadata=…); a job has a result")

    def __init__(
        self,
        job: Job,
        name: str,
        *,
        total: float | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(job.host)
        self._job = job
        self._id = new_id()
        self.name = name
        self.total = total
        self.description = description
        self.metadata = metadata
        self._status: StepStatus | None = None
        self._error: ErrorInfo | None = None
        self._summary: dict[str, Any] = {}
        self._completed: float = 0
        self._seq = 0
        self._parent_step_id: str | None = None
        self._percent: float | None = None
        self._started: str | None = None
        self._ended_at: str | None = None

    def __repr__(self) -> str:
        return (
            f"<Step {self.name!r} {self._id} {self._status.value if self._status else 'not begun'}>"
        )

    @property
    def ended(self) -> bool:
        """Whether the step has started and ended."""
        return (
            self._status is not None
            and self._status is not StepStatus.RUNNING
            and not self._abandoned
        )

    def start(self) -> Done[Self]:
        """Start the step. The step has started when this returns; awaiting the result is optional.

        Raises:
            InvalidState: if it was started before, or its job is not running.
        """
        self._begin()
        return Done(self)

    def _begin(self) -> None:
        job = self._job
        if self._status is not None:
            raise InvalidState(
                f"{self._named()} began already; make a new one with job.step() to do it again"
            )
        job.require_running(f"the step {self.name!r}")
        job.cancellation.stop_if_asked()
        scope = current_scope()
        if scope is not None and scope.job is job and scope.step is not None:
            self._parent_step_id = scope.step.id
        if not job.host.tracked:
            self._status, self.began = StepStatus.RUNNING, time.monotonic()
            self._scope = job.scope_of(self, self._span)
            return
        job.shared.begun += 1
        job.shared.open[self._id] = self
        self._seq = next(job.shared.numbers)
        job.shared.current = self.name
        self._status = StepStatus.RUNNING
        self._started = database_time(now())
        self.began = self._recorded_at = time.monotonic()
        self._span = begin_span(self, scope if self._parent_step_id is not None else job.scope)
        self._scope = job.scope_of(self, self._span)
        self._record()
        job.progressed()
        attrs = self._named_in_events()
        if self.total is not None:
            attrs["total"] = self.total
        self._event("info", "step_start", attrs)
        if HOOKS:
            self._announce("started")

    def __enter__(self) -> Self:
        self._entered = True
        self._begin()
        self.enter_scope()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave_scope()
        if exc is not None:
            self._fail(exc)
        elif self._status is StepStatus.RUNNING:
            self._finish("completed", None)

    def end(
        self,
        status: StepEndStatus | StepStatus | None = None,
        *,
        error: BaseException | None = None,
        **fields: Any,
    ) -> Done[None]:
        """End the step manually. The step has ended when this returns; awaiting the result is
        optional.

        Args:
            status: ``completed``, ``failed``, ``skipped``, ``cancelled``, or ``retrying`` (it
                failed, and is retried). By default ``failed`` if there is an *error* (``cancelled``
                if it is a cancellation), otherwise ``completed``.
            error: The exception that ended the step.
            fields: Further attributes for the step's last event.

        Raises:
            InvalidState: if the step has already ended, or has not started.
            InvalidArgument: if *status* is not one of these values, *error* is not an exception, or
                a completed step is given an error.
        """
        ended_as = ending(
            "a step", status, error, ("completed", "failed", "skipped", "cancelled", "retrying")
        )
        if self._status is None:
            raise InvalidState(
                f"{self._named()} has not begun; begin it with step.start(), `with` or `async with`"
            )
        if self._abandoned:
            return Done(None)
        check_step_transition(self._named(), self._status, StepStatus(ended_as))
        self._finish(ended_as, error, fields)
        return Done(None)

    def _fail(self, exc: BaseException) -> None:
        if self._status is StepStatus.RUNNING:
            self._finish(outcome(exc), exc)

    def skip(self, reason: str | None = None) -> None:
        """End the step as skipped, because there was nothing to do.

        Raises:
            InvalidState: if the step is not running.
        """
        if self._status is None:
            raise InvalidState(
                f"{self._named()} has not begun; begin it with step.start(), `with` or `async with`"
            )
        if self._abandoned:
            return
        check_step_transition(self._named(), self._status, StepStatus.SKIPPED)
        self.description = check_description(reason, "reason") or self.description
        self._finish("skipped", None)

    def abandon(self, reason: str) -> None:
        """Record the step as cancelled because its tracker or process ends now; see `Job.abandon`.

        *reason* is recorded as the reason.
        """
        if self._status is StepStatus.RUNNING:
            self._abandoned = True
            self._finish("cancelled", asyncio.CancelledError(reason))

    def _finish(
        self, status: str, exc: BaseException | None, summary: Mapping[str, Any] | None = None
    ) -> None:
        job = self._job
        if status == "completed":
            exc = None  # the block was left by `sys.exit(0)`
        if not job.host.tracked:
            self._status = StepStatus(status)
            self._abandoned = True  # without a tracker, a second end is not an error
            return
        self._pending = False
        self._status = StepStatus(status)
        self._ended_at = database_time(now())
        seconds = time.monotonic() - self.began
        self._duration_ms = round(seconds * 1000, 3)
        job.shared.open.pop(self._id, None)
        fields = self._named_in_events()
        if self._status is StepStatus.RETRYING:
            job.shared.retried += 1
        if self._status is StepStatus.COMPLETED:
            job.shared.completed += 1
            self._percent = 100.0
        try:
            if exc is not None:
                self._record_error(exc, fields)
        finally:  # record the step even if the exception cannot be described
            self._record()
        attrs = {**fields, "status": status, **duration_fields(seconds)}
        if self._completed:
            attrs["completed"] = self._completed
        attrs |= self._summary
        attrs |= summary or {}
        self._event("warning" if status == "cancelled" else "info", "step_end", attrs)
        if HOOKS:
            self._announce("ended", exc, self._duration_ms)
        end_span(self)

    def _record_error(self, exc: BaseException, fields: dict[str, Any]) -> None:
        """Record the error: in the step, on the exception, and as an event."""
        job = self._job
        self._error = describe(exc)
        if not is_noted(exc, self._id, job.id):
            annotate(exc, job_id=job.id, step_id=self._id, operation=job.operation)
        if self._status not in (StepStatus.FAILED, StepStatus.RETRYING):
            return
        # The first report of the exception, by the innermost step, contains its traceback.
        if is_recorded(exc, self._scope):
            described = error_fields(exc, job.classifier)
        else:
            described = exception_attrs(exc, job.classifier, self._scope)
        if self._status is StepStatus.FAILED:
            job.shared.failed = job.shared.failed or self._failed_name()
            self._event("error", "step_error", {**fields, **described})
        else:
            self._event("warning", "step_error", {**fields, **described, "retry_possible": True})

    def _failed_name(self) -> str:
        """Return the name of the work that failed: of the step around it, for one of its tries."""
        whole = self._job.shared.open.get(self._parent_step_id or "")
        return whole.name if whole is not None and "attempt_number" in self.metadata else self.name

    # -- while running
    # --------------------------------------------------------------------------

    def advance(self, units: float = 1) -> None:
        """Count *units* as done. It is fast enough for a tight loop.

        It never raises, unless logging is strict. A negative number, a value that is not a number,
        or a call after the end of the step is ignored with one warning on the logger ``structjob``.

        Args:
            units: Any finite number of Python, NumPy, `decimal` or `fractions`; 1 by default.
        """
        if self._status is not StepStatus.RUNNING and not self._abandoned:
            self._misused(self._not_running("advance"))
            return
        # There must be no call between reading and writing `_completed`, because other threads
        # count, too, and threads switch only at calls.
        if (type(units) is int or type(units) is float) and 0 <= units < _MANY:
            self._completed += units
        else:
            try:
                units = check_units("units", units)
            except InvalidArgument as exc:
                self._misused(exc)
                return
            units = units if units < _MANY else float(units)
            self._completed += units
            if self._completed > _MOST:  # noqa: PLR1730 -- `min` is a call
                self._completed = _MOST
        if not self._pending:
            self.progressed()

    def update(
        self,
        *,
        completed: float | None = None,
        advance: float | None = None,
        total: float | None = None,
        percent: float | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Report progress. It is recorded at most four times a second.

        It never raises, unless logging is strict. An invalid value, or a call after the end of the
        step, is ignored with one warning on the logger ``structjob``. In a ``with`` block it raises
        `Cancelled` if the job was asked to stop, as `Job.check_cancelled` does.

        Args:
            completed: Number of units done. It replaces the number counted so far.
            advance: Number of units to count in addition, as the method `advance` does.
            total: Number of units to process.
            percent: 0–100, for steps without units.
            description: What the step is doing.
            metadata: Merged into the existing metadata.
        """
        if self._status is not StepStatus.RUNNING and not self._abandoned:
            self._misused(self._not_running("update"))
            return
        units = self._checked(partial(check_units, "completed"), completed, None)
        total = self._checked(_check_total, total, None)
        percent = self._checked(check_percent, percent, None)
        described = self._checked(check_description, description, None)
        added = self._checked(check_metadata, metadata, None)
        # Only what is given is set: another thread may have reported the rest since.
        if units is not None:
            self._completed = units
        if percent is not None:
            self._percent = percent
        if total is not None:
            self.total = total
        if described is not None:
            self.description = described
        self.metadata.update(added or {})
        if advance is not None:
            self.advance(advance)
        self.progressed()
        self._job.cancellation.stop_if_asked()  # last, so that the report is not lost

    def track(self, items: AsyncIterable[T] | Iterable[T]) -> Items[T]:
        """Iterate over *items* with ``async for`` or ``for``, and count each item after it was
        processed.

        Args:
            items: Any iterable or async iterable. Its length becomes *total* if that is not known.
        """
        if self.total is None and isinstance(items, Sized):
            # if the length cannot be determined, the iteration raises the error, if there is one
            with suppress(Exception):
                self.total = len(items)
        return Items(items, self.advance, self._job.cancellation.stop_if_asked)

    @property
    def percent(self) -> float | None:
        """The progress, 0–100: the reported percentage, otherwise derived from the units; ``None``
        if neither is known.
        """
        if self._percent is not None:
            return self._percent
        return percent_of(self._completed, self.total) if self.total else None

    @percent.setter
    def percent(self, value: Any) -> NoReturn:
        refuse(self, "percent", "call step.update(percent=…), or step.advance()")

    def _not_running(self, what: str) -> InvalidState:
        return InvalidState(
            f"{self._named()} is {self._status.value if self._status else 'not begun'}; {what} needs it running"
        )

    def _named_in_events(self) -> dict[str, Any]:
        retry = {name: self.metadata[name] for name in _RETRY if name in self.metadata}
        total = {} if self._job.total_steps is None else {"total_steps": self._job.total_steps}
        return {"step": self.name, "step_number": self._seq, **total, **retry}

    def _named(self) -> str:
        return f"step {self.name!r} of job {self._job.id}"

    def _owner(self) -> Job:
        return self._job

    def _job_and_step(self) -> tuple[Job, Step]:
        return self._job, self

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

    # -- records
    # --------------------------------------------------------------------------

    def _row(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "job_id": self._job.id,
            "attempt": self._job.attempt,
            "parent_step_id": self._parent_step_id,
            "seq": self._seq,
            "name": self.name,
            "status": self._status.value if self._status else None,
            "percent_complete": self.percent,
            "completed": self._completed,
            "total": self.total,
            "description": self.description,
            **error_columns(self._error),
            "metadata": self._encoded_metadata(self.metadata),
            "started_at": self._started,
            "completed_at": self._ended_at,
            "duration_ms": self._duration_ms,
            **({} if self._job.provisional is None else {"provisional": self._job.provisional}),
        }
