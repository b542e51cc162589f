"""What the command line and an export read, and users of the library do not.

Users have `structjob.queries.jobs.Jobs`; `structjob.queries.jobs.lookups_of` leads from it to these
reads. None of them delivers pending events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import func, select

from structjob.models import AttemptRecord, JobRecord, SessionRecord, StepRecord
from structjob.queries import errors, estimates, rows, session_status, step_progress
from structjob.queries.families import Family, families
from structjob.queries.job_finder import JobFinder
from structjob.queries.overview import Overview, overview
from structjob.queries.session_status import Silence
from structjob.queries.step_progress import StepProgress
from structjob.queries.tree import in_order
from structjob.statistics import ErrorGroup, Estimate
from structjob.store.contract import Fetch
from structjob.store.expressions import begins
from structjob.store.portions import portions
from structjob.store.tables import attempts, jobs, steps

_AT_ONCE = 100
"""Number of ids in one query."""


class Lookups:
    """Reads for people who type ids, and for screens that show many jobs.

    Args:
        finder: Finds single jobs.
        now: The clock for running times.
    """

    def __init__(self, fetch: Fetch, finder: JobFinder, now: Callable[[], datetime]) -> None:
        self._fetch = fetch
        self._now = now
        self.by_prefix = finder.by_prefix
        self.by_suffix = finder.by_suffix

    # -- completion of what is typed
    # --------------------------------------------------------------------------

    async def ids(self, prefix: str, *, limit: int) -> list[tuple[str, str, str]]:
        """Return id, operation and status of the newest jobs whose ids begin with *prefix*.

        Args:
            prefix: The beginning of an id; all ids if it is empty.
            limit: Maximum number of jobs.
        """
        columns = (jobs.c.id, jobs.c.operation, jobs.c.status)
        statement = select(*columns).order_by(jobs.c.created_at.desc())
        if prefix:
            statement = statement.where(begins(jobs.c.id, prefix))
        found = await self._fetch(statement.limit(limit))
        return [(row["id"], row["operation"], row["status"]) for row in found]

    async def operations(self, prefix: str, *, limit: int) -> list[str]:
        """Return the names of operations that begin with *prefix*, in binary order.

        Args:
            prefix: The beginning of a name; all names if it is empty.
            limit: Maximum number of names.
        """
        found: list[str] = []
        # One search of the index for each name; DISTINCT would read all jobs of all operations.
        where = jobs.c.operation >= prefix
        while len(found) < limit:
            (row,) = await self._fetch(
                select(func.min(jobs.c.operation).label("name")).where(where)
            )
            if row["name"] is None or not row["name"].startswith(prefix):
                break
            found.append(row["name"])
            where = jobs.c.operation > row["name"]
        return found

    async def errors(self, prefix: str, *, limit: int) -> list[ErrorGroup]:
        """Return the last seen errors whose fingerprints begin with *prefix*.

        Args:
            prefix: The beginning of a fingerprint; all errors if it is empty.
            limit: Maximum number of errors.
        """
        return await errors.groups(self._fetch, errors.begin_with(prefix), (), limit)

    # -- many jobs at once
    # --------------------------------------------------------------------------

    async def families(self, roots: Sequence[JobRecord]) -> dict[str, Family]:
        """Return what `structjob.queries.families.families` does."""
        return await families(self._fetch, roots)

    async def step_progress(self, ids: Sequence[str]) -> dict[str, StepProgress]:
        """Return what `structjob.queries.step_progress.look` does."""
        return await step_progress.look(self._fetch, ids)

    async def operations_of(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the operations of these jobs by id. Ids that do not exist are left out."""
        found: dict[str, str] = {}
        for some in portions(sorted(set(ids)), _AT_ONCE):
            statement = select(jobs.c.id, jobs.c.operation).where(jobs.c.id.in_(some))
            found |= {row["id"]: row["operation"] for row in await self._fetch(statement)}
        return found

    async def attempts_and_steps(
        self, ids: Sequence[str]
    ) -> tuple[dict[str, list[AttemptRecord]], dict[tuple[str, int], list[StepRecord]]]:
        """Return the attempts at these jobs by the jobs' ids, and the steps by job and attempt.

        Both are in their order. This takes two queries for 100 jobs.
        """
        tried: dict[str, list[AttemptRecord]] = {}
        taken: dict[tuple[str, int], list[StepRecord]] = {}
        for some in portions(ids, _AT_ONCE):
            of_jobs = select(attempts).where(attempts.c.job_id.in_(some))
            for row in await self._fetch(of_jobs.order_by(attempts.c.job_id, attempts.c.attempt)):
                tried.setdefault(row["job_id"], []).append(rows.attempt(row))
            of_attempts = select(steps).where(steps.c.job_id.in_(some))
            for row in await self._fetch(of_attempts):
                taken.setdefault((row["job_id"], row["attempt"]), []).append(rows.step(row))
        return tried, {attempt: in_order(found) for attempt, found in taken.items()}

    async def sessions(self, ids: Sequence[int]) -> dict[int, SessionRecord]:
        """Return what `structjob.queries.session_status.records` does."""
        return await session_status.records(self._fetch, ids)

    async def silences(self, ids: Collection[int]) -> dict[int, Silence]:
        """Return what `structjob.queries.session_status.silences` does."""
        return await session_status.silences(self._fetch, ids)

    # -- one job
    # --------------------------------------------------------------------------

    async def overview(
        self, job: JobRecord, *, room: int | None, depth: int | None = None, failed: bool = False
    ) -> Overview:
        """Return what `structjob.queries.overview.overview` does."""
        return await overview(self._fetch, job, room=room, depth=depth, failed=failed)

    async def estimate(self, found: Overview) -> Estimate:
        """Return an estimate for the job of an `overview`, and for its steps that are shown.

        It does not read them again; see `structjob.queries.jobs.Jobs.estimate`.
        """
        job, shown = found.tree.job, found.tree.steps
        count = sum(found.steps.values())
        return await estimates.look(self._fetch, job, shown, self._now(), of=count)
