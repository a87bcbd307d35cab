//! Hooks: who is told of events. Each event is told at least once, again and again for a day until it was heard; what a hook answers changes
//! nothing of what backupd does.

mod command;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, EventRow, Lease};
use crate::config::{Hook, HookTarget};
use crate::error::{Class, Result};
use crate::jobs::Live;
use crate::telemetry::Telemetry;

/// How often it is looked for events.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many events are taken at a time.
const EVENTS_MAX: u32 = 100;

/// The wait after the first failure, ms; twice as long each time, up to an hour.
const RETRY_FIRST_MS: u64 = 2_000;
const RETRY_MAX_MS: u64 = 3_600_000;

/// How long one event may take to tell.
pub(crate) const TELL_LIMIT: Duration = Duration::from_secs(30);

/// How long the right to tell a hook is held without a word.
const LEASE: Duration = Duration::from_secs(60);

/// Tells hooks until `stop`. One daemon at a time tells a hook.
pub async fn run(catalog: Catalog, config: Live, telemetry: Arc<Telemetry>, name: String, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let now = Arc::clone(&config.borrow());
        for hook in &now.hooks {
            if let Err(error) = turn(&catalog, hook, &telemetry, &name).await
                && error.class() != Class::Busy
            {
                tracing::warn!(hook = hook.name, error = %error, "the hook could not be served");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn turn(catalog: &Catalog, hook: &Hook, telemetry: &Telemetry, name: &str) -> Result<()> {
    let now_ms = catalog.now_unix_ms().await?;
    let events = catalog.untold_events(&hook.name, now_ms, EVENTS_MAX).await?;
    if events.is_empty() {
        return Ok(());
    }
    let lease = catalog.acquire_lease(&format!("hook:{}", hook.name), name, LEASE, now_ms).await?;
    let told = tell_all(catalog, hook, telemetry, events, &lease).await;
    catalog.release_lease(&lease).await?;
    told
}

async fn tell_all(
    catalog: &Catalog,
    hook: &Hook,
    telemetry: &Telemetry,
    events: Vec<(EventRow, u32)>,
    lease: &Lease,
) -> Result<()> {
    for (event, attempts) in events {
        if !hook.wants(&event.code) {
            catalog.note_delivery(&hook.name, &event.event_id, None).await?;
            continue;
        }
        catalog.renew_lease(lease, LEASE, catalog.now_unix_ms().await?).await?;
        let told = tokio::time::timeout(TELL_LIMIT, tell(hook, &event)).await;
        let failed = match told {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.message().to_owned()),
            Err(_) => Some(format!("it took longer than {} s", TELL_LIMIT.as_secs())),
        };
        telemetry.hook_told(failed.is_none());
        let now_ms = catalog.now_unix_ms().await?;
        let next_ms = failed.as_ref().map(|_| now_ms.saturating_add(wait_ms(attempts)));
        if let Some(reason) = failed {
            tracing::warn!(
                hook = hook.name,
                event = event.event_id,
                reason,
                attempts,
                "a hook was not told; it is tried again"
            );
        }
        catalog.note_delivery(&hook.name, &event.event_id, next_ms).await?;
    }
    Ok(())
}

async fn tell(hook: &Hook, event: &EventRow) -> Result<()> {
    match &hook.target {
        HookTarget::Url { url, secret } => webhook::tell(url, secret, event).await,
        HookTarget::Command(words) => command::tell(words, event).await,
    }
}

fn wait_ms(attempts: u32) -> u64 {
    RETRY_FIRST_MS.checked_shl(attempts.min(32)).unwrap_or(RETRY_MAX_MS).min(RETRY_MAX_MS)
}
