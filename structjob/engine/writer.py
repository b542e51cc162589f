"""The writers: tasks that decide when to deliver the tracker's events, and how many at once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING

from structjob.diagnostics import diagnostics
from structjob.engine.accounts import Accounts
from structjob.engine.delivery import Delivery
from structjob.engine.source import Source, waiting
from structjob.engine.waiters import Waiters
from structjob.machine.loops import running_loop
from structjob.spool.queue import MemoryQueue
from structjob.spool.recorder import Recorder

if TYPE_CHECKING:
    from structjob.lifecycle.host import Reporting

_LOOK_INTERVAL = 0.005
"""Seconds between two checks of a queue in memory while the writer waits for more events."""


class Writers:
    """Stores pending events: one or more tasks on the loop.

    Only the first one takes changes of state, and ends the sessions of dead processes.

    Args:
        own: The tracker's own source.
        recorder: Its recorder.
        delivery: Reads and stores batches.
        accounts: Its accounts.
        waiters: The callers that wait for a commit.
        flush_interval: Maximum seconds that an event waits before it is sent.
        count: Number of tasks that write concurrently.
    """

    def __init__(
        self,
        own: Source,
        recorder: Recorder,
        delivery: Delivery,
        accounts: Accounts,
        waiters: Waiters,
        *,
        flush_interval: float,
        count: int,
    ) -> None:
        self.flush_interval = flush_interval
        self.count = count
        self._own = own
        self._recorder = recorder
        self._delivery = delivery
        self._accounts = accounts
        self._waiters = waiters
        self._loop = asyncio.get_running_loop()
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
        await self._delivery.begin()
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
        delivery = self._delivery
        if index and not delivery.returned and not self._worth_another():
            return False
        self._accounts.record_drops()
        # only one writer takes changes of state
        work = delivery.next_batch(states=index == 0)
        left = False
        if index == 0:
            self._looked_at = self._loop.time()
            # more than one batch: the rest has waited already
            left = self._own.given() > self._own.accounted()
        if work is not None:
            if index == 0 and self.count > 1 and self._worth_another():
                self._woken.set()
            await delivery.store(work)
        over = await delivery.end_next() if index == 0 else None
        if index and work is not None and work[0] is not self._own:
            # the adopted spool may be finished now, and only the first writer ends it
            self.flush_soon()
        self._waiters.resolve(self._own.states)
        return over is not None or (work is not None and (left or self._worth_another()))

    def _worth_another(self) -> bool:
        """Return whether the backlog justifies a second writer.

        Many small transactions are slower than one large transaction.
        """
        return self._owes_half_a_batch() or bool(self._delivery.adopted)

    def _owes_half_a_batch(self) -> bool:
        return self._own.given() - self._own.accounted() >= self._delivery.batch_size // 2

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
            return self._owes_half_a_batch() and waiting(recorder.queues()[2:])
        return bool(
            (source.given() > source.accounted() and waiting(recorder.queues()[2:]))
            or (
                recorder.state_numbers.given not in source.states and waiting(recorder.queues()[:2])
            )
            or self._held_back
            or any(recorder.dropped_sources())
        )
