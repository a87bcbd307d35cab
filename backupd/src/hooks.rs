//! Hooks: who is told of events. Each event is told at least once, again and again for a day until it was heard; what a hook answers changes
//! nothing of what backupd does.

mod command;
mod webhook;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::JoinSet;
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

/// Tells hooks.
#[derive(Debug, Clone)]
pub struct Teller {
    /// Where events are.
    pub catalog: Catalog,
    /// The hooks.
    pub config: Live,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// Different for every process.
    pub name: String,
    client: Arc<OnceCell<webhook::Client>>,
}

impl Teller {
    /// Tells nothing yet.
    #[must_use]
    pub fn new(catalog: Catalog, config: Live, telemetry: Arc<Telemetry>, name: String) -> Self {
        Self { catalog, config, telemetry, name, client: Arc::default() }
    }

    /// Tells hooks until `stop`: one daemon at a time tells a hook, and each hook by itself, so that a slow one holds up no other.
    pub async fn run(self, stop: CancellationToken) {
        let (mut turns, mut busy) = (JoinSet::new(), BTreeSet::new());
        while !stop.is_cancelled() {
            let now = Arc::clone(&self.config.borrow());
            for hook in &now.hooks {
                if busy.insert(hook.name.clone()) {
                    turns.spawn(self.clone().turn(hook.clone(), stop.clone()));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
            while let Some(name) = turns.try_join_next() {
                match name {
                    Ok(name) => _ = busy.remove(&name),
                    Err(error) => tracing::error!(error = %error, "the turn of a hook failed"),
                }
            }
        }
        while turns.join_next().await.is_some() {}
    }

    /// Tells one hook what it was not told of yet, and gives its name back.
    async fn turn(self, hook: Hook, stop: CancellationToken) -> String {
        if let Err(error) = self.tell_some(&hook, &stop).await
            && error.class() != Class::Busy
        {
            tracing::warn!(hook = hook.name, error = %error, "the hook could not be served");
        }
        hook.name
    }

    async fn tell_some(&self, hook: &Hook, stop: &CancellationToken) -> Result<()> {
        let now_ms = self.catalog.now_unix_ms().await?;
        let events = self.catalog.untold_events(&hook.name, now_ms, EVENTS_MAX).await?;
        if events.is_empty() {
            return Ok(());
        }
        let lease = self.catalog.acquire_lease(&format!("hook:{}", hook.name), &self.name, LEASE, now_ms).await?;
        let told = tokio::select! {
            told = self.tell_all(hook, events, &lease) => told,
            // what was being told is told again by the next daemon
            () = stop.cancelled() => Ok(()),
        };
        self.catalog.release_lease(&lease).await?;
        told
    }

    async fn tell_all(&self, hook: &Hook, events: Vec<(EventRow, u32)>, lease: &Lease) -> Result<()> {
        let catalog = &self.catalog;
        for (event, attempts) in events {
            if !hook.wants(&event.code) {
                catalog.note_delivery(&hook.name, &event.event_id, None).await?;
                continue;
            }
            catalog.renew_lease(lease, LEASE, catalog.now_unix_ms().await?).await?;
            let told = tokio::time::timeout(TELL_LIMIT, self.tell(hook, &event)).await;
            let failed = match told {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.message().to_owned()),
                Err(_) => Some(format!("it took longer than {} s", TELL_LIMIT.as_secs())),
            };
            self.telemetry.hook_told(failed.is_none());
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

    async fn tell(&self, hook: &Hook, event: &EventRow) -> Result<()> {
        match &hook.target {
            HookTarget::Url { url, secret } => {
                let client = self.client.get_or_try_init(|| async { webhook::client() }).await?;
                webhook::tell(client, url, secret, event).await
            }
            HookTarget::Command(words) => command::tell(words, event).await,
        }
    }
}

fn wait_ms(attempts: u32) -> u64 {
    RETRY_FIRST_MS.checked_shl(attempts.min(32)).unwrap_or(RETRY_MAX_MS).min(RETRY_MAX_MS)
}
