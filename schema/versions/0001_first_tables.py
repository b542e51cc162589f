"""The first tables, indexes and views.

Everything is spelled out here, types too, and nothing is taken from ``structjob.store.tables``:
this migration must do tomorrow what it does today, whatever becomes of the tables later.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

from structjob.store import views

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_PROGRESS = """
SELECT
    p.*,
    CASE WHEN p.total_steps = 0 THEN 0.0 ELSE 100.0 * p.completed_steps / p.total_steps END AS step_completion,
    CASE
        WHEN p.status = 'completed' THEN 100.0
        WHEN p.percent_complete IS NOT NULL THEN p.percent_complete
        ELSE COALESCE(p.percent_of_steps, 0.0)
    END AS percent
FROM (
    SELECT
        j.id AS job_id,
        j.operation,
        j.job_type,
        j.status,
        j.attempt,
        j.percent_complete,
        j.current_step,
        (
            SELECT COUNT(*) FROM structjob_steps s
            WHERE s.job_id = j.id AND s.attempt = j.attempt AND s.status <> 'retrying'
        ) AS total_steps,
        (
            SELECT COUNT(*) FROM structjob_steps s
            WHERE s.job_id = j.id AND s.attempt = j.attempt AND s.status = 'completed'
        ) AS completed_steps,
        (
            SELECT COUNT(*) FROM structjob_steps s
            WHERE s.job_id = j.id AND s.attempt = j.attempt AND s.status IN ('failed', 'crashed')
        ) AS failed_steps,
        (
            SELECT AVG(
                CASE
                    WHEN s.status = 'completed' THEN 100.0
                    WHEN s.status = 'running' AND s.percent_complete IS NOT NULL THEN s.percent_complete
                    ELSE 0.0
                END
            )
            FROM structjob_steps s
            WHERE s.job_id = j.id AND s.attempt = j.attempt AND s.status <> 'retrying'
        ) AS percent_of_steps,
        CASE
            WHEN j.started_at IS NULL THEN 0.0
            WHEN j.status IN ('pending', 'running') THEN {greatest}(0.0, {until_now})
            WHEN j.duration_ms IS NOT NULL THEN j.duration_ms / 1000.0
            ELSE {greatest}(0.0, {until_end})
        END AS runtime_seconds,
        j.owner,
        j.project,
        j.category,
        j.parent_job_id,
        j.root_job_id,
        j.external_job_id,
        j.context_id,
        j.correlation_id,
        j.session_id,
        j.created_at,
        j.started_at,
        j.completed_at,
        j.duration_ms
    FROM structjob_jobs j
) p
"""

_ACTIVE = """
SELECT * FROM structjob_job_progress
WHERE status IN ('pending', 'running')
"""

# Name of a dialect → how it says what is different: the greater of two numbers, seconds between two
# times, the present.
_SPELLING = {
    "sqlite": ("MAX", "(julianday({end}) - julianday(j.started_at)) * 86400.0", "'now'"),
    "postgresql": (
        "GREATEST",
        "CAST(EXTRACT(EPOCH FROM {end} - j.started_at) AS DOUBLE PRECISION)",
        "clock_timestamp()",
    ),
    "mysql": (
        "GREATEST",
        "TIMESTAMPDIFF(MICROSECOND, j.started_at, {end}) / 1000000.0",
        "UTC_TIMESTAMP(6)",
    ),
}
_SPELLING["mariadb"] = _SPELLING["mysql"]


def _views(dialect: sa.Dialect) -> dict[str, str]:
    greatest, between, now = _SPELLING[dialect.name]
    end = "COALESCE(j.completed_at, j.cancelled_at, j.started_at)"
    progress = _PROGRESS.format(
        greatest=greatest, until_now=between.format(end=now), until_end=between.format(end=end)
    )
    return {"structjob_job_progress": progress, "structjob_active_jobs": _ACTIVE}


class _Types:
    """The types of one database."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._mysql = dialect.name in ("mysql", "mariadb")
        self._postgresql = dialect.name == "postgresql"
        self._sqlite = dialect.name == "sqlite"
        # Both are binary and count trailing blanks; each server knows only its own.
        self._collation = "utf8mb4_nopad_bin" if dialect.name == "mariadb" else "utf8mb4_0900_bin"

    def exact(self, length: int) -> sa.types.TypeEngine[Any]:
        if self._mysql:
            return mysql.VARCHAR(length, charset="utf8mb4", collation=self._collation)
        return sa.String(length, collation="C") if self._postgresql else sa.String(length)

    def text(self) -> sa.types.TypeEngine[Any]:
        return mysql.LONGTEXT() if self._mysql else sa.Text()

    def json(self) -> sa.types.TypeEngine[Any]:
        if self._mysql:
            return mysql.JSON()
        return postgresql.JSON() if self._postgresql else sa.Text()

    def moment(self) -> sa.types.TypeEngine[Any]:
        return mysql.DATETIME(fsp=6) if self._mysql else sa.DateTime(timezone=self._postgresql)

    def row_id(self) -> sa.types.TypeEngine[Any]:
        return sa.Integer() if self._sqlite else sa.BigInteger()

    def computed(self, expression: str) -> tuple[sa.Computed, ...]:
        """Return the rule by which SQLite computes a column, so that it takes no space in a row.

        The other databases store the column.
        """
        return (sa.Computed(expression, persisted=False),) if self._sqlite else ()


