"""An iterator that counts items for a step."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from structjob.exceptions import InvalidArgument

T = TypeVar("T")


class Items(Generic[T]):
    """The return value of ``step.track(items)``, for ``async for`` and ``for``.

    Args:
        items: The items to iterate over.
        done: Called after each item was processed.
        stop_if_asked: Called before each item in code without an event loop. It raises `Cancelled`
            if the job was asked to stop.
    """

    def __init__(
        self,
        items: AsyncIterable[T] | Iterable[T],
        done: Callable[[], None],
        stop_if_asked: Callable[[], None],
    ) -> None:
        self._items = items
        self._done = done
        self._stop_if_asked = stop_if_asked

    def __iter__(self) -> Iterator[T]:
        if not isinstance(self._items, Iterable):
            raise InvalidArgument(
                f"{type(self._items).__name__} is an async iterable: write `async for`"
                if isinstance(self._items, AsyncIterable)
                else f"step.track() takes an iterable, not {self._items!r}"
            )
        return self._each(self._items)

    def __aiter__(self) -> AsyncIterator[T]:
        return self._each_async()

    def _each(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self._stop_if_asked()
            yield item
            self._done()

    async def _each_async(self) -> AsyncIterator[T]:
        if isinstance(self._items, AsyncIterable):
            async for item in self._items:
                yield item
                self._done()
        else:
            for item in self._items:
                self._stop_if_asked()
                yield item
                self._done()
