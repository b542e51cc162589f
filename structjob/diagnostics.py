"""The library's own logger, and the count of its internal errors.

Neither enters the pipeline, because the pipeline would then produce its own input.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of the answers: 50 times as long
import atexit
import contextvars
import functools
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Thread, current_thread, get_ident, main_thread
from traceback import walk_tb
from types import CodeType
from typing import Any

from structjob.process import on_reset
from structjob.text.wording import count_of

_HANDLERS_TIMEOUT = 1.0
"""Seconds that a thread of the library waits for the program's handlers."""

_EXIT_TIMEOUT = 5.0
"""Seconds that the end of the process waits for the handlers of messages from such threads."""

_MESSAGES_LIMIT = 10
"""Messages from such threads that may wait for the handlers."""


class _Diagnostics(logging.LoggerAdapter[logging.Logger]):
    """The library's own logger. It never raises, whatever the handlers of the program do.

    `logging` itself raises if ``sys.stderr`` is closed. A handler may also block for ever: nothing
    reads its pipe, or an exception of a signal handler has left its lock held. So the library's own
    threads, which deliver, call the handlers in other threads, in the order of each thread's
    messages, and wait only briefly. If too many messages wait, further ones are dropped, and the
    next one that is not says how many.
    """

    _calls: tuple[Thread, ...] = ()
    """The threads that call the handlers, each for one message, after the thread before it."""
    _until = 0.0
    """Until when they are waited for (monotonic seconds)."""
    _dropped = 0

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log one message."""
        with suppress(Exception):
            if not self.isEnabledFor(level):
                return
            path, line, function, _stack = self.logger.findCaller(stacklevel=2)
            exc = kwargs.get("exc_info")
            if exc is True:  # as `exception` gives it
                exc = sys.exc_info()[1]
            error = (type(exc), exc, exc.__traceback__) if exc is not None else None
            record = self.logger.makeRecord(
                self.logger.name, level, path, line, msg, args, error, function
            )
            if current_thread().name.startswith("structjob-"):
                self._apart(record)
            else:
                self.logger.handle(record)

    def _apart(self, record: logging.LogRecord) -> None:
        calls = tuple(call for call in self._calls if call.is_alive())
        if len(calls) >= _MESSAGES_LIMIT:
            self._dropped += 1
            return
        if self._dropped:
            dropped = count_of(self._dropped, "message", "was", "were")
            record.msg = f"{record.msg} ({dropped} dropped before, while a handler was busy)"
            self._dropped = 0
        work = (_handle, self.logger, record, calls[-1:])
        call = Thread(
            target=contextvars.copy_context().run, args=work, name="handlers", daemon=True
        )
        try:
            call.start()
        except RuntimeError:  # the interpreter is exiting
            self.logger.handle(record)
            return
        self._calls = (*calls, call)
        if not calls:
            self._until = time.monotonic() + _HANDLERS_TIMEOUT
        call.join(max(0.0, self._until - time.monotonic()))

    def await_handlers(self) -> None:
        """Wait until all messages were handled, but only briefly."""
        for call in self._calls[-1:]:
            call.join(_EXIT_TIMEOUT)


def _handle(logger: logging.Logger, record: logging.LogRecord, before: tuple[Thread, ...]) -> None:
    for call in before:
        call.join()
    with suppress(Exception):
        logger.handle(record)


_logger = logging.getLogger("structjob")
diagnostics = _Diagnostics(_logger, {})
atexit.register(diagnostics.await_handlers)

DEBUG_VARIABLE = "STRUCTJOB_DEBUG"
"""Environment variable that makes the library log its actions to stderr: 1, true, yes or on."""

_DRIVERS = ("structjob", "aiosqlite", "asyncmy", "asyncpg", "alembic")
_OWN_ENGINES = ".structjob"
"""The end of the names of the loggers of our engines, see `structjob.store.quiet`."""


def is_own(logger: str) -> bool:
    """Return whether *logger* is one of the library or of its dependencies, so that its events are
    not recorded. Those of the program's own engines of SQLAlchemy are.
    """
    package = logger.split(".", 1)[0]
    return package in _DRIVERS or (package == "sqlalchemy" and logger.endswith(_OWN_ENGINES))


_SIGNALS = sorted(_signal.valid_signals())


def fault_types() -> tuple[type[BaseException], ...]:
    """Return the exceptions that are errors of our own, or of other code that was called without
    ``await``: a ``__repr__``, a sink, a hook. For ``except fault_types()``, which calls it only
    after an error.

    This includes asyncio's `CancelledError`, such as a cancelled future raises when it is asked for
    its result. A task is cancelled only where it awaits, so this must not seem to cancel it. What a
    signal handler raises is no such error: it ends the work of the program, such as a time limit of
    RQ or Celery, and may come while this work logs.
    """
    if _of_signal_handler(sys.exc_info()[1]):
        return ()
    asyncio = sys.modules.get("asyncio")  # not imported here: the command line does not need it
    return (Exception,) if asyncio is None else (Exception, asyncio.CancelledError)


class suppress_faults:  # noqa: N801 -- named as `contextlib.suppress`
    """A block that suppresses what `fault_types` returns."""

    def __enter__(self) -> None:
        """Do nothing: the end of the block decides."""

    def __exit__(self, kind: type[BaseException] | None, exc: object, trace: object) -> bool:
        return kind is not None and issubclass(kind, fault_types())


def _of_signal_handler(error: BaseException | None) -> bool:
    """Return whether a signal handler of the program raised *error*."""
    trace = error.__traceback__ if error is not None else None
    # A handler has its own place in the trace, and Python calls it in the main thread only.
    if trace is None or trace.tb_next is None or get_ident() != main_thread().ident:
        return False
    handlers = {
        _code_of(handler) for handler in map(_signal.getsignal, _SIGNALS) if callable(handler)
    }
    return any(frame.f_code in handlers for frame, _ in walk_tb(trace))


def _code_of(handler: Any) -> CodeType | None:
    """Return the code that runs first when *handler* is called; ``None`` if it is not Python's."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    calls = [vars(kind)["__call__"] for kind in type(handler).__mro__ if "__call__" in vars(kind)]
    for called in (handler, *calls):
        if isinstance(code := getattr(called, "__code__", None), CodeType):
            return code
    return None


