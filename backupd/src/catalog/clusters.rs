//! Clusters as they were last seen, and what their nodes can do.

use std::collections::BTreeSet;

use super::{Catalog, signed};
use crate::error::{Class, Error, Result};

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ClusterRow {
    /// Its name.
    pub name: String,
    /// `standalone` or `cluster`.
    pub mode: String,
    /// `redis` or `valkey`.
    pub engine: String,
    /// The version of its nodes.
    pub engine_version: String,
    /// Where its snapshots go.
    pub repository_url: String,
    /// When it was seen like this, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub last_seen_ms: u64,
}

/// One thing that a node can or cannot do for a capture.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct NodeCapabilityRow {
    /// Node id, or `host:port`.
    pub node_id: String,
    /// What it is, one word.
    pub capability: String,
    /// Whether it can.
    #[sqlx(try_from = "Flag")]
    pub available: bool,
    /// Why, in words for the operator; may be empty.
    pub reason: String,
    /// When somebody looked, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub seen_ms: u64,
}

/// A cluster with the time when it was seen first.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct FirstSeen {
    #[sqlx(flatten)]
    pub(super) cluster: ClusterRow,
    #[sqlx(try_from = "i64")]
    pub(super) first_seen_ms: u64,
}

/// What both databases have for a truth: 0 or 1.
#[derive(Debug, sqlx::Type)]
#[sqlx(transparent)]
struct Flag(i64);

impl From<Flag> for bool {
    fn from(flag: Flag) -> Self {
        flag.0 != 0
    }
}

impl Catalog {
    /// Adds a cluster, or brings what is known of it up to date. Of what was seen earlier than what is known, only that it was seen then is noted.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn upsert_cluster(&self, row: &ClusterRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO clusters (name, mode, engine, engine_version, repository_url, first_seen_ms, last_seen_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $6)
             ON CONFLICT (name) DO UPDATE SET mode = excluded.mode, engine = excluded.engine,
                 engine_version = excluded.engine_version, repository_url = excluded.repository_url,
                 last_seen_ms = excluded.last_seen_ms
             WHERE excluded.last_seen_ms >= clusters.last_seen_ms",
        )
        .bind(&row.name)
        .bind(&row.mode)
        .bind(&row.engine)
        .bind(&row.engine_version)
        .bind(&row.repository_url)
        .bind(signed(row.last_seen_ms))
        .execute(&self.pool)
        .await
        .map_err(|e| self.error("record a cluster in", &e))?;
        sqlx::query("UPDATE clusters SET first_seen_ms = $1 WHERE name = $2 AND first_seen_ms > $1")
            .bind(signed(row.last_seen_ms))
            .bind(&row.name)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("record a cluster in", &e))
    }

    /// All clusters, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn clusters(&self) -> Result<Vec<ClusterRow>> {
        sqlx::query_as(
            "SELECT name, mode, engine, engine_version, repository_url, last_seen_ms FROM clusters ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("list the clusters of", &e))
    }

    /// A cluster as it was last seen, and when it was seen first, ms since 1970.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn cluster_seen(&self, name: &str) -> Result<Option<(ClusterRow, u64)>> {
        let query =
            "SELECT name, mode, engine, engine_version, repository_url, last_seen_ms, first_seen_ms FROM clusters
             WHERE name = $1";
        let row: Option<FirstSeen> = sqlx::query_as(query)
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.error("read a cluster of", &e))?;
        Ok(row.map(|row| (row.cluster, row.first_seen_ms)))
    }

    /// Records what the nodes of a cluster can do, in place of everything known of the same nodes before. What was seen of a node earlier than
    /// what is known changes nothing.
    ///
    /// # Errors
    /// `NotFound` when the cluster is not in the catalog.
    pub async fn record_node_capabilities(&self, cluster: &str, rows: &[NodeCapabilityRow]) -> Result<()> {
        let failed = |e: sqlx::Error| match &e {
            sqlx::Error::Database(error) if error.is_foreign_key_violation() => {
                Error::new(Class::NotFound, format!("the cluster `{cluster}` is not in the catalog"))
            }
            _ => self.error("record what nodes can do in", &e),
        };
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        let mut late = BTreeSet::new();
        for row in rows {
            let newer: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM node_capabilities WHERE cluster = $1 AND node_id = $2 AND seen_ms > $3",
            )
            .bind(cluster)
            .bind(&row.node_id)
            .bind(signed(row.seen_ms))
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
            if newer > 0 {
                late.insert(&row.node_id);
                continue;
            }
            sqlx::query("DELETE FROM node_capabilities WHERE cluster = $1 AND node_id = $2")
                .bind(cluster)
                .bind(&row.node_id)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        for row in rows.iter().filter(|row| !late.contains(&row.node_id)) {
            sqlx::query(
                "INSERT INTO node_capabilities (cluster, node_id, capability, available, reason, seen_ms)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(cluster)
            .bind(&row.node_id)
            .bind(&row.capability)
            .bind(i64::from(row.available))
            .bind(&row.reason)
            .bind(signed(row.seen_ms))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// What the nodes of a cluster can do, by node and capability.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn node_capabilities(&self, cluster: &str) -> Result<Vec<NodeCapabilityRow>> {
        sqlx::query_as(
            "SELECT node_id, capability, available, reason, seen_ms FROM node_capabilities
             WHERE cluster = $1 ORDER BY node_id, capability",
        )
        .bind(cluster)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("list what nodes can do in", &e))
    }
}
