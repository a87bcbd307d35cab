//! Starts a new local cluster, or one standalone server, from RDB files: `restore --launch DIR`.
//!
//! Every node gets its own folder below `DIR` with its RDB file, its `redis.conf` and, in a cluster, a
//! `nodes.conf` that already knows all nodes and slots. So nothing is assigned or introduced while the nodes run:
//! primaries load their own file, are counted, and only then the replicas start and synchronise. The nodes
//! stay alive when the program ends; `DIR/stop.sh` stops them and `DIR/start.sh` starts them again.

mod access;
mod engine;
mod feed;
mod folder;
mod join;
mod loading;
mod nodes_conf;
mod ports;
mod process;
mod started;

use std::path::{Path, PathBuf};

use policies::slot::SlotSet;

pub use access::{Access, LaunchTls};
pub use engine::{check_format, default_program, probe_engine, rdb_format};
pub use feed::{Growing, has_pipes};
pub use folder::{UNFINISHED, claim_dir};
pub use loading::Loading;
pub use nodes_conf::{PlannedNode, new_node_id, nodes_conf};
pub use ports::{BUS_OFFSET, are_free};
pub use started::Started;

use crate::error::{Class, Error, Result};
use crate::redis::Role;
use folder::NodeConf;
use ports::Ports;

/// The most nodes of one launch: each is a process of this machine.
pub const NODES_MAX: usize = 256;

/// What is to be started.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    /// The folder for everything: absent, empty, or taken by [`claim_dir`] before.
    pub dir: PathBuf,
    /// `redis-server` or `valkey-server`: a path, or a name to look for in `PATH`.
    pub engine: PathBuf,
    /// Nodes listen on this port and those after it, primaries first; `None`: on free ports.
    pub first_port: Option<u16>,
    /// The shards. A cluster when they have slots, which then cover every slot once.
    pub shards: Vec<ShardPlan>,
    /// Replicas of each primary.
    pub replicas: usize,
    /// More settings for every node, as lines of a configuration file.
    pub settings: Vec<String>,
    /// Who may enter.
    pub access: Access,
}

/// One shard of a launch.
#[derive(Debug, Clone)]
pub struct ShardPlan {
    /// Its slots; `None` for the one shard of a standalone.
    pub slots: Option<SlotSet>,
    /// Its RDB file, which is moved into the folder of its node.
    pub rdb: PathBuf,
    /// How many keys the file holds.
    pub keys: u64,
    /// How many of them have an expiry: so many may be gone when the server has loaded it.
    pub expires: u64,
}

/// What a launch is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchProgress {
    /// A node was started.
    Started {
        /// Its port.
        port: u16,
    },
    /// A node loads its file.
    Loading {
        /// Its port.
        port: u16,
        /// Bytes of the file loaded so far.
        loaded_bytes: u64,
        /// Bytes of the file.
        total_bytes: u64,
    },
    /// A node holds its data.
    Loaded {
        /// Its port.
        port: u16,
        /// How many keys it holds.
        keys: u64,
    },
    /// All nodes run; we wait until each agrees that the cluster is whole.
    Joining,
    /// Everything serves.
    Serving,
}

/// One node that was launched and serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchedNode {
    /// `127.0.0.1`.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its role.
    pub role: Role,
    /// The slots of its shard; `None` for a standalone.
    pub slots: Option<SlotSet>,
    /// How many keys it holds.
    pub keys: u64,
    /// Its process.
    pub pid: u32,
}

/// Every reason why a launch could not work; nothing is made.
pub async fn refusals(plan: &LaunchPlan) -> Vec<Error> {
    let shape = check_shape(plan);
    let engine = probe_engine(&plan.engine).await.map(drop);
    let access = plan.access.lines(0).map(drop);
    let ports = match &shape {
        Ok(()) => ports::reserve(plan.first_port, node_count(plan), is_cluster(plan)).map(drop),
        Err(_) => Ok(()),
    };
    [shape, engine, access, ports].into_iter().filter_map(Result::err).collect()
}

/// Starts everything and waits until it serves: every file loaded and counted, every slot served by exactly
/// the planned node, every replica in step. The nodes are returned primaries first, in the order of the shards.
///
/// On failure every process that was started is killed; files and logs stay where they are.
///
/// # Errors
/// `Refused` for a folder that is not empty, a port that is taken, or slots that do not fit; `Config` for an
/// engine that cannot be run; `Version` for a file that the engine cannot load; `Verification` when a node
/// holds other keys than its file; `Unforeseen`, with the end of its log, when a node dies or stands still.
pub async fn launch(plan: LaunchPlan, progress: &(dyn Fn(LaunchProgress) + Sync)) -> Result<Vec<LaunchedNode>> {
    start(plan, progress).await?.finish(progress).await
}

/// The first half of [`launch()`]: the primaries run and hold their files. What is dropped before its end is killed.
///
/// # Errors
/// As [`launch()`].
pub async fn start(plan: LaunchPlan, progress: &(dyn Fn(LaunchProgress) + Sync)) -> Result<Started> {
    let prepared = prepare(plan, true).await?;
    let dir = prepared.plan.dir.clone();
    folder::end_staging(&dir);
    let started = Started::spawn(prepared, progress).map_err(|error| with_logs(error, &dir))?;
    started.wait_loaded(progress).await
}

