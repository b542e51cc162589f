"""The tables for SQLAlchemy Core: ingest writes to them and the queries read them.

The migrations in ``schema/`` create the tables and are the authority; a test keeps the two equal.
There are no foreign keys. The rows of one job reach the database from several sessions and in any
order, and a log row must never be refused because its job arrives later. ``structjob verify`` finds
rows without an owner.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    literal_column,
    or_,
)

from structjob.store.types import Exact, JSONValue, LongText, UTCDateTime, row_id

metadata = MetaData()

PREFIX = "structjob_"
"""The prefix of all our tables and views, so that they can be in an application's own database."""


def _error_columns() -> tuple[Column[str], Column[str], Column[str]]:
    return (
        Column("error_type", Exact(200)),
        Column("error_message", LongText()),
        Column("error_traceback", LongText()),
    )


def _index_where(condition: str, name: str, *columns: str, unique: bool = False) -> Index:
    # Rows outside the condition cost nothing (MySQL and MariaDB have no partial indexes). No query
    # reads the condition, and as `sqlite_where` and `postgresql_where` it would import both
    # dialects into every program.
    return Index(name, *columns, unique=unique, info={"where": condition})


USUAL = {"type": "task", "level": "info", "category": "system"}
"""The most frequent values of events. On databases with partial indexes (SQLite and PostgreSQL),
no index contains them. The other values are found by an index, and these by their time.
"""


def _index_unusual(name: str, column: str) -> Index:
    return _index_where(f"{column} <> '{USUAL[column]}'", name, column, "ts")


def _index_where_set(name: str, column: str, *more: str, unique: bool = False) -> Index:
    return _index_where(f"{column} IS NOT NULL", name, column, *more, unique=unique)


jobs = Table(
    "structjob_jobs",
    metadata,
    Column("id", Exact(64), primary_key=True),
    Column("parent_job_id", Exact(64)),
    Column("root_job_id", Exact(64)),
    Column("job_type", Exact(128)),
    Column("operation", Exact(255), nullable=False),
    Column("description", LongText()),
    Column("status", Exact(16), nullable=False),
    Column("percent_complete", Double()),
    Column("current_step", Exact(200)),
    Column("owner", Exact(128)),
    Column("project", Exact(128)),
    Column("category", Exact(64), nullable=False, server_default="system"),
    Column("metadata", JSONValue()),
    Column("result", JSONValue()),
    *_error_columns(),
    Column("correlation_id", Exact(128)),
    Column("external_job_id", Exact(255)),
    Column("context_id", Exact(64)),
    Column("idempotency_key", Exact(255)),
    Column("attempt", Integer(), nullable=False, server_default="0"),
    Column("session_id", BigInteger()),
    Column("state_seq", BigInteger(), nullable=False, server_default="0"),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("started_at", UTCDateTime()),
    Column("completed_at", UTCDateTime()),
    Column("cancelled_at", UTCDateTime()),
    Column("duration_ms", Double()),
    Column("cpu_ms", Double()),
    Column("max_rss_kb", BigInteger()),
    _index_where_set("structjob_jobs_by_idempotency_key", "idempotency_key", unique=True),
    Index("structjob_jobs_by_time", "created_at"),
    _index_where_set("structjob_jobs_by_end", "completed_at"),
    Index("structjob_jobs_by_status", "status", "created_at"),
    Index("structjob_jobs_by_operation", "operation", "created_at"),
    _index_where_set("structjob_jobs_by_type", "job_type", "created_at"),
    _index_where_set("structjob_jobs_by_owner", "owner", "created_at"),
    _index_where_set("structjob_jobs_by_project", "project", "created_at"),
    Index("structjob_jobs_by_category", "category", "created_at"),
    _index_where_set("structjob_jobs_by_parent", "parent_job_id", "created_at"),
    Index("structjob_jobs_by_root", "root_job_id", "created_at"),
    _index_where_set("structjob_jobs_by_external_id", "external_job_id", "created_at"),
    _index_where_set("structjob_jobs_by_context", "context_id", "created_at"),
    Index("structjob_jobs_by_correlation", "correlation_id", "created_at"),
    Index("structjob_jobs_by_session", "session_id", "status"),
)

