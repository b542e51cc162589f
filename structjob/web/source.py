"""The database that the application reads: that of a host's tracker, or one opened at the first
request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from structjob.reader import Reader
from structjob.tracker import Tracker
from structjob.urls.url import masked, parse, sqlite_path

if TYPE_CHECKING:
    from structjob.filters import LogFilter
    from structjob.models import EncodedEvent, Gap
    from structjob.queries.tail import Tail
    from structjob.urls.url import URL

STATEMENT_TIMEOUT = 10.0
"""Maximum number of seconds per query."""


class Source:
    """Reads one database, with its own connections.

    Args:
        tracker_or_url: The host's tracker, or the URL of a database.
    """

    def __init__(self, tracker_or_url: Tracker | str | URL) -> None:
        self._tracker = tracker_or_url if isinstance(tracker_or_url, Tracker) else None
        self._url = None if isinstance(tracker_or_url, Tracker) else parse(tracker_or_url)
        self._reader: Reader | None = None
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """The default name of the database in titles."""
        if self._url is None:
            return "structjob"
        path = sqlite_path(self._url)
        return path.name if path is not None else (self._url.database or masked(self._url))

    @property
    def reader(self) -> Reader:
        """The reader; only available after `open`."""
        assert self._reader is not None  # noqa: S101 -- it was opened
        return self._reader

    @property
    def tracker(self) -> Tracker | None:
        """The host's tracker, if there is one."""
        return self._tracker

    def tail(self, wanted: LogFilter, **options: Any) -> Tail[EncodedEvent | Gap]:
        """Return a tail of JSON with gaps; see `structjob.queries.logs.Logs.tail`.

        If there is a host's tracker, its commits wake the tail.
        """
        logs = self.reader.logs if self._tracker is None else self._tracker.logs
        return logs.tail(wanted, gaps=True, encoded=True, **options)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Tracker]:
        """Yield a tracker that can change the database: the host's, or a temporary one."""
        if self._tracker is not None:
            yield self._tracker
            return
        async with Tracker(
            self._url, service="structjob-web", spool=False, handle_signals=False, strict=True
        ) as tracker:
            yield tracker

    async def open(self) -> None:
        """Open the reader; do nothing if it is open.

        Raises:
            StoreUnavailable: if the database does not answer.
            NotOpen: if the tracker is not open.
        """
        async with self._opening:
            if self._reader is None:
                self._reader = (
                    Reader(self._url, timeout=STATEMENT_TIMEOUT)
                    if self._tracker is None
                    else self._tracker.reader(timeout=STATEMENT_TIMEOUT)
                )
            await self._reader.open()

    async def close(self) -> None:
        """Close what was opened here; a host's tracker stays open."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.aclose()
