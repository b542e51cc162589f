"""Statistics: outcomes of jobs, steps and projects, numbers of events, and sizes of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, Unpack, overload

from sqlalchemy import ColumnElement, Table, case, func, select

from structjob.exceptions import InvalidFilter
from structjob.filter_checks import Moment, as_utc, check_span, one_or_several, values_of
from structjob.filters import ErrorFilter, ErrorFilterKeywords
from structjob.models import AnyJob, id_of
from structjob.queries import errors, storage, volume
from structjob.queries.buckets import FIRST, Buckets
from structjob.queries.event_counts import ERRORS, MOST_JOBS, event_counts
from structjob.queries.job_finder import JobFinder
from structjob.queries.paging import merged
from structjob.queries.summary import summarised
from structjob.statistics import (
    ErrorInterval,
    ErrorStatistics,
    JobErrors,
    JobEvents,
    OperationStatistics,
    ProjectStatistics,
    StatsFilter,
    StatsFilterKeywords,
    StepStatistics,
    Storage,
    Throughput,
    Volume,
    rate,
    summary,
)
from structjob.statuses import JobStatus, StepStatus
from structjob.store.contract import Fetch, Flush
from structjob.store.expressions import ascending, equals, equals_any, within
from structjob.store.tables import jobs, logs, steps, unusual
from structjob.values.redaction import stored_forms

F = TypeVar("F", StatsFilter, ErrorFilter)

DAY = timedelta(days=1)

_EQUAL = ("operation", "job_type", "owner", "category", "project")
_JOB_COLUMNS = {
    name: jobs.c[name] for name in ("status", "duration_ms", "attempt", "cpu_ms", "max_rss_kb")
}
_FURTHER = {"attempts": "sum attempt", "avg_cpu_ms": "avg cpu_ms", "max_rss_kb": "max max_rss_kb"}
_STEP_COLUMNS = {name: steps.c[name] for name in ("status", "duration_ms")}

_JOB_TIMES: Mapping[str, ColumnElement[Any]] = {
    "created": jobs.c.created_at,
    "ended": jobs.c.completed_at,
}
_STEP_TIMES: Mapping[str, ColumnElement[Any]] = {
    "created": steps.c.started_at,
    "ended": steps.c.completed_at,
}


class Statistics:
    """Computes statistics of the data in the store.

    Each read first delivers pending events, so a program always reads its own writes.

    Args:
        finder: Finds the job of an id.
        now: The clock for the end of a window without ``until``.
    """

    def __init__(
        self,
        fetch: Fetch,
        flush: Flush,
        finder: JobFinder | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fetch = fetch
        self._flush = flush
        self._finder = finder or JobFinder(fetch)
        self._now = now

    async def operations(
        self, filter: StatsFilter | None = None, **filters: Unpack[StatsFilterKeywords]
    ) -> list[OperationStatistics]:
        """Return outcomes and durations of the jobs of each operation, the largest operation first.

        Args:
            filter: Which jobs to include; all by default.
            **filters: Fields of `StatsFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        wanted = merged(StatsFilter, filter, filters)
        return [
            OperationStatistics(**row)
            for row in await self._of_jobs(wanted, {"operation": jobs.c.operation})
        ]

    async def projects(
        self, filter: StatsFilter | None = None, **filters: Unpack[StatsFilterKeywords]
    ) -> list[ProjectStatistics]:
        """Return outcomes and durations of the jobs of each project, the largest project first.

        Jobs without a project are in the group None.

        Args:
            filter: Which jobs to include; all by default.
            **filters: Fields of `StatsFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        wanted = merged(StatsFilter, filter, filters)
        return [
            ProjectStatistics(**row)
            for row in await self._of_jobs(wanted, {"project": jobs.c.project})
        ]

    async def throughput(
        self,
        bucket: timedelta = timedelta(hours=1),
        filter: StatsFilter | None = None,
        **filters: Unpack[StatsFilterKeywords],
    ) -> list[Throughput]:
        """Return outcomes and durations of the jobs in each interval, the oldest interval first.

        A job belongs to the interval in which it was created, or with ``by="ended"``, in which it
        ended. The first interval starts with the window. So a window from midnight has the days of
        its own time zone.

        Args:
            bucket: Length of an interval, at least 1 second; 1 hour by default. The last interval
                ends with the window and may be shorter.
            filter: Which jobs to include. By default the 24 hours before ``until``, which is now by
                default. ``limit`` has no effect.
            **filters: Fields of `StatsFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidArgument: if there would be more than 10,000 intervals, or *bucket* is too short.
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        wanted, buckets = self._intervals(StatsFilter, bucket, filter, filters)
        rows = await self._of_jobs(
            wanted, {"start": buckets.start_of(_JOB_TIMES[wanted.by])}, limited=False
        )
        return _throughput(rows, buckets)

    async def throughput_by_operation(
        self,
        bucket: timedelta = timedelta(hours=1),
        filter: StatsFilter | None = None,
        **filters: Unpack[StatsFilterKeywords],
    ) -> dict[str, list[Throughput]]:
        """Return for each operation what `throughput` returns, by its name.

        This takes one query. The operations are those of the filter; without any, all that have
        jobs in the window.

        Args:
            bucket: See `throughput`, also for the other arguments.
            filter: Which jobs to include.
            **filters: Fields of `StatsFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidArgument: see `throughput`.
            InvalidFilter: see `throughput`.
        """
        wanted, buckets = self._intervals(StatsFilter, bucket, filter, filters)
        keys = {"operation": jobs.c.operation, "start": buckets.start_of(_JOB_TIMES[wanted.by])}
        found: dict[str, list[dict[str, Any]]] = {}
        for row in await self._of_jobs(wanted, keys, limited=False):
            found.setdefault(row.pop("operation"), []).append(row)
        return {
            name: _throughput(
                [row for form in stored_forms(name) for row in found.get(form, ())], buckets
            )
            for name in values_of(wanted.operation) or sorted(found)
        }

    async def steps(
        self, filter: StatsFilter | None = None, **filters: Unpack[StatsFilterKeywords]
    ) -> list[StepStatistics]:
        """Return outcomes and durations of the steps of each name in each operation, the largest
        group first.

        Args:
            filter: Which steps to include; all by default. ``since`` and ``until`` refer to the
                start of the step, or with ``by="ended"`` to its end. All other fields refer to its
                job.
            **filters: Fields of `StatsFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        wanted = merged(StatsFilter, filter, filters)
        conditions = (*_of_window(_STEP_TIMES, wanted), *_equal(wanted))
        keys = {"operation": jobs.c.operation, "step": steps.c.name}
        source = steps.join(jobs, jobs.c.id == steps.c.job_id)
        found = summarised(source, keys, StepStatus, conditions, _STEP_COLUMNS).order_by(
            func.count().desc(), "operation", "step"
        )
        await self._flush()
        return [
            StepStatistics(**summary(row)) for row in await self._fetch(found.limit(wanted.limit))
        ]

    @overload
    async def errors(
        self,
        filter: ErrorFilter | None = None,
        *,
        bucket: None = None,
        **filters: Unpack[ErrorFilterKeywords],
    ) -> list[ErrorStatistics]: ...
    @overload
    async def errors(
        self,
        filter: ErrorFilter | None = None,
        *,
        bucket: timedelta,
        **filters: Unpack[ErrorFilterKeywords],
    ) -> list[ErrorInterval]: ...
    async def errors(
        self,
        filter: ErrorFilter | None = None,
        *,
        bucket: timedelta | None = None,
        **filters: Unpack[ErrorFilterKeywords],
    ) -> list[ErrorStatistics] | list[ErrorInterval]:
        """Return the number of errors of each type, step and operation, the most frequent first; or
        with *bucket*, the number of errors in each interval by type, the oldest interval first.

        An exception that passes through steps, jobs and log calls is one occurrence, at the place
        of its first report. For single errors see `structjob.queries.errors.Errors`.

        Args:
            filter: Which occurrences to count; all by default. With *bucket*, by default those of
                the 24 hours before ``until``, which is now by default; ``limit`` then has no
                effect.
            bucket: Length of an interval, at least 1 second. The first interval starts with the
                window, and the last one ends with it and may be shorter.
            **filters: Fields of `ErrorFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidArgument: if there would be more than 10,000 intervals, or *bucket* is too short.
            InvalidFilter: if a filter is unknown, its value is invalid, or it has a *status* or an
                *outcome*.
        """
        buckets = None
        if bucket is None:
            wanted = merged(ErrorFilter, filter, filters)
        else:
            wanted, buckets = self._intervals(ErrorFilter, bucket, filter, filters)
        wanted = _of_occurrences("errors", wanted)
        errors.occurrences(wanted)  # refuse invalid values before the flush
        await self._flush()
        if wanted.job is not None:
            wanted = replace(wanted, job=await self._finder.exact_id(wanted.job))
        if buckets is not None:
            return await errors.count_over_time(self._fetch, wanted, buckets)
        return await errors.count(self._fetch, wanted)

    async def errors_by_job(
        self, filter: ErrorFilter | None = None, **filters: Unpack[ErrorFilterKeywords]
    ) -> list[JobErrors]:
        """Return the jobs with error events and the number of these events, the most first.

        Args:
            filter: Which events to count; all by default. *job* names one job, which is returned
                even if it has no errors.
            **filters: Fields of `ErrorFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown, its value is invalid, or it has a *status* or an
                *outcome*.
        """
        wanted = _of_occurrences("errors_by_job", merged(ErrorFilter, filter, filters))
        then = within(logs.c.ts, wanted.since, wanted.until)
        names = ("operation", "step", "project")
        narrowed = _given(logs, {name: getattr(wanted, name) for name in names})
        if wanted.job is not None:
            equals("job", logs.c.job_id, wanted.job)
        await self._flush()
        mine: tuple[ColumnElement[bool], ...] = ()
        if wanted.job is not None:
            mine = (logs.c.job_id == await self._finder.exact_id(wanted.job),)
        count = func.count(case((logs.c.level.in_(ERRORS), 1)))
        # Events of these levels are few, and have an index. The events of a job have another index.
        unusual_only = (
            () if mine else (unusual("level"), logs.c.level.in_(ERRORS), logs.c.job_id.is_not(None))
        )
        most = (
            select(logs.c.job_id, count.label("errors"))
            .where(*then, *narrowed, *mine, *unusual_only)
            .group_by(logs.c.job_id)
            .order_by(count.desc(), logs.c.job_id)
            .limit(wanted.limit)
            .subquery("most")
        )
        every = logs.alias("every")
        total = (
            select(func.count())
            .where(every.c.job_id == most.c.job_id, *within(every.c.ts, wanted.since, wanted.until))
            .scalar_subquery()
        )
        statement = (
            select(
                most.c.job_id, most.c.errors, total.label("total"), jobs.c.operation, jobs.c.status
            )
            .select_from(most.outerjoin(jobs, jobs.c.id == most.c.job_id))
            .order_by(most.c.errors.desc(), most.c.job_id)
        )
        return [_job_errors(row) for row in await self._fetch(statement)]

    async def events_by_job(self, jobs: Sequence[AnyJob]) -> list[JobEvents]:
        """Return how many events, warnings and errors each of these jobs has.

        The events of a job include those of its descendants. The result is in the order of *jobs*;
        an id that names no job is left out. A number is None if more than 200,000 entries of an
        index, or more than 1,000 descendants, would have to be read for it.

        Args:
            jobs: At most 100 jobs: their own ids, `Job` or `JobRecord`.

        Raises:
            InvalidFilter: if there are more, or an id is invalid.
        """
        ids = [id_of(job) for job in jobs]
        if len(ids) > MOST_JOBS:
            raise InvalidFilter(
                f"events_by_job takes at most {MOST_JOBS} jobs, not {len(ids)}: ask for fewer at a time"
            )
        for id_ in ids:
            equals("jobs", logs.c.job_id, id_)  # refuse invalid values before the flush
        await self._flush()
        return await event_counts(self._fetch, ids) if ids else []

    async def volume(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        project: str | Sequence[str] | None = None,
    ) -> Volume:
        """Return the number of events: in total, and by type, level and category.

        They are counted in the indexes, at some millions a second. Set a time window if there are
        very many.

        Args:
            since: Events from this time on.
            until: Events before this time.
            project: Events of this project, or of several. This examines all events of the window.

        Raises:
            InvalidFilter: if a value is invalid.
        """
        since, until = _span(since, until)
        projects = one_or_several("project", project)
        _given(logs, {"project": projects})
        await self._flush()
        return await volume.count(self._fetch, since, until, projects)

    async def storage(self, *, quick: bool = False) -> Storage:
        """Return the number of rows and bytes of each table, the largest first.

        Rows are counted, which takes some seconds if there are very many. Bytes are the database's
        own figures. SQLite examines the whole file, which takes as long as reading it. MariaDB and
        MySQL return estimates that may be one day old.

        Args:
            quick: Return only the total bytes, at once; ``tables`` is then empty. On SQLite this is
                the size of the file, including free space and the tables of an application that
                shares the file. False by default.
        """
        await self._flush()
        return await (storage.measure_whole if quick else storage.measure)(self._fetch)

    def _intervals(
        self, kind: type[F], bucket: timedelta, filter: F | None, filters: Mapping[str, Any]
    ) -> tuple[F, Buckets]:
        """Return the filter and the intervals of its window: by default the 24 hours before its
        end, or before now.
        """
        # The end of the window comes before a relative start is computed. So the last 3 hours are
        # 3 intervals of an hour, and not also one of some microseconds.
        if filter is None:
            filters = {"until": self._now(), **filters}
        wanted = merged(kind, filter, filters)
        until = wanted.until or self._now()
        assert isinstance(until, datetime)  # noqa: S101 -- a filter's times are datetimes
        since = wanted.since or until - min(DAY, until - FIRST)
        wanted = merged(kind, wanted, {"since": since, "until": until})
        return wanted, Buckets(since, until, bucket)  # type: ignore[arg-type]  # both are already datetimes

    async def _of_jobs(
        self, wanted: StatsFilter, keys: Mapping[str, ColumnElement[Any]], *, limited: bool = True
    ) -> list[dict[str, Any]]:
        conditions = (*_of_window(_JOB_TIMES, wanted), *_equal(wanted))
        found = summarised(jobs, keys, JobStatus, conditions, _JOB_COLUMNS, _FURTHER)
        if limited:
            found = found.order_by(
                func.count().desc(), *ascending(found.selected_columns[name] for name in keys)
            ).limit(wanted.limit)
        await self._flush()
        # Some databases return a sum of integers as a decimal, others as a float or an integer.
        return [
            {**summary(row), "attempts": int(row["attempts"])} for row in await self._fetch(found)
        ]


