"""Long sequences in portions, because a statement takes a limited number of values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def portions(everything: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield *everything* in portions of *size*; the last one may be smaller."""
    for first in range(0, len(everything), size):
        yield everything[first : first + size]
