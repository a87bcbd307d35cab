//! What a restore will do.

use std::path::PathBuf;

use policies::engine::RdbFormat;
use policies::shards;
use policies::slot::SlotSet;
use rdbtools::convert::Target as ConvertTarget;
use rdbtools::{Magic, RdbVersion};
use serde::Serialize;

use super::convert;
use super::input::PartInfo;
use super::{Mode, Options, Shape, Target};
use crate::error::{Class, Error, Result};
use crate::launch::probe_engine;
use crate::nodes::{self, Form};

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
    /// RDB bytes in all inputs.
    pub bytes: Option<u64>,
    #[serde(skip)]
    pub(super) version: RdbVersion,
    /// What each shard's file is converted to, because its node does not read [`rdb_version`](Self::rdb_version).
    pub converted_to: Vec<Option<ConvertTarget>>,
}

/// One input of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedInput {
    /// Object or path.
    pub name: String,
    /// Its keys, if known.
    pub keys: Option<u64>,
    /// Its bytes, if known.
    pub bytes: Option<u64>,
    /// Which target shards its slots go to; all where its slots are not known.
    pub targets: Vec<usize>,
}

/// One target shard of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedShard {
    /// From 0.
    pub index: usize,
    /// Its slots; `null` for a server without cluster mode.
    pub slots: Option<SlotSet>,
}

impl Plan {
    pub(super) async fn make(options: &Options) -> Result<Self> {
        let parts = options.input.parts().await?;
        let infos: Vec<PartInfo> = parts.into_iter().map(|(_, info)| info).collect();
        let nodes = match &options.target {
            Target::Nodes { options, .. } => Some(nodes::Target::inspect(options).await?),
            Target::Out(_) | Target::Store { .. } | Target::Launch { .. } => None,
        };
        let (mode, targets) = match &nodes {
            Some(nodes) => shape_of_nodes(options, nodes)?,
            None => shape(options)?,
        };
        check_databases(mode, options.db, &infos)?;
        let version = common_version(&infos)?;
        let converted_to = conversions(options, nodes.as_ref(), version, targets.len()).await?;
        let source_slots = |index: usize| options.input.manifest()?.shards.get(index)?.slots.clone();
        let feeds = |index: usize| -> Vec<usize> {
            let slots = source_slots(index);
            let shares = |target: &SlotSet| slots.as_ref().is_none_or(|slots| !slots.intersection(target).is_empty());
            targets.iter().enumerate().filter(|(_, target)| shares(target)).map(|(index, _)| index).collect()
        };
        let inputs = infos.iter().enumerate().map(|(index, info)| PlannedInput {
            name: info.name.clone(),
            keys: info.keys,
            bytes: info.bytes,
            targets: feeds(index),
        });
        let slots = |target: &SlotSet| (mode == Mode::Cluster).then(|| target.clone());
        Ok(Self {
            mode: if mode == Mode::Cluster { "cluster" } else { "standalone" }.to_owned(),
            inputs: inputs.collect(),
            shards: targets
                .iter()
                .enumerate()
                .map(|(index, target)| PlannedShard { index, slots: slots(target) })
                .collect(),
            rdb_version: version.to_string(),
            keys: infos.iter().map(|info| info.keys).sum(),
            bytes: infos.iter().map(|info| info.bytes).sum(),
            version,
            converted_to,
        })
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
        (None, _) => Ok(vec![None; shards]),
    }
}

/// The server program: the one that was named, or that of the snapshot's engine.
pub(super) fn engine_path(options: &Options, named: Option<&PathBuf>, version: RdbVersion) -> PathBuf {
    let source_engine = options.input.manifest().map_or("redis", |manifest| manifest.engine.as_str());
    let valkey = source_engine == "valkey" || version.magic == Magic::Valkey;
    let default = if valkey { "valkey-server" } else { "redis-server" };
    named.cloned().unwrap_or_else(|| PathBuf::from(default))
}

