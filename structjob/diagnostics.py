"""Where the library speaks of itself, and what went wrong on its side.

Neither ever enters the pipeline, which would feed itself.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Mapping
from typing import Any

from structjob.process import on_reset
from structjob.text.wording import count_of

diagnostics = logging.getLogger("structjob")

DEBUG_VARIABLE = "STRUCTJOB_DEBUG"
"""Environment variable that makes the library say on stderr what it does: 1, true, yes or on."""

DRIVERS = ("structjob", "aiosqlite", "asyncmy", "asyncpg", "sqlalchemy", "alembic")
"""Loggers of the library and of what it uses: what they say is not recorded."""


class Faults:
    """What went wrong on our side: counted, told once in a while, and never felt."""

    def __init__(self) -> None:
        self.strict = False
        """Whether `structjob.configure` was told to raise them."""
        self.strict_trackers: weakref.WeakSet[Any] = weakref.WeakSet()
        """The open trackers that were."""
        self.counts: dict[str, int] = {}
        self._told: dict[str, float] = {}

    def reset(self) -> None:
        """Forget what was counted, and what was told to raise."""
        self.strict = False
        self.strict_trackers.clear()
        self.counts.clear()
        self._told.clear()

    def count(self, what: str) -> None:
        """Count what is no fault of ours, and is not worth a warning."""
        self.counts[what] = self.counts.get(what, 0) + 1
        diagnostics.debug("%s (%s so far)", what, count_of(self.counts[what], "time"))

    def add(self, what: str, exc: BaseException) -> None:
        if self.strict or self.strict_trackers:
            raise exc
        self.warn(what, exc)

    def warn(self, what: str, exc: BaseException) -> None:
        """Count it and warn about it, at most once a minute."""
        self.counts[what] = self.counts.get(what, 0) + 1
        now = time.monotonic()
        if now - self._told.get(what, -60.0) >= 60.0:
            self._told[what] = now
            diagnostics.warning(
                "%s failed (%s so far): %s: %s",
                what,
                count_of(self.counts[what], "time"),
                type(exc).__name__,
                exc,
            )


faults = Faults()
on_reset(faults.reset)


def debug_if_asked(environ: Mapping[str, str]) -> None:
    """Let the library say on stderr what it does, if the environment asks for it; a second call
    does nothing.
    """
    if environ.get(DEBUG_VARIABLE, "").strip().lower() not in ("1", "true", "yes", "on"):
        return
    diagnostics.setLevel(logging.DEBUG)
    if not any(type(handler) is _DebugHandler for handler in diagnostics.handlers):
        handler = _DebugHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s structjob[%(process)d] %(levelname)s %(message)s")
        )
        diagnostics.addHandler(handler)
        # else each line would be there twice where logging has handlers
        diagnostics.propagate = False


class _DebugHandler(logging.StreamHandler):  # type: ignore[type-arg]  # on 3.11 it is generic for type checkers only
    """Writes to stderr, as it is when a line is written."""


debug_if_asked(os.environ)
