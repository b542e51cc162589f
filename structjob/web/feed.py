"""One tail for all subscribers of one filter: each line is read and encoded once.

Who begins, or comes back, reads by a tail of its own until that has returned exactly what the
shared one has; then it goes over. So everyone gets each line once, and a hundred pages that show
the same cost one query a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from structjob.exceptions import InvalidArgument, JobNotFound, StoreUnavailable
from structjob.filters import LogFilter
from structjob.web import frames
from structjob.web.frames import Frame
from structjob.web.subscription import Subscription

if TYPE_CHECKING:
    from structjob.models import EventRecord, Gap
    from structjob.queries.tail import Tail
    from structjob.web.source import Source

POLL = 1.0
"""Seconds between two looks while nothing is logged."""

RING = 1024 * 1024
"""Bytes of what was sent last that are kept, for those who come back."""

_AWAY = 2.0
"""Seconds between two looks for a database that does not answer."""

_ROOM = 512 * 1024
"""Bytes of room that a subscriber must have before its own tail reads on: alone, it waits."""


@dataclass(slots=True)
class _Newcomer:
    """A subscriber that reads by a tail of its own."""

    subscription: Subscription
    tail: Tail[Any]
    arrived: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Feed:
    """The shared tail of one filter.

    Args:
        source: What is read.
        wanted: Which events.
    """

    def __init__(self, source: Source, wanted: LogFilter) -> None:
        self._source = source
        self._wanted = wanted
        self._tail: Tail[EventRecord | Gap] | None = None
        self._subscribers: set[Subscription] = set()
        self._newcomers: dict[Subscription, asyncio.Task[None]] = {}
        self._joining = 0
        self._waiting: deque[_Newcomer] = deque()
        self._task: asyncio.Task[None] | None = None
        self._ring: deque[Frame] = deque()
        self._ring_bytes = 0
        self._looked = 0.0

    @property
    def idle(self) -> bool:
        """Whether there are no subscribers."""
        return not (self._subscribers or self._newcomers or self._joining)

    @property
    def cursor(self) -> str | None:
        """Where the shared tail is."""
        return None if self._tail is None else self._tail.cursor

    @property
    def behind_ms(self) -> int:
        """Milliseconds since the log was looked at last."""
        if not self._looked:
            return 0
        return round(1000 * (asyncio.get_running_loop().time() - self._looked))

    def cursor_of(self, subscription: Subscription) -> str | None:
        """Return where the log goes on for a subscriber for which nothing waits."""
        return self.cursor if subscription in self._subscribers else subscription.cursor

    async def join(self, subscription: Subscription, after: str | None, last: int) -> None:
        """Send the log to a subscriber from now on.

        Args:
            subscription: To whom.
            after: The cursor to go on after.
            last: Without it, how many stored lines to begin with.

        Raises:
            InvalidFilter: if the cursor belongs to another filter.
            StoreUnavailable: if the database does not answer.
        """
        if after is None and last == 0 and self._looked:
            self._subscribers.add(subscription)
            return
        own = self._tail_of(after, last)
        if after is not None and self._replay(subscription, after):
            return
        if self._tail is None:
            self._tail = self._tail_of(None, 0)
            self._task = asyncio.create_task(self._follow(self._tail))
        subscription.cursor = own.cursor
        # What is logged from now on is seen, though the subscriber hears of it only later.
        self._joining += 1
        try:
            await self._read_on(subscription, own)
        finally:
            self._joining -= 1
        task = asyncio.create_task(self._catch_up(subscription, own))
        self._newcomers[subscription] = task
        task.add_done_callback(lambda _: self._newcomers.pop(subscription, None))

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
            self._tail.end()
        self._tail = self._task = None
        self._ring.clear()
        self._ring_bytes = 0

    def _replay(self, subscription: Subscription, after: str) -> bool:
        """Send what came after a cursor, if all of it is kept; return whether it is."""
        if self._tail is None:
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

    def _tail_of(self, after: str | None, last: int) -> Tail[EventRecord | Gap]:
        if after is not None:
            return self._source.tail(self._wanted, after=after)
        return self._source.tail(self._wanted, last=last)

    # -- tasks
    # --------------------------------------------------------------------------

    async def _follow(self, tail: Tail[EventRecord | Gap]) -> None:
        """Publish what the shared tail returns."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                before = tail.cursor
                try:
                    items = await tail.poll(0 if self._waiting else POLL)
                except StoreUnavailable:  # it has not answered yet
                    await asyncio.sleep(_AWAY)
                    continue
                self._looked = loop.time()
                for one in frames.of_items(items, before, tail.cursor) if items else ():
                    self._keep(one)
                    for subscription in list(self._subscribers):
                        subscription.put(one)
                if not items:
                    await self._admit(tail)
                    if tail.ended:
                        self._end("shutdown")
                        return
        except (InvalidArgument, JobNotFound):  # the job was deleted
            self._end("expired")

    def _keep(self, one: Frame) -> None:
        self._ring.append(one)
        self._ring_bytes += one.size
        while self._ring_bytes > RING:
            self._ring_bytes -= self._ring.popleft().size

    def _end(self, reason: str) -> None:
        for subscription in [*self._subscribers, *self._newcomers]:
            subscription.end(reason)

    async def _admit(self, shared: Tail[EventRecord | Gap]) -> None:
        """Let those go over whose own tails have returned what the shared one has; nothing of it
        is under way.
        """
        for _ in range(len(self._waiting)):
            newcomer = self._waiting.popleft()
            if newcomer.arrived.done():
                continue
            await self._read_on(newcomer.subscription, newcomer.tail)
            met = newcomer.tail.meets(shared)
            if met:
                self._subscribers.add(newcomer.subscription)
            newcomer.arrived.set_result(met)

    async def _read_on(self, subscription: Subscription, tail: Tail[Any]) -> bool:
        """Send what a tail returns at once; return whether there was anything."""
        before = tail.cursor
        items = await tail.poll(0)
        for one in frames.of_items(items, before, tail.cursor) if items else ():
            subscription.put(one)
        if not (items or subscription.waiting):
            subscription.cursor = tail.cursor
        return bool(items)

    async def _catch_up(self, subscription: Subscription, tail: Tail[Any]) -> None:
        """Read alone until the shared tail is met."""
        try:
            while True:
                await subscription.has_room(_ROOM)
                try:
                    if await self._read_on(subscription, tail):
                        continue
                except StoreUnavailable:
                    await asyncio.sleep(_AWAY)
                    continue
                newcomer = _Newcomer(subscription, tail)
                self._waiting.append(newcomer)
                if self._tail is not None:
                    self._tail.wake()
                try:
                    if await newcomer.arrived:
                        return
                finally:
                    newcomer.arrived.cancel()
        except (InvalidArgument, JobNotFound):
            subscription.end("expired")
        finally:
            tail.end()
