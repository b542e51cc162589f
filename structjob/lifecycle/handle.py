"""The common base of live jobs and steps: throttled progress, and values prepared for a record."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, Self, TypeVar

import msgspec

from structjob.capture.emit import emit
from structjob.capture.setup import SETUP
from structjob.context.scope import Binding, Entry, Scope
from structjob.context.tracing import Span
from structjob.diagnostics import diagnostics, faults
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.lifecycle.arguments import check_text
from structjob.lifecycle.attributes import Absent, ReadOnly
from structjob.lifecycle.hooks import HOOKS, Transition
from structjob.machine.clock import now
from structjob.values.bounds import OF_VALUE
from structjob.values.encoding import encode_value, normalise
from structjob.values.redaction import identified, is_own_id

if TYPE_CHECKING:
    from structjob.lifecycle.host import JobHost
    from structjob.lifecycle.jobs import Job
    from structjob.lifecycle.printed import CapturedOutput
    from structjob.lifecycle.steps import Step

T = TypeVar("T")

PROGRESS_EVERY = 0.25
"""Minimum seconds between two records of the progress of a job or step."""


PROGRESS_EVENT_EVERY = 1.0
"""Minimum seconds between two progress events of a job. Shorter jobs have no progress event."""

_PROGRESS_SHARE = 100
"""A long job waits for 1/100 of its running time between two progress events."""


MACHINERY = frozenset({
    "abandon", "ask_to_stop", "began", "begin_untracked", "cancellation", "classifier", "enter_scope", "flush_progress", "host",
    "leave_scope", "progressed", "provisional", "reported", "request_cancel", "require_running", "restate", "runs", "scope",
    "scope_of", "shared",
})  # fmt: skip
"""Members of jobs and steps that are for the library only, and not part of the public API. `dir`
leaves them out, so that completion shows what programs call.
"""

_UNCHANGING = frozenset((str, int, float, bool, type(None)))
"""Types of values that cannot change."""


class Handle:
    """A live job or step. Its progress is recorded at intervals."""

    __slots__ = (
        "__weakref__", "_abandoned", "_duration_ms", "_entered", "_entry", "_host", "_metadata_json", "_misuse_reported",
        "_pending", "_quarter", "_recorded_at", "_scope", "_span", "began",
    )  # fmt: skip
    _table: ClassVar[str]
    duration_ms: ReadOnly[float | None] = ReadOnly("it is measured")
    """Milliseconds from its start to its end; ``None`` until it has ended."""

    def __init__(self, host: JobHost) -> None:
        self._host = host
        self._scope: Scope | None = None
        self._span: Span | None = None
        self._entry: Entry | None = None
        self._entered = False
        """Whether a `with` or `async with` block runs it."""
        self._recorded_at = 0.0
        self._quarter = 0
        """Full quarters of the work that were reported as done."""
        self._pending = False
        self._abandoned = False
        """Whether its tracker, or the process, ended while it ran. It is then recorded as
        cancelled, and later calls from its code are ignored.
        """
        self._misuse_reported = False
        self._metadata_json: tuple[Any, msgspec.Raw | None] = (None, None)
        self.began = 0.0
        """When it started, as a value of `time.monotonic`; 0.0 before."""
        self._duration_ms: float | None = None

    def __dir__(self) -> list[str]:
        return [
            name
            for name in super().__dir__()
            if name not in MACHINERY
            and not isinstance(inspect.getattr_static(type(self), name, None), Absent)
        ]

    def as_current(self) -> Binding[Self]:
        """Make this job or step the current one within the ``with`` block.

        Events logged in the block belong to it, and jobs and steps started there become its
        children. Use it in code that starts and ends the job or step manually, and in functions
        that run in executor threads, which inherit no context. The block neither starts nor ends
        it.

        Raises:
            InvalidState: if it has not started. A job from `Tracker.create_job` is allowed.
        """
        if self._scope is None:
            raise InvalidState(
                f"{self._named()} has not begun; begin it with start() or async with"
            )
        return Binding(self._scope, self)

    def capture_output(
        self, *, stdout: bool = True, stderr: bool = True, echo: bool = True, fd: bool = False
    ) -> CapturedOutput:
        """Record the output of the block as events of this job or step, line by line.

        See `structjob.capture_output`.

        Args:
            stdout: Capture stdout, True by default.
            stderr: Capture stderr, True by default.
            echo: Also print the output, True by default.
            fd: Also capture the output of C code and child processes, False by default.

        Raises:
            InvalidArgument: if neither stream is captured.
        """
        from structjob.lifecycle.printed import CapturedOutput

        return CapturedOutput(self._scope, stdout=stdout, stderr=stderr, echo=echo, fd=fd)

    def guard(self) -> Guard[Self]:
        """End this job or step if an exception leaves the ``with`` block, as ``async with`` would.

        The exception is re-raised. Use it in code that starts the job or step manually. Without an
        exception the job or step continues, and ``end()`` ends it.
        """
        return Guard(self, self._fail)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} belongs to its process and cannot be pickled: pass structjob.inject({{}}) to the other "
            "process and work there in `with structjob.extract(headers).as_current():`, or submit to a structjob.ContextExecutor"
        )

    def _fail(self, exc: BaseException) -> None:
        """End it with the error *exc* if it is running."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether it has started and ended."""
        raise NotImplementedError

    @property
    def host(self) -> JobHost:
        """The tracker that it belongs to, as this layer sees it."""
        return self._host

    @property
    def scope(self) -> Scope | None:
        """The scope of its events; ``None`` before it has started. For the library."""
        return self._scope

    def _own_scope(self) -> Scope | None:
        """Return the scope of the events that it logs itself; ``None`` before it has started."""
        return self._scope if self._host.tracked else None

    def enter_scope(self) -> None:
        """Make it the current one. For the library; users have `as_current`."""
        assert self._scope is not None  # noqa: S101 -- it has started
        self._entry = Entry(self._scope)

    def leave_scope(self) -> None:
        """Make the former one current again. For the library."""
        if self._entry is not None:
            entry, self._entry = self._entry, None
            self._scope = entry.leave()

    def progressed(self) -> None:
        """Record the progress, at once or after `PROGRESS_EVERY`. For the library."""
        # `advance` may be called in a tight loop. While a record is pending, this is one check.
        if self._pending:
            return
        if time.monotonic() - self._recorded_at >= PROGRESS_EVERY:
            self._record_progress()
        elif self._host.tracked and not self._host.recorder.forked:
            # A forked child has no task for later records: its next change or its end is recorded.
            self._pending = True
            self._host.flush_later(self)

    def _checked(self, check: Callable[[Any], T], value: Any, former: T) -> T:
        """Return the checked *value* of a progress report.

        Return *former* if *value* is None or invalid.
        """
        if value is None:
            return former
        try:
            return check(value)
        except InvalidArgument as exc:
            self._misused(exc)
            return former

    def _misused(self, error: InvalidArgument | InvalidState) -> None:
        """Warn once about progress that is invalid or too late, and ignore it.

        A progress report never ends the user's work.

        Raises:
            InvalidArgument: the given *error*, if logging is strict.
            InvalidState: the given *error*, if logging is strict.
        """
        if faults.strict or faults.strict_trackers:
            raise error
        if not self._misuse_reported:
            self._misuse_reported = True
            warn = self._host.recorder.warn if self._host.tracked else _ignore
            warn(
                "progress",
                "progress is ignored: %s (further cases are reported at most once a minute)",
                error,
            )

    def flush_progress(self) -> None:
        """Record the progress that was held back."""
        if self._pending:
            self._pending = False
            self._record_progress()

    def _record_progress(self) -> None:
        self._recorded_at = time.monotonic()
        if not self._host.tracked:
            return
        self._record()
        owner = self._owner()
        if reported := self.reported():
            owner.shared.unreported = self
            lasted = self._recorded_at - owner.began
            quarter = int(reported.get("percent", 0) // 25)
            crossed = quarter > self._quarter and lasted >= PROGRESS_EVENT_EVERY
            self._quarter = max(quarter, self._quarter)
            pause = max(PROGRESS_EVENT_EVERY, lasted / _PROGRESS_SHARE)
            if crossed or self._recorded_at - owner.shared.reported_at >= pause:
                owner.shared.write_progress_event(owner.scope)

    def reported(self) -> dict[str, Any]:
        """Return the progress as attributes of an event; empty if no progress was reported.

        For the library.
        """
        raise NotImplementedError

    def restate(self) -> None:
        """Record it again, because another process presumed it crashed. For the library."""
        self._record()

    def _record(self) -> int:
        """Record the current state and return the number of the record; 0 if recording failed."""
        put = self._host.recorder.put_state
        try:
            return put(self._table, self._row)
        except Exception as exc:  # noqa: BLE001 -- an attribute that JSON cannot encode must not prevent the record of the others
            fault = exc
        try:
            return put(self._table, lambda: _plain(self._row()))
        except Exception as exc:  # noqa: BLE001 -- leaving the block of a job or a step must not raise internal errors
            fault = exc
        faults.add(f"recording {self._named()}", fault)
        return 0

    def _json(self, field: str, value: Any) -> msgspec.Raw | None:
        """Return the *value* of a *field* as JSON: normalized, redacted and limited in size.

        The first truncated value of each job is reported by a warning.
        """
        return (
            None
            if value is None
            else msgspec.Raw(
                encode_value(value, OF_VALUE, SETUP.redactor, partial(self._cut, field))
            )
        )

    def _encoded_metadata(self, metadata: Mapping[str, Any]) -> msgspec.Raw | None:
        """Return the metadata as JSON, without encoding again what is as it was before."""
        redactor = SETUP.redactor
        try:
            kinds = tuple(map(type, metadata.values()))
            changes = type(metadata) is not dict or not _UNCHANGING.issuperset(kinds)
        except Exception:  # noqa: BLE001 -- a class that cannot be hashed
            changes = True
        if changes or (redactor is not None and redactor.reads_all):
            return self._json("metadata", metadata or None)
        key = (redactor, kinds, dict(metadata))
        if self._metadata_json[0] != key:
            self._metadata_json = key, self._json("metadata", metadata or None)
        return self._metadata_json[1]

    def _cut(self, field: str, why: str) -> None:
        owner = self._owner()
        if not owner.shared.cut_reported:
            owner.shared.cut_reported = True
            diagnostics.warning(
                "the %s of %s is cut, and marked where: %s; store large values in a file, and its name here (further cuts of this job "
                "are not reported)",
                field, self._named(), why,
            )  # fmt: skip

    def _owner(self) -> Job:
        """Return the job: itself, or the job of the step."""
        raise NotImplementedError

    def _announce(
        self,
        change: Literal["started", "ended"],
        error: BaseException | None = None,
        duration_ms: float | None = None,
    ) -> None:
        """Call the hooks. Call this only if there are hooks."""
        job, step = self._job_and_step()
        HOOKS.announce(
            Transition(
                what="job" if step is None else "step",
                change=change,
                status=job.status if step is None else step.status,  # type: ignore[arg-type]  # it has started
                job=job,
                step=step,
                error=error,
                duration_ms=duration_ms,
                ns=now(),
                entered=self._entered and not self._abandoned,
            )
        )

    def _job_and_step(self) -> tuple[Job, Step | None]:
        """Return the job, and the step if this handle is a step."""
        raise NotImplementedError

    def _row(self) -> dict[str, Any]:
        """Return the columns of the row."""
        raise NotImplementedError

    def _named(self) -> str:
        """Return the name to use in messages."""
        raise NotImplementedError

    def _event(self, level: str, kind: str, attrs: dict[str, Any]) -> None:
        emit(self._scope, level, kind, attrs, kind=kind)


G = TypeVar("G", bound=Handle)


class Guard(Generic[G]):
    """The context manager that `Handle.guard` returns.

    It is not a generator with `contextlib.contextmanager`, for the reason in
    `structjob.context.Binding`.
    """

    def __init__(self, handle: G, fail: Callable[[BaseException], None]) -> None:
        self._handle = handle
        self._fail = fail

    def __enter__(self) -> G:
        return self._handle

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if exc is not None:
            self._fail(exc)


def _ignore(what: str, message: str, *details: Any) -> None:
    pass


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if type(value) is msgspec.Raw else normalise(value)
        for name, value in row.items()
    }


def redacted(text: str | None) -> str | None:
    """Return *text* without the credentials in it."""
    redactor = SETUP.redactor
    return text if text is None or redactor is None else redactor.text(text)


def label(check: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return a function that calls *check* and removes credentials from the returned text."""
    return lambda value: redacted(check(value))  # type: ignore[arg-type, return-value]  # text, or None


def identifier(check: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return a function that calls *check* for an id and removes credentials from the id.

    The result still differs from every other id.
    """

    def checked(value: Any) -> Any:
        if type(value) is str and is_own_id(value):
            return value
        text: Any = check(value)
        return text if text is None or SETUP.redactor is None else identified(text)

    return checked


def check_description(value: str | None, what: str = "description") -> str | None:
    return redacted(check_text(what, value, 65_536))


def decoded(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, (str, bytes)) else value
