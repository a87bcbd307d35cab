//! Restores a snapshot into a target of the configuration, as a job.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use policies::job::Step;
use policies::slot::SlotSet;
use rdbtools::select::{Family, Glob, Selection};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::work::Held;
use super::{about, export, reach, said, target};
use crate::catalog::{Catalog, Code, JobRow, NewEvent};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::nodes::{self, Unfinished};
use crate::redis::Address;
use crate::restore::input::{Foreign, Input};
use crate::restore::{self, Filled, Mode, Names, Options, Outcome, Shape, Target, Ttl};

/// The most shards of a new cluster.
const SHARDS_MAX: usize = policies::shards::SHARDS_MAX;

/// What was asked for besides the snapshot.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// The name of a section `[targets.NAME]`.
    pub target: String,
    /// What the new cluster is called.
    pub name: String,
    /// How many shards.
    pub shards: Option<usize>,
    /// Or the slots of each.
    pub slots: Vec<String>,
    /// `standalone` or `cluster`; cluster when there are several shards.
    pub mode: Option<String>,
    /// `keep`, `shift` or `drop`: what happens to expiries.
    pub ttl: String,
    /// Replicas per shard, where servers are started.
    pub replicas: usize,
    /// Only this database.
    pub db: Option<u64>,
    /// Only keys that fit one of these patterns.
    pub filter: Vec<String>,
    /// No keys that fit one of these.
    pub exclude: Vec<String>,
    /// Only keys of these types.
    pub types: Vec<String>,
    /// What may be left out where the engine of the target cannot hold it.
    pub drop: Vec<String>,
    /// RDB files of the places of the configuration, as URLs, instead of a snapshot.
    pub seeds: Vec<String>,
}

impl Parameters {
    fn shape(&self) -> Result<Shape> {
        let wrong = |error: policies::slot::SlotError| Error::new(Class::Usage, error.to_string());
        match (self.shards, self.slots.as_slice()) {
            (Some(_), [_, ..]) => Err(Error::new(Class::Usage, "give shards or slots, not both")),
            (Some(count), []) if (1..=SHARDS_MAX).contains(&count) => Ok(Shape::Shards(count)),
            (Some(_), []) => Err(Error::new(Class::Usage, format!("shards are from 1 to {SHARDS_MAX}"))),
            (None, []) => Ok(Shape::AsBefore),
            (None, slots) if slots.len() <= SHARDS_MAX => Ok(Shape::Slots(
                slots.iter().map(|text| text.parse::<SlotSet>().map_err(wrong)).collect::<Result<_>>()?,
            )),
            (None, _) => Err(Error::new(Class::Usage, format!("there can be at most {SHARDS_MAX} shards"))),
        }
    }

    fn mode(&self) -> Result<Option<Mode>> {
        match self.mode.as_deref() {
            None => Ok(None),
            Some("cluster") => Ok(Some(Mode::Cluster)),
            Some("standalone") => Ok(Some(Mode::Standalone)),
            Some(other) => Err(Error::new(Class::Usage, format!("`{other}` is no mode: cluster or standalone"))),
        }
    }

    fn ttl(&self) -> Result<Ttl> {
        match self.ttl.as_str() {
            "" | "keep" => Ok(Ttl::Keep),
            "shift" => Ok(Ttl::Shift),
            "drop" => Ok(Ttl::Drop),
            other => Err(Error::new(Class::Usage, format!("`{other}` is no rule for expiries: keep, shift or drop"))),
        }
    }

    fn selection(&self) -> Result<Selection> {
        let globs = |patterns: &[String]| patterns.iter().map(|glob| Glob::new(glob.as_bytes())).collect();
        let family = |name: &String| {
            Family::from_name(name).ok_or_else(|| {
                let known = Family::ALL.map(|family| family.name()).join(", ");
                Error::new(Class::Usage, format!("`{name}` is no type")).hint(format!("one of {known}"))
            })
        };
        let families = self.types.iter().map(family).collect::<Result<_>>()?;
        Ok(Selection { include: globs(&self.filter), exclude: globs(&self.exclude), families, slots: None })
    }

    /// Whether all of it means something.
    ///
    /// # Errors
    /// `Usage`, and `NotFound` for a target that the configuration does not name.
    pub fn check(&self, config: &crate::config::Config) -> Result<()> {
        config.target(&self.target)?;
        policies::names::check("cluster", &self.name).map_err(|error| Error::new(Class::Usage, error.to_string()))?;
        self.shape()?;
        self.mode()?;
        self.ttl()?;
        self.selection()?;
        export::losses(&self.drop).map(drop)
    }

    /// How many nodes are needed when there were so many shards before, and whether they are to be in cluster mode.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn need(&self, before: usize) -> Result<target::Need> {
        let shards = match self.shape()? {
            Shape::AsBefore => before,
            Shape::Shards(count) => count,
            Shape::Slots(slots) => slots.len(),
        };
        let cluster = match self.mode()? {
            Some(mode) => Some(mode == Mode::Cluster),
            None if shards > 1 => Some(true),
            None => None,
        };
        Ok(target::Need { shards, replicas: self.replicas, cluster })
    }

    /// All that a restore of `input` into `target` needs to know.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn options(&self, input: Input, target: Target, unfinished: Unfinished) -> Result<Options> {
        Ok(Options {
            input,
            shape: self.shape()?,
            mode: self.mode()?,
            target,
            ttl: self.ttl()?,
            db: self.db,
            select: self.selection()?,
            names: Names::Shards,
            unfinished,
            now_unix_ms: clock::unix_ms(clock::now()),
            ignore_memory: false,
            verify: true,
            drop: export::losses(&self.drop)?,
            convert_to: None,
            filled: None,
        })
    }
}

