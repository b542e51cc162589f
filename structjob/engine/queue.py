"""How many events wait for the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Queue:
    """How many events wait for the database."""

    waiting: int
    """All that waits, on disk too."""
    capacity: int
    """How many memory is meant to hold (``queue_size``)."""
    _clear: Callable[[], int] = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """How many of them memory is meant to hold: `capacity` at most. With a spool the others are
        on disk only.
        """
        return min(self.waiting, self.capacity)

    @property
    def full(self) -> bool:
        """Whether more wait than memory is meant to hold; with a spool the rest is on disk."""
        return self.waiting >= self.capacity

    def clear(self) -> int:
        """Give up the events that wait, and return how many: in the ledger and in
        ``structjob_gaps`` they stand under ``cleared``.

        Changes of state are never given up, nor is what a writer has in hand already.

        Raises:
            NotOpen: if the tracker is not open, or this is a forked process, whose parent delivers.
        """
        return self._clear()
