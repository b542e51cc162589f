"""The reaper: finds sessions whose process disappeared without ending them, and ends them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from structjob.diagnostics import diagnostics
from structjob.engine.adopted import AdoptedSpools
from structjob.engine.crash import CrashNotices
from structjob.engine.database import DatabaseLink
from structjob.engine.source import Source
from structjob.exceptions import StoreUnavailable
from structjob.machine.clock import moment
from structjob.machine.host import is_network, process_exists
from structjob.spool.session import Session
from structjob.store import leases, sessions
from structjob.store.leases import Lease
from structjob.text.wording import count_of

LEAST_LEASE = 30.0
"""Minimum seconds without a new heartbeat before a session is presumed dead."""

BEATS = 6
"""Minimum number of this process's own heartbeats in that time."""

NEIGHBORS = 50
"""Number of sessions of other hosts that one process watches."""

BEATING = 10
"""How many of them must have sent a heartbeat lately. If fewer have, more sessions are watched, so
the end of many processes at once is found by those that are left.
"""

_now = time.monotonic


async def take_back(session: Session, finder: Session, link: DatabaseLink) -> bool:
    """Withdraw the presumed death of a *session* that is alive, as *finder* knows.

    Return whether it was presumed dead.
    """
    number, store = session.session_id, link.store
    why = "its process was presumed dead, and is alive"
    notices = CrashNotices(session, finder, withdrawn=why)
    withdrawn = await store.transact(
        lambda connection: leases.revive(connection, store.ingest, number, notices.corrections())
    )
    await notices.show(link)
    return withdrawn is not None


async def take_back_presumed(living: Iterable[Source], finder: Session, link: DatabaseLink) -> None:
    """Withdraw the death of those of the *living* sessions that were presumed dead."""
    ids = {source.session.session_id: source.session for source in living if source.entered}
    if ids:
        rows = await link.fetch(leases.OPEN.where(leases.is_session(*ids)))
        for number in ids.keys() - {row["session_id"] for row in rows}:
            await take_back(ids[number], finder, link)


