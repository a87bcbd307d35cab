//! Who may do what through the API: a caller's role and scope, an action, the thing concerned.
//!
//! `grants` is about others who read a bucket, and produces policy documents; this is about callers of our own API, and says yes or
//! no. So it is a module of its own.
//!
//! Roles include each other: an operator may what a reader may, an admin everything. What only adds (a snapshot, a copy, a verification, a
//! new cluster) is an operator's; what takes away, opens data to others or changes what is kept is an admin's. A scope narrows all of that to
//! clusters by their names and to things that bear certain tags. What is outside of a scope does not exist for the caller.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller may do at most. The order is that of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Reader,
    /// Makes snapshots and restores them.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Operator, Self::Admin];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the description of the API, or who one is.
    Describe,
    /// List or show clusters, their windows and what is planned for them.
    ReadClusters,
    /// List or show snapshots, and what retention says of them.
    ReadSnapshots,
    /// List or show jobs.
    ReadJobs,
    /// List events.
    ReadEvents,
    /// Say what a restore would do.
    PlanRestore,
    /// Make a snapshot.
    CreateSnapshot,
    /// Read a snapshot again.
    VerifySnapshot,
    /// Copy a snapshot into another repository of the configuration.
    CopySnapshot,
    /// Protect a snapshot from deletion.
    KeepSnapshot,
    /// Restore a snapshot into a target of the configuration.
    Restore,
    /// End a job.
    CancelJob,
    /// Tag a thing.
    Tag,
    /// Write a snapshot in the clear to a place of the configuration.
    ExportSnapshot,
    /// Let a snapshot go that was kept.
    ReleaseSnapshot,
    /// Delete a snapshot.
    DeleteSnapshot,
    /// Change the window or the retention of a cluster.
    ModifyCluster,
    /// Remove a cluster.
    RemoveCluster,
    /// List who else may read what is in the buckets.
    ReadGrants,
    /// Let others read.
    AddGrant,
    /// Take back that others may read.
    RevokeGrant,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Describe,
        Self::ReadClusters,
        Self::ReadSnapshots,
        Self::ReadJobs,
        Self::ReadEvents,
        Self::PlanRestore,
        Self::CreateSnapshot,
        Self::VerifySnapshot,
        Self::CopySnapshot,
        Self::KeepSnapshot,
        Self::Restore,
        Self::CancelJob,
        Self::Tag,
        Self::ExportSnapshot,
        Self::ReleaseSnapshot,
        Self::DeleteSnapshot,
        Self::ModifyCluster,
        Self::RemoveCluster,
        Self::ReadGrants,
        Self::AddGrant,
        Self::RevokeGrant,
    ];

    /// As it is written in the audit chain and in the description of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Describe => "api.describe",
            Self::ReadClusters => "cluster.read",
            Self::ReadSnapshots => "snapshot.read",
            Self::ReadJobs => "job.read",
            Self::ReadEvents => "event.read",
            Self::PlanRestore => "restore.plan",
            Self::CreateSnapshot => "snapshot.create",
            Self::VerifySnapshot => "snapshot.verify",
            Self::CopySnapshot => "snapshot.copy",
            Self::KeepSnapshot => "snapshot.keep",
            Self::Restore => "restore.run",
            Self::CancelJob => "job.cancel",
            Self::Tag => "resource.tag",
            Self::ExportSnapshot => "snapshot.export",
            Self::ReleaseSnapshot => "snapshot.release",
            Self::DeleteSnapshot => "snapshot.delete",
            Self::ModifyCluster => "cluster.modify",
            Self::RemoveCluster => "cluster.remove",
            Self::ReadGrants => "grant.read",
            Self::AddGrant => "grant.add",
            Self::RevokeGrant => "grant.revoke",
        }
    }

    /// The action that is written so.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }

    /// The weakest role that may.
    #[must_use]
    pub fn least_role(self) -> Role {
        match self {
            Self::Describe
            | Self::ReadClusters
            | Self::ReadSnapshots
            | Self::ReadJobs
            | Self::ReadEvents
            | Self::ReadGrants
            | Self::PlanRestore => Role::Reader,
            Self::CreateSnapshot
            | Self::VerifySnapshot
            | Self::CopySnapshot
            | Self::KeepSnapshot
            | Self::Restore
            | Self::CancelJob
            | Self::Tag => Role::Operator,
            Self::ExportSnapshot
            | Self::ReleaseSnapshot
            | Self::DeleteSnapshot
            | Self::ModifyCluster
            | Self::RemoveCluster
            | Self::AddGrant
            | Self::RevokeGrant => Role::Admin,
        }
    }

    /// Whether it changes something: then its permission is written down too, not only its refusal.
    #[must_use]
    pub fn changes(self) -> bool {
        self.least_role() > Role::Reader
    }
}

