//! Sends the commands of one file to one node and checks every reply.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use rdbtools::scan::Scanner;

use super::ShardFile;
use super::commands::Commands;
use super::survey::{Survey, scan_file};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::redis::{Incoming, Info, Node, Outgoing, SourceOptions, Wire, connect, refusal};
use crate::task_failed;

/// Commands are sent when so many bytes of them are ready.
const BATCH_LEN: usize = 256 * 1024;

/// How many batches may be made but not sent, and again sent but not answered.
const BATCHES_AHEAD: usize = 2;

/// How long one batch may take to be sent, and one reply to come: a large value is a lot of work for a server.
const STALL_WAIT: Duration = Duration::from_secs(120);

/// Commands as bytes, with a name for each command that ends within them.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    names: Vec<String>,
}

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

/// Names of commands that were sent together, and their bytes.
type Names = (Vec<String>, u64);

/// Loads `file` into `node`; the number of keys that it then holds. `told` hears of progress.
pub(super) async fn send(
    node: &Node,
    file: &ShardFile,
    survey: Survey,
    options: &SourceOptions,
    shard: usize,
    told: mpsc::Sender<Sent>,
) -> Result<u64> {
    let wire = Wire::connect(&node.address, options).await?;
    let (outgoing, incoming) = wire.split();
    let (batches, to_send) = mpsc::channel(BATCHES_AHEAD);
    let (sent, to_read) = mpsc::channel(BATCHES_AHEAD);
    let (path, expected) = (file.rdb.clone(), survey.clone());
    let making = spawn_blocking(move || make(path, survey, &batches));
    let name = node.address.to_string();
    let (written, answered) =
        tokio::join!(write(outgoing, to_send, sent), read(incoming, to_read, &name, (shard, told)));
    // The maker stops when nobody takes its batches, and sending fails when the server has closed the
    // connection; so what the server said, then what sending said, is the cause.
    let made = making.await.map_err(task_failed)?;
    answered?;
    written?;
    let skipped = made?;
    check_keys(node, options, &expected, skipped).await
}

/// Reads the file and makes batches; the number of keys that were left out. Ends early when nobody takes them.
fn make(path: PathBuf, survey: Survey, batches: &mpsc::Sender<Batch>) -> Result<u64> {
    let commands = Commands::new(survey, clock::unix_ms(clock::now()));
    let stopped = || Error::new(Class::Unforeseen, "the sender stopped");
    let flush = |commands: &mut Commands| {
        let batch = Batch { bytes: std::mem::take(&mut commands.out), names: std::mem::take(&mut commands.names) };
        batches.blocking_send(batch).map_err(|_| stopped())
    };
    let (_, mut commands) = scan_file(&path, Scanner::new(commands), |scanner| {
        let commands = scanner.sink_mut();
        if commands.out.len() >= BATCH_LEN { flush(commands) } else { Ok(()) }
    })?;
    flush(&mut commands)?;
    Ok(commands.skipped)
}

async fn write(mut outgoing: Outgoing, mut batches: mpsc::Receiver<Batch>, sent: mpsc::Sender<Names>) -> Result<()> {
    while let Some(batch) = batches.recv().await {
        // The reader has failed when it does not take the names, and says why.
        if sent.send((batch.names, batch.bytes.len() as u64)).await.is_err() {
            return Ok(());
        }
        outgoing.write(&batch.bytes, STALL_WAIT).await?;
    }
    Ok(())
}

async fn read(
    mut incoming: Incoming,
    mut names: mpsc::Receiver<Names>,
    node: &str,
    (shard, told): (usize, mpsc::Sender<Sent>),
) -> Result<()> {
    let (mut answered, mut taken) = (0, 0);
    while let Some((names, bytes)) = names.recv().await {
        for name in names {
            let line = incoming.line(STALL_WAIT).await?;
            if let Some(text) = line.strip_prefix('-') {
                return Err(refused(node, &name, text));
            }
            if line.starts_with('$') {
                // FUNCTION LOAD answers with the name of the library, on a line of its own
                incoming.line(STALL_WAIT).await?;
            }
            answered += 1;
        }
        // Nobody may be listening for progress any more.
        taken += bytes;
        told.send(Sent { shard, keys: answered, bytes: taken }).await.ok();
    }
    Ok(())
}

/// What an error reply to a command of a restore means.
fn refused(node: &str, name: &str, reply: &str) -> Error {
    let message = |what: &str| format!("{node}: {name}: {what} (the server says: {reply})");
    let code = reply.split_ascii_whitespace().next().unwrap_or("");
    match code {
        "BUSYKEY" => Error::new(Class::Refused, message("the key is there already; the node was not left alone")),
        "OOM" => Error::new(Class::Refused, message("the node is out of memory")).hint("raise its maxmemory"),
        "READONLY" => Error::new(Class::Refused, message("the node is a replica by now")),
        "MOVED" | "ASK" | "CROSSSLOT" => Error::new(Class::Refused, message("the node does not serve the key's slot")),
        _ if reply.contains("payload version or checksum") => {
            Error::new(Class::Version, message("the node does not take values of this RDB version"))
                .hint("restore into an engine at least as new as the source's")
        }
        _ if reply.contains("Bad data format") => {
            Error::new(Class::Version, message("the node cannot read the value")).hint("a module may be missing there")
        }
        _ if reply.contains("already exists") => Error::new(Class::Refused, message("it is there already")),
        _ => refusal(node, &format!("RESTORE of {name}"), reply),
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
