//! Nodes of clusters as they are, looked at when somebody wants to know, and not more often than now and then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::reach;
use crate::config::Cluster;
use crate::redis::{Mode, Shard, Topology, discover};

/// How long what was seen is told again.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// How long a cluster may take to answer.
const WAIT: Duration = Duration::from_secs(3);

/// The most clusters that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// A cluster as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether it runs in cluster mode.
    pub is_cluster_mode: bool,
    /// Its engine.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// Slots are on their way between shards.
    pub is_resharding: bool,
    /// Its shards, by first slot.
    pub shards: Vec<SeenShard>,
}

/// A shard as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenShard {
    /// Its slots; none without cluster mode.
    pub slots: Option<String>,
    /// Its nodes, by their ids: a node keeps its place when another one becomes the primary.
    pub nodes: Vec<SeenNode>,
}

/// A node as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenNode {
    /// Host name or address.
    pub host: String,
    /// Its port; 0 for a Unix socket.
    pub port: u16,
    /// Whether it is its shard's primary.
    pub is_primary: bool,
}

impl From<&Topology> for Seen {
    fn from(topology: &Topology) -> Self {
        Self {
            is_cluster_mode: topology.mode == Mode::Cluster,
            engine: topology.engine.clone(),
            version: topology.version.clone(),
            is_resharding: !topology.migrating.is_empty(),
            shards: topology.shards.iter().map(SeenShard::from).collect(),
        }
    }
}

impl From<&Shard> for SeenShard {
    fn from(shard: &Shard) -> Self {
        let primary = shard.primary_id();
        let mut nodes: Vec<_> = shard.nodes.iter().collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        let node = |node: &&crate::redis::Node| SeenNode {
            host: node.host.clone(),
            port: node.port,
            is_primary: Some(node.id.as_str()) == primary,
        };
        Self { slots: shard.slots.as_ref().map(ToString::to_string), nodes: nodes.iter().map(node).collect() }
    }
}

/// When somebody looked, and what there was; nothing when the cluster did not answer.
type Look = (Instant, Option<Arc<Seen>>);

/// What was seen of clusters.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<BTreeMap<String, Look>>>);

impl Watch {
    /// The nodes of a cluster; `None` when it does not answer.
    pub async fn look(&self, cluster: &Cluster) -> Option<Arc<Seen>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&cluster.name).cloned();
        if let Some((at, seen)) = known
            && at.elapsed() < FRESH_FOR
        {
            return seen;
        }
        let found = ask(cluster).await;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(cluster.name.clone(), (Instant::now(), found.clone()));
        found
    }

    /// Forgets a cluster, so that it is looked at anew.
    pub fn forget(&self, cluster: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster);
    }
}

async fn ask(cluster: &Cluster) -> Option<Arc<Seen>> {
    let options = reach::options(cluster, cluster.password.as_ref()).ok()?;
    match tokio::time::timeout(WAIT, Box::pin(discover(&options))).await {
        Ok(Ok(topology)) => Some(Arc::new(Seen::from(&topology))),
        Ok(Err(error)) => {
            tracing::debug!(cluster = cluster.name, error = %error, "its nodes are not known");
            None
        }
        Err(_) => None,
    }
}
