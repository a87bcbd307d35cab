-- What the API needs: more kinds of jobs, who asked for a job and under which key, what it made, and which nodes of a pool are taken.

-- A check cannot be changed everywhere, so the table is made anew; the steps go with it, since they refer to it.
ALTER TABLE jobs RENAME TO jobs_before;
ALTER TABLE job_steps RENAME TO job_steps_before;
DROP INDEX jobs_by_state;
DROP INDEX jobs_by_cluster;
DROP INDEX jobs_by_time;

CREATE TABLE jobs (
    job_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL
        CHECK (kind IN ('backup', 'verify', 'delete', 'remove', 'copy', 'export', 'keep', 'restore')),
    cluster TEXT NOT NULL,
    -- The name of the repository in the configuration.
    repository TEXT NOT NULL,
    -- The host of the cluster's first source; empty when the job touches no source.
    host TEXT NOT NULL,
    snapshot_name TEXT NOT NULL,
    -- `manual`, `automated` or `final` for a backup, else empty.
    source TEXT NOT NULL,
    -- JSON: what else was asked for.
    parameters TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
    created_ms BIGINT NOT NULL,
    not_before_ms BIGINT NOT NULL,
    -- It is not begun after this time.
    start_by_ms BIGINT,
    -- How often it was begun, less those that were handed back.
    attempts BIGINT NOT NULL,
    -- Who works on it, under which number, and until when unless that is renewed; by the clock of the database.
    worker TEXT NOT NULL,
    fencing BIGINT NOT NULL,
    lease_ms BIGINT NOT NULL,
    -- Somebody asked for its end.
    cancel_ms BIGINT,
    -- The step that was begun last, and the id of the snapshot that the present attempt makes.
    step TEXT NOT NULL,
    snapshot_id TEXT NOT NULL,
    -- Progress, as the last heartbeat told.
    phase TEXT NOT NULL,
    done_bytes BIGINT NOT NULL,
    total_bytes BIGINT NOT NULL,
    done_keys BIGINT NOT NULL,
    started_ms BIGINT,
    ended_ms BIGINT,
    -- Why it ended as it did: the class of the error, and words.
    class TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- Who asked for it; empty for the scheduler and the command line.
    requested_by TEXT NOT NULL,
    -- The caller's own key for the request, so that asking twice is asking once; empty without one. And the digest of what was asked.
    idempotency_key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    -- JSON: what it made, such as the nodes of a restore. `{}` until then.
    result TEXT NOT NULL
);

INSERT INTO jobs (job_id, kind, cluster, repository, host, snapshot_name, source, parameters, state, created_ms, not_before_ms,
    start_by_ms, attempts, worker, fencing, lease_ms, cancel_ms, step, snapshot_id, phase, done_bytes, total_bytes, done_keys,
    started_ms, ended_ms, class, reason, requested_by, idempotency_key, request_sha256, result)
SELECT job_id, kind, cluster, repository, host, snapshot_name, source, parameters, state, created_ms, not_before_ms,
    start_by_ms, attempts, worker, fencing, lease_ms, cancel_ms, step, snapshot_id, phase, done_bytes, total_bytes, done_keys,
    started_ms, ended_ms, class, reason, '', '', '', '{}'
FROM jobs_before;

CREATE TABLE job_steps (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    worker TEXT NOT NULL,
    fencing BIGINT NOT NULL,
    event TEXT NOT NULL,
    -- The state after it.
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (job_id, number)
);

INSERT INTO job_steps (job_id, number, at_ms, worker, fencing, event, state, reason)
SELECT job_id, number, at_ms, worker, fencing, event, state, reason FROM job_steps_before;

DROP TABLE job_steps_before;
DROP TABLE jobs_before;

CREATE INDEX jobs_by_state ON jobs (state, not_before_ms);
CREATE INDEX jobs_by_cluster ON jobs (cluster, created_ms);
CREATE INDEX jobs_by_time ON jobs (created_ms, job_id);
CREATE UNIQUE INDEX jobs_by_key ON jobs (requested_by, idempotency_key) WHERE idempotency_key <> '';

-- Nodes of targets that a restore took. A row counts for as long as its job is open; afterwards the node itself tells whether it is empty.
CREATE TABLE taken_nodes (
    -- `host:port`.
    address TEXT NOT NULL PRIMARY KEY,
    job_id TEXT NOT NULL,
    taken_ms BIGINT NOT NULL
);

CREATE INDEX snapshots_by_any_name ON snapshots (name);
