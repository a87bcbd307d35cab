//! `DeleteReplicationGroup` and `DeleteCacheCluster`: the cluster is not backed up any more, after a last snapshot where one is named. Its
//! nodes and their data are left alone.

use policies::access::Action;

use super::super::call::Call;
use super::super::check;
use super::super::error::{Code, Fault};
use super::super::known::{Known, Node};
use super::super::xml::Writer;
use super::making::{NAME_LEN_MAX, check_free, once};
use crate::jobs::submit;

pub(super) async fn delete_group(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let id = call.form.required("ReplicationGroupId")?;
    let retain = call.form.flag("RetainPrimaryCluster")?.unwrap_or(false);
    let last = last(call)?;
    if retain {
        return Err(Fault::combination("RetainPrimaryCluster is not needed here: nodes are left alone."));
    }
    let known = call.group(id, Action::RemoveCluster).await?;
    if let Some(last) = &last {
        check_free(call, last).await?;
    }
    let refuse = |status: &str| {
        let message = format!("Replication group {id} has status {status} which is not valid for deletion.");
        Fault::new(Code::InvalidReplicationGroupState, message)
    };
    let mut group = known.group(call, call.nodes(&known).await.as_deref());
    remove(call, &known, last.as_deref(), refuse).await?;
    group.status = "deleting";
    out.element("ReplicationGroup", |out| group.write(out));
    Ok(())
}

pub(super) async fn delete_cluster(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let id = call.form.required("CacheClusterId")?;
    let last = last(call)?;
    let node = call.node(id, Action::RemoveCluster).await?;
    if let Some(last) = &last {
        check_free(call, last).await?;
    }
    let refuse = |_: &str| {
        Fault::new(Code::InvalidCacheClusterState, format!("Cache cluster {id} is not in a valid state to be deleted."))
    };
    let Node { known, .. } = &node;
    if !known.is_single() {
        let message = format!("Cache cluster {id} is a node of replication group {}: delete the group.", known.name);
        return Err(Fault::new(Code::InvalidCacheClusterState, message));
    }
    let mut cluster = super::clusters::one(call, &node).await?;
    remove(call, known, last.as_deref(), refuse).await?;
    cluster.status = "deleting";
    out.element("CacheCluster", |out| cluster.write(out, false));
    Ok(())
}

/// The name of the last snapshot.
fn last(call: &Call<'_>) -> Result<Option<String>, Fault> {
    let name = call.form.said("FinalSnapshotIdentifier");
    name.map(|name| check::new_id("FinalSnapshotIdentifier", name, NAME_LEN_MAX)).transpose()
}

async fn remove(
    call: &Call<'_>,
    known: &Known,
    last: Option<&str>,
    refuse: impl Fn(&str) -> Fault,
) -> Result<(), Fault> {
    match known.status {
        "restore-failed" if last.is_none() => {
            return Ok(call.say((known.repository(), &known.name), |_| Ok(None)).await?);
        }
        "available" => {}
        status => return Err(refuse(status)),
    }
    let new = submit::new_removal(&call.config, &known.name, last, &call.caller.name, call.now_ms)?;
    match last {
        Some(name) => once(call, new, name).await.map(drop),
        None => {
            let asked = crate::service::jobs::asked(call.caller, None, &[])?;
            Ok(call.query.services.submit(new, asked).await.map(drop)?)
        }
    }
}
