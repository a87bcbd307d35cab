//! Copies a snapshot into another repository of the configuration, as a job.

use std::sync::Arc;

use policies::job::Step;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::work::Held;
use super::{about, reach};
use crate::catalog::{Code, NewEvent};
use crate::error::{Class, Result};
use crate::manifest::Manifest;
use crate::repository::{Keys, Repository};
use crate::snapshot::copy::{self, Options, Transfer};
use crate::snapshot::record;
use crate::snapshot::verify::{Examination, examine};
use crate::store::{COPY_BYTES_MAX, Store};

/// What was asked for besides the snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// The repository of the configuration that it is copied into.
    pub to: String,
    /// The name of the copy.
    pub name: String,
    /// Whether all of the copy is read afterwards.
    pub verify: bool,
    /// What the copy is to its own retention, where the policy of the cluster asks for it; empty: it is a manual one.
    pub source: String,
}

pub(super) async fn run(held: &mut Held) -> Result<Vec<NewEvent>> {
    let parameters: Parameters = super::parameters(&held.row)?;
    let (source, keys) = reach::repository(&held.config, &held.row.repository).await?;
    let (store, to_keys) = reach::store(&held.config, &parameters.to).await?;
    let (was_begun, by_policy) = (held.row.attempts > 1, !parameters.source.is_empty());
    held.begin(Step::Copy, "").await?;
    let options = Options {
        name: held.row.snapshot_name.clone(),
        new_name: parameters.name.clone(),
        keys,
        to_keys: to_keys.clone(),
        source_kind: if by_policy { parameters.source.clone() } else { "manual".to_owned() },
        transfer: Transfer::Auto,
        single_bytes_max: COPY_BYTES_MAX,
    };
    let copied = copy::copy(&source, Arc::clone(&store), options, &held.progress, &held.cancel).await;
    let (manifest, moved) = match copied {
        Ok(copied) => (copied.manifest, json!(copied.moved)),
        // the attempt before this one had published it, and died before it could say so; or the catalog did not know that it is there
        Err(error) if error.class() == Class::Refused && (was_begun || by_policy) => {
            let there = Box::pin(same(&source, &store, &held.row.snapshot_name, &parameters.name, &to_keys)).await;
            (there.ok_or(error)?, json!({}))
        }
        Err(error) => return Err(error),
    };
    if parameters.verify {
        let target = Repository::open(Arc::clone(&store)).await?;
        let look = Examination { boot: None, record: true };
        examine(&target, &manifest.name, &to_keys, &look, &held.progress, &held.cancel).await?;
    }
    held.begin(Step::Record, &manifest.snapshot_id).await?;
    record::record_copy(&held.catalog, store, &manifest).await?;
    let result = json!({
        "snapshot": manifest.name, "repository": parameters.to, "moved": moved, "verified": parameters.verify,
    });
    held.note(&result).await?;
    let message = format!("snapshot {} was copied to {} as {}", held.row.snapshot_name, parameters.to, manifest.name);
    Ok(vec![about(&held.row, Code::SnapshotCopied, message)])
}

/// The manifest at the destination, when it is of the same snapshot.
async fn same(
    source: &Repository,
    store: &Arc<dyn Store>,
    name: &str,
    new_name: &str,
    to_keys: &Keys,
) -> Option<Manifest> {
    let target = Repository::open(Arc::clone(store)).await.ok()?;
    let there = target.open_snapshot(new_name, to_keys).await.ok()?.manifest;
    let (place, _) = source.find(name).await.ok()?;
    (place.snapshot_id == there.snapshot_id).then_some(there)
}
