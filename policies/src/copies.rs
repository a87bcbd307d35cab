//! Which snapshots of a cluster its policy copies into another repository, and why the others are not copied.
//!
//! A copy is made once: one that went again at the destination, by its retention there or by hand, is not made anew. What that retention
//! would only remove is not copied in the first place.

use serde::Serialize;

use crate::retention::{self, Cluster, Policy, Snapshot, Source, Terms, Verdict};

/// The copies of a cluster's snapshots in one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule<'a> {
    /// Whether manual and final snapshots are copied, too.
    pub manual: bool,
    /// What keeps automated ones at the destination.
    pub retention: &'a Policy,
}

/// A snapshot that lies where its cluster's go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Its id, which its copies share.
    pub id: String,
    /// Why it was made; `None` when it cannot be read.
    pub source: Option<Source>,
    /// When its capture began, ms since 1970.
    pub taken_ms: u64,
    /// When it became available, ms since 1970.
    pub available_ms: u64,
    /// There is a copy at the destination, or there was one.
    pub copied: bool,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It is to be copied.
    Due,
    /// It was.
    Copied,
    /// Only automated ones are asked for.
    NotAsked,
    /// Nothing would keep it at the destination.
    WouldGo,
}

/// Decides on each snapshot of one cluster, in their order.
#[must_use]
pub fn decide(originals: &[Original], rule: Rule<'_>, now_ms: u64) -> Vec<Decision> {
    let wanted = |original: &Original| match original.source {
        Some(Source::Automated) => true,
        Some(Source::Manual | Source::Final) => rule.manual,
        None => false,
    };
    // as the destination would look with all of them
    let there: Vec<Snapshot> = originals.iter().filter(|original| wanted(original)).map(as_copy).collect();
    let terms = Terms { now_ms, grace_ms: 0, share_max_percent: 100 };
    let judged = retention::plan(&there, Cluster::Registered(rule.retention), terms).unwrap_or_default();
    let goes = |id: &str| judged.iter().any(|judged| judged.id == id && judged.verdict != Verdict::Keep);
    let decide = |original: &Original| {
        if !wanted(original) {
            Decision::NotAsked
        } else if original.copied {
            Decision::Copied
        } else if goes(&original.id) {
            Decision::WouldGo
        } else {
            Decision::Due
        }
    };
    originals.iter().map(decide).collect()
}

fn as_copy(original: &Original) -> Snapshot {
    Snapshot {
        id: original.id.clone(),
        source: original.source,
        taken_ms: original.taken_ms,
        available: true,
        verified: false,
        kept: false,
        leased: false,
        granted: false,
        locked: false,
        expires_ms: None,
    }
}

/// How far a destination lags behind, ms: since when the snapshot that waits for the longest time is available; 0 when none waits.
#[must_use]
pub fn lag_ms(originals: &[Original], decisions: &[Decision], now_ms: u64) -> u64 {
    let due = originals.iter().zip(decisions).filter(|(_, decision)| **decision == Decision::Due);
    due.map(|(original, _)| now_ms.saturating_sub(original.available_ms)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const NOW_MS: u64 = 100 * DAY_MS;

    fn original(id: u64, source: Source, days_ago: u64, copied: bool) -> Original {
        let taken_ms = NOW_MS - days_ago * DAY_MS;
        Original { id: id.to_string(), source: Some(source), taken_ms, available_ms: taken_ms + 1000, copied }
    }

    #[test]
    fn what_is_asked_for_new_and_would_be_kept_is_due() {
        let retention = Policy { keep_last: 2, ..Policy::default() };
        let originals = [
            original(1, Source::Automated, 3, false),
            original(2, Source::Automated, 2, false),
            original(3, Source::Manual, 2, false),
            original(4, Source::Automated, 1, true),
            original(5, Source::Final, 90, false),
        ];
        let (due, kept) = (Decision::Due, Decision::Copied);
        let decisions = decide(&originals, Rule { manual: false, retention: &retention }, NOW_MS);
        assert_eq!(decisions, [Decision::WouldGo, due, Decision::NotAsked, kept, Decision::NotAsked]);
        assert_eq!(lag_ms(&originals, &decisions, NOW_MS), 2 * DAY_MS - 1000);
        let decisions = decide(&originals, Rule { manual: true, retention: &retention }, NOW_MS);
        assert_eq!(decisions, [Decision::WouldGo, due, due, kept, due]);
        let of_unknown = Original { source: None, ..originals[0].clone() };
        assert_eq!(decide(&[of_unknown], Rule { manual: true, retention: &retention }, NOW_MS), [Decision::NotAsked]);
        assert_eq!(lag_ms(&originals, &[kept; 5], NOW_MS), 0);
    }

    proptest! {
        /// Once everything that is due was copied nothing is due, whatever the destination removed of it meanwhile.
        #[test]
        fn what_was_copied_is_never_due_again(
            days in proptest::collection::vec((0_u64..90, any::<bool>(), any::<bool>()), 0..40),
            (keep_last, daily, limit_days) in (0_u32..4, 0_u32..8, 1_u32..20),
        ) {
            let source = |manual| if manual { Source::Manual } else { Source::Automated };
            let mut originals: Vec<Original> = days
                .iter()
                .zip(0..)
                .map(|((days, manual, copied), id)| original(id, source(*manual), *days, *copied))
                .collect();
            let retention = Policy { keep_last, daily, limit_days, ..Policy::default() };
            let rule = Rule { manual: true, retention: &retention };
            let decisions = decide(&originals, rule, NOW_MS);
            prop_assert_eq!(decisions.len(), originals.len());
            for (original, decision) in originals.iter_mut().zip(&decisions) {
                prop_assert!(!(original.copied && *decision == Decision::Due));
                original.copied |= *decision == Decision::Due;
            }
            prop_assert!(!decide(&originals, rule, NOW_MS).contains(&Decision::Due));
        }
    }
}
