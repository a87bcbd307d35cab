//! Loads RDB files into running empty nodes: `restore --nodes host:port,…`.
//!
//! The nodes are one standalone server, a formed cluster (whose own slots are then the plan), or servers in
//! cluster mode that do not know each other yet (they get the planned slots and are joined). Each key is sent
//! with `RESTORE`, its value as it stands in the file, short strings with `MSETNX` where the node allows it; functions with `FUNCTION LOAD`. Some connections per
//! node, and no value is held: memory is that of what is under way, which is bounded, however large a value is.
//!
//! | module | does |
//! |---|---|
//! | `inspect` | what the nodes are, and whether they are empty |
//! | `eviction` | sets aside that a node evicts keys, and puts it back |
//! | `fill` | what is done to one node, from its mark to the last key |
//! | `limits` | how long a value a node takes, and lets it take a longer one |
//! | `mark` | marks nodes that are not full yet |
//! | `join` | makes a cluster of nodes that do not know each other |
//! | `primary` | gives a file to one server without cluster mode as its primary would |
//! | `survey` | what is in a file, before anything is written: seen while the file is made, or read for it |
//! | `commands` | turns a file into `RESTORE` commands |
//! | `groups` | puts short strings together that one command makes |
//! | `parts` | turns values that no `RESTORE` carries into commands for their parts |
//! | `batch` | commands on their way |
//! | `send` | gives them to connections |
//! | `lane` | one connection: sends, and checks every reply |
//! | `refusal` | what replies mean |

mod batch;
mod commands;
mod eviction;
mod fill;
mod groups;
mod inspect;
mod join;
mod lane;
mod limits;
mod mark;
mod parts;
mod primary;
mod refusal;
mod send;
mod survey;

use std::collections::VecDeque;
use std::path::PathBuf;

use policies::engine::Engine;
use policies::slot::SlotSet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Class, Error, Result};
use crate::launch::{check_format, rdb_format};
use crate::redis::{Address, Node, SourceOptions, connect};
use crate::task_failed;
use mark::Mark;
pub use mark::Unfinished;
pub(crate) use mark::key as mark_key;
use send::Sent;
pub use survey::{Survey, Surveying};

/// How many nodes are loaded at the same time.
const LOADED_AT_ONCE: usize = 8;
/// The type byte of a string in an RDB.
const STRING_TYPE: u8 = 0;
/// How many files are read at the same time to know what is in them.
const SURVEYED_AT_ONCE: usize = 4;

/// How a server without cluster mode is filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// As its primary would, where it can reach us; else by `RESTORE`.
    #[default]
    Auto,
    /// As its primary would, or not at all.
    Sync,
    /// By `RESTORE`, key by key.
    Restore,
}

/// What the nodes are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One server without cluster mode.
    Standalone,
    /// A cluster that serves every slot.
    Formed,
    /// Servers in cluster mode that do not know each other and have no slots.
    Unjoined,
}

/// Where a restore goes: nodes that were looked at and found empty.
#[derive(Debug, Clone)]
pub struct Target {
    /// What they are to each other.
    pub form: Form,
    /// The primaries that take the data, in the order of their slots (or as given).
    pub nodes: Vec<Node>,
    /// The slots of each node of a formed cluster; for the others the plan decides.
    pub slots: Option<Vec<SlotSet>>,
    /// The engines of the nodes.
    pub engines: Vec<Engine>,
    /// What an earlier restore left on each node.
    marks: Vec<Option<Mark>>,
    /// Names this restore on the nodes.
    restore: String,
    unfinished: Unfinished,
    /// How a standalone server is filled.
    pub method: Method,
    /// By how many ms the expiries were moved of what it gets, where they were.
    pub shift_ms: Option<i64>,
}

impl Target {
    /// Looks at the nodes that `options` name: the seeds are the nodes of `--nodes`.
    ///
    /// # Errors
    /// `Refused` when a node is not empty (naming it and how many keys it holds), is a replica, or the nodes are
    /// neither one standalone, nor a whole cluster, nor cluster nodes that know nobody; `SourceUnavailable`
    /// and `SourceAuth` as for a source.
    pub async fn inspect(options: &SourceOptions) -> Result<Self> {
        Self::inspect_for(options, String::new(), Unfinished::Refuse).await
    }

