"""Statistics, the same as those of `tracker.stats`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter
from fastapi import Query as Parameters
from pydantic import Field

from structjob.filters import make_filter
from structjob.statistics import (
    ErrorInterval,
    ErrorStatistics,
    JobErrors,
    OperationStatistics,
    ProjectStatistics,
    StatsFilter,
    StepStatistics,
    Throughput,
    Volume,
)
from structjob.web.answers import Reads, reads
from structjob.web.params import LIMIT, SINCE, UNTIL, JobMatch, Moment, Query, Several, Span

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

    bucket: Span = Field(
        default="1h", validate_default=True, description="How long a stretch is.", examples=["15m"]
    )


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

    bucket: Span = Field(
        default="1h", validate_default=True, description="How long a stretch is.", examples=["15m"]
    )


class VolumeQuery(Query):
    """Parameters of the volume."""

    since: Moment | None = SINCE
    until: Moment | None = UNTIL
    project: Several | None = None


@reads(router, "/operations", list[OperationStatistics])
async def count_by_operation(source: Reads, query: Annotated[StatsQuery, Parameters()]) -> Any:
    """Return outcomes and durations of jobs by operation."""
    return await source.stats.operations(query.filter())


@reads(router, "/jobs", dict[str, int])
async def count_by_status(source: Reads, query: Annotated[JobMatch, Parameters()]) -> Any:
    """Return the number of matching jobs of each status."""
    return await source.jobs.count_by_status(query.filter())


@reads(router, "/projects", list[ProjectStatistics])
async def count_by_project(source: Reads, query: Annotated[StatsQuery, Parameters()]) -> Any:
    """Return outcomes and durations of jobs by project."""
    return await source.stats.projects(query.filter())


@reads(router, "/steps", list[StepStatistics])
async def count_by_step(source: Reads, query: Annotated[StatsQuery, Parameters()]) -> Any:
    """Return outcomes and durations of steps by operation and name."""
    return await source.stats.steps(query.filter())


@reads(router, "/throughput", list[Throughput])
async def count_by_time(source: Reads, query: Annotated[ThroughputQuery, Parameters()]) -> Any:
    """Return outcomes and durations of jobs by time interval, oldest first."""
    bucket: timedelta = query.bucket  # type: ignore[assignment]  # what its validator returns
    return await source.stats.throughput(bucket, query.filter())


@reads(router, "/trends", list[Trend])
async def read_trends(source: Reads, query: Annotated[TrendsQuery, Parameters()]) -> Any:
    """Return the p95 of the durations of each operation by time interval, oldest first."""
    bucket: timedelta = query.bucket  # type: ignore[assignment]  # what its validator returns
    found = await source.stats.throughput_by_operation(bucket, query.filter())
    return [
        Trend(operation, [interval.p95_ms for interval in each])
        for operation, each in found.items()
    ]


@reads(router, "/errors", list[ErrorStatistics])
async def count_errors(source: Reads, query: Annotated[ErrorStatsQuery, Parameters()]) -> Any:
    """Return how often errors occurred, by type, step and operation."""
    return await source.stats.errors(**query.given())


@reads(router, "/errors-by-time", list[ErrorInterval])
async def count_errors_by_time(
    source: Reads, query: Annotated[ErrorTimesQuery, Parameters()]
) -> Any:
    """Return how often errors occurred in each time interval, by type, oldest first."""
    bucket: timedelta = query.bucket  # type: ignore[assignment]  # what its validator returns
    return await source.stats.errors(bucket=bucket, **query.given("bucket"))


@reads(router, "/errors-by-job", list[JobErrors])
async def count_errors_by_job(
    source: Reads, query: Annotated[ErrorStatsQuery, Parameters()]
) -> Any:
    """Return the jobs with the most errors in their logs."""
    return await source.stats.errors_by_job(**query.given())


@reads(router, "/volume", Volume)
async def count_volume(source: Reads, query: Annotated[VolumeQuery, Parameters()]) -> Any:
    """Return how many events there are, by type, level and category."""
    return await source.stats.volume(**query.given())
