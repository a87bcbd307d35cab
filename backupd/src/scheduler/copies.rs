//! Copies by policy: what is due of a cluster is asked for as jobs, a few at a time, the oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policies::copies::{Decision, Original, Rule, decide, lag_ms};
use policies::job::{Kind, State};
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use crate::catalog::{Asked, JobFilter, JobRow, SnapshotFilter, SnapshotRow};
use crate::config::{Cluster, Config, copies::Copies};
use crate::error::Result;
use crate::jobs::{reach, submit};
use crate::telemetry::CopyLag;

/// How many jobs of one cluster copy to one repository at most, the waiting ones too.
const OPEN_MAX: usize = 4;

/// How long after a copy was asked for it is asked for again, when it failed for good, ms.
const AGAIN_MS: u64 = 3_600_000;

/// Who asks, in the list of jobs. No caller of the API has such a name.
const ASKED_BY: &str = "(copies)";

pub(super) async fn pass(scheduler: &Scheduler, stop: &CancellationToken) -> Result<()> {
    let config = Arc::clone(&scheduler.config.borrow());
    let mut lags = Vec::new();
    for cluster in config.clusters().filter(|cluster| !cluster.copies.is_empty()) {
        tokio::select! {
            done = of_cluster(scheduler, &config, cluster) => lags.extend(done?),
            () = stop.cancelled() => return Ok(()),
        }
    }
    scheduler.telemetry.copies_lag(&lags);
    Ok(())
}

/// Asks for what is due of one cluster.
async fn of_cluster(scheduler: &Scheduler, config: &Config, cluster: &Cluster) -> Result<Vec<CopyLag>> {
    let catalog = &scheduler.catalog;
    // nothing was made yet, or nobody can tell what
    let Some(source) = repository_id(scheduler, config, &cluster.repository).await else { return Ok(Vec::new()) };
    let of = |id: String, with_removed| SnapshotFilter {
        repository_id: Some(id),
        cluster: Some(cluster.name.clone()),
        with_removed,
        ..SnapshotFilter::default()
    };
    let rows = catalog.snapshots(&of(source, false)).await?;
    let filter =
        JobFilter { cluster: Some(cluster.name.clone()), only_open: true, kind: Some(Kind::Copy), after: None };
    let open = catalog.jobs(&filter).await?;
    let now_ms = catalog.now_unix_ms().await?;
    let mut lags = Vec::new();
    for copies in &cluster.copies {
        let there: BTreeSet<String> = match repository_id(scheduler, config, &copies.to).await {
            Some(id) => catalog.snapshots(&of(id, true)).await?.into_iter().map(|row| row.snapshot_id).collect(),
            None => BTreeSet::new(),
        };
        let originals: Vec<Original> = rows.iter().map(|row| original(row, &there)).collect();
        let decisions = decide(&originals, Rule { manual: copies.manual, retention: &copies.retention }, now_ms);
        let lag_ms = lag_ms(&originals, &decisions, now_ms);
        lags.push(CopyLag { cluster: cluster.name.clone(), to: copies.to.clone(), lag_ms });
        let room = OPEN_MAX.saturating_sub(open.iter().filter(|job| is_to(job, &copies.to)).count());
        let due = rows.iter().zip(&decisions).filter(|(_, decision)| **decision == Decision::Due).map(|(row, _)| row);
        // the rows are the newest first
        let mut asked = 0;
        for row in due.rev() {
            if asked < room && ask(scheduler, cluster, copies, row, now_ms).await? {
                asked += 1;
            }
        }
    }
    Ok(lags)
}

fn original(row: &SnapshotRow, there: &BTreeSet<String>) -> Original {
    Original {
        id: row.snapshot_id.clone(),
        source: serde_json::from_value(row.source.clone().into()).ok(),
        taken_ms: row.begun_ms,
        available_ms: row.ended_ms,
        copied: there.contains(&row.snapshot_id),
    }
}

/// Whether a job copies to this repository.
fn is_to(job: &JobRow, to: &str) -> bool {
    serde_json::from_str::<submit::CopyParameters>(&job.parameters).is_ok_and(|parameters| parameters.to == to)
}

/// Asks for one copy, unless it is under way or failed for good a short time ago. One of several schedulers does.
async fn ask(
    scheduler: &Scheduler,
    cluster: &Cluster,
    copies: &Copies,
    row: &SnapshotRow,
    now_ms: u64,
) -> Result<bool> {
    let since = |job: &JobRow| now_ms.saturating_sub(job.created_ms);
    let before = scheduler.catalog.jobs_of_snapshot(&row.name).await?;
    let mut before = before.iter().filter(|job| job.kind() == Kind::Copy && is_to(job, &copies.to));
    if before.any(|job| matches!(job.state(), State::Queued | State::Running) || since(job) < AGAIN_MS) {
        return Ok(false);
    }
    // a copy of a manual snapshot stays one: retention leaves it alone there as here
    let source = if row.source == "automated" { "automated" } else { "manual" };
    let (to, name) = (copies.to.clone(), row.name.clone());
    let parameters = submit::CopyParameters { to, name, verify: false, source: source.to_owned() };
    let mut job = submit::of_snapshot(Kind::Copy, &cluster.name, &cluster.repository, &row.name, &parameters, now_ms)?;
    let key = format!("{}/{}/{}", copies.to, row.snapshot_id, now_ms / AGAIN_MS);
    job.asked = Asked { by: ASKED_BY.to_owned(), key, sha256: String::new() };
    scheduler.catalog.add_job_once(&job, &[], now_ms).await.map(|_| true)
}

/// The id of a repository of the configuration, if it was ever reached. It is remembered, so that what is due of a store that is away
/// is known all the same.
async fn repository_id(scheduler: &Scheduler, config: &Config, name: &str) -> Option<String> {
    let url = config.repository(name).ok()?.url.to_string();
    let mut known = scheduler.repository_ids.lock().await;
    if let Some(id) = known.get(&url) {
        return Some(id.clone());
    }
    match reach::begun(config, name).await {
        Ok(begun) => {
            let id = begun?.0.id().to_owned();
            known.insert(url, id.clone());
            Some(id)
        }
        Err(error) => {
            tracing::warn!(repository = name, error = %error, "what is to be copied is not known");
            None
        }
    }
}

/// The ids of repositories by their URLs.
pub(super) type Ids = Arc<tokio::sync::Mutex<BTreeMap<String, String>>>;
