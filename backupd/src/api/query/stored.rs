//! Snapshots, as the Query API sees them: those that are there, and those that jobs make.

use std::collections::BTreeMap;

use policies::access::Action;
use policies::job::{Kind, State};
use serde::Serialize;
use serde_json::Value;

use super::call::Call;
use super::error::{Code, Fault};
use super::known::Known;
use super::shapes::{NodeGroupConfiguration, NodeSnapshot, Snapshot};
use crate::catalog::{Beside, JobFilter, JobRow, NewJob, ShardRow, SnapshotRow};
use crate::error::{Class, Error, Result};
use crate::jobs::seen::Seen;
use crate::jobs::submit;
use crate::service::snapshots::Found;

/// How long a snapshot that failed is shown, ms.
const FAILED_FOR_MS: u64 = 86_400_000;

/// What a name names.
#[derive(Debug)]
pub enum Named {
    /// A snapshot.
    There(Box<Found>),
    /// A job that makes one, or failed to not long ago.
    Making(Box<JobRow>),
}

/// The name of the snapshot that a job makes; `None` for jobs that make none.
#[must_use]
pub fn made_by(job: &JobRow) -> Option<String> {
    match job.kind() {
        Kind::Backup => Some(job.snapshot_name.clone()),
        Kind::Remove => Some(job.snapshot_name.clone()).filter(|name| !name.is_empty()),
        Kind::Copy => {
            let parameters: Value = serde_json::from_str(&job.parameters).ok()?;
            parameters.get("name").and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    }
}

/// `automated` or `manual`: a final snapshot is kept like one of the latter.
fn source_of(source: &str) -> &'static str {
    if source == "automated" { "automated" } else { "manual" }
}

