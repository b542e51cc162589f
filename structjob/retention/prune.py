"""Apply a retention: count what is due, or archive it (if configured) and delete it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select

from structjob.exceptions import InvalidState, JobNotFound, PruneInProgress, StoreUnavailable
from structjob.models import PruneResult
from structjob.retention.archive import Archive
from structjob.retention.archiver import Archiver
from structjob.retention.deleter import Deleter, Progress
from structjob.retention.due import Due
from structjob.retention.finding import count, families, family_to_delete, pages, strays
from structjob.retention.policy import Retention
from structjob.store.contract import Fetch, Transact
from structjob.store.expressions import utc_now
from structjob.store.locks import Lock, LockLost
from structjob.store.portions import portions
from structjob.store.tables import attempts, dead_letters, logs, sessions, steps
from structjob.store.worker import Worker

LOCK = "retention"
"""The name of the lock for deleting jobs and events."""

_GROUP = 200
"""Jobs that are counted together."""
_LOOK_AGAIN = 0.2
"""Seconds between two checks whether another process has finished."""
_ROUNDS = 3
"""How often the rows of a job are deleted, because events may arrive meanwhile."""
_OVERTAKEN = "this process stood still for so long that another one prunes in its place"
_RELEASING = 0.5
"""Timeout for releasing the lock, in seconds; an unreleased lock expires automatically."""


@dataclass(frozen=True, slots=True)
class Access:
    """A database, for a prune.

    Args:
        fetch: Runs a query.
        transact: Runs a call in a transaction.
        session_id: The session that prunes.
        name: A text that distinguishes this database from others.
    """

    fetch: Fetch
    transact: Transact
    session_id: int
    name: str


async def due_now(fetch: Fetch, retention: Retention) -> Due:
    """Return what is due by a retention now, by the database's clock."""
    (row,) = await fetch(select(utc_now().label("now")))
    return Due(retention, row["now"])


async def preview(fetch: Fetch, retention: Retention) -> PruneResult:
    """Count what `prune` would delete, without changing anything."""
    due = await due_now(fetch, retention)
    counts: Counter[str] = Counter()
    if (condition := due.sessions()) is not None:
        counts["sessions"] = await count(fetch, sessions, condition)
    async for plans in families(fetch, due):
        for group in portions([plan.id for plan in plans], _GROUP):
            counts["jobs"] += len(group)
            counts["attempts"] += await count(fetch, attempts, attempts.c.job_id.in_(group))
            counts["steps"] += await count(fetch, steps, steps.c.job_id.in_(group))
            # Events that are due by their level are counted below.
            counts["events"] += await count(
                fetch, logs, logs.c.job_id.in_(group) & due.not_by_level()
            )
    async for condition in _events(fetch, due):
        counts["events"] += await count(fetch, logs, condition)
    if (condition := due.dead_letters()) is not None:
        counts["dead_letters"] = await count(fetch, dead_letters, condition)
    more: dict[str, Any] = {**counts, "dry_run": True}
    return PruneResult(**more)


async def prune(
    access: Access,
    retention: Retention,
    *,
    not_within: timedelta | None = None,
    patience: float = 0.0,
    progress: Progress | None = None,
) -> PruneResult:
    """Delete what is due.

    Args:
        access: The database.
        retention: What is kept, and for how long.
        not_within: Do not prune if a prune finished less than this time ago.
        patience: Seconds to wait while another process prunes. Default: 0.
        progress: Called before each transaction with how much was deleted so far.

    Raises:
        PruneInProgress: if another process is still pruning, or has pruned within *not_within*.
        InvalidArgument: if the archive cannot be used.
        OSError: if the archive cannot be written; what is not in it is not deleted.
        StoreUnavailable: if the database does not answer. What was deleted before stays deleted;
            the rest is kept.
    """
    worker = Worker("structjob-archive")  # its thread starts with its first call
    archive: Archive | None = None
    try:
        if retention.archive is not None:
            archive = await worker.run(Archive, Path(retention.archive), access.name)
        async with _locked(access, patience, not_within) as lock:
            deleter = Deleter(access.fetch, access.transact, lock, progress)
            archiver = None if archive is None else Archiver(deleter, archive, worker)
            return await _prune(deleter, archiver, retention)
    finally:
        worker.close()


