-- structjob's tables on mysql: from revision base to 0001.

CREATE TABLE structjob_alembic_version (
    version_num VARCHAR(32) NOT NULL,
    PRIMARY KEY (version_num)
);

CREATE TABLE structjob_jobs (
    id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    parent_job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    root_job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    job_type VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    operation VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    description LONGTEXT,
    status VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    percent_complete DOUBLE,
    current_step VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    owner VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    project VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    category VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL DEFAULT 'system',
    metadata JSON,
    result JSON,
    error_type VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    error_message LONGTEXT,
    error_traceback LONGTEXT,
    correlation_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    external_job_id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    context_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    idempotency_key VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    attempt INTEGER NOT NULL DEFAULT '0',
    session_id BIGINT,
    state_seq BIGINT NOT NULL DEFAULT '0',
    created_at DATETIME(6) NOT NULL,
    started_at DATETIME(6),
    completed_at DATETIME(6),
    cancelled_at DATETIME(6),
    duration_ms DOUBLE,
    cpu_ms DOUBLE,
    max_rss_kb BIGINT,
    PRIMARY KEY (id),
    UNIQUE INDEX structjob_jobs_by_idempotency_key (idempotency_key),
    INDEX structjob_jobs_by_time (created_at),
    INDEX structjob_jobs_by_end (completed_at),
    INDEX structjob_jobs_by_status (status, created_at),
    INDEX structjob_jobs_by_operation (operation, created_at),
    INDEX structjob_jobs_by_type (job_type, created_at),
    INDEX structjob_jobs_by_owner (owner, created_at),
    INDEX structjob_jobs_by_project (project, created_at),
    INDEX structjob_jobs_by_category (category, created_at),
    INDEX structjob_jobs_by_parent (parent_job_id, created_at),
    INDEX structjob_jobs_by_root (root_job_id, created_at),
    INDEX structjob_jobs_by_external_id (external_job_id, created_at),
    INDEX structjob_jobs_by_context (context_id, created_at),
    INDEX structjob_jobs_by_correlation (correlation_id, created_at),
    INDEX structjob_jobs_by_session (session_id, status)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_attempts (
    job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    attempt INTEGER NOT NULL,
    status VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    percent_complete DOUBLE,
    current_step VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    result JSON,
    error_type VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    error_message LONGTEXT,
    error_traceback LONGTEXT,
    correlation_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    session_id BIGINT,
    state_seq BIGINT NOT NULL DEFAULT '0',
    started_at DATETIME(6),
    completed_at DATETIME(6),
    duration_ms DOUBLE,
    PRIMARY KEY (job_id, attempt),
    INDEX structjob_attempts_by_time (started_at),
    INDEX structjob_attempts_by_correlation (correlation_id),
    INDEX structjob_attempts_by_session (session_id, status)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_steps (
    id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    attempt INTEGER NOT NULL,
    parent_step_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    seq INTEGER NOT NULL,
    name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    status VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    percent_complete DOUBLE,
    completed DOUBLE,
    total DOUBLE,
    description LONGTEXT,
    error_type VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    error_message LONGTEXT,
    error_traceback LONGTEXT,
    metadata JSON,
    session_id BIGINT,
    state_seq BIGINT NOT NULL DEFAULT '0',
    started_at DATETIME(6),
    completed_at DATETIME(6),
    duration_ms DOUBLE,
    PRIMARY KEY (id),
    INDEX structjob_steps_by_job (job_id, attempt, seq),
    INDEX structjob_steps_by_time (started_at),
    INDEX structjob_steps_by_end (completed_at),
    INDEX structjob_steps_by_session (session_id, status)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_logs (
    id BIGINT NOT NULL AUTO_INCREMENT,
    session_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    ts DATETIME(6) NOT NULL,
    stored_at DATETIME(6),
    level VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    message LONGTEXT NOT NULL,
    attrs JSON,
    type VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    kind VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL DEFAULT 'log',
    job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    attempt INTEGER,
    step_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    operation VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    step VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    correlation_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    trace_id VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    span_id VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    stream VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL DEFAULT 'system',
    logger VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    category VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL DEFAULT 'system',
    project VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    fingerprint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    PRIMARY KEY (id),
    CONSTRAINT structjob_logs_by_session UNIQUE (session_id, seq),
    INDEX structjob_logs_by_time (ts),
    INDEX structjob_logs_by_job (job_id, ts),
    INDEX structjob_logs_by_step (step_id, ts),
    INDEX structjob_logs_by_level (level, ts),
    INDEX structjob_logs_by_type (type, ts),
    INDEX structjob_logs_by_category (category, ts),
    INDEX structjob_logs_by_correlation (correlation_id, ts),
    INDEX structjob_logs_by_fingerprint (fingerprint, ts)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_sessions (
    session_id BIGINT NOT NULL,
    host VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    boot_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    pid BIGINT NOT NULL,
    service VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    version VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    started_at DATETIME(6) NOT NULL,
    heartbeat_at DATETIME(6),
    ended_at DATETIME(6),
    last_seq BIGINT NOT NULL DEFAULT '0',
    confirmed BIGINT NOT NULL DEFAULT '0',
    end_reason VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    PRIMARY KEY (session_id),
    INDEX structjob_sessions_by_end (ended_at),
    INDEX structjob_sessions_by_time (started_at)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_gaps (
    session_id BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    reason VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    jobs JSON,
    PRIMARY KEY (session_id, first_seq),
    INDEX structjob_gaps_by_end (session_id, last_seq)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_cancellations (
    job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    attempt INTEGER NOT NULL,
    session_id BIGINT NOT NULL,
    reason LONGTEXT,
    requested_by VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    requested_at DATETIME(6) NOT NULL,
    forced BOOL NOT NULL,
    PRIMARY KEY (job_id),
    INDEX structjob_cancellations_by_session (session_id)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_locks (
    name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    holder BIGINT,
    session_id BIGINT,
    expires_at DATETIME(6),
    done_at DATETIME(6),
    PRIMARY KEY (name)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_dead_letters (
    id BIGINT NOT NULL AUTO_INCREMENT,
    session_id BIGINT,
    seq BIGINT,
    reason VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    error LONGTEXT,
    payload LONGTEXT,
    ts DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT structjob_dead_letters_by_session UNIQUE (session_id, seq),
    INDEX structjob_dead_letters_by_time (ts)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE TABLE structjob_errors (
    fingerprint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    error_type VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
    message LONGTEXT NOT NULL,
    resolved_at DATETIME(6),
    resolved_by VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin,
    pruned BIGINT NOT NULL DEFAULT '0',
    first_seen DATETIME(6),
    last_seen DATETIME(6),
    PRIMARY KEY (fingerprint)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC;

CREATE VIEW structjob_job_progress AS
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
            WHEN j.status IN ('pending', 'running') THEN GREATEST(0.0, TIMESTAMPDIFF(MICROSECOND, j.started_at, UTC_TIMESTAMP(6)) / 1000000.0)
            WHEN j.duration_ms IS NOT NULL THEN j.duration_ms / 1000.0
            ELSE GREATEST(0.0, TIMESTAMPDIFF(MICROSECOND, j.started_at, COALESCE(j.completed_at, j.cancelled_at, j.started_at)) / 1000000.0)
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
) p;

CREATE VIEW structjob_active_jobs AS
SELECT * FROM structjob_job_progress
WHERE status IN ('pending', 'running');

INSERT INTO structjob_alembic_version (version_num) VALUES ('0001');
