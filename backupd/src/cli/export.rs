//! `backupd snapshot export …`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::output::{Output, table};
use super::reach::{Context, RepositoryArgs};
use super::restore::{SelectArgs, files_target};
use super::watch::watched;
use crate::error::Result;
use crate::nodes::Unfinished;
use crate::progress::Progress;
use crate::restore::input::Input;
use crate::restore::{self, Names, Options, Outcome, Shape, Target, Ttl};

/// What is exported, and where to.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The name of the snapshot.
    name: String,
    /// An empty folder, or `s3://bucket/prefix` with the parameters of a repository's URL.
    #[arg(long, value_name = "DIR|URL")]
    to: String,
    /// How many files, by equal slots [default: one for each shard of the snapshot].
    #[arg(long, value_name = "M")]
    shards: Option<usize>,
    /// Only this database.
    #[arg(long, value_name = "N")]
    db: Option<u64>,
    #[command(flatten)]
    select: SelectArgs,
    /// Where the files are made on their way to a bucket, in the clear [default: $TMPDIR].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    name: String,
    rdb_version: String,
    keys: u64,
    files: Vec<ExportedFile>,
}

#[derive(Debug, Serialize)]
struct ExportedFile {
    file: String,
    slots: Option<policies::slot::SlotSet>,
    keys: u64,
}

/// Exports a snapshot.
///
/// # Errors
/// As a restore; see [`crate::error::Class`].
pub async fn export(args: ExportArgs, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    let target = match args.to.parse() {
        Ok(url) => files_target(&url, args.scratch).await?,
        Err(error) if args.to.contains("://") => return Err(error),
        Err(_) => Target::Out(PathBuf::from(&args.to)),
    };
    let reached = args.repository.reach(context)?;
    let repository = reached.repository().await?;
    let opened = Box::new(repository.open_snapshot(&args.name, &reached.keys).await?);
    let options = Options {
        input: Input::Snapshot { repository, opened },
        shape: args.shards.map_or(Shape::AsBefore, Shape::Shards),
        mode: None,
        target,
        ttl: Ttl::Keep,
        db: args.db,
        verify: false,
        unfinished: Unfinished::Refuse,
        ignore_memory: false,
        select: args.select.selection(),
        names: Names::Export(args.name.clone()),
        drop: Vec::new(),
    };
    let plan = restore::plan(&options).await?;
    let progress = Arc::new(Progress::default());
    let job = Box::pin(restore::run(options, plan, Arc::clone(&progress), cancel));
    let outcome: Outcome = watched(&progress, output, job).await?;
    let file = |node: restore::target::NodeReport| ExportedFile {
        file: node.file.unwrap_or_default(),
        slots: node.slots,
        keys: node.keys,
    };
    let exported = Exported {
        name: args.name,
        rdb_version: outcome.plan.rdb_version,
        keys: outcome.keys,
        files: outcome.nodes.into_iter().map(file).collect(),
    };
    output.result(&exported, |exported| {
        let rows = exported.files.iter().map(|file| {
            let slots = file.slots.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            vec![file.file.clone(), slots, file.keys.to_string()]
        });
        format!("{}\n\n{} keys exported, in the clear", table(&["file", "slots", "keys"], rows), exported.keys)
    })
}
