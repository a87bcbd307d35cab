//! What is done now and then: scheduled verification, leftovers, retention, history.

use std::time::Duration;

use policies::job::Kind;

use super::{Scheduler, retention};
use crate::catalog::{Code, NewEvent, ScheduleRow};
use crate::config::Config;
use crate::error::{Class, Result};
use crate::jobs::{reach, submit};
use crate::repository::gc;

/// How often leftovers and history are looked at.
const CARE_EVERY: Duration = Duration::from_secs(3600);

/// How long the right to do so is held; whoever has it does not give it back, so that nobody else does it before the next time.
const LEASE: Duration = CARE_EVERY;

/// How long after a verification was asked for it is asked for again while none succeeded, ms.
const VERIFY_AGAIN_MS: u64 = 3_600_000;

pub(super) async fn pass(scheduler: &Scheduler, config: &Config, now_ms: u64) -> Result<()> {
    verifications(scheduler, config, now_ms).await?;
    match scheduler.catalog.acquire_lease("care", &scheduler.name, LEASE, now_ms).await {
        Ok(_) => {}
        Err(error) if error.class() == Class::Busy => return Ok(()),
        Err(error) => return Err(error),
    }
    history(scheduler, config, now_ms).await?;
    for section in config.repositories() {
        if let Err(error) = leftovers(scheduler, config, &section.name, now_ms).await {
            tracing::warn!(repository = section.name, error = %error, "leftovers could not be looked for");
        }
        if let Err(error) = retention::apply(scheduler, config, &section.name, now_ms).await {
            let event = NewEvent::new(Code::RetentionRefused, format!("repository {}: {error}", section.name));
            scheduler.catalog.add_event(&event, now_ms).await?;
            scheduler.telemetry.retention_refused(error.class().code());
        }
    }
    Ok(())
}

/// Jobs and events that are old, and windows that were decided long ago.
async fn history(scheduler: &Scheduler, config: &Config, now_ms: u64) -> Result<()> {
    let keep_ms = u64::try_from(config.daemon.events_for.as_millis()).unwrap_or(u64::MAX);
    let before_ms = now_ms.saturating_sub(keep_ms);
    let catalog = &scheduler.catalog;
    let (events, jobs) = (catalog.forget_events(before_ms).await?, catalog.forget_jobs(before_ms).await?);
    let windows = catalog.forget_windows(before_ms).await?;
    tracing::debug!(events, jobs, windows, "history was forgotten");
    Ok(())
}

/// What jobs that died left in a repository; only what is older than a day, and nothing that may still be needed.
async fn leftovers(scheduler: &Scheduler, config: &Config, name: &str, now_ms: u64) -> Result<()> {
    let repository = match reach::repository(config, name).await {
        Ok((repository, _)) => repository,
        Err(error) if error.class() == Class::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let plan = repository.apply_gc(gc::GUARD).await?;
    if !plan.removes.is_empty() {
        let message =
            format!("{} leftovers with {} bytes were removed from repository {name}", plan.removes.len(), plan.bytes);
        scheduler.catalog.add_event(&NewEvent::new(Code::GcApplied, message), now_ms).await?;
    }
    Ok(())
}

/// Asks for a verification of the newest snapshot of each cluster whose time has come.
async fn verifications(scheduler: &Scheduler, config: &Config, now_ms: u64) -> Result<()> {
    if config.clusters().all(|cluster| cluster.automation.verify.is_none()) {
        return Ok(());
    }
    for row in scheduler.catalog.schedules().await? {
        let Ok(cluster) = config.cluster(&row.cluster) else { continue };
        let Some(verify) = cluster.automation.verify else { continue };
        if !is_due(&row, verify.every_ms, now_ms) {
            continue;
        }
        let Some(name) = scheduler.catalog.newest_snapshot(&row.cluster).await? else { continue };
        let job = submit::job(config, Kind::Verify, &row.cluster, &name, now_ms)?;
        // one scheduler at a time asks: the mark is set only where it still is as it was read
        if scheduler.catalog.ask_verification(&row, &job, now_ms).await? {
            tracing::info!(cluster = row.cluster, snapshot = name, "a verification is asked for");
        }
    }
    Ok(())
}

fn is_due(row: &ScheduleRow, every_ms: u64, now_ms: u64) -> bool {
    let passed =
        |since: Option<i64>| since.is_none_or(|at| now_ms.saturating_sub(u64::try_from(at).unwrap_or(0)) >= every_ms);
    let asked_lately = row
        .verify_ms
        .is_some_and(|at| now_ms.saturating_sub(u64::try_from(at).unwrap_or(0)) < VERIFY_AGAIN_MS.min(every_ms));
    row.removed_ms.is_none() && row.last_success_ms.is_some() && passed(row.last_verified_ms) && !asked_lately
}
