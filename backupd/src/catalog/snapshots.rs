//! Snapshots and their shards, as their manifests say.

use std::fmt::Write as _;

use sqlx::any::AnyArguments;
use sqlx::{AnyConnection, Arguments as _, AssertSqlSafe};

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
    /// The user's tags as they are now, as a JSON object.
    pub tags: String,
    /// When all of it was last read and was whole, ms since 1970; `None` when its newest verdict says something else, or there is none.
    pub verified_ms: Option<i64>,
}

/// A shard of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ShardRow {
    /// From 0.
    #[sqlx(try_from = "i64")]
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
    /// Only those of this name.
    pub name: Option<String>,
    /// Only those of this source: `manual`, `automated` or `final`.
    pub source: Option<String>,
    /// All but those of this source.
    pub except_source: Option<String>,
    /// The oldest first, instead of the newest.
    pub oldest_first: bool,
    /// At most so many; [`ROWS_MAX`] when 0.
    pub limit: u32,
    /// Only those after this one in the order of the list: its `begun_ms` and `snapshot_id`.
    pub after: Option<(u64, String)>,
}

/// A snapshot of a list, with how many shards it has.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ListedRow {
    /// The snapshot.
    #[sqlx(flatten)]
    pub snapshot: SnapshotRow,
    /// Its shards.
    #[sqlx(try_from = "i64")]
    pub shard_count: u32,
}

impl SnapshotFilter {
    /// Only conditions that are asked for are in the text, so that the databases use the index for them.
    fn query(&self, more: &str) -> (String, AnyArguments) {
        let mut text = format!("SELECT {COLUMNS}{more} FROM snapshots WHERE 1 = 1");
        let mut arguments = AnyArguments::default();
        let mut count = 0;
        let mut add = |condition: &str, value: Value<'_>| {
            // neither a text nor a number fails to be encoded, and writing to a String cannot fail
            let _infallible = match value {
                Value::Text(value) => arguments.add(value.to_owned()),
                Value::Number(value) => arguments.add(signed(value)),
            };
            count += 1;
            let _infallible = write!(text, " {condition} ${count}");
        };
        if let Some(id) = &self.repository_id {
            add("AND repository_id =", Value::Text(id));
        }
        if let Some(cluster) = &self.cluster {
            add("AND cluster =", Value::Text(cluster));
        }
        if let Some(name) = &self.name {
            add("AND name =", Value::Text(name));
        }
        if let Some(source) = &self.source {
            add("AND source =", Value::Text(source));
        }
        if let Some(source) = &self.except_source {
            add("AND source <>", Value::Text(source));
        }
        let limit = if self.limit == 0 { ROWS_MAX } else { self.limit.min(ROWS_MAX) };
        let (order, behind) = if self.oldest_first { ("ASC", ">") } else { ("DESC", "<") };
        if let Some((ms, id)) = &self.after {
            add(&format!("AND (begun_ms, snapshot_id) {behind} ("), Value::Number(*ms));
            add(",", Value::Text(id));
            text.push(')');
        }
        if !self.with_removed {
            text.push_str(" AND removed_ms IS NULL");
        }
        let _infallible = write!(text, " ORDER BY begun_ms {order}, snapshot_id {order} LIMIT {limit}");
        (text, arguments)
    }
}

/// One thing that is bound to a query.
enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

/// The columns of a [`SnapshotRow`].
const COLUMNS: &str = "repository_id, snapshot_id, name, cluster, source, mode, engine, engine_version, method, begun_ms, \
    ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags, verified_ms";

/// One more column, for a [`ListedRow`].
const SHARD_COUNT: &str = ", (SELECT COUNT(*) FROM shards WHERE shards.repository_id = snapshots.repository_id
    AND shards.snapshot_id = snapshots.snapshot_id) AS shard_count";

impl Catalog {
    /// Records a snapshot with its shards, in place of what was recorded of it before. What became known of it later stays:
    /// its removal, its tags, its verdict.
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

    /// Notes that the manifest of a snapshot is gone, and so is what others were granted of it. Tells whether the snapshot was known and not yet
    /// removed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn mark_snapshot_removed(
        &self,
        repository_id: &str,
        snapshot_id: &str,
        now_unix_ms: u64,
    ) -> Result<bool> {
        let gone =
            "UPDATE grants SET revoked_ms = $1 WHERE repository_id = $2 AND snapshot_id = $3 AND revoked_ms IS NULL";
        let removed =
            "UPDATE snapshots SET removed_ms = $1 WHERE repository_id = $2 AND snapshot_id = $3 AND removed_ms IS NULL";
        let mark = |query| sqlx::query(query).bind(signed(now_unix_ms)).bind(repository_id).bind(snapshot_id);
        let done = async {
            let mut transaction = self.pool.begin().await?;
            mark(gone).execute(&mut *transaction).await?;
            let marked = mark(removed).execute(&mut *transaction).await?;
            transaction.commit().await.map(|()| marked.rows_affected() > 0)
        };
        done.await.map_err(|e| self.error("mark a snapshot in", &e))
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
        let query = filter.query("");
        let rows: Vec<SnapshotRow> = sqlx::query_as_with(AssertSqlSafe(query.0), query.1)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("list the snapshots of", &e))?;
        Ok(rows.into_iter().map(|row| SnapshotRow { key_ids: key_ids(row.key_ids), ..row }).collect())
    }

    /// At most [`ROWS_MAX`] snapshots with how many shards each has.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn listed_snapshots(&self, filter: &SnapshotFilter) -> Result<Vec<ListedRow>> {
        let query = filter.query(SHARD_COUNT);
        sqlx::query_as_with(AssertSqlSafe(query.0), query.1)
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

/// Key ids as they are written now. The first release joined them by commas.
fn key_ids(text: String) -> String {
    if text.starts_with('[') {
        return text;
    }
    let ids: Vec<&str> = text.split(',').filter(|id| !id.is_empty()).collect();
    serde_json::json!(ids).to_string()
}

async fn insert_snapshot(connection: &mut AnyConnection, row: &SnapshotRow) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO snapshots (repository_id, snapshot_id, name, cluster, source, mode, engine, engine_version,
             method, begun_ms, ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags,
             verified_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
         ON CONFLICT (repository_id, snapshot_id) DO UPDATE SET name = excluded.name, cluster = excluded.cluster,
             source = excluded.source, mode = excluded.mode, engine = excluded.engine,
             engine_version = excluded.engine_version, method = excluded.method, begun_ms = excluded.begun_ms,
             ended_ms = excluded.ended_ms, skew_ms = excluded.skew_ms, cipher = excluded.cipher,
             key_ids = excluded.key_ids, keys = excluded.keys, plain_bytes = excluded.plain_bytes,
             stored_bytes = excluded.stored_bytes",
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
    .bind(row.verified_ms)
    .execute(connection)
    .await
    .map(drop)
}

async fn insert_shard(connection: &mut AnyConnection, snapshot: &SnapshotRow, row: &ShardRow) -> sqlx::Result<()> {
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
    use super::*;

    #[test]
    fn key_ids_of_the_first_release_are_understood() {
        for (written, read) in
            [("", "[]"), ("k-1", r#"["k-1"]"#), ("k-1,k-2", r#"["k-1","k-2"]"#), (r#"["k-1"]"#, r#"["k-1"]"#)]
        {
            assert_eq!(key_ids(written.to_owned()), read);
        }
    }
}
