"""What the application reads: a host's tracker, or a database of its own, opened at the first
request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from structjob.store.url import masked, parse, sqlite_path
from structjob.tracker import Tracker

if TYPE_CHECKING:
    from sqlalchemy import URL

    from structjob.queries.errors import Errors
    from structjob.queries.jobs import Jobs
    from structjob.queries.logs import Logs
    from structjob.queries.session_status import Sessions
    from structjob.queries.statistics import Statistics
    from structjob.store.ingest import Store


class Source:
    """Reads of one database.

    Attributes:
        jobs: See `structjob.queries.jobs.Jobs`.
        logs: See `structjob.queries.logs.Logs`.
        sessions: See `structjob.queries.session_status.Sessions`.
        errors: See `structjob.queries.errors.Errors`.
        stats: See `structjob.queries.statistics.Statistics`.
    """

    jobs: Jobs
    logs: Logs
    sessions: Sessions
    errors: Errors
    stats: Statistics

    def __init__(self, tracker_or_url: Tracker | str | URL) -> None:
        self._given = tracker_or_url
        self._tracker = tracker_or_url if isinstance(tracker_or_url, Tracker) else None
        self._url = None if isinstance(tracker_or_url, Tracker) else parse(tracker_or_url)
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._ready = False

    @property
    def name(self) -> str:
        """What the database is called where nothing else names it."""
        if self._url is None:
            return repr(self._given)
        path = sqlite_path(self._url)
        return path.name if path is not None else (self._url.database or masked(self._url))

    async def open(self) -> Source:
        """Return the source, open.

        Raises:
            StoreUnavailable: if the database does not answer.
            NotOpen: if the tracker is closed.
        """
        if self._tracker is not None:
            tracker = self._tracker
            self.jobs, self.logs, self.sessions = tracker.jobs, tracker.logs, tracker.sessions
            self.errors, self.stats = tracker.errors, tracker.stats
            return self
        async with self._opening:
            if not self._ready:
                await self._open()
                self._ready = True
        return self

    async def _open(self) -> None:
        from structjob.queries.errors import Errors
        from structjob.queries.jobs import Jobs
        from structjob.queries.logs import Logs
        from structjob.queries.session_status import Sessions
        from structjob.queries.statistics import Statistics
        from structjob.store.factory import make_store

        store = make_store(self._url, {})
        await store.open()
        self._store = store
        self.jobs = Jobs(store.fetch, _nothing_pending)
        self.logs = Logs(store.fetch, _nothing_pending)
        self.sessions = Sessions(store.fetch, _nothing_pending)
        self.errors = Errors(store.fetch, _nothing_pending, store.transact)
        self.stats = Statistics(store.fetch, _nothing_pending, self.jobs)

    async def close(self) -> None:
        """Close what was opened here; a host's tracker stays open."""
        store, self._store, self._ready = self._store, None, False
        if store is not None:
            self.logs.close()
            await store.close()


async def _nothing_pending() -> None:
    """A reader records nothing, so that nothing of its own is pending."""
