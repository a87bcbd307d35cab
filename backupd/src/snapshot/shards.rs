//! Takes shards: all at the same moment, and one that fails again, alone, from another node first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use policies::replica::{FAILURES_MAX, Wishes};
use policies::slot::SlotSet;
use policies::waves::waves;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::care::{Care, watched};
use super::choice::{Chosen, choose_node};
use super::method::{Method, Prepared, Taken};
use super::settle::{patiently, settled};
use super::turns::{Turn, Turns};
use crate::bkd::{Cipher, Compression, Header};
use crate::clock;
use crate::crypt::DataKey;
use crate::error::{Class, Error, Result};
use crate::pipeline::write::{Target, Written};
use crate::progress::Progress;
use crate::redis::{self, Node, Shard, SourceOptions, Topology};
use crate::repository::Repository;
use crate::repository::claim::Held;
use crate::task_failed;

/// How often one shard of one shape of the cluster is tried.
const ATTEMPTS_MAX: u32 = 3;

/// What all attempts share.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) repository: Repository,
    pub(super) held: Held,
    pub(super) data_key: Option<DataKey>,
    pub(super) level: i32,
    /// How to reach the source, with every node that was known when the job began among the seeds.
    pub(super) source: SourceOptions,
    pub(super) wishes: Wishes,
    pub(super) method: Method,
    pub(super) care: Care,
    /// Turns among the jobs that share a catalog, when there is one.
    pub(super) turns: Option<Turns>,
    /// How long a shard waits for a node before it is given up.
    pub(super) wait: Duration,
    pub(super) progress: Arc<Progress>,
    pub(super) cancel: CancellationToken,
}

/// A captured shard: where it was read, its position and what was stored.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) index: usize,
    pub(super) slots: Option<SlotSet>,
    pub(super) chosen: Chosen,
    pub(super) attempt: u32,
    pub(super) replid: String,
    pub(super) offset: u64,
    pub(super) taken_at: DateTime<Utc>,
    pub(super) stored_at: DateTime<Utc>,
    pub(super) written: Written,
}

/// One shard to take.
#[derive(Debug)]
struct Task {
    index: usize,
    /// As it was seen when its nodes were chosen.
    shard: Shard,
    chosen: Chosen,
    /// The number of its first attempt.
    attempt: u32,
}

impl Taker {
    /// Takes the shards `todo` of `topology`, together or, where the limits forbid that, in waves. `attempts` has the
    /// last attempt at each shard so far.
    ///
    /// A shard that the cluster no longer has when it must be retaken is missing from the result.
    ///
    /// # Errors
    /// The first failure that could not be mended by another attempt.
    pub(super) async fn take(
        self: &Arc<Self>,
        topology: &Topology,
        todo: &[usize],
        attempts: &HashMap<usize, u32>,
    ) -> Result<Vec<Captured>> {
        let chosen = |index: &usize| {
            let shard = topology.shards.get(*index)?;
            let attempt = attempts.get(index).copied().unwrap_or(0) + 1;
            let task = |chosen| Task { index: *index, shard: shard.clone(), chosen, attempt };
            Some(choose_node(*index, shard, &self.wishes, &HashMap::new()).map(task))
        };
        let mut todo = todo.iter().filter_map(chosen).map(|task| task.map(Some)).collect::<Result<Vec<_>>>()?;
        let hosts: Vec<String> = todo.iter().flatten().map(|task| task.chosen.node.host.clone()).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let mut captured = Vec::new();
        for wave in waves(&hosts, self.care.limits) {
            let wave = wave.into_iter().filter_map(|index| todo.get_mut(index)?.take()).collect();
            captured.extend(self.together(wave).await?);
        }
        Ok(captured)
    }

