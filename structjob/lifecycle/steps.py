"""A live step of a job, as users see it, except for the way to its job: see `structjob.Step`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Mapping, Sized
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from structjob.diagnostics import suppress_faults
from structjob.exceptions import InvalidArgument
from structjob.lifecycle.arguments import (
    MAX_DESCRIPTION,
    check_description,
    check_label,
    check_metadata,
    check_percent,
    check_total,
    check_units,
)
from structjob.lifecycle.attributes import Absent, ReadOnly, Settable
from structjob.lifecycle.both import WithOrAsyncWith
from structjob.lifecycle.items import Items
from structjob.lifecycle.outcome import ending
from structjob.lifecycle.vocabulary import StepVocabulary
from structjob.lifecycle.waiting import Done
from structjob.models import ErrorInfo
from structjob.statuses import StepEndStatus, StepStatus

T = TypeVar("T")

_MANY = 1 << 53
"""Limit of the fast path in `advance`: larger numbers of units are checked."""
_MOST = sys.float_info.max
"""Maximum number of units that the column can hold."""

_ENDS = ("completed", "failed", "skipped", "cancelled", "retrying")
MADE = "it is given when the step is made"
_UNITS = "call step.advance() or step.update(completed=…)"


class StepHandle(StepVocabulary, WithOrAsyncWith["StepHandle"]):
    """What users can do with a step. `structjob.Step` adds its job, whose class names this one."""

    __slots__ = ()
    name: ReadOnly[str] = ReadOnly(MADE)
    total: ReadOnly[float | None] = ReadOnly("call step.update(total=…)")
    description: ReadOnly[str | None] = ReadOnly("call step.update(description=…)")
    metadata: Settable[dict[str, Any]] = Settable()
    id: ReadOnly[str] = ReadOnly(MADE)
    parent_step_id: ReadOnly[str | None] = ReadOnly(
        "a step that begins within another one is below it"
    )
    seq: ReadOnly[int] = ReadOnly("steps are numbered as they begin")
    status: ReadOnly[StepStatus | None] = ReadOnly(
        "call step.end() or step.skip(), or leave `async with`"
    )
    error: ReadOnly[ErrorInfo | None] = ReadOnly("call step.end(error=…)")
    completed: ReadOnly[float] = ReadOnly(_UNITS)
    percent: ReadOnly[float | None] = ReadOnly("call step.update(percent=…), or step.advance()")
    """The progress, 0–100: the reported percentage, otherwise derived from the units; ``None`` if
    neither is known.
    """
    if not TYPE_CHECKING:
        done = Absent(_UNITS)
        progress = Absent(_UNITS)
        result = Absent("call step.update(metadata=…); a job has a result")

    def __repr__(self) -> str:
        status = self.status.value if self.status else "not begun"
        return f"<Step {self.name!r} {self.id} {status}>"

    def start(self) -> Done[Self]:
        """Start the step. The step has started when this returns; awaiting the result is optional.

        Raises:
            InvalidState: if it was started before, or its job is not running.
        """
        self._core.begin()
        return Done(self)

    def __enter__(self) -> Self:
        core = self._core
        core.entered = True
        core.begin()
        try:  # see `Job.__aenter__`
            core.enter_scope()
        except BaseException as exc:
            core.interrupted(exc)
            raise
        return self

    async def __aenter__(self) -> Self:
        return self.__enter__()

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        core = self._core
        try:
            core.leave_scope()
            if exc is not None:
                core.fail(exc)
            elif core.status is StepStatus.RUNNING:
                core.finish("completed", None)
        except BaseException as interruption:  # of a signal handler
            core.interrupted(interruption)
            raise

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
        core, ended_as = self._core, ending("a step", status, error, _ENDS)
        if core.may_end(ended_as):
            core.finish(ended_as, error, fields)
        return Done(None)

    def skip(self, reason: str | None = None) -> None:
        """End the step as skipped, because there was nothing to do.

        Raises:
            InvalidState: if the step is not running.
        """
        core = self._core
        if core.may_end("skipped"):
            core.description = check_label("reason", reason, MAX_DESCRIPTION) or core.description
            core.finish("skipped", None)

    def advance(self, units: float = 1) -> None:
        """Count *units* as done. It is fast enough for a tight loop.

        It never raises, unless logging is strict. A negative number, a value that is not a number,
        or a call after the end of the step is ignored with a warning on the logger ``structjob``,
        at most one a minute.

        Args:
            units: Any finite number of Python, NumPy, `decimal` or `fractions`; 1 by default.
        """
        core = self._core
        if core.status is not StepStatus.RUNNING and not core.abandoned:
            core.misused(core.not_running("advance"))
            return
        # There must be no call between reading and writing `completed`, because other threads
        # count, too, and threads switch only at calls.
        if (type(units) is int or type(units) is float) and 0 <= units < _MANY:
            core.completed += units
        else:
            try:
                units = check_units("units", units)
            except InvalidArgument as exc:
                core.misused(exc)
                return
            units = units if units < _MANY else float(units)
            core.completed += units
            if core.completed > _MOST:  # noqa: PLR1730 -- `min` is a call
                core.completed = _MOST
        if not core.pending:
            core.progressed()

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
        step, is ignored with a warning on the logger ``structjob``, at most one a minute. In a
        ``with`` block it raises `Cancelled` if the job was asked to stop, as `Job.check_cancelled`
        does.

        Args:
            completed: Number of units done. It replaces the number counted so far.
            advance: Number of units to count in addition, as the method `advance` does.
            total: Number of units to process.
            percent: 0–100, for steps without units.
            description: What the step is doing.
            metadata: Merged into the existing metadata.
        """
        core = self._core
        if core.status is not StepStatus.RUNNING and not core.abandoned:
            core.misused(core.not_running("update"))
            return
        units = core.checked(partial(check_units, "completed"), completed)
        total = core.checked(check_total, total)
        percent = core.checked(check_percent, percent)
        described = core.checked(check_description, description)
        added = core.checked(check_metadata, metadata)
        # Only what is given is set: another thread may have reported the rest since.
        if units is not None:
            core.completed = units
        if percent is not None:
            core.reported_percent = percent
        if total is not None:
            core.total = total
        if described is not None:
            core.description = described
        core.metadata.update(added or {})
        if advance is not None:
            self.advance(advance)
        core.progressed()
        core.job.cancellation.stop_if_asked()  # last, so that the report is not lost

    def track(self, items: AsyncIterable[T] | Iterable[T]) -> Items[T]:
        """Iterate over *items* with ``async for`` or ``for``, and count each item after it was
        processed.

        Args:
            items: Any iterable or async iterable. Its length becomes *total* if that is not known.
        """
        core = self._core
        if core.total is None and isinstance(items, Sized):
            # if the length cannot be determined, the iteration raises the error, if there is one
            with suppress_faults():
                core.total = len(items)
        return Items(items, self.advance, core.job.cancellation.stop_if_asked)
