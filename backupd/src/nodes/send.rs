//! Sends the commands of one file to one node, over several connections, and checks every reply.
//!
//! Whoever makes commands is one thread; its batches go to the connection that has the least before it. How much may be under
//! way on all of them together is found out while the node works ([`policies::depth`]), within bounds.

use std::time::Instant;

use policies::depth::Depth;
use rdbtools::decode::Decoder;
use rdbtools::scan::Scanner;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use super::ShardFile;
use super::batch::{BATCH_LEN, Batch, Made, Piece};
use super::commands::Commands;
use super::groups::Groups;
use super::lane::{self, Answer, Stop};
use super::parts::Parts;
use super::survey::{Survey, scan_file};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::redis::{Info, Node, SourceOptions, Wire, connect};
use crate::task_failed;

/// Connections to one node: servers read, and encrypt, on more than one thread when asked by more than one client.
pub(super) const LANES: usize = 4;

/// Bytes that may be under way to one node, on all connections together.
const UNDER_WAY_LEAST: u64 = 4 * BATCH_LEN as u64;
const UNDER_WAY_MOST: u64 = 12 << 20;

/// Batches that one connection may have before it, however small they are.
const BATCHES_GIVEN: usize = 64;

/// Pieces of a series that wait for their connection.
const PIECES_WAITING: usize = 2;

/// How far a node is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// Index of the shard.
    pub(super) shard: usize,
    /// Keys that the node confirmed.
    pub(super) keys: u64,
    /// Bytes of commands that it took.
    pub(super) bytes: u64,
}

/// Loads `file` into `node`; the number of keys that it then holds. `told` hears of progress.
pub(super) async fn send(
    node: &Node,
    file: &ShardFile,
    (survey, groups): (Survey, Option<Groups>),
    options: &SourceOptions,
    shard: usize,
    told: mpsc::Sender<Sent>,
) -> Result<u64> {
    let lanes = open(node, options).await?;
    // one batch waits while the next is made
    let (batches, made) = mpsc::channel(1);
    let (file, expected) = (file.clone(), survey.clone());
    let making = spawn_blocking(move || make(&file, survey, groups, &batches));
    let sent = Dispatch::new(lanes, &node.address.to_string()).run(made, (shard, told)).await;
    // the maker stops when nobody takes its batches: what a connection said is the cause
    let made = making.await.map_err(task_failed)?;
    match sent {
        Ok(()) => {}
        Err(Stop::Failed(error)) => return Err(error),
        Err(Stop::Taken(keys)) => return Err(Groups::taken(node, options, &keys).await),
    }
    check_keys(node, options, &expected, made?).await
}

/// Connects as often as the node lets us, at least once.
async fn open(node: &Node, options: &SourceOptions) -> Result<Vec<Wire>> {
    let mut lanes = vec![Wire::connect(&node.address, options).await?];
    while lanes.len() < LANES {
        match Wire::connect(&node.address, options).await {
            Ok(wire) => lanes.push(wire),
            Err(error) => {
                tracing::debug!(node = %node.address, %error, "fewer connections than wished for");
                break;
            }
        }
    }
    Ok(lanes)
}

/// Who gives batches to connections.
struct Dispatch {
    lanes: Vec<Lane>,
    running: JoinSet<Result<(), Stop>>,
    answers: mpsc::Receiver<Answer>,
    depth: Depth,
    under_way: u64,
    taken: Sent,
}

struct Lane {
    batches: mpsc::Sender<(Batch, Instant)>,
    under_way: u64,
}

impl Dispatch {
    fn new(wires: Vec<Wire>, node: &str) -> Self {
        let (answered, answers) = mpsc::channel(LANES);
        let mut running = JoinSet::new();
        let mut lanes = Vec::new();
        for (index, wire) in wires.into_iter().enumerate() {
            let (batches, given) = mpsc::channel(BATCHES_GIVEN);
            running.spawn(lane::run(index, wire, node.to_owned(), given, answered.clone()));
            lanes.push(Lane { batches, under_way: 0 });
        }
        let depth = Depth::new(UNDER_WAY_LEAST, UNDER_WAY_MOST);
        Self { lanes, running, answers, depth, under_way: 0, taken: Sent { shard: 0, keys: 0, bytes: 0 } }
    }