attempts = Table(
    "structjob_attempts",
    metadata,
    Column("job_id", Exact(64), primary_key=True),
    Column("attempt", Integer(), primary_key=True, autoincrement=False),
    Column("status", Exact(16), nullable=False),
    Column("percent_complete", Double()),
    Column("current_step", Exact(200)),
    Column("result", JSONValue()),
    *_error_columns(),
    Column("correlation_id", Exact(128)),
    Column("session_id", BigInteger()),
    Column("state_seq", BigInteger(), nullable=False, server_default="0"),
    Column("started_at", UTCDateTime()),
    Column("completed_at", UTCDateTime()),
    Column("duration_ms", Double()),
    Index("structjob_attempts_by_time", "started_at"),
    _index_where_set("structjob_attempts_by_correlation", "correlation_id"),
    _index_where("status = 'running'", "structjob_attempts_by_session", "session_id", "status"),
)

steps = Table(
    "structjob_steps",
    metadata,
    Column("id", Exact(64), primary_key=True),
    Column("job_id", Exact(64), nullable=False),
    Column("attempt", Integer(), nullable=False),
    Column("parent_step_id", Exact(64)),
    Column("seq", Integer(), nullable=False),
    Column("name", Exact(200), nullable=False),
    Column("status", Exact(16), nullable=False),
    Column("percent_complete", Double()),
    Column("completed", Double()),
    Column("total", Double()),
    Column("description", LongText()),
    *_error_columns(),
    Column("metadata", JSONValue()),
    Column("session_id", BigInteger()),
    Column("state_seq", BigInteger(), nullable=False, server_default="0"),
    Column("started_at", UTCDateTime()),
    Column("completed_at", UTCDateTime()),
    Column("duration_ms", Double()),
    Index("structjob_steps_by_job", "job_id", "attempt", "seq"),
    Index("structjob_steps_by_time", "started_at"),
    _index_where_set("structjob_steps_by_end", "completed_at"),
    _index_where("status = 'running'", "structjob_steps_by_session", "session_id", "status"),
)


# Every index here slows down every event. A page is ordered by (ts, id), but no index names the id.
# SQLite and InnoDB append the primary key to an index automatically. PostgreSQL sorts the rows of
# one microsecond while it reads.
logs = Table(
    "structjob_logs",
    metadata,
    Column("id", row_id(), primary_key=True),
    Column("session_id", BigInteger(), nullable=False),
    Column("seq", BigInteger(), nullable=False),
    Column("ts", UTCDateTime(), nullable=False),
    Column("stored_at", UTCDateTime()),
    Column("level", Exact(16), nullable=False),
    Column("message", LongText(), nullable=False),
    Column("attrs", JSONValue()),
    Column("type", Exact(16), nullable=False),
    Column("kind", Exact(32), nullable=False, server_default="log"),
    Column("job_id", Exact(64)),
    Column("attempt", Integer()),
    Column("step_id", Exact(64)),
    Column("operation", Exact(255)),
    Column("step", Exact(200)),
    Column("correlation_id", Exact(128)),
    Column("trace_id", Exact(32)),
    Column("span_id", Exact(16)),
    Column("stream", Exact(16), nullable=False, server_default="system"),
    Column("logger", Exact(255)),
    Column("category", Exact(64), nullable=False, server_default="system"),
    Column("project", Exact(128)),
    Column("fingerprint", Exact(64)),
    UniqueConstraint("session_id", "seq", name="structjob_logs_by_session"),
    Index("structjob_logs_by_time", "ts"),
    _index_where_set("structjob_logs_by_job", "job_id", "ts"),
    _index_where_set("structjob_logs_by_step", "step_id", "ts"),
    _index_unusual("structjob_logs_by_level", "level"),
    _index_unusual("structjob_logs_by_type", "type"),
    _index_unusual("structjob_logs_by_category", "category"),
    # the other events belong to steps of jobs, and are found by the attempts of that correlation id
    _index_where(
        "correlation_id IS NOT NULL AND (step IS NULL OR level <> 'info')",
        "structjob_logs_by_correlation",
        "correlation_id",
        "ts",
    ),
    _index_where_set("structjob_logs_by_fingerprint", "fingerprint", "ts"),
    # an id is never used twice, so a reader of "id > last" misses nothing after a prune
    sqlite_autoincrement=True,
)


