"""The results of statistics, and the filter that selects their jobs.

Durations are in milliseconds. A rate is a percentage, 0–100, or None if there is nothing to divide
by. A percentile uses the nearest rank: it is the smallest measured duration for which at least
that share of all durations is not longer. So it is always a measured duration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from structjob.exceptions import InvalidFilter
from structjob.filter_checks import Moment, check_limit, check_plain, check_window, one_or_several
from structjob.filters import Filter
from structjob.models import ErrorInfo
from structjob.statuses import ErrorOutcome, ErrorStatus, JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsFilter(Filter):
    """Selects the jobs of a statistic; every field that is set must match.

    Args:
        by: The time that *since* and *until* refer to: ``created`` (for steps: started), the
            default, or ``ended``. A job that has not ended matches no window of ``ended``. A job
            that was created long ago and failed just now does.
        since: Created (started), or ended, from this time on: a datetime with a time zone, or a
            `timedelta` before now.
        until: Created (started), or ended, before this time.
        operation, job_type, owner, category, project: One value, or several of which one must
            match.
        limit: Maximum number of groups, 1–10,000; 100 by default. The largest groups come first.

    Raises:
        InvalidFilter: if a field does not accept its value.
    """

    by: Literal["created", "ended"] = "created"
    since: Moment | None = None
    until: Moment | None = None
    operation: str | Sequence[str] | None = None
    job_type: str | Sequence[str] | None = None
    owner: str | Sequence[str] | None = None
    category: str | Sequence[str] | None = None
    project: str | Sequence[str] | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        check_plain(self)
        if self.by not in ("created", "ended"):
            raise InvalidFilter(f"by must be 'created' or 'ended', not {self.by!r}")
        for name in ("operation", "job_type", "owner", "category", "project"):
            object.__setattr__(self, name, one_or_several(name, getattr(self, name)))
        check_window(self)
        check_limit(self.limit)


class StatsFilterKeywords(TypedDict, total=False):
    """The fields of `StatsFilter` as keywords, for type checkers."""

    by: Literal["created", "ended"]
    since: Moment | None
    until: Moment | None
    operation: str | Sequence[str] | None
    job_type: str | Sequence[str] | None
    owner: str | Sequence[str] | None
    category: str | Sequence[str] | None
    project: str | Sequence[str] | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Outcomes and durations of a group of jobs or steps.

    Durations are of completed ones only. A failure may come early or late, so its duration does not
    show how long the work takes.
    """

    total: int
    completed: int
    failed: int
    cancelled: int
    crashed: int
    running: int
    success_rate: float | None
    """Completed ones as a percentage of those completed, failed or crashed. Cancelled, skipped and
    retried ones are not counted.
    """
    avg_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary(Summary):
    """Outcomes and durations of a group of jobs. Each job counts once, with its latest attempt."""

    pending: int
    attempts: int
    """Total number of attempts at these jobs."""
    avg_cpu_ms: float | None
    """Average CPU time of the jobs' process while they ran, where it is known."""
    max_rss_kb: int | None
    """The highest peak memory of the jobs' process, in KiB, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStatistics(JobSummary):
    """Outcomes and durations of the jobs of one operation."""

    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectStatistics(JobSummary):
    """Outcomes and durations of the jobs of one project."""

    project: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput(JobSummary):
    """Outcomes and durations of the jobs that were created, or ended, within one interval."""

    start: datetime
    end: datetime
    """The start of the next interval, or the end of the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatistics(Summary):
    """Outcomes and durations of the steps with one name, in jobs of one operation.

    The steps of all attempts count.
    """

    operation: str
    step: str
    skipped: int
    retrying: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobErrors:
    """The number of error events of a job."""

    job_id: str
    operation: str | None
    status: JobStatus | None
    errors: int
    """Events of level error or critical."""
    total: int
    """All events of the job."""
    error_rate: float
    """*errors* as a percentage of *total*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvents:
    """The number of events of a job and its descendants.

    A number is None if it takes too long to count.
    """

    job_id: str
    total: int | None
    warnings: int | None
    """Events of level warning."""
    errors: int | None
    """Events of level error or critical."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStatistics:
    """The number of errors of one type, in one step of one operation.

    The step is None for errors outside any step. The operation is None for errors outside any job.
    """

    type: str
    """The level of the events, if they have no error type."""
    operation: str | None
    step: str | None
    count: int
    jobs: int
    """The number of jobs with such an error."""
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInterval:
    """The number of errors within one interval."""

    start: datetime
    end: datetime
    """The start of the next interval, or the end of the window."""
    counts: Mapping[str, int]
    """The number of errors of each type, the most frequent first. Types without errors are left
    out.
    """

    @property
    def total(self) -> int:
        """The number of errors of all types."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """The occurrences of the same error: of one type and message, from the same place in the code.

    The sample is the latest occurrence that ended its job, or, if no occurrence ended a job, the
    latest occurrence. It is an occurrence whose event is in the logs. The times include occurrences
    whose events are no longer in the logs.
    """

    fingerprint: str
    status: ErrorStatus
    outcome: ErrorOutcome | None
    """``final``: the error ended a job. ``recovered``: jobs continued after it, usually by a retry.
    None: it occurred outside jobs, or its jobs are still running or were cancelled. Only the latest
    1,000 occurrences are examined.
    """
    error: ErrorInfo
    """Type, message and traceback of the sample. Without an error type, *type* is its level."""
    operation: str | None
    step: str | None
    """The place where the sample occurred."""
    count: int
    """The number of occurrences, including those whose events are no longer in the logs."""
    jobs: int
    """The number of jobs in which it occurred and whose events are in the logs."""
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    job_id: str | None
    """The job of the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The number of events: in total, and by type, level and category."""

    total: int
    by_type: Mapping[str, int]
    by_level: Mapping[str, int]
    by_category: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBar:
    """The number of events in one interval.

    Args:
        since: Start of the interval.
        until: End of the interval and start of the next one.
        counts: The number of events per level. Levels without events are left out.
    """

    since: datetime
    until: datetime
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of events of all levels."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHistogram:
    """The number of events by level and interval.

    Args:
        bars: Intervals of equal length without gaps, the oldest first; empty if no event matches.
        width_seconds: Length of each interval in seconds.
        partial: Whether there was no time to count all events. Then only the newest were counted.
        looked_at: The number of events that were examined.
        counted_since: If *partial*, the time from which on all events are counted. Bars before it
            are empty, and the bar that contains it may be incomplete.
    """

    bars: tuple[LogBar, ...]
    width_seconds: float
    partial: bool
    looked_at: int
    counted_since: datetime | None = None

    @property
    def total(self) -> int:
        """The number of counted events."""
        return sum(bar.total for bar in self.bars)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStorage:
    """The size of one of structjob's tables."""

    table: str
    rows: int
    bytes: int | None
    """The size with indexes as the database reports it; None if the database does not report it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The size of structjob's tables."""

    bytes: int | None
    """The size of all tables; None if the database does not report it."""
    tables: tuple[TableStorage, ...]


