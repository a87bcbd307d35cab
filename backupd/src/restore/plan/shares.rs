//! What goes where, and what the targets need for it.

use std::collections::VecDeque;

use policies::restore::{Input as Known, Share, lacks_memory, longest_value, share, sum};
use policies::slot::SlotSet;
use rdbtools::select::Selection;

use super::super::input::PartInfo;
use super::super::{Mode, Options, Target};
use super::refusals::Refusals;
use super::{PlannedInput, PlannedShard, PlannedShare, picks};
use crate::bkd::Index;
use crate::error::{Class, Error, Result};
use crate::nodes::{self, Form, Method};
use crate::pipeline::read;
use crate::snapshot::verify;
use crate::task_failed;

/// Indexes of shards that are read at the same time.
const INDEXES_AT_ONCE: usize = 8;

/// The longest argument that a node takes, unless it is configured otherwise.
const ARGUMENT_MAX: u64 = 512 << 20;

/// Bytes of RDB a second, by what docs/performance.md measured: reading, opening and splitting; a server that loads a
/// file; `RESTORE` into running nodes; reading back.
const SPLIT_RATE: u64 = 250_000_000;
const LAUNCH_RATE: u64 = 130_000_000;
const NODES_RATE: u64 = 60_000_000;
const VERIFY_RATE: u64 = 110_000_000;

/// What is known of each input: for a snapshot, what its shards' indexes recorded, which come too.
pub(super) async fn known(options: &Options, infos: &[PartInfo]) -> Result<(Vec<Known>, Vec<Index>)> {
    let super::super::input::Input::Snapshot { repository, opened } = &options.input else {
        let of = |info: &PartInfo| Known { keys: info.keys, bytes: info.bytes, ..Known::default() };
        return Ok((infos.iter().map(of).collect(), Vec::new()));
    };
    let (mut known, mut indexes) = (Vec::with_capacity(infos.len()), Vec::with_capacity(infos.len()));
    let mut reading = VecDeque::new();
    let mut shards = opened.manifest.shards.iter();
    loop {
        while reading.len() < INDEXES_AT_ONCE
            && let Some(shard) = shards.next()
        {
            let source = verify::source(repository, opened, shard);
            reading.push_back((shard, tokio::spawn(async move { read::index(&source).await })));
        }
        let Some((shard, index)) = reading.pop_front() else { return Ok((known, indexes)) };
        let index = index.await.map_err(task_failed)??;
        known.push(Known {
            slots: shard.slots.clone(),
            keys: Some(shard.rdb.keys),
            bytes: Some(shard.object.plain_bytes),
            recorded: Some(index.slots.iter().map(|slot| (slot.slot, slot.keys, slot.bytes)).collect()),
            memory: shard.rdb.aux.get("used-mem").and_then(|text| text.parse().ok()),
        });
        indexes.push(index);
    }
}

/// The inputs with their shares, and the targets with what they get.
pub(super) fn plan(
    infos: &[PartInfo],
    known: &[Known],
    (targets, taken): (&[SlotSet], &SlotSet),
    mode: Mode,
) -> (Vec<PlannedInput>, Vec<PlannedShard>) {
    let mut gets: Vec<Vec<Share>> = vec![Vec::new(); targets.len()];
    let mut inputs = Vec::with_capacity(infos.len());
    for (info, known) in infos.iter().zip(known) {
        let mut shares = Vec::new();
        for (shard, (target, gets)) in targets.iter().zip(&mut gets).enumerate() {
            let Some(share) = share(known, &target.intersection(taken)) else { continue };
            gets.push(share);
            let Share { keys, bytes, is_estimated, .. } = share;
            shares.push(PlannedShare { shard, keys, bytes, estimated: is_estimated });
        }
        inputs.push(PlannedInput {
            name: info.name.clone(),
            keys: info.keys,
            bytes: info.bytes,
            // an input that nothing is taken of is not read
            read_bytes: if shares.is_empty() { Some(0) } else { info.read_bytes },
            frames: None,
            read_frames: None,
            targets: shares.iter().map(|share| share.shard).collect(),
            shares,
        });
    }
    let shards = targets.iter().zip(gets).enumerate().map(|(index, (slots, gets))| {
        let Share { keys, bytes, memory, is_estimated } = sum(gets);
        PlannedShard {
            index,
            slots: (mode == Mode::Cluster).then(|| slots.clone()),
            keys,
            bytes,
            estimated: is_estimated,
            memory,
            node: None,
            engine: None,
            maxmemory: None,
            method: String::new(),
        }
    });
    (inputs, shards.collect())
}

