//! Whose turn it is to capture from a node, a host, a cluster, when several jobs share a catalog.

use std::time::Duration;

use policies::waves::Limits;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Lease};
use crate::error::{Class, Result};
use crate::redis::Node;

/// How long a turn of a process that died is still taken.
const TTL: Duration = Duration::from_secs(60);

/// How often it is extended.
const RENEWED_EVERY: Duration = Duration::from_secs(15);

/// Between two tries.
const TRIED_EVERY: Duration = Duration::from_millis(500);

/// Takes turns for one job.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// Where the leases are.
    pub(super) catalog: Catalog,
    /// The name of the cluster.
    pub(super) cluster: String,
    /// Different for every job.
    pub(super) holder: String,
    /// How many captures a host and a cluster may serve; a node serves one.
    pub(super) limits: Limits,
    /// How long a turn is waited for.
    pub(super) wait: Duration,
}

/// A turn, for as long as it lives.
#[derive(Debug)]
pub(super) struct Turn {
    catalog: Catalog,
    leases: Vec<Lease>,
    renewing: JoinHandle<()>,
}

impl Turns {
    /// Waits for the turn to capture from `node`.
    ///
    /// # Errors
    /// `Busy` when others do not end in time, naming who; what the catalog says.
    pub(super) async fn take(&self, node: &Node, stop: &CancellationToken) -> Result<Turn> {
        let begun = Instant::now();
        loop {
            match self.try_take(node).await {
                Err(error) if error.class() == Class::Busy && begun.elapsed() < self.wait && !stop.is_cancelled() => {
                    tracing::info!(%error, "waiting for the captures of other jobs");
                    sleep(TRIED_EVERY).await;
                }
                Err(error) if error.class() == Class::Busy => {
                    return Err(error.hint("another job captures there: try again when it has ended"));
                }
                other => return other,
            }
        }
    }

    /// All leases or none.
    async fn try_take(&self, node: &Node) -> Result<Turn> {
        let host = format!("captures of host {}", node.host);
        let cluster = format!("captures of cluster {}", self.cluster);
        let wanted = [
            (format!("captures of node {}", node.address), Some(1)),
            (host, self.limits.per_host_max),
            (cluster, self.limits.per_cluster_max),
        ];
        let mut turn = Turn { catalog: self.catalog.clone(), leases: Vec::new(), renewing: tokio::spawn(async {}) };
        for (name, max) in wanted {
            let Some(max) = max else { continue };
            // dropping the turn gives back what it has
            turn.leases.push(self.one_of(&name, max).await?);
        }
        turn.renewing = renew(self.catalog.clone(), turn.leases.clone());
        Ok(turn)
    }

    /// One of the `max` places of this name.
    async fn one_of(&self, name: &str, max: usize) -> Result<Lease> {
        let now_ms = self.catalog.now_unix_ms().await?;
        let mut place = 1;
        loop {
            match self.catalog.acquire_lease(&format!("{name}, {place} of {max}"), &self.holder, TTL, now_ms).await {
                Err(error) if error.class() == Class::Busy && place < max => place += 1,
                other => return other,
            }
        }
    }
}

/// Keeps leases until aborted.
fn renew(catalog: Catalog, leases: Vec<Lease>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            sleep(RENEWED_EVERY).await;
            for lease in &leases {
                let renewed = async { catalog.renew_lease(lease, TTL, catalog.now_unix_ms().await?).await };
                if let Err(error) = renewed.await {
                    // it outlives several renewals that are missed; a capture more does no harm that others would not
                    tracing::warn!(%error, "the turn of a capture could not be extended");
                }
            }
        }
    })
}

impl Drop for Turn {
    /// Gives the leases back, without anybody waiting for it; those of a process that ends run out.
    fn drop(&mut self) {
        self.renewing.abort();
        let (catalog, leases) = (self.catalog.clone(), std::mem::take(&mut self.leases));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for lease in leases {
                if let Err(error) = catalog.release_lease(&lease).await {
                    tracing::debug!(%error, "the turn of a capture runs out by itself");
                }
            }
        });
    }
}