ENOUGH = 5
"""Minimum number of earlier durations before anything is called slower than usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A duration, compared with earlier durations of the same work."""

    elapsed_ms: float
    """The time taken: until now if it is running, otherwise the total."""
    samples: int
    """The number of earlier durations to compare with."""
    median_ms: float | None
    p95_ms: float | None
    remaining_ms: float | None
    """The estimated time left: the median of the earlier durations that are longer than the time
    taken so far, minus that time. None if it has ended, or if no earlier duration was longer.
    """
    slower: bool
    """Whether it takes, or took, longer than 95 % of at least `ENOUGH` earlier durations."""

    @property
    def judged(self) -> bool:
        """Whether there are enough earlier durations to compare with."""
        return self.samples >= ENOUGH


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate(Expectation):
    """A step, compared with the completed steps of the same name in the same operation.

    The comparison uses about 100,000 earlier steps at most. So for jobs with more than 1,000 steps,
    it covers fewer than 100 jobs.
    """

    step_id: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Expectation):
    """A job, compared with the completed jobs of its operation that were created before it."""

    job_id: str
    operation: str
    steps: tuple[StepEstimate, ...]
    """The steps of the job's latest attempt, in order."""


def rate(part: int, whole: int) -> float | None:
    """Return *part* as a percentage of *whole*; None if *whole* is 0."""
    return 100.0 * part / whole if whole else None


def summary(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the fields of a `Summary` from a row that has its counts and durations."""
    judged = row["completed"] + row["failed"] + row["crashed"]
    return {**row, "success_rate": rate(row["completed"], judged)}
