"""The records that reads return.

Field names are column names (see ``store/tables.py``). The three ``error_*`` columns are combined
into one `ErrorInfo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

import msgspec

from structjob.exceptions import InvalidArgument
from structjob.statuses import JobStatus, SessionStatus, StepStatus


class AJob(Protocol):
    """A job: a live handle or a record."""

    @property
    def id(self) -> str: ...
    @property
    def operation(self) -> str: ...


AnyJob = str | AJob
"""A reference to a job: its id, external id or context id, a `Job` or a `JobRecord`."""


def id_of(job: AnyJob) -> str:
    """Return the text that identifies *job*. For a handle or a record this is its id.

    Raises:
        InvalidArgument: if it is neither text nor a job.
    """
    given = getattr(job, "id", None) if hasattr(job, "operation") else job
    if not isinstance(given, str):
        raise InvalidArgument(
            f"a job is named by an id (text), or given as a Job or a JobRecord, not as {type(job).__name__}"
        )
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An exception as it was recorded."""

    type: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A row of ``structjob_jobs``: a job, with the data of its latest attempt.

    Attributes:
        id: The job's id.
        operation: The name of the work.
        status: The job's status.
        parent_job_id: The id of the parent job, if there is one.
        root_job_id: The id of the job at the top of the tree.
        percent_complete: The progress, 0–100.
        current_step: The name of the latest step, or the reported text.
        metadata: The job's metadata; empty without any.
        result: The job's result, decoded from JSON.
        attempt: The number of the latest attempt; 0 before the start.
        session_id: The session of the latest attempt; before the start, the session that created
            the job.
        state_seq: The session's number of the latest change that it recorded.
        completed_at: The time of the end, whatever the status.
        cancelled_at: The time of the cancellation.
        duration_ms: The time from the start to the end, in milliseconds.
        cpu_ms: The CPU time of the process while the job ran, in milliseconds.
        max_rss_kb: The peak memory of the process, in kilobytes.
    """

    id: str
    operation: str
    status: JobStatus
    parent_job_id: str | None = None
    root_job_id: str | None = None
    job_type: str | None = None
    description: str | None = None
    percent_complete: float | None = None
    current_step: str | None = None
    owner: str | None = None
    project: str | None = None
    category: str = "system"
    metadata: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: ErrorInfo | None = None
    correlation_id: str | None = None
    external_job_id: str | None = None
    context_id: str | None = None
    idempotency_key: str | None = None
    attempt: int = 0
    session_id: int | None = None
    state_seq: int = 0
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    duration_ms: float | None = None
    cpu_ms: float | None = None
    max_rss_kb: int | None = None


KEPT = (
    "job_type",
    "description",
    "owner",
    "project",
    "external_job_id",
    "context_id",
    "idempotency_key",
)
"""The fields that a job keeps from its creation or an earlier attempt.