/// Says of each shard which node takes it and how; refuses nodes that have no room.
pub(super) fn describe(
    options: &Options,
    nodes: Option<&nodes::Target>,
    shards: &mut [PlannedShard],
    refusals: &mut Refusals,
) {
    let method = match &options.target {
        Target::Out(_) => "file",
        Target::Store { .. } => "object",
        Target::Launch { .. } => "launch",
        Target::Nodes { .. } => "restore",
    };
    let takes_all = Selection { slots: None, ..options.select.clone() }.is_all() && options.db.is_none();
    for shard in shards.iter_mut() {
        method.clone_into(&mut shard.method);
    }
    let Some(nodes) = nodes else { return };
    if syncs(options, nodes) {
        shards.iter_mut().for_each(|shard| "sync".clone_into(&mut shard.method));
    }
    for ((shard, node), engine) in shards.iter_mut().zip(&nodes.nodes).zip(&nodes.engines) {
        shard.node = Some(node.address.to_string());
        shard.engine = Some(engine.to_string());
        shard.maxmemory = Some(node.maxmemory);
        let lacks = lacks_memory(shard.memory.filter(|_| takes_all), node.used_memory, node.maxmemory);
        if let Some(why) = lacks.filter(|_| !options.ignore_memory) {
            let message = format!("shard {}, {}: {why}", shard.index, node.address);
            refusals.add(Error::new(Class::Refused, message).hint(
                "raise its maxmemory, or restore into more shards; the need is an estimate: --ignore-memory tries it",
            ));
        }
    }
}

/// Refuses `--method sync` where it is known beforehand that it cannot be.
pub(super) fn check_method(options: &Options, nodes: &nodes::Target) -> Result<()> {
    if !matches!(options.target, Target::Nodes { method: Method::Sync, .. }) || syncs(options, nodes) {
        return Ok(());
    }
    let why = match nodes.form {
        Form::Standalone => "the node speaks TLS, and we synchronise without",
        Form::Formed | Form::Unjoined => "only a server without cluster mode is filled by a synchronisation",
    };
    Err(Error::new(Class::Refused, format!("--method sync: {why}")).hint("leave it out: RESTORE is taken then"))
}

/// Whether we are to act as the primary of the one node.
fn syncs(options: &Options, nodes: &nodes::Target) -> bool {
    let Target::Nodes { options: reach, method, .. } = &options.target else { return false };
    let tls = nodes.nodes.iter().any(|node| reach.tls_for(&node.address).is_some());
    nodes.form == Form::Standalone && *method != Method::Restore && !tls
}

/// About how many seconds the restore of so many RDB bytes takes.
pub(super) fn seconds(options: &Options, bytes: u64) -> u64 {
    let load = match &options.target {
        Target::Out(_) | Target::Store { .. } => 0,
        Target::Launch { .. } => bytes / LAUNCH_RATE,
        Target::Nodes { .. } => bytes / NODES_RATE,
    };
    let is_loaded = matches!(options.target, Target::Launch { .. } | Target::Nodes { .. });
    let verify = if options.verify && is_loaded { bytes / VERIFY_RATE } else { 0 };
    (bytes / SPLIT_RATE + load + verify).max(1)
}

/// What else is to be known.
pub(super) fn notes(
    options: &Options,
    nodes: Option<&nodes::Target>,
    shards: &[PlannedShard],
    (inputs, known): (&[PlannedInput], &[Known]),
) -> Vec<String> {
    let mut notes = Vec::new();
    if shards.iter().any(|shard| shard.estimated) {
        notes.push("keys and bytes of shards are estimated by their number of slots".to_owned());
    }
    if !options.select.is_all() || options.db.is_some() {
        let what = picks::note(inputs);
        notes.push(format!("{what}; a selection takes no more keys than are shown"));
    }
    for node in nodes.iter().filter(|nodes| syncs(options, nodes)).flat_map(|nodes| &nodes.nodes) {
        let how = "we act as its primary for one synchronisation, if it can come to us; else it gets RESTORE commands";
        notes.push(format!("{}: {how}", node.address));
    }
    if nodes.is_some_and(|nodes| !syncs(options, nodes)) {
        notes.push("nodes get RESTORE commands, and short strings together by MSETNX where they allow it".to_owned());
        notes.push(long_values(known));
    }
    for node in nodes.into_iter().flat_map(|nodes| &nodes.nodes) {
        if node.maxmemory > 0 && node.maxmemory_policy != "noeviction" {
            let (address, policy) = (&node.address, &node.maxmemory_policy);
            notes.push(format!(
                "{address} evicts keys ({policy}) when it reaches its maxmemory: not while it is filled"
            ));
        }
    }
    let modules: Vec<&str> = options.input.manifest().into_iter().flat_map(modules).collect();
    if !modules.is_empty() {
        notes.push(format!("the target must have the modules of these types: {}", modules.join(", ")));
    }
    notes
}

/// What is known of values that a node may not take at once.
fn long_values(known: &[Known]) -> String {
    match longest_value(known) {
        Some(bytes) if bytes <= ARGUMENT_MAX => {
            format!(
                "no value is longer than {} MiB: nodes take all of them at once, unless their limits were lowered",
                bytes.div_ceil(1 << 20)
            )
        }
        longest => {
            let why = if longest.is_some() {
                "some slots hold more than 512 MiB"
            } else {
                "nothing is recorded of these files"
            };
            format!(
                "{why}, so values may be longer than a node takes: they are made by commands, one part after another; \
                 which keys that are, and which of them need raised limits (modules, some streams), is not known before they are read"
            )
        }
    }
}

fn modules(manifest: &crate::manifest::Manifest) -> impl Iterator<Item = &str> {
    let all: std::collections::BTreeSet<&str> =
        manifest.shards.iter().flat_map(|shard| shard.rdb.modules.iter().map(String::as_str)).collect();
    all.into_iter()
}
