//! `CreateSnapshot`.

use std::collections::BTreeMap;

use policies::access::Action;
use policies::job::Kind;

use super::super::call::Call;
use super::super::check;
use super::super::error::{Code, Fault};
use super::super::known::Known;
use super::super::stored::made_by;
use super::super::xml::Writer;
use crate::catalog::{Asked, JobFilter};
use crate::jobs::submit;

/// The longest name of a snapshot.
pub(super) const NAME_LEN_MAX: usize = policies::names::NAME_LEN_MAX;

pub(super) async fn create(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let name = call.form.required("SnapshotName")?;
    let (group, node) = (call.form.said("ReplicationGroupId"), call.form.said("CacheClusterId"));
    let key_id = call.form.said("KmsKeyId");
    let tags = check::tags(call.form)?;
    let name = check::new_id("SnapshotName", name, NAME_LEN_MAX)?;
    let known = source(call, group, node).await?;
    let section = known.cluster.as_ref().ok_or_else(|| not_ready(&known))?;
    check_key(call, &section.repository, key_id)?;
    check_free(call, &name).await?;
    check_state(call, &known).await?;
    let parameters = submit::BackupParameters {
        tags: match tags {
            Some(tags) => tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
            // its snapshots bear the tags of the cluster anyway
            None => BTreeMap::new(),
        },
        ..submit::BackupParameters::default()
    };
    let new = submit::new_backup(&call.config, &known.name, &name, &parameters, call.now_ms)?;
    let job = once(call, new, &name).await?;
    let shape = call.shape_of_job(&name, &job).await?;
    out.element("Snapshot", |out| shape.write(out, false));
    Ok(())
}

/// The cluster that is named by its group, by one of its nodes, or by both.
async fn source(call: &Call<'_>, group: Option<&str>, node: Option<&str>) -> Result<Known, Fault> {
    match (group, node) {
        (None, None) => Err(Fault::combination("One of CacheClusterId or ReplicationGroupId must be provided.")),
        (Some(group), None) => call.group(group, Action::CreateSnapshot).await,
        (None, Some(node)) => {
            let known = call.node(node, Action::CreateSnapshot).await?.known;
            let nodes = call.nodes(&known).await;
            if known.is_cluster_mode(nodes.as_deref()) {
                let message = format!(
                    "{node} is a node of a cluster mode enabled replication group: a snapshot is made of the whole group {}.",
                    known.name
                );
                return Err(Fault::combination(message));
            }
            Ok(known)
        }
        (Some(group), Some(node)) => {
            let of_group = call.group(group, Action::CreateSnapshot).await?;
            let of_node = call.node(node, Action::CreateSnapshot).await?.known;
            if of_group.name != of_node.name {
                return Err(Fault::combination(format!(
                    "CacheCluster {node} is not part of ReplicationGroup {group}."
                )));
            }
            Ok(of_group)
        }
    }
}

/// A master key that is named must be the one that snapshots of the repository are wrapped for anyway.
pub(super) fn check_key(call: &Call<'_>, repository: &str, key_id: Option<&str>) -> Result<(), Fault> {
    let Some(key_id) = key_id else { return Ok(()) };
    let is_ours = call.query.services.active_key(repository)?.is_some_and(|id| id == key_id);
    if is_ours { Ok(()) } else { Err(Fault::value(format!("KMS key does not exist with key id: {key_id}"))) }
}

/// That nothing has this name, and nobody makes something that will.
pub(super) async fn check_free(call: &Call<'_>, name: &str) -> Result<(), Fault> {
    use super::super::stored::Named;
    match call.named(name).await? {
        None => Ok(()),
        // the name was given free again
        Some(Named::Making(job)) if job.ended_ms.is_some() => Ok(()),
        Some(_) => Err(taken(name)),
    }
}

pub(super) fn taken(name: &str) -> Fault {
    Fault::new(Code::SnapshotAlreadyExists, format!("Snapshot {name} already exists."))
}

fn not_ready(known: &Known) -> Fault {
    let message =
        format!("Replication group {} has status {} which is not valid for this operation.", known.name, known.status);
    Fault::new(Code::InvalidReplicationGroupState, message)
}

async fn check_state(call: &Call<'_>, known: &Known) -> Result<(), Fault> {
    if !matches!(known.status, "available" | "snapshotting") {
        return Err(not_ready(known));
    }
    if let Some(nodes) = call.nodes(known).await
        && nodes.is_resharding
    {
        let message =
            format!("Replication group {} is resharding: slots are being moved between its node groups.", known.name);
        return Err(Fault::new(Code::InvalidReplicationGroupState, message));
    }
    Ok(())
}

/// Adds the job that makes a snapshot of a name, or does something with it, unless the caller did so at the same moment: the key of the request
/// has the last job about the name, so it is another one once a job was added.
pub(super) async fn once(
    call: &Call<'_>,
    new: crate::catalog::NewJob,
    name: &str,
) -> Result<crate::catalog::JobRow, Fault> {
    let catalog = &call.query.services.catalog;
    let about = catalog.jobs_of_snapshot(name).await?;
    let copies = catalog.jobs(&JobFilter { kind: Some(Kind::Copy), ..JobFilter::default() }).await?;
    let copy = copies.iter().find(|job| made_by(job).as_deref() == Some(name));
    let last: Vec<&str> = about.first().into_iter().chain(copy).map(|job| job.job_id.as_str()).collect();
    let asked = Asked {
        by: call.caller.name.clone(),
        key: format!("elasticache/{}/{name}/{}", new.kind.as_str(), last.join("/")),
        // the job's own id: nobody else's request is the same
        sha256: new.job_id.clone(),
    };
    match call.query.services.submit(new, asked).await {
        Ok(job) => Ok(job),
        Err(error) if error.class() == crate::error::Class::Refused => Err(taken(name)),
        Err(error) => Err(error.into()),
    }
}
