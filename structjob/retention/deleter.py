"""Delete data that is due, in small and short transactions, with a pause after each one.

A lock is held in each transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, func, select

from structjob.models import PruneResult
from structjob.retention import removal
from structjob.retention.due import Plan
from structjob.retention.finding import PAGE, belonging
from structjob.retention.pace import Pace
from structjob.store.contract import Fetch, Transact
from structjob.store.locks import Lock
from structjob.store.portions import portions
from structjob.store.tables import logs, steps

T = TypeVar("T")

Progress = Callable[[PruneResult], object]
"""Takes how much was deleted so far."""

_GROUP = 100
"""Jobs that are deleted together."""


class Deleter:
    """The part of a prune that deletes rows and counts them.

    Args:
        fetch: Runs a query.
        transact: Runs a call in a transaction.
        lock: The lock that must be held in each transaction; otherwise deleting stops.
        progress: Called before each transaction with how much was deleted so far.

    Attributes:
        counts: How much was deleted: ``events``, ``jobs``, …
    """

    whole = False
    """Whether the methods need whole rows; keys are enough here."""

    def __init__(
        self, fetch: Fetch, transact: Transact, lock: Lock, progress: Progress | None = None
    ) -> None:
        self.fetch = fetch
        self._transact = transact
        self._lock = lock
        self._pace = Pace()
        self._progress = progress
        self.counts: Counter[str] = Counter()

    def deleted(self, **more: Any) -> PruneResult:
        """Return how much was deleted so far; *more* are further fields of the result."""
        return PruneResult(**{**self.counts, **more})

    async def events(self, rows: Sequence[Any]) -> None:
        """Delete events that are deleted independently of their job."""
        await self.remove_events([row["id"] for row in rows])

    async def dead_letters(self, rows: Sequence[Any]) -> None:
        """Delete dead letters."""
        await self._remove("dead_letters", [row["id"] for row in rows], removal.remove_dead_letters)

    async def sessions(self, rows: Sequence[Any], due: ColumnElement[bool]) -> None:
        """Delete sessions that are still *due*."""
        await self._remove(
            "sessions",
            [row["session_id"] for row in rows],
            partial(removal.remove_sessions, due=due),
        )

    async def jobs(self, plans: Sequence[Plan]) -> None:
        """Delete jobs with their attempts, steps and events; *plans* lists parents first."""
        for group in portions(plans[::-1], _GROUP):
            known = {plan.id: plan for plan in group}
            ids: list[int] = []
            async for page in belonging(self.fetch, logs, list(known), logs.c.ts, logs.c.id):
                ids += (row["id"] for row in page)
                if len(ids) >= PAGE:  # most jobs have few events, and share one transaction
                    await self.remove_events(ids, known)
                    ids = []
            await self.remove_events(ids, known)
            await self.remove_jobs(group)

    async def end(self) -> None:
        """Do nothing: there is no work left."""

    async def remove_events(self, ids: Sequence[int], plans: removal.Plans | None = None) -> None:
        """Delete events; if *plans* is given, only those of jobs that have not changed."""
        await self._remove("events", ids, partial(removal.remove_events, plans=plans))

    async def remove_jobs(self, plans: Sequence[Plan]) -> None:
        """Delete jobs without events; *plans* lists children first."""
        for group in portions(plans, _GROUP):
            known = {plan.id: plan for plan in group}
            async for page in belonging(self.fetch, steps, list(known), steps.c.id):
                await self._remove(
                    "steps", [row["id"] for row in page], partial(removal.remove_steps, plans=known)
                )
            left = deque(group)
            while left:
                some: dict[str, Plan] = {}
                size = 0
                # The rows of a job are its own row and its attempts.
                while left and (not some or size + 1 + left[0].attempt <= self._pace.rows):
                    plan = left.popleft()
                    some[plan.id] = plan
                    size += 1 + plan.attempt
                gone, tried = await self._chunk(partial(removal.remove_jobs, plans=some), size)
                self.counts["jobs"] += gone
                self.counts["attempts"] += tried

    async def _remove(self, what: str, ids: Sequence[Any], remove: Callable[..., int]) -> None:
        at = 0
        while at < len(ids):
            some = ids[at : at + self._pace.rows]
            self.counts[what] += await self._chunk(partial(remove, ids=some), len(some))
            at += len(some)

    async def _chunk(self, call: Callable[[Connection], T], size: int) -> T:
        """Return the result of *call*, run in a transaction in which the lock is held; then
        pause.
        """

        def work(connection: Connection) -> tuple[T, float, int, str]:
            # The wait for the database is not counted, because it slows no one down.
            began = time.perf_counter()
            self._lock.prove(connection)
            result = call(connection)
            newest = connection.execute(select(func.max(logs.c.id))).scalar_one() or 0
            return result, began, newest, connection.dialect.name

        if self._progress is not None:
            self._progress(self.deleted())
        result, began, newest, dialect = await self._transact(work)
        await asyncio.sleep(self._pace.took(time.perf_counter() - began, size, newest, dialect))
        return result
