"""Time as it passes for a program that has the machine for itself."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_THREADS = Path("/proc/self/task")


def _waited() -> dict[str, int]:
    """Return the nanoseconds that each thread of this process was ready to run, and waited for a
    processor (Linux; elsewhere nothing).
    """
    waited = {}
    with contextlib.suppress(OSError):
        for thread in _THREADS.iterdir():
            # it may have ended meanwhile
            with contextlib.suppress(OSError, ValueError, IndexError):
                waited[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return waited


class Stopwatch:
    """Counts the seconds since it was made, less those in which other programs had the processors.

    A bound on time is about the code, and not about what else the machine does: tests run beside
    each other.
    """

    def __init__(self) -> None:
        self._waited = _waited()
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How many there were."""
        passed = time.monotonic() - self._began
        waited = sum(ns - self._waited.get(thread, 0) for thread, ns in _waited().items()) / 1e9
        return max(0.0, passed - waited)
