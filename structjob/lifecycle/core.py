"""What the library knows and does about a live job or step: its scope, its progress, its records.

Users have the handle of a core (`structjob.Job`, `structjob.Step`), which checks what they give.
The rooms of the library work with the cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import msgspec

from structjob.capture.emit import emit
from structjob.capture.setup import SETUP
from structjob.context.scope import Entry, Scope
from structjob.context.tracing import Span
from structjob.diagnostics import diagnostics, fault_types, faults
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.lifecycle.observers import OBSERVERS, Change
from structjob.lifecycle.shared import Shared
from structjob.machine.clock import now
from structjob.statuses import JobStatus, StepStatus
from structjob.values.bounds import OF_VALUE
from structjob.values.encoding import encode_value
from structjob.values.normalizer import normalize
from structjob.values.objects import type_name

if TYPE_CHECKING:
    from structjob.lifecycle.host import JobHost
    from structjob.spool.recorder import Recorder

T = TypeVar("T")

PROGRESS_EVERY = 0.25
"""Minimum seconds between two records of the progress of a job or step."""


PROGRESS_EVENT_EVERY = 1.0
"""Minimum seconds between two progress events of a job. Shorter jobs have no progress event."""

_PROGRESS_SHARE = 100
"""A long job waits for 1/100 of its running time between two progress events."""


class Core:
    """A live job or step, as the library sees it. Its progress is recorded at intervals.

    Args:
        host: The tracker that it belongs to, as this layer sees it.

    Attributes:
        handle: What users have: the `structjob.Job` or `structjob.Step`.
        host: See above.
        scope: The scope of its events; ``None`` before it has started.
        entered: Whether a ``with`` or ``async with`` block runs it.
        pending: Whether progress is held back, to be recorded later.
        abandoned: Whether its tracker, or the process, ended while it ran. It is then recorded as
            cancelled, and later calls from its code are ignored.
        began: When it started, as a value of `time.monotonic`; 0.0 before.
        summary: Further attributes for its last event.
    """

    __slots__ = (
        "_entry", "_quarter", "_unreadable", "abandoned", "began", "entered", "handle", "host",
        "pending", "recorded_at", "scope", "span", "summary",
    )  # fmt: skip
    table: ClassVar[str]
    """The kind of its records."""
    handle: object
    status: JobStatus | StepStatus | None

    def __init__(self, host: JobHost[Any]) -> None:
        self.host = host
        self.scope: Scope | None = None
        self.span: Span | None = None
        self._entry: Entry | None = None
        self.entered = False
        self.recorded_at = 0.0
        self._quarter = 0
        """Full quarters of the work that were reported as done."""
        self.pending = False
        self._unreadable = ""
        """The name of the exception that a value raised when it was recorded; empty otherwise."""
        self.abandoned = False
        self.began = 0.0
        self.summary: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        """Whether it has started and ended."""
        raise NotImplementedError

    def fail(self, exc: BaseException) -> None:
        """End it with the error *exc* if it is running."""
        raise NotImplementedError

    def own_scope(self) -> Scope | None:
        """Return the scope of the events that it logs itself; ``None`` before it has started."""
        return self.scope if self.host.tracked else None

    def enter_scope(self) -> None:
        """Make it the current one."""
        assert self.scope is not None  # noqa: S101 -- it has started
        self._entry = Entry(self.scope)
        self._entry.enter()

    def leave_scope(self) -> None:
        """Make the former one current again."""
        if self._entry is not None:
            # In this order: a signal handler may raise within, and then it is called again.
            self.scope = self._entry.leave()
            self._entry = None

    def progressed(self) -> None:
        """Record the progress, at once or after `PROGRESS_EVERY`."""
        # `advance` may be called in a tight loop. While a record is pending, this is one check.
        if self.pending:
            return
        if time.monotonic() - self.recorded_at >= PROGRESS_EVERY:
            self._record_progress()
        elif self.host.tracked and not self.host.recorder.forked:
            # A forked child has no task for later records: its next change or its end is recorded.
            self.pending = True
            self.host.flush_later(self)

    def checked(self, check: Callable[[Any], T], value: Any) -> T | None:
        """Return the checked *value* of a progress report; None if it is None or invalid."""
        try:
            return None if value is None else check(value)
        except InvalidArgument as exc:
            self.misused(exc)
            return None

    def misused(self, error: InvalidArgument | InvalidState) -> None:
        """Warn about progress that is invalid or too late, and ignore it.

        A progress report never ends the user's work.

        Raises:
            InvalidArgument: the given *error*, if logging is strict.
            InvalidState: the given *error*, if logging is strict.
        """
        if faults.strict or faults.strict_trackers:
            raise error
        if self.host.tracked:
            warn_ignored(self.host.recorder, error)

    def flush_progress(self) -> None:
        """Record the progress that was held back."""
        if self.pending:
            self.pending = False
            self._record_progress()

    def _record_progress(self) -> None:
        self.recorded_at = time.monotonic()
        if not self.host.tracked:
            return
        self.record()
        job = self.job
        if reported := self.reported():
            self.shared.unreported = self
            lasted = self.recorded_at - job.began
            quarter = int(reported.get("percent", 0) // 25)
            crossed = quarter > self._quarter and lasted >= PROGRESS_EVENT_EVERY
            self._quarter = max(quarter, self._quarter)
            pause = max(PROGRESS_EVENT_EVERY, lasted / _PROGRESS_SHARE)
            if crossed or self.recorded_at - self.shared.reported_at >= pause:
                self.shared.write_progress_event()

    def reported(self) -> dict[str, Any]:
        """Return the progress as attributes of an event; empty if no progress was reported."""
        raise NotImplementedError

    def restate(self) -> None:
        """Record it again, because another process presumed it crashed."""
        self.record()

    def record(self) -> int:
        """Record the current state and return the number of the record; 0 if recording failed."""
        put = self.host.recorder.put_state
        try:
            return put(self.table, self._row)
        except fault_types() as exc:  # an attribute that JSON cannot encode: record the others
            fault = exc
        except BaseException:  # a signal handler raises, and nothing else may record this state
            try:
                put(self.table, self._row)
            except BaseException as exc:  # a value raises it, `SystemExit` for example
                self._unreadable = type(exc).__name__
                put(self.table, self._row)
                raise
            raise
        try:
            return put(self.table, lambda: _plain(self._row()))
        except fault_types() as exc:  # no internal error leaves the block of a job or step
            fault = exc
        faults.add(f"recording {self.named()}", fault)
        return 0

    def _encoded(self, field: str, value: Any) -> msgspec.Raw | None:
        """Return the *value* of a *field* as JSON: normalized, redacted and limited in size.

        The first truncated value of each job is reported by a warning.
        """
        if value is None:
            return None
        if self._unreadable:
            value = f"<{type_name(value)}: cannot be shown, {self._unreadable}>"
        return msgspec.Raw(encode_value(value, OF_VALUE, SETUP.redactor, partial(self._cut, field)))

    def _cut(self, field: str, why: str) -> None:
        shared = self.shared
        if not shared.cut_reported:
            shared.cut_reported = True
            diagnostics.warning(
                "the %s of %s is cut, and marked where: %s; store large values in a file, and its name here (further cuts of this job "
                "are not reported)",
                field, self.named(), why,
            )  # fmt: skip

    @property
    def shared(self) -> Shared:
        """What the job shares with its steps."""
        raise NotImplementedError

    @property
    def job(self) -> Core:
        """The job: itself, or the job of the step."""
        raise NotImplementedError

    def _announce(
        self,
        change: Literal["started", "ended"],
        error: BaseException | None = None,
        duration_ms: float | None = None,
    ) -> None:
        """Inform the observers. Call this only if there are observers."""
        OBSERVERS.announce(
            Change(
                change=change,
                status=self.status,  # type: ignore[arg-type]  # it has started
                job=self.job.handle,
                step=None if self is self.job else self.handle,
                error=error,
                duration_ms=duration_ms,
                ns=now(),
                entered=self.entered and not self.abandoned,
            )
        )

    def _row(self) -> msgspec.Struct:
        """Return its row."""
        raise NotImplementedError

    def named(self) -> str:
        """Return the name to use in messages."""
        raise NotImplementedError

    def event(self, level: str, kind: str, attrs: dict[str, Any]) -> None:
        """Write an event of the library about it."""
        emit(self.scope, level, kind, attrs, kind=kind)


def warn_ignored(recorder: Recorder, why: object) -> None:
    """Warn that progress is ignored, at most once a minute."""
    recorder.warn(
        "progress",
        "progress is ignored: %s (further cases are reported at most once a minute)",
        why,
    )


def _plain(row: msgspec.Struct) -> dict[str, Any]:
    return {
        name: value if type(value) is msgspec.Raw else normalize(value)
        for name, value in msgspec.structs.asdict(row).items()
    }
