//! Which node of a shard serves a capture.
//!
//! The most up-to-date healthy replica wins. A primary is never risked without being asked, with one
//! exception: a shard that has no replica at all is captured from its primary where a failed save cannot
//! stop its writes (diskless sync on, or no save points).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clocks;

/// How long a replica may have heard nothing from its primary, in seconds: the server's own default for
/// giving up the link (`repl-timeout`).
pub const SILENCE_SECONDS_MAX: u64 = 60;

/// Replicas that are less than this behind count as level, in bytes, so that preferences decide between them.
pub const LEVEL_BYTES: u64 = 1 << 20;

/// A node that failed so often in one job is not asked again.
pub const FAILURES_MAX: u32 = 2;

/// What was seen of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Node id (cluster) or `host:port`.
    pub id: String,
    /// Whether the node is the shard's primary.
    pub primary: bool,
    /// Why the node could not be asked at all.
    pub unreachable: Option<String>,
    /// A replica's link to its primary is up.
    pub link_up: bool,
    /// A full synchronisation of this replica is under way.
    pub syncing: bool,
    /// The data set is being loaded.
    pub loading: bool,
    /// A child of the server is saving or rewriting, so that a capture has to wait until it ended.
    pub child_running: bool,
    /// How far the node's replication offset is behind its primary's, in bytes.
    pub lag_bytes: u64,
    /// Since a replica last heard from its primary, in seconds.
    pub silence_seconds: u64,
    /// The node's replication history is the primary's. `None`: the primary's is not known.
    pub same_history: Option<bool>,
    /// What its memory looks like.
    pub memory: Memory,
    /// The server's `replica-priority`: 0 is never promoted, then low numbers first.
    pub priority: u64,
    /// The zone that the server says it is in.
    pub zone: Option<String>,
    /// How often it failed in this job.
    pub failures: u32,
    /// A failed save cannot stop this node's writes. `None`: could not be read.
    pub save_is_harmless: Option<bool>,
    /// How far its clock is ahead of ours, in milliseconds. It is told of, and keeps no node from being chosen.
    pub clock_ahead_ms: Option<i64>,
}

/// The memory of a node, in bytes; 0 where the server does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the server holds of its machine's memory (`used_memory_rss`).
    pub resident: u64,
    /// What its machine has (`total_system_memory`).
    pub system: u64,
    /// How much its last child had to copy (`rdb_last_cow_size`).
    pub last_copied: u64,
    /// The machine refuses to promise more memory than it has (`vm.overcommit_memory` 2). `None`: not known.
    pub strict: Option<bool>,
}

impl Memory {
    /// Why the machine has no room for a child that saves, if so. The child needs what is written to while it
    /// lives: at least a tenth of the server's memory, or what the last one needed. Where the machine promises
    /// only what it has, the child is promised as much as the server holds.
    #[must_use]
    pub fn lacks_room(&self) -> Option<String> {
        if self.system == 0 || self.resident == 0 {
            return None;
        }
        let strict = self.strict == Some(true);
        let child = if strict { self.resident } else { (self.resident / 10).max(self.last_copied) };
        (self.resident.saturating_add(child) > self.system).then(|| {
            let why = if strict { ", because vm.overcommit_memory is 2" } else { "" };
            format!(
                "its machine has no memory for a child: it holds {} of {} MiB, and the child may need {} MiB{why}",
                self.resident >> 20,
                self.system >> 20,
                child >> 20
            )
        })
    }
}

/// How a node gives its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Over the replication protocol, as its child makes them.
    #[default]
    Stream,
    /// Over the replication protocol, from the RDB file that it writes for that.
    StreamDisk,
    /// By `BGSAVE` and the RDB file that it writes, which has to be readable from here.
    Bgsave,
}

/// When a primary may serve a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrimaryUse {
    /// Only in a shard without any replica, and only where a failed save cannot stop its writes.
    #[default]
    #[serde(rename = "lone")]
    OnlyHarmless,
    /// When no replica can serve.
    Fallback,
    /// Before any replica.
    Prefer,
    /// Never.
    Never,
}

/// What the operator wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// When a primary may serve.
    pub primary_use: PrimaryUse,
    /// The id of the only node that may.
    pub node: Option<String>,
    /// The zone whose nodes come first among those that are level.
    pub zone: Option<String>,
}

/// A candidate's verdict, kept with the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The candidate.
    pub id: String,
    /// Whether it was chosen.
    pub chosen: bool,
    /// Why, or why not.
    pub reason: String,
}

/// The outcome: the chosen node if there is one, and a reason for every candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Index into the candidates.
    pub chosen: Option<usize>,
    /// One verdict per candidate, in their order.
    pub verdicts: Vec<Verdict>,
    /// A candidate that could serve was left out by a wish or for its own safety: only a change helps.
    pub forbidden: bool,
    /// A candidate cannot serve now but may later.
    pub may_pass: bool,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, verdict) in self.verdicts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", verdict.id, verdict.reason)?;
        }
        Ok(())
    }
}

/// Why a candidate cannot serve.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Obstacle {
    /// It may pass by itself.
    Passing(String),
    /// It stands until somebody changes something.
    Standing(String),
}

