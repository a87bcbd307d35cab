-- What is said of clusters is kept in their repositories (docs/format.md, section 8): this is an index of it, and knows how new it is.

-- The number of the object in the repository; 0 for what an older release said here alone.
ALTER TABLE definitions ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
-- Tags that were given and, as null, taken away: a JSON object. The table `tags` is not read any more: tags of snapshots are those of `snapshots`.
ALTER TABLE definitions ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
-- When the cluster was removed, ms since 1970.
ALTER TABLE definitions ADD COLUMN removed_ms BIGINT;
