//! What was said of clusters through the API: clusters that were made there, and other windows and retention of those of the
//! configuration.

use super::{Catalog, signed};
use crate::error::Result;

/// What was said of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct DefinitionRow {
    /// Its name.
    pub cluster: String,
    /// 1: it was made through the API; 0: the configuration names it.
    pub made: i64,
    /// `group` or `cluster`.
    pub shape: String,
    /// What is said of it.
    pub description: String,
    /// Its window, instead of that of the configuration.
    pub window_text: Option<String>,
    /// For how many days automated snapshots are kept, instead of what the configuration says; 0: none are made.
    pub retention_days: Option<i64>,
    /// The node that was named for snapshots.
    pub snapshotting: String,
    /// Where its snapshots go, by the name in the configuration.
    pub repository: String,
    /// Where its nodes came from, by the name in the configuration.
    pub target: String,
    /// The job that fills it.
    pub job_id: String,
    /// Its nodes once it is filled: a JSON list of `host:port`.
    pub nodes: String,
    /// When this was said first, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub created_ms: u64,
}

impl DefinitionRow {
    /// Whether it was made through the API.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.made != 0
    }

    /// Its nodes; none before it is filled.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        serde_json::from_str(&self.nodes).unwrap_or_default()
    }
}

const COLUMNS: &str = "cluster, made, shape, description, window_text, retention_days, snapshotting, repository, target, job_id, \
    nodes, created_ms";

/// Later than every change before, whatever the clock says; `$1` is now.
const CHANGED: &str =
    "(SELECT CASE WHEN COALESCE(MAX(d.changed_ms), 0) >= $1 THEN MAX(d.changed_ms) + 1 ELSE $1 END FROM definitions d)";

impl Catalog {
    /// All definitions, by cluster.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn definitions(&self) -> Result<Vec<DefinitionRow>> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM definitions ORDER BY cluster")))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("list the definitions of", &e))
    }

    /// How many definitions there are and when one changed last: what tells whether they must be read again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn definitions_mark(&self) -> Result<(i64, i64)> {
        sqlx::query_as("SELECT COUNT(*), COALESCE(MAX(changed_ms), 0) FROM definitions")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| self.error("look for definitions in", &e))
    }

    /// The definition of a cluster.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn definition(&self, cluster: &str) -> Result<Option<DefinitionRow>> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM definitions WHERE cluster = $1")))
            .bind(cluster)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.error("read a definition of", &e))
    }

    /// Adds a definition, unless there is one for the cluster. Tells whether it was added.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn add_definition(&self, row: &DefinitionRow, now_unix_ms: u64) -> Result<bool> {
        self.write_definition(row, "DO NOTHING", now_unix_ms).await
    }

    /// Writes a definition in place of what was said before; when that was first said stays.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_definition(&self, row: &DefinitionRow, now_unix_ms: u64) -> Result<()> {
        let update = "DO UPDATE SET made = excluded.made, shape = excluded.shape, description = excluded.description,
             window_text = excluded.window_text, retention_days = excluded.retention_days,
             snapshotting = excluded.snapshotting, repository = excluded.repository, target = excluded.target,
             job_id = excluded.job_id, nodes = excluded.nodes, changed_ms = excluded.changed_ms";
        self.write_definition(row, update, now_unix_ms).await.map(drop)
    }

    async fn write_definition(&self, row: &DefinitionRow, conflict: &str, now_unix_ms: u64) -> Result<bool> {
        let query = format!(
            "INSERT INTO definitions ({COLUMNS}, changed_ms)
             VALUES ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, {CHANGED}) ON CONFLICT (cluster) {conflict}"
        );
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(signed(now_unix_ms))
            .bind(&row.cluster)
            .bind(row.made)
            .bind(&row.shape)
            .bind(&row.description)
            .bind(&row.window_text)
            .bind(row.retention_days)
            .bind(&row.snapshotting)
            .bind(&row.repository)
            .bind(&row.target)
            .bind(&row.job_id)
            .bind(&row.nodes)
            .bind(signed(row.created_ms))
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| self.error("write a definition to", &e))
    }

    /// Notes the nodes of the cluster that a job filled. Changes nothing when another job is to fill it by now.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn define_nodes(&self, job_id: &str, nodes: &[String], now_unix_ms: u64) -> Result<()> {
        let query = format!("UPDATE definitions SET nodes = $2, changed_ms = {CHANGED} WHERE job_id = $3 AND made = 1");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(signed(now_unix_ms))
            .bind(serde_json::json!(nodes).to_string())
            .bind(job_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("note nodes in", &e))
    }

    /// Forgets what was said of a cluster, and its tags; a cluster of this name may be made again then.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_definition(&self, cluster: &str) -> Result<()> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            for query in [
                "DELETE FROM definitions WHERE cluster = $1",
                "DELETE FROM tags WHERE kind <> 'snapshot' AND resource = $1",
                "DELETE FROM schedules WHERE cluster = $1",
            ] {
                sqlx::query(query).bind(cluster).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        done.await.map_err(|e: sqlx::Error| self.error("forget a definition of", &e))
    }
}
