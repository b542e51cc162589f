"""The peak memory of this process, and of a child process.

The kernel's own value at the end of a child includes what this process had at the fork. So a
smaller program must be measured while it runs.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from typing import Any

FIRST_LOOK, LAST_LOOK = 0.01, 1.0
"""Seconds until the first look at a running child, and the longest pause between two looks.

A look at the very start would see almost nothing. The pauses grow with the running time, so the
last look comes in the second half of it, or in its last second.
"""


class PeakMemory:
    """The peak memory of a child process, in kilobytes."""

    def __init__(self) -> None:
        self._seen = 0

    def look(self, pid: int) -> None:
        """Read the peak memory of the running child *pid* so far. Does nothing except on Linux."""
        if not sys.platform.startswith("linux"):
            return
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status,
        ):
            self._seen = max(
                [
                    self._seen,
                    *(int(line.split()[1]) for line in status if line.startswith("VmHWM:")),
                ]
            )

    def of(self, usage: Any) -> int | None:
        """Return the peak memory of the child that has ended with the resource *usage*.

        Return None if it is not known.
        """
        peak = kilobytes(getattr(usage, "ru_maxrss", 0))
        # This process's peak is read now: it may have grown until the fork.
        return peak if peak > own_peak() else self._seen or None


def own_peak() -> int:
    """Return the peak memory of this process, in kilobytes."""
    return kilobytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def kilobytes(reported: int) -> int:
    """Return what the system *reported* as peak memory in kilobytes. macOS reports bytes."""
    return int(reported) // (1024 if sys.platform == "darwin" else 1)
