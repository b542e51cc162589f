"""The writers: tasks that read the sources in turn and store one batch in each transaction."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from structjob.diagnostics import diagnostics
from structjob.engine.accounts import Accounts
from structjob.engine.adopted import AdoptedSpools
from structjob.engine.database import DatabaseLink
from structjob.engine.reentry import Reentry
from structjob.engine.source import Source, Work, waiting
from structjob.engine.waiters import Waiters
from structjob.machine.loops import running_loop
from structjob.spool.queue import Batch, MemoryQueue
from structjob.spool.recorder import Recorder
from structjob.store.contract import Write, Written
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.lifecycle.host import Reporting

_DEBUG = logging.DEBUG

_VERIFIED = 500
"""Maximum number of lines of another process that are verified at once, because this runs on the
loop.
"""

_LOOK_INTERVAL = 0.005
"""Seconds between two checks of a queue in memory while the writer waits for more events."""


class Writers:
    """Stores pending events: one or more tasks on the loop.

    Only the first one takes changes of state.

    Args:
        own: The tracker's own source.
        recorder: Its recorder.
        link: Its database link.
        adopted: The spools that it has adopted.
        accounts: Its accounts.
        reentry: Enters sessions.
        waiters: The callers that wait for a commit.
        batch_size: Maximum number of events in one transaction.
        flush_interval: Maximum seconds that an event waits before it is sent.
        count: Number of tasks that write concurrently.

    Attributes:
        on_stored: Called on the loop after each batch that was stored.
        returned: Batches that were read and not stored because their writer was cancelled.
    """

    def __init__(
        self,
        own: Source,
        recorder: Recorder,
        link: DatabaseLink,
        adopted: AdoptedSpools,
        accounts: Accounts,
        reentry: Reentry,
        waiters: Waiters,
        *,
        batch_size: int,
        flush_interval: float,
        count: int,
    ) -> None:
        self.flush_interval = flush_interval
        self.count = count
        self.on_stored: Callable[[], None] = _nothing
        self.returned: deque[Work] = deque()
        self._own = own
        self._recorder = recorder
        self._link = link
        self._adopted = adopted
        self._accounts = accounts
        self._reentry = reentry
        self._waiters = waiters
        self._batch_size = batch_size
        self._loop = asyncio.get_running_loop()
        self._turn_of = 0
        self._held_back: set[Reporting] = set()
        self._woken = asyncio.Event()
        self._urgent = False
        self._looked_at = 0.0
        """When the first writer last looked for pending events: those that wait now came later."""

    # -- requests
    # --------------------------------------------------------------------------

    def wake(self) -> None:
        """Wake the writers.

        The recorder calls this when they are idle, from any thread or signal handler.
        """
        self._recorder.idle = False
        # Inside a task the loop is awake, even in a signal handler. Other callers must wake it
        # through its pipe, which costs system calls.
        within = running_loop() is self._loop and asyncio.current_task() is not None
        call_soon = self._loop.call_soon if within else self._loop.call_soon_threadsafe
        # the loop is closed: the next process delivers what is in the spool
        with contextlib.suppress(RuntimeError):
            call_soon(self._woken.set, context=contextvars.Context())

    def flush_soon(self) -> None:
        """Deliver immediately, without waiting for more events. Can be called from any thread."""
        self._urgent = True
        self.wake()

    def hold_back(self, core: Reporting) -> None:
        """Have *core* record its progress at the next turn."""
        self._held_back.add(core)
        if self._recorder.idle:
            self.wake()

    def flush_progress(self) -> None:
        """Record the progress that was held back."""
        with contextlib.suppress(KeyError):  # another thread was faster
            while self._held_back:
                self._held_back.pop().flush_progress()

    # -- delivering
    # --------------------------------------------------------------------------

    async def run(self, index: int) -> None:
        """Deliver until cancelled; *index* is 0 for the first writer."""
        await self._link.until_answered(lambda: self._reentry.enter(self._own))
        while True:
            try:
                if not await self._turn(index):
                    await self._rest(index)
            except asyncio.CancelledError:
                raise
            except Exception:  # noqa: BLE001 -- an internal error must not stop the delivery
                diagnostics.exception("structjob: delivering events failed; it goes on in a second")
                await asyncio.sleep(1.0)

    async def _turn(self, index: int) -> bool:
        """Store one batch of one source and end a finished session.

        Return whether to continue immediately.
        """
        if index and not self.returned and not self._worth_another():
            return False
        self._accounts.record_drops()
        work = self.returned.popleft() if self.returned else self._read(index)
        left = False
        if index == 0:
            self._looked_at = self._loop.time()
            # more than one batch: the rest has waited already
            left = self._recorder.numbers.given > self._own.accounted()
        if work is not None:
            try:
                await self._store(*work)
            except BaseException:
                # For example by code that cancels every task. The queue will not return this batch
                # again.
                self.returned.append(work)
                raise
        over = self._adopted.next_over() if index == 0 else None
        if over is not None:
            await self._adopted.end(over)
        if index and work is not None and work[0] is not self._own:
            # the adopted spool may be finished now, and only the first writer ends it
            self.flush_soon()
        self._waiters.resolve(self._own.states)
        return over is not None or (work is not None and (left or self._worth_another()))

    def _read(self, index: int) -> Work | None:
        """Read a batch of one source.

        Sources take turns, so that a busy program also delivers adopted spools.
        """
        sources = [self._own, *self._adopted]
        for offset in range(len(sources)):
            source = sources[(self._turn_of + offset) % len(sources)]
            most = self._batch_size if source is self._own else min(self._batch_size, _VERIFIED)
            try:
                # only one writer takes changes of state
                states, events = source.read(most, states=index == 0)
            except OSError as exc:
                if source is self._own:
                    raise
                self._adopted.abandon(source, exc)
                continue
            if states is not None or events is not None:
                self._turn_of = (self._turn_of + offset + 1) % len(sources)
                if index == 0 and self.count > 1 and self._worth_another():
                    with contextlib.suppress(RuntimeError):  # the loop is closed: see `drain`
                        self._woken.set()
                return source, states, events
        return None

    def _worth_another(self) -> bool:
        """Return whether the backlog justifies a second writer.

        Many small transactions are slower than one large transaction.
        """
        return (
            self._recorder.numbers.given - self._own.accounted() >= self._batch_size // 2
            or bool(self._adopted)
        )

    async def _store(self, source: Source, states: Batch | None, events: Batch | None) -> None:
        began = time.monotonic()
        if source is self._own:
            written: Written | None = await self._link.until_answered(
                lambda: self._write(source, states, events)
            )
        else:
            written = await self._adopted.attempt(
                source, lambda: self._write(source, states, events)
            )
        if written is not None:
            source.acknowledge(states, events, written)
            if diagnostics.isEnabledFor(_DEBUG):
                took = (time.monotonic() - began) * 1000
                stored, changed = events.count if events is not None else 0, len(written.states)
                diagnostics.debug(
                    "stored %s and %s of session %d in %.1f ms; %s",
                    count_of(stored, "event"), count_of(changed, "state record"), source.session.session_id, took,
                    count_of(self._accounts.waiting(), "event", "waits", "wait"),
                )  # fmt: skip
            self.on_stored()

    async def _write(self, source: Source, states: Batch | None, events: Batch | None) -> Written:
        await self._reentry.enter(source)
        return await self._link.store.write(source.as_write(states, events, self._given(source)))

    def _given(self, source: Source) -> int:
        return self._recorder.numbers.given if source is self._own else 0

    def next_batch(self) -> Work | None:
        """Return a batch that was returned, or else the next batch of any source."""
        return self.returned.popleft() if self.returned else self._read(0)

    def as_write(self, work: Work) -> Write:
        """Return the write for the store that a batch makes."""
        source, states, events = work
        return source.as_write(states, events, self._given(source))

    # -- idling
    # --------------------------------------------------------------------------

    async def _rest(self, index: int) -> None:
        """Wait until there is work, and then a little longer for more events."""
        urgent = False
        if index == 0:
            urgent, self._urgent = self._urgent, False
            # in this order: a caller in another thread adds itself before it sets `_urgent`
            urgent = urgent or bool(self._waiters)
            self.flush_progress()
        self._woken.clear()
        self._recorder.idle = True
        since = self._looked_at
        if not self._has_more(index):
            await self._woken.wait()
            since = self._loop.time()
        else:
            # Only the first writer takes changes of state: another writer must not suppress its
            # wake-up.
            if index == 0:
                self._recorder.idle = False
            await asyncio.sleep(0)
            if urgent or self._worth_another():
                return
        deadline = since + self.flush_interval
        while not self._urgent and self._loop.time() < deadline and not self._crowded():
            with contextlib.suppress(TimeoutError):
                # A queue in memory does not wake the writer for each event, so it is checked at
                # intervals.
                async with asyncio.timeout_at(
                    deadline
                    if self._recorder.spool is not None
                    else min(deadline, self._loop.time() + _LOOK_INTERVAL)
                ):
                    self._woken.clear()
                    await self._woken.wait()

    def _crowded(self) -> bool:
        """Return whether a queue in memory is so full that waiting for more events could lose
        some.
        """
        events = self._recorder.events
        return isinstance(events, MemoryQueue) and len(events) > self._recorder.queue_size // 4

    def _has_more(self, index: int) -> bool:
        """Check again after setting `idle`: an event may have come in between."""
        recorder, source = self._recorder, self._own
        if index:
            # Ignore what the first writer holds. Otherwise this would be true all the time while
            # the database is unavailable.
            return recorder.numbers.given - source.accounted() >= self._batch_size // 2 and waiting(
                recorder.queues()[2:]
            )
        return bool(
            (recorder.numbers.given > source.accounted() and waiting(recorder.queues()[2:]))
            or (
                recorder.state_numbers.given not in source.states and waiting(recorder.queues()[:2])
            )
            or self._held_back
            or any(recorder.dropped_sources())
        )


def _nothing() -> None:
    pass