def unusual(column: str) -> ColumnElement[bool]:
    """Return the condition that an event's *column* differs from `USUAL`.

    A database uses the column's partial index only if a query contains exactly this condition.
    """
    return logs.c[column] != literal_column(f"'{USUAL[column]}'")


def found_by_correlation() -> ColumnElement[bool]:
    """Return the condition of the index on correlation ids; see `unusual`."""
    return or_(logs.c.step.is_(None), unusual("level"))


sessions = Table(
    "structjob_sessions",
    metadata,
    Column("session_id", BigInteger(), primary_key=True, autoincrement=False),
    Column("host", Exact(255), nullable=False),
    Column("boot_id", Exact(64)),
    Column("pid", BigInteger(), nullable=False),
    Column("service", Exact(128)),
    Column("version", Exact(64)),
    Column("started_at", UTCDateTime(), nullable=False),
    Column("heartbeat_at", UTCDateTime()),
    Column("ended_at", UTCDateTime()),
    Column("last_seq", BigInteger(), nullable=False, server_default="0"),
    # number of events that the database confirmed
    Column("confirmed", BigInteger(), nullable=False, server_default="0"),
    Column("end_reason", Exact(64)),
    Index("structjob_sessions_by_end", "ended_at"),
    Index("structjob_sessions_by_time", "started_at"),
)

gaps = Table(
    "structjob_gaps",
    metadata,
    Column("session_id", BigInteger(), primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger(), primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger(), nullable=False),
    Column("reason", Exact(64), nullable=False),
    Column("jobs", JSONValue()),
    # finds the gap that ends just before a number, to extend it
    Index("structjob_gaps_by_end", "session_id", "last_seq"),
)

# Only requests. A row means that the attempt is being cancelled. It is deleted when the attempt has
# ended, or its session is found dead.
cancellations = Table(
    "structjob_cancellations",
    metadata,
    Column("job_id", Exact(64), primary_key=True),
    Column("attempt", Integer(), nullable=False),
    Column("session_id", BigInteger(), nullable=False),
    Column("reason", LongText()),
    Column("requested_by", Exact(128)),
    Column("requested_at", UTCDateTime(), nullable=False),
    Column("forced", Boolean(), nullable=False),
    Index("structjob_cancellations_by_session", "session_id"),
)

# Locks for work that only one process at a time does. A lock is void once it has expired, or its
# holder's session has ended.
locks = Table(
    "structjob_locks",
    metadata,
    Column("name", Exact(64), primary_key=True),
    Column("holder", BigInteger()),
    Column("session_id", BigInteger()),
    Column("expires_at", UTCDateTime()),
    Column("done_at", UTCDateTime()),
)

dead_letters = Table(
    "structjob_dead_letters",
    metadata,
    Column("id", row_id(), primary_key=True),
    Column("session_id", BigInteger()),
    Column("seq", BigInteger()),
    Column("reason", Exact(64), nullable=False),
    Column("error", LongText()),
    Column("payload", LongText()),
    Column("ts", UTCDateTime(), nullable=False),
    UniqueConstraint("session_id", "seq", name="structjob_dead_letters_by_session"),
    Index("structjob_dead_letters_by_time", "ts"),
)

# The occurrences of an error are counted from the logs: the count is exact, even if a batch was
# delivered several times. This table holds what the logs do not contain.
errors = Table(
    "structjob_errors",
    metadata,
    Column("fingerprint", Exact(64), primary_key=True),
    Column("error_type", Exact(200), nullable=False),
    Column("message", LongText(), nullable=False),
    Column("resolved_at", UTCDateTime()),
    Column("resolved_by", Exact(128)),
    # Occurrences whose events are no longer in the logs: their number, and the times of the first
    # and the last.
    Column("pruned", BigInteger(), nullable=False, server_default="0"),
    Column("first_seen", UTCDateTime()),
    Column("last_seen", UTCDateTime()),
)
