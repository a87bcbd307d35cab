//! What became known of a snapshot beyond its manifest: its verdict, and copies of it that were made and are gone.

use super::{Catalog, signed};
use crate::error::Result;

impl Catalog {
    /// Notes when all of a snapshot was last read and was whole, ms since 1970; `None` when its newest verdict says something else.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_snapshot_verified(
        &self,
        repository_id: &str,
        snapshot_id: &str,
        verified_ms: Option<i64>,
    ) -> Result<()> {
        sqlx::query("UPDATE snapshots SET verified_ms = $1 WHERE repository_id = $2 AND snapshot_id = $3")
            .bind(verified_ms)
            .bind(repository_id)
            .bind(snapshot_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("note a verdict in", &e))
    }

    /// Notes that a snapshot was copied into the repository `to` as `name`. Where nothing is known of the copy it counts as gone, until
    /// somebody sees it there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_copy(
        &self,
        (repository_id, snapshot_id): (&str, &str),
        (to, name): (&str, &str),
        now_unix_ms: u64,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO snapshots (repository_id, snapshot_id, name, cluster, source, mode, engine, engine_version, method,
                 begun_ms, ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags, removed_ms)
             SELECT $1, snapshot_id, $2, cluster, source, mode, engine, engine_version, method,
                 begun_ms, ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags, $3
             FROM snapshots WHERE repository_id = $4 AND snapshot_id = $5
             ON CONFLICT (repository_id, snapshot_id) DO NOTHING",
        )
        .bind(to)
        .bind(name)
        .bind(signed(now_unix_ms))
        .bind(repository_id)
        .bind(snapshot_id)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| self.error("note a copy in", &e))
    }
}
