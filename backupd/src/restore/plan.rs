//! What a restore will do, or every reason why it cannot.

mod losses;
mod picks;
pub(in crate::restore) mod refusals;
mod shape;
mod shares;

use std::path::PathBuf;

use policies::engine::RdbFormat;
use policies::slot::SlotSet;
use rdbtools::convert::{LossKind, Target as ConvertTarget};
use rdbtools::{Magic, RdbVersion};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::input::PartInfo;
use super::{Mode, Options, Target, convert, target};
use crate::error::{Class, Error, Result};
use crate::launch::{self, probe_engine};
use crate::nodes;
use crate::pipeline::pick::Pick;
use crate::pipeline::wanted::Wanted;
use refusals::Refusals;

/// The plan of a restore.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// `standalone` or `cluster`.
    pub mode: String,
    /// The inputs in the order in which they are read.
    pub inputs: Vec<PlannedInput>,
    /// The target shards.
    pub shards: Vec<PlannedShard>,
    /// Format and version of the RDB files that are made.
    pub rdb_version: String,
    /// Keys in all inputs, where that is known beforehand.
    pub keys: Option<u64>,
    /// How many of them expire at some time; those whose time is over are not found afterwards.
    pub expires: Option<u64>,
    /// RDB bytes in all inputs.
    pub bytes: Option<u64>,
    /// How long it will take, in seconds, by what was measured on one machine: an estimate.
    pub seconds: Option<u64>,
    /// What each shard's file is converted to, because its node does not read [`rdb_version`](Self::rdb_version).
    pub converted_to: Vec<Option<ConvertTarget>>,
    /// What conversions will leave out, as far as the manifest tells.
    pub losses: Vec<PlannedLoss>,
    /// What else is to be known before.
    pub notes: Vec<String>,
    /// Names this restore: the same inputs, shape and rules have the same.
    #[serde(skip)]
    pub(super) id: String,
    /// What is read of each input, where that is not all of it.
    #[serde(skip)]
    pub(super) picks: Vec<Option<Pick>>,
    #[serde(skip)]
    pub(super) version: RdbVersion,
    /// The lowest number of a version among the inputs.
    #[serde(skip)]
    pub(super) oldest_version: u16,
    /// Whether servers load what is made.
    #[serde(skip)]
    pub(super) is_loaded: bool,
}

/// One input of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedInput {
    /// Object or path.
    pub name: String,
    /// Its keys, if known.
    pub keys: Option<u64>,
    /// Its RDB bytes, if known.
    pub bytes: Option<u64>,
    /// Bytes that are read: the whole object or file, or the frames that can hold what is selected and what tells which those are; `null` for standard input.
    pub read_bytes: Option<u64>,
    /// Frames of the object; `null` for files.
    pub frames: Option<u64>,
    /// Frames that are read.
    pub read_frames: Option<u64>,
    /// Which target shards its slots go to; all where its slots are not known.
    pub targets: Vec<usize>,
    /// What each of them gets.
    pub shares: Vec<PlannedShare>,
}

/// What one target shard gets of one input.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedShare {
    /// Index of the target shard.
    pub shard: usize,
    /// Keys, if known.
    pub keys: Option<u64>,
    /// RDB bytes, if known.
    pub bytes: Option<u64>,
    /// Whether both are estimated by the number of slots, because they were not recorded slot by slot.
    pub estimated: bool,
}

/// One target shard of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedShard {
    /// From 0.
    pub index: usize,
    /// Its slots; `null` for a server without cluster mode.
    pub slots: Option<SlotSet>,
    /// Keys that it gets, if known; a selection may take fewer.
    pub keys: Option<u64>,
    /// RDB bytes that it gets, if known.
    pub bytes: Option<u64>,
    /// Whether both are estimated by the number of slots.
    pub estimated: bool,
    /// Memory that a server needs for it, in bytes: an estimate.
    pub memory: Option<u64>,
    /// The running node that takes it.
    pub node: Option<String>,
    /// Engine and version of that node, or of the program that is started.
    pub engine: Option<String>,
    /// The node's limit of memory, in bytes; 0: none.
    pub maxmemory: Option<u64>,
    /// How the data gets there: `file`, `object`, `launch` (a file that the server loads when it starts), `sync` (as its
    /// primary would), `restore`.
    pub method: String,
}

/// What a conversion will leave out.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedLoss {
    /// What it is.
    pub kind: LossKind,
    /// In how many keys, or how many functions.
    pub places: u64,
}

