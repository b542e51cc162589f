"""One tail for all subscribers with the same filter: each line is read and encoded once.

The tail of the first subscriber becomes the shared one. A later or returning subscriber first reads
with its own tail, and joins the shared tail when both have returned exactly the same lines. So each
subscriber gets each line once, and a hundred pages that show the same cost one query per second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from structjob.exceptions import InvalidArgument, JobNotFound, StoreUnavailable
from structjob.queries.tail import CHUNK, end, meets, wake
from structjob.web import frames
from structjob.web.frames import Frame
from structjob.web.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

    from structjob.models import EncodedEvent, Gap
    from structjob.queries.tail import Tail

POLL = 1.0
"""Seconds between two reads while no events arrive."""

RING = 1024 * 1024
"""Bytes of the last sent frames that are kept for returning subscribers."""

_AWAY = 2.0
"""Seconds between two attempts while the database is unavailable."""

BATCH = 1_000
"""Maximum number of lines per read of the shared tail. A subscriber's own tail reads fewer, because
its first result must fit into the queue of one subscriber.
"""

_PATIENCE = 5.0
"""Maximum number of seconds that reading waits while no subscriber has room."""

_ROOM = 512 * 1024
"""Maximum number of free bytes that a subscriber's own tail waits for before it sends a frame."""


