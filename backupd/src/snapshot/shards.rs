//! Takes shards: all at the same moment, and one that fails again, alone, from another node first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use policies::replica::{FAILURES_MAX, Wishes};
use policies::share::share;
use policies::slot::SlotSet;
use policies::waves::waves;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Reader, Stored};
use super::choice::{Chosen, choose_node};
use super::lend::{Lend, Loan, Offer};
use super::method::Prepared;
use super::settle::{patiently, settled};
use super::turns::{Turn, Turns};
use crate::error::{Class, Error, Result};
use crate::progress::Progress;
use crate::redis::{self, Node, Shard, Topology};
use crate::task_failed;

/// How often one shard of one shape of the cluster is tried.
const ATTEMPTS_MAX: u32 = 3;

/// What all attempts share.
#[derive(Debug)]
pub(super) struct Taker {
    /// Its source has every node that was known when the job began among the seeds.
    pub(super) reader: Reader,
    /// The cluster's name.
    pub(super) cluster: String,
    pub(super) wishes: Wishes,
    /// The id of the master key and the bytes of the wrap, when it is encrypted.
    pub(super) wrap: Option<(String, Vec<u8>)>,
    /// Other workers that may read shards, when there can be some.
    pub(super) lend: Option<Lend>,
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
    pub(super) stored: Stored,
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
    /// That one was offered to other workers.
    loan: Option<Loan>,
}

/// A node that waits for the word: here, or at another worker.
enum Ready {
    Here(Prepared),
    There(Loan),
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
            let task = |chosen| Task { index: *index, shard: shard.clone(), chosen, attempt, loan: None };
            Some(choose_node(*index, shard, &self.wishes, &HashMap::new()).map(task))
        };
        let mut todo = todo.iter().filter_map(chosen).map(|task| task.map(Some)).collect::<Result<Vec<_>>>()?;
        let hosts: Vec<String> = todo.iter().flatten().map(|task| task.chosen.node.host.clone()).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let mut captured = Vec::new();
        for wave in waves(&hosts, self.reader.care.limits) {
            let wave = wave.into_iter().filter_map(|index| todo.get_mut(index)?.take()).collect();
            captured.extend(self.together(wave).await?);
        }
        Ok(captured)
    }

    /// Takes shards at the same moment: all nodes are connected and greeted before any is asked for its data.
    async fn together(self: &Arc<Self>, mut todo: Vec<Task>) -> Result<Vec<Captured>> {
        let (stop, together) = (self.cancel.child_token(), Arc::new(Barrier::new(todo.len())));
        let nodes: Vec<&Node> = todo.iter().map(|task| &task.chosen.node).collect();
        let turns = self.turns(&nodes, &stop).await?;
        self.lend(&mut todo).await?;
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

    /// Offers some of the shards to other workers, when there are any.
    async fn lend(&self, todo: &mut [Task]) -> Result<()> {
        let Some(lend) = &self.lend else { return Ok(()) };
        // one alone is never lent, so nobody is counted for it
        let others = if todo.len() > 1 { lend.others().await } else { 0 };
        let share = share(todo.len(), others);
        if let (false, Some((key_id, file))) = (share.lent.is_empty(), &self.wrap) {
            // who reads a shard needs the data key, and takes it from where everybody does
            let Reader { repository, place, .. } = &self.reader;
            repository.create_document(&place.wrap_key(key_id), file.clone()).await?;
        }
        for place in share.lent {
            let Some(task) = todo.get_mut(place) else { continue };
            let offer = Offer {
                snapshot_id: self.reader.place.snapshot_id.clone(),
                node_id: task.chosen.node.id.clone(),
                slots: task.shard.slots.as_ref().map(ToString::to_string),
                attempt: task.attempt,
                method: self.reader.method.as_str().to_owned(),
                level: self.reader.level,
                sealed: self.wrap.is_some(),
                each_max: share.each_max,
            };
            task.loan = lend.offer(&self.cluster, task.index, &offer).await;
        }
        Ok(())
    }

    /// Takes one shard, as often as it may be tried. `None`: the cluster no longer has this shard.
    async fn shard(
        &self,
        task: Task,
        mut turn: Option<Turn>,
        together: &Barrier,
        stop: &CancellationToken,
    ) -> Result<Option<Captured>> {
        let Task { index, shard, mut chosen, mut attempt, loan } = task;
        let last = attempt + ATTEMPTS_MAX - 1;
        let mut failures: HashMap<String, u32> = HashMap::new();
        let mut ready = match loan {
            Some(loan) => self.lent(index, loan, &chosen, stop).await,
            None => self.prepare(&chosen).await,
        };
        together.wait().await;
        loop {
            let place = format!("shard {index} from {}", chosen.node.address);
            let taken = match ready {
                Ok(ready) => self.attempt(index, shard.slots.clone(), attempt, &chosen, ready, stop).await,
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
            ready = self.prepare(&chosen).await;
        }
    }

    /// Waits for the turns of captures from `nodes`, one for each; none where no catalog is shared.
    async fn turns(&self, nodes: &[&Node], stop: &CancellationToken) -> Result<Vec<Option<Turn>>> {
        match &self.turns {
            Some(turns) => Ok(turns.take(nodes, stop).await?.into_iter().map(Some).collect()),
            None => Ok(nodes.iter().map(|_| None).collect()),
        }
    }

    async fn prepare(&self, chosen: &Chosen) -> Result<Ready> {
        self.reader.prepare(&chosen.node).await.map(Ready::Here)
    }

    /// The same at whoever took the shard, and here when nobody did.
    async fn lent(&self, index: usize, loan: Loan, chosen: &Chosen, stop: &CancellationToken) -> Result<Ready> {
        let Some(loan) = loan.ready(stop).await else { return self.prepare(chosen).await };
        if let Some(lend) = &self.lend {
            lend.note(&format!("shard {index} is read by worker {}", loan.worker)).await;
        }
        Ok(Ready::There(loan))
    }

    async fn attempt(
        &self,
        index: usize,
        slots: Option<SlotSet>,
        attempt: u32,
        chosen: &Chosen,
        ready: Ready,
        stop: &CancellationToken,
    ) -> Result<Captured> {
        let again = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
        let meter = self.progress.row(format!("shard {index} from {}{again}", chosen.node.address), None);
        let shard = attempt::Shard { index, slots, attempt };
        let stored = match ready {
            Ready::Here(prepared) => self.reader.read(&shard, &chosen.node, prepared, meter, stop).await?,
            Ready::There(loan) => loan.take(&meter, stop).await?,
        };
        Ok(Captured { index, slots: shard.slots, chosen: chosen.clone(), attempt, stored })
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
            let topology = settled(redis::discover(&self.reader.source).await?)?;
            let now = topology.shards.get(index).filter(|shard| shard.slots == earlier.slots);
            now.map(|now| choose_node(index, &now.clone().with_lost(earlier), &self.wishes, failures)).transpose()
        };
        patiently(self.wait, stop, look).await
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
