//! Where a restore goes: files, a new local cluster, or running nodes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use policies::slot::SlotSet;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use rdbtools::convert::Loss;
use rdbtools::split::Ttl;

use super::bucket;
use super::content::Expected;
use super::convert;
use super::launching;
use super::mark::{self, Mark};
use super::plan::refusals::Refusals;
use super::plan::{Plan, PlannedShard};
use super::split::{self, Made, Unsynced, unwritable};
use super::verify::{self, Loaded, Verified};
use super::{Names, Options, Outcome, Target};
use crate::error::Result;
use crate::launch::{self, PlannedNode, nodes_conf};
use crate::nodes::{self, LoadProgress, LoadedNode, Method, ShardFile};
use crate::pipeline::Meter;
use crate::progress::Progress;
use crate::redis::SourceOptions;
use crate::store::Store;

/// A node that serves, or a file that was written.
#[derive(Debug, Clone, Serialize)]
pub struct NodeReport {
    /// Its host; empty for a file.
    pub host: String,
    /// Its port; 0 for a file.
    pub port: u16,
    /// `primary` or `replica`.
    pub role: String,
    /// Its slots; `null` without cluster mode.
    pub slots: Option<SlotSet>,
    /// Its keys.
    pub keys: u64,
    /// The file, for `--out`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

pub(super) async fn run(
    options: Options,
    plan: Plan,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let making = Making { ttl: split::ttl(&options)?, progress, cancel };
    match options.target.clone() {
        Target::Out(dir) => to_files(&options, plan, &dir, making).await,
        Target::Store { store, scratch } => to_store(&options, plan, &store, scratch.as_deref(), making).await,
        Target::Launch { .. } => {
            let launch = launching::launch_plan(&options, &plan)?;
            Box::pin(launching::run(&options, plan, launch, making)).await
        }
        Target::Nodes { options: nodes, scratch, method } => {
            to_nodes(&options, plan, (&nodes, method), scratch.as_deref(), making).await
        }
    }
}

/// What all ways of making files have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Making<'a> {
    /// What becomes of expiries.
    pub(super) ttl: Ttl,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
}

async fn to_files(options: &Options, plan: Plan, dir: &Path, making: Making<'_>) -> Result<Outcome> {
    let mark = Mark::begin(dir, options.unfinished)?;
    let (made, losses, _) = match make_files(options, &plan, dir, making).await {
        Ok(files) => files,
        Err(error) => {
            mark.abandon();
            return Err(error);
        }
    };
    write_companions(dir, &options.names, &plan, &made)?;
    // what bears no mark any more survives a power failure
    Unsynced::of(&made)?.sync().await?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| unwritable(dir, &error))?;
    mark.end()?;
    let report = |made: &Made| made.path.display().to_string();
    let nodes = file_reports(&plan, &made, report);
    Ok(Outcome { losses, ..outcome(plan, nodes, &made) })
}

/// The files are made in a private folder first, so that nothing is uploaded unless all inputs were whole.
async fn to_store(
    options: &Options,
    plan: Plan,
    store: &Arc<dyn Store>,
    scratch: Option<&Path>,
    making: Making<'_>,
) -> Result<Outcome> {
    let names = all_names(options, &plan);
    bucket::check_free(store, &names, options.unfinished).await?;
    let folder = scratch_folder(scratch)?;
    let (made, losses, _) = make_files(options, &plan, folder.path(), making).await?;
    write_companions(folder.path(), &options.names, &plan, &made)?;
    making.progress.phase("uploading");
    let Making { progress, cancel, .. } = making;
    bucket::upload(store, folder.path(), &names, options.unfinished, (progress, cancel)).await?;
    let base = store.url();
    let base = base.split('?').next().unwrap_or_default().trim_end_matches('/');
    let report = |made: &Made| {
        let name = made.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{base}/{name}")
    };
    let nodes = file_reports(&plan, &made, report);
    Ok(Outcome { losses, ..outcome(plan, nodes, &made) })
}

/// A private folder, removed when it is dropped: the data is in the clear there.
fn scratch_folder(scratch: Option<&Path>) -> Result<tempfile::TempDir> {
    let base = scratch.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let folder = tempfile::Builder::new().prefix("backupd-restore-").tempdir_in(&base);
    folder.map_err(|error| unwritable(&base, &error))
}

