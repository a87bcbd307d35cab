-- What was said of clusters through the API, beside the configuration: clusters that were made there, other windows and retention, tags.

-- One row per cluster of which something was said.
CREATE TABLE definitions (
    cluster TEXT NOT NULL PRIMARY KEY,
    -- 1: it was made through the API; 0: the configuration names it, and this changes it.
    made BIGINT NOT NULL CHECK (made IN (0, 1)),
    -- `group` or `cluster`: what it was made as.
    shape TEXT NOT NULL,
    description TEXT NOT NULL,
    -- Instead of what the configuration says; null: as that says.
    window_text TEXT,
    retention_days BIGINT,
    -- The node that was named for snapshots; kept and shown, since nodes are chosen anew each time.
    snapshotting TEXT NOT NULL,
    -- Of one that was made: where its snapshots go and where its nodes came from, by their names in the configuration.
    repository TEXT NOT NULL,
    target TEXT NOT NULL,
    -- The job that fills it, and the nodes once it did: a JSON list of `host:port`.
    job_id TEXT NOT NULL,
    nodes TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    -- Rises with every change.
    changed_ms BIGINT NOT NULL
);

-- Tags that were added to a resource, or taken from it (null), after it was made.
CREATE TABLE tags (
    -- `snapshot`, `cluster` or `group`.
    kind TEXT NOT NULL,
    -- The name of a cluster, or the id of a snapshot.
    resource TEXT NOT NULL,
    tag_key TEXT NOT NULL,
    tag_value TEXT,
    PRIMARY KEY (kind, resource, tag_key)
);

CREATE INDEX jobs_by_snapshot ON jobs (snapshot_name, created_ms);
