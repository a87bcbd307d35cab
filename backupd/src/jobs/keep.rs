//! Keeps a snapshot, or lets it go, as a job.

use policies::job::Step;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::work::Held;
use super::{about, reach};
use crate::catalog::{Code, NewEvent};
use crate::error::Result;

/// What was asked for besides the snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Whether it is kept from now on.
    pub kept: bool,
}

pub(super) async fn run(held: &mut Held) -> Result<Vec<NewEvent>> {
    let Parameters { kept } = super::parameters(&held.row)?;
    let (repository, keys) = reach::repository(&held.config, &held.row.repository).await?;
    held.begin(Step::Keep, "").await?;
    let name = &held.row.snapshot_name;
    let (place, data_key) = repository.place_of(name, &keys).await?;
    let fact = repository.keep(&place, kept, data_key.as_ref()).await?;
    held.begin(Step::Record, "").await?;
    held.note(&json!({"kept": kept, "at": fact.at})).await?;
    let (code, what) = match kept {
        true => (Code::SnapshotKept, "is kept: it cannot be deleted"),
        false => (Code::SnapshotReleased, "can be deleted again"),
    };
    Ok(vec![about(&held.row, code, format!("snapshot {} {what}", held.row.snapshot_name))])
}
