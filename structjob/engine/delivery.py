"""Delivery: sources are read in turn, and one batch is stored in each transaction."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from structjob.diagnostics import diagnostics
from structjob.engine.adopted import AdoptedSpools
from structjob.engine.database import DatabaseLink
from structjob.engine.reentry import Reentry
from structjob.engine.source import AdoptedSource, Source, Work
from structjob.spool.queue import Batch
from structjob.store.contract import Written
from structjob.text.wording import count_of

_DEBUG = logging.DEBUG

_VERIFIED = 500
"""Maximum number of lines of another process that are verified at once, because this runs on the
loop.
"""


class Delivery:
    """Stores what sources hold.

    Args:
        own: The tracker's own source; None if this process has no session.
        adopted: The adopted spools.
        link: The database link.
        reentry: Enters sessions.
        batch_size: Maximum number of events in one transaction.

    Attributes:
        batch_size: See above.
        adopted: See above.
        on_stored: Called on the loop after each batch that was stored.
        returned: Batches that were read and not stored because their task was cancelled.
    """

    def __init__(
        self,
        own: Source | None,
        adopted: AdoptedSpools,
        link: DatabaseLink,
        reentry: Reentry,
        batch_size: int,
    ) -> None:
        self.adopted = adopted
        self.batch_size = batch_size
        self.on_stored: Callable[[], None] = lambda: None
        self.returned: deque[Work] = deque()
        self._own = own
        self._link = link
        self._reentry = reentry
        self._turn_of = 0

    async def begin(self) -> None:
        """Open the database once it answers, and enter the tracker's own session."""
        await self._link.until_answered(self._enter_own)

    async def _enter_own(self) -> None:
        if self._own is not None:
            await self._reentry.enter(self._own)

    def next_batch(self, *, states: bool = True) -> Work | None:
        """Return a batch that was returned, or else the next batch of any source.

        Sources take turns, so that a busy program also delivers adopted spools. Only one task may
        take changes of state.
        """
        if self.returned:
            return self.returned.popleft()
        own, sources = self._own, list[Source](self.adopted)
        if own is not None:
            sources.insert(0, own)
        for offset in range(len(sources)):
            source = sources[(self._turn_of + offset) % len(sources)]
            most = self.batch_size if source is own else min(self.batch_size, _VERIFIED)
            try:
                changes, events = source.read(most, states=states)
            except OSError as exc:
                if not isinstance(source, AdoptedSource):
                    raise
                self.adopted.abandon(source, exc)
                continue
            if changes is not None or events is not None:
                self._turn_of = (self._turn_of + offset + 1) % len(sources)
                return source, changes, events
        return None

    async def store(self, work: Work) -> None:
        """Store a batch once the database answers."""
        source, states, events = work
        began = time.monotonic()

        async def write() -> Written:
            await self._reentry.enter(source)
            return await self._link.store.write(source.as_write(states, events))

        try:
            written = await (
                self.adopted.attempt(source, write)
                if isinstance(source, AdoptedSource)
                else self._link.until_answered(write)
            )
        except BaseException:
            # For example by code that cancels every task. The queue will not return this batch
            # again.
            self.returned.append(work)
            raise
        if written is not None:
            source.acknowledge(states, events, written)
            if diagnostics.isEnabledFor(_DEBUG):
                self._report(source, events, written, time.monotonic() - began)
            self.on_stored()

    def _report(
        self, source: Source, events: Batch | None, written: Written, seconds: float
    ) -> None:
        stored = count_of(events.count if events is not None else 0, "event")
        changed = count_of(len(written.states), "state record")
        waiting = count_of(self._link.waiting(), "event", "waits", "wait")
        diagnostics.debug(
            "stored %s and %s of session %d in %.1f ms; %s",
            stored,
            changed,
            source.session.session_id,
            seconds * 1000,
            waiting,
        )

    async def end_next(self) -> AdoptedSource | None:
        """End the session of a dead process of which everything is stored, and return its source.

        Return None if there is no such session.
        """
        over = self.adopted.next_over()
        if over is not None:
            await self.adopted.end(over)
        return over
