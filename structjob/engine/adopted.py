"""Adopted spools: the spools of dead processes and of forked children, delivered and ended here."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from structjob.diagnostics import diagnostics
from structjob.engine.crash import CrashNotices
from structjob.engine.database import DatabaseLink
from structjob.engine.source import AdoptedSource
from structjob.exceptions import StoreUnavailable, StructjobError
from structjob.queries.verify import LOOKS_RESTORED
from structjob.spool import directory as spool_directory
from structjob.spool.fault_log import read_fault
from structjob.spool.places import Places
from structjob.spool.session import Session
from structjob.spool.tally import Tally
from structjob.store.contract import Ended, Ending
from structjob.store.sessions import CLOSED, DIED
from structjob.text.wording import count_of

T = TypeVar("T")

ELSEWHERE_EVERY = 30.0
"""Seconds between searches for spools in the other places of the database."""

_ATTEMPTS = 3
"""Number of attempts at storing when the database is available and gives no explicit refusal."""
_PAUSE = 0.1
"""Seconds between the first two attempts; twice as long between the next two."""
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""Errors that come from the state of this process, not from the file that it cannot read."""


def _ending(source: AdoptedSource) -> Ending:
    """Return the ending of a session whose process is gone and whose spool is stored completely."""
    spool = source.spool
    tally, events = spool.tally, spool.events
    at_risk = tally.at_risk if tally is not None else 0
    # Each thread may have held one number that was neither written nor confirmed. Events that were
    # only in memory can be any number; those are lost.
    most = tally.hands if tally is not None and not at_risk else 0
    return Ending(
        reason=CLOSED if spool.was_closed else DIED,
        last_seq=max(events.last_seen, at_risk),
        confirmed=source.confirmed,
        absent="damaged" if events.damaged else "in_flight",
        most=most + events.damaged_most,
    )


def warn_of_loss(session: Session, ended: Ended, tally: Tally | None) -> None:
    """Warn if a session that has just ended has missing events, and give the likely cause."""
    if not ended.missing:
        return
    if ended.fewer:
        why = f"the database holds {count_of(ended.fewer, 'event')} fewer than it had confirmed: {LOOKS_RESTORED}"
    elif tally is not None and tally.at_risk:
        why = "the process ended while its disk refused to take events, or before it had recorded which ones it dropped"
    else:
        why = "they are neither in the database nor in the spool: a part of the spool was lost"
    diagnostics.warning(
        "session %d (pid %d on %s) lost %s: %s; `structjob verify` lists the numbers",
        session.session_id, session.pid, session.host, count_of(ended.missing, "event"), why,
    )  # fmt: skip


