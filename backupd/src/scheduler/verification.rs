//! Scheduled verification: one of the newest snapshot of each cluster whose time has come is asked for.

use std::sync::Arc;

use policies::job::Kind;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use crate::catalog::ScheduleRow;
use crate::config::{Cluster, Config};
use crate::error::Result;
use crate::jobs::{reach, submit};

/// How long after a verification was asked for it is asked for again while none succeeded, ms.
const AGAIN_MS: u64 = 3_600_000;

pub(super) async fn pass(scheduler: &Scheduler, stop: &CancellationToken) -> Result<()> {
    let config = Arc::clone(&scheduler.config.borrow());
    if config.clusters().all(|cluster| cluster.automation.verify.is_none()) {
        return Ok(());
    }
    let now_ms = scheduler.catalog.now_unix_ms().await?;
    for row in scheduler.catalog.schedules().await? {
        let Ok(cluster) = config.cluster(&row.cluster) else { continue };
        let Some(verify) = cluster.automation.verify else { continue };
        if !is_due(&row, verify.every_ms, now_ms) {
            continue;
        }
        tokio::select! {
            asked = ask(scheduler, &config, cluster, &row, now_ms) => asked?,
            () = stop.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// Asks for the newest snapshot that lies where those of the cluster go: a copy elsewhere is not what its windows make.
async fn ask(scheduler: &Scheduler, config: &Config, cluster: &Cluster, row: &ScheduleRow, now_ms: u64) -> Result<()> {
    let repository_id = match reach::repository(config, &cluster.repository).await {
        Ok((repository, _)) => repository.id().to_owned(),
        Err(error) => {
            tracing::warn!(cluster = row.cluster, error = %error, "no verification could be asked for");
            return Ok(());
        }
    };
    let Some(name) = scheduler.catalog.newest_snapshot(&row.cluster, &repository_id).await? else { return Ok(()) };
    let job = submit::job(config, Kind::Verify, &row.cluster, &name, now_ms)?;
    // one scheduler at a time asks: the mark is set only where it still is as it was read
    if scheduler.catalog.ask_verification(row, &job, now_ms).await? {
        tracing::info!(cluster = row.cluster, snapshot = name, "a verification is asked for");
    }
    Ok(())
}

fn is_due(row: &ScheduleRow, every_ms: u64, now_ms: u64) -> bool {
    let passed =
        |since: Option<i64>| since.is_none_or(|at| now_ms.saturating_sub(u64::try_from(at).unwrap_or(0)) >= every_ms);
    let asked_lately =
        row.verify_ms.is_some_and(|at| now_ms.saturating_sub(u64::try_from(at).unwrap_or(0)) < AGAIN_MS.min(every_ms));
    row.removed_ms.is_none() && row.last_success_ms.is_some() && passed(row.last_verified_ms) && !asked_lately
}
