-- Who else may read what: an index of the facts beside snapshots and of the buckets' policies, so that nobody who asks need list a whole
-- repository. How a grant stands, only its bucket can say.

CREATE TABLE grants (
    repository_id TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    cluster TEXT NOT NULL,
    -- Empty, as the name, for what is granted of all snapshots of the cluster.
    snapshot_id TEXT NOT NULL,
    snapshot_name TEXT NOT NULL,
    -- JSON: who may read; `null` when the policy does not say it as we would.
    principal TEXT NOT NULL,
    -- What lets them in: `policy` or `acl`.
    way TEXT NOT NULL,
    -- The key of theirs that has a wrap, and the ARN of ours that has a grant of KMS.
    key_id TEXT,
    kms_key TEXT,
    given_ms BIGINT NOT NULL,
    -- When it was taken back, or was seen to be gone with its snapshot.
    revoked_ms BIGINT,
    PRIMARY KEY (repository_id, grant_id)
);

CREATE INDEX grants_by_snapshot ON grants (repository_id, snapshot_id);

-- Tags of snapshots are in `snapshots`, those of clusters in `definitions`: nothing has read these since 0005.
DROP TABLE tags;
