//! Deletes a snapshot, and removes a cluster, as jobs.

use policies::job::Step;
use serde::{Deserialize, Serialize};

use super::work::Held;
use super::{about, backup, reach, said, verify};
use crate::catalog::{Code, Mark, NewEvent};
use crate::error::{Class, Result};
use crate::repository::Repository;
use crate::repository::removal::Despite;
use crate::snapshot::record;

/// What was asked for with the removal of a cluster.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Who asked.
    pub who: String,
    /// Whether a last snapshot is taken first.
    pub final_snapshot: bool,
}

pub(super) async fn delete(held: &mut Held) -> Result<Vec<NewEvent>> {
    let (repository, _) = reach::repository(&held.config, &held.row.repository).await?;
    let was_begun = held.row.attempts > 1;
    held.begin(Step::Delete, "").await?;
    let name = held.row.snapshot_name.clone();
    let who = if held.row.requested_by.is_empty() { &held.row.worker } else { &held.row.requested_by };
    // the audit line first: what was begun is never without one
    let now_ms = held.catalog.now_unix_ms().await?;
    held.catalog.audit(who, "snapshot.delete", &name, &held.row.parameters, now_ms).await?;
    match repository.delete(&name, Despite::default()).await {
        Ok(removal) => {
            held.begin(Step::Record, &removal.snapshot_id).await?;
            let now_ms = held.catalog.now_unix_ms().await?;
            held.catalog.mark_snapshot_removed(repository.id(), &removal.snapshot_id, now_ms).await?;
        }
        // the attempt before this one had deleted it, and died before it could say so
        Err(error) if error.class() == Class::NotFound && was_begun => held.begin(Step::Record, "").await?,
        Err(error) => return Err(error),
    }
    Ok(vec![about(&held.row, Code::SnapshotDeleted, format!("snapshot {name} was deleted"))])
}

pub(super) async fn remove(held: &mut Held) -> Result<Vec<NewEvent>> {
    let parameters: Parameters = super::parameters(&held.row)?;
    let mut with = "without a final snapshot".to_owned();
    if parameters.final_snapshot {
        let (store, keys) = reach::store(&held.config, &held.row.repository).await?;
        let manifest = backup::capture(held, &store, &keys, backup::Parameters::default()).await?;
        let repository = Repository::open(store.clone()).await?;
        record::record(&held.catalog, store, &manifest).await?;
        verify::verified(held, &repository, &keys, None).await?;
        with = format!("with the final snapshot {}", manifest.name);
    }
    held.begin(Step::Remove, "").await?;
    let now_ms = held.catalog.now_unix_ms().await?;
    held.catalog.audit(&parameters.who, "cluster.remove", &held.row.cluster, &with, now_ms).await?;
    said::removal(&held.config, &held.catalog, &held.row.cluster, Some(now_ms)).await?;
    held.catalog.mark_schedule(&held.row.cluster, Mark::Removed, now_ms).await?;
    let message = format!("cluster {} was removed {with}", held.row.cluster);
    Ok(vec![about(&held.row, Code::ClusterRemoved, message)])
}
