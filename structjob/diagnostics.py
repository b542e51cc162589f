"""The library's own logger, and the count of its internal errors.

Neither enters the pipeline, because the pipeline would then produce its own input.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from structjob.process import on_reset
from structjob.text.wording import count_of


class _Diagnostics(logging.LoggerAdapter[logging.Logger]):
    """The library's own logger. It never raises, whatever the handlers of the program do.

    `logging` itself raises if ``sys.stderr`` is closed.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log one message."""
        with suppress(Exception):
            super().log(level, msg, *args, stacklevel=2, **kwargs)


_logger = logging.getLogger("structjob")
diagnostics = _Diagnostics(_logger, {})

DEBUG_VARIABLE = "STRUCTJOB_DEBUG"
"""Environment variable that makes the library log its actions to stderr: 1, true, yes or on."""

DRIVERS = ("structjob", "aiosqlite", "asyncmy", "asyncpg", "sqlalchemy", "alembic")
"""Loggers of the library and of its dependencies. Their events are not recorded."""


def fault_types() -> tuple[type[BaseException], ...]:
    """Return the exceptions that are errors of other code that was called without ``await``: a
    ``__repr__``, a sink, a hook. For ``except fault_types()``, which calls it only after an error.

    This includes asyncio's `CancelledError`, such as a canceled future raises when it is asked for
    its result. A task is canceled only where it awaits, so this must not seem to cancel it. What a
    signal handler raises is no such error.
    """
    asyncio = sys.modules.get("asyncio")  # not imported here: the command line does not need it
    return (Exception,) if asyncio is None else (Exception, asyncio.CancelledError)


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
