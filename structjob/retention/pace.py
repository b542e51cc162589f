"""The pace of work that must not be felt: how much at a time, and how long a breath between two
times.
"""

from __future__ import annotations

MOST = 500
"""Rows of one transaction at most."""

LEAST = 100
"""Rows of one transaction at least: what a transaction costs by itself would be most of it with
fewer.
"""

LONGEST = {"sqlite": 0.005}
"""Seconds that a transaction is to take at most, by database: where there is one writer at a time,
others wait for its end.
"""
_LONGEST = 0.02

BREATH = 20.0
"""How many times as long as a transaction the breath after it is while others write.

They are to keep nine tenths of their speed, on a machine that is overloaded, too: there a
transaction is slow, and so it is waited for.
"""

_IDLE_BREATH = 1.0
"""The same while nobody does; somebody who begins has his turn after one transaction at the latest.
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
        longest = LONGEST.get(dialect, _LONGEST)
        if seconds > longest or rows >= self.rows:  # one that had little to do tells nothing
            change = min(max(longest / max(seconds, 1e-6), 0.5), 1.5)
            self.rows = int(min(max(self.rows * change, LEAST), MOST))
        busy = self._newest is not None and newest != self._newest
        self._newest = newest
        return seconds * (BREATH if busy else _IDLE_BREATH)
