"""One subscriber of a stream: its queue, and the count of lines it lost because it was slow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import replace
from typing import Any

from structjob.web.frames import Frame, frame

MAX_WAITING = 1024 * 1024
"""Maximum number of bytes in a subscriber's queue; beyond it, the oldest lines are dropped."""

_CODES = {"shutdown": 1012, "revoked": 4401}
"""How a WebSocket is closed when a subscription ends for a reason that concerns all of them."""

_OF_THE_LOG = ("lines", "gap", "lag")


class Subscription:
    """A queue of frames between the shared tails and a connection, in one event loop.

    Args:
        transport: ``sse``, ``ws`` or ``poll``.
        shown: What it sends, as it is shown to a client.
        owner: The id of its token; ``None`` without tokens.
    """

    def __init__(self, transport: str, shown: Any, owner: str | None = None) -> None:
        self.transport = transport
        self.shown = shown
        self.owner = owner
        self.since = time.time()
        self.sent = 0
        """Lines that were sent."""
        self.skipped = 0
        """Lines that were dropped because the subscriber was slow."""
        self.cursor: str | None = None
        """The cursor after the last sent frame."""
        self.reason: str | None = None
        """Why it ended."""
        self._waiting: deque[Frame] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    @property
    def room(self) -> int:
        """Number of bytes that can be added without a loss."""
        return MAX_WAITING - self._bytes

    async def has_room(self, size: int) -> None:
        """Wait until *size* bytes may be put without a loss."""
        while self.room < size:
            self._taken.clear()
            await self._taken.wait()

    @property
    def waiting(self) -> bool:
        """Whether frames are in the queue."""
        return bool(self._waiting)

    @property
    def ended(self) -> bool:
        """Whether the subscription has ended and accepts no more frames."""
        return self._ended

    @property
    def close_code(self) -> int | None:
        """How its WebSocket is closed after its end; ``None`` if other subscriptions go on."""
        return _CODES.get(self.reason or "")

    def put(self, one: Frame) -> None:
        """Add a frame; if the queue is too long, drop the oldest lines."""
        if self._ended:
            return
        self._waiting.append(one)
        self._bytes += one.size
        if self._bytes > MAX_WAITING:
            self._skip()
        self._changed.set()

    def end(self, reason: str, retry_ms: int = 1_000) -> None:
        """Send a goodbye frame, and accept no more frames."""
        if not self._ended:
            self.put(frame("bye", {"reason": reason, "retry_ms": retry_ms}))
            self._ended = True
            self.reason = reason
            self._changed.set()

    async def next(self, seconds: float) -> Frame | None:
        """Return the next frame; ``None`` after *seconds* without one, or at the end.

        Args:
            seconds: How long to wait.
        """
        if not self._waiting:
            self._changed.clear()
            if self._ended:
                return None
            # A frame that comes at the moment of the timeout is returned: it may be the last.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        if not self._waiting:
            return None
        one = self._waiting.popleft()
        self._bytes -= one.size
        self._taken.set()
        self.sent += one.lines if one.event == "lines" else 0
        if one.cursor is not None:
            self.cursor = one.cursor
        return one

    def _skip(self) -> None:
        """Drop the oldest lines until half of the queue is free.

        A frame in their place reports the loss.
        """
        kept: deque[Frame] = deque()
        skipped = errors = before = 0
        first: str | None = None
        last: str | None = None
        whole = True
        while self._waiting and (self._bytes > MAX_WAITING // 2 or not whole):
            one = self._waiting.popleft()
            if one.event not in _OF_THE_LOG:
                kept.append(one)
                continue
            self._bytes -= one.size
            skipped += one.lines
            errors += one.errors
            before += one.lines if one.event == "lag" else 0
            first = first or one.before
            last = one.cursor or last
            whole = one.cursor is not None  # frames that belong together are dropped together
        if skipped:
            self.skipped += skipped - before
            data = {"skipped": skipped, "errors": errors, "from": first, "to": last}
            lag = replace(frame("lag", data, last), before=first, lines=skipped, errors=errors)
            kept.append(lag)
            self._bytes += lag.size
        self._waiting.extendleft(reversed(kept))
