"""Maintenance: heartbeats, adoption of spools, reaping of dead sessions, and cancel requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from structjob.capture.processors import check_setup
from structjob.diagnostics import diagnostics
from structjob.engine.accounts import Accounts
from structjob.engine.adopted import AdoptedSpools
from structjob.engine.cancelling import Canceller
from structjob.engine.claiming import Claiming
from structjob.engine.database import DatabaseLink
from structjob.engine.reaper import Reaper
from structjob.engine.reentry import Reentry
from structjob.engine.source import Source
from structjob.engine.watchdog import Watchdog
from structjob.exceptions import StoreUnavailable, StructjobError
from structjob.spool.recorder import Recorder
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore

LOOK_EVERY = 2.0
"""Seconds between searches for spools to adopt."""

TICK = 1.0
"""Seconds between queries for requests to cancel a job."""

_CLAIMS = 100
"""Maximum number of claims without an answer that are looked for in one turn. There may be many
after a long outage, and heartbeats must not be delayed.
"""

_REPORTED = 20
"""Maximum number of different errors that are logged."""

_APART = 10.0
"""Maximum seconds that the watchdog tries to reach a server."""


_MARKS = (0.95, 0.5)
"""Fill levels of the queue at which a warning is logged: nearly full, and half full."""

_EMPTY_AGAIN = 0.25
"""The warning can be repeated after the fill level was below this."""


class Maintenance:
    """Maintains the tracker's own session and the sessions whose spools it has adopted.

    Args:
        own: The tracker's own source.
        recorder: Its recorder.
        link: Its database link.
        adopted: The spools that it has adopted.
        live: The jobs that run at the moment.
        heartbeat: Seconds between two heartbeats.
        accounts: Counts dropped events regularly; while the database is unavailable only
            maintenance calls it.
        claiming: Withdraws claims whose answer was lost.
        reentry: Sends the heartbeats, and enters sessions again.
    """

    def __init__(
        self,
        own: Source,
        recorder: Recorder,
        link: DatabaseLink,
        adopted: AdoptedSpools,
        live: Collection[JobCore],
        heartbeat: float,
        accounts: Accounts,
        claiming: Claiming,
        reentry: Reentry,
    ) -> None:
        self._own = own
        self._recorder = recorder
        self._link = link
        self._adopted = adopted
        self._heartbeat = heartbeat
        self._accounts = accounts
        self._claiming = claiming
        self._reentry = reentry
        self._reaper = Reaper(own, recorder.root, link, adopted, heartbeat, reentry.restate)
        self._canceller = Canceller(own.session.session_id, link, live)
        self._watchdog = Watchdog(self._beat_apart, heartbeat)
        self._reported: set[tuple[type[Exception], str]] = set()
        self._looked = asyncio.Event()
        self._filled = 0.0
        self._orphans_at = self._beat_at = -float("inf")

    async def looked(self) -> None:
        """Wait until the first search for spools to adopt is done."""
        await self._looked.wait()

    async def keep(self) -> None:
        """Run until cancelled."""
        self._watchdog.start()
        while True:
            self._watchdog.feed()
            now = time.monotonic()
            if now - self._orphans_at >= LOOK_EVERY:
                self._orphans_at = now
                await self._try(self._look)
                self._looked.set()
            if now - self._beat_at >= self._heartbeat:
                self._beat_at = now
                await self._try(self._beat)
            await self._try(self._canceller.look)
            await self._try(lambda: self._claiming.withdraw(_CLAIMS))
            await asyncio.sleep(min(TICK, self._heartbeat))

    async def _try(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            with suppress(StoreUnavailable):  # the writers report it
                await look()
        except Exception as exc:  # noqa: BLE001 -- an internal error must not stop the heartbeat
            kind = (type(exc), str(exc))
            if kind in self._reported or len(self._reported) >= _REPORTED:
                return
            self._reported.add(kind)
            if isinstance(exc, StructjobError):
                diagnostics.warning(
                    "maintenance of sessions failed: %s; it is repeated, and this is logged once",
                    exc,
                )
            else:
                diagnostics.exception(
                    "structjob: looking after sessions failed; it is tried again, and this is logged once"
                )

    async def _look(self) -> None:
        self._accounts.record_drops()
        self.check_spool()
        self._adopted.search()

    def check_spool(self) -> None:
        """Warn if the set-up of logging was replaced, the queue is nearly full, or the spool was
        deleted.
        """
        check_setup()
        self._check_room()
        spool = self._recorder.spool
        if spool is not None and not spool.directory.exists():
            self._recorder.warn(
                "gone",
                "the spool %s was deleted: %s; restart it",
                spool.directory,
                "events are delivered as before, but do not survive the end of this process"
                if self._recorder.delivers
                else "no process can deliver what this program logs",
                every=3600.0,
            )

    def _check_room(self) -> None:
        """Warn when the queue is half full and when it is nearly full.

        Each warning is logged once, until the queue has been less than a quarter full.
        """
        share = max(self._recorder.events.filled(), self._recorder.fallback.filled())
        if share < _EMPTY_AGAIN:
            self._filled = 0.0
        reached = next((mark for mark in _MARKS if share >= mark), 0.0)
        if reached <= self._filled:
            return
        self._filled = reached
        where, option = (
            ("on disk", "spool_max_bytes")
            if self._recorder.spool is not None
            else ("in memory", "queue_size")
        )
        if self._recorder.delivers:
            events = count_of(self._accounts.waiting(), "event", "waits", "wait")
            target = self._link.store.masked_url
            advice = "`structjob doctor` checks the database"
        else:
            events = "events wait"
            target = "the process that delivers (deliver=False)"
            advice = "check that a deliverer runs"
        at_the_limit = {
            "drop_oldest": "the oldest are dropped",
            "drop_newest": "new ones are dropped",
            "block": "threads wait, and in a running loop new ones are dropped",
        }[self._recorder.overflow]
        diagnostics.warning(
            "the queue of events is %s: %s %s for %s; when it is full, %s. %s; raise %s, or log less, if it is only slow",
            "full" if reached == _MARKS[0] else "half full",
            events,
            where,
            target,
            at_the_limit,
            advice,
            option,
        )

    async def _beat(self) -> None:
        if not self._link.opened:
            return
        for source in (self._own, *self._adopted.living()):
            await self._reentry.beat(source)
        await self._reaper.look()

    async def take_back_own(self) -> None:
        """Withdraw the death of the tracker's own session if it is presumed dead."""
        await self._reaper.take_back_own()

    def _beat_apart(self) -> None:
        """Send a heartbeat in the watchdog's thread."""
        if not self._own.entered or self._recorder.forked:
            return
        number, confirmed, given = (
            self._own.session.session_id,
            self._own.confirmed,
            self._own.given(),
        )
        heartbeat_now = getattr(self._link.store, "heartbeat_now", None)
        if heartbeat_now is not None:
            heartbeat_now(number, given, confirmed)
            return

        # The drivers of servers need a loop, and the tracker's loop is blocked. Therefore a
        # temporary loop with a connection of its own is used.
        async def beat() -> None:
            store = self._link.spare()
            try:
                async with asyncio.timeout(_APART):
                    await store.open()
                    await store.heartbeat(number, given, confirmed)
            finally:
                await store.close()

        asyncio.run(beat())

    def stop(self) -> None:
        """Stop the watchdog's thread."""
        self._watchdog.stop()
