//! Clusters of ours, as the Query API sees them: each is a replication group, whose nodes are cache clusters; one that was made by
//! `CreateCacheCluster` is a cache cluster alone.

use std::sync::Arc;

use policies::access::{Action, Resource};
use policies::job::{Kind, State};

use super::call::Call;
use super::error::{Code, Fault};
use super::shapes::{CacheCluster, Endpoint, Member, NodeGroup, NodeGroupConfiguration, ReplicationGroup};
use crate::catalog::{ClusterRow, DefinitionRow, JobFilter, JobRow};
use crate::config::{Cluster, Config};
use crate::error::Result;
use crate::jobs::seen::Seen;

/// A cluster, from all that is known.
#[derive(Debug)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// How it is reached and backed up; none before its nodes are known.
    pub cluster: Option<Cluster>,
    /// What was said of it here.
    pub definition: Option<DefinitionRow>,
    /// As a snapshot last saw it.
    pub seen: Option<ClusterRow>,
    /// When that was first, ms since 1970.
    pub created_ms: Option<u64>,
    /// What is done with it now, or was to fill it.
    pub status: &'static str,
}

/// What a cache cluster id names.
#[derive(Debug)]
pub struct Node {
    /// Its cluster.
    pub known: Known,
    /// The id, in lower case.
    pub id: String,
}

impl Known {
    /// A cluster from what is said of it; `None` for one that nobody names. What is done with it is not looked at.
    #[must_use]
    pub fn of(
        name: &str,
        config: &Config,
        definition: Option<DefinitionRow>,
        seen: Option<(ClusterRow, u64)>,
    ) -> Option<Self> {
        let cluster = config.cluster(name).ok().cloned();
        let is_made = definition.as_ref().is_some_and(DefinitionRow::is_made);
        if cluster.is_none() && !is_made {
            return None;
        }
        let (seen, first_seen_ms) = seen.unzip();
        let created_ms = definition.as_ref().filter(|_| is_made).map(|row| row.created_ms).or(first_seen_ms);
        Some(Self { name: name.to_owned(), cluster, definition, seen, created_ms, status: "available" })
    }

