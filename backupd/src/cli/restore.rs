//! `backupd restore …`

mod view;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;
use policies::slot::SlotSet;
use rdbtools::convert::LossKind;
use rdbtools::select::{Family, Glob, Selection};
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::output::Output;
use super::reach::{Context, RepositoryArgs};
use super::watch::watched;
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::launch::{Access, LaunchTls};
use crate::nodes::{Method, Unfinished};
use crate::progress::Progress;
use crate::redis::{SourceOptions, SourceUrl, Tls, discover};
use crate::restore::input::{Foreign, Input};
use crate::restore::{self, Mode, Names, Options, Shape, Target, Ttl};
use crate::secret::{self, Secret};
use crate::store::{ObjectSettings, RepositoryUrl};
use view::{outcome_text, plan_text};

/// What is restored, into which shape, and where to.
#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["name", "rdb"]))]
#[command(group = clap::ArgGroup::new("reached").multiple(true).args(["nodes", "like"]))]
#[command(group = clap::ArgGroup::new("target").required(true).args(["out", "to", "nodes", "launch"]))]
pub struct Args {
    /// The name of the snapshot.
    name: Option<String>,
    /// RDB files of other tools instead of a snapshot: paths, `-` for standard input, or `s3://bucket/prefix/file` with
    /// the parameters of a repository's URL.
    #[arg(long, value_name = "FILE|URL", num_args = 1..)]
    rdb: Vec<String>,
    #[command(flatten)]
    repository: RepositoryArgs,

    /// How many shards [default: as many as the snapshot has; one for --rdb].
    #[arg(long, value_name = "M", conflicts_with = "slots")]
    shards: Option<usize>,
    /// The slots of each shard: ranges by commas, shards by semicolons.
    #[arg(long, value_name = "RANGES;RANGES;…")]
    slots: Option<String>,
    /// The shape of this running cluster, which is only looked at; --target-… flags are for it too.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["shards", "slots"])]
    like: Option<String>,
    /// Whether the target runs in cluster mode [default: when it has several shards].
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Restore only this database; in a cluster it becomes database 0.
    #[arg(long, value_name = "N")]
    db: Option<u64>,
    #[command(flatten)]
    select: SelectArgs,
    /// What happens to expiries.
    #[arg(long, value_enum, default_value_t = Ttl::Keep)]
    ttl: Ttl,
    /// What may be left out where the engine of the target cannot hold it: field-ttls, functions, modules, key-metadata, types.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = parse_loss, conflicts_with_all = ["out", "to"])]
    drop: Vec<LossKind>,
    /// Try nodes though their `maxmemory` seems too small for what they get.
    #[arg(long, requires = "nodes")]
    ignore_memory: bool,
    /// Do not read the loaded nodes back to compare them with what was restored.
    #[arg(long, conflicts_with_all = ["out", "to"])]
    no_verify: bool,
    /// Go on where an earlier restore of the same into the same nodes or folder was cut.
    #[arg(long, conflicts_with_all = ["replace", "to"])]
    resume: bool,
    /// Remove what an earlier restore that did not end left in the nodes or the folder, and start over.
    #[arg(long, conflicts_with = "to")]
    replace: bool,
    /// Only say what would be done.
    #[arg(long)]
    plan: bool,

