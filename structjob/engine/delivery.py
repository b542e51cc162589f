"""The engine behind a tracker: its writers read the feeds in turn and store what they hold, a batch
a transaction.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from structjob.diagnostics import diagnostics
from structjob.engine.accounts import Accounts
from structjob.engine.adopted import AdoptedSpools, warn_of_loss
from structjob.engine.cancelling import LiveJob
from structjob.engine.claiming import Claiming
from structjob.engine.database import DatabaseLink, permanent
from structjob.engine.maintenance import Maintenance
from structjob.engine.pruner import Pruner
from structjob.engine.reentry import Reentry
from structjob.engine.source import Source, Work, waiting
from structjob.engine.waiters import Flush, Waiters
from structjob.exceptions import StoreUnavailable
from structjob.models import Ledger
from structjob.queries.tail_position import MISSING
from structjob.retention.policy import Retention
from structjob.spool.queue import Batch, MemoryQueue, may_block
from structjob.spool.recorder import Recorder
from structjob.store.ingest import Ending, Written
from structjob.store.sessions import CLOSED, LEFT_RUNNING
from structjob.text.wording import count_of

_DEBUG = logging.DEBUG

_VERIFIED = 500
"""Lines of another process that are verified at a time at most: it is done on the loop."""

_GLANCE = 0.005
"""Seconds between two looks at a queue in memory while waiting for company."""

_LAST_TRY = 2.0
"""Seconds that closing waits for a database that was away to answer after all."""

_LAST_WAIT = 1.0
"""Seconds that the end of the interpreter waits for another program's transaction."""

_PARTING = 0.1
"""Seconds that closing waits for threads in the middle of recording, at most."""

_STILL_RUNNING = (
    "job %s (%s) was still running when its tracker closed; it is recorded as cancelled"
)

_NO_LOOP = (
    "the event loop in which the tracker was opened is closed: what is recorded waits in the spool; close the tracker before its loop, and "
    "open one in each loop"
)


class Unsettled(Protocol):
    """A live handle whose progress has changed and is not recorded yet."""

    def settle(self) -> None:
        """Record the progress as it is now."""


