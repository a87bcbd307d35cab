//! What was said of clusters besides the configuration: clusters that were made through the API, other windows, retention and tags, removals.
//! Their repositories have it (`repository::definition`); this is the index.

use std::collections::BTreeMap;

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
    /// The number of the object in the repository that says so.
    #[sqlx(try_from = "i64")]
    pub number: u64,
    /// Tags that were given and, as `null`, taken away: a JSON object.
    pub tags: String,
    /// When it was removed, ms since 1970.
    pub removed_ms: Option<i64>,
}

impl DefinitionRow {
    /// What is said of a cluster that nothing was said of.
    #[must_use]
    pub fn new(cluster: &str, now_unix_ms: u64) -> Self {
        Self {
            cluster: cluster.to_owned(),
            shape: "group".to_owned(),
            nodes: "[]".to_owned(),
            tags: "{}".to_owned(),
            created_ms: now_unix_ms,
            ..Self::default()
        }
    }

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

    /// What changed of its tags: the values that were given, and `None` for those that were taken away.
    #[must_use]
    pub fn tag_changes(&self) -> BTreeMap<String, Option<String>> {
        serde_json::from_str(&self.tags).unwrap_or_default()
    }
}

/// The columns of a [`DefinitionRow`].
pub(super) const COLUMNS: &str = "cluster, made, shape, description, window_text, retention_days, snapshotting, repository, target, job_id, \
    nodes, created_ms, number, tags, removed_ms";

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

    /// Writes a definition in place of an older one: what was said later stays.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_definition(&self, row: &DefinitionRow, now_unix_ms: u64) -> Result<()> {
        let query = format!(
            "INSERT INTO definitions ({COLUMNS}, changed_ms)
             VALUES ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, {CHANGED})
             ON CONFLICT (cluster) DO UPDATE SET made = excluded.made, shape = excluded.shape,
                 description = excluded.description, window_text = excluded.window_text,
                 retention_days = excluded.retention_days, snapshotting = excluded.snapshotting,
                 repository = excluded.repository, target = excluded.target, job_id = excluded.job_id,
                 nodes = excluded.nodes, created_ms = excluded.created_ms, number = excluded.number,
                 tags = excluded.tags, removed_ms = excluded.removed_ms, changed_ms = excluded.changed_ms
             WHERE definitions.number < excluded.number"
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
            .bind(signed(row.number))
            .bind(&row.tags)
            .bind(row.removed_ms)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("write a definition to", &e))
    }

    /// The definition of the cluster that a job fills, or filled.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn definition_of_job(&self, job_id: &str) -> Result<Option<DefinitionRow>> {
        let query = format!("SELECT {COLUMNS} FROM definitions WHERE job_id = $1 AND made = 1");
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(job_id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.error("read a definition of", &e))
    }

    /// Forgets what was said of a cluster; one of this name may be made again then.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_definition(&self, cluster: &str) -> Result<()> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            for query in ["DELETE FROM definitions WHERE cluster = $1", "DELETE FROM schedules WHERE cluster = $1"] {
                sqlx::query(query).bind(cluster).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        done.await.map_err(|e: sqlx::Error| self.error("forget a definition of", &e))
    }
}
