-- The catalog: an index of the repositories, and what jobs on one machine share while they run.
-- Everything about snapshots can be read again from the repositories; nothing is correct only because it stands here.
--
-- This text is accepted by SQLite and by PostgreSQL. Times are milliseconds since 1970, UTC (`_ms`); sizes are bytes
-- (`_bytes`); lists and maps are JSON texts.

-- What we make snapshots of. A cluster here need not be in the configuration of this process.
CREATE TABLE clusters (
    name TEXT NOT NULL PRIMARY KEY,
    -- How it was last seen: `standalone` or `cluster`, engine and version of its nodes.
    mode TEXT NOT NULL CHECK (mode IN ('standalone', 'cluster')),
    engine TEXT NOT NULL,
    engine_version TEXT NOT NULL,
    -- Where its snapshots go, as a repository URL; it holds no secrets.
    repository_url TEXT NOT NULL,
    first_seen_ms BIGINT NOT NULL,
    last_seen_ms BIGINT NOT NULL
);

-- One row per manifest that was seen. Columns as in the manifest.
CREATE TABLE snapshots (
    -- The id in the marker object of the repository: the same repository may be reached by several URLs.
    repository_id TEXT NOT NULL,
    snapshot_id TEXT NOT NULL,
    -- Unique in the repository among the snapshots that exist; a removed one may have had the same name.
    name TEXT NOT NULL,
    -- Not a reference: a repository may hold snapshots of clusters that are not known here.
    cluster TEXT NOT NULL,
    source TEXT NOT NULL,
    mode TEXT NOT NULL,
    engine TEXT NOT NULL,
    engine_version TEXT NOT NULL,
    method TEXT NOT NULL,
    begun_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL,
    skew_ms BIGINT NOT NULL,
    cipher TEXT NOT NULL,
    -- JSON: the ids of the master keys that its data key was wrapped for when it was made.
    key_ids TEXT NOT NULL,
    keys BIGINT NOT NULL,
    plain_bytes BIGINT NOT NULL,
    stored_bytes BIGINT NOT NULL,
    -- JSON: the user's tags.
    tags TEXT NOT NULL,
    -- When its manifest was found gone or was removed by us. Removal is final: ids are never used again.
    removed_ms BIGINT,
    PRIMARY KEY (repository_id, snapshot_id)
);

CREATE INDEX snapshots_by_cluster ON snapshots (cluster, begun_ms);
CREATE INDEX snapshots_by_name ON snapshots (repository_id, name);
CREATE INDEX snapshots_by_time ON snapshots (begun_ms, snapshot_id);

-- The shards of a snapshot: where each was read, its position, its object.
CREATE TABLE shards (
    repository_id TEXT NOT NULL,
    snapshot_id TEXT NOT NULL,
    shard_index BIGINT NOT NULL CHECK (shard_index >= 0),
    -- Slot ranges, as in `0-5460,10923`; null without cluster mode.
    slots TEXT,
    node_id TEXT NOT NULL,
    node_address TEXT NOT NULL,
    node_role TEXT NOT NULL,
    -- The replication position of its point in time.
    replid TEXT NOT NULL,
    repl_offset BIGINT NOT NULL,
    taken_ms BIGINT NOT NULL,
    -- The name of its object beside the manifest.
    file TEXT NOT NULL,
    keys BIGINT NOT NULL,
    plain_bytes BIGINT NOT NULL,
    stored_bytes BIGINT NOT NULL,
    PRIMARY KEY (repository_id, snapshot_id, shard_index),
    FOREIGN KEY (repository_id, snapshot_id) REFERENCES snapshots (repository_id, snapshot_id) ON DELETE CASCADE
);

-- Who may do a thing now. A row stays when its lease ends, so that the fencing number never goes back: whoever
-- got a higher number may ignore everything that a holder of a lower one does late.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    -- Who holds it; empty after a release.
    holder TEXT NOT NULL,
    fencing BIGINT NOT NULL CHECK (fencing > 0),
    acquired_ms BIGINT NOT NULL,
    -- From this time on somebody else may take it.
    expires_ms BIGINT NOT NULL
);

-- What a node can do for a capture, as it was when somebody last looked: commands that its ACL lets us use, diskless replication, …
CREATE TABLE node_capabilities (
    cluster TEXT NOT NULL REFERENCES clusters (name) ON DELETE CASCADE,
    -- Node id, or `host:port`.
    node_id TEXT NOT NULL,
    capability TEXT NOT NULL,
    -- 1: it can; 0: it cannot.
    available BIGINT NOT NULL CHECK (available IN (0, 1)),
    -- Why, in words for the operator; may be empty.
    reason TEXT NOT NULL,
    seen_ms BIGINT NOT NULL,
    PRIMARY KEY (cluster, node_id, capability)
);
