//! `backupd snapshot …`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use policies::cost::Money;
use policies::replica::{self, PrimaryUse, Wishes};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::copy::{self, CopyArgs};
use super::export::{ExportArgs, export};
use super::ledger::Ledger;
use super::note::noted;
use super::output::Output;
use super::reach::{Context, RepositoryArgs, SourceArgs};
use super::verify::{self, VerifyArgs};
use super::watch::watched;
use crate::catalog::{Catalog, Location};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::jobs::{reach, submit};
use crate::progress::Progress;
use crate::repository::removal::{Despite, Removal};
use crate::repository::{Keys, Repository};
use crate::service::snapshots;
use crate::service::view::{List, SnapshotView};
use crate::snapshot::{create, method, record};

/// Snapshots.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a snapshot of a cluster of the configuration, or of any server with --source and --repository.
    Create(Box<CreateArgs>),
    /// List snapshots.
    List {
        /// Only of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// What it costs.
        #[command(flatten)]
        cost: CostArgs,
        /// Where it is.
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Show one snapshot: shards, positions, nodes and why they were chosen.
    Show {
        /// Its name.
        name: String,
        /// Where it is.
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Copy a snapshot into another repository, in whatever region, provider or folder it is; its data is never encrypted anew.
    Copy(Box<CopyArgs>),
    /// Write a snapshot as plain RDB files for other tools: `<name>-0001.rdb` and so on. They are not encrypted.
    Export(Box<ExportArgs>),
    /// Delete a snapshot: its manifest first, so that it is gone at once, then its data.
    Delete {
        /// Its name; with --broken also its id.
        name: String,
        /// Delete it although its manifest, or a note that may say that it is kept, cannot be read.
        #[arg(long)]
        broken: bool,
        /// Delete it although others were granted to read it.
        #[arg(long)]
        force: bool,
        /// Where it is.
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Keep a snapshot: it cannot be deleted until it is released.
    Keep {
        /// Its name.
        name: String,
        /// Let it go.
        #[arg(long)]
        release: bool,
        /// Where it is.
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Read a snapshot again, every byte, and check it against its manifest.
    Verify(VerifyArgs),
}

/// What storage costs.
#[derive(Debug, Args)]
pub struct CostArgs {
    /// The price of a gigabyte (2^30 bytes) for a month, such as 0.023 [default: that of the configuration].
    #[arg(long, value_name = "PRICE")]
    price_per_gb_month: Option<Money>,
    /// The oldest snapshot of each cluster costs nothing, as in ElastiCache's bill.
    #[arg(long)]
    first_snapshot_free: bool,
}

impl CostArgs {
    /// The price, and whether the first snapshot is free.
    fn of(&self, context: &Context, repository: &RepositoryArgs) -> Result<(Option<Money>, bool)> {
        let config = match context.load() {
            Ok(config) => config,
            // what needs no configuration is not stopped by one
            Err(error) if repository.is_url() => {
                tracing::warn!(error = %error, "no price is taken from the configuration");
                return Ok((self.price_per_gb_month, self.first_snapshot_free));
            }
            Err(error) => return Err(error),
        };
        let price = self.price_per_gb_month.or(config.price_per_gb_month);
        Ok((price, self.first_snapshot_free || config.first_snapshot_free))
    }
}

/// What to snapshot and how.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// A cluster of the configuration.
    #[arg(value_name = "CLUSTER", conflicts_with = "source", required_unless_present = "source")]
    cluster_name: Option<String>,
    /// The name of the snapshot; unique in its repository.
    #[arg(long)]
    name: Option<String>,
    /// The name of the cluster that an ad-hoc snapshot is of.
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "cluster_name")]
    cluster: String,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// A tag, as key=value; may be repeated.
    #[arg(long = "tag", value_name = "K=V", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// How shards are read [default: `method` in the section of the cluster, else stream].
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// For `bgsave`: where the RDB file of a node is to be read, by its id or host:port; may be repeated [default: for
    /// nodes on this machine, where the server writes it].
    #[arg(long, value_name = "NODE=PATH", value_parser = parse_data_dir)]
    data_dir: Vec<(String, PathBuf)>,
    /// Use this node (its id, or host:port) for its shard.
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// When a primary may serve: `lone` only in a shard without replicas, where that cannot stop its writes.
    #[arg(long, value_enum)]
    primary: Option<Primary>,
    /// How long to wait for a failover or a migration of slots to end, and for a node to retake a failed shard from.
    #[arg(long, value_name = "DURATION", value_parser = crate::quantity::duration)]
    settle_wait: Option<Duration>,
    /// zstd level, 1 (fast) to 19.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Leave it to the daemon: a job is put into the catalog, and its id is printed. Only for clusters of the configuration.
    #[arg(long, conflicts_with_all = ["source", "node", "primary", "settle_wait", "repository", "method", "data_dir"])]
    no_wait: bool,
}

