//! From a snapshot, or from foreign RDB files, to a new cluster.
//!
//! Everything that can be refused is refused before anything is touched: [`plan()`]. Then the inputs are read one
//! after another, checked, and split by slot into one RDB file per target shard ([`split`]); only when every
//! input proved whole are the files given their names, loaded or left for the user.

mod bucket;
pub mod content;
mod convert;
pub mod input;
mod launching;
mod mark;
pub mod plan;
pub mod split;
pub mod target;
pub mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use policies::slot::SlotSet;
use rdbtools::convert::{Loss, LossKind, Target as ConvertTarget};
use rdbtools::select::Selection;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::launch::Access;
use crate::nodes::{Method, Unfinished};
use crate::progress::Progress;
use crate::redis::SourceOptions;
use crate::store::{ObjectSettings, RepositoryUrl, S3Store, Store};
use input::Input;
use plan::Plan;
use target::NodeReport;
use verify::Verified;

/// What is restored, and how.
#[derive(Debug)]
pub struct Options {
    /// A snapshot's shards, or foreign files.
    pub input: Input,
    /// How many shards, or which slots each gets.
    pub shape: Shape,
    /// `standalone` or `cluster`, where the user said so.
    pub mode: Option<Mode>,
    /// Where to.
    pub target: Target,
    /// What happens to expiries.
    pub ttl: Ttl,
    /// Only this database; in a cluster it becomes database 0.
    pub db: Option<u64>,
    /// Only these keys.
    pub select: Selection,
    /// What files are called.
    pub names: Names,
    /// What becomes of a target that an earlier restore left unfinished.
    pub unfinished: Unfinished,
    /// The time that files are dated with, ms since 1970: with the same one they have the same bytes.
    pub now_unix_ms: u64,
    /// Nodes are tried though they seem to lack memory.
    pub ignore_memory: bool,
    /// Whether loaded nodes are read back and compared.
    pub verify: bool,
    /// What may be left out when the engine of the target cannot hold it.
    pub drop: Vec<LossKind>,
    /// The engine that files are made for; that of the snapshot when not said. Servers are asked instead.
    pub convert_to: Option<ConvertTarget>,
    /// Who is told when nodes or servers hold all of it, before their marks go.
    pub filled: Option<Box<dyn Filled>>,
}

/// Notes that a restore is done but for the marks: whoever goes on after a crash then knows that what bears none is not a stranger's.
#[async_trait]
pub trait Filled: std::fmt::Debug + Send + Sync {
    /// Everything is there and was verified.
    ///
    /// # Errors
    /// When it cannot be noted: the marks stay then.
    async fn note(&self, outcome: &Outcome) -> Result<()>;
}

impl Options {
    async fn note(&self, outcome: &Outcome) -> Result<()> {
        match &self.filled {
            Some(filled) => filled.note(outcome).await,
            None => Ok(()),
        }
    }
}

/// Takes the mark from a folder whose servers were noted to hold everything; one that has none is as good.
///
/// # Errors
/// When it cannot be removed.
pub fn finish_folder(dir: &Path) -> Result<()> {
    mark::finish(dir)
}

/// What the RDB files of the shards are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// `shard-0000.rdb`, with `nodes.conf` and `README.txt` beside them.
    Shards,
    /// `<name>-0001.rdb`, as exports of ElastiCache are called, and nothing beside them.
    Export(String),
}

impl Names {
    /// The name of a shard's file.
    #[must_use]
    pub fn file(&self, index: usize) -> String {
        match self {
            Self::Shards => format!("shard-{index:04}.rdb"),
            Self::Export(name) => format!("{name}-{:04}.rdb", index + 1),
        }
    }

    /// Its name while it is not whole.
    fn partial(&self, index: usize) -> String {
        format!("{}.partial", self.file(index))
    }
}

/// The shape of the new cluster.
#[derive(Debug, Clone)]
pub enum Shape {
    /// As the snapshot was; one shard for foreign files.
    AsBefore,
    /// So many shards of equal slots.
    Shards(usize),
    /// These slots.
    Slots(Vec<SlotSet>),
}

/// Whether the target runs in cluster mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// One server without cluster mode.
    Standalone,
    /// Cluster mode.
    Cluster,
}

/// What happens to expiries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ttl {
    /// They stay the moments they were.
    Keep,
    /// They move by the time since the snapshot, so that keys live as much longer as they had left.
    Shift,
    /// They are removed.
    Drop,
}

/// Where a restore goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// RDB files in a folder.
    Out(PathBuf),
    /// RDB files in a bucket.
    Store {
        /// The bucket and prefix.
        store: Arc<dyn Store>,
        /// Where the files are made, in the clear; the system's folder for temporary files when not said.
        scratch: Option<PathBuf>,
    },
    /// A new local cluster.
    Launch {
        /// Its folder.
        dir: PathBuf,
        /// Replicas per shard.
        replicas: usize,
        /// The first port; free ones are looked for when there is none.
        port: Option<u16>,
        /// The server program; found by the engine's name when there is none.
        engine: Option<PathBuf>,
        /// Who may enter.
        access: Access,
    },
    /// Running empty nodes.
    Nodes {
        /// Which, and how to enter them.
        options: Box<SourceOptions>,
        /// Where the shards' files are put on their way; the system's folder for temporary files when not said.
        scratch: Option<PathBuf>,
        /// How a standalone server is filled.
        method: Method,
    },
}

impl Target {
    /// RDB files in a bucket, or in the folder that a `file://` URL names.
    ///
    /// # Errors
    /// What the store says.
    pub async fn files(url: &RepositoryUrl, scratch: Option<PathBuf>, settings: ObjectSettings) -> Result<Self> {
        match url {
            RepositoryUrl::Folder(dir) => Ok(Self::Out(dir.clone())),
            RepositoryUrl::Bucket(url) => {
                let store = S3Store::open(url, None).await?.with_settings(settings);
                Ok(Self::Store { store: Arc::new(store), scratch })
            }
        }
    }
}

/// What a restore did.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    /// What was planned.
    pub plan: Plan,
    /// The nodes that serve now, or the files, one per shard.
    pub nodes: Vec<NodeReport>,
    /// Keys that were written, expired ones among them.
    pub keys: u64,
    /// Of these, keys that had expired when the restore began; servers drop them while they load.
    pub expired: u64,
    /// What the engine of the target cannot hold and was left out.
    pub losses: Vec<Loss>,
    /// What was read back and compared; `null` where nothing was loaded, or this was not asked for.
    pub verified: Option<Verified>,
}

/// Plans a restore: says everything that would happen, or every reason why it cannot.
///
/// # Errors
/// `Refused` for what the target forbids, `Version`, and what reading the inputs' headers says.
pub async fn plan(options: &Options) -> Result<Plan> {
    Plan::make(options).await
}

/// Runs a restore as [`plan()`] planned it for the same options.
///
/// # Errors
/// As [`plan()`]; `Verification` and `Key` for the inputs; nothing serves and no file is named unless all inputs were whole.
pub async fn run(options: Options, plan: Plan, progress: Arc<Progress>, cancel: CancellationToken) -> Result<Outcome> {
    let Input::Snapshot { repository, opened } = &options.input else {
        return target::run(options, plan, &progress, &cancel).await;
    };
    // whoever would remove the snapshot sees that it is being read
    let lease = repository.lease(&opened.place, "restore").await?;
    let outcome = target::run(options, plan, &progress, &cancel).await;
    lease.release().await;
    outcome
}