    /// Takes shards at the same moment: all nodes are connected and greeted before any is asked for its data.
    async fn together(self: &Arc<Self>, todo: Vec<Task>) -> Result<Vec<Captured>> {
        let (stop, together) = (self.cancel.child_token(), Arc::new(Barrier::new(todo.len())));
        let nodes: Vec<&Node> = todo.iter().map(|task| &task.chosen.node).collect();
        let turns = self.turns(&nodes, &stop).await?;
        let mut tasks = JoinSet::new();
        for (task, turn) in todo.into_iter().zip(turns) {
            let (this, together, stop) = (Arc::clone(self), Arc::clone(&together), stop.clone());
            tasks.spawn(async move { this.shard(task, turn, &together, &stop).await });
        }
        let (mut captured, mut failure) = (Vec::new(), None);
        while let Some(outcome) = tasks.join_next().await {
            match outcome.map_err(task_failed)? {
                Ok(shard) => captured.extend(shard),
                Err(error) if failure.is_none() => {
                    // the others stop too, each removing what it uploaded
                    stop.cancel();
                    failure = Some(error);
                }
                Err(error) => tracing::debug!(error = %error, "stopped after the first failure"),
            }
        }
        failure.map_or(Ok(captured), Err)
    }

    /// Takes one shard, as often as it may be tried. `None`: the cluster no longer has this shard.
    async fn shard(
        &self,
        task: Task,
        mut turn: Option<Turn>,
        together: &Barrier,
        stop: &CancellationToken,
    ) -> Result<Option<Captured>> {
        let Task { index, shard, mut chosen, mut attempt } = task;
        let last = attempt + ATTEMPTS_MAX - 1;
        let mut failures: HashMap<String, u32> = HashMap::new();
        let mut prepared = self.prepare(&chosen).await;
        together.wait().await;
        loop {
            let place = format!("shard {index} from {}", chosen.node.address);
            let taken = match prepared {
                Ok(prepared) => self.attempt(index, shard.slots.clone(), attempt, &chosen, prepared, stop).await,
                Err(error) => Err(error),
            };
            // before this job waits for anything: the next turn may be the same one
            if let Some(turn) = turn.take() {
                turn.release().await;
            }
            let error = match taken {
                Ok(captured) => return Ok(Some(captured)),
                Err(error) => error.at(place),
            };
            if stop.is_cancelled() || attempt == last || !may_be_mended(&error) {
                return Err(error);
            }
            // who refuses us will not change its mind within this job
            let weight = if error.class() == Class::SourceAuth { FAILURES_MAX } else { 1 };
            *failures.entry(chosen.node.id.clone()).or_default() += weight;
            tracing::warn!(error = %error, attempt, "a shard failed and is retaken");
            self.progress.phase(format!("capturing; shard {index} failed and is retaken"));
            attempt += 1;
            chosen = match self.choose_again(index, &shard, &failures, stop).await {
                Ok(Some(chosen)) => chosen,
                Ok(None) => return Ok(None),
                Err(why) => return Err(not_retaken(&error, &why)),
            };
            turn = self.turns(&[&chosen.node], stop).await?.into_iter().next().flatten();
            prepared = self.prepare(&chosen).await;
        }
    }

    /// Waits for the turns of captures from `nodes`, one for each; none where no catalog is shared.
    async fn turns(&self, nodes: &[&Node], stop: &CancellationToken) -> Result<Vec<Option<Turn>>> {
        match &self.turns {
            Some(turns) => Ok(turns.take(nodes, stop).await?.into_iter().map(Some).collect()),
            None => Ok(nodes.iter().map(|_| None).collect()),
        }
    }

    async fn prepare(&self, chosen: &Chosen) -> Result<Prepared> {
        self.method.prepare(&chosen.node, &self.source, self.wishes.primary_use).await
    }

    /// Another look at the source, until a node can serve the shard. `None`: no shard has this place and these slots.
    async fn choose_again(
        &self,
        index: usize,
        earlier: &Shard,
        failures: &HashMap<String, u32>,
        stop: &CancellationToken,
    ) -> Result<Option<Chosen>> {
        let look = || async {
            let topology = settled(redis::discover(&self.source).await?)?;
            let now = topology.shards.get(index).filter(|shard| shard.slots == earlier.slots);
            now.map(|now| choose_node(index, &now.clone().with_lost(earlier), &self.wishes, failures)).transpose()
        };
        patiently(self.wait, stop, look).await
    }

