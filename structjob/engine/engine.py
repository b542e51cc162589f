"""The engine behind a tracker.

It starts, closes and wakes the tasks that deliver recorded events, and answers the callers that
wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Coroutine
from typing import TYPE_CHECKING, Any

from structjob.diagnostics import diagnostics
from structjob.engine.accounts import Accounts
from structjob.engine.adopted import AdoptedSpools, warn_of_loss
from structjob.engine.claiming import Claiming
from structjob.engine.database import DatabaseLink, permanent
from structjob.engine.delivery import Delivery
from structjob.engine.maintenance import Maintenance
from structjob.engine.pruner import Pruner
from structjob.engine.reentry import Reentry
from structjob.engine.source import Source, Work, waiting
from structjob.engine.waiters import Flush, Waiters
from structjob.engine.writer import Writers
from structjob.exceptions import StoreUnavailable
from structjob.machine.loops import running_loop
from structjob.machine.promise import Promise
from structjob.models import Ledger
from structjob.queries.tail_position import MISSING
from structjob.retention.policy import Retention
from structjob.spool.queue import may_block
from structjob.spool.recorder import Recorder
from structjob.store.contract import Ending
from structjob.store.sessions import CLOSED, LEFT_RUNNING
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore

_RETRY_PAUSE = 0.005
"""Seconds between two attempts of closing to store events that no spool keeps."""

_LAST_TRY = 2.0
"""Seconds that closing waits for an unavailable database to answer."""

_LAST_WAIT = 1.0
"""Seconds that the exit of the interpreter waits for another program's transaction."""

_LOCK_TIMEOUT = 0.1
"""Maximum seconds that closing waits for threads that are recording."""

_NAMED = 3
"""Maximum number of jobs left running, and of their operations, that a warning names."""

_NO_LOOP = (
    "the event loop in which the tracker was opened is closed: what is recorded waits in the spool; close the tracker before its loop, and "
    "open one in each loop"
)