class Engine:
    """Delivers what a recorder takes.

    Args:
        recorder: What to deliver.
        link: Where to.
        batch_size: Events of one transaction at most.
        flush_interval: Seconds that an event waits at most before it is on its way.
        writers: Tasks that write at once.
        heartbeat: Seconds between two heartbeats.
        live: The jobs that run, at any moment.
        retention: What is to be kept, and for how long.
    """

    def __init__(
        self,
        recorder: Recorder,
        link: DatabaseLink,
        *,
        batch_size: int,
        flush_interval: float,
        writers: int,
        heartbeat: float,
        live: Collection[LiveJob],
        retention: Retention | None,
    ) -> None:
        self.recorder = recorder
        self.link = link
        self.store = link.store
        self.loop = asyncio.get_running_loop()
        self._batch_size = batch_size
        self._flush_interval = flush_interval
        self._writers = min(writers, self.store.writers)
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._live = live
        self._own = Source(recorder.session, recorder.lanes)
        self._accounts = Accounts(self._own, recorder)
        self._orphans = AdoptedSpools(self._own, recorder, link, self.hurry)
        self.claiming = Claiming(link)
        self._reentry = Reentry(link, lambda: iter([self._own, *self._orphans]), live)
        self._keeper = Maintenance(
            self._own,
            recorder,
            link,
            self._orphans,
            live,
            heartbeat,
            self._accounts,
            self.claiming,
            self._reentry,
        )
        self.pruner = Pruner(recorder.session.session_id, link, retention)
        self._waiters = Waiters()
        link.place = str(recorder.root or "memory")
        link.waiting = self._accounts.waiting
        link.on_down = self._waiters.fail
        link.on_another = self._reentry.begin
        self.on_stored: Callable[[], None] = _nothing
        """Called on the loop after each batch that was stored."""
        self._turn_of = 0
        self._returned: deque[Work] = deque()
        self._unsettled: set[Unsettled] = set()
        self._woken = asyncio.Event()
        self._urgent = False
        self._looked_at = 0.0
        """When the first writer last looked for what waits: what waits now has come since."""
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    # -- life
    # --------------------------------------------------------------------------

    async def enter(self, seconds: float) -> StoreUnavailable | None:
        """Enter the session; return why the database does not answer, if it does not, after some
        *seconds* at most.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._reentry.enter(self._own)
        except StoreUnavailable as exc:
            return exc
        except TimeoutError:
            return StoreUnavailable(
                f"the database {self.store.masked_url} has not answered within {seconds:g} s"
            )
        return None

    def start(self) -> None:
        """Begin to deliver."""
        self.recorder.wake = self._wake
        self.recorder.events.room_comes = self.recorder.fallback.room_comes = self._room_comes
        # An empty context: what is current where a tracker opens must not live as long as its
        # tasks.
        for index in range(self._writers):
            self._spawn(self._deliver(index), f"structjob-writer-{index}")
        self._spawn(self._keeper.keep(), "structjob-keeper")
        if self.pruner.wanted:
            self._spawn(self.pruner.keep(), "structjob-pruner")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(contextvars.Context().run(asyncio.create_task, work, name=name))

    async def looked(self) -> None:
        """Wait until the first look for orphans is done."""
        await self._keeper.looked()

    async def close(self, timeout: float) -> bool:  # noqa: ASYNC109 -- the timeout covers several awaits, and what was not done is told
        """Deliver what is there, end the session, and stop; within *timeout* seconds. Return
        whether everything is stored.
        """
        complete, parting, began = False, min(timeout / 10, 1.0), time.monotonic()
        left = count_of(self._accounts.waiting(), "event", "waits", "wait")
        diagnostics.debug("closing session %d; %s", self.recorder.session.session_id, left)
        try:
            self._revive(closing=True)
            with contextlib.suppress(TimeoutError, StoreUnavailable):
                async with asyncio.timeout(timeout - parting):
                    await self.link.opening()
                    await self._deliver_most()
                    await self.link.once(self._keeper.take_back_own)
                    self.end_recording()
                    await self._deliver_rest()
                    # what cannot be taken back has crashed when the session ends
                    with contextlib.suppress(StoreUnavailable):
                        await self.claiming.settle()
                    # a heartbeat after its end would make the session look alive
                    await self._cancel_tasks(parting)
                    await self._end_own()
                    complete = True
        finally:
            self.end_recording()
            self.recorder.wake = _nothing
            try:
                await self._stop(parting)
            finally:  # cancelled once more
                self._let_go(complete)
        diagnostics.debug(
            "closed session %d in %.1f ms, %s stored",
            self.recorder.session.session_id, (time.monotonic() - began) * 1000, "everything" if complete else "not everything",
        )  # fmt: skip
        return complete

    def close_without_loop(self, seconds: float) -> bool:
        """Close where the loop is closed: store, in the calling thread, what can be stored so, and
        leave the rest to the spool.

        Returns:
            Whether everything is stored; the session is ended by whoever adopts the spool.
        """
        self._closing = True
        self._keeper.stop()  # nobody must go on to say that this session lives
        self.end_recording()
        self.recorder.wake = _nothing
        self.drain(seconds)
        self._waiters.fail(StoreUnavailable(_NO_LOOP))
        self._let_go(complete=False)
        left = self.ledger()
        return not left.spilled and not left.in_memory

    def end_recording(self) -> None:
        """Record the jobs that still run as cancelled, then take no more events. From any thread; a
        second call does nothing.
        """
        if self.recorder.closed:
            return
        for job in list(self._live):
            # a fault in one job must not keep the final state of the next from the record
            with contextlib.suppress(Exception):
                if job.abandon(LEFT_RUNNING):
                    diagnostics.warning(_STILL_RUNNING, job.id, job.operation)
        self.recorder.close()

    def without_loop(self) -> StoreUnavailable | None:
        """Return what to say where the loop is closed that everything here runs on; None while it
        is not.
        """
        return StoreUnavailable(_NO_LOOP) if self.loop.is_closed() else None

    async def _deliver_most(self) -> None:
        """Store what is there, unless the database is away; then, too, if it would be lost
        otherwise and may come back any moment.
        """
        while True:
            try:
                return await self._flush_or_ask_again()
            except StoreUnavailable as exc:
                if self.recorder.spool is not None or permanent(exc):
                    return None
            await asyncio.sleep(_GLANCE)

    async def _deliver_rest(self) -> None:
        """Store what came until the recorder was closed; a thread may have its number and not have
        written yet.
        """
        while True:
            await self._flush_or_ask_again()
            if (
                self.recorder.quiet()
                and not any(self.recorder.dropped_sources())
                and not waiting(self.recorder.lanes())
            ):
                return
            await asyncio.sleep(0.001)

    async def _flush_or_ask_again(self) -> None:
        """Flush; once more if the database is away, for it may have come back while
        nobody looked.
        """
        try:
            await asyncio.wrap_future(self.flush())
        except StoreUnavailable:
            await self.link.try_again(_LAST_TRY)
            await asyncio.wrap_future(self.flush())

    async def _stop(self, seconds: float) -> None:
        self._keeper.stop()
        await self._cancel_tasks(seconds)
        self._waiters.fail(
            StoreUnavailable(
                "the tracker was closed before everything was stored; what is left waits in the spool"
            )
        )

    async def _cancel_tasks(self, seconds: float) -> None:
        self._closing = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:  # a driver may not let itself be cancelled
            await asyncio.wait(tasks, timeout=seconds)

    async def _end_own(self) -> None:
        feed = self._own
        ending = Ending(
            reason=CLOSED,
            last_seq=self.recorder.numbers.given,
            confirmed=feed.confirmed,
            absent="interrupted",
            most=self.recorder.broken_off,
        )
        ended = await self.link.once(lambda: self.store.end_session(feed.session, ending))
        for job in ended.left:
            diagnostics.warning(_STILL_RUNNING, job["id"], job["operation"])
        warn_of_loss(feed.session, ended, None)
        # All is stored, or has just been explained, or is lost.
        feed.dropped["interrupted" if ended.explained else MISSING] += self._accounts.waiting()

    def _let_go(self, complete: bool) -> None:
        self._orphans.close()
        for lane in self.recorder.lanes():
            lane.closed = True  # a thread that waits for room has waited long enough
        deadline = time.monotonic() + _PARTING
        while not self.recorder.quiet():
            if time.monotonic() > deadline:
                # Its number may be written any time: the files stay open and locked until the
                # process ends.
                return
            time.sleep(0.0005)
        spool = self.recorder.spool
        if spool is not None:
            if complete:
                spool.remove()
            else:
                self._leave_to_spool()
                spool.close()
        for lane in self.recorder.lanes():
            lane.close()

    def _leave_to_spool(self) -> None:
        """See that what was not stored is in the spool, and that what is not is no longer said to
        wait there.
        """
        recorder = self.recorder
        for feed, states, events in self._returned:
            if states is not None and states.lane is recorder.fallback_states:
                recorder.fallback_states.give_back(states)
            if events is not None and events.lane is recorder.fallback:
                recorder.fallback.give_back(events)
                feed.in_flight -= events.count
        self._returned.clear()
        if lost := recorder.leave():
            diagnostics.warning(
                "%s lost: the disk refused them until the tracker was closed; make room at %s (structjob_gaps names them)",
                count_of(lost, "event", "is", "are"),
                recorder.root,
            )
        self._accounts.settle()

    def _revive(self, *, closing: bool = False) -> None:
        """Begin anew where somebody cancelled every task, ours among them; when *closing*, those
        too that do not know of it yet.
        """
        if (
            self._tasks
            and not self._closing
            and any(task.done() or (closing and task.cancelling()) for task in self._tasks)
        ):
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            self.start()

    def _room_comes(self) -> bool:
        """Return whether the caller may wait for the writers to make room: whoever would have to
        run their loop waits in vain.
        """
        return may_block() and threading.get_ident() != self._thread and not self.loop.is_closed()

    # -- being asked
    # --------------------------------------------------------------------------

    def _wake(self) -> None:
        """Called by the recorder from anywhere, a signal handler too, when the writers are idle."""
        self.recorder.idle = False
        # Within a task the loop is awake, whoever interrupts it: the pipe that wakes it, with its
        # system calls, is for all others.
        within = asyncio._get_running_loop() is self.loop and asyncio.current_task() is not None
        call_soon = self.loop.call_soon if within else self.loop.call_soon_threadsafe
        # the loop is closed: what is in the spool is the next process's
        with contextlib.suppress(RuntimeError):
            call_soon(self._woken.set, context=contextvars.Context())

    def hurry(self) -> None:
        """Deliver at once, without waiting for company. From any thread."""
        self._urgent = True
        self._wake()

    def flush(self) -> concurrent.futures.Future[None]:
        """Return a future that is done when everything recorded so far is stored, adopted spools
        included. From any thread.
        """
        self.settle()
        if asyncio._get_running_loop() is self.loop and not self._closing:
            self._revive()
            # no descriptor is left, say: nobody who asks for his own needs to hear of it
            with contextlib.suppress(OSError):
                self._orphans.look()
        flush = Flush.of([self._own, *self._orphans])
        if not flush.settle():
            self._waiters.add_flush(flush)
            self._go_for_it()
        return flush.future

    def committed(self, state_seq: int) -> concurrent.futures.Future[None]:
        """Return a future that is done when the change of state *state_seq* is committed, or fails
        while the database is away.
        """
        future = self._waiters.add_commit(state_seq)
        if state_seq in self._own.states:
            self._waiters.settle(self._own.states)
        else:
            self._go_for_it()
        return future

    def _go_for_it(self) -> None:
        # After whoever waits was added: it cannot be missed in between.
        if (refusal := self._refusal()) is not None:
            self._waiters.fail(refusal)
        else:
            self.hurry()

    def _refusal(self) -> StoreUnavailable | None:
        """Return why nobody should wait for the database now."""
        if os.getpid() != self._pid:
            return StoreUnavailable(
                "this is a forked process; what it records is stored by its parent: open a tracker here to read, or to wait for it"
            )
        if self._closing:
            return StoreUnavailable("the tracker is closed; what is left waits in the spool")
        return self.without_loop() or self.link.down

    def unsettled(self, handle: Unsettled) -> None:
        """Let *handle* record its progress at the next turn."""
        self._unsettled.add(handle)
        if self.recorder.idle:
            self._wake()

    def settle(self) -> None:
        """Record the progress that was held back."""
        with contextlib.suppress(KeyError):  # another thread was faster
            while self._unsettled:
                self._unsettled.pop().settle()

    def ledger(self) -> Ledger:
        """Return what became of this session's events."""
        return self._accounts.ledger()

    # -- delivering
    # --------------------------------------------------------------------------

    async def _deliver(self, index: int) -> None:
        await self.link.insist(lambda: self._reentry.enter(self._own))
        while True:
            try:
                if not await self._turn(index):
                    await self._rest(index)
            except asyncio.CancelledError:
                raise
            except Exception:  # noqa: BLE001 -- a fault of ours must not end the delivery
                diagnostics.exception("structjob: delivering events failed; it goes on in a second")
                await asyncio.sleep(1.0)

    async def _turn(self, index: int) -> bool:
        """Store one batch of one feed, and end a session that is over; return whether the next turn
        is due at once.
        """
        if index and not self._returned and not self._worth_another():
            return False
        self._accounts.settle()
        work = self._returned.popleft() if self._returned else self._read(index)
        left = False
        if index == 0:
            self._looked_at = self.loop.time()
            # more than one batch: it has waited already
            left = self.recorder.numbers.given > self._own.settled()
        if work is not None:
            try:
                await self._store(*work)
            except BaseException:
                # Cancelled by whoever cancels every task. The lane will not give it out again.
                self._returned.append(work)
                raise
        over = self._orphans.next_over() if index == 0 else None
        if over is not None:
            await self._orphans.end(over)
        if index and work is not None and work[0] is not self._own:
            self.hurry()  # an orphan may be over now, and the first writer ends it
        self._waiters.settle(self._own.states)
        return over is not None or (work is not None and (left or self._worth_another()))

    def _read(self, index: int) -> Work | None:
        """Read a batch of one feed; each has its turn, so that a busy program delivers its
        predecessor's events too.
        """
        feeds = [self._own, *self._orphans]
        for offset in range(len(feeds)):
            feed = feeds[(self._turn_of + offset) % len(feeds)]
            most = self._batch_size if feed is self._own else min(self._batch_size, _VERIFIED)
            try:
                # changes of state go through one writer
                states, events = feed.read(most, states=index == 0)
            except OSError as exc:
                if feed is self._own:
                    raise
                self._orphans.abandon(feed, exc)
                continue
            if states is not None or events is not None:
                self._turn_of = (self._turn_of + offset + 1) % len(feeds)
                if index == 0 and self._writers > 1 and self._worth_another():
                    with contextlib.suppress(RuntimeError):  # the loop is closed: see `drain`
                        self._woken.set()
                return feed, states, events
        return None

    def _worth_another(self) -> bool:
        """Return whether so much waits that more than the first writer shall take of it: small
        transactions are dear.
        """
        return self.recorder.numbers.given - self._own.settled() >= self._batch_size // 2 or bool(
            self._orphans
        )

    async def _store(self, feed: Source, states: Batch | None, events: Batch | None) -> None:
        began = time.monotonic()
        if feed is self._own:
            written: Written | None = await self.link.insist(
                lambda: self._write(feed, states, events)
            )
        else:
            written = await self._orphans.attempt(feed, lambda: self._write(feed, states, events))
        if written is not None:
            feed.acknowledge(states, events, written)
            if diagnostics.isEnabledFor(_DEBUG):
                took = (time.monotonic() - began) * 1000
                stored, changed = events.count if events is not None else 0, len(written.states)
                diagnostics.debug(
                    "stored %s and %s of session %d in %.1f ms; %s",
                    count_of(stored, "event"), count_of(changed, "state record"), feed.session.session_id, took,
                    count_of(self._accounts.waiting(), "event", "waits", "wait"),
                )  # fmt: skip
            self.on_stored()

    async def _write(self, feed: Source, states: Batch | None, events: Batch | None) -> Written:
        await self._reentry.enter(feed)
        return await self.store.write(feed.as_write(states, events, self._given(feed)))

    def _given(self, feed: Source) -> int:
        return self.recorder.numbers.given if feed is self._own else 0

    # -- idling
    # --------------------------------------------------------------------------

    async def _rest(self, index: int) -> None:
        """Wait until there is something to do, and a little longer for company."""
        urgent = False
        if index == 0:
            urgent, self._urgent = self._urgent, False
            # in this order: whoever hurries from another thread has been added before
            urgent = urgent or bool(self._waiters)
            self.settle()
        self._woken.clear()
        self.recorder.idle = True
        since = self._looked_at
        if not self._has_more(index):
            await self._woken.wait()
            since = self.loop.time()
        else:
            # who alone takes changes of state: the other must not silence what would wake him
            if index == 0:
                self.recorder.idle = False
            await asyncio.sleep(0)
            if urgent or self._worth_another():
                return
        deadline = since + self._flush_interval
        while not self._urgent and self.loop.time() < deadline and not self._crowded():
            with contextlib.suppress(TimeoutError):
                # A queue in memory fills without a word, so it is looked at in between.
                async with asyncio.timeout_at(
                    deadline
                    if self.recorder.spool is not None
                    else min(deadline, self.loop.time() + _GLANCE)
                ):
                    self._woken.clear()
                    await self._woken.wait()

    def _crowded(self) -> bool:
        """Return whether a queue in memory is so full that waiting for company would cost
        events.
        """
        events = self.recorder.events
        return isinstance(events, MemoryQueue) and len(events) > self.recorder.queue_size // 4

    def _has_more(self, index: int) -> bool:
        """Look once more after having said that we are idle: something may have come in between."""
        recorder, feed = self.recorder, self._own
        if index:
            # Not for what the first writer has in hand, or this would be asked all the time while
            # the database is away.
            return recorder.numbers.given - feed.settled() >= self._batch_size // 2 and waiting(
                recorder.lanes()[2:]
            )
        return bool(
            (recorder.numbers.given > feed.settled() and waiting(recorder.lanes()[2:]))
            or (recorder.state_numbers.given not in feed.states and waiting(recorder.lanes()[:2]))
            or self._unsettled
            or any(recorder.dropped_sources())
        )

    # -- at the end of the interpreter
    # --------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Deliver in the calling thread what waits, where no loop runs any more and nobody closed
        the tracker.
        """
        write_now = getattr(self.store, "write_now", None)
        # a forked child must not touch its parent's connection
        if write_now is None or os.getpid() != self._pid:
            return
        deadline = time.monotonic() + seconds
        with contextlib.suppress(Exception):
            self.settle()
            while (left := deadline - time.monotonic()) > 0:
                self._accounts.settle()
                work = self._returned.popleft() if self._returned else self._read(0)
                if work is None:
                    return
                feed, states, events = work
                if feed.entered:
                    write = feed.as_write(states, events, self._given(feed))
                    feed.acknowledge(states, events, write_now(write, min(left, _LAST_WAIT)))


def _nothing() -> None:
    pass
