"""The records that reads return, the statuses, and the table of legal changes between them.

Field names are the columns' names (see ``store/tables.py``); the three ``error_*`` columns come as
one `ErrorInfo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, overload

from structjob.exceptions import InvalidArgument, InvalidState


class AJob(Protocol):
    """A job: a live handle or a record."""

    @property
    def id(self) -> str: ...
    @property
    def operation(self) -> str: ...


AnyJob = str | AJob
"""What names a job: its id, external id or context id; a `Job` or a `JobRecord`."""


def id_of(job: AnyJob) -> str:
    """Return the text that names *job*: of a handle or a record, its id.

    Raises:
        InvalidArgument: if it is neither text nor a job.
    """
    given = getattr(job, "id", None) if hasattr(job, "operation") else job
    if not isinstance(given, str):
        raise InvalidArgument(
            f"a job is named by an id (text), or given as a Job or a JobRecord, not as {type(job).__name__}"
        )
    return given


JobStatusName = Literal["pending", "running", "completed", "failed", "cancelled", "crashed"]
"""The value of a `JobStatus`."""

StepStatusName = Literal[
    "running", "completed", "failed", "skipped", "cancelled", "crashed", "retrying"
]
"""The value of a `StepStatus`."""

EndStatus = Literal["completed", "failed", "cancelled"]
"""What a job can be ended as by hand."""

StepEndStatus = Literal["completed", "failed", "skipped", "cancelled", "retrying"]
"""What a step can be ended as by hand."""


class JobStatus(StrEnum):
    """Where a job, and each attempt at it, stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows this status by itself."""
        return self in JOB_TERMINAL


JOB_TERMINAL = frozenset(
    {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.CRASHED}
)

JOB_TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.RUNNING: JOB_TERMINAL,
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
    # Presumed by another process: the attempt's own session knows better, and only it may say so.
    JobStatus.CRASHED: frozenset(
        {JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
}


class StepStatus(StrEnum):
    """Where a step stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    RETRYING = "retrying"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows this status by itself."""
        return self in STEP_TERMINAL


STEP_TERMINAL = frozenset(StepStatus) - {StepStatus.RUNNING}

STEP_TRANSITIONS: Mapping[StepStatus, frozenset[StepStatus]] = {
    StepStatus.RUNNING: STEP_TERMINAL,
    StepStatus.COMPLETED: frozenset(),
    StepStatus.FAILED: frozenset(),
    StepStatus.SKIPPED: frozenset(),
    StepStatus.CANCELLED: frozenset(),
    StepStatus.RETRYING: frozenset(),
    StepStatus.CRASHED: STEP_TERMINAL - {StepStatus.CRASHED} | {StepStatus.RUNNING},
}


def check_job_transition(what: str, old: JobStatus, new: JobStatus) -> None:
    """Raise `InvalidState` unless *old* leads to *new*; *what* names the job in the
    message.
    """
    if new not in JOB_TRANSITIONS[old]:
        raise _illegal(what, old, new, JOB_TRANSITIONS[old])


def check_step_transition(what: str, old: StepStatus, new: StepStatus) -> None:
    """Raise `InvalidState` unless *old* leads to *new*; *what* names the step in the
    message.
    """
    if new not in STEP_TRANSITIONS[old]:
        raise _illegal(what, old, new, STEP_TRANSITIONS[old])


def _illegal(what: str, old: StrEnum, new: StrEnum, legal: frozenset[Any]) -> InvalidState:
    if not legal:
        return InvalidState(
            f"{what} has ended already ({old.value}); it cannot become {new.value}: end it once only"
        )
    choices = ", ".join(sorted(status.value for status in legal))
    return InvalidState(
        f"{what} is {old.value} and cannot become {new.value}; from {old.value} it can become: {choices}"
    )


def being_cancelled(what: str, reason: str | None, requested_by: str | None = None) -> str:
    """Return the message for a caller who is not the first to cancel *what*."""
    by = f" by {requested_by}" if requested_by else ""
    return f"{what} is being cancelled already{by}{f': {reason}' if reason else ''}; with force=True its cleanup is interrupted, too"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as it was recorded."""

    type: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A row of ``structjob_jobs``: the unit of work, with what its latest attempt knows."""

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
    metadata: Any = None
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
"""What a job keeps of what an earlier attempt (or whoever created it) told, where the next one
tells nothing of it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """A row of ``structjob_attempts``: one try at a job, numbered from 1."""

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
    """A row of ``structjob_steps``."""

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
    metadata: Any = None
    session_id: int | None = None
    state_seq: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: float | None = None