class Reaper:
    """Ends sessions whose heartbeat has stopped.

    It withdraws this if a session of this process is alive.

    A lease is measured by this process's own monotonic clock, while it was connected: after an
    outage every heartbeat is old, and the clocks of hosts may differ by a day.

    Args:
        own: The tracker's own source.
        root: The directory of spools that contains its own; None without a spool.
        link: Its database link.
        adopted: The spools that it has adopted.
        heartbeat: Seconds between two looks.
        revived: Called when the tracker's own session had been presumed dead; records its running
            jobs again.
    """

    def __init__(
        self,
        own: Source,
        root: Path | None,
        link: DatabaseLink,
        adopted: AdoptedSpools,
        heartbeat: float,
        revived: Callable[[], None],
    ) -> None:
        self._own = own
        self._root = root
        self._link = link
        self._adopted = adopted
        self._lease = max(LEAST_LEASE, BEATS * heartbeat)
        self._longest_gap = max(3 * heartbeat, self._lease / 3)
        self._revived = revived
        self._seen: dict[int, tuple[Lease, float]] = {}
        self._notices: dict[int, CrashNotices] = {}
        self._looked = -float("inf")

    async def look(self) -> None:
        """Check the sessions of this host, and some of the others; called with each heartbeat."""
        try:
            found = await self._neighbors()
        except StoreUnavailable:
            self._seen.clear()
            raise
        now = _now()
        if now - self._looked > self._longest_gap:
            self._seen.clear()  # the database may have been unavailable to them meanwhile
        self._looked = now
        await self._revive(found.keys())
        for number in self._notices.keys() - found.keys():
            await self._show(number)
        before, self._seen = self._seen, {}
        for number, lease in found.items():
            if number == self._own.session.session_id or number in self._adopted:
                continue
            known, since = before.get(number, (lease, now))
            self._seen[number] = (lease, since if known == lease else now)
            reason = self._verdict(lease, now - self._seen[number][1])
            if reason is not None:
                await self._reap(lease, reason)

    async def _neighbors(self) -> dict[int, Lease]:
        """Return the sessions to check, and those of which only the end matters, by id."""
        ids = {source.session.session_id for source in (self._own, *self._adopted)}
        ids |= self._notices.keys()
        size = NEIGHBORS
        while True:
            statement = leases.neighbors(self._own.session, ids, size)
            rows = await self._link.once(functools.partial(self._link.store.fetch, statement))
            found = {row["session_id"]: row for row in rows}
            elsewhere = [row for row in found.values() if row["host"] != self._own.session.host]
            beating = [
                row
                for row in elsewhere
                if row["heartbeat_at"] is not None
                and (row["now"] - row["heartbeat_at"]).total_seconds() < self._lease
            ]
            if len(elsewhere) < size or len(beating) >= BEATING:
                return {number: Lease.of(row) for number, row in found.items()}
            size *= 10

    def _verdict(self, lease: Lease, still: float) -> str | None:
        """Return why the session is presumed dead, or None if it is not.

        *still* is the number of seconds without a new heartbeat.
        """
        session, own = lease.session, self._own.session
        if session.boot_id is not None and (session.host, session.boot_id) == (
            own.host,
            own.boot_id,
        ):
            root = self._root
            if (
                root is not None
                and not is_network(root)
                and (root / str(session.session_id)).exists()
            ):
                return None  # the lock in it shows whether the process lives: see `AdoptedSpools`
            exists = process_exists(
                session.host, session.boot_id, session.pid, moment(session.started_at)
            )
            if exists is False:
                return sessions.VANISHED
            # A process that exists has not crashed, even if it is stopped for a long time. Our own
            # process says nothing about another tracker in it, which may have been left without
            # closing it.
            if exists and session.pid != own.pid:
                return None
        return sessions.LEASE_EXPIRED if still >= self._lease else None

    async def _reap(self, lease: Lease, reason: str) -> None:
        # Kept if the transaction fails, because it may only seem to have failed.
        notices = self._notices.setdefault(
            lease.session.session_id, CrashNotices(lease.session, self._own.session)
        )
        prepared = await notices.prepare(self._link)
        store = self._link.store
        crashed = await store.transact(
            lambda connection: leases.reap(connection, store.ingest, lease, reason, prepared)
        )
        diagnostics.debug(
            "ended session %d (pid %d on %s): %s",
            lease.session.session_id,
            lease.session.pid,
            lease.session.host,
            reason,
        )
        del self._seen[lease.session.session_id]
        await self._show(lease.session.session_id)
        if crashed:
            diagnostics.warning(
                "process %d on %s (session %d) is presumed dead (%s); it left %s running, now marked crashed",
                lease.session.pid, lease.session.host, lease.session.session_id, reason, count_of(len(crashed), "job"),
            )  # fmt: skip

    async def _show(self, number: int) -> None:
        """Show the notices of a session that has ended."""
        await self._notices[number].show(self._link)
        del self._notices[number]

    async def _revive(self, alive: Collection[int]) -> None:
        """Withdraw the death of sessions that another process presumed dead and that this one knows
        to live.
        """
        for source in [self._own, *self._adopted.living()]:
            if source.entered and source.session.session_id not in alive:
                await self._take_back(source)

    async def _take_back(self, source: Source) -> None:
        if await take_back(source.session, self._own.session, self._link) and source is self._own:
            diagnostics.warning(
                "this process was presumed dead, since its heartbeat stood still; it continues, and so do its jobs"
            )
            self._revived()

    async def take_back_own(self) -> None:
        """Withdraw the death of the tracker's own session if it is presumed dead.

        Call this before it ends.
        """
        if self._own.entered and not await self._link.store.fetch(
            leases.OPEN.where(leases.is_session(self._own.session.session_id))
        ):
            await self._take_back(self._own)
