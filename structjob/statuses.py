"""The statuses of jobs, steps, errors and sessions, and the table of legal status changes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from structjob.exceptions import InvalidState

JobStatusName = Literal["pending", "running", "completed", "failed", "cancelled", "crashed"]
"""The value of a `JobStatus`."""

StepStatusName = Literal[
    "running", "completed", "failed", "skipped", "cancelled", "crashed", "retrying"
]
"""The value of a `StepStatus`."""

EndStatus = Literal["completed", "failed", "cancelled"]
"""The statuses that `Job.end` and `Tracker.end` accept."""

StepEndStatus = Literal["completed", "failed", "skipped", "cancelled", "retrying"]
"""The statuses that `Step.end` accepts."""


class JobStatus(StrEnum):
    """The status of a job or of one of its attempts."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def terminal(self) -> bool:
        """Whether this status is final: no other status follows automatically."""
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
    # Another process only presumed the crash. The attempt's own session knows the truth, and only
    # that session may correct it.
    JobStatus.CRASHED: frozenset(
        {JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
}


class StepStatus(StrEnum):
    """The status of a step."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    RETRYING = "retrying"

    @property
    def terminal(self) -> bool:
        """Whether this status is final: no other status follows automatically."""
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


ErrorStatusName = Literal["open", "resolved", "regressed"]
"""The value of an `ErrorStatus`."""


class ErrorStatus(StrEnum):
    """Whether an error was resolved."""

    OPEN = "open"
    RESOLVED = "resolved"
    REGRESSED = "regressed"
    """It was resolved, and has occurred again since then."""


ErrorOutcome = Literal["final", "recovered"]
"""The outcome of a job in which an error occurred."""


def check_job_transition(what: str, old: JobStatus, new: JobStatus) -> None:
    """Raise `InvalidState` unless the change from *old* to *new* is legal.

    *what* names the job in the message.
    """
    if new not in JOB_TRANSITIONS[old]:
        raise _illegal(what, old, new, JOB_TRANSITIONS[old])


def check_step_transition(what: str, old: StepStatus, new: StepStatus) -> None:
    """Raise `InvalidState` unless the change from *old* to *new* is legal.

    *what* names the step in the message.
    """
    if new not in STEP_TRANSITIONS[old]:
        raise _illegal(what, old, new, STEP_TRANSITIONS[old])


def _illegal(what: str, old: StrEnum, new: StrEnum, legal: frozenset[Any]) -> InvalidState:
    if not legal:
        return InvalidState(
            f"{what} has ended already ({old.value}); it cannot become {new.value}: it can end only once"
        )
    choices = ", ".join(sorted(status.value for status in legal))
    return InvalidState(
        f"{what} is {old.value} and cannot become {new.value}; from {old.value} it can become: {choices}"
    )


def being_cancelled(what: str, reason: str | None, requested_by: str | None = None) -> str:
    """Return the message for a second request to cancel *what*."""
    by = f" by {requested_by}" if requested_by else ""
    return f"{what} is being cancelled already{by}{f': {reason}' if reason else ''}; with force=True its cleanup is interrupted, too"


class SessionStatus(StrEnum):
    """Whether a session gives signs of life."""

    LIVE = "live"
    """It sends heartbeats."""
    SILENT = "silent"
    """It has not ended, and its last heartbeat is more than 1 minute old. Its process may be
    stopped.
    """
    CLOSED = "closed"
    """It ended in the normal way."""
    DIED = "died"
    """Its process no longer exists, or sent no heartbeat for so long that another tracker ended the
    session.
    """
