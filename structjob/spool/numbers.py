"""Numbers from 1, of which none is given out twice and none is left out."""

from __future__ import annotations

from itertools import count, islice


class Numbers:
    """Numbers from 1 without gaps, for callers that may interrupt each other at any point."""

    def __init__(self) -> None:
        self.counter = count(1)
        """Gives the next number to `builtins.next`."""

    def several(self, count: int) -> list[int]:
        """Return the next *count* numbers, which another thread cannot interleave."""
        return list(islice(self.counter, count))

    @property
    def given(self) -> int:
        """How many numbers were given out."""
        # `repr` reads the counter without taking a number; `__reduce__` would also work, but Python
        # 3.14 removed it.
        return int(repr(self.counter)[6:-1]) - 1