/// As [`start`], for files that are still being written: the primaries load what is there of them.
///
/// # Errors
/// As [`launch()`], and `Refused` where the folder's file system has no pipes.
pub async fn start_loading(
    plan: LaunchPlan,
    files: Vec<Growing>,
    progress: &(dyn Fn(LaunchProgress) + Sync),
) -> Result<Loading> {
    Loading::begin(prepare(plan, false).await?, files, progress)
}

/// A launch before its first process: its folders are made.
#[derive(Debug)]
struct Prepared {
    plan: LaunchPlan,
    nodes: Vec<PlannedNode>,
    folders: Vec<PathBuf>,
}

/// Makes the folders; the files are whole, or will come through pipes.
async fn prepare(mut plan: LaunchPlan, is_whole: bool) -> Result<Prepared> {
    folder::check_empty(&plan.dir, true)?;
    check_shape(&plan)?;
    let engine = probe_engine(&plan.engine).await?;
    let ports = ports::reserve(plan.first_port, node_count(&plan), is_cluster(&plan))?;
    for shard in plan.shards.iter().filter(|_| is_whole) {
        let format = rdb_format(&shard.rdb).await?;
        check_format(&engine, format).map_err(|error| error.at(shard.rdb.display()))?;
    }
    let nodes = planned_nodes(&plan, &ports)?;
    plan.dir = folder::make(&plan.dir)?;
    let folders = write_folders(&plan, &nodes, is_whole)?;
    Ok(Prepared { plan, nodes, folders })
}

/// Says where to look, unless the error gives better advice.
fn with_logs(error: Error, dir: &Path) -> Error {
    match error.advice() {
        Some(_) => error,
        None => error.hint(format!("everything was stopped; the logs are {}/node-*/{}", dir.display(), folder::LOG)),
    }
}

fn is_cluster(plan: &LaunchPlan) -> bool {
    plan.shards.iter().any(|shard| shard.slots.is_some())
}

fn node_count(plan: &LaunchPlan) -> usize {
    plan.shards.len().saturating_mul(plan.replicas.saturating_add(1))
}

fn check_shape(plan: &LaunchPlan) -> Result<()> {
    let count = node_count(plan);
    if count == 0 || count > NODES_MAX {
        return Err(Error::new(
            Class::Refused,
            format!("{count} nodes were asked for: 1 to {NODES_MAX} can be launched"),
        ));
    }
    if !is_cluster(plan) {
        return match plan.shards.len() {
            1 => Ok(()),
            count => Err(Error::new(Class::Refused, format!("{count} shards have no slots"))),
        };
    }
    let slots: Vec<SlotSet> = plan.shards.iter().map(|shard| shard.slots.clone().unwrap_or_default()).collect();
    policies::shards::check_cover(&slots).map_err(|error| Error::new(Class::Refused, error.to_string()))
}

/// All primaries, then for each primary its replicas.
fn planned_nodes(plan: &LaunchPlan, ports: &Ports) -> Result<Vec<PlannedNode>> {
    let mut nodes: Vec<PlannedNode> = Vec::new();
    let mut ports = ports.ports.iter().copied();
    let mut node = |follows: Option<String>, slots: SlotSet, epoch: usize| -> Result<PlannedNode> {
        let port = ports.next().ok_or_else(|| Error::new(Class::Unforeseen, "fewer ports than nodes"))?;
        Ok(PlannedNode {
            id: new_node_id()?,
            host: "127.0.0.1".to_owned(),
            port,
            bus_port: port.saturating_add(BUS_OFFSET),
            follows,
            slots,
            epoch: u64::try_from(epoch).unwrap_or(u64::MAX),
        })
    };
    for (index, shard) in plan.shards.iter().enumerate() {
        nodes.push(node(None, shard.slots.clone().unwrap_or_default(), index + 1)?);
    }
    let primaries: Vec<String> = nodes.iter().map(|node| node.id.clone()).collect();
    for (index, primary) in primaries.iter().enumerate() {
        for _ in 0..plan.replicas {
            nodes.push(node(Some(primary.clone()), SlotSet::empty(), index + 1)?);
        }
    }
    Ok(nodes)
}

/// Writes the folder of every node, with its file or a pipe; returns the folders in the order of the nodes.
fn write_folders(plan: &LaunchPlan, nodes: &[PlannedNode], is_whole: bool) -> Result<Vec<PathBuf>> {
    let dir = &plan.dir;
    let cluster = is_cluster(plan);
    let primary_port = nodes.first().map_or(0, |node| node.port);
    let mut folders = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let folder = folder::make(&dir.join(format!("node-{}", node.port)))?;
        let mut settings = plan.settings.clone();
        if node.follows.is_some() && !cluster {
            settings.push(format!("replicaof 127.0.0.1 {primary_port}"));
        }
        let access = plan.access.lines(node.port)?;
        let conf = NodeConf { dir: &folder, access: &access, cluster, settings: &settings };
        folder::write_private(&folder.join(folder::CONF), &folder::redis_conf(&conf))?;
        let mut files = Vec::new();
        if cluster {
            files.push(("nodes.conf", nodes_conf(nodes, index)));
        }
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| folder::refused(&path, &error))?;
        }
        match plan.shards.get(index) {
            Some(shard) if is_whole => folder::move_file(&shard.rdb, &folder.join(folder::DUMP))?,
            Some(_) => feed::make_pipe(&folder.join(folder::DUMP))?,
            None => {}
        }
        folders.push(folder);
    }
    folder::write_scripts(dir, &plan.engine, &folders)?;
    Ok(folders)
}
