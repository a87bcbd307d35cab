//! `Snapshot` and `NodeSnapshot`.

use super::{NodeGroupConfiguration, time};
use crate::api::query::xml::Writer;

/// A snapshot, or one that is being made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// The group that it is of, where that runs in cluster mode or was asked for as a group.
    pub group: Option<String>,
    /// What is said of that group.
    pub group_description: Option<String>,
    /// The single node that it is of.
    pub cluster: Option<String>,
    /// `creating`, `available`, `copying`, `restoring`, `deleting` or `failed`.
    pub status: &'static str,
    /// `automated` or `manual`.
    pub source: &'static str,
    /// `redis` or `valkey`.
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// The port of the nodes.
    pub port: Option<u16>,
    /// When the cluster was seen first, ms since 1970.
    pub cluster_created_ms: Option<u64>,
    /// The setting of the cluster, days.
    pub retention_days: Option<u32>,
    /// The window of the cluster.
    pub window: Option<String>,
    /// Whether the cluster runs in cluster mode.
    pub is_cluster_mode: bool,
    /// The master key that its data key was wrapped for.
    pub key_id: Option<String>,
    /// Its ARN.
    pub arn: String,
    /// One for each shard.
    pub nodes: Vec<NodeSnapshot>,
}

/// A shard of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSnapshot {
    /// The node that served it.
    pub cluster: Option<String>,
    /// The shard; none without cluster mode.
    pub node_group: Option<NodeGroupConfiguration>,
    /// Bytes of its RDB; none while it is made.
    pub bytes: Option<u64>,
    /// When the cluster was seen first, ms since 1970.
    pub created_ms: Option<u64>,
    /// The moment that it holds, ms since 1970; while it is made, when that began.
    pub taken_ms: Option<u64>,
}

impl Snapshot {
    /// Writes its members; what each shard has of slots only when that was asked for.
    pub fn write(&self, writer: &mut Writer, with_node_groups: bool) {
        writer.text("SnapshotName", &self.name);
        writer.some("ReplicationGroupId", self.group.as_deref());
        writer.some("ReplicationGroupDescription", self.group_description.as_deref());
        writer.some("CacheClusterId", self.cluster.as_deref());
        writer.text("SnapshotStatus", self.status);
        writer.text("SnapshotSource", self.source);
        writer.text("CacheNodeType", super::NODE_TYPE);
        writer.text("Engine", &self.engine);
        writer.text("EngineVersion", &self.engine_version);
        if self.cluster.is_some() {
            writer.number("NumCacheNodes", 1_u32);
        }
        writer.some("CacheClusterCreateTime", self.cluster_created_ms.map(time).as_deref());
        if let Some(port) = self.port {
            writer.number("Port", port);
        }
        if let Some(days) = self.retention_days {
            writer.number("SnapshotRetentionLimit", days);
        }
        writer.some("SnapshotWindow", self.window.as_deref());
        if self.group.is_some() {
            writer.number("NumNodeGroups", u64::try_from(self.nodes.len()).unwrap_or(u64::MAX));
            writer.text("AutomaticFailover", if self.is_cluster_mode { "enabled" } else { "disabled" });
        }
        writer.list("NodeSnapshots", "NodeSnapshot", &self.nodes, |writer, node| node.write(writer, with_node_groups));
        writer.some("KmsKeyId", self.key_id.as_deref());
        writer.text("ARN", &self.arn);
        writer.text("DataTiering", "disabled");
    }
}

impl NodeSnapshot {
    fn write(&self, writer: &mut Writer, with_node_group: bool) {
        writer.some("CacheClusterId", self.cluster.as_deref());
        writer.some("NodeGroupId", self.node_group.as_ref().map(|group| group.id.as_str()));
        writer.text("CacheNodeId", "0001");
        if let Some(group) = self.node_group.as_ref().filter(|_| with_node_group) {
            writer.element("NodeGroupConfiguration", |writer| group.write(writer));
        }
        writer.text("CacheSize", &self.bytes.map(size).unwrap_or_default());
        writer.some("CacheNodeCreateTime", self.created_ms.map(time).as_deref());
        writer.some("SnapshotCreateTime", self.taken_ms.map(time).as_deref());
    }
}

/// As ElastiCache writes sizes: whole mebibytes, at least one.
fn size(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20).max(1))
}