class Engine:
    """Delivers the events that a recorder takes.

    Args:
        recorder: The recorder.
        link: The database link.
        batch_size: Maximum number of events in one transaction.
        flush_interval: Maximum seconds that an event waits before it is sent.
        writers: Number of tasks that write concurrently.
        heartbeat: Seconds between two heartbeats.
        live: The jobs that run, at any moment.
        retention: What is kept, and for how long.
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
        live: Collection[JobCore],
        retention: Retention | None,
    ) -> None:
        self.recorder = recorder
        self.link = link
        self.store = link.store
        self.loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._live = live
        self._own = Source(
            recorder.session, recorder.queues, given=lambda: self.recorder.numbers.given
        )
        self._accounts = Accounts(self._own, recorder)
        places = recorder.places if recorder.delivers else None
        self._adopted = AdoptedSpools(
            recorder.session, places, recorder.root, link, self.flush_soon
        )
        self.claiming = Claiming(link)
        self._reentry = Reentry(link, lambda: iter([self._own, *self._adopted]), live)
        self._maintenance = Maintenance(
            self._own,
            recorder,
            link,
            self._adopted,
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
        self.delivery = Delivery(self._own, self._adopted, link, self._reentry, batch_size)
        self.writers = Writers(
            self._own,
            recorder,
            self.delivery,
            self._accounts,
            self._waiters,
            flush_interval=flush_interval,
            count=min(writers, self.store.writers),
        )
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    # -- start and close
    # --------------------------------------------------------------------------

    async def enter(self, seconds: float) -> StoreUnavailable | None:
        """Enter the session in the database.

        Return the reason if it does not answer within *seconds*.
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
        """Start the delivery."""
        self.recorder.wake = self.writers.wake
        self.recorder.events.room_comes = self.recorder.fallback.room_comes = self._room_comes
        # An empty context: context variables of the opening code must not live as long as the
        # tasks.
        if not self.recorder.delivers:
            self._spawn(self._keep_spool(), "structjob-spool")
            return
        for index in range(self.writers.count):
            self._spawn(self.writers.run(index), f"structjob-writer-{index}")
        self._spawn(self._maintenance.keep(), "structjob-maintenance")
        if self.pruner.wanted:
            self._spawn(self.pruner.keep(), "structjob-pruner")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(contextvars.Context().run(asyncio.create_task, work, name=name))

    async def looked(self) -> None:
        """Wait until the first search for spools to adopt is done."""
        if self.recorder.delivers:
            await self._maintenance.looked()

    async def _keep_spool(self) -> None:
        """Write to the spool what is written later, for a tracker that delivers nothing."""
        while True:
            self._spool_rest()
            self._maintenance.check_spool()
            await asyncio.sleep(self.writers.flush_interval)

    def _spool_rest(self) -> None:
        self.writers.flush_progress()
        self._accounts.record_drops()
        self.recorder.catch_up()

    async def close(self, timeout: float) -> bool:  # noqa: ASYNC109 -- the timeout covers several awaits, and the caller learns what was not done
        """Deliver pending events, end the session and stop, within *timeout* seconds.

        Returns:
            Whether everything is stored, or in the spool if another process delivers it.
        """
        complete, reserve, began = False, min(timeout / 10, 1.0), time.monotonic()
        left = count_of(self._accounts.waiting(), "event", "waits", "wait")
        diagnostics.debug("closing session %d; %s", self.recorder.session.session_id, left)
        if not self.recorder.delivers:
            await self._cancel_tasks(reserve)
            return self.close_without_loop(0.0)
        try:
            self._revive(closing=True)
            with contextlib.suppress(TimeoutError, StoreUnavailable):
                async with asyncio.timeout(timeout - reserve):
                    await self.link.opening()
                    await self._deliver_most()
                    await self.link.once(self._maintenance.take_back_own)
                    self.end_recording()
                    await self._deliver_rest()
                    # claims that cannot be withdrawn are marked as crashed when the session ends
                    with contextlib.suppress(StoreUnavailable):
                        await self.claiming.withdraw()
                    # a heartbeat after its end would make the session look alive
                    await self._cancel_tasks(reserve)
                    await self._end_own()
                    complete = True
        finally:
            self.end_recording()
            self.recorder.wake = lambda: None
            try:
                await self._stop(reserve)
            finally:  # cancelled once more
                self._release(complete)
        diagnostics.debug(
            "closed session %d in %.1f ms, %s stored",
            self.recorder.session.session_id, (time.monotonic() - began) * 1000, "everything" if complete else "not everything",
        )  # fmt: skip
        return complete

    def close_without_loop(self, seconds: float) -> bool:
        """Close the engine when its loop is closed, or when another process delivers.

        Store in the calling thread what can be stored there, and leave the rest to the spool.

        Returns:
            What `close` returns. The process that adopts the spool ends the session.
        """
        self._closing = True
        self._maintenance.stop()  # otherwise heartbeats would say that this session lives
        self.end_recording()
        self.recorder.wake = lambda: None
        self.drain(seconds)
        self._waiters.fail(StoreUnavailable(_NO_LOOP))
        self._release(complete=False)
        left = self.ledger()
        if not self.recorder.delivers:
            return not left.dropped.get("disk_refused")
        return not left.spilled and not left.in_memory

    def end_recording(self) -> None:
        """Record the jobs that still run as cancelled, then take no more events.

        Can be called from any thread. A second call does nothing.
        """
        if self.recorder.closed:
            return
        left = []
        for job in list(self._live):
            # an error in one job must not keep the final state of the next job from being recorded
            with contextlib.suppress(Exception):
                if job.abandon(LEFT_RUNNING):
                    left.append((job.id, job.operation))
        self.recorder.close()
        _warn_of_running(left)

    def without_loop(self) -> StoreUnavailable | None:
        """Return the error to raise if the engine's loop is closed; None while it is open."""
        return StoreUnavailable(_NO_LOOP) if self.loop.is_closed() else None

    async def _deliver_most(self) -> None:
        """Store pending events, unless the database is unavailable.

        If there is no spool and the error is not permanent, retry: the events would be lost
        otherwise.
        """
        while True:
            try:
                return await self._flush_or_ask_again()
            except StoreUnavailable as exc:
                if self.recorder.spool is not None or permanent(exc):
                    return None
            await asyncio.sleep(_RETRY_PAUSE)

    async def _deliver_rest(self) -> None:
        """Store the events that came until the recorder was closed.

        A thread may have taken a number and not have written its event yet.
        """
        while True:
            await self._flush_or_ask_again()
            if (
                self.recorder.quiet()
                and not any(self.recorder.dropped_sources())
                and not waiting(self.recorder.queues())
            ):
                return
            await asyncio.sleep(0.001)

    async def _flush_or_ask_again(self) -> None:
        """Flush; if the database is unavailable, try again once.

        It may have become available since the last attempt.
        """
        try:
            await self.flush().awaited()
        except StoreUnavailable:
            await self.link.try_again(_LAST_TRY)
            await self.flush().awaited()

    async def _stop(self, seconds: float) -> None:
        self._maintenance.stop()
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
        if tasks:  # a driver may ignore the cancellation
            await asyncio.wait(tasks, timeout=seconds)

    async def _end_own(self) -> None:
        source = self._own
        ending = Ending(
            reason=CLOSED,
            last_seq=self.recorder.numbers.given,
            confirmed=source.confirmed,
            absent="interrupted",
            most=self.recorder.broken_off.given,
        )
        ended = await self.link.once(lambda: self.store.end_session(source.session, ending))
        _warn_of_running([(job["id"], job["operation"]) for job in ended.left])
        warn_of_loss(source.session, ended, None)
        # At this point every event is stored, explained by the ending, or lost.
        source.dropped["interrupted" if ended.explained else MISSING] += self._accounts.waiting()

    def _release(self, complete: bool) -> None:
        self._adopted.close()
        for queue in self.recorder.queues():
            queue.closed = True  # a thread that waits for room must not wait longer
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while not self.recorder.quiet():
            if time.monotonic() > deadline:
                # A thread may write its number at any time: the files stay open and locked until
                # the process ends.
                return
            time.sleep(0.0005)
        spool = self.recorder.spool
        if spool is not None:
            if complete:
                spool.remove()
            else:
                self._leave_to_spool()
                spool.close()
        for queue in self.recorder.queues():
            queue.close()

    def _leave_to_spool(self) -> None:
        """Move what was not stored into the spool.

        Do not report as waiting what could not be moved.
        """
        recorder = self.recorder
        for source, states, events in self.delivery.returned:
            if states is not None and states.queue is recorder.fallback_states:
                recorder.fallback_states.give_back(states)
            if events is not None and events.queue is recorder.fallback:
                recorder.fallback.give_back(events)
                source.in_flight -= events.count
        self.delivery.returned.clear()
        if lost := recorder.leave():
            diagnostics.warning(
                "%s lost: the disk refused them until the tracker was closed; make room at %s (structjob_gaps names them)",
                count_of(lost, "event", "is", "are"),
                recorder.root,
            )
        self._accounts.record_drops()

    def _revive(self, *, closing: bool = False) -> None:
        """Restart the tasks if one of them was cancelled, for example by code that cancels every
        task.

        With *closing*, also restart if a task has a cancellation pending.
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
        """Return whether the caller may wait for the writers to make room.

        The thread that runs the writers' loop would wait in vain.
        """
        return may_block() and threading.get_ident() != self._thread and not self.loop.is_closed()

    # -- requests
    # --------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Deliver immediately, without waiting for more events. Can be called from any thread."""
        self.writers.flush_soon()

    def flush(self) -> Promise[None]:
        """Return a promise that is kept when everything recorded so far is stored.

        This includes adopted spools. Can be called from any thread.
        """
        self.writers.flush_progress()
        if running_loop() is self.loop and not self._closing:
            self._revive()
            # for example no free file descriptor: this does not concern a caller that flushes its
            # own events
            with contextlib.suppress(OSError):
                self._adopted.look()
        flush = Flush.of([self._own, *self._adopted])
        if not flush.resolve():
            self._waiters.add_flush(flush)
            self._go_for_it()
        return flush.promise

    def committed(self, state_seq: int) -> Promise[None]:
        """Return a promise that is kept when the change of state *state_seq* is committed.

        It fails while the database is unavailable.
        """
        promise = self._waiters.add_commit(state_seq)
        if state_seq in self._own.states:
            self._waiters.resolve(self._own.states)
        else:
            self._go_for_it()
        return promise

    def _go_for_it(self) -> None:
        # Called after the waiter was added, so that it cannot be missed in between.
        if (refusal := self._refusal()) is not None:
            self._waiters.fail(refusal)
        else:
            self.flush_soon()

    def _refusal(self) -> StoreUnavailable | None:
        """Return why a caller must not wait for the database now, or None if it may wait."""
        if os.getpid() != self._pid:
            return StoreUnavailable(
                "this is a forked process; what it records is stored by its parent: open a tracker here to read, or to wait for it"
            )
        if self._closing:
            return StoreUnavailable("the tracker is closed; what is left waits in the spool")
        return self.without_loop() or self.link.down

    def ledger(self) -> Ledger:
        """Return the ledger of this session's events."""
        return self._accounts.ledger()

    def waiting(self) -> int:
        """Return how many events wait for the database, as far as this process knows."""
        return self._accounts.waiting()

    # -- at the end of the interpreter
    # --------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Deliver pending events in the calling thread, when no loop runs and the tracker was not
        closed.
        """
        # a forked child must not use its parent's connection
        if os.getpid() != self._pid:
            return
        if not self.recorder.delivers:
            self._spool_rest()
            return
        write_now = getattr(self.store, "write_now", None)
        if write_now is None:
            return
        deadline = time.monotonic() + seconds
        kept: list[Work] = []
        with contextlib.suppress(Exception):
            self.writers.flush_progress()
            while (left := deadline - time.monotonic()) > 0:
                self._accounts.record_drops()
                work = self.delivery.next_batch()
                if work is None:
                    break
                kept.append(work)
                source, states, events = work
                if source.entered:
                    write = source.as_write(states, events)
                    source.acknowledge(states, events, write_now(write, min(left, _LAST_WAIT)))
                    kept.pop()
        # what was in memory is left to the spool
        self.delivery.returned.extend(kept)


def _warn_of_running(jobs: list[tuple[str, str]]) -> None:
    """Warn about *jobs*, as id and operation, that a closing tracker leaves; about many in one
    line.
    """
    if len(jobs) > _NAMED:
        counts = Counter(operation for _, operation in jobs).most_common()
        named = ", ".join(f"{operation} ({count:,})" for operation, count in counts[:_NAMED])
        diagnostics.warning(
            "%s still running when their tracker closed; they are recorded as cancelled: %s%s",
            count_of(len(jobs), "job", many="were"), named, ", …" if len(counts) > _NAMED else "",
        )  # fmt: skip
        return
    for id_, operation in jobs:
        diagnostics.warning(
            "job %s (%s) was still running when its tracker closed; it is recorded as cancelled",
            id_, operation,
        )  # fmt: skip
