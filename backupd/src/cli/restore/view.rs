//! What a restore tells people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::super::output::{bytes, table};
use crate::restore::Outcome;
use crate::restore::plan::{Plan, PlannedShard};
use crate::restore::target::NodeReport;

pub(super) fn plan_text(plan: &Plan) -> String {
    let inputs = plan.inputs.iter().map(|input| {
        let all = input.targets.len() == plan.shards.len();
        let targets: Vec<String> = input.targets.iter().map(ToString::to_string).collect();
        let targets = if all { "all".to_owned() } else { targets.join(" ") };
        let frames = input.read_frames.zip(input.frames).filter(|(read, all)| read < all && *read > 0);
        let frames = frames.map(|(read, all)| format!(", {read} of {all} frames")).unwrap_or_default();
        vec![
            input.name.clone(),
            input.keys.map_or_else(unknown, |keys| keys.to_string()),
            input.bytes.map_or_else(unknown, bytes),
            input.read_bytes.map_or_else(unknown, bytes) + &frames,
            targets,
        ]
    });
    let count = plan.shards.len();
    let shards = if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") };
    let mut text = format!("plan: {} with {shards}, {}\n\n", plan.mode, plan.rdb_version);
    text.push_str(&table(&["input", "keys", "rdb", "read", "to shards"], inputs));
    text.push_str("\n\n");
    text.push_str(&table(
        &["shard", "slots", "keys", "rdb", "memory", "by", "into"],
        plan.shards.iter().map(shard_row),
    ));
    let converted: BTreeSet<String> = plan.converted_to.iter().flatten().map(ToString::to_string).collect();
    // writing to a String cannot fail
    let mut line = |line: std::fmt::Arguments<'_>| _ = write!(text, "\n{line}");
    if !converted.is_empty() || !plan.notes.is_empty() || plan.seconds.is_some() {
        line(format_args!(""));
    }
    for target in converted {
        line(format_args!("the target does not read {}: converted to {target}", plan.rdb_version));
    }
    for loss in &plan.losses {
        line(format_args!("left out by the conversion: {} of {} keys or libraries", loss.kind.name(), loss.places));
    }
    for note in &plan.notes {
        line(format_args!("{note}"));
    }
    if let Some(expires) = plan.expires.filter(|expires| *expires > 0) {
        line(format_args!("{expires} keys expire at some time; those whose time is over will not be found"));
    }
    if let Some(seconds) = plan.seconds {
        line(format_args!("estimated time: about {}", time(seconds)));
    }
    text.push('\n');
    text
}

fn unknown() -> String {
    "?".to_owned()
}

fn shard_row(shard: &PlannedShard) -> Vec<String> {
    let about = if shard.estimated { "~" } else { "" };
    let memory = shard.memory.map_or_else(unknown, |memory| format!("~{}", bytes(memory)));
    let limit = shard.maxmemory.filter(|limit| *limit > 0).map(|limit| format!(" of {}", bytes(limit)));
    let into: Vec<&str> = shard.node.iter().chain(&shard.engine).map(String::as_str).collect();
    vec![
        shard.index.to_string(),
        shard.slots.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        shard.keys.map_or_else(unknown, |keys| format!("{about}{keys}")),
        shard.bytes.map_or_else(unknown, |size| format!("{about}{}", bytes(size))),
        memory + &limit.unwrap_or_default(),
        shard.method.clone(),
        if into.is_empty() { "-".to_owned() } else { into.join(" ") },
    ]
}

fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

pub(super) fn outcome_text(outcome: &Outcome) -> String {
    let rows = outcome.nodes.iter().map(|node: &NodeReport| {
        let place = node.file.clone().unwrap_or_else(|| format!("{}:{}", node.host, node.port));
        let slots = node.slots.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        vec![place, node.role.clone(), slots, node.keys.to_string()]
    });
    let mut text = table(&["node", "role", "slots", "keys"], rows);
    // writing to a String cannot fail
    let _infallible = write!(text, "\n\n{} keys restored", outcome.keys.saturating_sub(outcome.expired));
    if outcome.expired > 0 {
        let _infallible = write!(text, "; {} more had expired since the snapshot", outcome.expired);
    }
    if let Some(verified) = &outcome.verified {
        let _infallible = write!(text, "; read back from {} nodes and equal", verified.nodes);
    }
    for loss in &outcome.losses {
        let _infallible = write!(text, "\nleft out: {} {} in {} places", loss.items, loss.kind.unit(), loss.places);
    }
    text
}
