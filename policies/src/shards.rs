//! Which slots each target shard gets.

use crate::slot::{SLOT_COUNT, SlotSet};

/// The most shards a plan may have. The server itself recommends at most about 1000 nodes.
pub const SHARDS_MAX: usize = 1024;

/// Why a plan of shards was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No shard, or too many.
    #[error("{count} shards were asked for: give 1 to {SHARDS_MAX}")]
    Count {
        /// The number asked for.
        count: usize,
    },
    /// Some slots belong to no shard.
    #[error("slots {missing} belong to no shard: the shards must cover all of 0-16383")]
    Uncovered {
        /// The slots without a shard.
        missing: SlotSet,
    },
    /// Some slots belong to two shards.
    #[error("slots {slots} belong to shard {first} and to shard {second}")]
    Overlap {
        /// The slots named twice.
        slots: SlotSet,
        /// Index of the first owner.
        first: usize,
        /// Index of the second owner.
        second: usize,
    },
}

/// Splits all slots over `count` shards exactly as `redis-cli --cluster create` does.
///
/// Source of the rule: `clusterManagerCommandCreate` in the server's `redis-cli.c`, which steps a 32-bit
/// float cursor and rounds half away from zero.
///
/// # Errors
/// When `count` is 0 or above [`SHARDS_MAX`].
pub fn equal(count: usize) -> Result<Vec<SlotSet>, PlanError> {
    let Some(shards) = u16::try_from(count).ok().filter(|_| (1..=SHARDS_MAX).contains(&count)) else {
        return Err(PlanError::Count { count });
    };
    let per_shard = f32::from(SLOT_COUNT) / f32::from(shards);
    let mut cursor = 0.0_f32;
    let mut first = 0;
    let mut plan = Vec::with_capacity(count);
    for index in 0..shards {
        let last = if index + 1 == shards { SLOT_COUNT - 1 } else { rounded(cursor + per_shard - 1.0).max(first) };
        plan.push((first..=last).collect());
        first = last + 1;
        cursor += per_shard;
    }
    Ok(plan)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of slots first")]
fn rounded(value: f32) -> u16 {
    value.round().clamp(0.0, f32::from(SLOT_COUNT - 1)) as u16
}

/// Checks that `shards` hold every slot exactly once.
///
/// # Errors
/// The first overlap, or else the slots that are missing.
pub fn check_cover(shards: &[SlotSet]) -> Result<(), PlanError> {
    if shards.is_empty() || shards.len() > SHARDS_MAX {
        return Err(PlanError::Count { count: shards.len() });
    }
    for (second, slots) in shards.iter().enumerate() {
        for (first, earlier) in shards.iter().enumerate().take(second) {
            let shared = earlier.intersection(slots);
            if !shared.is_empty() {
                return Err(PlanError::Overlap { slots: shared, first, second });
            }
        }
    }
    let covered: SlotSet = shards.iter().flat_map(SlotSet::iter).collect();
    let missing = covered.complement();
    if missing.is_empty() { Ok(()) } else { Err(PlanError::Uncovered { missing }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shards_are_those_of_redis_cli() {
        let text = |count| equal(count).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(1), ["0-16383"]);
        assert_eq!(text(3), ["0-5460", "5461-10922", "10923-16383"]);
        assert_eq!(text(5), ["0-3276", "3277-6553", "6554-9829", "9830-13106", "13107-16383"]);
        assert_eq!(text(6)[5], "13653-16383");
    }

    #[test]
    fn equal_shards_always_cover_every_slot_once() {
        for count in 1..=SHARDS_MAX {
            let plan = equal(count).unwrap();
            let slots: Vec<u16> = plan.iter().flat_map(SlotSet::iter).collect();
            assert!(slots.iter().copied().eq(0..SLOT_COUNT), "{count} shards");
            assert!(plan.iter().all(|shard| !shard.is_empty()));
        }
        assert!(equal(0).is_err() && equal(SHARDS_MAX + 1).is_err());
    }

    #[test]
    fn cover_names_what_is_missing_or_double() {
        let set = |text: &str| text.parse::<SlotSet>().unwrap();
        assert_eq!(check_cover(&[set("0-100"), set("101-16383")]), Ok(()));
        assert_eq!(check_cover(&[set("0-100"), set("102-16383")]), Err(PlanError::Uncovered { missing: set("101") }));
        assert_eq!(
            check_cover(&[set("0-100"), set("50-16383")]),
            Err(PlanError::Overlap { slots: set("50-100"), first: 0, second: 1 })
        );
    }
}
