"""A thread for blocking calls.

An event loop that is saturated must give the GIL to this thread from time to time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 0.002
"""Seconds that a call may take before the loop begins to yield to it."""
COURTESY = 50e-6
"""Seconds that the loop's thread then sleeps, every `PATIENCE` seconds. Without it, a saturated
loop starves the worker permanently.
"""


class Worker:
    """A thread for blocking calls, which it runs one after the other.

    It does not keep the interpreter alive, because a call may take very long.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._calls: queue.SimpleQueue[
            tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None
        ] = queue.SimpleQueue()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Queue *call*, and return a future for its result.

        If the future is cancelled before the call has started, the call is skipped.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=_serve, args=(self._calls,), name=self._name, daemon=True
            )
            self._thread.start()
        promise: concurrent.futures.Future[T] = concurrent.futures.Future()
        future = asyncio.wrap_future(promise)
        self._calls.put((promise, lambda: call(*args, **kwargs)))
        return future

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of *call*; a call that has started is not stopped by a cancellation."""
        loop = asyncio.get_running_loop()
        future = self.submit(call, *args, **kwargs)
        timer = loop.call_later(PATIENCE, _make_room, loop, future, context=contextvars.Context())
        try:
            return await future
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the thread after the calls that are queued."""
        self._calls.put(None)

    def __del__(self) -> None:
        # A reader whose opening failed is often left without a close.
        self._calls.put(None)


async def in_own_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of *call*, which runs in a new thread, in the caller's context.

    `asyncio.to_thread` would wait until the program's own calls leave one of the few threads of
    the loop's default executor, and fail where the program has shut it down.
    """
    worker = Worker("structjob-call")
    try:
        context = contextvars.copy_context()
        return await worker.run(lambda: context.run(call, *args, **kwargs))
    finally:
        worker.close()


def _serve(
    calls: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None],
) -> None:
    while (given := calls.get()) is not None:
        promise, call = given
        if promise.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 -- passed to the caller
                promise.set_exception(exc)
                del exc
            else:
                promise.set_result(result)
                del result
        del given, promise, call  # otherwise they would live until the next call


def _make_room(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
    if not future.done():
        time.sleep(COURTESY)
        loop.call_later(PATIENCE, _make_room, loop, future, context=contextvars.Context())