    /// Whether it was made as a cache cluster of one node, without a group.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.definition.as_ref().is_some_and(|row| row.is_made() && row.shape == "cluster")
    }

    /// For how many days automated snapshots are kept; 0: none are made.
    #[must_use]
    pub fn retention_days(&self) -> u32 {
        let set = self.definition.as_ref().and_then(|row| row.retention_days);
        let configured = self.cluster.as_ref().map(|cluster| &cluster.automation);
        set.and_then(|days| u32::try_from(days).ok())
            .or_else(|| configured.filter(|it| it.on).map(|it| it.policy.limit_days.max(1)))
            .unwrap_or(0)
    }

    /// When automated snapshots are made, or would be.
    #[must_use]
    pub fn window(&self) -> String {
        let set = self.definition.as_ref().and_then(|row| row.window_text.clone());
        set.or_else(|| self.cluster.as_ref()?.automation.window.as_ref().map(ToString::to_string))
            .unwrap_or_else(|| policies::window::Window::chosen_for(&self.name).to_string())
    }

    /// The repository of its snapshots, by the name in the configuration.
    #[must_use]
    pub fn repository(&self) -> &str {
        let made = self.definition.as_ref().map(|row| row.repository.as_str());
        self.cluster.as_ref().map(|cluster| cluster.repository.as_str()).or(made).unwrap_or_default()
    }

    /// Its port, as far as the configuration tells.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.cluster.as_ref().and_then(|cluster| cluster.sources.first()).map(|source| source.address.port())
    }

    /// The id of its first node as a cache cluster.
    #[must_use]
    pub fn first_node(&self) -> String {
        if self.is_single() { self.name.clone() } else { format!("{}-001", self.name) }
    }

    /// The same of any node: shard and node count from 0.
    fn node_id(&self, is_cluster_mode: bool, shard: usize, node: usize) -> String {
        match is_cluster_mode {
            _ if self.is_single() => self.name.clone(),
            true => format!("{}-{:04}-{:03}", self.name, shard + 1, node + 1),
            false => format!("{}-{:03}", self.name, node + 1),
        }
    }

    /// Its shards; none when its nodes do not answer.
    fn node_groups(&self, nodes: Option<&Seen>) -> Vec<NodeGroup> {
        let Some(seen) = nodes else { return Vec::new() };
        let group = |(index, shard): (usize, &crate::jobs::seen::SeenShard)| {
            let members = shard.nodes.iter().enumerate().map(|(number, node)| Member {
                cluster: self.node_id(seen.is_cluster_mode, index, number),
                endpoint: Endpoint { host: node.host.clone(), port: node.port },
                is_primary: node.is_primary,
            });
            NodeGroup {
                id: NodeGroupConfiguration::id_of(index),
                slots: shard.slots.clone(),
                members: members.collect(),
            }
        };
        seen.shards.iter().enumerate().map(group).collect()
    }

    /// Whether it runs in cluster mode, as it is or was last seen.
    #[must_use]
    pub fn is_cluster_mode(&self, nodes: Option<&Seen>) -> bool {
        let before = || self.seen.as_ref().is_some_and(|row| row.mode == "cluster");
        nodes.map_or_else(before, |nodes| nodes.is_cluster_mode)
    }

    /// It as a replication group.
    #[must_use]
    pub fn group(&self, call: &Call<'_>, nodes: Option<&Seen>) -> ReplicationGroup {
        let engine = nodes.map(|it| it.engine.clone()).or_else(|| self.seen.as_ref().map(|row| row.engine.clone()));
        let description = self.definition.as_ref().map(|row| row.description.clone()).filter(|text| !text.is_empty());
        ReplicationGroup {
            id: self.name.clone(),
            description: description.unwrap_or_else(|| self.name.clone()),
            status: self.status,
            engine: engine.unwrap_or_default(),
            node_groups: self.node_groups(nodes),
            is_cluster_mode: self.is_cluster_mode(nodes),
            has_password: self.cluster.as_ref().is_some_and(|cluster| cluster.password.is_some()),
            has_tls: self.has_tls(),
            retention_days: self.retention_days(),
            window: self.window(),
            arn: call.arn("replicationgroup", &self.name),
        }
    }

    /// Its nodes as cache clusters. One that does not answer has its first node.
    #[must_use]
    pub fn cache_clusters(&self, call: &Call<'_>, nodes: Option<&Seen>) -> Vec<CacheCluster> {
        let cluster = |id: String, endpoint: Option<Endpoint>| CacheCluster {
            arn: call.arn("cluster", &id),
            id,
            group: (!self.is_single()).then(|| self.name.clone()),
            status: self.status,
            engine: nodes
                .map(|it| it.engine.clone())
                .or_else(|| self.seen.as_ref().map(|row| row.engine.clone()))
                .unwrap_or_default(),
            engine_version: nodes
                .map(|it| it.version.clone())
                .or_else(|| self.seen.as_ref().map(|row| row.engine_version.clone()))
                .unwrap_or_default(),
            created_ms: self.created_ms,
            endpoint,
            is_cluster_mode: self.is_cluster_mode(nodes),
            has_password: self.cluster.as_ref().is_some_and(|cluster| cluster.password.is_some()),
            has_tls: self.has_tls(),
            retention_days: self.retention_days(),
            window: self.window(),
        };
        let groups = self.node_groups(nodes);
        let members = groups.into_iter().flat_map(|group| group.members);
        let mut clusters: Vec<CacheCluster> =
            members.map(|member| cluster(member.cluster, Some(member.endpoint))).collect();
        if clusters.is_empty() && (self.is_single() || !self.is_cluster_mode(None)) {
            clusters.push(cluster(self.first_node(), None));
        }
        clusters
    }

    fn has_tls(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.sources.iter().any(|source| source.tls))
    }
}

