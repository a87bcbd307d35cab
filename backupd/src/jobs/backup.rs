//! Makes a snapshot, as a job.

use std::sync::Arc;

use policies::job::{Kind, Remains, Resume, Step, only_looks, resume};
use serde::{Deserialize, Serialize};

use super::work::Held;
use super::{about, reach};
use crate::catalog::{Code, NewEvent};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::manifest::Manifest;
use crate::repository::{Keys, Place, Repository, new_snapshot_id};
use crate::snapshot::lend::Lend;
use crate::snapshot::{create, record};
use crate::store::Store;

/// What was asked for besides the name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Tags beside those of the cluster.
    pub tags: std::collections::BTreeMap<String, String>,
    /// zstd level; 1 when 0.
    pub level: i32,
}

pub(super) async fn run(held: &mut Held) -> Result<Vec<NewEvent>> {
    let (store, keys) = reach::store(&held.config, &held.row.repository).await?;
    let parameters = super::parameters(&held.row)?;
    let manifest = capture(held, &store, &keys, parameters).await?;
    held.begin(Step::Record, &manifest.snapshot_id).await?;
    record::record(&held.catalog, Arc::clone(&store), &manifest).await?;
    held.telemetry.snapshot_made(&manifest);
    let message =
        format!("snapshot {} is available: {} keys, {} bytes", manifest.name, manifest.keys(), manifest.stored_bytes());
    Ok(vec![about(&held.row, Code::BackupSucceeded, message)])
}

/// The snapshot of this job: the one that an earlier attempt published, or a new one.
pub(super) async fn capture(
    held: &mut Held,
    store: &Arc<dyn Store>,
    keys: &Keys,
    parameters: Parameters,
) -> Result<Manifest> {
    if let Some(manifest) = left_before(held, store, keys).await? {
        return Ok(manifest);
    }
    if held.row.kind() == Kind::Backup && only_looks(held.row.attempts) {
        let what = "its workers died as often as may be, and the last one left no snapshot";
        return Err(Error::new(Class::Unforeseen, what)
            .hint("`backupd job show` has its steps; see why the daemons died (memory, restarts), then ask again"));
    }
    let source = reach::source(&held.config, &held.row.cluster)?;
    let mut tags = source.tags;
    tags.extend(parameters.tags);
    // the id is written down before the first object that bears it, so that whoever comes after finds them
    let snapshot_id = new_snapshot_id(clock::now())?;
    held.begin(Step::Capture, &snapshot_id).await?;
    let options = create::Options {
        name: held.row.snapshot_name.clone(),
        cluster: held.row.cluster.clone(),
        snapshot_id: Some(snapshot_id),
        source_kind: if held.row.source.is_empty() { "final".to_owned() } else { held.row.source.clone() },
        source: source.options,
        wishes: source.wishes,
        method: source.method,
        care: held.care.clone(),
        turns: Some(held.catalog.clone()),
        lend: Some(lend(held)),
        settle_wait: create::SETTLE_WAIT,
        keys: keys.clone(),
        level: if parameters.level == 0 { 1 } else { parameters.level },
        tags,
    };
    create::create(Arc::clone(store), options, Arc::clone(&held.progress), held.cancel.clone()).await
}

fn lend(held: &Held) -> Lend {
    Lend {
        catalog: held.catalog.clone(),
        job_id: held.row.job_id.clone(),
        fencing: held.row.fencing,
        repository: held.row.repository.clone(),
        worker: held.row.worker.clone(),
    }
}

/// Looks what the attempt before this one left, and puts it out of action unless it had published.
async fn left_before(held: &Held, store: &Arc<dyn Store>, keys: &Keys) -> Result<Option<Manifest>> {
    if held.row.snapshot_id.is_empty() {
        return Ok(None);
    }
    let repository = match Repository::open(Arc::clone(store)).await {
        Ok(repository) => repository,
        Err(error) if error.class() == Class::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (name, cluster) = (&held.row.snapshot_name, held.row.cluster.clone());
    let place = Place { cluster, snapshot_id: held.row.snapshot_id.clone() };
    let found = repository.remains(name, &place).await?;
    let (what, why) = resume(found);
    tracing::info!(job = held.row.job_id, ?what, why, "the attempt before this one");
    let left = match what {
        Resume::Begin => Remains::Nothing,
        Resume::GoOn => Remains::Published,
        Resume::CleanAndBegin => repository.abandon(name, &place).await?,
    };
    if left != Remains::Published {
        return Ok(None);
    }
    let manifest = repository.open_snapshot(name, keys).await?.manifest;
    if manifest.snapshot_id != held.row.snapshot_id {
        let what = format!("the name {name} belongs to another snapshot by now");
        return Err(Error::new(Class::Refused, what).hint("see `backupd snapshot list`"));
    }
    Ok(Some(manifest))
}
