//! What is known beside the snapshots of a page: their shards, what is done with them, their clusters. So many queries, however long the page is.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, FromRow};

use super::clusters::{ClusterRow, FirstSeen};
use super::definitions::{self, DefinitionRow};
use super::jobs::{JOB_COLUMNS, JobRow};
use super::snapshots::{ShardRow, SnapshotRow};
use super::{Catalog, ROWS_MAX};
use crate::error::Result;

/// What is known beside snapshots.
#[derive(Debug, Default)]
pub struct Beside {
    shards: BTreeMap<(String, String), Vec<ShardRow>>,
    jobs: BTreeMap<String, Vec<JobRow>>,
    definitions: BTreeMap<String, DefinitionRow>,
    removed: BTreeSet<String>,
    seen: BTreeMap<String, FirstSeen>,
}

impl Beside {
    /// The shards of a snapshot, by index.
    #[must_use]
    pub fn shards(&self, row: &SnapshotRow) -> &[ShardRow] {
        self.shards.get(&(row.repository_id.clone(), row.snapshot_id.clone())).map_or(&[], Vec::as_slice)
    }

    /// The jobs about snapshots of this name that have not ended.
    #[must_use]
    pub fn open_jobs(&self, name: &str) -> &[JobRow] {
        self.jobs.get(name).map_or(&[], Vec::as_slice)
    }

    /// What was said of a cluster.
    #[must_use]
    pub fn definition(&self, cluster: &str) -> Option<&DefinitionRow> {
        self.definitions.get(cluster)
    }

    /// Whether a cluster was removed.
    #[must_use]
    pub fn is_removed(&self, cluster: &str) -> bool {
        self.removed.contains(cluster)
    }

    /// A cluster as it was last seen, and when it was seen first, ms since 1970.
    #[must_use]
    pub fn seen(&self, cluster: &str) -> Option<(&ClusterRow, u64)> {
        self.seen.get(cluster).map(|row| (&row.cluster, row.first_seen_ms))
    }
}

/// A shard with whose it is.
#[derive(Debug, FromRow)]
struct Shard {
    repository_id: String,
    snapshot_id: String,
    #[sqlx(flatten)]
    row: ShardRow,
}

impl Catalog {
    /// What is known beside these snapshots, of which there are at most [`ROWS_MAX`].
    ///
    /// # Errors
    /// Those of the database.
    pub async fn beside(&self, snapshots: &[SnapshotRow]) -> Result<Beside> {
        let snapshots = snapshots.get(..usize::try_from(ROWS_MAX).unwrap_or(usize::MAX)).unwrap_or(snapshots);
        let mut beside = Beside::default();
        if snapshots.is_empty() {
            return Ok(beside);
        }
        let ids: Vec<&str> = snapshots.iter().flat_map(|row| [row.repository_id.as_str(), &row.snapshot_id]).collect();
        let pairs: Vec<String> = (0..snapshots.len()).map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2)).collect();
        let query = format!(
            "SELECT * FROM shards WHERE (repository_id, snapshot_id) IN (VALUES {}) ORDER BY shard_index",
            pairs.join(", ")
        );
        for shard in self.rows_of::<Shard>(query, &ids).await? {
            beside.shards.entry((shard.repository_id, shard.snapshot_id)).or_default().push(shard.row);
        }
        let distinct = |of: fn(&SnapshotRow) -> &String| -> Vec<&str> {
            let texts: BTreeSet<&str> = snapshots.iter().map(|row| of(row).as_str()).collect();
            texts.into_iter().collect()
        };
        let (names, clusters) = (distinct(|row| &row.name), distinct(|row| &row.cluster));
        let (of_names, of_clusters) = (marks(names.len()), marks(clusters.len()));
        let open = format!(
            "SELECT {JOB_COLUMNS} FROM jobs WHERE snapshot_name IN ({of_names}) AND state IN ('queued', 'running')
             ORDER BY created_ms DESC, job_id DESC LIMIT {ROWS_MAX}"
        );
        for job in self.rows_of::<JobRow>(open, &names).await? {
            beside.jobs.entry(job.snapshot_name.clone()).or_default().push(job);
        }
        let said = format!("SELECT {} FROM definitions WHERE cluster IN ({of_clusters})", definitions::COLUMNS);
        for row in self.rows_of::<DefinitionRow>(said, &clusters).await? {
            beside.definitions.insert(row.cluster.clone(), row);
        }
        let removed =
            format!("SELECT cluster FROM schedules WHERE removed_ms IS NOT NULL AND cluster IN ({of_clusters})");
        beside.removed = self.rows_of::<(String,)>(removed, &clusters).await?.into_iter().map(|row| row.0).collect();
        let seen = format!(
            "SELECT name, mode, engine, engine_version, repository_url, last_seen_ms, first_seen_ms FROM clusters
             WHERE name IN ({of_clusters})"
        );
        for row in self.rows_of::<FirstSeen>(seen, &clusters).await? {
            beside.seen.insert(row.cluster.name.clone(), row);
        }
        Ok(beside)
    }

    async fn rows_of<T>(&self, query: String, texts: &[&str]) -> Result<Vec<T>>
    where
        T: Send + Unpin + for<'r> FromRow<'r, AnyRow>,
    {
        let mut rows = sqlx::query_as(AssertSqlSafe(query));
        for text in texts {
            rows = rows.bind((*text).to_owned());
        }
        rows.fetch_all(&self.pool).await.map_err(|e| self.error("read what is known of snapshots in", &e))
    }
}

/// `$1, $2, …`
fn marks(count: usize) -> String {
    (1..=count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}
