//! Snapshots and their shards, as their manifests say.

use super::{Catalog, signed};
use crate::error::Result;

/// The most rows of one answer.
pub const ROWS_MAX: u32 = 1000;

/// A snapshot. Its meaning is that of the manifest's members of the same names.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SnapshotRow {
    /// The id of the repository, from its marker.
    pub repository_id: String,
    /// The id of the snapshot.
    pub snapshot_id: String,
    /// What users call it.
    pub name: String,
    /// The cluster it is of.
    pub cluster: String,
    /// `manual`, `automated` or `final`.
    pub source: String,
    /// `standalone` or `cluster`.
    pub mode: String,
    /// The engine.
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// How shards were read.
    pub method: String,
    /// When the job began, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub begun_ms: u64,
    /// When the last shard was complete, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub ended_ms: u64,
    /// Between the first and the last shard's point in time, ms.
    #[sqlx(try_from = "i64")]
    pub skew_ms: u64,
    /// `aes-256-gcm` or `none`.
    pub cipher: String,
    /// The ids of its master keys, as a JSON list.
    pub key_ids: String,
    /// All keys of all shards.
    #[sqlx(try_from = "i64")]
    pub keys: u64,
    /// Bytes of all RDBs.
    #[sqlx(try_from = "i64")]
    pub plain_bytes: u64,
    /// Bytes of all objects.
    #[sqlx(try_from = "i64")]
    pub stored_bytes: u64,
    /// The user's tags, as a JSON object.
    pub tags: String,
}

/// A shard of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ShardRow {
    /// From 0.
    pub shard_index: u32,
    /// Its slot ranges; `None` without cluster mode.
    pub slots: Option<String>,
    /// The node that served it.
    pub node_id: String,
    /// `host:port`.
    pub node_address: String,
    /// `primary` or `replica`.
    pub node_role: String,
    /// Replication id of its position.
    pub replid: String,
    /// Replication offset of its position.
    #[sqlx(try_from = "i64")]
    pub repl_offset: u64,
    /// When the server gave the position, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub taken_ms: u64,
    /// The name of its object beside the manifest.
    pub file: String,
    /// Its keys.
    #[sqlx(try_from = "i64")]
    pub keys: u64,
    /// Bytes of its RDB.
    #[sqlx(try_from = "i64")]
    pub plain_bytes: u64,
    /// Bytes of its object.
    #[sqlx(try_from = "i64")]
    pub stored_bytes: u64,
}

/// Which snapshots to list. The default lists all that exist, newest first.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFilter {
    /// Only those of this repository.
    pub repository_id: Option<String>,
    /// Only those of this cluster.
    pub cluster: Option<String>,
    /// Also those that were removed.
    pub with_removed: bool,
    /// Only those after this one in the order of the list: its `begun_ms` and `snapshot_id`.
    pub after: Option<(u64, String)>,
}