    /// Write an RDB file per shard, nodes.conf and a README.txt into this empty folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the same files into a bucket: `s3://bucket/prefix`, with the parameters of a repository's URL.
    #[arg(long, value_name = "URL")]
    to: Option<RepositoryUrl>,
    /// Load into these running, empty nodes; rediss://host:port or a --target-… file for TLS.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    nodes: Vec<String>,
    /// How one server without cluster mode is filled: as its primary would (`sync`: it must reach this machine), or by
    /// commands.
    #[arg(long, value_enum, default_value_t = Method::Auto, requires = "nodes")]
    method: Method,
    /// A file that holds the password of the target nodes [else: the variable BACKUPD_TARGET_PASSWORD].
    #[arg(long, value_name = "FILE", requires = "reached")]
    target_password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that signed those of the target nodes [default: those of the system].
    #[arg(long, value_name = "FILE", requires = "reached")]
    target_ca: Option<PathBuf>,
    /// Our certificate for the target nodes (PEM).
    #[arg(long, value_name = "FILE", requires = "target_key")]
    target_cert: Option<PathBuf>,
    /// The key of our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "target_cert")]
    target_key: Option<PathBuf>,
    /// The name in the certificates of the target nodes [default: each node's host].
    #[arg(long, value_name = "NAME", requires = "reached")]
    target_server_name: Option<String>,
    /// Where the shards' RDB files are put on their way to running nodes or a bucket, and what comes from standard
    /// input, in the clear [default: $TMPDIR].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Start a new local cluster in this empty folder, load it, and wait until it serves.
    #[arg(long, value_name = "DIR")]
    launch: Option<PathBuf>,
    /// Replicas per shard.
    #[arg(long, value_name = "R", default_value_t = 0, requires = "launch")]
    replicas: usize,
    /// The first port; the nodes get P, P+1, … of 127.0.0.1 [default: free ones].
    #[arg(long, value_name = "P", requires = "launch")]
    port: Option<u16>,
    /// The server program [default: redis-server or valkey-server, as the snapshot's engine].
    #[arg(long, value_name = "PATH", requires = "launch")]
    engine: Option<PathBuf>,
    /// A file with the password that the new nodes shall have; it stands in their configuration files.
    #[arg(long, value_name = "FILE", requires = "launch")]
    launch_password_file: Option<PathBuf>,
    /// The new nodes speak TLS alone: the authority (PEM) of their certificate, which also judges those of clients.
    #[arg(long, value_name = "FILE", requires_all = ["launch", "launch_cert", "launch_key"])]
    launch_ca: Option<PathBuf>,
    /// The certificate of the new nodes (PEM), for the name 127.0.0.1.
    #[arg(long, value_name = "FILE", requires = "launch_ca")]
    launch_cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "launch_ca")]
    launch_key: Option<PathBuf>,
}

/// Which keys are taken.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct SelectArgs {
    /// Only keys that fit this pattern of the command KEYS (`*`, `?`, `[a-z]`); may be repeated: one must fit.
    #[arg(long, value_name = "GLOB")]
    filter: Vec<OsString>,
    /// No keys that fit this pattern; may be repeated.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<OsString>,
    /// Only keys of these types: string, list, set, zset, hash, stream, module.
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',', value_parser = parse_family)]
    families: Vec<Family>,
    /// Only keys of these slots: ranges by commas.
    #[arg(long, value_name = "RANGES")]
    slot_range: Option<SlotSet>,
}

impl SelectArgs {
    pub(super) fn selection(self) -> Selection {
        let globs = |patterns: Vec<OsString>| patterns.iter().map(|glob| Glob::new(glob.as_bytes())).collect();
        Selection {
            include: globs(self.filter),
            exclude: globs(self.exclude),
            families: self.families,
            slots: self.slot_range,
        }
    }
}

pub(super) fn parse_loss(text: &str) -> Result<LossKind, String> {
    LossKind::REFUSED
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| format!("what can be left out is one of {}", LossKind::REFUSED.map(LossKind::name).join(", ")))
}

fn parse_family(text: &str) -> Result<Family, String> {
    Family::from_name(text).ok_or_else(|| {
        let known: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
        format!("a type is one of {}", known.join(", "))
    })
}

/// Runs a restore.
///
/// # Errors
/// Every class; see [`Class`].
pub async fn run(args: Args, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    let only_plan = args.plan;
    let (subject, details) = (args.name.clone().unwrap_or_else(|| args.rdb.join(", ")), place(&args));
    let catalog = match args.name {
        Some(_) => args.repository.reach(context)?.catalog,
        None => None,
    };
    let options = options(args, context).await?;
    let plan = restore::plan(&options).await?;
    if only_plan {
        return output.result(&plan, plan_text);
    }
    output.progress_of("plan", &plan, plan_text);
    let progress = Arc::new(Progress::default());
    let job = Box::pin(restore::run(options, plan, Arc::clone(&progress), cancel));
    let ledger = Ledger::lenient(catalog.as_ref()).await;
    let job = ledger.around("snapshot.restore", &subject, &details, watched(&progress, output, job));
    let outcome = Box::pin(job).await?;
    output.result(&outcome, outcome_text)
}

/// Where to, as it was typed.
fn place(args: &Args) -> String {
    let folder = |flag: &str, dir: &Option<PathBuf>| dir.as_ref().map(|dir| format!("{flag} {}", dir.display()));
    let bucket = || args.to.as_ref().map(|url| format!("--to {url}"));
    let place = folder("--launch", &args.launch).or_else(|| folder("--out", &args.out)).or_else(bucket);
    // a URL of a node may hold a password
    let nodes: Vec<&str> = args.nodes.iter().filter_map(|node| node.rsplit('@').next()).collect();
    place.unwrap_or_else(|| format!("--nodes {}", nodes.join(",")))
}

