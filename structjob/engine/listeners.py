"""Listeners: the events of this process, as they are logged, before they are stored.

A listener is never felt by who logs: an event is put into its queue, and if that is full, counted.
To see each event once, those of other processes too, follow the log: `structjob.queries.tail`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar

from structjob.exceptions import InvalidArgument, InvalidFilter
from structjob.filters import LogFilter
from structjob.machine.clock import moment
from structjob.models import EventRecord
from structjob.spool.line import EVENT_COLUMNS, read_event
from structjob.spool.recorder import Numbers, Recorder

Callback = Callable[[EventRecord], "Awaitable[object] | object"]
"""Takes an event; may be a coroutine function."""

_AT_A_TIME = 50
"""Events that a callback is given before others on the loop have their turn."""

_listening: ContextVar[bool] = ContextVar("structjob_listening", default=False)


class Listener:
    """What `Tracker.listen` returns; without a callback it is an asynchronous iterator of the
    events.

    Args:
        recorder: Whose events.
        callback: Called with each event that matches, on the loop that this is made on.
        wanted: What to listen to.
        queue_size: Events that wait for the callback, or for the iteration, at most.
    """

    def __init__(
        self, recorder: Recorder, callback: Callback | None, wanted: LogFilter, queue_size: int
    ) -> None:
        if not isinstance(queue_size, int) or isinstance(queue_size, bool) or queue_size < 1:
            raise InvalidArgument(
                f"queue_size must be a whole number of at least 1, not {queue_size!r}"
            )
        if callback is not None and not callable(callback):
            raise InvalidArgument(
                f"a listener's callback must be callable, not {type(callback).__name__}; a filter comes as filter=…"
            )
        if wanted.job is not None:
            raise InvalidFilter(
                "a listener asks no database what an id means: give the job's own id as job_id, or a Job"
            )
        if wanted.children:
            raise InvalidFilter(
                "a listener does not know whose children there are: listen to a correlation_id, or tail the log"
            )
        self._recorder = recorder
        self._callback = callback
        self._wanted = wanted
        self._size = queue_size
        self._queue: deque[tuple[int, bytes]] = deque()
        self._dropped = Numbers()
        self._failed = Numbers()
        self._closed = False
        self._idle = False
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._offer = self._take  # one object, by which it is found again
        recorder.add_listener(self._offer)
        # An empty context: what is current where somebody begins to listen is none of the events'.
        self._task = (
            contextvars.Context().run(
                asyncio.create_task, self._run(callback), name="structjob-listener"
            )
            if callback
            else None
        )

    @property
    def dropped(self) -> int:
        """Events that came while the queue was full."""
        return self._dropped.given

    @property
    def failed(self) -> int:
        """Events for which the callback raised an exception."""
        return self._failed.given

    def close(self) -> None:
        """Listen no longer; what is in the queue is still handed over."""
        self._recorder.remove_listener(self._offer)
        self._closed = True
        self._wake()

    def _take(self, line: bytes) -> None:
        """Called by whoever logs, in any thread, a signal handler too."""
        if _listening.get():
            return  # logged by a callback: it would never end
        if len(self._queue) >= self._size:
            self._dropped.next()
            return
        self._queue.append((self._recorder.session.session_id, line))
        if self._idle:
            self._idle = False
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._woken.set, context=contextvars.Context())

    async def _next(self) -> EventRecord | None:
        """Wait for the next event that matches; None when it is closed and the queue is empty."""
        while True:
            while self._queue:
                event = read_line(*self._queue.popleft())
                if self._wanted.matches(event):
                    return event
            if self._closed:
                return None
            self._woken.clear()
            self._idle = True
            # once more: something may have come in between
            if not self._queue and not self._closed:
                await self._woken.wait()

    async def _run(self, callback: Callback) -> None:
        _listening.set(True)
        number = 0
        while (event := await self._next()) is not None:
            try:
                result = callback(event)
                if inspect.isawaitable(result):
                    await result
            except Exception as exc:  # noqa: BLE001 -- a listener's fault is its own
                self._failed.next()
                name = getattr(callback, "__qualname__", type(callback).__name__)
                self._recorder.tell(
                    f"listener {name}",
                    "the listener %s failed: %s: %s",
                    name,
                    type(exc).__name__,
                    exc,
                )
            number += 1
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)

    def __aiter__(self) -> AsyncIterator[EventRecord]:
        if self._task is not None:
            raise InvalidArgument("this listener has a callback: listen without one to iterate")
        return self

    async def __anext__(self) -> EventRecord:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event


def read_line(session_id: int, line: bytes) -> EventRecord:
    """Return the event of a line of the spool, as it will be stored; its ``id`` is 0 as long as it
    is not.
    """
    read = read_event(line)
    columns = {name: getattr(read, name) for name in EVENT_COLUMNS if name != "ts"}
    return EventRecord(
        id=0, session_id=session_id, ts=moment(read.ts), stored_at=None, type=read.type, **columns
    )
