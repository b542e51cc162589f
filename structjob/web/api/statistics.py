"""Statistics, the same as those of `tracker.stats`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import msgspec
from fastapi import APIRouter
from pydantic import Field

from structjob.filters import make_filter
from structjob.statistics import (
    ErrorInterval,
    ErrorStatistics,
    JobErrors,
    JobEvents,
    OperationStatistics,
    ProjectStatistics,
    StatsFilter,
    StepStatistics,
    Throughput,
    Volume,
)
from structjob.web.answers import Reads, reads
from structjob.web.params import (
    BUCKET,
    LIMIT,
    SINCE,
    UNTIL,
    Asked,
    JobMatch,
    Moment,
    Query,
    Several,
    Span,
)

router = APIRouter(prefix="/statistics", tags=["statistics"])


class StatsQuery(Query):
    """Parameters of statistics of jobs; see `structjob.StatsFilter`."""

    by: Literal["created", "ended"] = Field(
        default="created", description="What the window is about."
    )
    since: Moment | None = SINCE
    until: Moment | None = UNTIL
    operation: Several | None = None
    job_type: Several | None = None
    owner: Several | None = None
    category: Several | None = None
    project: Several | None = None
    limit: int = LIMIT

    def filter(self) -> StatsFilter:
        """Return the filter.

        Raises:
            InvalidFilter: if a value is refused.
        """
        return make_filter(StatsFilter, **self.given("bucket"))


class ThroughputQuery(StatsQuery):
    """Parameters of the throughput."""

    bucket: Span = BUCKET


class Trend(msgspec.Struct):
    """How long the completed jobs of an operation took, interval by interval."""

    operation: str
    p95_ms: list[float | None]
    """One value for each interval of the window; null where none completed."""


class TrendsQuery(ThroughputQuery):
    """Parameters of the trends."""

    operation: Several = Field(description="The operations, 50 at most.", examples=["nightly"])


class ErrorStatsQuery(Query):
    """Parameters of statistics of errors; see `structjob.ErrorFilter`."""

    since: Moment | None = SINCE
    until: Moment | None = UNTIL
    operation: Several | None = None
    step: Several | None = None
    job: str | None = Field(default=None, description="Any id of one job.")
    project: Several | None = None
    limit: int = LIMIT


class ErrorTimesQuery(ErrorStatsQuery):
    """Parameters of the number of errors by time."""

    bucket: Span = BUCKET


class EventsQuery(Query):
    """Parameters of the number of events by job."""

    # an id may contain a comma, so they are not separated by commas
    job: list[str] = Field(
        description="The job's own id. Repeat the parameter for more jobs, 100 at most."
    )


class VolumeQuery(Query):
    """Parameters of the volume."""

    since: Moment | None = SINCE
    until: Moment | None = UNTIL
    project: Several | None = None


@reads(router, "/operations", list[OperationStatistics])
async def count_by_operation(reader: Reads, query: Asked[StatsQuery]) -> Any:
    """Return outcomes and durations of jobs by operation."""
    return await reader.stats.operations(query.filter())


@reads(router, "/jobs", dict[str, int])
async def count_by_status(reader: Reads, query: Asked[JobMatch]) -> Any:
    """Return the number of matching jobs of each status."""
    return await reader.jobs.count_by_status(query.filter())


@reads(router, "/projects", list[ProjectStatistics])
async def count_by_project(reader: Reads, query: Asked[StatsQuery]) -> Any:
    """Return outcomes and durations of jobs by project."""
    return await reader.stats.projects(query.filter())


@reads(router, "/steps", list[StepStatistics])
async def count_by_step(reader: Reads, query: Asked[StatsQuery]) -> Any:
    """Return outcomes and durations of steps by operation and name."""
    return await reader.stats.steps(query.filter())


@reads(router, "/throughput", list[Throughput])
async def count_by_time(reader: Reads, query: Asked[ThroughputQuery]) -> Any:
    """Return outcomes and durations of jobs by time interval, oldest first."""
    bucket: timedelta = query.bucket  # type: ignore[assignment]  # what its validator returns
    return await reader.stats.throughput(bucket, query.filter())


@reads(router, "/trends", list[Trend])
async def read_trends(reader: Reads, query: Asked[TrendsQuery]) -> Any:
    """Return the p95 of the durations of each operation by time interval, oldest first."""
    bucket: timedelta = query.bucket  # type: ignore[assignment]  # what its validator returns
    found = await reader.stats.throughput_by_operation(bucket, query.filter())
    return [
        Trend(operation, [interval.p95_ms for interval in each])
        for operation, each in found.items()
    ]


@reads(router, "/errors", list[ErrorStatistics])
async def count_errors(reader: Reads, query: Asked[ErrorStatsQuery]) -> Any:
    """Return how often errors occurred, by type, step and operation."""
    return await reader.stats.errors(**query.given())


@reads(router, "/errors-by-time", list[ErrorInterval])
async def count_errors_by_time(reader: Reads, query: Asked[ErrorTimesQuery]) -> Any:
    """Return how often errors occurred in each time interval, by type, oldest first."""
    bucket: timedelta = query.bucket  # type: ignore[assignment]  # what its validator returns
    return await reader.stats.errors(bucket=bucket, **query.given("bucket"))


@reads(router, "/errors-by-job", list[JobErrors])
async def count_errors_by_job(reader: Reads, query: Asked[ErrorStatsQuery]) -> Any:
    """Return the jobs with the most errors in their logs."""
    return await reader.stats.errors_by_job(**query.given())


@reads(router, "/events-by-job", list[JobEvents])
async def count_events_by_job(reader: Reads, query: Asked[EventsQuery]) -> Any:
    """Return how many events, warnings and errors jobs have, with those of their descendants.

    A number that cannot be counted quickly is null. An id that names no job is left out.
    """
    return await reader.stats.events_by_job(query.job)


@reads(router, "/volume", Volume)
async def count_volume(reader: Reads, query: Asked[VolumeQuery]) -> Any:
    """Return how many events there are, by type, level and category."""
    return await reader.stats.volume(**query.given())
