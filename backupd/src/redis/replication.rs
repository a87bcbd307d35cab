//! A capture's connection: the greeting of a replica, then one RDB.
//!
//! We ask for the RDB alone (`REPLCONF rdb-only 1`), so the server keeps no stream of writes for us, and
//! never acknowledge anything, so no `WAIT` and no `FAILOVER` counts on us. No capability is announced
//! besides `eof`: without the others servers send the classic single stream.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::time::timeout;

use super::bgsave;
use super::client::Client;
use super::node::{Node, Role};
use super::refusal::refusal;
use super::source::SourceOptions;
use super::wire::Wire;
use crate::error::{Class, Error, Result};

/// Length of the mark that ends a payload of unknown length, in bytes (`CONFIG_RUN_ID_SIZE` of the server).
pub const MARK_LEN: usize = 40;

/// A buffer with less spare room than this gets a new block before [`Payload::next`] reads into it.
const ROOM_LEN_MIN: usize = 64 * 1024;

/// Length of such a block, in bytes. Bytes that the caller split off keep their block alive, so blocks are
/// used up and not thrown away after one short read.
const BLOCK_LEN: usize = 512 * 1024;

/// The newest Valkey whose RDB we read: announced, so that Valkey 9 sends its own format and not the older
/// one, which cannot hold everything.
const VALKEY_VERSION_READ: &str = "9.1.0";

/// A port that no server can have: Sentinel reads the replicas of a primary from its `INFO` and drops an
/// entry with this port, while it would remember port 0 as a dead replica.
const LISTENING_PORT: &str = "70000";

/// A connection that is ready to ask for the RDB.
#[derive(Debug)]
pub struct Replication {
    wire: Wire,
    rdb_only: bool,
    payload_wait: Duration,
    stall: Duration,
    reply: Duration,
}

impl Replication {
    /// Connects to `node`, authenticates and says what we want. The server does no work yet.
    ///
    /// # Errors
    /// `SourceUnavailable` when the node cannot be reached or leaves; `SourceAuth` when it refuses the
    /// credentials or `REPLCONF`.
    pub async fn prepare(node: &Node, options: &SourceOptions) -> Result<Self> {
        Self::greet(node, options, true).await
    }

    /// As [`Self::prepare`], but the server is to write its RDB file (`dump.rdb`) and send that: its child then lives as long as
    /// its own disk takes, however slowly we read. Who does not say `capa eof` gets it so, whatever `repl-diskless-sync` says
    /// (`startBgsaveForReplication` in the server's `replication.c`).
    ///
    /// # Errors
    /// As [`Self::prepare`], and `Refused` when a failed save would stop the writes of a primary and `risk` does not allow that.
    pub async fn prepare_from_disk(node: &Node, options: &SourceOptions, risk: bool) -> Result<Self> {
        let mut client = Client::connect(&node.address, options).await?;
        bgsave::check_risk(&mut client, node, risk).await?;
        Self::greet(node, options, false).await
    }

    async fn greet(node: &Node, options: &SourceOptions, diskless: bool) -> Result<Self> {
        let reply = options.reply_timeout;
        let wire = Wire::connect(&node.address, options).await?;
        let (payload_wait, stall) = (options.payload_wait, options.stall_timeout);
        let mut this = Self { wire, rdb_only: false, payload_wait, stall, reply };
        this.tell("CLIENT SETNAME", &["CLIENT", "SETNAME", "backupd"]).await?.ok();
        if diskless {
            this.tell("REPLCONF", &["REPLCONF", "capa", "eof"]).await??;
        }
        // Unknown before Redis 6.2: the capture then works, but the server may cut it when too many writes pile up.
        this.rdb_only = this.tell("REPLCONF", &["REPLCONF", "rdb-only", "1"]).await?.is_ok();
        if node.engine == "valkey" {
            this.tell("REPLCONF", &["REPLCONF", "version", VALKEY_VERSION_READ]).await?.ok();
        }
        if node.role == Role::Primary {
            this.tell("REPLCONF", &["REPLCONF", "listening-port", LISTENING_PORT]).await?.ok();
        }
        Ok(this)
    }

    /// Sends one command of the greeting. The outer error is a broken connection, the inner one a refusal.
    async fn tell(&mut self, name: &str, words: &[&str]) -> Result<Result<()>> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.wire.send(&words, self.reply).await?;
        let line = self.wire.line(self.reply).await?;
        Ok(match line.strip_prefix('-') {
            Some(text) => Err(refusal(self.wire.node(), name, text)),
            None => Ok(()),
        })
    }

    /// Whether the server keeps no stream of writes for us (`REPLCONF rdb-only`, Redis 6.2 and later).
    #[must_use]
    pub fn rdb_only(&self) -> bool {
        self.rdb_only
    }

    /// Asks for the RDB and reads which position it will have.
    ///
    /// # Errors
    /// `SourceUnavailable` for what passes by itself (loading, no link to the primary, failover, no memory
    /// for a child), `SourceAuth` when `PSYNC` is refused or unknown.
    pub async fn start(mut self) -> Result<Started> {
        self.wire.send(&[b"PSYNC", b"?", b"-1"], self.reply).await?;
        let deadline = Instant::now() + self.payload_wait;
        let line = line_before(deadline, &mut self.wire, self.stall).await?;
        let node = self.wire.node();
        if let Some(text) = line.strip_prefix('-') {
            return Err(refusal(node, "PSYNC", text));
        }
        let unexpected = || {
            let shown: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
            Error::new(Class::SourceUnavailable, format!("{node}: PSYNC: unexpected reply `{shown}`"))
        };
        let mut words = line.strip_prefix("+FULLRESYNC ").ok_or_else(unexpected)?.split(' ');
        let replid = words.next().filter(|id| id.len() == MARK_LEN).ok_or_else(unexpected)?.to_owned();
        let offset = words.next().and_then(|offset| offset.parse().ok()).ok_or_else(unexpected)?;
        let (rdb_only, stall) = (self.rdb_only, self.stall);
        let payload = Payload { wire: self.wire, deadline, stall, framing: None, ahead: BytesMut::new(), left: None };
        Ok(Started { replid, offset, rdb_only, payload })
    }
}