def _table(name: str, *items: Any, **options: Any) -> None:
    for server in ("mysql", "mariadb"):
        # The row format, too: in a server's older default the columns are too long for an index.
        options |= {
            f"{server}_engine": "InnoDB",
            f"{server}_charset": "utf8mb4",
            f"{server}_row_format": "DYNAMIC",
        }
    op.create_table(name, *items, **options)


def _index_where(
    condition: str, name: str, table: str, *columns: str, unique: bool = False
) -> None:
    where = sa.text(condition)
    op.create_index(
        name, table, list(columns), unique=unique, sqlite_where=where, postgresql_where=where
    )


def _index_where_set(name: str, table: str, column: str, *more: str, unique: bool = False) -> None:
    _index_where(f"{column} IS NOT NULL", name, table, column, *more, unique=unique)


def upgrade() -> None:
    """Create everything."""
    t = _Types(op.get_context().dialect)
    _create_jobs(t)
    _create_attempts_and_steps(t)
    _create_logs(t)
    _create_sessions_and_gaps(t)
    _create_dead_letters_and_errors(t)
    views.create(op, _views(op.get_context().dialect))  # type: ignore[arg-type]  # the module has every method of Operations


def downgrade() -> None:
    """Drop everything."""
    views.drop(op, _views(op.get_context().dialect))  # type: ignore[arg-type]  # the module has every method of Operations
    for name in (
        "locks",
        "errors",
        "dead_letters",
        "cancellations",
        "gaps",
        "sessions",
        "logs",
        "steps",
        "attempts",
        "jobs",
    ):
        op.drop_table(f"structjob_{name}")


def _error_columns(t: _Types) -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("error_type", t.exact(200)),
        sa.Column("error_message", t.text()),
        sa.Column("error_traceback", t.text()),
    )