/// Which things a caller sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Names of clusters, or beginnings of them with `*`; all when empty.
    pub clusters: Vec<String>,
    /// Tags that a thing must bear, all of them; none when empty.
    pub tags: BTreeMap<String, String>,
}

impl Scope {
    /// Whether things of this cluster can be in it.
    #[must_use]
    pub fn has_cluster(&self, cluster: &str) -> bool {
        let is = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => cluster.starts_with(beginning),
            None => pattern == cluster,
        };
        self.clusters.is_empty() || self.clusters.iter().any(is)
    }

    /// Whether a thing with these tags can be in it.
    #[must_use]
    pub fn has_tags(&self, tags: &BTreeMap<String, String>) -> bool {
        self.tags.iter().all(|(name, value)| tags.get(name) == Some(value))
    }

    /// Whether it is everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.clusters.is_empty() && self.tags.is_empty()
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As it stands in audit lines: `token:NAME`, `key:NAME`, `local`.
    pub name: String,
    /// What it may at most.
    pub role: Role,
    /// Which things it sees.
    pub scope: Scope,
    /// From when on it may nothing, ms since 1970.
    pub expires_unix_ms: Option<u64>,
}

/// What is concerned.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// Nothing that belongs to a cluster: the description of the API, the list itself.
    Service,
    /// A cluster, or something of it, with its tags.
    Of {
        /// The cluster.
        cluster: &'a str,
        /// The tags of the thing: of a snapshot its own, else those of the cluster.
        tags: &'a BTreeMap<String, String>,
    },
    /// Something that belongs to no cluster that is known: only who sees everything sees it.
    Unknown,
}

/// What was decided, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed,
    /// Its time is over.
    Expired,
    /// The role is too weak; this one would do.
    Role(Role),
    /// The cluster is not in its scope.
    Cluster,
    /// A tag is missing that its scope asks for.
    Tags,
}

impl Decision {
    /// Whether it may.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }

    /// Whether the caller must not learn that the thing is there.
    #[must_use]
    pub fn hides(self) -> bool {
        matches!(self, Self::Cluster | Self::Tags)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("its role and scope allow it"),
            Self::Expired => f.write_str("the credentials have expired"),
            Self::Role(role) => write!(f, "it takes the role {role}"),
            Self::Cluster => f.write_str("the cluster is not in its scope"),
            Self::Tags => f.write_str("the tags that its scope asks for are not there"),
        }
    }
}

/// Whether `principal` may do `action` to `resource` at `now_unix_ms`.
#[must_use]
pub fn decide(principal: &Principal, action: Action, resource: Resource<'_>, now_unix_ms: u64) -> Decision {
    if principal.expires_unix_ms.is_some_and(|end| end <= now_unix_ms) {
        return Decision::Expired;
    }
    if principal.role < action.least_role() {
        return Decision::Role(action.least_role());
    }
    let scope = &principal.scope;
    match resource {
        Resource::Service => Decision::Allowed,
        Resource::Unknown if scope.is_everything() => Decision::Allowed,
        Resource::Unknown => Decision::Cluster,
        Resource::Of { cluster, .. } if !scope.has_cluster(cluster) => Decision::Cluster,
        Resource::Of { tags, .. } if !scope.has_tags(tags) => Decision::Tags,
        Resource::Of { .. } => Decision::Allowed,
    }
}

#[cfg(test)]
mod tests;