impl Call<'_> {
    /// What has this name, whoever may see it.
    ///
    /// # Errors
    /// `InvalidParameterValue` when several repositories have it; those of the catalog.
    pub async fn named(&self, name: &str) -> Result<Option<Named>, Fault> {
        let lower = name.to_ascii_lowercase();
        for name in [Some(name), Some(lower.as_str()).filter(|lower| *lower != name)].into_iter().flatten() {
            match Box::pin(self.query.services.snapshot(name, None)).await {
                Ok(found) => return Ok(Some(Named::There(Box::new(found)))),
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(job) = self.making(name).await? {
                return Ok(Some(Named::Making(Box::new(job))));
            }
        }
        Ok(None)
    }

    /// The job that makes a snapshot of this name, or failed to not long ago.
    async fn making(&self, name: &str) -> Result<Option<JobRow>> {
        let catalog = &self.query.services.catalog;
        let is_shown = |job: &JobRow| match job.state() {
            State::Queued | State::Running => true,
            State::Failed => job.created_ms.saturating_add(FAILED_FOR_MS) > self.now_ms,
            State::Succeeded | State::Canceled => false,
        };
        let makes = |job: &&JobRow| made_by(job).as_deref() == Some(name);
        let jobs = catalog.jobs_of_snapshot(name).await?;
        if let Some(job) = jobs.iter().filter(makes).find(|job| job.kind() != Kind::Copy) {
            return Ok(Some(job.clone()).filter(is_shown));
        }
        let copies = catalog.jobs(&JobFilter { kind: Some(Kind::Copy), ..JobFilter::default() }).await?;
        Ok(copies.iter().find(makes).cloned().filter(is_shown))
    }

    /// Jobs that make snapshots now, as far as the caller sees their clusters, by name.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn all_making(&self, cluster: Option<&str>) -> Result<Vec<(String, JobRow)>> {
        let filter = JobFilter { only_open: true, cluster: cluster.map(str::to_owned), ..JobFilter::default() };
        let question = crate::service::jobs::Question {
            only_open: true,
            cluster: filter.cluster,
            limit: crate::catalog::JOBS_MAX,
            ..crate::service::jobs::Question::default()
        };
        let jobs = self.query.services.jobs(self.caller, &question).await?.items;
        let mut making: Vec<(String, JobRow)> =
            jobs.into_iter().filter_map(|job| made_by(&job).map(|name| (name, job))).collect();
        making.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(making)
    }

    /// The snapshot of a name, for an action.
    ///
    /// # Errors
    /// `SnapshotNotFoundFault`, `AccessDenied`, `InvalidSnapshotState` for one that is not made yet, or could not be.
    pub async fn snapshot(&self, name: &str, action: Action) -> Result<Found, Fault> {
        let absent = || Fault::new(Code::SnapshotNotFound, format!("Snapshot {name} not found."));
        match self.named(name).await?.ok_or_else(absent)? {
            Named::There(found) => {
                self.allow(action, &found.snapshot.cluster, &found.tags(), name, absent()).await?;
                Ok(*found)
            }
            Named::Making(job) => {
                let tags = self.query.services.cluster_tags(&job.cluster);
                self.allow(action, &job.cluster, &tags, name, absent()).await?;
                let status = making_status(&job);
                let message = format!("Snapshot {name} has status {status} which is not valid for this operation.");
                Err(Fault::new(Code::InvalidSnapshotState, message))
            }
        }
    }

    /// A job about a snapshot that is there.
    ///
    /// # Errors
    /// As [`submit::of_snapshot`].
    pub fn job_of(&self, found: &Found, kind: Kind, parameters: &impl Serialize) -> Result<NewJob> {
        let snapshot = &found.snapshot;
        submit::of_snapshot(kind, &snapshot.cluster, &found.repository, &snapshot.name, parameters, self.now_ms)
    }

    /// The shapes of snapshots that are there, in their order.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn shapes(&self, rows: &[SnapshotRow]) -> Result<Vec<Snapshot>> {
        let beside = self.query.services.catalog.beside(rows).await?;
        let mut clusters: BTreeMap<&str, Option<Known>> = BTreeMap::new();
        let mut shapes = Vec::with_capacity(rows.len());
        for row in rows {
            let known = clusters.entry(&row.cluster).or_insert_with_key(|name| self.known_beside(&beside, name));
            shapes.push(self.shape_of(row, &beside, known.as_ref()));
        }
        Ok(shapes)
    }

    /// The shape of one.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn shape(&self, row: &SnapshotRow) -> Result<Snapshot> {
        let shapes = self.shapes(std::slice::from_ref(row)).await?;
        let none = || Error::new(Class::Unforeseen, format!("the snapshot {} has no shape", row.name));
        shapes.into_iter().next().ok_or_else(none)
    }

    fn known_beside(&self, beside: &Beside, name: &str) -> Option<Known> {
        let seen = beside.seen(name).map(|(row, first_seen_ms)| (row.clone(), first_seen_ms));
        let known = Known::of(name, &self.config, beside.definition(name).cloned(), seen);
        known.filter(|_| !beside.is_removed(name))
    }

    fn shape_of(&self, row: &SnapshotRow, beside: &Beside, known: Option<&Known>) -> Snapshot {
        let is_cluster_mode = row.mode == "cluster";
        let key_ids: Vec<String> = serde_json::from_str(&row.key_ids).unwrap_or_default();
        Snapshot {
            status: busy(beside.open_jobs(&row.name)),
            source: source_of(&row.source),
            engine: row.engine.clone(),
            engine_version: row.engine_version.clone(),
            key_id: key_ids.into_iter().next(),
            nodes: beside.shards(row).iter().map(|shard| node_of(shard, row, known)).collect(),
            ..self.base(&row.name, &row.cluster, known, is_cluster_mode)
        }
    }

    /// The shape of a snapshot that a job makes.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn shape_of_job(&self, name: &str, job: &JobRow) -> Result<Snapshot> {
        let known = self.known(&job.cluster).await?;
        if job.kind() == Kind::Copy
            && let Ok(source) = Box::pin(self.query.services.snapshot(&job.snapshot_name, Some(&job.repository))).await
        {
            let shape = self.shape(&source.snapshot).await?;
            let (name, arn) = (name.to_owned(), self.arn("snapshot", name));
            return Ok(Snapshot { name, arn, status: making_status(job), source: "manual", ..shape });
        }
        let nodes = match &known {
            Some(known) => self.nodes(known).await,
            None => None,
        };
        let nodes = nodes.as_deref();
        let is_cluster_mode = known.as_ref().is_some_and(|known| known.is_cluster_mode(nodes));
        let seen = known.as_ref().and_then(|known| known.seen.clone());
        let engine = |of: fn(&Seen) -> &String, or: fn(&crate::catalog::ClusterRow) -> &String| {
            nodes.map(|it| of(it).clone()).or_else(|| seen.as_ref().map(|row| or(row).clone())).unwrap_or_default()
        };
        let base = self.base(name, &job.cluster, known.as_ref(), is_cluster_mode);
        let node = |index: usize| NodeSnapshot {
            cluster: (!is_cluster_mode).then(|| base.cluster.clone()).flatten(),
            node_group: is_cluster_mode.then(|| NodeGroupConfiguration {
                id: NodeGroupConfiguration::id_of(index),
                slots: nodes.and_then(|it| it.shards.get(index)?.slots.clone()),
                replicas: None,
            }),
            bytes: None,
            created_ms: known.as_ref().and_then(|known| known.created_ms),
            taken_ms: Some(job.created_ms),
        };
        let shards = nodes.map_or(1, |it| it.shards.len());
        Ok(Snapshot {
            status: making_status(job),
            source: source_of(&job.source),
            engine: engine(|it| &it.engine, |row| &row.engine),
            engine_version: engine(|it| &it.version, |row| &row.engine_version),
            nodes: (0..shards).map(node).collect(),
            ..base.clone()
        })
    }

    /// What a snapshot says of its cluster.
    fn base(&self, name: &str, cluster: &str, known: Option<&Known>, is_cluster_mode: bool) -> Snapshot {
        let is_single = known.is_some_and(Known::is_single);
        let first = known.map_or_else(|| format!("{cluster}-001"), Known::first_node);
        let description = known.and_then(|known| known.definition.as_ref()).map(|row| row.description.clone());
        Snapshot {
            name: name.to_owned(),
            group: (!is_single).then(|| cluster.to_owned()),
            group_description: description.filter(|text| !text.is_empty() && !is_single),
            cluster: (!is_cluster_mode).then_some(first),
            port: known.and_then(Known::port),
            cluster_created_ms: known.and_then(|known| known.created_ms),
            retention_days: known.map(Known::retention_days),
            window: known.map(Known::window),
            is_cluster_mode,
            arn: self.arn("snapshot", name),
            ..Snapshot::default()
        }
    }
}

