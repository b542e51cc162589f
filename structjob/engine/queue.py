"""The number of events that wait for the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The number of events that wait for the database."""

    waiting: int
    """Number of all waiting events, including those on disk; if another process delivers, only
    those in memory, because the others are not known to wait.
    """
    capacity: int
    """Number of events that memory is meant to hold (``queue_size``)."""
    _clear: Callable[[], int] = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """How many of the waiting events memory is meant to hold: `capacity` at most.

        With a spool the other events are only on disk.
        """
        return min(self.waiting, self.capacity)

    @property
    def full(self) -> bool:
        """Whether more events wait than memory is meant to hold.

        With a spool the rest is on disk.
        """
        return self.waiting >= self.capacity

    def clear(self) -> int:
        """Drop the waiting events and return their number.

        In the ledger and in ``structjob_gaps`` they appear under ``cleared``. Changes of state are
        never dropped, nor are events that a writer already holds.

        Raises:
            NotOpen: if the tracker is not open, or this is a forked process, whose parent delivers.
            InvalidState: if another process delivers (``deliver=False``).
        """
        return self._clear()