def _throughput(rows: Iterable[dict[str, Any]], buckets: Buckets) -> list[Throughput]:
    """Return the intervals, with *rows* by the start of their interval."""
    found = {row["start"]: row for row in rows}
    nothing = _nothing()
    return [
        Throughput(**{**found.get(number, nothing), "start": start, "end": end})
        for number, start, end in buckets
    ]


def _of_window(
    times: Mapping[str, ColumnElement[Any]], wanted: StatsFilter
) -> tuple[ColumnElement[bool], ...]:
    found = within(times[wanted.by], wanted.since, wanted.until)
    return found or ((times["ended"].is_not(None),) if wanted.by == "ended" else ())


def _span(since: Moment | None, until: Moment | None) -> tuple[datetime | None, datetime | None]:
    first, last = as_utc("since", since), as_utc("until", until)
    check_span(first, last)
    return first, last


def _of_occurrences(what: str, wanted: ErrorFilter) -> ErrorFilter:
    if wanted.status is not None or wanted.outcome is not None:
        raise InvalidFilter(
            f"stats.{what} counts occurrences, which have no status and no outcome: errors.list has both"
        )
    return wanted


def _equal(wanted: StatsFilter) -> tuple[ColumnElement[bool], ...]:
    return _given(jobs, {name: getattr(wanted, name) for name in _EQUAL})


def _given(table: Table, values: Mapping[str, Any]) -> tuple[ColumnElement[bool], ...]:
    return tuple(
        equals_any(name, table.c[name], value)
        for name, value in values.items()
        if value is not None
    )


def _nothing() -> dict[str, Any]:
    durations = ("avg_ms", "p50_ms", "p95_ms", "p99_ms", "avg_cpu_ms", "max_rss_kb")
    counts = dict.fromkeys(("total", "attempts", *(status.value for status in JobStatus)), 0)
    return summary({**counts, **dict.fromkeys(durations)})


def _job_errors(row: Mapping[Any, Any]) -> JobErrors:
    status = None if row["status"] is None else JobStatus(row["status"])
    return JobErrors(
        **{**row, "status": status, "error_rate": rate(row["errors"], row["total"]) or 0.0}
    )
