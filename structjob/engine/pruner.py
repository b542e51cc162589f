"""Retention by itself: what is due is deleted about once an hour, by one process of all that have
the database open.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from structjob.diagnostics import diagnostics
from structjob.engine.database import DatabaseLink
from structjob.exceptions import PruneInProgress, StoreUnavailable
from structjob.retention.policy import PruneResult, Retention
from structjob.retention.prune import Access, prune

FIRST = 300.0
"""Seconds after the start before the first look; short programs never come to it."""

EVERY = 3600.0
"""Seconds between two looks, by this process or another."""

_JITTER = 0.1
"""Share of it by which a wait is longer at most: processes that started together spread out."""


class Pruner:
    """Prunes now and then.

    Args:
        session_id: The tracker's session.
        link: Its database.
        retention: What is kept, and for how long; None, and it does not begin by itself.
    """

    def __init__(self, session_id: int, link: DatabaseLink, retention: Retention | None) -> None:
        self._session_id = session_id
        self._link = link
        self._retention = retention
        self._told: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return self._retention is not None

    async def prune(
        self, retention: Retention, *, not_within: timedelta | None = None, patience: float = 0.0
    ) -> PruneResult:
        """Do as `structjob.retention.prune.prune` does."""
        store = self._link.store
        access = Access(
            self._link.fetch,
            self._link.transact,
            self._session_id,
            str(getattr(store, "path", None) or store.masked_url),
        )
        return await prune(access, retention, not_within=not_within, patience=patience)

    async def keep(self) -> None:
        """Go on for ever."""
        wait = FIRST
        while True:
            await asyncio.sleep(wait * random.uniform(1.0, 1.0 + _JITTER))
            await self._look()
            wait = EVERY

    async def _look(self) -> None:
        """Prune; a fault is told once, and is nobody else's."""
        assert self._retention is not None  # noqa: S101 -- it is wanted
        try:
            # What another process did while this one waited counts, too.
            pruned = await self.prune(
                self._retention, not_within=timedelta(seconds=EVERY * (1.0 - _JITTER))
            )
            diagnostics.debug("retention: deleted %s", pruned)
        except PruneInProgress:
            pass
        except StoreUnavailable as exc:
            # the writers tell
            diagnostics.debug("structjob: what is due was not deleted: %s; it is tried again", exc)
        except Exception as exc:  # noqa: BLE001 -- whatever it is, it must not be felt
            said = f"{type(exc).__name__}: {exc}"
            if said not in self._told:
                self._told.add(said)
                diagnostics.warning(
                    "structjob: what is due could not be deleted: %s; it is tried again each hour",
                    said,
                )
        else:
            self._told.clear()
