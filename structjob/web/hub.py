"""All live streams of one application: what they send, their limits, and how they end."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from structjob.filter_checks import values_of
from structjob.filters import LogFilter
from structjob.web.problems import Refused
from structjob.web.shared_tail import SharedTail
from structjob.web.subscription import Subscription
from structjob.web.watch import Watch

if TYPE_CHECKING:
    from structjob.web.source import Source

MAX_STREAMS = 2_000
"""Maximum number of open streams."""

MAX_OF_OWNER = 50
"""Maximum number of open streams per token."""

RETRY_AFTER = 10
"""Seconds after which a refused client may try again."""

_LOOK = 0.5
"""Seconds between two checks whether tokens were revoked or the server is shutting down."""

CHANNELS = ("logs", "tree", "jobs", "sessions")


class Selection(msgspec.Struct, frozen=True):
    """What a stream sends.

    Args:
        channels: Some of `CHANNELS`.
        wanted: The filter of the channel ``logs``.
        job: The job of the channel ``tree``.
        after: The cursor after which to continue.
        last: Without a cursor, how many stored lines to send first.
        shown: The same as the client requested it.
    """

    channels: tuple[str, ...]
    wanted: LogFilter
    job: str | None = None
    after: str | None = None
    last: int = 0
    shown: Any = None


class Hub:
    """The streams of one application, in one event loop.

    Args:
        source: The source to read.
        knows: Returns whether the token with an id is still valid.
    """

    def __init__(self, source: Source, knows: Callable[[str], bool]) -> None:
        self._source = source
        self._knows = knows
        self._tails: dict[str, SharedTail] = {}
        self._watches: dict[tuple[str, str | None], Watch] = {}
        self._joined: dict[Subscription, list[SharedTail | Watch]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def subscriptions(self) -> list[Subscription]:
        """All open subscriptions."""
        return list(self._joined)

    @property
    def tails(self) -> int:
        """How many filters are followed."""
        return len(self._tails)

    async def open(
        self, transport: str, selection: Selection, owner: str | None = None
    ) -> Subscription:
        """Return a new subscription; `leave` ends it.

        Args:
            transport: How it is sent.
            selection: What it sends.
            owner: The id of the token that it belongs to.

        Raises:
            Refused: with 401, if the token is no longer valid; with 429, if there are too many;
                with 503, if the server is shutting down.
            JobNotFound: if a job of the selection does not exist.
            InvalidFilter: if the cursor belongs to another filter.
            StoreUnavailable: if the database does not answer.
        """
        self._check_number(owner)
        await self._source.open()
        for any_id in {*values_of(selection.wanted.job), *filter(None, (selection.job,))}:
            await self._source.reader.jobs.find(any_id)
        subscription = Subscription(transport, selection.shown, owner)
        joined: list[SharedTail | Watch] = []
        if "logs" in selection.channels:
            key = repr(selection.wanted)
            open_tail = partial(self._source.tail, selection.wanted)
            tail = self._tails.setdefault(key, SharedTail(open_tail))
            try:
                await tail.join(subscription, selection.after, selection.last)
            except BaseException:
                self._forget_idle()
                raise
            joined.append(tail)
        for channel in selection.channels:
            if channel == "logs":
                continue
            of = (channel, selection.job if channel == "tree" else None)
            watch = self._watches.get(of) or self._watches.setdefault(of, Watch(self._source, *of))
            watch.join(subscription)
            joined.append(watch)
        self._joined[subscription] = joined
        if self._closed:
            subscription.end("shutdown")
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._end_in_time())
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription whose connection has ended."""
        for one in self._joined.pop(subscription, ()):
            one.leave(subscription)
        self._forget_idle()
        if not self._joined and self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def cursor_of(self, subscription: Subscription) -> str | None:
        """Return the position up to which a subscription with an empty queue has received the
        log.
        """
        for one in self._joined.get(subscription, ()):
            if isinstance(one, SharedTail):
                return one.cursor_of(subscription)
        return None

    def behind_ms(self, subscription: Subscription) -> int:
        """Return the milliseconds since the last read of its log."""
        tails = [one for one in self._joined.get(subscription, ()) if isinstance(one, SharedTail)]
        return max((tail.behind_ms for tail in tails), default=0)

    def close(self) -> None:
        """End all streams with a goodbye frame, and accept no new ones."""
        self._closed = True
        for subscription in self._joined:
            subscription.end("shutdown")

    def _forget_idle(self) -> None:
        for tail in self._tails.values():
            if tail.idle:
                tail.close()
        self._tails = {key: tail for key, tail in self._tails.items() if not tail.idle}
        self._watches = {key: watch for key, watch in self._watches.items() if not watch.idle}

    def _check_number(self, owner: str | None) -> None:
        headers = {"Retry-After": str(RETRY_AFTER)}
        if owner is not None and not self._knows(owner):
            raise Refused(401, "the token was revoked, or has expired")
        if self._closed:
            raise Refused(503, "the server ends; connect again", headers=headers)
        if len(self._joined) >= MAX_STREAMS:
            raise Refused(
                429, f"there are {MAX_STREAMS:,} streams, which is the maximum", headers=headers
            )
        if owner is not None and Counter(one.owner for one in self._joined)[owner] >= MAX_OF_OWNER:
            raise Refused(
                429,
                f"this token has {MAX_OF_OWNER} streams, which is the maximum: close some",
                headers=headers,
            )

    async def _end_in_time(self) -> None:
        """End the streams of tokens that were revoked or have expired.

        When the server of this process shuts down, end all streams: uvicorn waits for them, but
        does not notify them.
        """
        while True:
            await asyncio.sleep(_LOOK)
            owners = {one.owner for one in self._joined if one.owner is not None}
            gone = {owner for owner in owners if not self._knows(owner)}
            for one in self._joined:
                if one.owner in gone:
                    one.end("revoked")
            server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
            if getattr(server, "should_exit", False) is True:
                self.close()
                return