@asynccontextmanager
async def _locked(
    access: Access, patience: float, not_within: timedelta | None = None, *, prunes: bool = True
) -> AsyncIterator[Lock]:
    """Hold the lock; at the end, record when the database was pruned, if the block *prunes* it.

    Raises:
        PruneInProgress: if another process holds the lock, before the block or in the end.
    """
    lock = Lock(LOCK, access.session_id)
    deadline = time.monotonic() + patience
    while not await access.transact(lambda connection: lock.take(connection, not_within)):
        if time.monotonic() >= deadline:
            raise PruneInProgress(
                "another process is pruning this database: try again when it is done"
            )
        await asyncio.sleep(_LOOK_AGAIN)
    done = False
    try:
        yield lock
        done = prunes
    except LockLost:
        raise PruneInProgress(_OVERTAKEN) from None
    finally:
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_RELEASING):
                await access.transact(lambda connection: lock.release(connection, done=done))


async def delete_family(access: Access, job_id: str, *, patience: float) -> PruneResult:
    """Delete a job and its descendants, with everything that belongs to them.

    Args:
        access: The database.
        job_id: The id of the job.
        patience: Seconds to wait while another process prunes.

    Raises:
        JobNotFound: if there is no such job.
        InvalidState: if the job or a descendant has not ended, or changes meanwhile.
        PruneInProgress: if another process is still pruning.
        StoreUnavailable: if the database does not answer. What was deleted before stays deleted.
    """
    plans = await family_to_delete(access.fetch, job_id)
    if not plans:
        raise JobNotFound(job_id)
    async with _locked(access, patience, prunes=False) as lock:
        deleter = Deleter(access.fetch, access.transact, lock)
        for _ in range(_ROUNDS):
            await deleter.jobs(plans)
            plans = await family_to_delete(access.fetch, job_id)
            if not plans:
                return deleter.deleted()
    raise InvalidState(f"job {job_id} gets events while it is being deleted: delete it again later")


async def _prune(deleter: Deleter, archiver: Archiver | None, retention: Retention) -> PruneResult:
    fetch = deleter.fetch
    due = await due_now(fetch, retention)
    taker = archiver or deleter
    try:
        if archiver is not None:
            await archiver.resume(due)
        if (condition := due.sessions()) is not None:
            # Sessions that this prune makes empty are deleted by the next prune.
            async for page in pages(fetch, sessions, condition, sessions.c.session_id):
                await deleter.sessions(page, condition)
        async for plans in families(fetch, due):
            await taker.jobs(plans)
        # otherwise events that are deleted with their job would be found again, and archived twice
        await taker.end()
        async for condition in _events(fetch, due):
            async for page in pages(
                fetch, logs, condition, logs.c.ts, logs.c.id, whole=taker.whole
            ):
                await taker.events(page)
        if (condition := due.dead_letters()) is not None:
            async for page in pages(
                fetch,
                dead_letters,
                condition,
                dead_letters.c.ts,
                dead_letters.c.id,
                whole=taker.whole,
            ):
                await taker.dead_letters(page)
        await taker.end()
    except BaseException as exc:
        removed = archiver.discard() if archiver is not None else None
        if removed is not None and isinstance(exc, Exception):  # a cancellation waits for no disk
            await removed
        raise
    (kept,) = await fetch(select(func.min(logs.c.ts).label("ts")))
    return deleter.deleted(
        archived=tuple(archiver.archived) if archiver is not None else (), oldest=kept["ts"]
    )


async def _events(fetch: Fetch, due: Due) -> AsyncIterator[ColumnElement[bool]]:
    """Yield the conditions of events that are due independently of a job: by their own time, or
    because their jobs have no row.
    """
    for condition in due.events():
        yield condition
    async for ids in strays(fetch, due):
        if (stray := due.of_strays(ids)) is not None:
            yield stray
