"""The pace of work that must not slow others down: how much at a time, and how long a breath
between two times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LEAST = 100
"""Rows of one transaction at least: what a transaction costs by itself would be most of it with
fewer.
"""


class Limits(NamedTuple):
    """What a transaction may come to.

    Attributes:
        seconds: What it is to take at most, by database (its own cost included, which on a server
            is the commit's more than the rows').
        rows: Its rows at most: those of a server are taken apart on the loop.
        breath: How many times as long as a transaction the breath after it is.
    """

    seconds: Mapping[str, float]
    rows: int
    breath: float


BESIDE_WRITERS = Limits({"sqlite": 0.005, "": 0.02}, 500, 20.0)
"""While others write. They are to keep nine tenths of their speed, on a machine that is overloaded,
too: there a transaction is slow, and so it is waited for.
"""

AT_REST = Limits({"sqlite": 0.02, "": 0.2}, 1_000, 0.2)
"""While no other program writes; one that begins waits for one transaction at most, and on a server
not even for that, since the rows of the two are different ones.
"""


class Pace:
    """Measures transactions.

    Attributes:
        rows: How many rows the next transaction is to have.
    """

    def __init__(self) -> None:
        self._newest: int | None = None
        self.rows = LEAST

    def took(self, seconds: float, rows: int, newest: int, dialect: str) -> float:
        """Take note of a transaction; return for how many seconds to leave the database to others.

        Args:
            seconds: What it took.
            rows: How many rows it had.
            newest: The greatest id of an event afterwards: it grows while others write.
            dialect: The name of the database's kind.
        """
        busy = self._newest is not None and newest != self._newest
        self._newest = newest
        limits = BESIDE_WRITERS if busy else AT_REST
        longest = limits.seconds.get(dialect, limits.seconds[""])
        if seconds > longest or rows >= self.rows:  # one that had little to do tells nothing
            change = min(max(longest / max(seconds, 1e-6), 0.5), 1.5)
            self.rows = int(max(self.rows * change, LEAST))
        self.rows = min(self.rows, limits.rows)
        return seconds * limits.breath
