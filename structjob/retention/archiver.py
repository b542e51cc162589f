"""Archive data that is due, and then delete it, one file at a time.

Files that a dead process left unfinished are finished first.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import and_, false, or_, select

from structjob.queries import rows as records
from structjob.retention.archive import Archive, ArchiveFile, finish, keys
from structjob.retention.deleter import Deleter
from structjob.retention.due import Due, Plan
from structjob.retention.finding import WHOLE, belonging
from structjob.store.portions import portions
from structjob.store.tables import attempts, dead_letters, jobs, logs, steps
from structjob.store.worker import Worker

FILE = 50_000
"""Number of lines after which a new file begins; a family of jobs is never split."""

_GROUP = 100
"""Jobs that are read together."""


class Archiver:
    """The part of a prune that archives due data and then deletes it.

    It has the same methods as `Deleter`.

    Args:
        deleter: Deletes the data.
        archive: The archive that the data is written to.
        worker: Runs the blocking calls.

    Attributes:
        archived: The files whose content is completely deleted.
    """

    whole = True
    """Whether the methods need whole rows, not only keys."""

    def __init__(self, deleter: Deleter, archive: Archive, worker: Worker) -> None:
        self._deleter = deleter
        self._fetch = deleter.fetch
        self._archive = archive
        self._worker = worker
        self._file: ArchiveFile | None = None
        self._what = ""
        self._events: list[int] = []
        self._letters: list[dict[str, int]] = []
        self._plans: list[Plan] = []
        self.archived: list[str] = []

    async def events(self, rows: Sequence[Any]) -> None:
        """Archive events that are deleted independently of their job."""
        file = await self._begun("events")
        await self._worker.run(file.add, "event", [records.event(row) for row in rows])
        self._events += [row["id"] for row in rows]

    async def dead_letters(self, rows: Sequence[Any]) -> None:
        """Archive dead letters."""
        file = await self._begun("dead-letters")
        await self._worker.run(file.add_rows, "dead_letter", rows)
        self._letters += [{"id": row["id"]} for row in rows]

    async def jobs(self, plans: Sequence[Plan]) -> None:
        """Archive whole families of jobs, parents first, with their attempts, steps and events."""
        file = await self._begun("jobs")
        for group in portions(plans, _GROUP):
            ids = [plan.id for plan in group]
            found = {
                row["id"]: records.job(row)
                for row in await self._fetch(select(jobs).where(jobs.c.id.in_(ids)))
            }
            await self._worker.run(file.add, "job", [found[id_] for id_ in ids if id_ in found])
            async for page in belonging(self._fetch, attempts, ids, attempts.c.attempt, whole=True):
                await self._worker.run(file.add, "attempt", [records.attempt(row) for row in page])
            async for page in belonging(self._fetch, steps, ids, steps.c.id, whole=True):
                await self._worker.run(file.add, "step", [records.step(row) for row in page])
            async for page in belonging(self._fetch, logs, ids, logs.c.ts, logs.c.id, whole=True):
                await self._worker.run(file.add, "event", [records.event(row) for row in page])
                self._events += [row["id"] for row in page]
        self._plans += plans

    async def _begun(self, what: str) -> ArchiveFile:
        """Return the file to write *what* to."""
        if self._file is not None and (self._what != what or self._file.lines >= FILE):
            await self.end()
        if self._file is None:
            self._file, self._what = await self._worker.run(self._archive.new, what), what
        return self._file

    async def end(self) -> None:
        """Delete what was archived."""
        if self._file is None:
            return
        pending = await self._worker.run(self._file.close)
        self._file = None
        await self._deleter.remove_events(
            self._events, {plan.id: plan for plan in self._plans} if self._plans else None
        )
        await self._deleter.remove_jobs(self._plans[::-1])
        await self._deleter.dead_letters(self._letters)
        self._events, self._letters, self._plans = [], [], []
        await self._finish(pending)

    async def _finish(self, pending: Path) -> None:
        self.archived.append(str(await self._worker.run(finish, pending)))

    def discard(self) -> asyncio.Future[None] | None:
        """Begin to remove an incomplete file; its content is not deleted from the database.

        The worker does so: its last write may still wait for the disk.
        """
        file, self._file = self._file, None
        return None if file is None else self._worker.submit(file.discard)

    # -- finishing the work of a dead process
    # --------------------------------------------------------------------------

    async def resume(self, due: Due) -> None:
        """Delete what a dead process archived but did not delete, if it is still due."""
        for pending in await self._worker.run(self._archive.pending):
            held = await self._worker.run(keys, pending)
            plans = await self._planned(held.attempts, due)
            for some in portions(held.events, WHOLE):
                await self._events_again(some, plans, due)
            await self._deleter.remove_jobs(
                [plans[id_] for id_ in reversed(held.attempts) if id_ in plans]
            )
            if (letters := due.dead_letters()) is not None:
                for ids in portions(held.dead_letters, WHOLE):
                    await self._deleter.dead_letters(
                        await self._fetch(
                            select(dead_letters.c.id).where(dead_letters.c.id.in_(ids), letters)
                        )
                    )
            await self._finish(pending)

    async def _planned(self, attempts_of: dict[str, int], due: Due) -> dict[str, Plan]:
        """Return the jobs that have not changed since they were archived."""
        columns = (jobs.c.id, jobs.c.attempt, jobs.c.session_id, jobs.c.state_seq)
        found = {}
        for ids in portions(list(attempts_of), _GROUP):
            for row in await self._fetch(select(*columns).where(jobs.c.id.in_(ids), due.job())):
                if row["attempt"] == attempts_of[row["id"]]:
                    found[row["id"]] = Plan(
                        row["id"], row["attempt"], row["session_id"], row["state_seq"]
                    )
        return found

    async def _events_again(
        self, numbers: Sequence[tuple[int, int]], plans: dict[str, Plan], due: Due
    ) -> None:
        by_session: dict[int, list[int]] = defaultdict(list)
        for session_id, seq in numbers:
            by_session[session_id].append(seq)
        archived = or_(
            *(
                and_(logs.c.session_id == session_id, logs.c.seq.in_(several))
                for session_id, several in by_session.items()
            )
        )
        left = await self._fetch(select(logs.c.id, logs.c.job_id).where(archived))
        await self._deleter.remove_events(
            [row["id"] for row in left if row["job_id"] in plans], plans
        )
        ids = [row["id"] for row in left if row["job_id"] not in plans]
        stray = due.of_strays([row["job_id"] for row in left if row["job_id"] is not None])
        by_themselves = or_(false(), *due.events(), *(() if stray is None else (stray,)))
        if ids:
            await self._deleter.events(
                await self._fetch(select(logs.c.id).where(logs.c.id.in_(ids), by_themselves))
            )
