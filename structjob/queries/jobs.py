"""Find jobs: by any id, in pages, with their progress, steps, attempts and children."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Unpack, overload

import msgspec
from sqlalchemy import ColumnElement, Text, case, cast, func, select

from structjob.exceptions import InvalidFilter, JobNotFound, NotOpen
from structjob.filters import AttemptFilter, AttemptFilterKeywords, JobFilter, JobFilterKeywords
from structjob.models import (
    AnyJob,
    AttemptRecord,
    JobProgress,
    JobRecord,
    JobTree,
    Page,
    PruneResult,
    StepRecord,
)
from structjob.queries import estimates, rows, step_progress
from structjob.queries.job_finder import JobFinder
from structjob.queries.job_listing import by_duration, conditions, listing_of, slower_ones
from structjob.queries.job_watch import JobWatch
from structjob.queries.lookups import Lookups
from structjob.queries.paging import Listing, count_all, count_by, fingerprint, merged, read_page
from structjob.queries.tree import grown, in_order, members
from structjob.statistics import Estimate, Expectation
from structjob.statuses import JobStatus, StepStatus
from structjob.store.contract import Fetch, Flush
from structjob.store.expressions import equals, equals_any, within
from structjob.store.tables import attempts, gaps, jobs, steps

Delete = Callable[[str], Awaitable[PruneResult]]
"""A function that deletes a job by its id."""

_BATCH = 1_000
"""Number of jobs that an iteration reads at a time."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds between two checks whether a job has ended: the first and the longest pause."""