    /// The same for a restore that bears a name, and may go on with what it left unfinished.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub async fn inspect_for(options: &SourceOptions, restore: String, unfinished: Unfinished) -> Result<Self> {
        inspect::inspect(options, restore, unfinished).await
    }

    /// What a node says while it is not finished.
    fn mark(&self, index: usize, is_sent: bool) -> Mark {
        let (eviction, shift_ms) = (self.eviction(index), self.shift_ms);
        Mark { restore: self.restore.clone(), is_sent, eviction, loading: None, shift_ms }
    }

    /// By how many ms expiries were moved by the restore that goes on, so that nodes which have all of their keys can keep them.
    #[must_use]
    pub fn noted_shift_ms(&self) -> Option<i64> {
        let own = |mark: &&Mark| self.unfinished == Unfinished::Resume && mark.restore == self.restore;
        self.marks.iter().flatten().filter(own).find_map(|mark| mark.shift_ms)
    }

    /// How a node evicts keys when no restore fills it, where that is to be set aside.
    fn eviction(&self, index: usize) -> Option<String> {
        let found = self.marks.get(index).and_then(Option::as_ref);
        self.nodes.get(index).and_then(|node| eviction::of(node, found))
    }
}

/// Whether the node that `options` name could be taken by a restore: it is empty, follows nobody, and belongs to no cluster. The inner
/// answer is whether it is in cluster mode, or why it cannot be taken.
///
/// # Errors
/// `SourceUnavailable` and `SourceAuth` as for a source.
pub async fn look(options: &SourceOptions) -> Result<Result<bool, String>> {
    inspect::look(options).await
}

/// What one node is to hold.
#[derive(Debug, Clone)]
pub struct ShardFile {
    /// Its slots; `None` without cluster mode.
    pub slots: Option<SlotSet>,
    /// The RDB file with its keys.
    pub rdb: PathBuf,
    /// What it holds, where that was seen while it was made; else it is read for it.
    pub survey: Option<Survey>,
}

/// What a load is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadProgress {
    /// The files are read to know what is in them.
    Surveying,
    /// The nodes are joined to a cluster.
    Joining,
    /// A node has taken so many keys.
    Loading {
        /// Index of the shard.
        shard: usize,
        /// Keys that the node confirmed.
        keys: u64,
        /// Bytes of commands that it took.
        bytes: u64,
    },
}

/// One node that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedNode {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its slots; `None` without cluster mode.
    pub slots: Option<SlotSet>,
    /// How many keys it holds.
    pub keys: u64,
}