impl Plan {
    pub(super) async fn make(options: &Options) -> Result<Self> {
        let mut refusals = Refusals::default();
        let infos = match options.input.parts().await {
            Ok(parts) => Some(parts.into_iter().map(|(_, info)| info).collect::<Vec<_>>()),
            Err(error) => refusals.take(Err(error)),
        };
        let nodes = match &options.target {
            // whose shape gives the plan its name, so the marks are compared when it is carried out
            Target::Nodes { options: reach, .. } => {
                let found = nodes::Target::inspect_for(reach, String::new(), options.unfinished).await;
                Some(refusals.take(found))
            }
            Target::Out(_) | Target::Store { .. } | Target::Launch { .. } => None,
        };
        let shape = match &nodes {
            Some(Some(nodes)) => refusals.take(shape::shape_of_nodes(options, nodes)),
            Some(None) => None,
            None => refusals.take(shape::shape(options)),
        };
        if let Some(Some(nodes)) = &nodes {
            refusals.take(shares::check_method(options, nodes));
        }
        if let (Some((mode, _)), Some(infos)) = (&shape, &infos) {
            refusals.take(check_databases(*mode, options.db, infos));
        }
        let version = infos.as_deref().and_then(|infos| refusals.take(common_version(infos)));
        let nodes = nodes.flatten();
        let made = match (infos, shape, version) {
            (Some(infos), Some(shape), Some(version)) => {
                Some(Self::of(options, &infos, nodes.as_ref(), shape, version, &mut refusals).await)
            }
            _ => None,
        };
        if let Some(plan) = &made {
            target::refusals(options, plan, &mut refusals).await;
        }
        refusals.end()?;
        made.ok_or_else(|| Error::new(Class::Unforeseen, "there is neither a plan nor a reason why there is none"))
    }

    /// The plan for what was found; what forbids it is kept in `refusals`.
    async fn of(
        options: &Options,
        infos: &[PartInfo],
        nodes: Option<&nodes::Target>,
        (mode, targets): (Mode, Vec<SlotSet>),
        version: RdbVersion,
        refusals: &mut Refusals,
    ) -> Self {
        // the other reasons are looked for all the same
        let converted_to = refusals.take(conversions(options, nodes, version, targets.len()).await);
        let converted_to = converted_to.unwrap_or_else(|| vec![None; targets.len()]);
        let losses = losses::planned(options, &converted_to, refusals);
        let wanted = Wanted::by(&options.select);
        let (known, indexes) = refusals.take(shares::known(options, infos).await).unwrap_or_default();
        let taken = wanted.as_ref().map_or_else(SlotSet::full, |wanted| wanted.slots().clone());
        let (mut inputs, mut shards) = shares::plan(infos, &known, (&targets, &taken), mode);
        let picks = refusals
            .take(picks::pick(options, (infos, &indexes), wanted.as_ref(), &mut inputs).await)
            .unwrap_or_default();
        shares::describe(options, nodes, &mut shards, refusals);
        let bytes: Option<u64> = infos.iter().map(|info| info.bytes).sum();
        let manifest = options.input.manifest();
        Self {
            id: id(options, infos, &targets),
            mode: if mode == Mode::Cluster { "cluster" } else { "standalone" }.to_owned(),
            rdb_version: version.to_string(),
            keys: infos.iter().map(|info| info.keys).sum(),
            expires: manifest.map(|manifest| manifest.shards.iter().map(|shard| shard.rdb.expires).sum()),
            bytes,
            seconds: picks::read_bytes(&inputs, &picks).map(|bytes| shares::seconds(options, bytes)),
            losses,
            notes: shares::notes(options, nodes, &shards, (&inputs, &known)),
            inputs,
            picks,
            shards,
            version,
            oldest_version: infos.iter().map(|info| info.version.number).min().unwrap_or(0),
            is_loaded: matches!(options.target, Target::Launch { .. } | Target::Nodes { .. }),
            converted_to,
        }
    }

    /// Whether the target runs in cluster mode.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.mode == "cluster"
    }

    /// The slots of each target file: all of them for a server without cluster mode.
    #[must_use]
    pub fn targets(&self) -> Vec<SlotSet> {
        self.shards.iter().map(|shard| shard.slots.clone().unwrap_or_else(SlotSet::full)).collect()
    }
}

