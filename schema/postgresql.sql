-- structjob's tables on postgresql: from revision base to 0001.

BEGIN;

CREATE TABLE structjob_alembic_version (
    version_num VARCHAR(32) NOT NULL,
    PRIMARY KEY (version_num)
);

CREATE TABLE structjob_jobs (
    id VARCHAR(64) COLLATE "C" NOT NULL,
    parent_job_id VARCHAR(64) COLLATE "C",
    root_job_id VARCHAR(64) COLLATE "C",
    job_type VARCHAR(128) COLLATE "C",
    operation VARCHAR(255) COLLATE "C" NOT NULL,
    description TEXT,
    status VARCHAR(16) COLLATE "C" NOT NULL,
    percent_complete DOUBLE PRECISION,
    current_step VARCHAR(200) COLLATE "C",
    owner VARCHAR(128) COLLATE "C",
    project VARCHAR(128) COLLATE "C",
    category VARCHAR(64) COLLATE "C" DEFAULT 'system' NOT NULL,
    metadata JSON,
    result JSON,
    error_type VARCHAR(200) COLLATE "C",
    error_message TEXT,
    error_traceback TEXT,
    correlation_id VARCHAR(128) COLLATE "C",
    external_job_id VARCHAR(255) COLLATE "C",
    context_id VARCHAR(64) COLLATE "C",
    idempotency_key VARCHAR(255) COLLATE "C",
    attempt INTEGER DEFAULT '0' NOT NULL,
    session_id BIGINT,
    state_seq BIGINT DEFAULT '0' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE,
    cancelled_at TIMESTAMP WITH TIME ZONE,
    duration_ms DOUBLE PRECISION,
    cpu_ms DOUBLE PRECISION,
    max_rss_kb BIGINT,
    PRIMARY KEY (id)
);

CREATE UNIQUE INDEX structjob_jobs_by_idempotency_key ON structjob_jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE INDEX structjob_jobs_by_time ON structjob_jobs (created_at);

CREATE INDEX structjob_jobs_by_end ON structjob_jobs (completed_at) WHERE completed_at IS NOT NULL;

CREATE INDEX structjob_jobs_by_status ON structjob_jobs (status, created_at);

CREATE INDEX structjob_jobs_by_operation ON structjob_jobs (operation, created_at);

CREATE INDEX structjob_jobs_by_type ON structjob_jobs (job_type, created_at) WHERE job_type IS NOT NULL;

CREATE INDEX structjob_jobs_by_owner ON structjob_jobs (owner, created_at) WHERE owner IS NOT NULL;

CREATE INDEX structjob_jobs_by_project ON structjob_jobs (project, created_at) WHERE project IS NOT NULL;

CREATE INDEX structjob_jobs_by_category ON structjob_jobs (category, created_at);

CREATE INDEX structjob_jobs_by_parent ON structjob_jobs (parent_job_id, created_at) WHERE parent_job_id IS NOT NULL;

CREATE INDEX structjob_jobs_by_root ON structjob_jobs (root_job_id, created_at);

CREATE INDEX structjob_jobs_by_external_id ON structjob_jobs (external_job_id, created_at) WHERE external_job_id IS NOT NULL;

CREATE INDEX structjob_jobs_by_context ON structjob_jobs (context_id, created_at) WHERE context_id IS NOT NULL;

CREATE INDEX structjob_jobs_by_correlation ON structjob_jobs (correlation_id, created_at);

CREATE INDEX structjob_jobs_by_session ON structjob_jobs (session_id, status);

CREATE TABLE structjob_attempts (
    job_id VARCHAR(64) COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    status VARCHAR(16) COLLATE "C" NOT NULL,
    percent_complete DOUBLE PRECISION,
    current_step VARCHAR(200) COLLATE "C",
    result JSON,
    error_type VARCHAR(200) COLLATE "C",
    error_message TEXT,
    error_traceback TEXT,
    correlation_id VARCHAR(128) COLLATE "C",
    session_id BIGINT,
    state_seq BIGINT DEFAULT '0' NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE,
    duration_ms DOUBLE PRECISION,
    PRIMARY KEY (job_id, attempt)
);

CREATE INDEX structjob_attempts_by_time ON structjob_attempts (started_at);

CREATE INDEX structjob_attempts_by_correlation ON structjob_attempts (correlation_id) WHERE correlation_id IS NOT NULL;

CREATE INDEX structjob_attempts_by_session ON structjob_attempts (session_id, status) WHERE status = 'running';

CREATE TABLE structjob_steps (
    id VARCHAR(64) COLLATE "C" NOT NULL,
    job_id VARCHAR(64) COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    parent_step_id VARCHAR(64) COLLATE "C",
    seq INTEGER NOT NULL,
    name VARCHAR(200) COLLATE "C" NOT NULL,
    status VARCHAR(16) COLLATE "C" NOT NULL,
    percent_complete DOUBLE PRECISION,
    completed DOUBLE PRECISION,
    total DOUBLE PRECISION,
    description TEXT,
    error_type VARCHAR(200) COLLATE "C",
    error_message TEXT,
    error_traceback TEXT,
    metadata JSON,
    session_id BIGINT,
    state_seq BIGINT DEFAULT '0' NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE,
    duration_ms DOUBLE PRECISION,
    PRIMARY KEY (id)
);

CREATE INDEX structjob_steps_by_job ON structjob_steps (job_id, attempt, seq);

CREATE INDEX structjob_steps_by_time ON structjob_steps (started_at);

CREATE INDEX structjob_steps_by_end ON structjob_steps (completed_at) WHERE completed_at IS NOT NULL;

CREATE INDEX structjob_steps_by_session ON structjob_steps (session_id, status) WHERE status = 'running';

