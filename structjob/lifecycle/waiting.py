"""The awaitable that work which is done already returns."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Done(Generic[T]):
    """What ``step.end()`` and its like return: the work is done, awaiting it is optional.

    So one method serves code with and without a loop: ``await step.end()`` and ``step.end()``.

    Args:
        value: What ``await`` gives.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, T]:
        yield from ()  # nothing is waited for
        return self._value