    /// Until every batch was answered, or the first connection failed.
    async fn run(
        mut self,
        mut made: mpsc::Receiver<Batch>,
        (shard, told): (usize, mpsc::Sender<Sent>),
    ) -> Result<(), Stop> {
        self.taken.shard = shard;
        loop {
            tokio::select! {
                Some(answer) = self.answers.recv() => {
                    self.answered(answer);
                    // nobody may be listening for progress any more
                    told.send(self.taken).await.ok();
                }
                batch = made.recv(), if self.has_room() => match batch {
                    Some(batch) => self.give(batch),
                    // they end when they have read the last reply
                    None => self.lanes.clear(),
                },
                Some(ended) = self.running.join_next() => ended.map_err(task_failed)??,
                else => return Ok(()),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.under_way < self.depth.bytes() && self.lanes.iter().any(|lane| lane.batches.capacity() > 0)
    }

    fn give(&mut self, batch: Batch) {
        let bytes = counted(&batch);
        let free = self.lanes.iter_mut().filter(|lane| lane.batches.capacity() > 0);
        let Some(lane) = free.min_by_key(|lane| lane.under_way) else { return };
        lane.under_way += bytes;
        self.under_way += bytes;
        // one that has ended is seen by its failure
        lane.batches.try_send((batch, Instant::now())).ok();
    }

    fn answered(&mut self, answer: Answer) {
        self.taken.keys += answer.keys;
        self.taken.bytes += answer.bytes;
        let Some(took) = answer.took else { return };
        self.under_way = self.under_way.saturating_sub(answer.bytes);
        if let Some(lane) = self.lanes.get_mut(answer.lane) {
            lane.under_way = lane.under_way.saturating_sub(answer.bytes);
        }
        self.depth.answered(answer.bytes, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// A series is bounded by its own queue and its connection.
fn counted(batch: &Batch) -> u64 {
    match batch {
        Batch::Whole(piece) => piece.bytes.len() as u64,
        Batch::Series(_) => 0,
    }
}

/// Reads the file and makes batches; the number of keys that were left out. Ends early when nobody takes them.
fn make(file: &ShardFile, survey: Survey, groups: Option<Groups>, batches: &mpsc::Sender<Batch>) -> Result<u64> {
    let now = clock::unix_ms(clock::now());
    let mut outlet = Outlet { batches, series: None };
    let in_parts = survey.in_parts();
    let parts = Parts::new(in_parts, survey.has_databases, now)?;
    let has_parts = parts.has_any();
    let scanner = Scanner::new(Commands::new(survey, groups, now)).deferring_compressed();
    let (_, mut commands) = scan_file(&file.rdb, scanner, |scanner| {
        scanner.sink_mut().take().into_iter().try_for_each(|made| outlet.put(made))
    })?;
    commands.end();
    commands.take().into_iter().try_for_each(|made| outlet.put(made))?;
    if has_parts {
        let scanner = Scanner::new(Decoder::new(parts));
        scan_file(&file.rdb, scanner, |scanner| {
            scanner.sink_mut().values_mut().take().into_iter().try_for_each(|made| outlet.put(made))
        })?;
    }
    Ok(commands.skipped)
}

/// Where what was made goes.
struct Outlet<'a> {
    batches: &'a mpsc::Sender<Batch>,
    series: Option<mpsc::Sender<Piece>>,
}

impl Outlet<'_> {
    fn put(&mut self, made: Made) -> Result<()> {
        let stopped = || Error::new(Class::Unforeseen, "the sender stopped");
        match made {
            Made::Whole(piece) => self.batches.blocking_send(Batch::Whole(piece)).map_err(|_| stopped()),
            Made::End => {
                self.series = None;
                Ok(())
            }
            Made::Next(piece) => {
                if self.series.is_none() {
                    let (pieces, given) = mpsc::channel(PIECES_WAITING);
                    self.batches.blocking_send(Batch::Series(given)).map_err(|_| stopped())?;
                    self.series = Some(pieces);
                }
                match &self.series {
                    Some(pieces) => pieces.blocking_send(piece).map_err(|_| stopped()),
                    None => Err(stopped()),
                }
            }
        }
    }
}

/// The node must hold every key that was sent, except those whose time has come since, and its mark.
pub(super) async fn check_keys(node: &Node, options: &SourceOptions, sent: &Survey, skipped: u64) -> Result<u64> {
    let mut client = connect(&node.address, options).await?;
    let info: String = client.query("INFO", &::redis::cmd("INFO")).await?;
    let info = Info::parse(&info);
    let keys = info.keys().saturating_sub(1);
    let most = sent.keys.saturating_sub(skipped);
    let least = sent.keys.saturating_sub(sent.expires);
    if keys > most || keys < least {
        let message = format!("{}: the node holds {keys} keys, but {most} were sent", node.address);
        let error = Error::new(Class::Verification, message);
        return Err(match info.number("evicted_keys") {
            0 => error,
            evicted => error.hint(format!("the node has evicted {evicted} keys: raise its maxmemory")),
        });
    }
    Ok(keys)
}
