"""The interface of sinks, and the event that they get.

A sink is a function that takes a `SinkEvent`, or an object with a method ``emit(event)``. Optional
are ``level`` (the lowest level it takes, default ``"debug"``), ``close()``, and ``write(line)``. A
sink with ``write`` gets the event as a line of JSON without a `SinkEvent`, which takes a tenth of
the time. Exceptions from a sink are counted, logged at most once a minute, and never reach the
caller. What a sink logs, or a library that it calls, is recorded and goes to the other sinks.

>>> structjob.configure(sinks=[lambda event: print(event.level, event.message, event.job_id)])
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, runtime_checkable

from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, level_name
from structjob.machine.loops import is_coroutine_function


class SinkEvent:
    """One event for the sinks.

    Attributes:
        level: Canonical name of its level.
        message: The message; redacted.
        attrs: The caller's attributes; redacted if a key names a secret.
        ids: ``job_id``, ``step_id``, ``correlation_id``, …, as far as they are known.
        logger: Name of the logger, if it has a name.
        ns: The time, in nanoseconds since the epoch; see *timestamp*.
        line: The event as one line of JSON (bytes, with newline), as files and consoles show it.
        kind: ``log``, ``output``, or the kind of event about a job or step: ``operation_start``,
            ``step_end``, …
        stream: The stream it came from: ``system``, ``stdout`` or ``stderr``.
        operation: The name of the job that it belongs to.
        step: The name of the step that it belongs to.
        attempt: The number of the job's attempt that logged it: 1, 2, …
    """

    __slots__ = (
        "attempt",
        "attrs",
        "ids",
        "kind",
        "level",
        "line",
        "logger",
        "message",
        "ns",
        "operation",
        "step",
        "stream",
    )

    def __init__(
        self,
        ns: int,
        level: str,
        message: str,
        attrs: dict[str, Any],
        ids: dict[str, str],
        logger: str | None,
        line: bytes,
        *,
        kind: str = "log",
        stream: str = "system",
        operation: str | None = None,
        step: str | None = None,
        attempt: int | None = None,
    ) -> None:
        self.ns = ns
        self.level = level
        self.message = message
        self.attrs = attrs
        self.ids = ids
        self.logger = logger
        self.line = line
        self.kind = kind
        self.stream = stream
        self.operation = operation
        self.step = step
        self.attempt = attempt

    def __str__(self) -> str:
        """Return the event as the console shows it; see `structjob.EventRecord`."""
        from structjob.text.rendering import Lines

        return Lines(color=False, utc=True, unicode=True).render(self)

    @property
    def timestamp(self) -> datetime:
        """The time of the event in UTC."""
        return self.ts

    @property
    def ts(self) -> datetime:
        """The same as *timestamp*, with its name in the database."""
        return datetime.fromtimestamp(self.ns / 1e9, UTC)

    @property
    def job_id(self) -> str | None:
        """Id of the job that it belongs to."""
        return self.ids.get("job_id")


@runtime_checkable
class Sink(Protocol):
    """The interface of sinks for `structjob.configure`, in addition to plain functions.

    A sink may also have ``level``, ``write(line)`` and ``close()``, see `structjob.sinks.sink`.
    """

    def emit(self, event: SinkEvent, /) -> None:
        """Show *event*. May raise; must not wait. Does not get what it logs itself."""


AnySink = Sink | Callable[[SinkEvent], object]


class _Function:
    """A sink that is a plain function."""

    def __init__(self, function: Callable[[SinkEvent], object]) -> None:
        self.emit = function
        self.level = getattr(function, "level", "debug")


def as_sink(given: AnySink) -> Sink:
    """Return *given* as a sink; a function is wrapped.

    Raises:
        InvalidArgument: if it is neither a sink nor a function, is a coroutine function, or has an
            unknown level.
    """
    sink: Any = given
    if isinstance(given, type):
        raise InvalidArgument(f"a sink is an object, and {given!r} is a class: {given.__name__}()")
    if not callable(getattr(given, "emit", None)):
        if not callable(given):
            raise InvalidArgument(
                f"a sink is a function that takes an event, or an object with a method emit(event): {given!r} is neither"
            )
        sink = _Function(given)
    if is_coroutine_function(sink.emit):
        raise InvalidArgument(
            f"the sink {given!r} is a coroutine function, and is never awaited: write a plain one, which puts the event into an "
            "asyncio.Queue if something is to be awaited"
        )
    sink_level(sink)
    return sink  # type: ignore[no-any-return]  # it has emit


def sink_level(sink: Sink) -> int:
    """Return the number of the lowest level that *sink* takes."""
    return LEVELS[level_name(getattr(sink, "level", "debug"))]


def writer_of(sink: Sink) -> Callable[[bytes], object] | None:
    """Return the function by which *sink* takes finished lines, or None.

    For a subclass that defines ``emit`` and not ``write``, its ``emit`` is used.
    """
    for holder in (vars(sink) if hasattr(sink, "__dict__") else {}, *map(vars, type(sink).__mro__)):
        if "write" in holder:
            write = getattr(sink, "write", None)
            return write if callable(write) else None
        if "emit" in holder:
            return None
    return None


class Guarded:
    """A function that does nothing if it is called again from within itself, in the same thread.

    A sink that sends events by HTTP gets what its client logs, which would be sent again, and so
    on.

    Args:
        call: The function.
    """

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call
        self._inside = threading.local()

    def __call__(self, *given: Any) -> None:
        inside = self._inside.__dict__
        if inside:
            return
        inside["now"] = True
        try:
            self._call(*given)
        finally:
            inside.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return Guarded, (self._call,)


_silent: set[type] = set()

Kind = TypeVar("Kind")


def logs_nothing(kind: type[Kind]) -> type[Kind]:
    """Mark a class of sinks that log nothing themselves.

    They are not guarded, because a signal handler that interrupts them may log an event that they
    have to show.
    """
    _silent.add(kind)
    return kind


def guarded(sink: Sink, call: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return *call*, a method of *sink*, guarded against what the sink logs itself."""
    return call if type(sink) in _silent else Guarded(call)


def name_of_sink(sink: Sink) -> str:
    """Return the name of *sink* for messages."""
    if isinstance(sink, _Function):
        return str(getattr(sink.emit, "__qualname__", repr(sink.emit)))
    return type(sink).__name__