/// What is done with a snapshot by these jobs about it.
fn busy(open: &[JobRow]) -> &'static str {
    let statuses = open.iter().map(|job| match job.kind() {
        Kind::Delete => "deleting",
        Kind::Restore => "restoring",
        Kind::Copy | Kind::Export => "copying",
        _ => "available",
    });
    let rank = |status: &&str| ["deleting", "restoring", "copying"].iter().position(|it| it == status).unwrap_or(3);
    statuses.min_by_key(rank).unwrap_or("available")
}

/// `creating` or `failed`.
fn making_status(job: &JobRow) -> &'static str {
    if job.state() == State::Failed { "failed" } else { "creating" }
}

fn node_of(shard: &ShardRow, row: &SnapshotRow, known: Option<&Known>) -> NodeSnapshot {
    let index = usize::try_from(shard.shard_index).unwrap_or(0);
    let is_cluster_mode = row.mode == "cluster";
    let single = known.map_or_else(|| format!("{}-001", row.cluster), Known::first_node);
    NodeSnapshot {
        cluster: Some(if is_cluster_mode { format!("{}-{:04}-001", row.cluster, index + 1) } else { single }),
        node_group: is_cluster_mode.then(|| NodeGroupConfiguration {
            id: NodeGroupConfiguration::id_of(index),
            slots: shard.slots.clone(),
            replicas: None,
        }),
        bytes: Some(shard.plain_bytes),
        created_ms: known.and_then(|known| known.created_ms),
        taken_ms: Some(shard.taken_ms),
    }
}