impl Catalog {
    /// Records a snapshot with its shards, in place of what was recorded of it before. That it was removed stays.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_snapshot(&self, row: &SnapshotRow, shards: &[ShardRow]) -> Result<()> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            insert_snapshot(&mut transaction, row).await?;
            sqlx::query("DELETE FROM shards WHERE repository_id = $1 AND snapshot_id = $2")
                .bind(&row.repository_id)
                .bind(&row.snapshot_id)
                .execute(&mut *transaction)
                .await?;
            for shard in shards {
                insert_shard(&mut transaction, row, shard).await?;
            }
            transaction.commit().await
        };
        done.await.map_err(|e| self.error("record a snapshot in", &e))
    }

    /// Notes that the manifest of a snapshot is gone. Tells whether the snapshot was known and not yet removed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn mark_snapshot_removed(
        &self,
        repository_id: &str,
        snapshot_id: &str,
        now_unix_ms: u64,
    ) -> Result<bool> {
        sqlx::query(
            "UPDATE snapshots SET removed_ms = $1
             WHERE repository_id = $2 AND snapshot_id = $3 AND removed_ms IS NULL",
        )
        .bind(signed(now_unix_ms))
        .bind(repository_id)
        .bind(snapshot_id)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(|e| self.error("mark a snapshot in", &e))
    }

    /// Notes that the manifest of a snapshot was seen, whatever was noted before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn mark_snapshot_present(&self, repository_id: &str, snapshot_id: &str) -> Result<()> {
        sqlx::query("UPDATE snapshots SET removed_ms = NULL WHERE repository_id = $1 AND snapshot_id = $2")
            .bind(repository_id)
            .bind(snapshot_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("mark a snapshot in", &e))
    }

    /// At most [`ROWS_MAX`] snapshots, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn snapshots(&self, filter: &SnapshotFilter) -> Result<Vec<SnapshotRow>> {
        let (after_ms, after_id) = filter.after.clone().unzip();
        sqlx::query_as(
            "SELECT * FROM snapshots
             WHERE ($1 IS NULL OR repository_id = $1) AND ($2 IS NULL OR cluster = $2)
               AND ($3 OR removed_ms IS NULL)
               AND ($4 IS NULL OR begun_ms < $4 OR (begun_ms = $4 AND snapshot_id < $5))
             ORDER BY begun_ms DESC, snapshot_id DESC LIMIT $6",
        )
        .bind(&filter.repository_id)
        .bind(&filter.cluster)
        .bind(filter.with_removed)
        .bind(after_ms.map(signed))
        .bind(after_id)
        .bind(i64::from(ROWS_MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("list the snapshots of", &e))
    }

    /// The shards of a snapshot, by index; none when it is not known.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn shards(&self, repository_id: &str, snapshot_id: &str) -> Result<Vec<ShardRow>> {
        sqlx::query_as("SELECT * FROM shards WHERE repository_id = $1 AND snapshot_id = $2 ORDER BY shard_index")
            .bind(repository_id)
            .bind(snapshot_id)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("list the shards of", &e))
    }
}

async fn insert_snapshot(connection: &mut sqlx::SqliteConnection, row: &SnapshotRow) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO snapshots (repository_id, snapshot_id, name, cluster, source, mode, engine, engine_version,
             method, begun_ms, ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
         ON CONFLICT (repository_id, snapshot_id) DO UPDATE SET name = excluded.name, cluster = excluded.cluster,
             source = excluded.source, mode = excluded.mode, engine = excluded.engine,
             engine_version = excluded.engine_version, method = excluded.method, begun_ms = excluded.begun_ms,
             ended_ms = excluded.ended_ms, skew_ms = excluded.skew_ms, cipher = excluded.cipher,
             key_ids = excluded.key_ids, keys = excluded.keys, plain_bytes = excluded.plain_bytes,
             stored_bytes = excluded.stored_bytes, tags = excluded.tags",
    )
    .bind(&row.repository_id)
    .bind(&row.snapshot_id)
    .bind(&row.name)
    .bind(&row.cluster)
    .bind(&row.source)
    .bind(&row.mode)
    .bind(&row.engine)
    .bind(&row.engine_version)
    .bind(&row.method)
    .bind(signed(row.begun_ms))
    .bind(signed(row.ended_ms))
    .bind(signed(row.skew_ms))
    .bind(&row.cipher)
    .bind(&row.key_ids)
    .bind(signed(row.keys))
    .bind(signed(row.plain_bytes))
    .bind(signed(row.stored_bytes))
    .bind(&row.tags)
    .execute(connection)
    .await
    .map(drop)
}