async fn options(args: Args, context: &Context) -> Result<Options> {
    let target = target(&args).await?;
    let select = args.select.clone().selection();
    let mut mode = args.mode;
    let shape = match (args.shards, &args.slots, &args.like) {
        (Some(count), ..) => Shape::Shards(count),
        (None, Some(text), _) => Shape::Slots(parse_slots(text)?),
        (None, None, Some(like)) => {
            let topology = discover(&reached_nodes(&args, std::slice::from_ref(like))?).await?;
            let is_cluster = topology.mode == crate::redis::Mode::Cluster;
            mode = mode.or(Some(if is_cluster { Mode::Cluster } else { Mode::Standalone }));
            Shape::Slots(topology.shards.into_iter().map(|shard| shard.slots.unwrap_or_else(SlotSet::full)).collect())
        }
        (None, None, None) => Shape::AsBefore,
    };
    let input = match args.name {
        Some(name) => {
            let reached = args.repository.reach(context)?;
            let repository = reached.repository().await?;
            let opened = Box::new(repository.open_snapshot(&name, &reached.keys).await?);
            Input::Snapshot { repository, opened }
        }
        None => {
            let mut files = Vec::new();
            if args.rdb.iter().filter(|name| *name == "-").count() > 1 {
                return Err(Error::new(Class::Usage, "standard input can be read once: give `-` once"));
            }
            let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
            for name in &args.rdb {
                files.push(Foreign::named(name, &scratch).await?);
            }
            Input::Files(files)
        }
    };
    let names = Names::Shards;
    Ok(Options {
        input,
        shape,
        mode,
        target,
        ttl: args.ttl,
        db: args.db,
        select,
        names,
        unfinished: match (args.resume, args.replace) {
            (true, _) => Unfinished::Resume,
            (_, true) => Unfinished::Replace,
            _ => Unfinished::Refuse,
        },
        now_unix_ms: clock::unix_ms(clock::now()),
        ignore_memory: args.ignore_memory,
        verify: !args.no_verify,
        drop: args.drop,
        convert_to: None,
        filled: None,
    })
}

async fn target(args: &Args) -> Result<Target> {
    if let Some(dir) = &args.launch {
        let (dir, engine) = (dir.clone(), args.engine.clone());
        let password = args.launch_password_file.as_deref().map(Secret::read).transpose()?;
        let tls = match (&args.launch_ca, &args.launch_cert, &args.launch_key) {
            (Some(ca), Some(cert), Some(key)) => {
                Some(LaunchTls { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
            }
            _ => None,
        };
        let access = Access { password, tls };
        return Ok(Target::Launch { dir, replicas: args.replicas, port: args.port, engine, access });
    }
    if let Some(dir) = &args.out {
        return Ok(Target::Out(dir.clone()));
    }
    if let Some(url) = &args.to {
        return Target::files(url, args.scratch.clone(), ObjectSettings::default()).await;
    }
    let nodes = reached_nodes(args, &args.nodes)?;
    Ok(Target::Nodes { options: Box::new(nodes), scratch: args.scratch.clone(), method: args.method })
}

/// How the nodes are reached that the user named.
fn reached_nodes(args: &Args, names: &[String]) -> Result<SourceOptions> {
    let identity = args.target_cert.clone().zip(args.target_key.clone());
    let tls = Tls { ca: args.target_ca.clone(), identity, server_name: args.target_server_name.clone() };
    let scheme = if tls == Tls::default() { "redis" } else { "rediss" };
    let seed = |node: &String| match node.contains("://") {
        true => node.parse::<SourceUrl>(),
        false => format!("{scheme}://{node}").parse(),
    };
    let mut nodes = SourceOptions::new(names.iter().map(seed).collect::<Result<Vec<_>>>()?);
    nodes.tls = tls;
    nodes.password = match &args.target_password_file {
        Some(path) => Some(Secret::read(path)?),
        None => secret::of_variable("BACKUPD_TARGET_PASSWORD")?,
    };
    Ok(nodes)
}

fn parse_slots(text: &str) -> Result<Vec<SlotSet>> {
    let usage = |error: policies::slot::SlotError| Error::new(Class::Usage, error.to_string());
    text.split(';').map(|ranges| ranges.parse().map_err(usage)).collect()
}
