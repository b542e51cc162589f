"""Context managers that work with ``with`` and ``async with``, and never wait."""

from __future__ import annotations

from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class WithOrAsyncWith(Generic[T_co]):
    """The base of a context manager whose ``async with`` does the same as its ``with``."""

    __slots__ = ()

    def __enter__(self) -> T_co:
        raise NotImplementedError

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> T_co:
        return self.__enter__()

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self.__exit__(kind, exc, trace)
