//! Reads a snapshot again, as a job; the verdict is noted beside its manifest.

use policies::job::Step;
use serde::{Deserialize, Serialize};

use super::work::Held;
use super::{about, reach};
use crate::catalog::{Code, Mark, NewEvent};
use crate::config::Cluster;
use crate::error::Result;
use crate::repository::{Keys, Repository};
use crate::snapshot::verify::{Examination, examine, is_verdict};
use crate::snapshot::{boot, record};

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
    let noted_ms = verified(held, &repository, &keys, boot).await?;
    held.begin(Step::Record, "").await?;
    // credentials that only read can note nothing, and it was verified all the same
    let verified_ms = noted_ms.unwrap_or(held.catalog.now_unix_ms().await?);
    held.catalog.mark_schedule(&held.row.cluster, Mark::Verified, verified_ms).await?;
    let message = format!("snapshot {} was read and is whole", held.row.snapshot_name);
    Ok(vec![about(&held.row, Code::VerifySucceeded, message)])
}

/// Reads the snapshot of the job, starts servers with it where that is asked for, and notes the verdict: when it was found whole, ms since
/// 1970.
pub(super) async fn verified(
    held: &mut Held,
    repository: &Repository,
    keys: &Keys,
    boot: Option<boot::Options>,
) -> Result<Option<u64>> {
    held.begin(Step::Verify, "").await?;
    let name = held.row.snapshot_name.clone();
    let examination = Examination { boot, record: true };
    let examined = examine(repository, &name, keys, &examination, &held.progress, &held.cancel).await;
    let noted_ms = match is_verdict(&examined) {
        true => record::verdict(&held.catalog, repository, &name).await,
        false => Ok(None),
    };
    held.telemetry.verified(examined?.manifest.plain_bytes());
    noted_ms
}