    async fn attempt(
        &self,
        index: usize,
        slots: Option<SlotSet>,
        attempt: u32,
        chosen: &Chosen,
        prepared: Prepared,
        stop: &CancellationToken,
    ) -> Result<Captured> {
        let again = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
        let meter = self.progress.row(format!("shard {index} from {}{again}", chosen.node.address), None);
        let target = self.target(index, attempt, chosen.node.used_memory)?;
        let file = target.file.clone();
        let over = stop.child_token();
        let watch = self.care.watch(&chosen.node, &self.source);
        let taken = watched(prepared.take(target, meter, &over), watch, || over.cancel()).await;
        let Taken { replid, offset, taken_at, written } = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.discard(&file).await;
                return Err(error);
            }
        };
        let stored_at = clock::now();
        let chosen = chosen.clone();
        let captured = Captured { index, slots, chosen, attempt, replid, offset, taken_at, stored_at, written };
        if let Err(error) = captured.check() {
            self.discard(&file).await;
            return Err(error);
        }
        Ok(captured)
    }

    fn target(&self, index: usize, attempt: u32, used_memory: u64) -> Result<Target> {
        let shard =
            u32::try_from(index).map_err(|_| Error::new(Class::Unforeseen, "more shards than can be counted"))?;
        let cipher = if self.data_key.is_some() { Cipher::Aes256Gcm } else { Cipher::None };
        let file = format!("shard-{shard:04}-{attempt}.bkd");
        Ok(Target {
            store: Arc::clone(self.repository.store()),
            key: self.held.place.key(&file),
            file,
            header: Header::new(cipher, Compression::Zstd, &self.held.place.snapshot_id, shard, attempt)?,
            data_key: self.data_key.clone(),
            level: self.level,
            size_hint_bytes: used_memory,
            flow: self.care.flow.clone(),
        })
    }

    /// Removes the object of a capture that no manifest will name, as far as that is possible.
    pub(super) async fn discard(&self, file: &str) {
        let key = self.held.place.key(file);
        if let Err(error) = self.repository.store().delete(&key).await {
            tracing::warn!(key, error = %error, "the object of a shard that was retaken is left behind");
        }
    }
}

impl Captured {
    /// The RDB's own position must be the one that the server announced, and its keys must be the shard's.
    fn check(&self) -> Result<()> {
        let aux = &self.written.report.aux;
        let (id, offset) = (aux.get("repl-id"), aux.get("repl-offset").and_then(|text| text.parse::<u64>().ok()));
        if id.is_some_and(|id| *id != self.replid) || offset.is_some_and(|offset| offset != self.offset) {
            let message =
                format!("the RDB's position {id:?} {offset:?} is not the announced {} {}", self.replid, self.offset);
            return Err(Error::new(Class::Verification, message).retryable(true));
        }
        if let Some(slots) = &self.slots
            && let Some(foreign) = self.written.slots.iter().find(|entry| !slots.contains(entry.slot))
        {
            let message = format!("it holds {} keys of slot {}, which is not its own", foreign.keys, foreign.slot);
            return Err(Error::new(Class::Verification, message)
                .hint("a resharding was under way or failed half-way: `redis-cli --cluster check` tells")
                .retryable(true));
        }
        Ok(())
    }
}

/// Whether another attempt, perhaps at another node, can help: what the source did, and bytes that are not an RDB,
/// which a server that fails in the middle can send.
fn may_be_mended(error: &Error) -> bool {
    matches!(error.class(), Class::SourceUnavailable | Class::SourceAuth | Class::Verification)
}

/// The failure of a shard, with why it could not be retaken.
fn not_retaken(error: &Error, why: &Error) -> Error {
    let message = format!("{}; it could not be retaken: {}", error.message(), why.message());
    let hint = why.advice().or(error.advice()).unwrap_or("try again");
    Error::new(error.class(), message).hint(hint).retryable(error.is_retryable())
}
