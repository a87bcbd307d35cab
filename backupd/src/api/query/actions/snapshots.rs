//! `DescribeSnapshots` and `DeleteSnapshot`.

use policies::access::{Action, Resource};
use policies::job::Kind;

use super::super::call::Call;
use super::super::check;
use super::super::error::{Code, Fault};
use super::super::shapes::Snapshot;
use super::super::stored::Named;
use super::super::xml::Writer;
use crate::service::snapshots::Question;

/// The most snapshots of a page.
const RECORDS_MAX: u32 = 50;

/// What stands before the marker of a page that begins among those that are being made.
const MAKING: &str = "making:";

pub(super) async fn describe(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let count = check::max_records(call.form, RECORDS_MAX)?;
    let with_node_groups = call.form.flag("ShowNodeGroupConfig")?.unwrap_or(false);
    let source = source(call)?;
    let cluster = cluster(call).await?;
    let (snapshots, marker) = match call.form.said("SnapshotName") {
        Some(name) => (one(call, name, source, cluster.as_deref()).await?, None),
        None => many(call, source, cluster.as_deref(), count).await?,
    };
    out.some("Marker", marker.as_deref());
    out.list("Snapshots", "Snapshot", &snapshots, |out, snapshot| snapshot.write(out, with_node_groups));
    Ok(())
}

/// `automated` or `manual`, when only those are wanted.
fn source(call: &Call<'_>) -> Result<Option<&'static str>, Fault> {
    match call.form.said("SnapshotSource") {
        None => Ok(None),
        Some("system" | "automated") => Ok(Some("automated")),
        Some("user" | "manual") => Ok(Some("manual")),
        Some(_) => Err(Fault::value("The parameter SnapshotSource must be system or user.")),
    }
}

/// The cluster that only is wanted. One that is not there any more may have snapshots.
async fn cluster(call: &Call<'_>) -> Result<Option<String>, Fault> {
    let of_group = match call.form.said("ReplicationGroupId") {
        None => None,
        Some(id) => match call.group(id, Action::ReadSnapshots).await {
            Ok(known) => Some(known.name),
            Err(fault) if fault.code == Code::ReplicationGroupNotFound => Some(id.to_owned()),
            Err(fault) => return Err(fault),
        },
    };
    let Some(id) = call.form.said("CacheClusterId") else { return Ok(of_group) };
    let of_node = match call.node(id, Action::ReadSnapshots).await {
        Ok(node) => node.known.name,
        Err(fault) if fault.code == Code::CacheClusterNotFound => {
            let name = id.rsplit_once('-').filter(|(_, end)| end.len() == 3).map_or(id, |(name, _)| name);
            name.to_owned()
        }
        Err(fault) => return Err(fault),
    };
    match of_group {
        Some(group) if group != of_node => {
            Err(Fault::combination(format!("CacheCluster {id} is not part of ReplicationGroup {group}.")))
        }
        _ => Ok(Some(of_node)),
    }
}

/// The snapshot of a name; none when it is not one of those that are wanted.
async fn one(call: &Call<'_>, name: &str, source: Option<&str>, cluster: Option<&str>) -> Result<Vec<Snapshot>, Fault> {
    let absent = || Fault::new(Code::SnapshotNotFound, format!("Snapshot {name} not found."));
    let (of, shape) = match call.named(name).await?.ok_or_else(absent)? {
        Named::There(found) => {
            let cluster = found.snapshot.cluster.clone();
            call.allow(Action::ReadSnapshots, &cluster, &found.tags(), name, absent()).await?;
            (cluster, call.shape(&found.snapshot).await?)
        }
        Named::Making(job) => {
            let tags = call.query.services.cluster_tags(&job.cluster);
            call.allow(Action::ReadSnapshots, &job.cluster, &tags, name, absent()).await?;
            (
                job.cluster.clone(),
                call.shape_of_job(&super::super::stored::made_by(&job).unwrap_or_default(), &job).await?,
            )
        }
    };
    let is_wanted = source.is_none_or(|source| source == shape.source) && cluster.is_none_or(|cluster| cluster == of);
    Ok(if is_wanted { vec![shape] } else { Vec::new() })
}

/// A page: first those that are there, the oldest first, then those that are being made, by name.
async fn many(
    call: &Call<'_>,
    source: Option<&str>,
    cluster: Option<&str>,
    count: usize,
) -> Result<(Vec<Snapshot>, Option<String>), Fault> {
    let marker = call.form.said("Marker");
    let mut snapshots = Vec::new();
    let behind = marker.and_then(|marker| marker.strip_prefix(MAKING));
    if behind.is_none() {
        let mut question = Question {
            cluster: cluster.map(str::to_owned),
            cursor: marker.map(str::to_owned),
            limit: u32::try_from(count).unwrap_or(RECORDS_MAX),
            ..Question::default()
        };
        match source {
            Some("automated") => question.source = Some("automated".to_owned()),
            Some(_) => question.except_source = Some("automated".to_owned()),
            None => {}
        }
        let page =
            call.query.services.snapshots(call.caller, &question).await.map_err(|error| match error.class() {
                crate::error::Class::Usage => Fault::value("The parameter Marker is not valid."),
                _ => error.into(),
            })?;
        let rows: Vec<_> = page.items.into_iter().map(|row| row.snapshot).collect();
        snapshots = call.shapes(&rows).await?;
        if page.next.is_some() {
            return Ok((snapshots, page.next));
        }
    }
    for (name, job) in call.all_making(cluster).await? {
        let shape_source = if job.source == "automated" { "automated" } else { "manual" };
        if behind.is_some_and(|behind| name.as_str() <= behind) || source.is_some_and(|source| source != shape_source) {
            continue;
        }
        if snapshots.len() == count {
            // behind the last one of this page; all of them when it has none that is being made
            let last = snapshots.last().filter(|last| last.status == "creating").map(|last| last.name.clone());
            return Ok((snapshots, Some(format!("{MAKING}{}", last.unwrap_or_default()))));
        }
        let tags = call.query.services.cluster_tags(&job.cluster);
        if call.query.services.sees(call.caller, Resource::Of { cluster: &job.cluster, tags: &tags }) {
            snapshots.push(call.shape_of_job(&name, &job).await?);
        }
    }
    Ok((snapshots, None))
}

pub(super) async fn delete(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let name = call.form.required("SnapshotName")?;
    let found = call.snapshot(name, Action::DeleteSnapshot).await?;
    let mut shape = call.shape(&found.snapshot).await?;
    if shape.status != "available" {
        let message = format!("Snapshot {name} has status {} which is not valid for deletion.", shape.status);
        return Err(Fault::new(Code::InvalidSnapshotState, message));
    }
    let snapshot = &found.snapshot;
    if call.query.services.is_kept(&found).await? {
        let message =
            format!("Snapshot {name} is kept: it can be deleted after `backupd snapshot keep --release {name}`.");
        return Err(Fault::new(Code::InvalidSnapshotState, message));
    }
    super::making::once(call, call.job_of(&found, Kind::Delete, &())?, &snapshot.name).await.map_err(|fault| {
        match fault.code {
            Code::SnapshotAlreadyExists => {
                let message = format!("Snapshot {name} has status deleting which is not valid for deletion.");
                Fault::new(Code::InvalidSnapshotState, message)
            }
            _ => fault,
        }
    })?;
    shape.status = "deleting";
    out.element("Snapshot", |out| shape.write(out, false));
    Ok(())
}
