//! A launch half way: the primaries run and hold their data, and nothing follows them yet.

use std::path::PathBuf;

use policies::slot::SlotSet;

use super::process::Running;
use super::{LaunchPlan, LaunchProgress, LaunchedNode, PlannedNode, Prepared, is_cluster};
use crate::error::{Class, Error, Result};
use crate::redis::{Address, Client, Role, SourceOptions};

/// How long a primary waits, before it sends its data, for others that want it too.
const SYNC_DELAY: &str = "repl-diskless-sync-delay";

/// The primaries of a launch. Dropping it kills them, unless it is [finished](Self::finish).
#[derive(Debug)]
pub struct Started {
    pub(super) plan: LaunchPlan,
    pub(super) nodes: Vec<PlannedNode>,
    pub(super) folders: Vec<PathBuf>,
    pub(super) running: Running,
    pub(super) options: SourceOptions,
}

impl Started {
    /// Starts the primaries.
    pub(super) fn spawn(prepared: Prepared, progress: &(dyn Fn(LaunchProgress) + Sync)) -> Result<Self> {
        let Prepared { plan, nodes, folders } = prepared;
        let options = plan.access.options(nodes.iter().map(|node| node.port));
        let mut running = Running::new(options.clone());
        let count = plan.shards.len();
        for (node, folder) in nodes.iter().zip(&folders).take(count) {
            running.start(&plan.engine, folder, node.port)?;
            progress(LaunchProgress::Started { port: node.port });
        }
        Ok(Self { plan, nodes, folders, running, options })
    }

    /// Waits until they hold their files.
    pub(super) async fn wait_loaded(mut self, progress: &(dyn Fn(LaunchProgress) + Sync)) -> Result<Self> {
        let loaded = self.running.wait_loaded(&self.plan.shards, progress).await;
        loaded.map_err(|error| super::with_logs(error, &self.plan.dir))?;
        Ok(self)
    }

    /// Lets the first primary save what it holds. Returns the file that it wrote.
    ///
    /// # Errors
    /// `Unforeseen`, with the end of its log, when it does not.
    pub async fn save(&mut self) -> Result<PathBuf> {
        self.running.save().await
    }

    /// Where the primaries listen, in the order of the shards, and their slots.
    #[must_use]
    pub fn primaries(&self) -> Vec<(Address, Option<SlotSet>)> {
        let each = self.nodes.iter().zip(&self.plan.shards);
        each.map(|(node, shard)| (Address::tcp(node.host.clone(), node.port), shard.slots.clone())).collect()
    }

    /// How they are entered.
    #[must_use]
    pub fn options(&self) -> &SourceOptions {
        &self.options
    }

    /// Runs `job` while the primaries send their data as soon as it is asked for.
    ///
    /// # Errors
    /// What `job` says; what setting this says.
    pub async fn without_sync_delay<T>(&self, job: impl Future<Output = Result<T>>) -> Result<T> {
        let mut before = Vec::new();
        for (address, _) in self.primaries() {
            let mut client = Client::connect(&address, &self.options).await?;
            let delay = client.setting(SYNC_DELAY).await?;
            client.change_setting(SYNC_DELAY, "0").await?;
            before.push((client, delay));
        }
        let done = job.await?;
        for (mut client, delay) in before {
            if let Some(delay) = delay {
                client.change_setting(SYNC_DELAY, &delay).await?;
            }
        }
        Ok(done)
    }

    /// Starts the replicas and waits until everything serves.
    ///
    /// # Errors
    /// As [`launch()`](super::launch()).
    pub async fn finish(mut self, progress: &(dyn Fn(LaunchProgress) + Sync)) -> Result<Vec<LaunchedNode>> {
        let finished = self.attach(progress).await;
        let nodes = finished.map_err(|error| super::with_logs(error, &self.plan.dir))?;
        self.running.keep();
        progress(LaunchProgress::Serving);
        Ok(nodes)
    }

    async fn attach(&mut self, progress: &(dyn Fn(LaunchProgress) + Sync)) -> Result<Vec<LaunchedNode>> {
        let primaries = self.plan.shards.len();
        for (node, folder) in self.nodes.iter().zip(&self.folders).skip(primaries) {
            self.running.start(&self.plan.engine, folder, node.port)?;
            progress(LaunchProgress::Started { port: node.port });
        }
        progress(LaunchProgress::Joining);
        self.running.wait_replicas(primaries).await?;
        if is_cluster(&self.plan) {
            self.running.wait_joined(&self.nodes).await?;
        }
        let facts = self.running.facts().await?;
        let mut launched: Vec<LaunchedNode> = Vec::new();
        for (index, (node, (keys, pid))) in self.nodes.iter().zip(facts).enumerate() {
            let replica = index.checked_sub(primaries);
            let shard = replica.map_or(index, |replica| replica / self.plan.replicas.max(1));
            let planned = self.plan.shards.get(shard);
            if let (Some(primary), Some(planned)) = (launched.get(shard).filter(|_| replica.is_some()), planned) {
                check_replica(node.port, keys, primary, planned.expires)?;
            }
            launched.push(LaunchedNode {
                host: node.host.clone(),
                port: node.port,
                role: if node.follows.is_some() { Role::Replica } else { Role::Primary },
                slots: planned.and_then(|shard| shard.slots.clone()),
                keys,
                pid,
            });
        }
        Ok(launched)
    }
}

/// A replica holds the keys of its primary, but for those whose time comes meanwhile.
fn check_replica(port: u16, keys: u64, primary: &LaunchedNode, expires: u64) -> Result<()> {
    if keys.abs_diff(primary.keys) <= expires {
        return Ok(());
    }
    let message =
        format!("the replica on port {port} holds {keys} keys, its primary on port {} {}", primary.port, primary.keys);
    Err(Error::new(Class::Verification, message))
}