/// The mode and the slots of each target shard.
fn shape(options: &Options) -> Result<(Mode, Vec<SlotSet>)> {
    let refused = |error: shards::PlanError| Error::new(Class::Refused, error.to_string());
    let manifest = options.input.manifest();
    let was_cluster = manifest.is_some_and(|manifest| manifest.mode == "cluster");
    let targets = match &options.shape {
        Shape::Slots(slots) => slots.clone(),
        Shape::Shards(count) => shards::equal(*count).map_err(|error| Error::new(Class::Usage, error.to_string()))?,
        Shape::AsBefore if was_cluster => {
            let slots = |shard: &crate::manifest::Shard| shard.slots.clone().unwrap_or_else(SlotSet::full);
            manifest.into_iter().flat_map(|manifest| manifest.shards.iter().map(slots)).collect()
        }
        Shape::AsBefore => vec![SlotSet::full()],
    };
    shards::check_cover(&targets).map_err(refused)?;
    let asked_for_shape = !matches!(options.shape, Shape::AsBefore);
    let default = if targets.len() > 1 || (was_cluster && !asked_for_shape) { Mode::Cluster } else { Mode::Standalone };
    let mode = options.mode.unwrap_or(default);
    if mode == Mode::Standalone && targets.len() > 1 {
        return Err(Error::new(Class::Usage, format!("{} shards need cluster mode", targets.len()))
            .hint("leave out --mode standalone, or give --shards 1"));
    }
    Ok((mode, targets))
}

/// The format that engines are asked about.
pub(super) fn format_of(version: RdbVersion) -> RdbFormat {
    let number = u32::from(version.number);
    match version.magic {
        Magic::Redis => RdbFormat::Redis(number),
        Magic::Valkey => RdbFormat::Valkey(number),
    }
}

/// The shape that running nodes have or can take.
fn shape_of_nodes(options: &Options, nodes: &nodes::Target) -> Result<(Mode, Vec<SlotSet>)> {
    let refused = |message: String| Error::new(Class::Refused, message);
    let mode = if nodes.form == Form::Standalone { Mode::Standalone } else { Mode::Cluster };
    if options.mode.is_some_and(|asked| asked != mode) {
        return Err(refused("the nodes do not run in the mode that was asked for".to_owned()));
    }
    let count = nodes.nodes.len();
    let targets = match (&nodes.slots, &options.shape) {
        (Some(own), Shape::Slots(asked)) if own != asked => {
            return Err(refused("the cluster serves other slots than those asked for".to_owned())
                .hint("leave out --slots: a formed cluster gets the keys of the slots that it serves"));
        }
        (_, Shape::Shards(asked)) if *asked != count => {
            return Err(refused(format!("{asked} shards were asked for, and there are {count} nodes to take them")));
        }
        (Some(own), _) => own.clone(),
        (None, Shape::Slots(asked)) => asked.clone(),
        (None, _) if mode == Mode::Standalone => vec![SlotSet::full()],
        (None, _) => shards::equal(count).map_err(|error| refused(error.to_string()))?,
    };
    shards::check_cover(&targets).map_err(|error| refused(error.to_string()))?;
    if targets.len() == count {
        Ok((mode, targets))
    } else {
        Err(refused(format!("the slots of {} shards were given, and there are {count} nodes", targets.len())))
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

/// The version that can hold all inputs.
fn common_version(infos: &[PartInfo]) -> Result<RdbVersion> {
    let mut versions = infos.iter().map(|info| info.version);
    let first = versions
        .next()
        .ok_or_else(|| Error::new(Class::Usage, "there is nothing to restore: give a snapshot or --rdb FILE"))?;
    if let Some(other) = infos.iter().find(|info| info.version.magic != first.magic) {
        return Err(Error::new(
            Class::Version,
            format!("{}: it is of another engine than {}", other.name, Magic::name(first.magic)),
        )
        .hint("restore the files of Redis and of Valkey 9 one after the other"));
    }
    Ok(RdbVersion { magic: first.magic, number: versions.map(|version| version.number).fold(first.number, u16::max) })
}
