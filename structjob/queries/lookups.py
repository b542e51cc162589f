"""What the command line and an export read, and users of the library do not.

Users have `structjob.queries.jobs.Jobs`; `structjob.queries.jobs.lookups_of` leads from it to these
reads. None of them delivers pending events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial

from sqlalchemy import func, select

from structjob.models import AttemptRecord, StepRecord
from structjob.queries import errors, estimates, rows, session_status, step_progress
from structjob.queries.families import families
from structjob.queries.job_finder import JobFinder
from structjob.queries.overview import Overview, overview
from structjob.queries.tree import in_order
from structjob.statistics import ErrorGroup, Estimate
from structjob.store.contract import Fetch
from structjob.store.expressions import begins
from structjob.store.tables import attempts, jobs, steps


class Lookups:
    """Reads for people who type ids, and for screens that show many jobs.

    Those that are functions of other modules are attributes, with the store bound.

    Args:
        finder: Finds single jobs.
        now: The clock for running times.
    """

    def __init__(self, fetch: Fetch, finder: JobFinder, now: Callable[[], datetime]) -> None:
        self._fetch = fetch
        self._now = now
        self.by_prefix = finder.by_prefix
        self.by_suffix = finder.by_suffix
        self.families = partial(families, fetch)
        self.step_progress = partial(step_progress.look, fetch)
        self.sessions = partial(session_status.records, fetch)
        self.silences = partial(session_status.silences, fetch)
        self.overview = partial(overview, fetch)

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

    async def operations_of(self, ids: Collection[str]) -> dict[str, str]:
        """Return the operations of these jobs by id. Ids that do not exist are left out."""
        named = select(jobs.c.id, jobs.c.operation)
        found = await rows.read_many(self._fetch, named, jobs.c.id, ids)
        return {row["id"]: row["operation"] for row in found}

    async def attempts_and_steps(
        self, ids: Collection[str]
    ) -> tuple[dict[str, list[AttemptRecord]], dict[tuple[str, int], list[StepRecord]]]:
        """Return the attempts at these jobs by the jobs' ids, and the steps by job and attempt.

        Both are in their order. This takes two queries for 500 jobs.
        """
        tried: dict[str, list[AttemptRecord]] = {}
        taken: dict[tuple[str, int], list[StepRecord]] = {}
        read = partial(rows.read_many, self._fetch)
        ordered = select(attempts).order_by(attempts.c.job_id, attempts.c.attempt)
        for row in await read(ordered, attempts.c.job_id, ids):
            tried.setdefault(row["job_id"], []).append(rows.attempt(row))
        for row in await read(select(steps), steps.c.job_id, ids):
            taken.setdefault((row["job_id"], row["attempt"]), []).append(rows.step(row))
        return tried, {attempt: in_order(found) for attempt, found in taken.items()}

    # -- one job
    # --------------------------------------------------------------------------

    async def estimate(self, found: Overview) -> Estimate:
        """Return an estimate for the job of an `overview`, and for its steps that are shown.

        It does not read them again; see `structjob.queries.jobs.Jobs.estimate`.
        """
        job, shown = found.tree.job, found.tree.steps
        count = sum(found.steps.values())
        return await estimates.look(self._fetch, job, shown, self._now(), of=count)