/// How shards are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Over the replication protocol.
    Stream,
    /// The same, but each server writes its dump.rdb first and sends that: its child never waits for us.
    StreamDisk,
    /// By BGSAVE and the file that it writes, which must be readable from here.
    Bgsave,
}

impl From<Method> for replica::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Stream => Self::Stream,
            Method::StreamDisk => Self::StreamDisk,
            Method::Bgsave => Self::Bgsave,
        }
    }
}

/// When a primary may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Primary {
    /// Only in a shard without any replica, and only where a failed save cannot stop its writes.
    Lone,
    /// When no replica can serve.
    Fallback,
    /// Before any replica.
    Prefer,
    /// Never.
    Never,
}

impl From<Primary> for PrimaryUse {
    fn from(primary: Primary) -> Self {
        match primary {
            Primary::Lone => Self::OnlyHarmless,
            Primary::Fallback => Self::Fallback,
            Primary::Prefer => Self::Prefer,
            Primary::Never => Self::Never,
        }
    }
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a tag is key=value".to_owned()),
    }
}

fn parse_data_dir(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((node, path)) if !node.is_empty() && !path.is_empty() => Ok((node.to_owned(), PathBuf::from(path))),
        _ => Err("a data dir is NODE=PATH, such as 10.0.0.1:6379=/mnt/redis".to_owned()),
    }
}

/// Runs a snapshot command.
///
/// # Errors
/// Every class; see [`crate::error::Class`].
pub async fn run(command: Command, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    match command {
        Command::Create(args) => run_create(*args, context, output, cancel).await,
        Command::List { cluster, cost, repository } => {
            let snapshots = repository.reach(context)?.repository().await?.snapshots(cluster.as_deref()).await?;
            let (price, first_free) = cost.of(context, &repository)?;
            let list = List::new(snapshots, price, first_free);
            output.result(&list, List::text)
        }
        Command::Show { name, repository } => {
            let reached = repository.reach(context)?;
            let repository = reached.repository().await?;
            let view = snapshots::show(&repository, &reached.keys, &name).await?;
            output.result(&view, SnapshotView::text)
        }
        Command::Delete { name, broken, force, repository } => {
            let despite = Despite { broken, granted: force };
            let reached = repository.reach(context)?;
            let repository = reached.repository().await?;
            let ledger = Ledger::strict(reached.catalog.as_ref()).await?;
            let details = format!("from {}", repository.store().url());
            let removal = ledger.around("snapshot.delete", &name, &details, repository.delete(&name, despite)).await?;
            ledger.removed(repository.id(), &removal.snapshot_id).await;
            output.result(&removal, removal_text)
        }
        Command::Keep { name, release, repository } => {
            let reached = repository.reach(context)?;
            let repository = reached.repository().await?;
            keep(&repository, &name, !release, &reached.keys, output).await
        }
        Command::Copy(args) => Box::pin(copy::run(*args, context, output, cancel)).await,
        Command::Export(args) => export(*args, context, output, cancel).await,
        Command::Verify(args) => verify::run(args, context, output, cancel).await,
    }
}

