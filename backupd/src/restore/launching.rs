//! A restore to a new local cluster.
//!
//! The primaries load what is split while it is split, where their engine reads it as it is. An RDB ends when every input
//! was proven, so none of them serves anything before. What has to be converted is loaded when it was.

use std::path::{Path, PathBuf};

use rdbtools::convert::Loss;
use tokio_util::task::AbortOnDropHandle;

use super::content::Expected;
use super::mark::Mark;
use super::plan::{Plan, engine_path};
use super::split::{Made, Unsynced};
use super::target::{Making, NodeReport, Rows, make_files, outcome};
use super::verify::{self, Loaded, Verified};
use super::{Options, Outcome, Target};
use crate::error::{Class, Error, Result};
use crate::launch::{self, Growing, LaunchPlan, LaunchProgress, LaunchedNode, Loading, ShardPlan};
use crate::progress::Progress;
use crate::task_failed;

/// What is launched; the files of the shards are not made yet.
pub(super) fn launch_plan(options: &Options, plan: &Plan) -> Result<LaunchPlan> {
    let Target::Launch { dir, replicas, port, engine, access } = &options.target else {
        return Err(Error::new(Class::Unforeseen, "the target is no launch"));
    };
    let shards = plan.shards.iter().map(|shard| ShardPlan {
        slots: shard.slots.clone(),
        rdb: PathBuf::new(),
        keys: 0,
        expires: 0,
    });
    Ok(LaunchPlan {
        dir: dir.clone(),
        engine: engine_path(options, engine.as_ref(), plan.version),
        first_port: *port,
        shards: shards.collect(),
        replicas: *replicas,
        settings: Vec::new(),
        access: access.clone(),
    })
}

pub(super) async fn run(options: &Options, plan: Plan, mut launch: LaunchPlan, making: Making<'_>) -> Result<Outcome> {
    let Making { progress, cancel, .. } = making;
    let mark = Mark::begin(&launch.dir, options.unfinished)?;
    let staging = launch::claim_dir(&launch.dir)?;
    let rows = Rows::default();
    let shown = |step: LaunchProgress| {
        if let LaunchProgress::Loading { port, loaded_bytes, total_bytes } = &step {
            rows.of(progress, &format!("node {port}"), Some(*total_bytes)).passed(*loaded_bytes, 0);
        }
        progress.phase(describe(&step));
    };
    let files = match make(options, &plan, &launch, &staging, making, &shown).await {
        Ok(files) => files,
        Err(Fault::Input(error)) => {
            // nothing has served, so the folder becomes what it was
            mark.abandon();
            return Err(error);
        }
        Err(Fault::Server(error)) => return Err(error),
    };
    let Files { made, losses, expected, loading } = files;
    // while the servers load and are compared
    let syncing = AbortOnDropHandle::new(tokio::spawn(Unsynced::of(&made)?.sync()));
    let shards = launch.shards.iter().zip(&made).map(|(shard, made)| ShardPlan {
        rdb: made.path.clone(),
        keys: made.keys,
        expires: made.expires,
        ..shard.clone()
    });
    let shards: Vec<ShardPlan> = shards.collect();
    let launching = async {
        let started = match loading {
            Some(loading) => {
                let sized = shards.into_iter().zip(&made).map(|(shard, made)| (shard, made.bytes));
                loading.finish(sized.collect(), &shown).await?
            }
            None => {
                launch.shards = shards;
                launch::start(launch, &shown).await?
            }
        };
        let verified = match &expected {
            Some(expected) => Some(verify_started(&started, expected, progress).await?),
            None => None,
        };
        Ok::<_, Error>((started.finish(&shown).await?, verified))
    };
    let (nodes, verified) = tokio::select! {
        launched = launching => launched?,
        () = cancel.cancelled() => return Err(Error::new(Class::Unforeseen, "interrupted while the cluster was being started")),
    };
    let report = |node: LaunchedNode| NodeReport {
        host: node.host,
        port: node.port,
        role: node.role.as_str().to_owned(),
        slots: node.slots,
        keys: node.keys,
        file: None,
    };
    let outcome = Outcome { losses, verified, ..outcome(plan, nodes.into_iter().map(report).collect(), &made) };
    syncing.await.map_err(task_failed)??;
    options.note(&outcome).await?;
    mark.end()?;
    Ok(outcome)
}

/// Why there are no files.
enum Fault {
    /// An input, the folder, or an interrupt: nothing has served.
    Input(Error),
    /// A server did not take what it was given: its folder tells more.
    Server(Error),
}

/// The files of the shards, and the primaries that load them already.
struct Files {
    made: Vec<Made>,
    losses: Vec<Loss>,
    expected: Option<Expected>,
    loading: Option<Loading>,
}

async fn make(
    options: &Options,
    plan: &Plan,
    launch: &LaunchPlan,
    staging: &Path,
    making: Making<'_>,
    shown: &(dyn Fn(LaunchProgress) + Sync),
) -> Result<Files, Fault> {
    let as_it_is = plan.converted_to.iter().all(Option::is_none);
    let mut loading = None;
    if as_it_is && launch::has_pipes(staging) {
        let growing = |index| Growing {
            partial: staging.join(options.names.partial(index)),
            whole: staging.join(options.names.file(index)),
        };
        let files = (0..launch.shards.len()).map(growing).collect();
        loading = Some(launch::start_loading(launch.clone(), files, shown).await.map_err(Fault::Input)?);
    }
    let stop = making.cancel.child_token();
    let files = make_files(options, plan, staging, Making { cancel: &stop, ..making });
    let mut files = std::pin::pin!(files);
    let files = match &mut loading {
        None => files.await,
        Some(loading) => tokio::select! {
            files = &mut files => files,
            error = loading.failure() => {
                stop.cancel();
                // whoever reads and splits ends before we do; what he says of that is no news
                files.await.ok();
                return Err(Fault::Server(error));
            }
        },
    };
    let (made, losses, expected) = files.map_err(Fault::Input)?;
    Ok(Files { made, losses, expected, loading })
}

async fn verify_started(started: &launch::Started, expected: &Expected, progress: &Progress) -> Result<Verified> {
    let primaries = started.primaries();
    let nodes = primaries.iter().map(|(address, slots)| Loaded { address: address.clone(), slots: slots.clone() });
    started.without_sync_delay(verify::run(expected, nodes.collect(), started.options(), progress)).await
}

fn describe(step: &LaunchProgress) -> String {
    match step {
        LaunchProgress::Started { port } => format!("node {port} started"),
        LaunchProgress::Loading { port, loaded_bytes, total_bytes } => {
            let percent = (loaded_bytes * 100).checked_div(*total_bytes).unwrap_or(0);
            format!("node {port} loads its file: {percent} %")
        }
        LaunchProgress::Loaded { port, keys } => format!("node {port} holds {keys} keys"),
        LaunchProgress::Joining => "waiting until the cluster is whole".to_owned(),
        LaunchProgress::Serving => "the cluster serves".to_owned(),
    }
}
