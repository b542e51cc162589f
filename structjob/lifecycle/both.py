"""Blocks that work with ``with`` and ``async with``, and functions that are decorated with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from structjob.context.tracebacks import leave_out_caller

P = ParamSpec("P")
T = TypeVar("T")
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


def decorated(
    function: Callable[P, T],
    block: Callable[P, Any],
    keep: Callable[[Any, Any], Any],
    *,
    coroutines: bool,
) -> Callable[P, T]:
    """Return *function*, each call of which runs in a block of its own.

    Args:
        function: A function or coroutine function.
        block: Returns the block of a call, from the arguments of the call.
        keep: Takes what the block gives to ``as``, and the return value; returns the latter.
        coroutines: Whether it is a coroutine function.
    """
    work: Any = function
    run: Any
    if coroutines:

        @functools.wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with block(*args, **kwargs) as handle:
                try:
                    returned = await work(*args, **kwargs)
                except BaseException as exc:
                    leave_out_caller(exc)
                    raise
                return keep(handle, returned)
    else:

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            with block(*args, **kwargs) as handle:
                try:
                    returned = work(*args, **kwargs)
                except BaseException as exc:
                    leave_out_caller(exc)
                    raise
                return keep(handle, returned)

    return cast(Callable[P, T], run)
