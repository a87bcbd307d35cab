//! One node as it was seen.

use ::redis::cmd;
use policies::budget::Load;
use policies::replica::{Candidate, Memory};

use super::client::Client;
use super::info::Info;
use super::migrations;
use super::source::{Address, SourceOptions};
use crate::clock;
use crate::error::Result;

/// What a node is to its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes the writes.
    Primary,
    /// It follows another node.
    Replica,
}

impl Role {
    /// `primary` or `replica`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// One node of a shard, with what it said of itself when it was asked.
#[derive(Debug, Clone)]
pub struct Node {
    /// The node id in a cluster, else `host:port` (or `unix:///path`).
    pub id: String,
    /// Where we reach it.
    pub address: Address,
    /// Host name or IP address.
    pub host: String,
    /// Port; 0 for a Unix socket.
    pub port: u16,
    /// Its role. That of a node that could not be asked is what the others said.
    pub role: Role,
    /// Why it could not be asked; everything below is then empty.
    pub unreachable: Option<String>,
    /// The id of this run of the process: changes with every start.
    pub run_id: String,
    /// `redis`, `valkey`, …
    pub engine: String,
    /// The engine's own version.
    pub version: String,
    /// A replica's link to its primary is up.
    pub link_up: bool,
    /// A full synchronisation of this replica is under way.
    pub syncing: bool,
    /// The data set is being loaded.
    pub loading: bool,
    /// A child of the server is saving or rewriting.
    pub child_running: bool,
    /// Since a replica last heard from its primary, in seconds.
    pub silence_seconds: u64,
    /// Id of the replication history.
    pub replid: String,
    /// Position in that history, in bytes: of a replica how far it applied, of a primary how far it wrote.
    pub offset: u64,
    /// Bytes of memory that the data and the server take.
    pub used_memory: u64,
    /// The most bytes of memory that it may take; 0: no limit of its own.
    pub maxmemory: u64,
    /// What it does when it reaches that limit: `noeviction`, `allkeys-lru`, …
    pub maxmemory_policy: String,
    /// What its memory looks like to a child that saves.
    pub memory: Memory,
    /// `replica-priority`: 0 is never promoted.
    pub priority: u64,
    /// The zone that it says it is in (`availability-zone` of Valkey 8 and later).
    pub zone: Option<String>,
    /// Keys in all databases.
    pub keys: u64,
    /// Libraries of functions (since Redis 7.0).
    pub libraries: u64,
    /// A failed save cannot stop this node's writes. Only asked of primaries without replicas; `None` when not
    /// asked or when `CONFIG GET` is refused.
    pub save_is_harmless: Option<bool>,
    /// How far its clock was ahead of ours, in milliseconds, when it was asked (`server_time_usec` of `INFO`).
    pub clock_ahead_ms: Option<i64>,
}

impl Node {
    /// What the choice of a node needs. `head` is the furthest offset of the shard, `history` the replication id of
    /// its primary, where they are known; without them the lag counts as 0 and any history as right.
    #[must_use]
    pub fn candidate(&self, head: Option<u64>, history: Option<&str>) -> Candidate {
        Candidate {
            id: self.id.clone(),
            primary: self.role == Role::Primary,
            unreachable: self.unreachable.clone(),
            link_up: self.link_up,
            syncing: self.syncing,
            loading: self.loading,
            child_running: self.child_running,
            lag_bytes: head.map_or(0, |offset| offset.saturating_sub(self.offset)),
            silence_seconds: self.silence_seconds,
            same_history: history.map(|history| history == self.replid),
            memory: self.memory,
            priority: self.priority,
            zone: self.zone.clone(),
            failures: 0,
            save_is_harmless: self.save_is_harmless,
            clock_ahead_ms: self.clock_ahead_ms,
        }
    }

    /// Whether `name` means this node: its id, or where it listens.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.id == name || self.address.to_string() == name
    }

    /// A node that could not be asked.
    pub(crate) fn unseen(id: String, address: Address, role: Role, why: String) -> Self {
        Self { role, unreachable: Some(why), ..Self::seen(id, address, &Info::default(), None) }
    }

    /// A node that answered.
    pub(crate) fn answered(id: String, address: Address, seen: &Seen) -> Self {
        let mut node = Self::seen(id, address, &seen.info, seen.save_is_harmless);
        node.memory.strict = seen.strict_memory;
        node.clock_ahead_ms = seen.clock_ahead_ms;
        node
    }

