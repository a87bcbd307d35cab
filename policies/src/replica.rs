//! Which node of a shard serves a capture.
//!
//! The most up-to-date healthy replica wins. A primary is never risked without being asked, with one
//! exception: a shard that has no replica at all is captured from its primary where a failed save cannot
//! stop its writes (diskless sync on, or no save points).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was seen of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How far the node's replication offset is behind its primary's, in bytes.
    pub lag_bytes: u64,
    /// A failed save cannot stop this node's writes. `None`: could not be read.
    pub save_is_harmless: Option<bool>,
}

/// When a primary may serve a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrimaryUse {
    /// Only in a shard without any replica, and only where a failed save cannot stop its writes.
    #[default]
    OnlyHarmless,
    /// When no replica can serve.
    Fallback,
    /// Before any replica.
    Prefer,
    /// Never.
    Never,
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

/// Chooses the node of one shard. `named` is the node that the operator asked for.
#[must_use]
pub fn choose(candidates: &[Candidate], primary_use: PrimaryUse, named: Option<&str>) -> Choice {
    let alone = candidates.iter().all(|candidate| candidate.primary);
    let ranks: Vec<Result<(u8, u64), String>> =
        candidates.iter().map(|candidate| rank(candidate, primary_use, alone, named)).collect();
    let chosen = (0..candidates.len())
        .filter_map(|index| ranks.get(index)?.as_ref().ok().map(|rank| (rank, index)))
        .min()
        .map(|(_, index)| index);
    let verdicts = candidates.iter().zip(&ranks).enumerate().map(|(index, (candidate, rank))| Verdict {
        id: candidate.id.clone(),
        chosen: chosen == Some(index),
        reason: reason(candidate, rank, chosen == Some(index)),
    });
    let verdicts = verdicts.collect();
    Choice { chosen, verdicts }
}

/// The order of preference (lower is better), or why the candidate cannot serve.
fn rank(candidate: &Candidate, primary_use: PrimaryUse, alone: bool, named: Option<&str>) -> Result<(u8, u64), String> {
    if let Some(why) = &candidate.unreachable {
        return Err(format!("unreachable: {why}"));
    }
    if named.is_some_and(|named| named != candidate.id) {
        return Err("another node was asked for by name".to_owned());
    }
    if candidate.loading {
        return Err("it is loading its data set".to_owned());
    }
    if !candidate.primary {
        if candidate.syncing {
            return Err("it is in a full synchronisation with its primary".to_owned());
        }
        if !candidate.link_up {
            return Err("its link to the primary is down".to_owned());
        }
        return Ok((1, candidate.lag_bytes));
    }
    match (primary_use, candidate.save_is_harmless) {
        (PrimaryUse::Prefer, _) => Ok((0, 0)),
        (PrimaryUse::Fallback, _) => Ok((2, 0)),
        (PrimaryUse::Never, _) => Err("it is the primary, and primaries are never used".to_owned()),
        (PrimaryUse::OnlyHarmless, _) if !alone => {
            Err("it is the primary of a shard that has replicas; `--primary fallback` allows it".to_owned())
        }
        (PrimaryUse::OnlyHarmless, Some(true)) => Ok((2, 0)),
        (PrimaryUse::OnlyHarmless, Some(false)) => Err("it is a primary without replicas that saves to disk for a \
             synchronisation (repl-diskless-sync no) and has save points, so a failed save would stop its writes; \
             `CONFIG SET repl-diskless-sync yes` or `--primary fallback` allows it"
            .to_owned()),
        (PrimaryUse::OnlyHarmless, None) => Err("it is a primary without replicas and CONFIG GET is refused, so \
             whether a failed save would stop its writes is unknown; allow `+config|get` or give `--primary fallback`"
            .to_owned()),
    }
}

fn reason(candidate: &Candidate, rank: &Result<(u8, u64), String>, chosen: bool) -> String {
    match (rank, candidate.primary, chosen) {
        (Err(why), ..) => why.clone(),
        (Ok(_), true, true) => {
            "chosen: the primary, and a capture by stream cannot stop its writes or was allowed".to_owned()
        }
        (Ok((_, lag)), false, true) => format!("chosen: healthy replica, {lag} bytes behind its primary"),
        (Ok(_), true, false) => "usable primary, but a replica comes first".to_owned(),
        (Ok((_, lag)), false, false) => format!("healthy replica, {lag} bytes behind; another node comes first"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, primary: bool) -> Candidate {
        Candidate {
            id: id.to_owned(),
            primary,
            unreachable: None,
            link_up: true,
            syncing: false,
            loading: false,
            lag_bytes: 0,
            save_is_harmless: Some(true),
        }
    }

    fn chosen(candidates: &[Candidate], primary_use: PrimaryUse) -> Option<String> {
        let choice = choose(candidates, primary_use, None);
        assert_eq!(
            choice.verdicts.iter().filter(|verdict| verdict.chosen).count(),
            usize::from(choice.chosen.is_some())
        );
        choice.chosen.map(|index| candidates[index].id.clone())
    }

    #[test]
    fn the_most_up_to_date_healthy_replica_wins() {
        let late = Candidate { lag_bytes: 900, ..node("late", false) };
        let down = Candidate { link_up: false, ..node("down", false) };
        let busy = Candidate { syncing: true, ..node("busy", false) };
        let near = Candidate { lag_bytes: 3, ..node("near", false) };
        let all = [node("primary", true), late, down, busy, near];
        assert_eq!(chosen(&all, PrimaryUse::OnlyHarmless).as_deref(), Some("near"));
        assert_eq!(chosen(&all, PrimaryUse::Prefer).as_deref(), Some("primary"));
    }

    #[test]
    fn a_primary_is_never_risked_without_being_asked() {
        let down = Candidate { link_up: false, ..node("down", false) };
        let with_replica = [node("primary", true), down];
        assert_eq!(chosen(&with_replica, PrimaryUse::OnlyHarmless), None);
        assert_eq!(chosen(&with_replica, PrimaryUse::Fallback).as_deref(), Some("primary"));
        for (harmless, expected) in [(Some(true), Some("alone")), (Some(false), None), (None, None)] {
            let alone = [Candidate { save_is_harmless: harmless, ..node("alone", true) }];
            assert_eq!(chosen(&alone, PrimaryUse::OnlyHarmless).as_deref(), expected);
            assert_eq!(chosen(&alone, PrimaryUse::Never), None);
            assert_eq!(chosen(&alone, PrimaryUse::Fallback).as_deref(), Some("alone"));
        }
    }

    #[test]
    fn a_named_node_is_used_or_refused_with_its_reason() {
        let nodes = [node("primary", true), node("a", false), Candidate { loading: true, ..node("b", false) }];
        assert_eq!(choose(&nodes, PrimaryUse::OnlyHarmless, Some("a")).chosen, Some(1));
        let choice = choose(&nodes, PrimaryUse::OnlyHarmless, Some("b"));
        assert_eq!(choice.chosen, None);
        assert!(choice.verdicts[2].reason.contains("loading"));
    }
}
