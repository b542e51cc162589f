"""The event loop of running code, and the functions that need one."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
from contextlib import suppress

from structjob.exceptions import InvalidState

_MARK = getattr(asyncio.coroutines, "_is_coroutine", object())
"""Marks plain functions that return a coroutine, before Python 3.12 (asgiref, Django)."""


def is_coroutine_function(function: object) -> bool:
    """Return whether a call of *function* returns a coroutine.

    It may also be a `functools.partial`, an object with ``async def __call__``, or a function that
    `inspect.markcoroutinefunction` has marked. A decorated function is judged by its outermost
    function, which may run the coroutine itself.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return any(
        inspect.iscoroutinefunction(one) or getattr(one, "_is_coroutine", None) is _MARK
        for one in (function, getattr(type(function), "__call__", None))  # noqa: B004 -- it is looked at
    )


def _of_this_greenlet() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this greenlet, or ``None``.

    After gevent's or eventlet's patches, threads are greenlets. asyncio then finds the loop of one
    of them, the tracker's own, in all of them.
    """
    loop = asyncio._get_running_loop()  # noqa: SLF001 -- see `running_loop`
    return loop if getattr(loop, "_thread_id", None) == threading.get_ident() else None


def threads_are_greenlets() -> bool:
    """Return whether gevent or eventlet has replaced the threads of this process."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )


running_loop = _of_this_greenlet if threads_are_greenlets() else asyncio._get_running_loop  # noqa: SLF001 -- the public function raises an exception without a loop, which takes ten times as long
"""Return the loop that runs in this thread, or ``None``."""


async def wait_until_set(event: asyncio.Event, seconds: float) -> None:
    """Wait until *event* is set, *seconds* at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def require_asyncio() -> None:
    """Raise `InvalidState` if no event loop of asyncio runs here, as in Trio."""
    if asyncio._get_running_loop() is None:  # noqa: SLF001 -- see `running_loop`
        raise InvalidState(
            "`async with` and `await` of structjob need a running event loop of asyncio: use `with` "
            "and calls without `await` here; they also work in Trio"
        )


def require_early_patches() -> None:
    """Raise `InvalidState` if threads became greenlets after this module was imported.

    A greenlet would then take the tracker's loop for its own, and could never wait for it.
    """
    if running_loop is not _of_this_greenlet and threads_are_greenlets():
        raise InvalidState(
            "gevent's or eventlet's patches came after structjob was imported: call "
            "gevent.monkey.patch_all() at the start of the program, before structjob is imported "
            "(gunicorn -k gevent does so, without --preload)"
        )
