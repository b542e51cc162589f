"""The pace of background deletion: rows per transaction, and the pause between transactions.

The pace is limited so that deleting does not slow down other work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LEAST = 100
"""Minimum number of rows in one transaction: with fewer rows, the transaction's own cost would
dominate.
"""


class Limits(NamedTuple):
    """The limits of a transaction.

    Attributes:
        seconds: Its maximum duration, by database. This includes the transaction's own cost: on a
            server the commit costs more than the rows.
        rows: Its maximum number of rows, because rows from a server are decoded on the event loop.
        breath: The pause after a transaction, as a multiple of the transaction's duration.
    """

    seconds: Mapping[str, float]
    rows: int
    breath: float


BESIDE_WRITERS = Limits({"sqlite": 0.005, "": 0.02}, 500, 20.0)
"""The limits while other programs write. Those programs must keep nine tenths of their speed,
even on an overloaded machine. Transactions are slow there, so the pauses are long.
"""

AT_REST = Limits({"sqlite": 0.02, "": 0.2}, 1_000, 0.2)
"""The limits while no other program writes. A new writer waits for one transaction at most. On a
server it does not wait at all, because the two change different rows.
"""


class Pace:
    """The pace, computed from the durations of transactions.

    Attributes:
        rows: How many rows the next transaction should have.
    """

    def __init__(self) -> None:
        self._newest: int | None = None
        self.rows = LEAST

    def took(self, seconds: float, rows: int, newest: int, dialect: str) -> float:
        """Record a transaction, and return the seconds to pause after it.

        Args:
            seconds: The transaction's duration.
            rows: The transaction's number of rows.
            newest: The greatest id of an event after the transaction; it grows while other programs
                write.
            dialect: The name of the kind of database.
        """
        busy = self._newest is not None and newest != self._newest
        self._newest = newest
        limits = BESIDE_WRITERS if busy else AT_REST
        longest = limits.seconds.get(dialect, limits.seconds[""])
        if seconds > longest or rows >= self.rows:  # a small transaction gives no information
            change = min(max(longest / max(seconds, 1e-6), 0.5), 1.5)
            self.rows = int(max(self.rows * change, LEAST))
        self.rows = min(self.rows, limits.rows)
        return seconds * limits.breath