class Faults:
    """Counts internal errors, logs each kind at most once a minute, and raises them only if
    strict.
    """

    def __init__(self) -> None:
        self.strict = False
        """Whether `structjob.configure` was called with ``strict=True``."""
        self.strict_trackers: weakref.WeakSet[Any] = weakref.WeakSet()
        """The open trackers that were created with ``strict=True``."""
        self.counts: dict[str, int] = {}
        self._warned_at: dict[str, float] = {}

    def reset(self) -> None:
        """Reset the counts and the strict settings."""
        self.strict = False
        self.strict_trackers.clear()
        self.counts.clear()
        self._warned_at.clear()

    def isolate(self) -> Callable[[], None]:
        """Reset it; return a function that puts back what was there before."""
        strict, trackers = self.strict, list(self.strict_trackers)
        counts, warned = dict(self.counts), dict(self._warned_at)
        self.reset()

        def restore() -> None:
            self.reset()
            self.strict = strict
            self.strict_trackers.update(trackers)
            self.counts.update(counts)
            self._warned_at.update(warned)

        return restore

    def count(self, what: str) -> None:
        """Count something that is not an internal error and not worth a warning."""
        self.counts[what] = self.counts.get(what, 0) + 1
        diagnostics.debug("%s (%s so far)", what, count_of(self.counts[what], "time"))

    def add(self, what: str, exc: BaseException) -> None:
        """Raise *exc* if strict. Otherwise count it, and log a warning at most once a minute."""
        if self.strict or self.strict_trackers:
            raise exc
        self.warn(what, exc)

    def warn(self, what: str, exc: BaseException) -> None:
        """Count it, and log a warning at most once a minute."""
        self.counts[what] = self.counts.get(what, 0) + 1
        now = time.monotonic()
        if now - self._warned_at.get(what, -60.0) >= 60.0:
            self._warned_at[what] = now
            if sys.is_finalizing():  # the error would be an import that fails
                diagnostics.warning("%s failed: Python is ending and has no modules any more", what)
                return
            diagnostics.warning(
                "%s failed (%s so far): %s: %s",
                what,
                count_of(self.counts[what], "time"),
                type(exc).__name__,
                exc,
            )


faults = Faults()
on_reset(faults.reset, faults.isolate)


def debug_if_asked(environ: Mapping[str, str]) -> None:
    """Log the library's actions to stderr if the environment asks for it.

    A second call does nothing.
    """
    if environ.get(DEBUG_VARIABLE, "").strip().lower() not in ("1", "true", "yes", "on"):
        return
    _logger.setLevel(logging.DEBUG)
    if not any(type(handler) is _DebugHandler for handler in _logger.handlers):
        handler = _DebugHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s structjob[%(process)d] %(levelname)s %(message)s")
        )
        _logger.addHandler(handler)
        # otherwise each line would appear twice if the root logger has handlers
        _logger.propagate = False


class _DebugHandler(logging.StreamHandler):  # type: ignore[type-arg]  # on 3.11 it is generic for type checkers only
    """A handler that writes to the stderr that is current when a line is written."""


debug_if_asked(os.environ)