/// Splits the inputs, and converts the files whose engines do not read them.
pub(super) async fn make_files(
    options: &Options,
    plan: &Plan,
    dir: &Path,
    Making { ttl, progress, cancel }: Making<'_>,
) -> Result<(Vec<Made>, Vec<Loss>, Option<Expected>)> {
    progress.phase("splitting");
    let (made, mut expected) = split::run(options, plan, ttl, dir, progress, cancel).await?;
    if plan.converted_to.iter().any(Option::is_some) {
        progress.phase("converting");
    }
    let (made, losses) = convert::run(made, &plan.converted_to, (&options.drop, options.now_unix_ms), cancel).await?;
    // what was left out is not to be found either
    if let Some(expected) = expected.as_mut().filter(|_| !losses.is_empty()) {
        for (index, made) in made.iter().enumerate() {
            expected.take_file(index, &made.path).await?;
        }
    }
    Ok((made, losses, expected))
}

async fn to_nodes(
    options: &Options,
    plan: Plan,
    (source, method): (&SourceOptions, Method),
    scratch: Option<&Path>,
    mut making: Making<'_>,
) -> Result<Outcome> {
    let Making { progress, cancel, .. } = making;
    let mut target = nodes::Target::inspect_for(source, plan.id.clone(), options.unfinished).await?;
    target.method = method;
    // nodes that have all of their keys keep them as they are
    making.ttl = target.noted_shift_ms().map_or(making.ttl, Ttl::Shift);
    target.shift_ms = if let Ttl::Shift(by) = making.ttl { Some(by) } else { None };
    let folder = scratch_folder(scratch)?;
    let (made, losses, expected) = make_files(options, &plan, folder.path(), making).await?;
    let files: Vec<ShardFile> = plan
        .shards
        .iter()
        .zip(&made)
        .map(|(shard, made)| ShardFile {
            slots: shard.slots.clone(),
            rdb: made.path.clone(),
            survey: made.survey.clone(),
        })
        .collect();
    let rows = Rows::default();
    let shown = |step: LoadProgress| {
        if let LoadProgress::Loading { shard, keys, bytes } = &step {
            let total = made.get(*shard).map(|made| made.bytes);
            rows.of(progress, &format!("load shard {shard}"), total).passed(*bytes, *keys);
        }
        progress.phase(describe_load(&step));
    };
    let loaded = nodes::load(&target, &files, source, &shown, cancel).await?;
    let verified = match &expected {
        None => None,
        Some(expected) => tokio::select! {
            verified = verify_loaded(&target, &files, expected, source, progress) => Some(verified?),
            () = cancel.cancelled() => return Err(nodes::interrupted().hint(nodes::HALF_FULL)),
        },
    };
    let report = |node: LoadedNode| NodeReport {
        host: node.host,
        port: node.port,
        role: "primary".to_owned(),
        slots: node.slots,
        keys: node.keys,
        file: None,
    };
    let outcome = Outcome { losses, verified, ..outcome(plan, loaded.into_iter().map(report).collect(), &made) };
    options.note(&outcome).await?;
    nodes::finish(&target, &files, source).await?;
    Ok(outcome)
}

async fn verify_loaded(
    target: &nodes::Target,
    files: &[ShardFile],
    expected: &Expected,
    source: &SourceOptions,
    progress: &Progress,
) -> Result<Verified> {
    let nodes = target.nodes.iter().zip(files);
    let nodes = nodes.map(|(node, file)| Loaded { address: node.address.clone(), slots: file.slots.clone() });
    verify::run(expected, nodes.collect(), source, progress).await
}

/// Rows of progress, made when they are first moved.
#[derive(Debug, Default)]
pub(super) struct Rows(Mutex<HashMap<String, Arc<Meter>>>);

impl Rows {
    pub(super) fn of(&self, progress: &Progress, label: &str, total_bytes: Option<u64>) -> Arc<Meter> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rows.entry(label.to_owned()).or_insert_with(|| progress.row(label, total_bytes)))
    }
}

fn describe_load(step: &LoadProgress) -> String {
    match step {
        LoadProgress::Surveying => "reading the shards once".to_owned(),
        LoadProgress::Joining => "joining the nodes".to_owned(),
        LoadProgress::Loading { .. } => "sending the keys".to_owned(),
    }
}

pub(super) fn outcome(plan: Plan, nodes: Vec<NodeReport>, made: &[Made]) -> Outcome {
    let keys = made.iter().map(|made| made.keys).sum();
    let expired = made.iter().map(|made| made.expired).sum();
    Outcome { plan, nodes, keys, expired, losses: Vec::new(), verified: None }
}