    /// A node that said `info`.
    pub(crate) fn seen(id: String, address: Address, info: &Info, save_is_harmless: Option<bool>) -> Self {
        let (engine, version) = info.engine();
        let replica = info.is_replica();
        Self {
            id,
            host: address.host().to_owned(),
            port: address.port(),
            address,
            role: if replica { Role::Replica } else { Role::Primary },
            unreachable: None,
            run_id: info.text("run_id").to_owned(),
            engine: engine.to_owned(),
            version: version.to_owned(),
            link_up: info.text("master_link_status") == "up",
            syncing: info.text("master_sync_in_progress") == "1",
            // async_loading: a replica that still serves its old data while it loads the new
            loading: info.text("loading") == "1" || info.text("async_loading") == "1",
            child_running: info.text("rdb_bgsave_in_progress") == "1" || info.text("aof_rewrite_in_progress") == "1",
            silence_seconds: if replica { info.number("master_last_io_seconds_ago") } else { 0 },
            replid: info.text("master_replid").to_owned(),
            offset: info.number(if replica { "slave_repl_offset" } else { "master_repl_offset" }),
            used_memory: info.number("used_memory"),
            maxmemory: info.number("maxmemory"),
            maxmemory_policy: info.text("maxmemory_policy").to_owned(),
            memory: Memory {
                resident: info.number("used_memory_rss"),
                system: info.number("total_system_memory"),
                last_copied: info.number("rdb_last_cow_size"),
                strict: None,
            },
            priority: info.number("slave_priority"),
            zone: Some(info.text("availability_zone").to_owned()).filter(|zone| !zone.is_empty()),
            keys: info.keys(),
            libraries: info.number("number_of_libraries"),
            save_is_harmless,
            clock_ahead_ms: None,
        }
    }
}

/// Everything one node was asked.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) info: Info,
    pub(crate) save_is_harmless: Option<bool>,
    /// Its own `CLUSTER NODES`, if it is a primary of a cluster and answers it.
    pub(crate) own_view: Option<String>,
    /// Migrations of slots that do not show in `CLUSTER NODES`, as far as it tells them.
    pub(crate) migrations: Vec<String>,
    /// Its machine promises no more memory than it has; known only of this machine.
    pub(crate) strict_memory: Option<bool>,
    /// How far its clock is ahead of ours, in milliseconds, less what the reply took; known where it tells its time.
    pub(crate) clock_ahead_ms: Option<i64>,
}

/// Connects to a node as `options` say.
pub(crate) async fn connect(address: &Address, options: &SourceOptions) -> Result<Client> {
    Client::connect(address, options).await
}

/// Asks a node for `INFO` and, of a primary, for what only primaries matter for.
pub(crate) async fn observe(address: &Address, options: &SourceOptions) -> Result<Seen> {
    let mut client = connect(address, options).await?;
    let text: String = client.query("INFO", &cmd("INFO")).await?;
    let info = Info::parse(&text);
    let mut seen = Seen {
        clock_ahead_ms: info.clock_ahead_ms(clock::now().timestamp_millis()),
        info,
        save_is_harmless: None,
        own_view: None,
        migrations: Vec::new(),
        strict_memory: strict_memory(address).await,
    };
    if seen.info.is_replica() {
        return Ok(seen);
    }
    if seen.info.is_cluster() {
        // Refused while loading, or by ACL: then the view of the node we began with has to do.
        seen.own_view = client.query("CLUSTER NODES", cmd("CLUSTER").arg("NODES")).await.ok();
        seen.migrations = migrations::running(&mut client, &seen.info).await;
    }
    // captures count as connected, and name no place where they could listen
    if seen.info.replicas().is_empty() {
        seen.save_is_harmless = save_is_harmless(&mut client).await;
    }
    Ok(seen)
}

/// What a node says of its memory and its child now.
pub(crate) async fn load(client: &mut Client) -> Result<Load> {
    let text: String = client.query("INFO", &cmd("INFO")).await?;
    let info = Info::parse(&text);
    Ok(Load {
        copied: info.number("current_cow_size"),
        used: info.number("used_memory"),
        resident: info.number("used_memory_rss"),
        system: info.number("total_system_memory"),
        evicted_keys: info.number("evicted_keys"),
    })
}

/// A synchronisation that writes to the server's disk and fails stops the writes of a primary with save
/// points (`MISCONF`); a diskless one never does.
async fn save_is_harmless(client: &mut Client) -> Option<bool> {
    if client.setting("repl-diskless-sync").await.ok()?? == "yes" {
        return Some(true);
    }
    Some(client.setting("save").await.ok()??.is_empty())
}

/// Whether the machine of a node refuses to promise more memory than it has, if that machine is this one.
async fn strict_memory(address: &Address) -> Option<bool> {
    if !address.is_local() {
        return None;
    }
    // absent where it is not Linux
    let mode = tokio::fs::read_to_string("/proc/sys/vm/overcommit_memory").await.ok()?;
    Some(mode.trim() == "2")
}
