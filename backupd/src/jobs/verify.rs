//! Reads a snapshot again, as a job; the verdict is noted beside its manifest.

use policies::job::Step;
use serde::{Deserialize, Serialize};

use super::work::Held;
use super::{about, reach};
use crate::catalog::{Code, Mark, NewEvent};
use crate::config::Cluster;
use crate::error::Result;
use crate::repository::{Keys, Repository};
use crate::snapshot::boot;
use crate::snapshot::verify::{Examination, examine};

/// What was asked for besides the snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Whether servers are started with it; as the configuration says when not said.
    pub boot: Option<bool>,
}

pub(super) async fn run(held: &mut Held) -> Result<Vec<NewEvent>> {
    let (repository, keys) = reach::repository(&held.config, &held.row.repository).await?;
    let boots = |section: &Cluster| section.automation.verify.is_some_and(|verify| verify.boot);
    let parameters: Parameters = super::parameters(&held.row)?;
    let wanted = parameters.boot.unwrap_or_else(|| held.config.cluster(&held.row.cluster).is_ok_and(boots));
    let boot = wanted.then(boot::Options::default);
    verified(held, &repository, &keys, boot).await?;
    held.begin(Step::Record, "").await?;
    let now_ms = held.catalog.now_unix_ms().await?;
    held.catalog.mark_schedule(&held.row.cluster, Mark::Verified, now_ms).await?;
    let message = format!("snapshot {} was read and is whole", held.row.snapshot_name);
    Ok(vec![about(&held.row, Code::VerifySucceeded, message)])
}

/// Reads the snapshot of the job, starts servers with it where that is asked for, and notes the verdict.
pub(super) async fn verified(
    held: &mut Held,
    repository: &Repository,
    keys: &Keys,
    boot: Option<boot::Options>,
) -> Result<()> {
    held.begin(Step::Verify, "").await?;
    let name = held.row.snapshot_name.clone();
    let examination = Examination { boot, record: true };
    let manifest = examine(repository, &name, keys, &examination, &held.progress, &held.cancel).await?.manifest;
    let now_ms = held.catalog.now_unix_ms().await?;
    held.catalog.mark_snapshot_verified(repository.id(), &manifest.snapshot_id, now_ms).await?;
    held.telemetry.verified(manifest.plain_bytes());
    Ok(())
}
