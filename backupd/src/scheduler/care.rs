//! What is done now and then: the catalog follows the repositories, leftovers, retention, history. All of it may be left at any moment, as when the process dies: the next
//! run goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Scheduler, retention};
use crate::catalog::{Code, NewEvent};
use crate::config::Config;
use crate::error::{Class, Result};
use crate::jobs::{follow, reach};
use crate::repository::gc;

/// How often it is done.
const CARE_EVERY: Duration = Duration::from_secs(3600);

/// How long the right to do so is held; whoever has it does not give it back, so that nobody else does it before the next time.
const LEASE: Duration = CARE_EVERY;

pub(super) async fn pass(scheduler: &Scheduler, stop: &CancellationToken) -> Result<()> {
    let config = Arc::clone(&scheduler.config.borrow());
    let now_ms = scheduler.catalog.now_unix_ms().await?;
    let lease = match scheduler.catalog.acquire_lease("care", &scheduler.name, LEASE, now_ms).await {
        Ok(lease) => lease,
        Err(error) if error.class() == Class::Busy => return Ok(()),
        Err(error) => return Err(error),
    };
    history(scheduler, &config, now_ms).await?;
    let mut drift = 0_usize;
    for section in config.repositories() {
        let followed = tokio::select! {
            followed = follow::follow(&scheduler.catalog, &config, &section.name) => followed,
            () = stop.cancelled() => break,
        };
        match followed {
            Ok(count) => drift = drift.saturating_add(count),
            Err(error) => {
                tracing::warn!(repository = section.name, error = %error, "the catalog could not be compared with it");
            }
        }
        let left = tokio::select! {
            left = leftovers(scheduler, &config, &section.name) => left,
            () = stop.cancelled() => break,
        };
        if let Err(error) = left {
            tracing::warn!(repository = section.name, error = %error, "leftovers could not be looked for");
        }
        if let Err(error) = retention::apply(scheduler, &config, &section.name, stop).await {
            let event = NewEvent::new(Code::RetentionRefused, format!("repository {}: {error}", section.name));
            scheduler.catalog.add_event(&event, scheduler.catalog.now_unix_ms().await?).await?;
            scheduler.telemetry.retention_refused(error.class().code());
        }
    }
    scheduler.telemetry.drifted(drift);
    // what was not done is another daemon's, or the next one's
    if stop.is_cancelled() { scheduler.catalog.release_lease(&lease).await } else { Ok(()) }
}

/// Jobs and events that are old, and windows that were decided long ago.
async fn history(scheduler: &Scheduler, config: &Config, now_ms: u64) -> Result<()> {
    let keep_ms = u64::try_from(config.daemon.events_for.as_millis()).unwrap_or(u64::MAX);
    let before_ms = now_ms.saturating_sub(keep_ms);
    let catalog = &scheduler.catalog;
    let (events, jobs) = (catalog.forget_events(before_ms).await?, catalog.forget_jobs(before_ms).await?);
    let (windows, requests) = (catalog.forget_windows(before_ms).await?, catalog.forget_requests(before_ms).await?);
    tracing::debug!(events, jobs, windows, requests, "history was forgotten");
    Ok(())
}

/// What jobs that died left in a repository; only what is older than a day, and nothing that may still be needed.
async fn leftovers(scheduler: &Scheduler, config: &Config, name: &str) -> Result<()> {
    let Some((repository, _)) = reach::begun(config, name).await? else { return Ok(()) };
    let plan = repository.apply_gc(gc::GUARD).await?;
    if !plan.removes.is_empty() {
        let message =
            format!("{} leftovers with {} bytes were removed from repository {name}", plan.removes.len(), plan.bytes);
        let event = NewEvent::new(Code::GcApplied, message);
        scheduler.catalog.add_event(&event, scheduler.catalog.now_unix_ms().await?).await?;
    }
    Ok(())
}
