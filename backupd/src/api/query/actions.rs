//! What can be asked for, each with what a caller must be allowed.

mod clusters;
mod copying;
mod events;
mod groups;
mod identity;
mod making;
mod removing;
mod restoring;
mod snapshots;
pub mod tags;

use policies::access::Action;

use super::call::Call;
use super::error::{Code, Fault};
use super::xml::Writer;

/// The actions that are spoken, and what each takes of a caller at least: nothing is carried out that is not here. What it takes for the
/// very thing concerned is asked by each action.
pub const SPOKEN: [(&str, Action); 17] = [
    ("AddTagsToResource", Action::Tag),
    ("CopySnapshot", Action::CopySnapshot),
    ("CreateCacheCluster", Action::Restore),
    ("CreateReplicationGroup", Action::Restore),
    ("CreateSnapshot", Action::CreateSnapshot),
    ("DeleteCacheCluster", Action::RemoveCluster),
    ("DeleteReplicationGroup", Action::RemoveCluster),
    ("DeleteSnapshot", Action::DeleteSnapshot),
    ("DescribeCacheClusters", Action::ReadClusters),
    ("DescribeEvents", Action::ReadEvents),
    ("DescribeReplicationGroups", Action::ReadClusters),
    ("DescribeSnapshots", Action::ReadSnapshots),
    ("GetCallerIdentity", Action::Describe),
    ("ListTagsForResource", Action::ReadClusters),
    ("ModifyCacheCluster", Action::ModifyCluster),
    ("ModifyReplicationGroup", Action::ModifyCluster),
    ("RemoveTagsFromResource", Action::Tag),
];

/// Carries out an action, and writes its result.
///
/// # Errors
/// `InvalidAction`, and those of the action.
pub async fn run(action: &str, call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let (_, takes) = SPOKEN.iter().find(|(name, _)| *name == action).ok_or_else(|| unknown(action))?;
    call.allow_role(*takes, action).await?;
    match action {
        "AddTagsToResource" => tags::add(call, out).await,
        "CopySnapshot" => copying::copy(call, out).await,
        "CreateCacheCluster" => restoring::create_cluster(call, out).await,
        "CreateReplicationGroup" => restoring::create_group(call, out).await,
        "CreateSnapshot" => making::create(call, out).await,
        "DeleteCacheCluster" => removing::delete_cluster(call, out).await,
        "DeleteReplicationGroup" => removing::delete_group(call, out).await,
        "DeleteSnapshot" => snapshots::delete(call, out).await,
        "DescribeCacheClusters" => clusters::describe(call, out).await,
        "DescribeEvents" => events::describe(call, out).await,
        "DescribeReplicationGroups" => groups::describe(call, out).await,
        "DescribeSnapshots" => snapshots::describe(call, out).await,
        "GetCallerIdentity" => {
            identity::get(call, out);
            Ok(())
        }
        "ListTagsForResource" => tags::list(call, out).await,
        "ModifyCacheCluster" => clusters::modify(call, out).await,
        "ModifyReplicationGroup" => groups::modify(call, out).await,
        "RemoveTagsFromResource" => tags::remove(call, out).await,
        _ => Err(unknown(action)),
    }
}

/// There is no such action here.
#[must_use]
pub fn unknown(action: &str) -> Fault {
    let action: String = action.chars().take(100).collect();
    Fault::new(Code::InvalidAction, format!("Could not find operation {action} for version {}", super::check::VERSION))
}