/// The name of a restore of these inputs into these slots.
fn id(options: &Options, infos: &[PartInfo], targets: &[SlotSet]) -> String {
    let inputs: Vec<_> = infos.iter().map(|info| (&info.name, info.bytes)).collect();
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let (ttl, db, select, drop) = (options.ttl, options.db, &options.select, &options.drop);
    let snapshot = options.input.manifest().map(|manifest| &manifest.snapshot_id);
    let all = format!("{snapshot:?} {inputs:?} {targets:?} {ttl:?} {db:?} {select:?} {drop:?}");
    hex::encode(Sha256::digest(all.as_bytes()))
}

/// What each shard's file must become for the engine that is to load it.
async fn conversions(
    options: &Options,
    nodes: Option<&nodes::Target>,
    version: RdbVersion,
    shards: usize,
) -> Result<Vec<Option<ConvertTarget>>> {
    match (nodes, &options.target) {
        (Some(nodes), _) => {
            let each = nodes.nodes.iter().zip(&nodes.engines);
            each.map(|(node, engine)| convert::needed(engine, version).map_err(|error| error.at(&node.address)))
                .collect()
        }
        (None, Target::Launch { engine, .. }) => {
            let engine = probe_engine(&engine_path(options, engine.as_ref(), version)).await?;
            Ok(vec![convert::needed(&engine, version)?; shards])
        }
        (None, _) => Ok(vec![options.convert_to.filter(|target| target.version() != version); shards]),
    }
}

/// The server program: the one that was named, or that of the snapshot's engine.
pub(super) fn engine_path(options: &Options, named: Option<&PathBuf>, version: RdbVersion) -> PathBuf {
    let source_engine = options.input.manifest().map_or("redis", |manifest| manifest.engine.as_str());
    let valkey = source_engine == "valkey" || version.magic == Magic::Valkey;
    named.cloned().unwrap_or_else(|| launch::default_program(valkey))
}

/// The format that engines are asked about.
pub(super) fn format_of(version: RdbVersion) -> RdbFormat {
    let number = u32::from(version.number);
    match version.magic {
        Magic::Redis => RdbFormat::Redis(number),
        Magic::Valkey => RdbFormat::Valkey(number),
    }
}

/// A node in cluster mode has only database 0, and some versions crash when their RDB has another.
fn check_databases(mode: Mode, db: Option<u64>, infos: &[PartInfo]) -> Result<()> {
    let high = || infos.iter().flat_map(|info| info.high_databases.iter().map(move |found| (info, found)));
    match (mode, db, high().next()) {
        (Mode::Cluster, None, Some((info, (db, keys)))) => Err(Error::new(
            Class::Refused,
            format!("{}: database {db} holds {keys} keys, and a cluster has only database 0", info.name),
        )
        .hint("give --db N to restore one database, which becomes database 0, or --shards 1 for a server without cluster mode")),
        _ => Ok(()),
    }
}

/// The version that can hold all inputs: Valkey's where there is one of Valkey 9, which then takes what both engines
/// wrote before they parted.
fn common_version(infos: &[PartInfo]) -> Result<RdbVersion> {
    let highest = infos.iter().map(|info| info.version).max_by_key(|version| (version.magic, version.number));
    let highest = highest
        .ok_or_else(|| Error::new(Class::Usage, "there is nothing to restore: give a snapshot or --rdb FILE"))?;
    match infos.iter().find(|info| !info.version.fits_into(highest)) {
        None => Ok(highest),
        Some(other) => Err(Error::new(
            Class::Version,
            format!("{}: it is {}, which cannot be written as {highest} of another input", other.name, other.version),
        )
        .hint("restore the files of a newer Redis and of Valkey 9 one after the other")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_engines_share_an_output_as_far_as_they_parted_not() {
        let version = |magic, number| RdbVersion { magic, number };
        let common = |versions: &[RdbVersion]| {
            let info = |version: &RdbVersion| PartInfo {
                name: "one".to_owned(),
                version: *version,
                bytes: None,
                read_bytes: None,
                keys: None,
                high_databases: Vec::new(),
            };
            common_version(&versions.iter().map(info).collect::<Vec<_>>())
        };
        let (redis, valkey) = (|number| version(Magic::Redis, number), version(Magic::Valkey, 80));
        assert_eq!(common(&[redis(9), redis(12), redis(10)]).unwrap(), redis(12));
        assert_eq!(common(&[redis(11), valkey]).unwrap(), valkey);
        assert_eq!(common(&[valkey, redis(9)]).unwrap(), valkey);
        let error = common(&[redis(12), valkey]).unwrap_err();
        assert!(error.class() == Class::Version && error.message().contains("REDIS0012"), "{error}");
        assert_eq!(common(&[]).unwrap_err().class(), Class::Usage);
    }
}