async fn input(held: &Held, parameters: &Parameters) -> Result<Input> {
    if parameters.seeds.is_empty() {
        let (repository, keys) = reach::repository(&held.config, &held.row.repository).await?;
        let opened = Box::new(repository.open_snapshot(&held.row.snapshot_name, &keys).await?);
        return Ok(Input::Snapshot { repository, opened });
    }
    let mut files = Vec::new();
    for seed in &parameters.seeds {
        files.push(Foreign::named(seed, &std::env::temp_dir()).await?);
    }
    Ok(Input::Files(files))
}

/// Notes in the catalog what a restore made.
#[derive(Debug)]
struct Noting {
    catalog: Catalog,
    row: JobRow,
    name: String,
    folder: Option<PathBuf>,
}

#[async_trait]
impl Filled for Noting {
    async fn note(&self, outcome: &Outcome) -> Result<()> {
        let made = json!({
            "name": self.name, "mode": outcome.plan.mode, "nodes": outcome.nodes, "keys": outcome.keys,
            "expired": outcome.expired, "losses": outcome.losses, "verified": outcome.verified, "folder": self.folder,
        });
        self.catalog.note_result(&self.row, &made.to_string()).await
    }
}

/// What was noted of a restore: its nodes, and the folder of servers that were started.
#[derive(Debug, Deserialize)]
struct Made {
    nodes: Vec<MadeNode>,
    keys: u64,
    folder: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct MadeNode {
    host: String,
    port: u16,
    role: String,
    slots: Option<SlotSet>,
}

impl Made {
    fn primaries(&self) -> impl Iterator<Item = &MadeNode> {
        self.nodes.iter().filter(|node| node.role == "primary")
    }
}

pub(super) async fn run(held: &mut Held) -> Result<Vec<NewEvent>> {
    let parameters: Parameters = super::parameters(&held.row)?;
    held.begin(Step::Restore, "").await?;
    // an attempt before this one that noted what it made had done everything else
    match noted(held).await? {
        Some(made) => finish(held, &parameters, &made).await?,
        None => fill(held, &parameters).await?,
    }
    let made = noted(held).await?.ok_or_else(|| Error::new(Class::Unforeseen, "the restore noted nothing"))?;
    let nodes: Vec<String> = made.primaries().map(|node| format!("{}:{}", node.host, node.port)).collect();
    said::filled(&held.config, &held.catalog, &held.row.job_id, &nodes).await?;
    held.begin(Step::Record, "").await?;
    let what = if held.row.snapshot_name.is_empty() {
        "RDB files".to_owned()
    } else {
        format!("snapshot {}", held.row.snapshot_name)
    };
    let message =
        format!("{what} was restored into {} ({} nodes, {} keys)", parameters.name, made.nodes.len(), made.keys);
    Ok(vec![about(&held.row, Code::RestoreSucceeded, message)])
}

/// What this job, in whichever attempt, noted that it made.
async fn noted(held: &Held) -> Result<Option<Made>> {
    let result = held.catalog.job(&held.row.job_id).await?.result;
    if result == "{}" {
        return Ok(None);
    }
    let unreadable = |error| Error::new(Class::Unforeseen, format!("what the restore noted cannot be read: {error}"));
    serde_json::from_str(&result).map(Some).map_err(unreadable)
}

/// Takes the marks away from what an attempt filled that is gone.
async fn finish(held: &Held, parameters: &Parameters, made: &Made) -> Result<()> {
    if let Some(folder) = &made.folder {
        return restore::finish_folder(folder);
    }
    let section = held.config.target(&parameters.target)?;
    let nodes: Vec<_> =
        made.primaries().map(|node| (Address::tcp(&node.host, node.port), node.slots.clone())).collect();
    nodes::unmark(&nodes, &target::options(section, Vec::new())?).await
}

async fn fill(held: &mut Held, parameters: &Parameters) -> Result<()> {
    let input = input(held, parameters).await?;
    // what the attempt before this one began in is emptied and used again
    let unfinished = if held.row.attempts > 1 { Unfinished::Replace } else { Unfinished::Refuse };
    held.progress.phase("looking for nodes");
    // files of other tools do not say what wrote them
    let (before, engine) = match input.manifest() {
        Some(manifest) => (manifest.shards.len(), manifest.engine.clone()),
        None => (1, "redis".to_owned()),
    };
    let need = parameters.need(before)?;
    let section = held.config.target(&parameters.target)?.clone();
    let wanted = target::Wanted { section: &section, need, name: &parameters.name, engine: &engine };
    let target = target::take(&held.catalog, &held.row.job_id, wanted).await?;
    let folder: Option<PathBuf> = if let Target::Launch { dir, .. } = &target { Some(dir.clone()) } else { None };
    let noting = Noting { catalog: held.catalog.clone(), row: held.row.clone(), name: parameters.name.clone(), folder };
    let options = Options { filled: Some(Box::new(noting)), ..parameters.options(input, target, unfinished)? };
    let plan = restore::plan(&options).await?;
    restore::run(options, plan, Arc::clone(&held.progress), held.cancel.clone()).await.map(drop)
}