/// A capture that the server agreed to.
#[derive(Debug)]
pub struct Started {
    /// Id of the replication history that the RDB belongs to.
    pub replid: String,
    /// Position of the RDB in that history, in bytes.
    pub offset: u64,
    /// Whether the server keeps no stream of writes for us.
    pub rdb_only: bool,
    /// The RDB to come.
    pub payload: Payload,
}

/// How the end of a payload is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Exactly so many bytes: the server wrote a file first and sends that.
    Length(u64),
    /// Bytes up to this mark, which follows the RDB: the server's child sends what it makes.
    Mark([u8; MARK_LEN]),
}

/// The bytes of an RDB as they come. Dropping it closes the connection, and the server ends its child.
#[derive(Debug)]
pub struct Payload {
    wire: Wire,
    deadline: Instant,
    stall: Duration,
    framing: Option<Framing>,
    /// Payload bytes that came together with the header.
    ahead: BytesMut,
    /// Bytes still to come of a payload of known length.
    left: Option<u64>,
}

impl Payload {
    /// Waits, through the server's keep-alive newlines, until the payload begins, and tells its framing.
    ///
    /// # Errors
    /// `SourceUnavailable` when the server closes the connection (its child could not start, or it lost its
    /// own primary), sends nothing at all for the stall time, or does not begin before the deadline.
    pub async fn framing(&mut self) -> Result<Framing> {
        if let Some(framing) = self.framing {
            return Ok(framing);
        }
        let line = line_before(self.deadline, &mut self.wire, self.stall).await?;
        if let Some(text) = line.strip_prefix('-') {
            return Err(refusal(self.wire.node(), "PSYNC", text));
        }
        let framing = parse_framing(&line).ok_or_else(|| self.wire.lost("the payload has no header that we know"))?;
        if let Framing::Length(length) = framing {
            self.left = Some(length);
        }
        self.ahead = self.wire.take_ahead();
        self.framing = Some(framing);
        Ok(framing)
    }

    /// Appends the next bytes of the payload to `buffer`, the mark included, and returns how many. They go
    /// straight from the socket into the spare room of `buffer`, which grows by 512 KiB when it is nearly full.
    /// 0: the payload of known length is complete, or the server closed the connection; only
    /// [`check_end`](super::check_end) tells whether all is well.
    ///
    /// # Errors
    /// `SourceUnavailable` when the connection breaks or not a byte comes for the stall time.
    pub async fn next(&mut self, buffer: &mut BytesMut) -> Result<usize> {
        if self.framing.is_none() {
            self.framing().await?;
        }
        let max = self.left.unwrap_or(u64::MAX);
        let count = if self.ahead.is_empty() {
            if buffer.capacity().saturating_sub(buffer.len()) < ROOM_LEN_MIN {
                buffer.reserve(BLOCK_LEN);
            }
            self.wire.read(buffer, max, self.stall).await?
        } else {
            let count = usize::try_from(max).map_or(self.ahead.len(), |max| max.min(self.ahead.len()));
            buffer.extend_from_slice(&self.ahead.split_to(count));
            // what a server without rdb-only sends after an RDB of known length is no concern of ours
            self.ahead.clear();
            count
        };
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(count)
    }
}

async fn line_before(deadline: Instant, wire: &mut Wire, stall: Duration) -> Result<String> {
    let left = deadline.saturating_duration_since(Instant::now());
    match timeout(left, wire.line(stall)).await {
        Ok(line) => line,
        Err(_) => Err(wire
            .lost("the server did not begin to send its data in time")
            .hint("another save of the server may take long: look at rdb_bgsave_in_progress in its INFO")),
    }
}

/// The header of a payload: `$<bytes>` or `$EOF:<mark>`.
fn parse_framing(line: &str) -> Option<Framing> {
    let rest = line.strip_prefix('$')?;
    match rest.strip_prefix("EOF:") {
        Some(mark) => Some(Framing::Mark(mark.as_bytes().try_into().ok()?)),
        None => Some(Framing::Length(rest.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_headers_are_read_and_nothing_else() {
        assert_eq!(parse_framing("$178"), Some(Framing::Length(178)));
        let mark = "0123456789".repeat(4);
        assert!(matches!(parse_framing(&format!("$EOF:{mark}")), Some(Framing::Mark(_))));
        for line in ["178", "$", "$-1", "$EOF:", "$EOF:0123", "$99999999999999999999", &format!("$EOF:{mark}0")] {
            assert_eq!(parse_framing(line), None, "{line}");
        }
    }
}
