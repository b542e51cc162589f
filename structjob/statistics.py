"""What statistics return, and which jobs they are of.

Durations are in milliseconds. A rate is a percentage, 0–100, or None where there is nothing it
could be of. A percentile is by nearest rank: the least measured duration that at least that share
of the durations does not exceed, so it is always one that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from structjob.exceptions import InvalidFilter
from structjob.filters import Filter, Moment, as_utc, check_limit, check_plain, check_span
from structjob.models import JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsFilter(Filter):
    """Which jobs statistics are of; every field that is set must match.

    Args:
        by: What the window is about: ``created`` (of steps: begun), the default, or ``ended``. What
            has not ended is in no window of ``ended``; what was created long ago and failed just
            now is.
        since: Created (begun), or ended, from this moment on; a datetime with a time zone; a
            `timedelta` is that long before now.
        until: Created (begun), or ended, before this moment.
        limit: Groups at most, those with the most first, 1–10,000.

    Raises:
        InvalidFilter: if a value is not one its field accepts.
    """

    by: Literal["created", "ended"] = "created"
    since: Moment | None = None
    until: Moment | None = None
    operation: str | None = None
    job_type: str | None = None
    owner: str | None = None
    category: str | None = None
    project: str | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        check_plain(self)
        if self.by not in ("created", "ended"):
            raise InvalidFilter(f"by must be 'created' or 'ended', not {self.by!r}")
        object.__setattr__(self, "since", as_utc("since", self.since))
        object.__setattr__(self, "until", as_utc("until", self.until))
        check_span(self.since, self.until)  # type: ignore[arg-type]  # both are datetimes by now
        check_limit(self.limit)


class StatsFilterKeywords(TypedDict, total=False):
    """The fields of `StatsFilter` as keywords, for type checkers."""

    by: Literal["created", "ended"]
    since: Moment | None
    until: Moment | None
    operation: str | None
    job_type: str | None
    owner: str | None
    category: str | None
    project: str | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a group of jobs, or of steps, fared.

    Durations are those of the completed ones only: what fails, fails early or late, and would say
    nothing of how long the work takes.
    """

    total: int
    completed: int
    failed: int
    cancelled: int
    crashed: int
    running: int
    success_rate: float | None
    """Completed ones as a percentage of those completed, failed or crashed; what was cancelled,
    skipped or retried is on neither side.
    """
    avg_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary(Summary):
    """How a group of jobs fared: each counts once, with what its latest attempt came to."""

    pending: int
    attempts: int
    """Attempts at all of these jobs."""
    avg_cpu_ms: float | None
    """CPU time of their process while they ran, on average, where it is known."""
    max_rss_kb: int | None
    """The greatest peak of memory of their process, in KiB, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStatistics(JobSummary):
    """How the jobs of one operation fared."""

    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectStatistics(JobSummary):
    """How the jobs of one project fared."""

    project: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput(JobSummary):
    """How the jobs fared that were created, or ended, within one stretch of time."""

    start: datetime
    end: datetime
    """Where the next one begins, or where the window ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatistics(Summary):
    """How the steps of one name, in jobs of one operation, fared; those of every attempt count."""

    operation: str
    step: str
    skipped: int
    retrying: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobErrors:
    """How many of a job's events tell an error."""

    job_id: str
    operation: str | None
    status: JobStatus | None
    errors: int
    """Events of level error or critical."""
    total: int
    """All of its events."""
    error_rate: float
    """The former as a percentage of the latter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStatistics:
    """How often errors of one type occurred, in one step (None: outside any) of one operation
    (None: outside any job).
    """

    error_type: str
    """The level of the events, if they have no type."""
    operation: str | None
    step: str | None
    count: int
    jobs: int
    """Jobs in which they did."""
    first_seen: datetime
    last_seen: datetime


ErrorStatus = Literal["open", "resolved", "regressed"]
"""``regressed``: it was resolved, and has occurred again since."""

ErrorOutcome = Literal["final", "recovered"]
"""What became of a job in which an error occurred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Occurrences of what is one and the same error: of one type and message, from the same place
    in the code.

    The sample is the latest occurrence that ended its job; if there is none, the latest. It is one
    whose event is in the logs; the times tell of those that are no longer there, too.
    """

    fingerprint: str
    status: ErrorStatus
    outcome: ErrorOutcome | None
    """``final``: it ended a job. ``recovered``: jobs went on after it, most often by a retry. None:
    it occurred outside jobs, or its jobs still run or were cancelled. The latest 1,000 occurrences
    are looked at.
    """
    error_type: str
    """The level of the sample, if it has no type."""
    message: str
    """That of the sample."""
    operation: str | None
    step: str | None
    """Where the sample occurred."""
    count: int
    """Occurrences, those included whose events are no longer in the logs."""
    jobs: int
    """Jobs in which it occurred, of those whose events are in the logs."""
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    job_id: str | None
    """The job of the sample."""
    traceback: str | None
    """That of the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """How many events there are: in all, and the same by their type, level and category."""

    total: int
    by_type: Mapping[str, int]
    by_level: Mapping[str, int]
    by_category: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBar:
    """How many events there are in one stretch of time.

    Args:
        since: Where it begins.
        until: Where it ends, and the next one begins.
        counts: How many events there are of each level; levels without one are left out.
    """

    since: datetime
    until: datetime
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Events of all levels."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHistogram:
    """How many events there are, by level and stretch of time.

    Args:
        bars: Stretches of equal length without a hole between them, the oldest first; empty where
            no event matches.
        width_seconds: Length of each.
        partial: Whether there was no time to look at all events; the newest were looked at.
        looked_at: How many events were looked at.
        counted_since: Where it is *partial*, the moment from which on all are counted: bars before
            it are empty, and the one that holds it may lack some.
    """

    bars: tuple[LogBar, ...]
    width_seconds: float
    partial: bool
    looked_at: int
    counted_since: datetime | None = None

    @property
    def total(self) -> int:
        """Events that were counted."""
        return sum(bar.total for bar in self.bars)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStorage:
    """One of structjob's tables."""

    table: str
    rows: int
    bytes: int | None
    """With its indexes, as the database accounts for them; None where it does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What structjob's tables take."""

    bytes: int | None
    """All of the tables; None where the database does not tell."""
    tables: tuple[TableStorage, ...]


