//! `ReplicationGroup`.

use super::{Endpoint, NODE_TYPE};
use crate::api::query::xml::Writer;

/// A cluster of ours, as a replication group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicationGroup {
    /// Its name.
    pub id: String,
    /// What is said of it.
    pub description: String,
    /// `creating`, `available`, `deleting`, `restore-failed` and so on.
    pub status: &'static str,
    /// `redis` or `valkey`; empty when it was never seen.
    pub engine: String,
    /// Its shards.
    pub node_groups: Vec<NodeGroup>,
    /// Whether it runs in cluster mode.
    pub is_cluster_mode: bool,
    /// Whether clients must give a password.
    pub has_password: bool,
    /// Whether its nodes speak TLS.
    pub has_tls: bool,
    /// For how many days automated snapshots are kept; 0: none are made.
    pub retention_days: u32,
    /// When they are made; empty when none are.
    pub window: String,
    /// Its ARN.
    pub arn: String,
}

/// A shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeGroup {
    /// `0001` and so on.
    pub id: String,
    /// Its slots; none without cluster mode.
    pub slots: Option<String>,
    /// Its nodes, the primary first.
    pub members: Vec<Member>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id as a cache cluster.
    pub cluster: String,
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// Whether it is its shard's primary.
    pub is_primary: bool,
}

impl ReplicationGroup {
    /// The ids of its nodes as cache clusters.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.node_groups.iter().flat_map(|group| &group.members)
    }

    /// Writes its members.
    pub fn write(&self, writer: &mut Writer) {
        let has_replicas = self.members().any(|member| !member.is_primary);
        let enabled = |is: bool| if is { "enabled" } else { "disabled" };
        writer.text("ReplicationGroupId", &self.id);
        writer.text("Description", &self.description);
        writer.text("Status", self.status);
        writer.element("PendingModifiedValues", |_| {});
        let ids: Vec<&str> = self.members().map(|member| member.cluster.as_str()).collect();
        writer.element("MemberClusters", |writer| ids.iter().for_each(|id| writer.text("ClusterId", id)));
        writer.list("NodeGroups", "NodeGroup", &self.node_groups, |writer, group| {
            group.write(writer, self.status, self.is_cluster_mode);
        });
        writer.text("AutomaticFailover", enabled(self.is_cluster_mode && has_replicas));
        writer.text("MultiAZ", "disabled");
        if self.is_cluster_mode
            && let Some(first) = self.members().next()
        {
            first.endpoint.write("ConfigurationEndpoint", writer);
        }
        writer.number("SnapshotRetentionLimit", self.retention_days);
        writer.text("SnapshotWindow", &self.window);
        writer.flag("ClusterEnabled", self.is_cluster_mode);
        writer.text("ClusterMode", enabled(self.is_cluster_mode));
        writer.text("CacheNodeType", NODE_TYPE);
        writer.flag("AuthTokenEnabled", self.has_password);
        writer.flag("TransitEncryptionEnabled", self.has_tls);
        writer.flag("AtRestEncryptionEnabled", false);
        writer.text("ARN", &self.arn);
        writer.text("DataTiering", "disabled");
        if !self.engine.is_empty() {
            writer.text("Engine", &self.engine);
        }
    }
}

impl NodeGroup {
    fn write(&self, writer: &mut Writer, status: &str, is_cluster_mode: bool) {
        writer.text("NodeGroupId", &self.id);
        writer.text("Status", status);
        if !is_cluster_mode {
            let primary = self.members.iter().find(|member| member.is_primary);
            let replica = self.members.iter().find(|member| !member.is_primary).or(primary);
            if let Some(primary) = primary {
                primary.endpoint.write("PrimaryEndpoint", writer);
            }
            if let Some(replica) = replica {
                replica.endpoint.write("ReaderEndpoint", writer);
            }
        }
        writer.some("Slots", self.slots.as_deref());
        writer.list("NodeGroupMembers", "NodeGroupMember", &self.members, |writer, member| {
            writer.text("CacheClusterId", &member.cluster);
            writer.text("CacheNodeId", "0001");
            if !is_cluster_mode {
                member.endpoint.write("ReadEndpoint", writer);
                writer.text("CurrentRole", if member.is_primary { "primary" } else { "replica" });
            }
        });
    }
}
