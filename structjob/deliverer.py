"""The deliverer: delivers the spools of a host's programs, without a session of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from structjob.diagnostics import diagnostics
from structjob.engine.opening import OPEN_WAITS, import_store, structjob_version
from structjob.exceptions import InvalidArgument, InvalidState, StoreUnavailable
from structjob.spool.session import Session
from structjob.store.worker import in_own_thread

if TYPE_CHECKING:
    from sqlalchemy import URL

    from structjob.engine.adopted import AdoptedSpools
    from structjob.engine.database import DatabaseLink
    from structjob.engine.delivery import Delivery
    from structjob.engine.reentry import Reentry
    from structjob.engine.waiters import Waiters
    from structjob.store.contract import Store

LOOK_EVERY = 0.5
"""Seconds between searches for spools, and for programs that have ended."""

READ_EVERY = 0.2
"""Seconds between two reads of the spools while nothing waits."""

BEAT_EVERY = 5.0
"""Seconds between two heartbeats for each program."""

BATCH = 2_000
"""Maximum number of events in one transaction."""


class Deliverer:
    """Delivers what the programs of this host record for one database, while they run and after.

    It delivers each spool that no other process delivers: of trackers with ``deliver=False``, of
    programs that were killed, and of forked processes. It ends the sessions of programs that have
    ended, and marks the jobs of those that died as crashed. It has no session itself.

    ::

        async with structjob.Deliverer("postgresql://db/jobs"):
            await stop.wait()

    Killing it at any moment loses nothing: the next deliverer, or a tracker, goes on. Several
    deliverers may run, and each spool is delivered by one of them.

    Args:
        url: The database; see `structjob.Tracker`.
        spool: The directory of the spools, if the programs name one. By default the usual places.
        schema: See `structjob.Tracker`.
        engine_options: See `structjob.Tracker`.

    Raises:
        InvalidArgument: if the database is in memory.
        InvalidURL: if the URL is invalid.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL | None = None,
        *,
        spool: str | os.PathLike[str] | None = None,
        schema: str | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        from structjob.urls.url import parse, places, with_schema

        self._url = parse(url) if schema is None else with_schema(url, schema)
        self._engine_options = dict(engine_options or {})
        found = places(self._url)
        if found is None:
            raise InvalidArgument("a database in memory belongs to one process, and has no spool")
        if spool is not None:
            found = places(self._url, spool) or found
        self._places = found
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._looked_at = self._beat_at = -float("inf")
        self._finder: Session
        self._link: DatabaseLink
        self._adopted: AdoptedSpools
        self._reentry: Reentry
        self._delivery: Delivery
        self._waiters: Waiters

    async def open(self) -> Self:
        """Connect to the database, create missing tables, and start to deliver.

        While the database does not answer, the spools wait, and a warning is logged.

        Raises:
            InvalidState: if it is open.
            InvalidURL: if the database cannot be created.
            SchemaMismatch: if the database is not structjob's or belongs to another version.
        """
        if self._task is not None:
            raise InvalidState("the deliverer is open; close it before you open it again")
        await in_own_thread(import_store)
        from structjob.engine.adopted import AdoptedSpools
        from structjob.engine.database import DatabaseLink
        from structjob.engine.delivery import Delivery
        from structjob.engine.reentry import Reentry
        from structjob.engine.waiters import Waiters
        from structjob.store.factory import make_store

        def store() -> Store:
            return make_store(self._url, self._engine_options)

        root = self._places.candidates[0]
        self._finder = Session(version=structjob_version(), database=self._places.database)
        self._link = link = DatabaseLink(store(), store)
        self._adopted = AdoptedSpools(self._finder, self._places, root, link, self._woken.set)
        self._reentry = Reentry(link, lambda: iter(self._adopted), ())
        self._delivery = Delivery(None, self._adopted, link, self._reentry, BATCH)
        self._waiters = Waiters()
        link.place = str(root)
        link.on_down = self._waiters.fail
        link.on_another = self._reentry.begin
        try:
            fault = await link.try_open(OPEN_WAITS)
        except BaseException:
            await link.close()
            raise
        if fault is not None:
            link.lost(fault)
        self._task = asyncio.create_task(self._run(), name="structjob-deliverer")
        return self

    async def aclose(self) -> None:
        """Stop, and leave the spools to the next process that delivers."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        self._waiters.fail(StoreUnavailable("the deliverer was closed"))
        self._adopted.close()
        await self._link.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        await self.aclose()

    async def flush(self) -> None:
        """Wait until everything that the spools hold now is stored.

        The sessions of programs that have ended are ended then, too.

        Raises:
            InvalidState: if the deliverer is not open.
            StoreUnavailable: if the database is unavailable.
        """
        from structjob.engine.waiters import Flush

        if self._task is None:
            raise InvalidState("the deliverer is not open")
        if self._link.down is not None:
            raise self._link.down
        self._adopted.search()
        flush = Flush.of([*self._adopted])
        self._waiters.add_flush(flush)
        self._woken.set()
        await flush.promise.awaited()

    async def _run(self) -> None:
        await self._delivery.begin()
        while True:
            try:
                if not await self._turn():
                    self._woken.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(READ_EVERY):
                            await self._woken.wait()
            except asyncio.CancelledError:
                raise
            except Exception:  # noqa: BLE001 -- an internal error must not stop the delivery
                diagnostics.exception("structjob: delivering spools failed; it goes on in a second")
                await asyncio.sleep(1.0)

    async def _turn(self) -> bool:
        """Store one batch, and end one session; return whether there was something to do."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            self._adopted.search()
        if now - self._beat_at >= BEAT_EVERY:
            self._beat_at = now
            with suppress(StoreUnavailable):  # what is written next reports it
                await self._beat()
        work = self._delivery.next_batch()
        if work is not None:
            await self._delivery.store(work)
        over = await self._delivery.end_next()
        self._waiters.resolve_flushes()
        return work is not None or over is not None

    async def _beat(self) -> None:
        """Send a heartbeat for each program that lives, and say so if it was presumed dead."""
        from structjob.engine.reaper import take_back_presumed

        living = self._adopted.living()
        for source in living:
            await self._reentry.beat(source)
        await take_back_presumed(living, self._finder, self._link)
