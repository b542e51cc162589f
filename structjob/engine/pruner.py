"""Automatic retention: one process of all that use the database deletes due data about once an
hour.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from structjob.diagnostics import diagnostics
from structjob.engine.database import DatabaseLink
from structjob.exceptions import PruneInProgress, StoreUnavailable
from structjob.models import PruneResult
from structjob.retention.deleter import Progress
from structjob.retention.policy import Retention
from structjob.retention.prune import Access, delete_family, prune

FIRST = 300.0
"""Seconds after the start before the first run; short programs end before it."""

EVERY = 3600.0
"""Seconds between two runs, by this process or another."""

_JITTER = 0.1
"""Maximum share by which a wait is extended, so that processes started together spread out."""


class Pruner:
    """Prunes at regular intervals.

    Args:
        session_id: The tracker's session.
        link: Its database link.
        retention: What is kept, and for how long; with None nothing is deleted automatically.
    """

    def __init__(self, session_id: int, link: DatabaseLink, retention: Retention | None) -> None:
        self._session_id = session_id
        self._link = link
        self._retention = retention
        self._warned: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Whether automatic retention is configured."""
        return self._retention is not None

    async def prune(
        self,
        retention: Retention,
        *,
        not_within: timedelta | None = None,
        patience: float = 0.0,
        progress: Progress | None = None,
    ) -> PruneResult:
        """Prune; see `structjob.retention.prune.prune`."""
        return await prune(
            self._access(), retention, not_within=not_within, patience=patience, progress=progress
        )

    async def delete(self, job_id: str, *, patience: float) -> PruneResult:
        """Delete a job and its descendants; see `structjob.retention.prune.delete_family`."""
        return await delete_family(self._access(), job_id, patience=patience)

    def _access(self) -> Access:
        store = self._link.store
        return Access(
            self._link.fetch,
            self._link.transact,
            self._session_id,
            str(getattr(store, "path", None) or store.masked_url),
        )

    async def keep(self) -> None:
        """Run until cancelled."""
        wait = FIRST
        while True:
            await asyncio.sleep(wait * random.uniform(1.0, 1.0 + _JITTER))
            await self._look()
            wait = EVERY

    async def _look(self) -> None:
        """Prune; warn about each error once, and never raise."""
        assert self._retention is not None  # noqa: S101 -- `keep` runs only if retention is wanted
        try:
            # A run of another process while this one waited counts too.
            pruned = await self.prune(
                self._retention, not_within=timedelta(seconds=EVERY * (1.0 - _JITTER))
            )
            diagnostics.debug("retention: deleted %s", pruned)
        except PruneInProgress:
            pass
        except StoreUnavailable as exc:
            # the writers report it
            diagnostics.debug("structjob: what is due was not deleted: %s; it is tried again", exc)
        except Exception as exc:  # noqa: BLE001 -- no error may reach the tracker
            said = f"{type(exc).__name__}: {exc}"
            if said not in self._warned:
                self._warned.add(said)
                diagnostics.warning(
                    "structjob: what is due could not be deleted: %s; it is tried again each hour",
                    said,
                )
        else:
            self._warned.clear()
