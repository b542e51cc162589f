"""Continuing in a database that was replaced after the tracker's session began (its file or
tables).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from structjob.diagnostics import diagnostics
from structjob.engine.database import DatabaseLink
from structjob.engine.source import Source
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore

WARN_EVERY = 60.0
"""Minimum seconds between two warnings.

On some network file systems a file repeatedly seems to be a different one.
"""


class Reentry:
    """Enters sessions in a database, and again when another database is found in its place.

    The number of events that the former database had confirmed is known and counted. If the new one
    holds fewer, ``verify`` reports them as missing.

    Args:
        link: The database link.
        sources: Returns the tracker's own source and those of the adopted spools.
        live: The jobs that run in this process, at any moment.
    """

    def __init__(
        self, link: DatabaseLink, sources: Callable[[], Iterator[Source]], live: Collection[JobCore]
    ) -> None:
        self._link = link
        self._sources = sources
        self._live = live
        self._warned_at = -WARN_EVERY

    async def enter(self, source: Source) -> None:
        """Enter the session of *source*, unless it is already entered in this database."""
        if not source.entered:
            await self._link.store.begin_session(source.session)
            source.entered = True

    async def beat(self, source: Source) -> None:
        """Send a heartbeat for the session of *source*.

        Enter it again if the database does not know it.
        """
        # Read the confirmed number first, so that it is never larger than the number of events
        # given out.
        confirmed, given, store = source.confirmed, source.given(), self._link.store

        async def beat() -> bool:
            await self.enter(source)
            return await store.heartbeat(source.session.session_id, given, confirmed)

        if await self._link.once(beat):
            return
        self.begin(
            f"the database {self._link.store.masked_url} does not know this program any more: its tables were dropped and created anew, or "
            "an older copy took their place"
        )
        await self._link.once(beat)

    def begin(self, reason: str) -> None:
        """Have every session entered again, because the database is a different one.

        Warn with *reason*.
        """
        sources = list(self._sources())
        for source in sources:
            source.entered = False
        if time.monotonic() - self._warned_at >= WARN_EVERY:
            self._warned_at = time.monotonic()
            diagnostics.warning(
                "%s; what is logged from now on is stored in the database that is there now. %s of %s had been stored before: "
                "`structjob verify` reports those that are not there any more",
                reason,
                count_of(sum(source.confirmed for source in sources), "event"),
                f"this program (session {sources[0].session.session_id})" if len(sources) == 1 else count_of(len(sources), "program"),
            )  # fmt: skip
        self.restate()

    def restate(self) -> None:
        """Have every running job record its state again."""
        for job in list(self._live):
            job.restate()