/// Chooses the node of one shard. The order of the candidates does not matter.
#[must_use]
pub fn choose(candidates: &[Candidate], wishes: &Wishes) -> Choice {
    let alone = candidates.iter().all(|candidate| candidate.primary);
    let ranks: Vec<Result<Rank<'_>, Obstacle>> =
        candidates.iter().map(|candidate| rank(candidate, wishes, alone)).collect();
    let chosen = (0..candidates.len())
        .filter_map(|index| ranks.get(index)?.as_ref().ok().map(|rank| (rank, index)))
        .min()
        .map(|(_, index)| index);
    let forbidden = ranks.iter().any(|rank| matches!(rank, Err(Obstacle::Standing(_))));
    let may_pass = ranks.iter().any(|rank| matches!(rank, Err(Obstacle::Passing(_))));
    let verdicts = candidates.iter().zip(&ranks).enumerate().map(|(index, (candidate, rank))| Verdict {
        id: candidate.id.clone(),
        chosen: chosen == Some(index),
        reason: reason(candidate, rank, chosen == Some(index)),
    });
    let verdicts = verdicts.collect();
    Choice { chosen, verdicts, forbidden, may_pass }
}

/// The order of preference; the lowest is chosen. A primary that is only allowed comes after every replica.
/// What failed is tried after what did not; a node without a child before one that makes us wait; then who is
/// clearly behind; then the wishes; then the exact position.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    last_resort: bool,
    failures: u32,
    not_preferred: bool,
    child_running: bool,
    behind: bool,
    other_zone: bool,
    /// 0 for what is never promoted, so that a failover finds its candidates at rest; then the last to be promoted.
    likely_promoted: u64,
    lag_bytes: u64,
    silence_seconds: u64,
    id: &'a str,
}

fn rank<'a>(candidate: &'a Candidate, wishes: &Wishes, alone: bool) -> Result<Rank<'a>, Obstacle> {
    let standing = |why: &str| Err(Obstacle::Standing(why.to_owned()));
    if candidate.failures >= FAILURES_MAX {
        return standing("it failed too often in this job, or refused us");
    }
    if let Some(why) = unfit(candidate) {
        return Err(Obstacle::Passing(why));
    }
    if let Some(why) = candidate.memory.lacks_room() {
        return Err(Obstacle::Standing(why));
    }
    if wishes.node.as_ref().is_some_and(|named| *named != candidate.id) {
        return standing("another node was asked for by name");
    }
    let preferred = candidate.primary && wishes.primary_use == PrimaryUse::Prefer;
    let rank = Rank {
        last_resort: candidate.primary && !preferred,
        failures: candidate.failures,
        not_preferred: !preferred,
        child_running: candidate.child_running,
        behind: candidate.lag_bytes >= LEVEL_BYTES,
        other_zone: wishes.zone.is_some() && candidate.zone != wishes.zone,
        likely_promoted: if candidate.priority == 0 { 0 } else { u64::MAX - candidate.priority },
        lag_bytes: candidate.lag_bytes,
        silence_seconds: candidate.silence_seconds,
        id: &candidate.id,
    };
    if !candidate.primary {
        return Ok(rank);
    }
    match (wishes.primary_use, candidate.save_is_harmless) {
        (PrimaryUse::Prefer | PrimaryUse::Fallback, _) => Ok(rank),
        (PrimaryUse::Never, _) => standing("it is the primary, and primaries are never used"),
        (PrimaryUse::OnlyHarmless, _) if !alone => {
            standing("it is the primary of a shard that has replicas; `--primary fallback` allows it")
        }
        (PrimaryUse::OnlyHarmless, Some(true)) => Ok(rank),
        (PrimaryUse::OnlyHarmless, Some(false)) => standing(
            "it is a primary without replicas that saves to disk for a \
             synchronisation (repl-diskless-sync no) and has save points, so a failed save would stop its writes; \
             `CONFIG SET repl-diskless-sync yes` or `--primary fallback` allows it",
        ),
        (PrimaryUse::OnlyHarmless, None) => standing(
            "it is a primary without replicas and CONFIG GET is refused, so \
             whether a failed save would stop its writes is unknown; allow `+config|get` or give `--primary fallback`",
        ),
    }
}

/// Why the node is not in a state to serve, if so.
fn unfit(candidate: &Candidate) -> Option<String> {
    let text = |why: &str| Some(why.to_owned());
    if let Some(why) = &candidate.unreachable {
        return Some(format!("unreachable: {why}"));
    }
    if candidate.loading {
        return text("it is loading its data set");
    }
    if candidate.primary {
        return None;
    }
    if candidate.syncing {
        return text("it is in a full synchronisation with its primary");
    }
    if !candidate.link_up {
        return text("its link to the primary is down");
    }
    if candidate.same_history == Some(false) {
        return text("its replication history is not the one of its primary");
    }
    (candidate.silence_seconds > SILENCE_SECONDS_MAX)
        .then(|| format!("it heard nothing from its primary for {} s", candidate.silence_seconds))
}

fn reason(candidate: &Candidate, rank: &Result<Rank<'_>, Obstacle>, chosen: bool) -> String {
    let lag = candidate.lag_bytes;
    let mut text = match (rank, candidate.primary, chosen) {
        (Err(Obstacle::Passing(why) | Obstacle::Standing(why)), ..) => return why.clone(),
        (Ok(_), true, true) => {
            "chosen: the primary, and a capture by stream cannot stop its writes or was allowed".to_owned()
        }
        (Ok(_), false, true) => format!("chosen: healthy replica, {lag} bytes behind its primary"),
        (Ok(_), true, false) => "usable primary, but a replica comes first".to_owned(),
        (Ok(_), false, false) => format!("healthy replica, {lag} bytes behind; another node comes first"),
    };
    if candidate.child_running {
        text.push_str("; a child of it is saving or rewriting");
    }
    if candidate.failures > 0 {
        text.push_str("; it failed once in this job");
    }
    if let Some(why) = candidate.clock_ahead_ms.and_then(clocks::differs) {
        text.push_str("; ");
        text.push_str(&why);
    }
    text
}

#[cfg(test)]
mod tests;