STREAMS = ("stdout", "stderr", "system")
"""What an event may have come by; what was logged came by ``system``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """A row of ``structjob_logs``: one log line; ``(session_id, seq)`` identifies it everywhere."""

    id: int
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
        """Return it as the console shows it: time in UTC, level, message, attributes, place, and
        the traceback below.
        """
        from structjob.text.rendering import Lines

        return Lines(color=False, utc=True, unicode=True).render(self)


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers of a session for which no event is stored.

    ``reason`` is that of ``structjob_gaps``: ``drop_oldest``, ``pruned``, ``in_flight`` …; or
    ``missing``, if nothing explains them yet.
    """

    session_id: int
    first_seq: int
    last_seq: int
    reason: str


class EncodedEvent(NamedTuple):
    """An event as JSON, as far as it need not be decoded; see ``Logs.tail(encoded=True)``."""

    session_id: int
    """With *seq*, what identifies it."""
    seq: int
    level: str
    json: bytes
    """What `EventRecord` is, as a JSON object."""


@dataclass(frozen=True, slots=True)
class EventContext:
    """An event, with those before and after it, all in their order."""

    before: tuple[EventRecord, ...]
    event: EventRecord
    after: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A row of ``structjob_sessions``: one running process."""

    session_id: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a job is, with the ids it can be asked for by."""

    job_id: str
    status: JobStatus
    operation: str
    completed_steps: int
    total_steps: int
    """Begun so far; those that were tried again do not count."""
    step_completion: float
    """Percentage of the steps begun so far that are completed, 0–100."""
    runtime_seconds: float
    percent: float
    """As told by hand, else derived from the steps begun so far, of which those that run count as
    far as they have come; 0–100.
    """
    current_step: str | None
    attempt: int
    parent_job_id: str | None
    children: tuple[str, ...]
    external_job_id: str | None
    context_id: str | None


@dataclass(frozen=True, slots=True)
class JobTree:
    """A job with its steps (of its latest attempt, in order) and its child jobs (oldest first)."""

    job: JobRecord
    steps: tuple[StepRecord, ...]
    children: tuple[JobTree, ...]


T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Sequence[T_co], Generic[T_co]):
    """One page of a listing: a sequence, with the cursors of its neighbours (``None`` where there
    is none).

    ``partial`` says that the page ended before it was full, since a search looks at a limited
    number of rows at a time: there may be more, where its cursor leads to.
    """

    items: tuple[T_co, ...]
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


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of a session's events: ``accepted`` is the sum of all that follows it but
    ``rejected``.
    """

    accepted: int
    """Events that were given a number."""
    stored: int
    """Events whose transaction the database has committed."""
    spilled: int
    """Events that wait in the spool only."""
    in_memory: int
    """Events that wait in memory, in a queue or in a batch on its way."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Events given up on purpose, by reason; each number stands in ``structjob_gaps``."""
    dead_lettered: int = 0
    """Events the database refused for what they hold; see ``structjob_dead_letters``."""
    rejected: int = 0
    """Events that came after the tracker closed, or that could not be encoded or written; they have
    no number.
    """

    @property
    def lost(self) -> int:
        """Events given up: dropped and dead-lettered."""
        return sum(self.dropped.values()) + self.dead_lettered
