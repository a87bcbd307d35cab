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
const TTL: Duration = Duration::from_secs(20);

/// How often it is extended.
const RENEWED_EVERY: Duration = Duration::from_secs(5);

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
    renewing: Option<JoinHandle<()>>,
}

impl Turn {
    fn renewed(mut self) -> Self {
        self.renewing = Some(renew(self.catalog.clone(), self.leases.clone()));
        self
    }

    /// Gives the leases back; what the catalog does not take runs out.
    pub(super) async fn release(mut self) {
        self.stop_renewing();
        give_back(&self.catalog, std::mem::take(&mut self.leases)).await;
    }

    fn stop_renewing(&mut self) {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
    }
}

async fn give_back(catalog: &Catalog, leases: Vec<Lease>) {
    for lease in leases {
        if let Err(error) = catalog.release_lease(&lease).await {
            tracing::debug!(%error, "the turn of a capture runs out by itself");
        }
    }
}

impl Turns {
    /// Waits for the turns to capture from all of `nodes` at the same time. Who waits holds none, so two jobs never wait
    /// for each other.
    ///
    /// # Errors
    /// `Busy` when others do not end in time, naming who; what the catalog says.
    pub(super) async fn take(&self, nodes: &[&Node], stop: &CancellationToken) -> Result<Vec<Turn>> {
        let begun = Instant::now();
        loop {
            match self.try_take(nodes).await {
                Err(error) if error.class() == Class::Busy && begun.elapsed() < self.wait && !stop.is_cancelled() => {
                    tracing::info!(%error, "waiting for the captures of other jobs");
                    tokio::select! {
                        () = sleep(TRIED_EVERY) => {}
                        () = stop.cancelled() => return Err(error),
                    }
                }
                Err(error) if error.class() == Class::Busy => {
                    return Err(error.hint("another job captures there: try again when it has ended"));
                }
                other => return other,
            }
        }
    }

    /// All turns or none, in the order of `nodes`.
    async fn try_take(&self, nodes: &[&Node]) -> Result<Vec<Turn>> {
        // all jobs ask in the same order, so that of two that want the same one gets it
        let mut order: Vec<(usize, &Node)> = nodes.iter().copied().enumerate().collect();
        order.sort_by_key(|(_, node)| node.address.to_string());
        let mut turns = Vec::with_capacity(order.len());
        for (index, node) in order {
            let mut turn = Turn { catalog: self.catalog.clone(), leases: Vec::new(), renewing: None };
            let taken = self.leases(node, &mut turn.leases).await;
            turns.push((index, turn));
            if let Err(error) = taken {
                for (_, turn) in turns {
                    turn.release().await;
                }
                return Err(error);
            }
        }
        turns.sort_by_key(|(index, _)| *index);
        Ok(turns.into_iter().map(|(_, turn)| turn.renewed()).collect())
    }

    /// Adds each lease that a capture from `node` needs to `leases` as soon as it is taken.
    async fn leases(&self, node: &Node, leases: &mut Vec<Lease>) -> Result<()> {
        let wanted = [
            (format!("captures of node {}", node.address), Some(1)),
            (format!("captures of host {}", node.host), self.limits.per_host_max),
            (format!("captures of cluster {}", self.cluster), self.limits.per_cluster_max),
        ];
        for (name, max) in wanted {
            let Some(max) = max else { continue };
            leases.push(self.one_of(&name, max).await?);
        }
        Ok(())
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
        self.stop_renewing();
        let (catalog, leases) = (self.catalog.clone(), std::mem::take(&mut self.leases));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !leases.is_empty() {
            runtime.spawn(async move { give_back(&catalog, leases).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Address, Info};

    fn node(port: u16) -> Node {
        let address = Address::tcp("127.0.0.1", port);
        Node::seen(address.to_string(), address, &Info::default(), None)
    }

    async fn release(turns: Vec<Turn>) {
        for turn in turns {
            turn.release().await;
        }
    }

    async fn again(turns: Turns, nodes: [&Node; 2]) {
        for _ in 0..5 {
            release(turns.take(&nodes, &CancellationToken::new()).await.unwrap()).await;
        }
    }

    #[tokio::test]
    async fn who_waits_for_turns_holds_none_and_two_that_want_the_same_both_get_them() {
        let temporary = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&temporary.path().join("catalog.sqlite").into()).await.unwrap();
        let turns = |holder: &str, wait| Turns {
            catalog: catalog.clone(),
            cluster: "orders".to_owned(),
            holder: holder.to_owned(),
            limits: Limits { per_host_max: None, per_cluster_max: Some(3) },
            wait,
        };
        let (one, two, three, four) = (node(1), node(2), node(3), node(4));
        let stop = CancellationToken::new();
        let (patient, impatient) = (turns("a", Duration::from_secs(120)), turns("b", Duration::ZERO));

        let held = patient.take(&[&one, &two], &stop).await.unwrap();
        assert_eq!(held.len(), 2);
        assert_eq!(impatient.take(&[&three, &four], &stop).await.unwrap_err().class(), Class::Busy);
        // it kept nothing: neither the last place of the cluster nor the node
        let last = impatient.take(&[&three], &stop).await.unwrap();
        release(held).await;
        release(last).await;
        // what was given back can be had at once, also by the same job
        release(impatient.take(&[&two, &one], &stop).await.unwrap()).await;

        let other = turns("c", Duration::from_secs(120));
        tokio::join!(again(patient, [&one, &two]), again(other, [&two, &one]));
    }
}