ENOUGH = 5
"""Former durations without which nothing is called slower than usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A duration beside those that came before it."""

    elapsed_ms: float
    """How long it has taken: until now if it runs, else in all."""
    samples: int
    """How many former durations there are to judge by."""
    median_ms: float | None
    p95_ms: float | None
    remaining_ms: float | None
    """How much longer it will take, if it is like the median of those that took longer than it has
    already. None if it has ended, or if none took longer.
    """
    slower: bool
    """Whether it takes (or took) longer than 95 % did, of `ENOUGH` at least."""

    @property
    def judged(self) -> bool:
        """Whether there are former durations enough to judge by."""
        return self.samples >= ENOUGH


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate(Expectation):
    """A step, beside the same operation's completed steps of that name.

    For a job with more than 1,000 steps, they are those of fewer jobs than 100: 100,000 former
    steps are looked at, about.
    """

    step_id: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Expectation):
    """A job, beside the completed jobs of its operation that were created before it."""

    job_id: str
    operation: str
    steps: tuple[StepEstimate, ...]
    """Those of its latest attempt, in order."""


def rate(part: int, whole: int) -> float | None:
    """Return *part* as a percentage of *whole*; None of nothing."""
    return 100.0 * part / whole if whole else None


def summary(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the fields of a `Summary` from a row that has its counts and durations."""
    judged = row["completed"] + row["failed"] + row["crashed"]
    return {**row, "success_rate": rate(row["completed"], judged)}
