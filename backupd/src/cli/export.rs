//! `backupd snapshot export …`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rdbtools::convert::{Loss, LossKind, Target as ConvertTarget};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::output::{Output, table};
use super::reach::{Context, RepositoryArgs};
use super::restore::{SelectArgs, parse_loss};
use super::watch::watched;
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::nodes::Unfinished;
use crate::progress::Progress;
use crate::restore::input::Input;
use crate::restore::{self, Names, Options, Outcome, Shape, Target, Ttl};
use crate::store::{ObjectSettings, RepositoryUrl};

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
    /// The engine that is to read the files, such as redis-6.2 or valkey-8, when it is an older or another one than that of the
    /// snapshot.
    #[arg(long = "for", visible_alias = "convert-to", value_name = "ENGINE")]
    engine: Option<ConvertTarget>,
    /// What may be left out where that engine cannot hold it: field-ttls, functions, modules, key-metadata, types.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = parse_loss, requires = "engine")]
    drop: Vec<LossKind>,
    /// The canned ACL of the objects, such as bucket-owner-full-control.
    #[arg(long, value_name = "ACL", conflicts_with = "grant_read")]
    acl: Option<String>,
    /// Who else may read the objects: id=CANONICAL-ID, as ElastiCache's and MemoryDB's seeding asks for in old regions.
    #[arg(long, value_name = "GRANTEE")]
    grant_read: Option<String>,
    /// How the store encrypts the objects: AES256 (which ElastiCache reads) or aws:kms.
    #[arg(long, value_name = "ALGORITHM")]
    sse: Option<String>,
    /// The key of aws:kms.
    #[arg(long, value_name = "ARN", requires = "sse")]
    sse_kms_key_id: Option<String>,
    /// Where the files are made on their way to a bucket, in the clear [default: $TMPDIR].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// What everybody who exports is told.
const WARNING: &str = "the exported files are not encrypted by backupd: whoever can read them can read every key";

fn only_buckets() -> Error {
    Error::new(Class::Usage, "--acl, --grant-read and --sse are for buckets").hint("--to s3://bucket/prefix")
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    name: String,
    rdb_version: String,
    keys: u64,
    /// Never: other tools are to read it.
    encrypted: bool,
    warning: &'static str,
    /// What the engine that it was made for cannot hold and was left out.
    losses: Vec<Loss>,
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
    let settings = ObjectSettings {
        acl: args.acl,
        grant_read: args.grant_read,
        sse: args.sse,
        sse_kms_key_id: args.sse_kms_key_id,
    };
    let target = match args.to.parse() {
        Ok(RepositoryUrl::Folder(_)) if settings != ObjectSettings::default() => return Err(only_buckets()),
        Ok(url) => Target::files(&url, args.scratch, settings).await?,
        Err(error) if args.to.contains("://") => return Err(error),
        Err(_) if settings != ObjectSettings::default() => return Err(only_buckets()),
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
        now_unix_ms: clock::unix_ms(clock::now()),
        ignore_memory: false,
        select: args.select.selection(),
        names: Names::Export(args.name.clone()),
        drop: args.drop,
        convert_to: args.engine,
        filled: None,
    };
    let plan = restore::plan(&options).await?;
    output.progress(&format!("warning: {WARNING}"));
    let progress = Arc::new(Progress::default());
    let job = Box::pin(restore::run(options, plan, Arc::clone(&progress), cancel));
    let ledger = Ledger::lenient(reached.catalog.as_ref()).await;
    let details = format!("--to {}", args.to);
    let job = ledger.around("snapshot.export", &args.name, &details, watched(&progress, output, job));
    let outcome: Outcome = Box::pin(job).await?;
    let file = |node: restore::target::NodeReport| ExportedFile {
        file: node.file.unwrap_or_default(),
        slots: node.slots,
        keys: node.keys,
    };
    let exported = Exported {
        name: args.name,
        rdb_version: match outcome.plan.converted_to.iter().flatten().next() {
            Some(target) => target.version().to_string(),
            None => outcome.plan.rdb_version,
        },
        keys: outcome.keys,
        encrypted: false,
        warning: WARNING,
        losses: outcome.losses,
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
