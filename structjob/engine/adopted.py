"""Orphans: the spools of processes that are gone (and of forked children), taken over, delivered
and ended.
"""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from structjob.diagnostics import diagnostics
from structjob.engine.crash import CrashNotices, correct
from structjob.engine.database import DatabaseLink
from structjob.engine.source import Source
from structjob.exceptions import StoreUnavailable, StructjobError
from structjob.spool import directory as spool_directory
from structjob.spool.recorder import Recorder
from structjob.spool.session import Session
from structjob.spool.tally import Tally
from structjob.store.ingest import Ended, Ending
from structjob.store.sessions import DIED, LOOKS_RESTORED
from structjob.text.wording import count_of

T = TypeVar("T")

_ATTEMPTS = 3
"""How often it is tried to store what the database does not refuse in so many words, while it
answers.
"""
_PAUSE = 0.1
"""Seconds between two of these attempts; twice as long between the next two."""
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""Errors that say something of this process, and nothing of what it cannot read."""


def _ending(feed: Source, spool: spool_directory.SessionSpool) -> Ending:
    """Return what is known of a session whose process is gone, and of whose spool all is stored."""
    tally, events = spool.tally, spool.events
    at_risk = tally.at_risk if tally is not None else 0
    # What a thread had in its hands was neither written nor confirmed: no more than one number a
    # thread. What memory alone knew of can be any number of events; they were lost.
    most = tally.hands if tally is not None and not at_risk else 0
    return Ending(
        reason=DIED,
        last_seq=max(events.last_seen, at_risk),
        confirmed=feed.confirmed,
        absent="damaged" if events.damaged else "in_flight",
        most=most + events.damaged_most,
    )


def warn_of_loss(session: Session, ended: Ended, tally: Tally | None) -> None:
    """Warn if events of a session that has just ended are missing, and say what it looks like."""
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
    """The feeds of the directories that a tracker has taken over.

    Args:
        own: The tracker's own feed.
        recorder: Its recorder.
        link: Its database.
        found: Called when there is something to deliver, or to end.
    """

    def __init__(
        self, own: Source, recorder: Recorder, link: DatabaseLink, found: Callable[[], None]
    ) -> None:
        self._own = own
        self._recorder = recorder
        self._link = link
        self._found = found
        self._feeds: dict[int, Source] = {}
        self._known: set[int] = {recorder.session.session_id}
        self._warned: set[int] = set()
        self._notices: dict[int, CrashNotices] = {}

    def __iter__(self) -> Iterator[Source]:
        return iter(list(self._feeds.values()))

    def __len__(self) -> int:
        return len(self._feeds)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._feeds

    def look(self) -> None:
        """Take over what nobody delivers, and see whether a process has ended."""
        root, places = self._recorder.root, self._recorder.places
        if root is None or places is None:
            return
        self._take(
            spool_directory.adopt(root, self._known, places.database if places.asked else None)
        )
        for feed in self._feeds.values():
            assert feed.spool is not None  # noqa: S101 -- that is what was adopted
            feed.spool.try_finish()
        if self._feeds:
            self._found()

    def look_elsewhere(self) -> None:
        """Take over what is left in the other places of this database."""
        if self._recorder.places is not None and not self._recorder.forked:
            self._take(
                spool_directory.adopt_elsewhere(
                    self._recorder.places, self._recorder.root, self._known
                )
            )

    def _take(self, spools: Iterable[spool_directory.SessionSpool]) -> None:
        for spool in spools:
            self._feeds[spool.session.session_id] = Source.of_orphan(spool)
            self._known.add(spool.session.session_id)
            diagnostics.debug(
                "adopted the spool %s of session %d (pid %d on %s)",
                spool.directory, spool.session.session_id, spool.session.pid, spool.session.host,
            )  # fmt: skip

    def sweep(self) -> None:
        """Delete what a process left that ended while it made a directory, or deleted one."""
        if self._recorder.root is not None:
            spool_directory.sweep(self._recorder.root)

    async def attempt(self, feed: Source, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what *call* returns, once the database answers; ``None`` if the database refuses
        it for its content.

        The directory is then set aside: one that cannot be delivered does not keep the others from
        it, nor this tracker's own events.
        """

        async def guarded() -> tuple[T | None, Exception | None]:
            try:
                return await call(), None
            except Exception as exc:
                if isinstance(exc, StoreUnavailable) and not exc.refused:
                    raise  # the database is unavailable: every directory waits
                return None, exc

        refusal: Exception | None = None
        for tried in range(_ATTEMPTS):
            if tried:  # it may have been the connection after all
                await asyncio.sleep(_PAUSE * tried)
                number, given = self._own.session.session_id, self._recorder.numbers.given
                beat = functools.partial(self._link.store.heartbeat, number, given)
                await self._link.insist(beat)
            result, refusal = await self._link.insist(guarded)
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
        self.set_aside(feed, f"{self._link.store.masked_url} does not take what is in it: {reason}")
        return None

    def abandon(self, feed: Source, exc: OSError) -> None:
        """Leave an orphan that cannot be read to another process, and to the operator."""
        reason = f"it cannot be read: {exc.strerror or exc}"
        self.set_aside(feed, reason, note=exc.errno not in _PASSING)

    def set_aside(self, feed: Source, reason: str, *, note: bool = True) -> None:
        """Deliver nothing more of an orphan, and leave its directory as it is.

        Args:
            feed: The orphan.
            reason: Why.
            note: Whether to leave a note in the directory, so that other processes do not try it at
                once, and ``structjob doctor`` knows.
        """
        number, spool = feed.session.session_id, feed.spool
        assert spool is not None  # noqa: S101 -- that is what was adopted
        if self._feeds.pop(number, None) is None:
            return  # by the other writer
        if note and spool.set_aside(reason):
            self._known.discard(number)  # its note keeps it from being taken over again too soon
        spool.close()
        feed.ended = True  # as far as those are concerned who wait for it
        if number not in self._warned:
            self._warned.add(number)
            diagnostics.warning(
                "the spool %s of another process is set aside, and stays on disk: %s; see `structjob doctor`",
                spool.directory,
                reason,
            )
        self._found()

    def next_over(self) -> Source | None:
        """Return one whose process is gone and of which all is stored."""
        for feed in list(self._feeds.values()):
            try:
                if feed.over():
                    return feed
            except OSError as exc:
                self.abandon(feed, exc)
        return None

    async def end(self, feed: Source) -> None:
        """End the session of a process that is gone, of which all is stored."""
        spool = feed.spool
        assert spool is not None  # noqa: S101 -- that is what was adopted
        damaged = spool.events.damaged + spool.states.damaged
        ending = _ending(feed, spool)
        notices = self._notices.setdefault(
            feed.session.session_id, CrashNotices(feed.session, self._recorder)
        )

        async def end() -> Ended:
            prepared = await notices.prepare(self._link)
            return await self._link.store.end_session(feed.session, ending, prepared)

        ended = await self.attempt(feed, end)
        # Some may have been made for an attempt that failed, and their jobs not crash after all.
        await self._link.insist(lambda: notices.account(self._own, self._link))
        del self._notices[feed.session.session_id]
        if ended is None:
            return
        del self._feeds[feed.session.session_id]
        spool.remove()
        feed.ended = True
        correct(ended.withdrawn, self._recorder, "its process had finished it before it ended")
        warn_of_loss(feed.session, ended, spool.tally)
        if damaged:
            diagnostics.warning(
                "the spool of session %d held %s; the lost events are counted in structjob_gaps",
                feed.session.session_id,
                count_of(damaged, "damaged record"),
            )

    def close(self) -> None:
        """Let go of every directory: what waits is now up to the next process."""
        for feed in self._feeds.values():
            assert feed.spool is not None  # noqa: S101 -- that is what was adopted
            feed.spool.close()
