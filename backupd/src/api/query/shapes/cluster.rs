//! `CacheCluster`.

use super::{Endpoint, NODE_TYPE, time};
use crate::api::query::xml::Writer;

/// A node, as a cache cluster of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheCluster {
    /// Its id.
    pub id: String,
    /// The group that it is in.
    pub group: Option<String>,
    /// `creating`, `available`, `deleting` or `restore-failed`.
    pub status: &'static str,
    /// `redis` or `valkey`; empty when it was never seen.
    pub engine: String,
    /// Its version; empty when it was never seen.
    pub engine_version: String,
    /// When it was seen first, ms since 1970.
    pub created_ms: Option<u64>,
    /// Where it is reached.
    pub endpoint: Option<Endpoint>,
    /// Whether clients must give a password.
    pub has_password: bool,
    /// Whether it runs in cluster mode.
    pub is_cluster_mode: bool,
    /// Whether it speaks TLS.
    pub has_tls: bool,
    /// For how many days automated snapshots are kept; 0: none are made.
    pub retention_days: u32,
    /// When they are made; empty when none are.
    pub window: String,
    /// Its ARN.
    pub arn: String,
}

impl CacheCluster {
    /// AWS's name for the parameters that an engine has when nobody sets any: provisioners read it. None while the engine is not known.
    fn parameter_group(&self) -> Option<String> {
        let (major, _) = self.engine_version.split_once('.')?;
        let family = match (self.engine.as_str(), major) {
            ("redis", "6") => "redis6.x".to_owned(),
            (engine, major) => format!("{engine}{major}"),
        };
        Some(format!("default.{family}{}", if self.is_cluster_mode { ".cluster.on" } else { "" }))
    }

    /// Writes its members; where its node is reached only when that was asked for.
    pub fn write(&self, writer: &mut Writer, with_nodes: bool) {
        let created = self.created_ms.map(time);
        writer.text("CacheClusterId", &self.id);
        writer.text("CacheNodeType", NODE_TYPE);
        writer.some("Engine", Some(self.engine.as_str()).filter(|text| !text.is_empty()));
        writer.some("EngineVersion", Some(self.engine_version.as_str()).filter(|text| !text.is_empty()));
        writer.text("CacheClusterStatus", self.status);
        writer.number("NumCacheNodes", 1_u32);
        writer.some("CacheClusterCreateTime", created.as_deref());
        writer.element("PendingModifiedValues", |_| {});
        writer.element("CacheSecurityGroups", |_| {});
        if let Some(name) = self.parameter_group() {
            writer.element("CacheParameterGroup", |writer| {
                writer.text("CacheParameterGroupName", &name);
                writer.text("ParameterApplyStatus", "in-sync");
                writer.element("CacheNodeIdsToReboot", |_| {});
            });
        }
        if with_nodes && let Some(endpoint) = &self.endpoint {
            writer.element("CacheNodes", |writer| {
                writer.element("CacheNode", |writer| {
                    writer.text("CacheNodeId", "0001");
                    writer.text("CacheNodeStatus", self.status);
                    writer.some("CacheNodeCreateTime", created.as_deref());
                    endpoint.write("Endpoint", writer);
                    writer.text("ParameterGroupStatus", "in-sync");
                });
            });
        }
        writer.flag("AutoMinorVersionUpgrade", false);
        writer.some("ReplicationGroupId", self.group.as_deref());
        writer.number("SnapshotRetentionLimit", self.retention_days);
        writer.text("SnapshotWindow", &self.window);
        writer.flag("AuthTokenEnabled", self.has_password);
        writer.flag("TransitEncryptionEnabled", self.has_tls);
        writer.flag("AtRestEncryptionEnabled", false);
        writer.text("ARN", &self.arn);
    }
}
