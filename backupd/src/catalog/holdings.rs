//! Which snapshots there are: counts and ids, nothing of what is in them.

use std::collections::BTreeSet;

use super::Catalog;
use crate::error::Result;

impl Catalog {
    /// How many snapshots there are, and how many of them were verified.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_snapshots(&self) -> Result<(i64, i64)> {
        sqlx::query_as("SELECT COUNT(*), COUNT(verified_ms) FROM snapshots WHERE removed_ms IS NULL")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| self.error("count the snapshots of", &e))
    }

    /// The clusters of which a repository holds snapshots.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn clusters_with_snapshots(&self, repository_id: &str) -> Result<BTreeSet<String>> {
        sqlx::query_scalar("SELECT DISTINCT cluster FROM snapshots WHERE repository_id = $1 AND removed_ms IS NULL")
            .bind(repository_id)
            .fetch_all(&self.pool)
            .await
            .map(|clusters: Vec<String>| clusters.into_iter().collect())
            .map_err(|e| self.error("list the clusters of", &e))
    }

    /// Ids and names of a cluster's snapshots in a repository.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn snapshot_ids(&self, repository_id: &str, cluster: &str) -> Result<Vec<(String, String)>> {
        sqlx::query_as(
            "SELECT snapshot_id, name FROM snapshots WHERE cluster = $1 AND repository_id = $2 AND removed_ms IS NULL",
        )
        .bind(cluster)
        .bind(repository_id)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("list the snapshots of", &e))
    }

    /// The name of the newest snapshot of a cluster in a repository.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn newest_snapshot(&self, cluster: &str, repository_id: &str) -> Result<Option<String>> {
        sqlx::query_scalar(
            "SELECT name FROM snapshots WHERE cluster = $1 AND repository_id = $2 AND removed_ms IS NULL
             ORDER BY begun_ms DESC, snapshot_id DESC LIMIT 1",
        )
        .bind(cluster)
        .bind(repository_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.error("look for a snapshot in", &e))
    }
}