The next attempt replaces only the fields that it sets.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """A row of ``structjob_attempts``: one attempt at a job, numbered from 1.

    The fields have the same meaning as in `JobRecord`, for this attempt.
    """

    job_id: str
    attempt: int
    status: JobStatus
    percent_complete: float | None = None
    current_step: str | None = None
    result: Any = None
    error: ErrorInfo | None = None
    correlation_id: str | None = None
    session_id: int | None = None
    state_seq: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A row of ``structjob_steps``: a step of one attempt at a job.

    Attributes:
        id: The step's id.
        job_id: The id of the step's job.
        attempt: The number of the attempt.
        seq: The position among the steps of the attempt, from 1. If several processes work on the
            job, each counts its own steps, and so does each task of a process pool.
        name: The name of the step's work.
        status: The step's status.
        parent_step_id: The id of the enclosing step, if there is one.
        percent_complete: The progress, 0–100.
        completed: Number of units done.
        total: Number of units to process, if it is known.
        metadata: The step's metadata; empty without any.
        session_id: The session that runs or ran the step.
        state_seq: The session's number of the latest change that it recorded.
        completed_at: The time of the end, whatever the status.
        duration_ms: The time from the start to the end, in milliseconds.
    """

    id: str
    job_id: str
    attempt: int
    seq: int
    name: str
    status: StepStatus
    parent_step_id: str | None = None
    percent_complete: float | None = None
    completed: float | None = None
    total: float | None = None
    description: str | None = None
    error: ErrorInfo | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    session_id: int | None = None
    state_seq: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: float | None = None


STREAMS = ("stdout", "stderr", "system")
"""The streams of an event. Log calls have ``system``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """A row of ``structjob_logs``: one event. ``(session_id, seq)`` identifies it everywhere.

    Attributes:
        id: The id of the row; None for an event that is not stored yet.
        session_id: The session that logged the event.
        seq: The event's number in its session, from 1.
        ts: The time of the log call.
        stored_at: The time when the event was stored.
        level: The name of the level.
        message: The message.
        attrs: The attributes.
        type: ``system`` (no job), ``job`` (a job, no step) or ``task`` (a step).
        kind: ``log`` for a log call, ``output`` for printed lines, or the kind of the library's
            event, such as ``operation_end``.
        job_id: The id of the event's job.
        attempt: The number of the attempt at that job.
        step_id: The id of the event's step.
        operation: The operation of the event's job.
        step: The name of the event's step.
        stream: ``stdout`` or ``stderr`` for captured output, otherwise ``system``.
        logger: The name passed to ``structlog.get_logger``.
    """

    id: int | None
    session_id: int
    seq: int
    ts: datetime
    stored_at: datetime | None
    level: str
    message: str
    attrs: dict[str, Any]
    type: Literal["system", "job", "task"]
    kind: str
    job_id: str | None = None
    attempt: int | None = None
    step_id: str | None = None
    operation: str | None = None
    step: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    stream: str = "system"
    logger: str | None = None
    category: str = "system"
    project: str | None = None
    fingerprint: str | None = None
    """The error that this event is an occurrence of; see `structjob.queries.errors.Errors`."""

    def __str__(self) -> str:
        """Return the event as the console shows it.

        This is the time in UTC, the level, the message, the attributes and the place, followed by
        the traceback.
        """
        from structjob.text.rendering import Lines

        return Lines(color=False, utc=True, unicode=True).render(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A range of numbers in a session for which no event is stored.

    ``reason`` is the reason in ``structjob_gaps`` (``drop_oldest``, ``pruned``, ``in_flight``, …),
    or ``missing`` if no reason is recorded yet.
    """

    session_id: int
    first_seq: int
    last_seq: int
    reason: str


class EncodedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as JSON, for callers that need not decode it; see ``Logs.tail(encoded=True)``."""

    session_id: int
    """Together with *seq*, identifies the event."""
    seq: int
    level: str
    json: bytes
    """The fields of `EventRecord` as a JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventContext:
    """An event, with the events before and after it, all in order."""

    before: tuple[EventRecord, ...]
    event: EventRecord
    after: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A row of ``structjob_sessions``, one tracker in one process, with its present status.

    Attributes:
        session_id: The session's id.
        status: Whether it gives signs of life.
        host: The name of the host.
        boot_id: Identifies the start of the host.
        pid: The id of the process.
        service: The name of the program, if the tracker was given one.
        version: The version of structjob.
        heartbeat_at: The time of the last heartbeat.
        heartbeat_age_seconds: Seconds since the last heartbeat, by the database's clock; None
            without a heartbeat.
        running_jobs: The number of jobs that it is running.
        process_exists: Whether its process exists on this host. None if this cannot be determined
            from here (see `structjob.machine.host.process_exists`), or if the session has ended.
        last_seq: The number of events that it has logged, as far as known.
        confirmed: All events up to this number are stored or explained.
        end_reason: The reason of the end; ``closed`` for a normal one.
    """

    session_id: int
    status: SessionStatus
    host: str
    boot_id: str | None
    pid: int
    service: str | None
    version: str | None
    started_at: datetime
    heartbeat_at: datetime | None
    ended_at: datetime | None
    last_seq: int
    confirmed: int
    end_reason: str | None
    heartbeat_age_seconds: float | None
    running_jobs: int
    process_exists: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """The progress of a job, with all of its ids."""

    job_id: str
    status: JobStatus
    operation: str
    completed_steps: int
    total_steps: int
    """The number of steps started so far, without those that were retried."""
    step_completion: float
    """Completed steps as a percentage of the steps started so far, 0–100."""
    runtime_seconds: float
    percent: float
    """The percentage that was reported manually. If none was reported, it is derived from the steps
    started so far, where a running step counts by its own progress; 0–100.
    """
    current_step: str | None
    attempt: int
    parent_job_id: str | None
    child_ids: tuple[str, ...]
    """The ids of the child jobs, the oldest first."""
    external_job_id: str | None
    context_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTree:
    """A job with its steps (of its latest attempt, in order) and its child jobs (oldest first)."""

    job: JobRecord
    steps: tuple[StepRecord, ...]
    children: tuple[JobTree, ...]

    def __repr__(self) -> str:
        # Without the records: a tree may be deeper than Python's limit of recursion.
        return (
            f"<JobTree {self.job.id} {self.job.operation} {self.job.status} "
            f"steps={len(self.steps)} children={len(self.children)}>"
        )


T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Sequence[T_co], Generic[T_co]):
    """One page of a listing: a sequence, with the cursors of the next and previous page.

    A cursor is ``None`` if there is no such page. ``partial`` means that the page ended before it
    was full, because a search looks at a limited number of rows at a time. There may be more
    results after its cursor.
    """

    items: tuple[T_co, ...]
    _: KW_ONLY
    next_cursor: str | None = None
    previous_cursor: str | None = None
    partial: bool = False

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T_co, ...]: ...
    def __getitem__(self, index: int | slice) -> T_co | tuple[T_co, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The counts of a session's events by outcome.

    ``accepted`` is the sum of all fields after it, except ``rejected``.
    """

    accepted: int
    """Events that were given a number."""
    stored: int
    """Events whose transaction the database has committed."""
    spilled: int
    """Events that wait only in the spool."""
    in_memory: int
    """Events that wait in memory, in a queue or in a batch being sent."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Events dropped on purpose, by reason. Their numbers are recorded in ``structjob_gaps``."""
    dead_lettered: int = 0
    """Events that the database refused because of their content; see ``structjob_dead_letters``."""
    rejected: int = 0
    """Events that arrived after the tracker closed, or that could not be encoded or written. They
    have no number.
    """

    @property
    def lost(self) -> int:
        """Lost events: dropped and dead-lettered."""
        return sum(self.dropped.values()) + self.dead_lettered


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a prune or `Jobs.delete` deleted, or in a dry run what would be deleted.

    Args:
        dry_run: Whether nothing was deleted.
        events: Number of events, including those of the jobs.
        jobs: Number of jobs.
        attempts: Number of attempts of these jobs.
        steps: Number of steps of these jobs.
        dead_letters: Number of dead letters.
        sessions: Number of empty sessions.
        archived: The archive files that were written; empty after a dry run.
        oldest: The time of the oldest event that is kept; ``None`` if there are no events, and
            after a dry run or a deletion of one job.
    """

    dry_run: bool = False
    events: int = 0
    jobs: int = 0
    attempts: int = 0
    steps: int = 0
    dead_letters: int = 0
    sessions: int = 0
    archived: tuple[str, ...] = ()
    oldest: datetime | None = None

    def __bool__(self) -> bool:
        return any(
            (self.events, self.jobs, self.attempts, self.steps, self.dead_letters, self.sessions)
        )
