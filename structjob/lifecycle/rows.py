"""The rows of jobs and steps, as changes of their state are recorded: the columns of their tables.

A value that is ``None`` is left out of the record, and most are.
"""

from __future__ import annotations

import msgspec

from structjob.statuses import JobStatus, StepStatus


class ErrorColumns(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a row says about the error that ended a job or step."""

    error_type: str | None = None
    error_message: str | None = None
    error_traceback: str | None = None


class JobRow(ErrorColumns, kw_only=True, omit_defaults=True):
    """The row of a job."""

    id: str
    root_job_id: str
    operation: str
    status: JobStatus
    category: str
    correlation_id: str
    attempt: int
    created_at: str
    parent_job_id: str | None = None
    job_type: str | None = None
    description: str | None = None
    percent_complete: float | None = None
    current_step: str | None = None
    owner: str | None = None
    project: str | None = None
    external_job_id: str | None = None
    context_id: str | None = None
    idempotency_key: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    cancelled_at: str | None = None
    duration_ms: float | None = None
    cpu_ms: float | None = None
    max_rss_kb: int | None = None
    metadata: msgspec.Raw | None = None
    result: msgspec.Raw | None = None
    provisional: str | None = None
    """Not a column: see `structjob.store.provisional`."""


class StepRow(ErrorColumns, kw_only=True, omit_defaults=True):
    """The row of a step."""

    id: str
    job_id: str
    attempt: int
    seq: int
    name: str
    status: StepStatus | None
    completed: float
    parent_step_id: str | None = None
    percent_complete: float | None = None
    total: float | None = None
    description: str | None = None
    metadata: msgspec.Raw | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: float | None = None
    provisional: str | None = None
    """See `JobRow`."""