fn removal_text(removal: &Removal) -> String {
    let left = match removal.left.as_slice() {
        [] => String::new(),
        left => format!("\nleft in its folder, since it is not ours: {}", left.join(", ")),
    };
    format!("deleted snapshot {} ({}), {} objects{left}", removal.name, removal.snapshot_id, removal.objects)
}

async fn keep(repository: &Repository, name: &str, kept: bool, keys: &Keys, output: Output) -> Result<()> {
    let (place, data_key) = repository.place_of(name, keys).await?;
    let fact = repository.keep(&place, kept, data_key.as_ref()).await?;
    let document = json!({"name": name, "kept": kept, "at": fact.at});
    let said = if kept { "is kept: it cannot be deleted" } else { "can be deleted again" };
    output.result(&document, |_| format!("snapshot {name} {said}"))
}

/// The catalog in which jobs take turns. It is no reason to make no backup when it cannot be opened.
async fn turns(location: &Location) -> Option<Catalog> {
    match Catalog::open(location).await {
        Ok(catalog) => Some(catalog),
        Err(error) => {
            tracing::warn!(error = %error, "other jobs are not seen without the catalog");
            None
        }
    }
}

/// Leaves a snapshot to the daemon.
async fn submit_create(args: CreateArgs, context: &Context, output: Output) -> Result<()> {
    let config = context.load()?;
    let cluster = args.cluster_name.unwrap_or(args.cluster);
    let name = args.name.unwrap_or_else(|| snapshots::default_name(&cluster, clock::now()));
    let catalog = Catalog::open(&config.catalog).await?;
    let parameters = submit::BackupParameters { tags: args.tags.into_iter().collect(), level: args.level };
    let id = submit::backup(&catalog, &config, &cluster, &name, &parameters).await?;
    let document = json!({"job_id": id, "name": name, "cluster": cluster, "status": "queued"});
    output.result(&document, |_| format!("job {id} makes snapshot {name}; `backupd job show {id}` says how far it is"))
}

async fn run_create(args: CreateArgs, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    if args.no_wait {
        return submit_create(args, context, output).await;
    }
    let reached = args.source.reach(context, args.cluster_name.as_deref(), &args.repository)?;
    let cluster = args.cluster_name.unwrap_or(args.cluster);
    let name = args.name.unwrap_or_else(|| snapshots::default_name(&cluster, clock::now()));
    let method = args.method.map_or(reached.method, replica::Method::from);
    if method != replica::Method::Bgsave && !args.data_dir.is_empty() {
        return Err(Error::new(Class::Usage, "--data-dir is for --method bgsave"));
    }
    let method = method::Method::new(method, reached.data_dirs.into_iter().chain(args.data_dir).collect());
    let mut tags: BTreeMap<String, String> = reached.tags;
    tags.extend(args.tags);
    let primary_use = args.primary.map_or(reached.primary_use, PrimaryUse::from);
    let options = create::Options {
        name,
        cluster,
        snapshot_id: None,
        source_kind: "manual".to_owned(),
        source: reached.source,
        wishes: Wishes { primary_use, node: args.node, zone: reached.zone },
        method,
        care: reach::care(&context.load()?.capture)?,
        turns: match &reached.catalog {
            Some(location) => turns(location).await,
            None => None,
        },
        lend: None,
        settle_wait: args.settle_wait.unwrap_or(create::SETTLE_WAIT),
        keys: reached.repository.keys.clone(),
        level: args.level,
        tags,
    };
    let progress = Arc::new(Progress::default());
    let store = reached.repository.store().await?;
    let job = create::create(Arc::clone(&store), options, Arc::clone(&progress), cancel);
    let manifest = watched(&progress, output, Box::pin(job)).await?;
    let note = async |catalog: &Catalog| record::record(catalog, store, &manifest).await;
    noted(reached.catalog.as_ref(), "the snapshot", note).await;
    output.result(&SnapshotView::from(&manifest), SnapshotView::text)
}