def _create_jobs(t: _Types) -> None:
    _table(
        "structjob_jobs",
        sa.Column("id", t.exact(64), primary_key=True),
        sa.Column("parent_job_id", t.exact(64)),
        sa.Column("root_job_id", t.exact(64)),
        sa.Column("job_type", t.exact(128)),
        sa.Column("operation", t.exact(255), nullable=False),
        sa.Column("description", t.text()),
        sa.Column("status", t.exact(16), nullable=False),
        sa.Column("percent_complete", sa.Double()),
        sa.Column("current_step", t.exact(200)),
        sa.Column("owner", t.exact(128)),
        sa.Column("project", t.exact(128)),
        sa.Column("category", t.exact(64), nullable=False, server_default="system"),
        sa.Column("metadata", t.json()),
        sa.Column("result", t.json()),
        *_error_columns(t),
        sa.Column("correlation_id", t.exact(128)),
        sa.Column("external_job_id", t.exact(255)),
        sa.Column("context_id", t.exact(64)),
        sa.Column("idempotency_key", t.exact(255)),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("session_id", sa.BigInteger()),
        sa.Column("state_seq", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("created_at", t.moment(), nullable=False),
        sa.Column("started_at", t.moment()),
        sa.Column("completed_at", t.moment()),
        sa.Column("cancelled_at", t.moment()),
        sa.Column("duration_ms", sa.Double()),
        sa.Column("cpu_ms", sa.Double()),
        sa.Column("max_rss_kb", sa.BigInteger()),
    )
    _index_where_set(
        "structjob_jobs_by_idempotency_key", "structjob_jobs", "idempotency_key", unique=True
    )
    op.create_index("structjob_jobs_by_time", "structjob_jobs", ["created_at"])
    _index_where_set("structjob_jobs_by_end", "structjob_jobs", "completed_at")
    op.create_index("structjob_jobs_by_status", "structjob_jobs", ["status", "created_at"])
    op.create_index("structjob_jobs_by_operation", "structjob_jobs", ["operation", "created_at"])
    _index_where_set("structjob_jobs_by_type", "structjob_jobs", "job_type", "created_at")
    _index_where_set("structjob_jobs_by_owner", "structjob_jobs", "owner", "created_at")
    _index_where_set("structjob_jobs_by_project", "structjob_jobs", "project", "created_at")
    op.create_index("structjob_jobs_by_category", "structjob_jobs", ["category", "created_at"])
    _index_where_set("structjob_jobs_by_parent", "structjob_jobs", "parent_job_id", "created_at")
    op.create_index("structjob_jobs_by_root", "structjob_jobs", ["root_job_id", "created_at"])
    _index_where_set(
        "structjob_jobs_by_external_id", "structjob_jobs", "external_job_id", "created_at"
    )
    _index_where_set("structjob_jobs_by_context", "structjob_jobs", "context_id", "created_at")
    op.create_index(
        "structjob_jobs_by_correlation", "structjob_jobs", ["correlation_id", "created_at"]
    )
    op.create_index("structjob_jobs_by_session", "structjob_jobs", ["session_id", "status"])


def _create_attempts_and_steps(t: _Types) -> None:
    _table(
        "structjob_attempts",
        sa.Column("job_id", t.exact(64), primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("status", t.exact(16), nullable=False),
        sa.Column("percent_complete", sa.Double()),
        sa.Column("current_step", t.exact(200)),
        sa.Column("result", t.json()),
        *_error_columns(t),
        sa.Column("correlation_id", t.exact(128)),
        sa.Column("session_id", sa.BigInteger()),
        sa.Column("state_seq", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("started_at", t.moment()),
        sa.Column("completed_at", t.moment()),
        sa.Column("duration_ms", sa.Double()),
    )
    op.create_index("structjob_attempts_by_time", "structjob_attempts", ["started_at"])
    _index_where_set("structjob_attempts_by_correlation", "structjob_attempts", "correlation_id")
    _index_where(
        "status = 'running'",
        "structjob_attempts_by_session",
        "structjob_attempts",
        "session_id",
        "status",
    )
    _table(
        "structjob_steps",
        sa.Column("id", t.exact(64), primary_key=True),
        sa.Column("job_id", t.exact(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("parent_step_id", t.exact(64)),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("name", t.exact(200), nullable=False),
        sa.Column("status", t.exact(16), nullable=False),
        sa.Column("percent_complete", sa.Double()),
        sa.Column("completed", sa.Double()),
        sa.Column("total", sa.Double()),
        sa.Column("description", t.text()),
        *_error_columns(t),
        sa.Column("metadata", t.json()),
        sa.Column("session_id", sa.BigInteger()),
        sa.Column("state_seq", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("started_at", t.moment()),
        sa.Column("completed_at", t.moment()),
        sa.Column("duration_ms", sa.Double()),
    )
    op.create_index("structjob_steps_by_job", "structjob_steps", ["job_id", "attempt", "seq"])
    op.create_index("structjob_steps_by_time", "structjob_steps", ["started_at"])
    _index_where_set("structjob_steps_by_end", "structjob_steps", "completed_at")
    _index_where(
        "status = 'running'",
        "structjob_steps_by_session",
        "structjob_steps",
        "session_id",
        "status",
    )


_TYPE = "CASE WHEN job_id IS NULL THEN 'system' WHEN step_id IS NULL THEN 'job' ELSE 'task' END"


def _create_logs(t: _Types) -> None:
    _table(
        "structjob_logs",
        sa.Column("id", t.row_id(), primary_key=True),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("ts", t.moment(), nullable=False),
        sa.Column("stored_at", t.moment()),
        sa.Column("level", t.exact(16), nullable=False),
        sa.Column("message", t.text(), nullable=False),
        sa.Column("attrs", t.json()),
        sa.Column("type", t.exact(16), *t.computed(_TYPE), nullable=False),
        sa.Column("kind", t.exact(32), nullable=False, server_default="log"),
        sa.Column("job_id", t.exact(64)),
        sa.Column("attempt", sa.Integer()),
        sa.Column("step_id", t.exact(64)),
        sa.Column("operation", t.exact(255)),
        sa.Column("step", t.exact(200)),
        sa.Column("correlation_id", t.exact(128)),
        sa.Column("trace_id", t.exact(32)),
        sa.Column("span_id", t.exact(16)),
        sa.Column("stream", t.exact(16), nullable=False, server_default="system"),
        sa.Column("logger", t.exact(255)),
        sa.Column("category", t.exact(64), nullable=False, server_default="system"),
        sa.Column("project", t.exact(128)),
        sa.Column("fingerprint", t.exact(64)),
        sa.UniqueConstraint("session_id", "seq", name="structjob_logs_by_session"),
        sqlite_autoincrement=True,
    )
    op.create_index("structjob_logs_by_time", "structjob_logs", ["ts"])
    _index_where_set("structjob_logs_by_job", "structjob_logs", "job_id", "ts")
    _index_where_set("structjob_logs_by_step", "structjob_logs", "step_id", "ts")
    _index_where("level <> 'info'", "structjob_logs_by_level", "structjob_logs", "level", "ts")
    _index_where("type <> 'task'", "structjob_logs_by_type", "structjob_logs", "type", "ts")
    _index_where(
        "category <> 'system'", "structjob_logs_by_category", "structjob_logs", "category", "ts"
    )
    _index_where(
        "correlation_id IS NOT NULL AND (step IS NULL OR level <> 'info')",
        "structjob_logs_by_correlation",
        "structjob_logs",
        "correlation_id",
        "ts",
    )
    _index_where_set("structjob_logs_by_fingerprint", "structjob_logs", "fingerprint", "ts")
    if op.get_context().dialect.name == "postgresql":
        # Events are appended, so space that is left free in these pages would mostly stay free.
        for name in ("session", "time", "job", "step"):
            op.execute(f"ALTER INDEX structjob_logs_by_{name} SET (fillfactor = 100)")


def _create_sessions_and_gaps(t: _Types) -> None:
    _table(
        "structjob_sessions",
        sa.Column("session_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("host", t.exact(255), nullable=False),
        sa.Column("boot_id", t.exact(64)),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("service", t.exact(128)),
        sa.Column("version", t.exact(64)),
        sa.Column("started_at", t.moment(), nullable=False),
        sa.Column("heartbeat_at", t.moment()),
        sa.Column("ended_at", t.moment()),
        sa.Column("last_seq", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("confirmed", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("end_reason", t.exact(64)),
    )
    op.create_index("structjob_sessions_by_end", "structjob_sessions", ["ended_at"])
    op.create_index("structjob_sessions_by_time", "structjob_sessions", ["started_at"])
    _table(
        "structjob_gaps",
        sa.Column("session_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("first_seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("reason", t.exact(64), nullable=False),
        sa.Column("jobs", t.json()),
    )
    op.create_index("structjob_gaps_by_end", "structjob_gaps", ["session_id", "last_seq"])
    _table(
        "structjob_cancellations",
        sa.Column("job_id", t.exact(64), primary_key=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", t.text()),
        sa.Column("requested_by", t.exact(128)),
        sa.Column("requested_at", t.moment(), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
    )
    op.create_index("structjob_cancellations_by_session", "structjob_cancellations", ["session_id"])
    _table(
        "structjob_locks",
        sa.Column("name", t.exact(64), primary_key=True),
        sa.Column("holder", sa.BigInteger()),
        sa.Column("session_id", sa.BigInteger()),
        sa.Column("expires_at", t.moment()),
        sa.Column("done_at", t.moment()),
    )


def _create_dead_letters_and_errors(t: _Types) -> None:
    _table(
        "structjob_dead_letters",
        sa.Column("id", t.row_id(), primary_key=True),
        sa.Column("session_id", sa.BigInteger()),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("reason", t.exact(64), nullable=False),
        sa.Column("error", t.text()),
        sa.Column("payload", t.text()),
        sa.Column("ts", t.moment(), nullable=False),
        sa.UniqueConstraint("session_id", "seq", name="structjob_dead_letters_by_session"),
    )
    op.create_index("structjob_dead_letters_by_time", "structjob_dead_letters", ["ts"])
    _table(
        "structjob_errors",
        sa.Column("fingerprint", t.exact(64), primary_key=True),
        sa.Column("error_type", t.exact(200), nullable=False),
        sa.Column("message", t.text(), nullable=False),
        sa.Column("resolved_at", t.moment()),
        sa.Column("resolved_by", t.exact(128)),
        sa.Column("pruned", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("first_seen", t.moment()),
        sa.Column("last_seen", t.moment()),
    )