async fn insert_shard(
    connection: &mut sqlx::SqliteConnection,
    snapshot: &SnapshotRow,
    row: &ShardRow,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO shards (repository_id, snapshot_id, shard_index, slots, node_id, node_address, node_role, replid,
             repl_offset, taken_ms, file, keys, plain_bytes, stored_bytes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(&snapshot.repository_id)
    .bind(&snapshot.snapshot_id)
    .bind(i64::from(row.shard_index))
    .bind(&row.slots)
    .bind(&row.node_id)
    .bind(&row.node_address)
    .bind(&row.node_role)
    .bind(&row.replid)
    .bind(signed(row.repl_offset))
    .bind(signed(row.taken_ms))
    .bind(&row.file)
    .bind(signed(row.keys))
    .bind(signed(row.plain_bytes))
    .bind(signed(row.stored_bytes))
    .execute(connection)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::tests::new;
    use super::*;

    fn snapshot(id: &str, cluster: &str, begun_ms: u64) -> SnapshotRow {
        SnapshotRow {
            repository_id: "r".into(),
            snapshot_id: id.into(),
            name: format!("name-of-{id}"),
            cluster: cluster.into(),
            source: "manual".into(),
            mode: "cluster".into(),
            engine: "valkey".into(),
            engine_version: "8.1.0".into(),
            method: "stream".into(),
            begun_ms,
            ended_ms: begun_ms + 1,
            skew_ms: 3,
            cipher: "aes-256-gcm".into(),
            key_ids: "[\"k\"]".into(),
            keys: 1_000_000,
            plain_bytes: 1 << 40,
            stored_bytes: 1 << 39,
            tags: "{}".into(),
        }
    }

    fn shard(index: u32) -> ShardRow {
        ShardRow {
            shard_index: index,
            slots: (index > 0).then(|| "0-100".into()),
            node_id: "n".into(),
            node_address: "h:1".into(),
            node_role: "replica".into(),
            replid: "f".repeat(40),
            repl_offset: 1 << 50,
            taken_ms: 5,
            file: format!("shard-{index:04}-1.bkd"),
            keys: 7,
            plain_bytes: 8,
            stored_bytes: 9,
        }
    }

    #[tokio::test]
    async fn recording_twice_is_recording_once() {
        let (catalog, folder) = new().await;
        let row = snapshot("s1", "c", 10);
        catalog
            .record_snapshot(&SnapshotRow { keys: 0, ..row.clone() }, &[shard(0), shard(1), shard(2)])
            .await
            .unwrap();
        for _ in 0..2 {
            catalog.record_snapshot(&row, &[shard(0), shard(1)]).await.unwrap();
        }
        catalog.close().await;
        let catalog = Catalog::open(&folder.path().join("a/catalog.sqlite")).await.unwrap();
        assert_eq!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap(), [row]);
        assert_eq!(catalog.shards("r", "s1").await.unwrap(), [shard(0), shard(1)]);
        assert!(catalog.shards("other", "s1").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_snapshot_without_all_its_shards_is_not_recorded() {
        let (catalog, _folder) = new().await;
        let error = catalog.record_snapshot(&snapshot("s1", "c", 10), &[shard(0), shard(0)]).await.unwrap_err();
        assert!(error.message().contains("catalog.sqlite"), "{error}");
        assert!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn removal_is_final() {
        let (catalog, _folder) = new().await;
        assert!(!catalog.mark_snapshot_removed("r", "s1", 50).await.unwrap());
        catalog.record_snapshot(&snapshot("s1", "c", 10), &[]).await.unwrap();
        assert!(catalog.mark_snapshot_removed("r", "s1", 50).await.unwrap());
        assert!(!catalog.mark_snapshot_removed("r", "s1", 60).await.unwrap());
        catalog.record_snapshot(&snapshot("s1", "c", 10), &[]).await.unwrap();
        assert!(catalog.snapshots(&SnapshotFilter::default()).await.unwrap().is_empty());
        let all = SnapshotFilter { with_removed: true, ..SnapshotFilter::default() };
        assert_eq!(catalog.snapshots(&all).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn lists_are_newest_first_and_in_pages() {
        let (catalog, _folder) = new().await;
        for (id, cluster, begun_ms) in [("s1", "a", 10), ("s2", "b", 30), ("s3", "a", 30), ("s4", "a", 20)] {
            catalog.record_snapshot(&snapshot(id, cluster, begun_ms), &[]).await.unwrap();
        }
        let list = |filter: SnapshotFilter| {
            let catalog = catalog.clone();
            async move {
                let rows = catalog.snapshots(&filter).await.unwrap();
                rows.into_iter().map(|row| row.snapshot_id).collect::<Vec<_>>()
            }
        };
        let all = SnapshotFilter::default;
        assert_eq!(list(all()).await, ["s3", "s2", "s4", "s1"]);
        assert_eq!(list(SnapshotFilter { cluster: Some("a".into()), ..all() }).await, ["s3", "s4", "s1"]);
        assert_eq!(list(SnapshotFilter { repository_id: Some("other".into()), ..all() }).await, [""; 0]);
        assert_eq!(list(SnapshotFilter { after: Some((30, "s3".into())), ..all() }).await, ["s2", "s4", "s1"]);
        assert_eq!(list(SnapshotFilter { after: Some((20, "s4".into())), ..all() }).await, ["s1"]);
    }
}