@dataclass(slots=True)
class _Newcomer:
    """A subscriber that still reads with its own tail."""

    subscription: Subscription
    tail: Tail[Any]
    arrived: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class SharedTail:
    """The shared tail of one filter.

    Args:
        open_tail: Returns a tail of this filter; it takes the options of
            `structjob.queries.logs.Logs.tail`.
    """

    def __init__(self, open_tail: Callable[..., Tail[EncodedEvent | Gap]]) -> None:
        self._open_tail = open_tail
        self._tail: Tail[EncodedEvent | Gap] | None = None
        self._subscribers: set[Subscription] = set()
        self._newcomers: dict[Subscription, asyncio.Task[None]] = {}
        self._joining = 0
        self._waiting: deque[_Newcomer] = deque()
        self._task: asyncio.Task[None] | None = None
        self._ring: deque[Frame] = deque()
        self._ring_bytes = 0
        self._looked = 0.0
        self._at: str | None = None
        self._publishing = False
        self._caught_up = False
        """Whether the shared tail has returned everything that was stored when it started."""
        self._beginning = asyncio.Lock()

    @property
    def idle(self) -> bool:
        """Whether there are no subscribers."""
        return not (self._subscribers or self._newcomers or self._joining)

    @property
    def cursor(self) -> str | None:
        """The cursor after the last event that the shared tail has published."""
        return self._at

    @property
    def behind_ms(self) -> int:
        """Milliseconds since the last read of the log."""
        if not self._looked:
            return 0
        return round(1000 * (asyncio.get_running_loop().time() - self._looked))

    def cursor_of(self, subscription: Subscription) -> str | None:
        """Return the position up to which a subscriber with an empty queue has received the log."""
        return self.cursor if subscription in self._subscribers else subscription.cursor

    async def join(self, subscription: Subscription, after: str | None, last: int) -> None:
        """Send the log to a subscriber from now on.

        Args:
            subscription: The subscriber.
            after: The cursor after which to continue.
            last: Without a cursor, how many stored lines to send first.

        Raises:
            InvalidFilter: if the cursor belongs to another filter.
            StoreUnavailable: if the database does not answer.
        """
        self._joining += 1
        try:
            async with self._beginning:
                if self._tail is None:
                    await self._begin(subscription, after, last)
                    return
            if after is None and last == 0 and self._caught_up and not self._publishing:
                self._subscribers.add(subscription)
                return
            own = self._tail_of(after, last)
            if after is not None and self._replay(subscription, after):
                return
            # The cursor is fixed now, so later events are not missed, although the subscriber gets
            # them later.
            subscription.cursor = own.cursor
            await self._read_on(subscription, own)
        finally:
            self._joining -= 1
        task = asyncio.create_task(self._catch_up(subscription, own))
        self._newcomers[subscription] = task
        task.add_done_callback(lambda _: self._newcomers.pop(subscription, None))

    async def _begin(self, subscription: Subscription, after: str | None, last: int) -> None:
        """Start the shared tail with the position of the first subscriber."""
        tail = self._tail_of(after, last, BATCH)
        subscription.cursor = before = tail.cursor
        try:
            items = await tail.poll(0)
        except BaseException:
            end(tail)
            raise
        self._tail = tail
        self._at = before
        self._caught_up = False
        self._subscribers.add(subscription)
        self._publishing = bool(items)
        self._task = asyncio.create_task(self._follow(tail, items, before))

    def leave(self, subscription: Subscription) -> None:
        """Send nothing more to a subscriber."""
        self._subscribers.discard(subscription)
        if (task := self._newcomers.pop(subscription, None)) is not None:
            task.cancel()
        if self.idle:
            self.close()

    def close(self) -> None:
        """End the tails."""
        for task in (self._task, *self._newcomers.values()):
            if task is not None:
                task.cancel()
        if self._tail is not None:
            end(self._tail)
        self._tail = self._task = self._at = None
        self._ring.clear()
        self._ring_bytes = 0

    def _replay(self, subscription: Subscription, after: str) -> bool:
        """Send what came after a cursor, if all of it is kept; return whether it is."""
        if self._tail is None or self._publishing:
            return False
        if after == self.cursor:
            self._subscribers.add(subscription)
            return True
        found = next((n for n, one in enumerate(self._ring) if one.cursor == after), None)
        if found is None:
            return False
        for one in list(self._ring)[found + 1 :]:
            subscription.put(one)
        self._subscribers.add(subscription)
        return True

    def _tail_of(
        self, after: str | None, last: int, batch: int = CHUNK
    ) -> Tail[EncodedEvent | Gap]:
        return self._open_tail(after=after, last=last if after is None else None, batch=batch)

    # -- tasks
    # --------------------------------------------------------------------------

    async def _follow(
        self, tail: Tail[EncodedEvent | Gap], items: list[EncodedEvent | Gap], before: str
    ) -> None:
        """Publish *items*, which the shared tail has already returned, and all that it returns
        later.
        """
        try:
            while True:
                self._looked = asyncio.get_running_loop().time()
                if items:
                    await self._publish(items, before, tail.cursor)
                self._at = before = tail.cursor
                if not items:
                    self._caught_up = True
                    await self._admit(tail)
                    if tail.ended:
                        self._end("shutdown")
                        return
                while True:
                    try:
                        items = await tail.poll(0 if self._waiting else POLL)
                        break
                    except StoreUnavailable:  # it has not answered yet
                        await asyncio.sleep(_AWAY)
        except (InvalidArgument, JobNotFound):  # the job was deleted
            self._end("expired")

    async def _publish(self, items: list[EncodedEvent | Gap], before: str, cursor: str) -> None:
        """Send what a tail returned to all subscribers."""
        self._publishing = True
        for one in frames.of_items(items, before, cursor):
            await self._wait_for_room(one.size)
            self._keep(one)
            for subscription in list(self._subscribers):
                subscription.put(one)
        self._publishing = False

    async def _wait_for_room(self, size: int) -> None:
        """Wait until at least one subscriber has room for a frame.

        Without room, all subscribers would lose lines, because reading would be ahead of all of
        them. A subscriber that is slower than the others loses lines.
        """
        if any(one.room >= size for one in self._subscribers) or not self._subscribers:
            return
        waits = [asyncio.create_task(one.has_room(min(size, _ROOM))) for one in self._subscribers]
        try:
            await asyncio.wait(waits, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _keep(self, one: Frame) -> None:
        self._ring.append(one)
        self._ring_bytes += one.size
        while self._ring_bytes > RING:
            self._ring_bytes -= self._ring.popleft().size

    def _end(self, reason: str) -> None:
        for subscription in [*self._subscribers, *self._newcomers]:
            subscription.end(reason)

    async def _admit(self, shared: Tail[EncodedEvent | Gap]) -> None:
        """Move subscribers to the shared tail if their own tails have returned the same as the
        shared one.

        At this point, nothing from the shared tail is being published.
        """
        for _ in range(len(self._waiting)):
            newcomer = self._waiting.popleft()
            if newcomer.arrived.done():
                continue
            await self._read_on(newcomer.subscription, newcomer.tail)
            met = meets(newcomer.tail, shared)
            if met:
                self._subscribers.add(newcomer.subscription)
            newcomer.arrived.set_result(met)

    async def _read_on(
        self, subscription: Subscription, tail: Tail[Any], *, waits: bool = False
    ) -> bool:
        """Send what a tail returns at once; return whether there was anything."""
        before = tail.cursor
        items = await tail.poll(0)
        for one in frames.of_items(items, before, tail.cursor) if items else ():
            if waits:
                await subscription.has_room(min(one.size, _ROOM))
            subscription.put(one)
        if not (items or subscription.waiting):
            subscription.cursor = tail.cursor
        return bool(items)

    async def _catch_up(self, subscription: Subscription, tail: Tail[Any]) -> None:
        """Read with an own tail until it meets the shared one."""
        try:
            while True:
                try:
                    if await self._read_on(subscription, tail, waits=True):
                        continue
                except StoreUnavailable:
                    await asyncio.sleep(_AWAY)
                    continue
                newcomer = _Newcomer(subscription, tail)
                self._waiting.append(newcomer)
                if self._tail is not None:
                    wake(self._tail)
                try:
                    if await newcomer.arrived:
                        return
                finally:
                    newcomer.arrived.cancel()
        except (InvalidArgument, JobNotFound):
            subscription.end("expired")
        finally:
            end(tail)