CREATE TABLE structjob_logs (
    id BIGSERIAL NOT NULL,
    session_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    ts TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE,
    level VARCHAR(16) COLLATE "C" NOT NULL,
    message TEXT NOT NULL,
    attrs JSON,
    type VARCHAR(16) COLLATE "C" NOT NULL,
    kind VARCHAR(32) COLLATE "C" DEFAULT 'log' NOT NULL,
    job_id VARCHAR(64) COLLATE "C",
    attempt INTEGER,
    step_id VARCHAR(64) COLLATE "C",
    operation VARCHAR(255) COLLATE "C",
    step VARCHAR(200) COLLATE "C",
    correlation_id VARCHAR(128) COLLATE "C",
    trace_id VARCHAR(32) COLLATE "C",
    span_id VARCHAR(16) COLLATE "C",
    stream VARCHAR(16) COLLATE "C" DEFAULT 'system' NOT NULL,
    logger VARCHAR(255) COLLATE "C",
    category VARCHAR(64) COLLATE "C" DEFAULT 'system' NOT NULL,
    project VARCHAR(128) COLLATE "C",
    fingerprint VARCHAR(64) COLLATE "C",
    PRIMARY KEY (id),
    CONSTRAINT structjob_logs_by_session UNIQUE (session_id, seq)
);

CREATE INDEX structjob_logs_by_time ON structjob_logs (ts);

CREATE INDEX structjob_logs_by_job ON structjob_logs (job_id, ts) WHERE job_id IS NOT NULL;

CREATE INDEX structjob_logs_by_step ON structjob_logs (step_id, ts) WHERE step_id IS NOT NULL;

CREATE INDEX structjob_logs_by_level ON structjob_logs (level, ts) WHERE level <> 'info';

CREATE INDEX structjob_logs_by_type ON structjob_logs (type, ts) WHERE type <> 'task';

CREATE INDEX structjob_logs_by_category ON structjob_logs (category, ts) WHERE category <> 'system';

CREATE INDEX structjob_logs_by_correlation ON structjob_logs (correlation_id, ts) WHERE correlation_id IS NOT NULL AND (step IS NULL OR level <> 'info');

CREATE INDEX structjob_logs_by_fingerprint ON structjob_logs (fingerprint, ts) WHERE fingerprint IS NOT NULL;

ALTER INDEX structjob_logs_by_session SET (fillfactor = 100);

ALTER INDEX structjob_logs_by_time SET (fillfactor = 100);

ALTER INDEX structjob_logs_by_job SET (fillfactor = 100);

ALTER INDEX structjob_logs_by_step SET (fillfactor = 100);

CREATE TABLE structjob_sessions (
    session_id BIGINT NOT NULL,
    host VARCHAR(255) COLLATE "C" NOT NULL,
    boot_id VARCHAR(64) COLLATE "C",
    pid BIGINT NOT NULL,
    service VARCHAR(128) COLLATE "C",
    version VARCHAR(64) COLLATE "C",
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    heartbeat_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    last_seq BIGINT DEFAULT '0' NOT NULL,
    confirmed BIGINT DEFAULT '0' NOT NULL,
    end_reason VARCHAR(64) COLLATE "C",
    PRIMARY KEY (session_id)
);

CREATE INDEX structjob_sessions_by_end ON structjob_sessions (ended_at);

CREATE INDEX structjob_sessions_by_time ON structjob_sessions (started_at);

CREATE TABLE structjob_gaps (
    session_id BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    reason VARCHAR(64) COLLATE "C" NOT NULL,
    jobs JSON,
    PRIMARY KEY (session_id, first_seq)
);

CREATE INDEX structjob_gaps_by_end ON structjob_gaps (session_id, last_seq);

CREATE TABLE structjob_cancellations (
    job_id VARCHAR(64) COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    session_id BIGINT NOT NULL,
    reason TEXT,
    requested_by VARCHAR(128) COLLATE "C",
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    forced BOOLEAN NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE INDEX structjob_cancellations_by_session ON structjob_cancellations (session_id);

CREATE TABLE structjob_locks (
    name VARCHAR(64) COLLATE "C" NOT NULL,
    holder BIGINT,
    session_id BIGINT,
    expires_at TIMESTAMP WITH TIME ZONE,
    done_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (name)
);

CREATE TABLE structjob_dead_letters (
    id BIGSERIAL NOT NULL,
    session_id BIGINT,
    seq BIGINT,
    reason VARCHAR(64) COLLATE "C" NOT NULL,
    error TEXT,
    payload TEXT,
    ts TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT structjob_dead_letters_by_session UNIQUE (session_id, seq)
);

CREATE INDEX structjob_dead_letters_by_time ON structjob_dead_letters (ts);

CREATE TABLE structjob_errors (
    fingerprint VARCHAR(64) COLLATE "C" NOT NULL,
    error_type VARCHAR(200) COLLATE "C" NOT NULL,
    message TEXT NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    resolved_by VARCHAR(128) COLLATE "C",
    pruned BIGINT DEFAULT '0' NOT NULL,
    first_seen TIMESTAMP WITH TIME ZONE,
    last_seen TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (fingerprint)
);

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
            WHEN j.status IN ('pending', 'running') THEN GREATEST(0.0, CAST(EXTRACT(EPOCH FROM clock_timestamp() - j.started_at) AS DOUBLE PRECISION))
            WHEN j.duration_ms IS NOT NULL THEN j.duration_ms / 1000.0
            ELSE GREATEST(0.0, CAST(EXTRACT(EPOCH FROM COALESCE(j.completed_at, j.cancelled_at, j.started_at) - j.started_at) AS DOUBLE PRECISION))
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

COMMIT;
