//! What each source shard gives to each target shard, and whether the targets have room for it.

use crate::slot::{SLOT_COUNT, SlotSet};

/// Memory that a server needs for a byte of an RDB, where nothing better is known: RDBs are compact, and often
/// compressed.
const MEMORY_PER_RDB_BYTE: u64 = 3;

/// What is known of one input before it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// Its slots; `None` when they are not known, or it has every slot.
    pub slots: Option<SlotSet>,
    /// Its keys, if known.
    pub keys: Option<u64>,
    /// Bytes of its RDB, if known.
    pub bytes: Option<u64>,
    /// Keys and RDB bytes of each slot that holds keys, if they were recorded.
    pub recorded: Option<Vec<(u16, u64, u64)>>,
    /// Memory of the server that wrote it, in bytes, if known.
    pub memory: Option<u64>,
}

/// What one target gets from one input, or from all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Keys; `None` when nothing tells how many.
    pub keys: Option<u64>,
    /// RDB bytes; `None` when nothing tells how many.
    pub bytes: Option<u64>,
    /// Memory that a server needs to hold it, always an estimate.
    pub memory: Option<u64>,
    /// Whether keys and bytes are estimated by the number of slots.
    pub is_estimated: bool,
}

/// What `target` gets from `input`; `None` when it can be nothing.
#[must_use]
pub fn share(input: &Input, target: &SlotSet) -> Option<Share> {
    let own = input.slots.clone().unwrap_or_else(SlotSet::full);
    let common = own.intersection(target);
    if common.is_empty() {
        return None;
    }
    let (keys, bytes, is_estimated) = match &input.recorded {
        Some(recorded) => {
            let taken = recorded.iter().filter(|(slot, ..)| target.contains(*slot));
            let (keys, bytes) = taken.fold((0, 0), |(keys, bytes), (_, k, b)| (keys + k, bytes + b));
            (Some(keys), Some(bytes), false)
        }
        None if common == own => (input.keys, input.bytes, false),
        None => {
            let part = |all: u64| proportion(all, common.len(), own.len());
            (input.keys.map(part), input.bytes.map(part), true)
        }
    };
    let memory = match (input.memory, bytes, input.bytes) {
        (Some(memory), Some(bytes), Some(all)) if all > 0 => Some(scaled(memory, bytes, all)),
        (_, bytes, _) => bytes.map(|bytes| bytes.saturating_mul(MEMORY_PER_RDB_BYTE)),
    };
    Some(Share { keys, bytes, memory, is_estimated })
}

/// The shares of one target together.
#[must_use]
pub fn sum(shares: impl IntoIterator<Item = Share>) -> Share {
    let nothing = Share { keys: Some(0), bytes: Some(0), memory: Some(0), is_estimated: false };
    let add = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    shares.into_iter().fold(nothing, |all, one| Share {
        keys: add(all.keys, one.keys),
        bytes: add(all.bytes, one.bytes),
        memory: add(all.memory, one.memory),
        is_estimated: all.is_estimated || one.is_estimated,
    })
}

/// The most bytes that one value can have, by what was recorded of slots; `None` where nothing was recorded of an input.
#[must_use]
pub fn longest_value(inputs: &[Input]) -> Option<u64> {
    let of = |input: &Input| Some(input.recorded.as_ref()?.iter().map(|(.., bytes)| *bytes).max().unwrap_or(0));
    inputs.iter().map(of).try_fold(0, |most, bytes| Some(most.max(bytes?)))
}

/// Why a target with this limit of memory (0: none) cannot take what needs `memory` beside the `used` bytes that it
/// has in use; `None` when it can.
#[must_use]
pub fn lacks_memory(memory: Option<u64>, used: u64, limit: u64) -> Option<String> {
    let needed = memory?.saturating_add(used);
    (limit > 0 && needed > limit)
        .then(|| format!("it needs about {} MiB, and its maxmemory is {} MiB", needed >> 20, limit >> 20))
}

fn proportion(all: u64, part: usize, whole: usize) -> u64 {
    let of = |count: usize| u64::try_from(count).unwrap_or_else(|_| u64::from(SLOT_COUNT));
    scaled(all, of(part), of(whole))
}

fn scaled(all: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(all) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::equal;
    use proptest::prelude::*;

    fn slots(text: &str) -> SlotSet {
        text.parse().unwrap()
    }

    #[test]
    fn recorded_slots_are_exact_and_others_are_estimated() {
        let recorded = Some(vec![(0, 5, 500), (8192, 1, 100), (16383, 4, 400)]);
        let input = Input { keys: Some(10), bytes: Some(1009), recorded, memory: Some(10_090), ..Input::default() };
        let low = share(&input, &slots("0-8191")).unwrap();
        assert_eq!(low, Share { keys: Some(5), bytes: Some(500), memory: Some(5000), is_estimated: false });
        let foreign = Input { recorded: None, memory: None, keys: None, ..input.clone() };
        let low = share(&foreign, &slots("0-8191")).unwrap();
        assert_eq!(low, Share { keys: None, bytes: Some(504), memory: Some(1512), is_estimated: true });
        assert!(!share(&foreign, &SlotSet::full()).unwrap().is_estimated);
        let shard = Input { slots: Some(slots("0-99")), ..foreign };
        assert_eq!(share(&shard, &slots("100-16383")), None);
        assert!(!share(&shard, &slots("0-8191")).unwrap().is_estimated);
    }

    #[test]
    fn no_value_is_longer_than_what_its_slot_holds() {
        let of = |recorded| Input { recorded, ..Input::default() };
        let some = of(Some(vec![(0, 5, 500), (8192, 1, 100)]));
        assert_eq!(longest_value(&[some.clone(), of(Some(vec![(7, 1, 900)]))]), Some(900));
        assert_eq!(longest_value(&[some.clone(), of(Some(vec![]))]), Some(500));
        assert_eq!(longest_value(&[some, of(None)]), None);
    }

    #[test]
    fn memory_is_compared_only_where_there_is_a_limit() {
        assert_eq!(lacks_memory(Some(10 << 20), 1 << 20, 0), None);
        assert_eq!(lacks_memory(Some(10 << 20), 1 << 20, 11 << 20), None);
        let text = lacks_memory(Some(10 << 20), 1 << 20, 10 << 20).unwrap();
        assert!(text.contains("about 11 MiB") && text.contains("is 10 MiB"), "{text}");
        assert_eq!(lacks_memory(None, 1 << 20, 1), None);
    }

    proptest! {
        #[test]
        fn what_is_recorded_is_given_away_once(counts in proptest::collection::btree_map(0..SLOT_COUNT, (1..1000u64, 1..10_000u64), 0..50), shards in 1..20usize) {
            let recorded: Vec<(u16, u64, u64)> = counts.into_iter().map(|(slot, (keys, bytes))| (slot, keys, bytes)).collect();
            let all = (recorded.iter().map(|(_, keys, _)| keys).sum(), recorded.iter().map(|(.., bytes)| bytes).sum());
            let input = Input { recorded: Some(recorded), ..Input::default() };
            let total = sum(equal(shards).unwrap().iter().filter_map(|target| share(&input, target)));
            prop_assert_eq!((total.keys, total.bytes), (Some(all.0), Some(all.1)));
        }
    }
}
