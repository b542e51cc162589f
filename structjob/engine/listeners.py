"""Listeners: they get the events of this process when they are logged, before they are stored.

Logging never waits for a listener: an event is put into the listener's queue, or counted as dropped
if the queue is full. To see every event once, including those of other processes, follow the log:
`structjob.queries.tail`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar

from structjob.exceptions import InvalidArgument, InvalidFilter
from structjob.filter_checks import values_of
from structjob.filters import LOG_EQUALS, LogFilter
from structjob.lifecycle.both import WithOrAsyncWith
from structjob.machine.clock import moment
from structjob.models import EventRecord
from structjob.numeric import is_whole
from structjob.spool.line import EVENT_COLUMNS, read_event
from structjob.spool.numbers import Numbers
from structjob.spool.recorder import Recorder
from structjob.store.expressions import stored_values

Callback = Callable[[EventRecord], "Awaitable[object] | object"]
"""A callback that takes an event; may be a coroutine function."""

_AT_A_TIME = 50
"""Number of events passed to a callback before other tasks on the loop get their turn."""

_listening: ContextVar[bool] = ContextVar("structjob_listening", default=False)


class Listener(WithOrAsyncWith["Listener"]):
    """The result of `Tracker.listen`; without a callback it is an asynchronous iterator of events.

    `close`, or the end of a ``with`` or ``async with`` block, stops it.

    Args:
        recorder: The recorder whose events are wanted.
        callback: Called with each matching event, on the loop where the listener is created.
        wanted: The filter for events.
        queue_size: Maximum number of events that wait for the callback or the iteration.
    """

    def __init__(
        self, recorder: Recorder, callback: Callback | None, wanted: LogFilter, queue_size: int
    ) -> None:
        if not is_whole(queue_size) or queue_size < 1:
            raise InvalidArgument(
                f"queue_size must be a whole number of at least 1, not {queue_size!r}"
            )
        if callback is not None and not callable(callback):
            raise InvalidArgument(
                f"a listener's callback must be callable, not {type(callback).__name__}; a filter comes as filter=…"
            )
        if wanted.job is not None:
            raise InvalidFilter(
                "a listener does not query the database: give the job's own id as job_id, or a Job"
            )
        if wanted.children:
            raise InvalidFilter(
                "a listener cannot select child jobs: listen to a correlation_id, or tail the log"
            )
        self._recorder = recorder
        self._wanted = _as_stored(wanted)
        self._size = queue_size
        self._queue: deque[tuple[int, bytes]] = deque()
        self._dropped = Numbers()
        self._failed = Numbers()
        self._closed = False
        self._idle = False
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._offer = self._take  # one object, so that `close` can find and remove it
        recorder.add_listener(self._offer)
        # An empty context: context variables of the code that starts to listen do not belong to the
        # events.
        self._task = (
            contextvars.Context().run(
                asyncio.create_task, self._run(callback), name="structjob-listener"
            )
            if callback
            else None
        )

    @property
    def dropped(self) -> int:
        """Number of events that came while the queue was full."""
        return self._dropped.given

    @property
    def failed(self) -> int:
        """Number of events for which the callback raised an exception."""
        return self._failed.given

    def close(self) -> None:
        """Stop listening; events already in the queue are still passed on."""
        self._recorder.remove_listener(self._offer)
        self._closed = True
        self._wake()

    def _take(self, line: bytes) -> None:
        """Take an event; called by the logging code, in any thread or in a signal handler."""
        if _listening.get():
            return  # logged by a callback: passing it on would never end
        if len(self._queue) >= self._size:
            next(self._dropped.counter)
            return
        self._queue.append((self._recorder.session.session_id, line))
        if self._idle:
            self._idle = False
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is no listener left
            self._loop.call_soon_threadsafe(self._woken.set, context=contextvars.Context())

    async def _next(self) -> EventRecord | None:
        """Wait for the next matching event; return None when closed and the queue is empty."""
        while True:
            while self._queue:
                event = read_line(*self._queue.popleft())
                if self._wanted.matches(event):
                    return event
            if self._closed:
                return None
            self._woken.clear()
            self._idle = True
            # check again: an event may have come in between; `close` wakes in any case
            if not self._queue:
                await self._woken.wait()

    async def _run(self, callback: Callback) -> None:
        _listening.set(True)
        number = 0
        while (event := await self._next()) is not None:
            try:
                result = callback(event)
                if inspect.isawaitable(result):
                    await result
            # a canceled future that the callback asks or awaits is its error, too
            except (Exception, asyncio.CancelledError) as exc:
                if type(exc) is asyncio.CancelledError and self._task and self._task.cancelling():
                    raise
                next(self._failed.counter)
                name = getattr(callback, "__qualname__", type(callback).__name__)
                self._recorder.warn(
                    f"listener {name}",
                    "the listener %s failed: %s: %s",
                    name,
                    type(exc).__name__,
                    exc,
                )
            number += 1
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[EventRecord]:
        if self._task is not None:
            raise InvalidArgument("this listener has a callback: listen without one to iterate")
        return self

    async def __anext__(self) -> EventRecord:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event


def _as_stored(wanted: LogFilter) -> LogFilter:
    """Return the filter that also matches texts whose credentials are redacted in the event."""
    stored = copy.copy(wanted)  # a new filter would count these texts, and refuse some
    for name in LOG_EQUALS:
        if (value := getattr(wanted, name)) is not None:
            object.__setattr__(stored, name, stored_values(values_of(value)))
    return stored


def read_line(session_id: int, line: bytes) -> EventRecord:
    """Return the event of a spool line as it will be stored, with None as its ``id``."""
    read = read_event(line)
    columns = {name: getattr(read, name) for name in EVENT_COLUMNS if name != "ts"}
    return EventRecord(
        id=None,
        session_id=session_id,
        ts=moment(read.ts),
        stored_at=None,
        type=read.type,
        **columns,
    )