fn file_reports(plan: &Plan, made: &[Made], file: impl Fn(&Made) -> String) -> Vec<NodeReport> {
    let report = |(shard, made): (&PlannedShard, &Made)| NodeReport {
        host: String::new(),
        port: 0,
        role: "primary".to_owned(),
        slots: shard.slots.clone(),
        keys: made.keys,
        file: Some(file(made)),
    };
    plan.shards.iter().zip(made).map(report).collect()
}

/// Adds every reason why the target cannot take what is planned; nothing is touched.
pub(super) async fn refusals(options: &Options, plan: &Plan, refusals: &mut Refusals) {
    match &options.target {
        Target::Out(dir) => {
            refusals.take(mark::check(dir, options.unfinished));
        }
        Target::Store { store, .. } => {
            refusals.take(bucket::check_free(store, &all_names(options, plan), options.unfinished).await);
        }
        Target::Launch { dir, .. } => {
            refusals.take(mark::check(dir, options.unfinished));
            if let Some(launch) = refusals.take(launching::launch_plan(options, plan)) {
                launch::refusals(&launch).await.into_iter().for_each(|error| refusals.add(error));
            }
        }
        Target::Nodes { .. } => {}
    }
}

/// The names of all files that are made.
fn all_names(options: &Options, plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = plan.shards.iter().map(|shard| options.names.file(shard.index)).collect();
    names.extend(companions(&options.names, plan).iter().map(ToString::to_string));
    names
}

/// The names of what stands beside the RDB files.
fn companions(names: &Names, plan: &Plan) -> &'static [&'static str] {
    match names {
        Names::Export(_) => &[],
        Names::Shards if plan.is_cluster() => &["nodes.conf", "README.txt"],
        Names::Shards => &["README.txt"],
    }
}

/// Writes what stands beside the RDB files.
fn write_companions(dir: &Path, names: &Names, plan: &Plan, made: &[Made]) -> Result<()> {
    if companions(names, plan).is_empty() {
        return Ok(());
    }
    let write = |name: &str, text: String| {
        let path: PathBuf = dir.join(name);
        std::fs::write(&path, text).map_err(|error| unwritable(&path, &error))
    };
    let mut readme = String::from("RDB files made by `backupd restore`, one per shard.\n\n");
    for (shard, made) in plan.shards.iter().zip(made) {
        let slots = shard.slots.as_ref().map_or_else(|| "all keys".to_owned(), |slots| format!("slots {slots}"));
        let (file, keys, bytes) = (names.file(shard.index), made.keys, made.bytes);
        // writing to a String cannot fail
        let _infallible = writeln!(readme, "{file}: {slots}, {keys} keys, {bytes} bytes");
    }
    readme.push_str(HOW_TO_START);
    if plan.is_cluster() {
        readme.push_str(HOW_TO_JOIN);
        write("nodes.conf", nodes_conf(&template(plan)?, usize::MAX))?;
    }
    write("README.txt", readme)
}

const HOW_TO_START: &str = "
To start a server from a file: stop the server, put the file into its data folder under the name that
its setting `dbfilename` has (dump.rdb), make it the server user's own, and start it with `appendonly no`.
";

const HOW_TO_JOIN: &str = "
To start the cluster: nodes.conf is a template with one line per shard, in the order of the files. For each
node copy it into the node's data folder, replace 127.0.0.1:PORT@BUSPORT by the real addresses of all nodes,
and write `myself,master` instead of `master` in the node's own line. Put its shard's file beside it as
dump.rdb and start the node with `cluster-enabled yes` and `appendonly no`. Do not start a node without its
nodes.conf: it would take only the slots that hold keys.
";

/// The nodes of the template: addresses are to be replaced.
fn template(plan: &Plan) -> Result<Vec<PlannedNode>> {
    let first_port: u16 = 7000;
    let nodes = plan.shards.iter().zip(0..).map(|(shard, index)| {
        let port = first_port.saturating_add(index);
        Ok(PlannedNode {
            id: launch::new_node_id()?,
            host: "127.0.0.1".to_owned(),
            port,
            bus_port: port.saturating_add(launch::BUS_OFFSET),
            follows: None,
            slots: shard.slots.clone().unwrap_or_default(),
            epoch: u64::from(index) + 1,
        })
    });
    nodes.collect()
}