class AdoptedSpools:
    """The sources of the spool directories that this process has adopted.

    Args:
        finder: Says which process this is; its spool is not adopted.
        places: The places of the database's spools; None if it has none.
        root: The directory of spools that is searched with each look.
        link: The database link.
        found: Called when there is something to deliver or a session to end.
    """

    def __init__(
        self,
        finder: Session,
        places: Places | None,
        root: Path | None,
        link: DatabaseLink,
        found: Callable[[], None],
    ) -> None:
        self._finder = finder
        self._places = places
        self._root = root
        self._link = link
        self._found = found
        self._pid = os.getpid()
        self._elsewhere_at = -float("inf")
        self._sources: dict[int, AdoptedSource] = {}
        self._known: set[int] = {finder.session_id}
        self._warned: set[int] = set()
        self._notices: dict[int, CrashNotices] = {}

    def __iter__(self) -> Iterator[AdoptedSource]:
        return iter(list(self._sources.values()))

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._sources

    def look(self) -> None:
        """Adopt spools that no other process delivers, and check whether their processes have
        ended.
        """
        root, places = self._root, self._places
        if root is None or places is None or os.getpid() != self._pid:
            return
        self._take(
            spool_directory.adopt(root, self._known, places.database if places.asked else None)
        )
        for source in self._sources.values():
            source.spool.try_finish()
        if self._sources:
            self._found()

    def search(self) -> None:
        """Look in all places; called every few seconds.

        Also delete the remains of processes that ended while they created or deleted a directory.
        """
        root, places = self._root, self._places
        if root is None or places is None or os.getpid() != self._pid:
            return
        if time.monotonic() - self._elsewhere_at >= ELSEWHERE_EVERY:
            self._elsewhere_at = time.monotonic()
            self._take(spool_directory.adopt_elsewhere(places, root, self._known))
        self.look()
        spool_directory.sweep(root)

    def _take(self, spools: Iterable[spool_directory.SessionSpool]) -> None:
        for spool in spools:
            self._sources[spool.session.session_id] = AdoptedSource(spool)
            self._known.add(spool.session.session_id)
            diagnostics.debug(
                "adopted the spool %s of session %d (pid %d on %s)",
                spool.directory, spool.session.session_id, spool.session.pid, spool.session.host,
            )  # fmt: skip

    def living(self) -> list[AdoptedSource]:
        """Return the sources whose processes are alive, such as forked children."""
        return [source for source in self if source.spool.alive]

    async def attempt(self, source: AdoptedSource, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what *call* returns once the database answers.

        Return ``None`` if it refuses the content.

        After a refusal, the directory is set aside: a directory that cannot be delivered must not
        block the others, nor a tracker's own events.
        """

        async def guarded() -> tuple[T | None, Exception | None]:
            try:
                return await call(), None
            except Exception as exc:
                if isinstance(exc, StoreUnavailable) and not exc.refused:
                    raise  # the database is unavailable: every directory waits
                return None, exc

        async def ask() -> bool:
            return await self._link.store.heartbeat(self._finder.session_id, 0)

        refusal: Exception | None = None
        for tried in range(_ATTEMPTS):
            if tried:  # the connection may have been the cause
                await asyncio.sleep(_PAUSE * tried)
                await self._link.until_answered(ask)
            result, refusal = await self._link.until_answered(guarded)
            if refusal is None:
                return result
            if isinstance(refusal, StoreUnavailable):
                break
        assert refusal is not None  # noqa: S101 -- the loop ran
        reason = (
            str(refusal)
            if isinstance(refusal, StructjobError)
            else f"{type(refusal).__name__}: {refusal}"
        )
        self.set_aside(
            source, f"{self._link.store.masked_url} does not take what is in it: {reason}"
        )
        return None

    def abandon(self, source: AdoptedSource, exc: OSError) -> None:
        """Set aside an adopted spool that cannot be read, for another process and the operator."""
        reason = f"it cannot be read: {exc.strerror or exc}"
        self.set_aside(source, reason, note=exc.errno not in _PASSING)

    def set_aside(self, source: AdoptedSource, reason: str, *, note: bool = True) -> None:
        """Stop delivering an adopted spool and leave its directory unchanged.

        Args:
            source: The source of the adopted spool.
            reason: Why it is set aside.
            note: Whether to leave a note in the directory. The note keeps other processes from
                trying it immediately, and ``structjob doctor`` reads it.
        """
        number, spool = source.session.session_id, source.spool
        if self._sources.pop(number, None) is None:
            return  # the other writer has set it aside
        if note and spool.set_aside(reason):
            self._known.discard(number)  # the note prevents adopting it again too soon
        spool.close()
        source.ended = True  # releases the callers that wait for it
        if number not in self._warned:
            self._warned.add(number)
            diagnostics.warning(
                "the spool %s of another process is set aside, and stays on disk: %s; see `structjob doctor`",
                spool.directory,
                reason,
            )
        self._found()

    def next_over(self) -> AdoptedSource | None:
        """Return a source whose process is gone and whose records are all stored, or None."""
        for source in list(self._sources.values()):
            try:
                if source.over():
                    return source
            except OSError as exc:
                self.abandon(source, exc)
        return None

    async def end(self, source: AdoptedSource) -> None:
        """End the session of a dead process whose records are all stored."""
        spool = source.spool
        damaged = spool.events.damaged + spool.states.damaged
        ending = _ending(source)
        notices = self._notices.setdefault(
            source.session.session_id,
            CrashNotices(
                source.session,
                self._finder,
                fault=read_fault(spool.directory),
                withdrawn="its process had finished it before it ended",
            ),
        )

        async def end() -> Ended:
            prepared = await notices.prepare(self._link)
            return await self._link.store.end_session(source.session, ending, prepared)

        ended = await self.attempt(source, end)
        await self._link.until_answered(lambda: notices.show(self._link))
        del self._notices[source.session.session_id]
        if ended is None:
            return
        del self._sources[source.session.session_id]
        spool.remove()
        source.ended = True
        warn_of_loss(source.session, ended, spool.tally)
        if damaged:
            diagnostics.warning(
                "the spool of session %d held %s; the lost events are counted in structjob_gaps",
                source.session.session_id,
                count_of(damaged, "damaged record"),
            )

    def close(self) -> None:
        """Close every directory; the next process delivers what still waits."""
        for source in self._sources.values():
            source.spool.close()