impl Call<'_> {
    /// The names of all clusters that the caller sees, in order.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn cluster_names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.config.clusters().map(|cluster| cluster.name.clone()).collect();
        let made = self.query.services.catalog.definitions().await?;
        names.extend(made.into_iter().filter(DefinitionRow::is_made).map(|row| row.cluster));
        names.sort_unstable();
        names.dedup();
        names.retain(|name| {
            let tags = self.query.services.cluster_tags(name);
            self.query.services.sees(self.caller, Resource::Of { cluster: name, tags: &tags })
        });
        Ok(names)
    }

    /// A cluster; `None` for one that is not there, or was removed. Nobody is asked whether the caller may see it.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn known(&self, name: &str) -> Result<Option<Known>> {
        let catalog = &self.query.services.catalog;
        if catalog.schedule(name).await?.is_some_and(|row| row.removed_ms.is_some()) {
            return Ok(None);
        }
        let (definition, seen) = (catalog.definition(name).await?, catalog.cluster_seen(name).await?);
        let Some(mut known) = Known::of(name, &self.config, definition, seen) else { return Ok(None) };
        let filter = JobFilter { cluster: Some(name.to_owned()), only_open: true, ..JobFilter::default() };
        let open = catalog.jobs(&filter).await?;
        known.status = match (&known.definition, status_of(&open)) {
            (Some(row), _) if row.is_made() && row.nodes().is_empty() => match self.job(&row.job_id).await? {
                Some(job) if !job.state().is_final() => "creating",
                _ => "restore-failed",
            },
            (_, status) => status,
        };
        Ok(Some(known))
    }

    async fn job(&self, id: &str) -> Result<Option<JobRow>> {
        match self.query.services.catalog.job(id).await {
            Ok(job) => Ok(Some(job)),
            Err(error) if error.class() == crate::error::Class::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The nodes of a cluster; `None` when it does not answer.
    pub async fn nodes(&self, known: &Known) -> Option<Arc<Seen>> {
        self.query.watch.look(known.cluster.as_ref()?).await
    }

    /// The group of an id, for an action.
    ///
    /// # Errors
    /// `ReplicationGroupNotFoundFault`, `AccessDenied`.
    pub async fn group(&self, id: &str, action: Action) -> Result<Known, Fault> {
        let absent = || Fault::new(Code::ReplicationGroupNotFound, format!("ReplicationGroup {id} not found."));
        let known = self.by_name(id).await?.filter(|known| !known.is_single()).ok_or_else(absent)?;
        self.allow(action, &known.name, &self.query.services.cluster_tags(&known.name), id, absent()).await?;
        Ok(known)
    }

    /// The node of an id, for an action.
    ///
    /// # Errors
    /// `CacheClusterNotFound`, `AccessDenied`.
    pub async fn node(&self, id: &str, action: Action) -> Result<Node, Fault> {
        let absent = || Fault::new(Code::CacheClusterNotFound, format!("CacheCluster not found: {id}"));
        let known = match self.by_name(id).await? {
            Some(known) if known.is_single() => Some(known),
            _ => self.of_node(id).await?,
        };
        let known = known.ok_or_else(absent)?;
        self.allow(action, &known.name, &self.query.services.cluster_tags(&known.name), id, absent()).await?;
        Ok(Node { known, id: id.to_ascii_lowercase() })
    }

    /// A cluster by its name, or by its name in lower case.
    async fn by_name(&self, id: &str) -> Result<Option<Known>, Fault> {
        if let Some(known) = self.known(id).await? {
            return Ok(Some(known));
        }
        let lower = id.to_ascii_lowercase();
        Ok(if lower == id { None } else { self.known(&lower).await? })
    }

    /// The cluster that has a node of this id: `<name>-001` or `<name>-0001-001`. Nodes that are not seen now are taken at their word
    /// when their number could be.
    async fn of_node(&self, id: &str) -> Result<Option<Known>, Fault> {
        let number = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        let Some((rest, _)) = id.rsplit_once('-').filter(|(_, node)| number(node, 3)) else { return Ok(None) };
        let of_shard = rest.rsplit_once('-').filter(|(_, shard)| number(shard, 4)).map(|(name, _)| name);
        for name in [Some(rest), of_shard].into_iter().flatten() {
            let Some(known) = self.by_name(name).await?.filter(|known| !known.is_single()) else { continue };
            let nodes = self.nodes(&known).await;
            let ids: Vec<String> =
                known.cache_clusters(self, nodes.as_deref()).into_iter().map(|cluster| cluster.id).collect();
            let is_there = |there: &String| there.eq_ignore_ascii_case(id);
            if ids.iter().any(is_there) || (nodes.is_none() && known.cluster.is_some()) {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }
}

/// What is done with a cluster.
fn status_of(open: &[JobRow]) -> &'static str {
    let has = |kind: Kind, state: Option<State>| {
        open.iter().any(|job| job.kind() == kind && state.is_none_or(|state| job.state() == state))
    };
    if has(Kind::Remove, None) {
        "deleting"
    } else if has(Kind::Backup, Some(State::Running)) {
        "snapshotting"
    } else {
        "available"
    }
}
