//! Clusters as they were last seen, and what their nodes can do.

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
    pub available: bool,
    /// Why, in words for the operator; may be empty.
    pub reason: String,
    /// When somebody looked, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub seen_ms: u64,
}

impl Catalog {
    /// Adds a cluster, or brings what is known of it up to date. What was seen earlier than what is known changes nothing.
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

    /// Records what the nodes of a cluster can do, in place of everything known of the same nodes before.
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
        for row in rows {
            sqlx::query("DELETE FROM node_capabilities WHERE cluster = $1 AND node_id = $2")
                .bind(cluster)
                .bind(&row.node_id)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        for row in rows {
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

#[cfg(test)]
mod tests {
    use super::super::tests::new;
    use super::*;

    fn cluster(name: &str, version: &str, last_seen_ms: u64) -> ClusterRow {
        ClusterRow {
            name: name.into(),
            mode: "cluster".into(),
            engine: "redis".into(),
            engine_version: version.into(),
            repository_url: "file:///x".into(),
            last_seen_ms,
        }
    }

    #[tokio::test]
    async fn a_cluster_is_as_it_was_last_seen() {
        let (catalog, folder) = new().await;
        for row in [cluster("b", "7.0.1", 10), cluster("a", "8.0.0", 5), cluster("b", "7.0.2", 20)] {
            catalog.upsert_cluster(&row).await.unwrap();
        }
        catalog.upsert_cluster(&cluster("b", "7.0.1", 15)).await.unwrap();
        catalog.close().await;
        let reopened = Catalog::open(&folder.path().join("a/catalog.sqlite")).await.unwrap();
        assert_eq!(reopened.clusters().await.unwrap(), [cluster("a", "8.0.0", 5), cluster("b", "7.0.2", 20)]);
        let impossible = ClusterRow { mode: "sharded".into(), ..cluster("c", "1", 1) };
        assert!(reopened.upsert_cluster(&impossible).await.is_err());
    }

    #[tokio::test]
    async fn what_a_node_can_do_is_replaced_as_a_whole() {
        let (catalog, _folder) = new().await;
        let can = |node: &str, capability: &str, available| NodeCapabilityRow {
            node_id: node.into(),
            capability: capability.into(),
            available,
            reason: if available { String::new() } else { "NOPERM".into() },
            seen_ms: 7,
        };
        let error = catalog.record_node_capabilities("c", &[can("n1", "psync", true)]).await.unwrap_err();
        assert_eq!(error.class(), Class::NotFound, "{error}");
        catalog.upsert_cluster(&cluster("c", "7.0.1", 1)).await.unwrap();
        let before = [can("n1", "bgsave", false), can("n1", "psync", true), can("n2", "psync", true)];
        for _ in 0..2 {
            catalog.record_node_capabilities("c", &before).await.unwrap();
        }
        assert_eq!(catalog.node_capabilities("c").await.unwrap(), before);
        catalog.record_node_capabilities("c", &[can("n1", "psync", false)]).await.unwrap();
        let after = [can("n1", "psync", false), can("n2", "psync", true)];
        assert_eq!(catalog.node_capabilities("c").await.unwrap(), after);
    }
}