class Jobs:
    """Reads the jobs in the store.

    Each read first delivers pending events, so a program always reads its own writes.

    Args:
        finder: Finds single jobs.
        delete: Deletes a job by its id; only a tracker can.
        now: The clock for running times.
    """

    def __init__(
        self,
        fetch: Fetch,
        flush: Flush,
        *,
        finder: JobFinder | None = None,
        delete: Delete | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._delete = delete
        self._fetch = fetch
        self._flush = flush
        self._finder = finder or JobFinder(fetch)
        self._now = now
        self._lookups = Lookups(fetch, self._finder, now)

    async def get(self, id: str) -> JobRecord:
        """Return the job with exactly this id.

        Args:
            id: structjob's own id of the job. `find` also accepts external ids and context ids.

        Raises:
            JobNotFound: if there is no such job. The message names the job that `find` would
                return.
        """
        await self._flush()
        return await self._finder.get(id)

    async def find(self, any_id: AnyJob) -> JobRecord:
        """Return the job with this id, external id or context id, in this order.

        If several jobs match, return the newest.

        Args:
            any_id: An id; or a `Job` or `JobRecord`, to read it again.

        Raises:
            JobNotFound: if there is no such job, and *resolve_id* does not know it.
        """
        await self._flush()
        return await self._finder.find(any_id)

    async def expectations(self, records: Sequence[JobRecord]) -> dict[str, Expectation]:
        """Return how long these jobs take, or took, compared with earlier ones, by the jobs' ids.

        They are compared as by `estimate`, without their steps. Jobs that have not started are left
        out. This takes one query for 25 jobs.
        """
        await self._flush()
        return await estimates.expectations(self._fetch, records, self._now())

    async def by_external_id(self, external_job_id: str) -> JobRecord:
        """Return the newest job with this external id.

        Raises:
            JobNotFound: if there is no such job.
        """
        await self._flush()
        return await self._finder.by_external_id(external_job_id)

    async def by_context_id(self, context_id: str) -> builtins.list[JobRecord]:
        """Return the jobs with this context id, the newest first.

        The list is empty if there is no such job.
        """
        await self._flush()
        return await self._finder.by_context_id(context_id)

    async def list(
        self,
        filter: JobFilter | None = None,
        *,
        cursor: str | None = None,
        **filters: Unpack[JobFilterKeywords],
    ) -> Page[JobRecord]:
        """Return one page of the matching jobs, in the order of their creation.

        Args:
            filter: Which jobs to list. By default all jobs, newest first, 100 per page.
            cursor: The ``next_cursor`` or ``previous_cursor`` of another page of the same query.
            **filters: Fields of `JobFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown, its value is invalid, or the cursor belongs to
                another query.
        """
        wanted = merged(JobFilter, filter, filters)
        listing = await self._listing(wanted)
        if wanted.sort == "duration":
            return await by_duration(self._fetch, listing, cursor)
        if wanted.slower:
            return await slower_ones(self._fetch, listing, cursor, self._now())
        return await read_page(self._fetch, listing, cursor, rows.job)

    async def iterate(
        self, filter: JobFilter | None = None, **filters: Unpack[JobFilterKeywords]
    ) -> AsyncIterator[JobRecord]:
        """Yield every matching job, in the order of their creation.

        Jobs that are created during the iteration are included only with ``order="asc"``.

        Args:
            filter: Which jobs to read, newest first by default. Its ``limit`` is the number of rows
                read at a time.
            **filters: Fields of `JobFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        if filter is None and "limit" not in filters:
            filters["limit"] = _BATCH
        wanted = merged(JobFilter, filter, filters)
        cursor: str | None = None
        while True:
            page = await self.list(wanted, cursor=cursor)
            for job in page:
                yield job
            cursor = page.next_cursor
            if cursor is None:
                return

    async def count(
        self, filter: JobFilter | None = None, **filters: Unpack[JobFilterKeywords]
    ) -> int:
        """Return the number of matching jobs. ``limit``, ``order`` and ``sort`` have no effect.

        A search in ``metadata`` has no index, and looks at 100,000 jobs at a time.

        Raises:
            InvalidFilter: if a filter is unknown, its value is invalid, or ``slower`` is set.
        """
        return await count_all(self._fetch, await self._counted(merged(JobFilter, filter, filters)))

    async def count_by_status(
        self, filter: JobFilter | None = None, **filters: Unpack[JobFilterKeywords]
    ) -> dict[JobStatus, int]:
        """Return the number of matching jobs of each status; see `count`.

        Raises:
            InvalidFilter: as for `count`.
        """
        listing = await self._counted(merged(JobFilter, filter, filters))
        found = await count_by(self._fetch, listing, jobs.c.status)
        return {status: found[status.value,] for status in JobStatus}

    async def count_by_operation(
        self, filter: JobFilter | None = None, **filters: Unpack[JobFilterKeywords]
    ) -> dict[str, dict[JobStatus, int]]:
        """Return the number of matching jobs of each operation by status; see `count`.

        Raises:
            InvalidFilter: as for `count`.
        """
        listing = await self._counted(merged(JobFilter, filter, filters))
        found = await count_by(self._fetch, listing, jobs.c.operation, jobs.c.status)
        return {
            operation: {status: found[operation, status.value] for status in JobStatus}
            for operation in sorted({operation for operation, _ in found})
        }

    async def _counted(self, wanted: JobFilter) -> Listing:
        """Return the listing for *wanted*, to be counted."""
        if wanted.slower:
            raise InvalidFilter(
                "slower jobs are not counted: list them with jobs.list(slower=True)"
            )
        return await self._listing(replace(wanted, order="asc"))

    async def children(self, any_id: AnyJob) -> builtins.list[JobRecord]:
        """Return the child jobs of a job, the oldest first, without their own children.

        Args:
            any_id: The job, as for `find`.

        Raises:
            JobNotFound: if there is no such job.
        """
        parent = await self.find(any_id)
        return [job async for job in self.iterate(parent_job_id=parent, order="asc", limit=_BATCH)]

    async def wait(self, any_id: AnyJob, timeout: float | None = None) -> JobRecord:  # noqa: ASYNC109 -- it covers several awaits
        """Wait until a job has ended, in whichever process it runs, and return it.

        The database is queried at once, then 20 times a second, slowing down to once a second.

        Args:
            any_id: The job, as for `find`.
            timeout: Maximum seconds to wait; None: no limit.

        Raises:
            JobNotFound: if there is no such job.
            TimeoutError: if it has not ended after *timeout* seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        job = await self.find(any_id)
        pause = FIRST_PAUSE
        while not job.status.terminal:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(
                    f"job {job.id} ({job.operation}) is {job.status.value} after {timeout:g} s"
                )
            await asyncio.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, LAST_PAUSE)
            job = await self.find(job)
        return job

    async def delete(self, any_id: AnyJob) -> PruneResult:
        """Permanently delete a job and its descendants, with their attempts, steps and events.

        Only a tracker can do this, not a `structjob.Reader`. The numbers of the deleted events are
        recorded in ``structjob_gaps``, and the counts of errors in ``structjob_errors``. If it is
        interrupted, everything deleted so far stays deleted; delete the job again. If another
        process prunes, this waits up to 30 seconds.

        Args:
            any_id: The job, as for `find`.

        Returns:
            How much was deleted.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if the job or a descendant has not ended.
            NotOpen: if this is a reader.
            PruneInProgress: if another process is still pruning.
            StoreUnavailable: if the database is unavailable.
        """
        if self._delete is None:
            raise NotOpen("a reader cannot delete: open a Tracker, and use tracker.jobs.delete")
        return await self._delete((await self.find(any_id)).id)

    async def _listing(self, wanted: JobFilter) -> Listing:
        """Return the listing for *wanted*, after all pending events are delivered."""
        conditions(wanted)  # refuse an invalid filter before the flush
        await self._flush()
        for name in ("parent_job_id", "root_job_id"):
            if (given := getattr(wanted, name)) is not None:
                changed: Any = {name: await self._finder.exact_id(given)}
                wanted = replace(wanted, **changed)
        return listing_of(wanted)

    async def lost_events(self, any_id: AnyJob) -> dict[str, int]:
        """Return the number of a job's lost events by reason: ``spool_full``, ``queue_full``, ….

        The events of its child jobs are not included.

        Raises:
            JobNotFound: if there is no such job, and *resolve_id* does not know *any_id*.
        """
        job_id = (await self.find(any_id)).id
        # Few rows contain job ids. A text search finds the rows that may contain this one.
        named = cast(gaps.c.jobs, Text).contains(
            msgspec.json.encode(job_id).decode(), autoescape=True
        )
        counts: dict[str, int] = {}
        for row in await self._fetch(
            select(gaps.c.reason, gaps.c.jobs).where(gaps.c.jobs.is_not(None), named)
        ):
            if count := row["jobs"].get(job_id, 0):
                counts[row["reason"]] = counts.get(row["reason"], 0) + count
        return counts

    async def progress(self, any_id: AnyJob) -> JobProgress:
        """Return the progress of a job.

        Args:
            any_id: The job, as for `find`.

        Raises:
            JobNotFound: if there is no such job.
        """
        job = await self.find(any_id)
        completed = func.count(case((steps.c.status == StepStatus.COMPLETED.value, 1)))
        # Attempts that were retried do not count as steps.
        mine = (
            (steps.c.job_id == job.id)
            & (steps.c.attempt == job.attempt)
            & (steps.c.status != StepStatus.RETRYING.value)
        )
        numbers = (
            func.count().label("total"),
            completed.label("completed"),
            step_progress.share().label("share"),
        )
        (counted,) = await self._fetch(select(*numbers).where(mine).select_from(steps))
        children = await self._fetch(
            select(jobs.c.id)
            .where(jobs.c.parent_job_id == job.id)
            .order_by(jobs.c.created_at, jobs.c.id)
        )
        reported = (
            (counted["share"] or 0.0) if job.percent_complete is None else job.percent_complete
        )
        return JobProgress(
            job_id=job.id,
            status=job.status,
            operation=job.operation,
            completed_steps=counted["completed"],
            total_steps=counted["total"],
            step_completion=100.0 * counted["completed"] / counted["total"]
            if counted["total"]
            else 0.0,
            runtime_seconds=self._runtime(job),
            percent=100.0 if job.status is JobStatus.COMPLETED else reported,
            current_step=job.current_step,
            attempt=job.attempt,
            parent_job_id=job.parent_job_id,
            child_ids=tuple(row["id"] for row in children),
            external_job_id=job.external_job_id,
            context_id=job.context_id,
        )

    async def estimate(self, any_id: AnyJob, *, steps: bool = True) -> Estimate:
        """Return an estimate for a job and its steps.

        It compares their durations with the last 100 jobs of the same operation that were completed
        before the job.

        Args:
            any_id: The job, as for `find`.
            steps: Whether to include its steps; True by default. Without them it is quick for a job
                with thousands of steps.

        Raises:
            JobNotFound: if there is no such job.
        """
        job = await self.find(any_id)
        done = await self.steps(job.id) if steps else ()
        return await estimates.look(self._fetch, job, done, self._now())

    async def tree(self, any_id: AnyJob) -> JobTree:
        """Return a job with its steps and all of its descendants with their steps.

        Args:
            any_id: The job, as for `find`.

        Raises:
            JobNotFound: if there is no such job.
        """
        id_ = (await self.find(any_id)).id
        records, found = await members(self._fetch, id_)
        if not records:
            raise JobNotFound(id_)  # it was deleted just now
        return grown(id_, records, found)

    @overload
    async def history(self, any_id: AnyJob) -> builtins.list[AttemptRecord]: ...
    @overload
    async def history(
        self,
        *,
        filter: AttemptFilter | None = None,
        cursor: str | None = None,
        **filters: Unpack[AttemptFilterKeywords],
    ) -> Page[AttemptRecord]: ...
    async def history(
        self,
        any_id: AnyJob | None = None,
        *,
        filter: AttemptFilter | None = None,
        cursor: str | None = None,
        **filters: Unpack[AttemptFilterKeywords],
    ) -> builtins.list[AttemptRecord] | Page[AttemptRecord]:
        """Return the attempts at a job, oldest first, or a page of the attempts at all jobs.

        The list is empty if the job has not started. Without *any_id*, the page contains the
        attempts at all jobs.

        Args:
            any_id: The job, as for `find`.
            filter: Without *any_id*: which attempts to list. By default all attempts, newest first,
                100 per page. Imported attempts without a start time appear only in the history of
                their job.
            cursor: The ``next_cursor`` or ``previous_cursor`` of another page of the same query.
            **filters: Fields of `AttemptFilter`, instead of *filter* or in addition to it.

        Raises:
            JobNotFound: if there is no such job.
            InvalidFilter: if a filter is unknown, its value is invalid, or the cursor belongs to
                another query. Also if a filter or cursor is given together with *any_id*.
        """
        if any_id is None:
            return await self._attempts(merged(AttemptFilter, filter, filters), cursor)
        if filter is not None or cursor is not None or filters:
            raise InvalidFilter(
                "the history of one job is not filtered: leave its id, or the filters, out"
            )
        job = await self.find(any_id)
        found = await self._fetch(
            select(attempts).where(attempts.c.job_id == job.id).order_by(attempts.c.attempt)
        )
        return [rows.attempt(row) for row in found]

    async def _attempts(self, wanted: AttemptFilter, cursor: str | None) -> Page[AttemptRecord]:
        searches: builtins.list[ColumnElement[bool]] = []
        if wanted.status is not None:
            searches.append(attempts.c.status.in_(wanted.status))
        for name in ("operation", "project"):
            if (value := getattr(wanted, name)) is not None:
                # not EXISTS, see `structjob.queries.job_listing`
                its = select(jobs.c[name]).where(jobs.c.id == attempts.c.job_id).scalar_subquery()
                searches.append(equals_any(name, its, value))
        time = attempts.c.started_at
        listing = Listing(
            table=attempts,
            time=time,
            conditions=(time.is_not(None), *within(time, wanted.since, wanted.until)),
            branches=(),
            order=wanted.order,
            limit=wanted.limit,
            fingerprint=fingerprint("attempts", wanted),
            searches=tuple(searches),
        )
        await self._flush()
        return await read_page(self._fetch, listing, cursor, rows.attempt)

    def watch(self, any_id: AnyJob, *, children: bool = True, since: str | None = None) -> JobWatch:
        """Return a watch that reports the changed rows of a job, its attempts, its steps and its
        descendants.

        ::

            watch = tracker.jobs.watch("gui-17")
            changes = await watch.poll()  # everything, at first
            changes = await watch.poll()  # .jobs, .attempts, .steps that changed since

        It is meant for a page that shows the job. Each ``poll()`` returns the changes since the
        previous one. While nothing changes, a poll is one query. The watch holds the ids of all
        these rows in memory.

        Args:
            any_id: The job, as for `find`.
            children: Whether to watch its descendants, too; True by default.
            since: The ``state`` of a `JobChanges` of an earlier watch of the same job, in any
                process. The first poll then returns the changes since that state, and may return
                some rows again.

        Raises:
            InvalidFilter: if *since* is not a valid state.
        """

        async def find() -> str:
            return (await self._finder.find(any_id)).id

        return JobWatch(self._fetch, self._flush, find, children=children, since=since)

    async def steps(self, any_id: AnyJob, attempt: int | None = None) -> builtins.list[StepRecord]:
        """Return the steps of one attempt at a job, in the order in which they started.

        Args:
            any_id: The job, as for `find`.
            attempt: The attempt's number; None for the latest.

        Raises:
            JobNotFound: if there is no such job.
        """
        job = await self.find(any_id)
        number = equals("attempt", steps.c.attempt, job.attempt if attempt is None else attempt)
        found = await self._fetch(select(steps).where(steps.c.job_id == job.id, number))
        return in_order(rows.step(row) for row in found)

    def _runtime(self, job: JobRecord) -> float:
        """Return the running time of the job's latest attempt in seconds."""
        if job.started_at is None:
            return 0.0
        if job.status.terminal:
            if job.duration_ms is not None:
                return job.duration_ms / 1000
            end = job.completed_at or job.cancelled_at or job.started_at
        else:
            end = self._now()
        # the clocks of two hosts may differ
        return max(0.0, (end - job.started_at).total_seconds())


def lookups_of(jobs: Jobs) -> Lookups:
    """Return the reads of *jobs* that the library itself needs, and users do not."""
    return jobs._lookups  # noqa: SLF001 -- the one way from what users have to what the library uses
