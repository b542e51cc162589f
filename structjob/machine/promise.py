"""What one thread waits for and another one does.

A signal handler may raise an exception in the waiting thread at any moment: Ctrl-C, or a time limit
for the work. `concurrent.futures.Future` does not bear that. The exception may leave its lock held
for ever, so that the thread that completes it stops, or may replace itself by "cannot release
un-acquired lock". A `Promise` has no lock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Promise(Generic[T]):
    """A result that comes later. Any thread and any loop may wait for it.

    Attributes:
        done: Whether the result is there.
    """

    __slots__ = ("_callbacks", "_error", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        # Only changed by operations that cannot be interrupted.
        self._callbacks: list[Callable[[], object]] = []

    def keep(self, value: T) -> None:
        """Complete it with *value*, unless it is done."""
        self._complete(value, None)

    def fail(self, error: BaseException) -> None:
        """Complete it with *error*, unless it is done."""
        self._complete(None, error)

    def _complete(self, value: T | None, error: BaseException | None) -> None:
        if not self.done:
            self._value, self._error = value, error
            self.done = True
        self._call()

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call *callback* once it is done: at once, or in the thread that completes it."""
        self._callbacks.append(callback)
        if self.done:
            self._call()

    def _call(self) -> None:
        with suppress(IndexError):
            while True:
                self._callbacks.pop()()

    def comes(self, seconds: float | None = None) -> bool:
        """Wait in this thread, and return whether the result is there.

        Args:
            seconds: Maximum time in seconds. Default: no limit.
        """
        arrived = threading.Lock()
        arrived.acquire()
        self.when_done(arrived.release)
        if not arrived.acquire(timeout=-1 if seconds is None else max(seconds, 0.0)):
            with suppress(ValueError):  # it is called just now
                self._callbacks.remove(arrived.release)
            return False
        return True

    def result(self) -> T:
        """Return the result or raise the error; it must be there."""
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    async def awaited(self) -> T:
        """Wait in the running loop, and return the result or raise the error."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def arrive() -> None:
            if not arrived.done():
                arrived.set_result(None)

        def announce() -> None:
            with suppress(RuntimeError):  # the loop was closed, and its tasks wait no more
                loop.call_soon_threadsafe(arrive)

        if not self.done:
            self.when_done(announce)
            await arrived
        return self.result()


_LOOK_EVERY = 1.0
"""Seconds between two checks whether the loop that is waited for can still run."""


def run_on(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T],
    seconds: float | None = None,
    fault: Callable[[], Exception | None] = lambda: None,
) -> T:
    """Run *work* on *loop*, which runs in another thread, and wait for what it returns.

    *work* runs in the caller's context. It is cancelled if the wait is interrupted.

    Args:
        loop: The loop.
        work: A coroutine.
        seconds: Maximum time in seconds; after that *work* is cancelled. Default: no limit.
        fault: Returns the error to raise if the loop will never run again.

    Raises:
        TimeoutError: after *seconds*.
        concurrent.futures.CancelledError: if *work* was cancelled.
    """
    promise: Promise[T] = Promise()
    task: asyncio.Task[T] | None = None

    def begin() -> None:
        nonlocal task
        try:
            task = loop.create_task(work)
        except BaseException as exc:
            promise.fail(exc)  # for example, of the program's own task factory
            raise
        task.add_done_callback(end)

    def end(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            promise.fail(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            promise.fail(error)
        else:
            promise.keep(task.result())

    def give_up() -> None:
        if task is not None:
            task.cancel()

    loop.call_soon_threadsafe(begin)
    deadline = None if seconds is None else time.monotonic() + seconds
    lost: Exception | None = None
    try:
        while True:
            left = _LOOK_EVERY if deadline is None else deadline - time.monotonic()
            if promise.comes(min(left, _LOOK_EVERY)):
                return promise.result()
            if (lost := fault()) is not None:
                raise lost
            if left < _LOOK_EVERY:
                raise TimeoutError(f"it did not end within {seconds:g} s, and was cancelled")
    except BaseException:  # including Ctrl-C and signals
        if lost is None and not promise.done:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(give_up)
        raise
