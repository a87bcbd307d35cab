-- Several workers share the shards of one snapshot.

-- Who works, and was heard of lately: shards are offered only when there is somebody to take them.
CREATE TABLE workers (
    name TEXT NOT NULL PRIMARY KEY,
    seen_ms BIGINT NOT NULL
);

-- A shard that the worker of a job asks another one to read. A row lives no longer than that takes; what comes of it is in the manifest.
CREATE TABLE shard_offers (
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    -- The fencing number of the job's worker: under another one nobody wants it any more.
    fencing BIGINT NOT NULL,
    shard_index BIGINT NOT NULL,
    cluster TEXT NOT NULL,
    -- The name of the repository in the configuration.
    repository TEXT NOT NULL,
    -- JSON: which node, and where it goes.
    offer TEXT NOT NULL,
    -- `ready`: the node is connected and waits for the word, which is `asked`.
    state TEXT NOT NULL CHECK (state IN ('offered', 'taken', 'ready', 'asked', 'done', 'failed')),
    -- Who took it, and until when unless that is renewed; by the clock of the database.
    worker TEXT NOT NULL,
    lease_ms BIGINT NOT NULL,
    done_bytes BIGINT NOT NULL,
    done_keys BIGINT NOT NULL,
    -- JSON: what was stored, or why not.
    outcome TEXT NOT NULL,
    PRIMARY KEY (job_id, fencing, shard_index)
);

CREATE INDEX shard_offers_by_state ON shard_offers (state);
