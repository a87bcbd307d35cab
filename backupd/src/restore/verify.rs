//! Whether the nodes hold what they were given: each primary sends its data once more, as to a replica, and the digests
//! of it are compared with those of the inputs.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use policies::slot::SlotSet;
use rdbtools::content::{Content, ContentRules};
use rdbtools::select::Glob;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::content::Expected;
use crate::clock;
use crate::digest::{self, digesting};
use crate::error::{Class, Error, Result};
use crate::nodes::mark_key;
use crate::pipeline::{CHUNKS_QUEUED, Meter};
use crate::progress::Progress;
use crate::redis::{Address, Node, Payload, Replication, SourceOptions, observe};
use crate::task_failed;

/// How many nodes are read at the same time.
const READ_AT_ONCE: usize = 4;

/// What was compared.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Nodes whose data was read back.
    pub nodes: usize,
    /// Keys that were found there.
    pub keys: u64,
}

/// One primary and the slots whose keys it may hold.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) address: Address,
    pub(super) slots: Option<SlotSet>,
}

/// Reads every node back and compares.
///
/// # Errors
/// `Verification`, naming the shard and what differs; what reading a node says.
pub(super) async fn run(
    expected: &Expected,
    nodes: Vec<Loaded>,
    options: &SourceOptions,
    progress: &Progress,
) -> Result<Verified> {
    progress.phase("reading the nodes back to compare them");
    let mut verified = Verified { nodes: nodes.len(), keys: 0 };
    let mut todo = nodes.into_iter().zip(&expected.contents).enumerate();
    let mut tasks: JoinSet<Result<u64>> = JoinSet::new();
    loop {
        while tasks.len() < READ_AT_ONCE
            && let Some((index, (node, content))) = todo.next()
        {
            let shards: Vec<SlotSet> = node.slots.iter().cloned().collect();
            let mut rules = ContentRules { shards, ..expected.rules.read_back() };
            // nodes bear it until they are verified
            rules.select.exclude.push(Glob::new(mark_key(node.slots.as_ref())));
            let (content, options) = (content.clone(), options.clone());
            let meter = progress.row(format!("verify shard {index}"), None);
            tasks.spawn(async move {
                let place = format!("shard {index}, {}", node.address);
                one(&node.address, rules, &content, &options, meter).await.map_err(|error| error.at(place))
            });
        }
        match tasks.join_next().await {
            Some(done) => verified.keys += done.map_err(task_failed)??,
            None => return Ok(verified),
        }
    }
}

/// Compares one node; the keys that it holds.
async fn one(
    address: &Address,
    rules: ContentRules,
    expected: &Content,
    options: &SourceOptions,
    meter: Arc<Meter>,
) -> Result<u64> {
    let seen = observe(address, options).await?;
    let node = Node::seen(address.to_string(), address.clone(), &seen.info, None);
    let payload = Replication::prepare(&node, options).await?.start().await?.payload;
    let (found, misplaced) = read(payload, rules, meter).await?;
    if let Some((count, name)) = misplaced {
        let name = name.escape_ascii();
        let message = format!("it holds {count} keys of slots that it does not serve, such as `{name}`");
        return Err(Error::new(Class::Verification, message).hint(ADVICE));
    }
    let differences = expected.differences(&found, clock::unix_ms(clock::now()));
    if differences.is_empty() {
        return Ok(found.keys().values().sum());
    }
    let mut shown = digest::shown(&differences);
    let evicted = observe(address, options).await.map_or(0, |seen| seen.info.number("evicted_keys"));
    if evicted > 0 {
        shown.push(format!("the node has evicted {evicted} keys since it was started: raise its maxmemory"));
    }
    let message = format!("it does not hold what was restored: {}", shown.join("; "));
    Err(Error::new(Class::Verification, message).hint(ADVICE))
}

const ADVICE: &str = "a client may have written to it, or it evicted keys: keep clients away, empty it, and restore again; --no-verify leaves this comparison out";

type Found = (Content, Option<(u64, Vec<u8>)>);

/// Digests the data of a node as it comes.
async fn read(mut payload: Payload, rules: ContentRules, meter: Arc<Meter>) -> Result<Found> {
    let (chunks, mut received) = mpsc::channel::<Bytes>(CHUNKS_QUEUED);
    let digesting_all = tokio::task::spawn_blocking(move || {
        let failed = |error: rdbtools::ScanError| {
            Error::new(Class::SourceUnavailable, format!("what it sends of its data is not sound: {error}"))
        };
        let mut scanner = digesting(rules);
        while let Some(chunk) = received.blocking_recv() {
            scanner.feed(&chunk).map_err(failed)?;
            meter.passed(scanner.offset(), 0);
            if scanner.is_done() {
                break;
            }
        }
        let sink = scanner.finish().map_err(failed)?.1.into_values();
        let misplaced = sink.misplaced().map(|(count, name)| (count, name.to_vec()));
        Ok((sink.into_contents().into_iter().next().unwrap_or_default(), misplaced))
    });
    let pumped = async {
        let mut buffer = BytesMut::new();
        loop {
            let count = tokio::select! {
                count = payload.next(&mut buffer) => count?,
                () = chunks.closed() => return Ok(()),
            };
            if count == 0 || chunks.send(buffer.split().freeze()).await.is_err() {
                return Ok(());
            }
        }
    };
    let pumped: Result<()> = pumped.await;
    drop(chunks);
    let digested = digesting_all.await.map_err(task_failed)?;
    match (pumped, digested) {
        (_, Ok(found)) => Ok(found),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}
