"""An awaitable result of work that is already done."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Done(Generic[T]):
    """The return value of ``step.end()`` and similar methods. The work is done; awaiting it is
    optional.

    So one method serves code with and without an event loop: ``await step.end()`` and
    ``step.end()``.

    Args:
        value: The value that ``await`` returns.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<done>"

    def __await__(self) -> Generator[Any, None, T]:
        yield from ()  # this waits for nothing
        return self._value