/// Loads one file into each node of `target`, in their order, and counts what the nodes then hold. They stay marked as
/// unfinished until [`finish`] is called.
///
/// Keys whose time is over are left out. All files are read and checked before anything is written; when
/// something fails later, or `cancel` ends it, the nodes hold a part of the data, and the error says so. Settings that
/// were changed on the way are put back first.
///
/// # Errors
/// `Refused` when the files do not fit the nodes, hold what `RESTORE` cannot carry (data of modules outside keys,
/// values above the server's limit) or a mark of ours, or a key is there already; `Version` when a node cannot take a file's
/// values; `Verification` when a file is damaged or a node holds another number of keys than it was sent;
/// `SourceUnavailable` and `SourceAuth` when a node leaves or refuses us.
pub async fn load(
    target: &Target,
    files: &[ShardFile],
    options: &SourceOptions,
    progress: &(dyn Fn(LoadProgress) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Vec<LoadedNode>> {
    check_plan(target, files)?;
    let surveys = tokio::select! {
        surveys = surveys(target, files, progress) => surveys?,
        () = cancel.cancelled() => return Err(interrupted()),
    };
    if target.form == Form::Unjoined {
        progress(LoadProgress::Joining);
        let slots: Vec<SlotSet> = files.iter().map(|file| file.slots.clone().unwrap_or_default()).collect();
        tokio::select! {
            joined = join::join(&target.nodes, &slots, options) => joined?,
            () = cancel.cancelled() => return Err(interrupted()),
        }
    }
    send_all(target, files, surveys, options, progress, cancel).await.map_err(|error| {
        let advice = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
        error.hint(format!("{advice}{HALF_FULL}"))
    })
}

/// Reads all files, and refuses what the nodes cannot get.
async fn surveys(
    target: &Target,
    files: &[ShardFile],
    progress: &(dyn Fn(LoadProgress) + Send + Sync),
) -> Result<Vec<Survey>> {
    progress(LoadProgress::Surveying);
    let mut todo = files.iter().zip(&target.nodes).zip(&target.engines);
    let (mut surveys, mut reading) = (Vec::with_capacity(files.len()), VecDeque::new());
    loop {
        while reading.len() < SURVEYED_AT_ONCE
            && let Some(((file, node), engine)) = todo.next()
        {
            let (file, address, engine, form) = (file.clone(), node.address.clone(), engine.clone(), target.form);
            let read = async move { survey_one(file, &address, &engine, form).await };
            reading.push_back(AbortOnDropHandle::new(tokio::spawn(read)));
        }
        let Some(first) = reading.pop_front() else { return Ok(surveys) };
        surveys.push(first.await.map_err(task_failed)??);
    }
}

async fn survey_one(file: ShardFile, address: &Address, engine: &Engine, form: Form) -> Result<Survey> {
    let format = rdb_format(&file.rdb).await?;
    check_format(engine, format).map_err(|error| error.at(format!("{address}: {}", file.rdb.display())))?;
    let survey = match file.survey {
        Some(survey) => survey,
        None => survey::survey(file.rdb.clone(), file.slots).await?,
    };
    if survey.is_marked {
        let message = format!("{}: its source was a node that a restore had not finished", file.rdb.display());
        return Err(Error::new(Class::Refused, message)
            .hint(format!("--exclude '{}*' leaves out the mark of that restore", mark::PREFIX)));
    }
    // a standalone server may get what no command carries
    match survey.refused.clone().filter(|_| form != Form::Standalone) {
        Some(message) => Err(Error::new(Class::Refused, message).hint("restore with --launch or --out instead")),
        None => Ok(survey),
    }
}

pub(crate) fn interrupted() -> Error {
    Error::new(Class::Unforeseen, "interrupted while the nodes were being loaded")
}

/// What to do with nodes that a restore did not finish.
pub const HALF_FULL: &str = "the nodes may hold a part of the data now, and are marked so: run it again with --resume to \
                             go on, or with --replace to empty them first";

/// Removes the marks: the nodes hold what they should. Nodes that evict keys do so again.
///
/// # Errors
/// `SourceUnavailable` and `SourceAuth` when a node leaves or refuses us.
pub async fn finish(target: &Target, files: &[ShardFile], options: &SourceOptions) -> Result<()> {
    let nodes = target.nodes.iter().zip(files).map(|(node, file)| (node.address.clone(), file.slots.clone()));
    unmark(&nodes.collect::<Vec<_>>(), options).await
}

/// The same for nodes with these slots that were filled by somebody who is gone. One that bears no mark is left as it is.
///
/// # Errors
/// As [`finish`].
pub async fn unmark(nodes: &[(Address, Option<SlotSet>)], options: &SourceOptions) -> Result<()> {
    for (address, slots) in nodes {
        let (mut client, key) = (connect(address, options).await?, mark_key(slots.as_ref()));
        let Some(mark) = mark::read(&mut client, &key).await? else { continue };
        eviction::put_back(&mark, &mut client).await.map_err(|error| error.at(address))?;
        mark::remove(&mut client, &key).await?;
    }
    Ok(())
}

fn check_plan(target: &Target, files: &[ShardFile]) -> Result<()> {
    let refused = |message: String| Err(Error::new(Class::Refused, message));
    if files.len() != target.nodes.len() {
        return refused(format!("{} shards cannot go to {} nodes", files.len(), target.nodes.len()));
    }
    let cluster = target.form != Form::Standalone;
    if files.iter().any(|file| file.slots.is_some() != cluster) {
        return refused("shards with slots go to a cluster, one without to a standalone server".to_owned());
    }
    for ((file, owned), node) in files.iter().zip(target.slots.iter().flatten()).zip(&target.nodes) {
        if file.slots.as_ref() != Some(owned) {
            return refused(format!("{} serves the slots {owned}, which is not the plan for it", node.address));
        }
    }
    Ok(())
}

async fn send_all(
    target: &Target,
    files: &[ShardFile],
    surveys: Vec<Survey>,
    options: &SourceOptions,
    progress: &(dyn Fn(LoadProgress) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Vec<LoadedNode>> {
    let (told, mut tells) = tokio::sync::mpsc::channel(64);
    let mut todo = target.nodes.iter().zip(files).zip(surveys).enumerate();
    let mut tasks: JoinSet<Result<(usize, LoadedNode)>> = JoinSet::new();
    let mut loaded: Vec<(usize, LoadedNode)> = Vec::new();
    let (stop, mut failure) = (cancel.child_token(), None);
    loop {
        while failure.is_none()
            && tasks.len() < LOADED_AT_ONCE
            && let Some((index, ((node, file), survey))) = todo.next()
        {
            let (node, file, options, told) = (node.clone(), file.clone(), options.clone(), told.clone());
            let (target, stop) = (target.clone(), stop.clone());
            tasks.spawn(async move {
                let place = format!("shard {index}");
                let keys = fill::fill(&target, (&node, &file), survey, &options, (index, told), &stop).await;
                let keys = keys.map_err(|error| error.at(place))?;
                Ok((index, LoadedNode { host: node.host, port: node.port, slots: file.slots, keys }))
            });
        }
        tokio::select! {
            Some(Sent { shard, keys, bytes }) = tells.recv() => progress(LoadProgress::Loading { shard, keys, bytes }),
            done = tasks.join_next() => match done.map(|done| done.map_err(task_failed).and_then(|done| done)) {
                Some(Ok(node)) => loaded.push(node),
                Some(Err(error)) => {
                    // the others end too, when each has put back what it changed
                    stop.cancel();
                    failure.get_or_insert(error);
                }
                None => break,
            },
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    loaded.sort_by_key(|(index, _)| *index);
    Ok(loaded.into_iter().map(|(_, node)| node).collect())
}
