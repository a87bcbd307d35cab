-- What the daemon needs: jobs and the log of their steps, windows that were decided, schedules, events and who was told of
-- them, and the audit chain. History: none of it is needed to read a snapshot.

-- When all of it was last read or started by us.
ALTER TABLE snapshots ADD COLUMN verified_ms BIGINT;

-- One thing to do. Its life is the table of transitions in policies/src/job.rs.
CREATE TABLE jobs (
    job_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('backup', 'verify', 'delete', 'remove')),
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
    reason TEXT NOT NULL
);

CREATE INDEX jobs_by_state ON jobs (state, not_before_ms);
CREATE INDEX jobs_by_cluster ON jobs (cluster, created_ms);
CREATE INDEX jobs_by_time ON jobs (created_ms, job_id);

-- What happened to a job, in order. A step is written before its effect.
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

-- Every occurrence of a window is decided once; only one that was missed by a clock that ran ahead may still fire.
CREATE TABLE windows_fired (
    cluster TEXT NOT NULL,
    occurrence_ms BIGINT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('fired', 'caught-up', 'missed')),
    -- The job; empty when there is none.
    job_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_ms BIGINT NOT NULL,
    PRIMARY KEY (cluster, occurrence_ms)
);

-- What schedulers know of a cluster.
CREATE TABLE schedules (
    cluster TEXT NOT NULL PRIMARY KEY,
    -- The repository in the configuration, as it was last seen there.
    repository TEXT NOT NULL,
    -- The window that holds; empty without one.
    window_text TEXT NOT NULL,
    -- 1: chosen for it.
    window_chosen BIGINT NOT NULL,
    -- When it was first seen with this window: what was before is not missed.
    since_ms BIGINT NOT NULL,
    expected_interval_s BIGINT NOT NULL,
    -- The start of the newest occurrence that was decided.
    settled_ms BIGINT,
    last_success_ms BIGINT,
    last_verified_ms BIGINT,
    last_outcome TEXT NOT NULL,
    retention_ms BIGINT,
    verify_ms BIGINT,
    -- When it was removed; nothing is scheduled for it then, and its automated snapshots expire.
    removed_ms BIGINT
);

-- History. Codes are stable; docs/daemon.md has them all.
CREATE TABLE events (
    event_id TEXT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    code TEXT NOT NULL,
    -- `info`, `warning` or `error`.
    severity TEXT NOT NULL,
    cluster TEXT NOT NULL,
    snapshot_name TEXT NOT NULL,
    job_id TEXT NOT NULL,
    message TEXT NOT NULL
);

CREATE INDEX events_by_time ON events (at_ms, event_id);
CREATE INDEX events_by_cluster ON events (cluster, at_ms);

-- Which hooks were told of an event, and which must be told again.
CREATE TABLE deliveries (
    hook TEXT NOT NULL,
    event_id TEXT NOT NULL REFERENCES events (event_id) ON DELETE CASCADE,
    attempts BIGINT NOT NULL,
    next_ms BIGINT NOT NULL,
    -- 1: told, or given up.
    done BIGINT NOT NULL,
    PRIMARY KEY (hook, event_id)
);

-- Deletes, restores, grants, key actions. Each line holds the hash of the one before it.
CREATE TABLE audit (
    number BIGINT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);

-- What is done by one process at a time.
INSERT INTO leases (name, holder, fencing, acquired_ms, expires_ms) VALUES ('jobs', '', 1, 0, 0);
