//! Slots of Redis Cluster: key to slot, and sets of slots.
//!
//! A key's slot is CRC16 (XMODEM) of the key, or of its hash tag, modulo 16384. The hash tag is what stands
//! between the first `{` and the first `}` after it, if that is not empty (Redis Cluster specification,
//! "Hash tags"; `keyHashSlot` in the server's `cluster.c`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many slots a cluster has.
pub const SLOT_COUNT: u16 = 16384;

/// How many bytes of a key are summed at once.
const STRIDE: usize = 8;

/// The tables of CRC16/XMODEM: polynomial 0x1021, initial value 0, not reflected. `CRC16[n]` is for a byte
/// that `n` more bytes follow, so that the bytes of a stride are looked up independently of each other.
static CRC16: [[u16; 256]; STRIDE] = crc16_tables();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time; the loop bounds are the array lengths")]
const fn crc16_tables() -> [[u16; 256]; STRIDE] {
    let mut tables = [[0u16; 256]; STRIDE];
    let mut byte = 0u16;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut table = 0;
        while table < STRIDE {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
                bit += 1;
            }
            tables[table][byte as usize] = crc;
            table += 1;
        }
        byte += 1;
    }
    tables
}

/// CRC16/XMODEM of `bytes`.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    let (strides, rest) = bytes.as_chunks::<STRIDE>();
    // the index is a byte, so the entry always exists
    let entry = |table: &[u16; 256], byte: u8| table.get(usize::from(byte)).copied().unwrap_or(0);
    let crc = strides.iter().fold(0u16, |crc, stride| {
        let [high, low] = crc.to_be_bytes();
        let [first, second, others @ ..] = *stride;
        let bytes = [high ^ first, low ^ second].into_iter().chain(others);
        CRC16.iter().rev().zip(bytes).fold(0, |sum, (table, byte)| sum ^ entry(table, byte))
    });
    let [single, ..] = &CRC16;
    rest.iter().fold(crc, |crc, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ entry(single, high ^ byte)
    })
}

/// The part of a key that decides its slot: the hash tag, or the whole key.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    // nearly all keys have no tag, and a test of all bytes is faster than a search that may stop at each
    if !key.iter().fold(false, |found, &byte| found | (byte == b'{')) {
        return key;
    }
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    let Some(rest) = key.get(open + 1..) else { return key };
    match rest.iter().position(|&b| b == b'}') {
        Some(0) | None => key,
        Some(close) => rest.get(..close).unwrap_or(key),
    }
}

/// The slot of a key, `0..16384`.
#[must_use]
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOT_COUNT - 1)
}

/// A set of slots, kept as sorted, disjoint, non-adjacent inclusive ranges.
///
/// Text form: `0-5460,10923` (also accepted: spaces between ranges, and the empty string for no slots).
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct SlotSet {
    ranges: Vec<(u16, u16)>,
}

impl SlotSet {
    /// The set without slots.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// All 16384 slots.
    #[must_use]
    pub fn full() -> Self {
        Self { ranges: vec![(0, SLOT_COUNT - 1)] }
    }

    /// The slots `first..=last`.
    ///
    /// # Errors
    /// When `first > last` or `last` is not a slot.
    pub fn range(first: u16, last: u16) -> Result<Self, SlotError> {
        if first > last || last >= SLOT_COUNT {
            return Err(SlotError::Range { text: format!("{first}-{last}") });
        }
        Ok(Self { ranges: vec![(first, last)] })
    }

    /// Whether `slot` is in the set.
    #[must_use]
    pub fn contains(&self, slot: u16) -> bool {
        self.ranges.iter().any(|&(first, last)| first <= slot && slot <= last)
    }

    /// The inclusive ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.ranges.iter().copied()
    }

    /// All slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }

    /// How many slots the set holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|&(first, last)| usize::from(last - first) + 1).sum()
    }

    /// Whether the set holds no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The slots of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// The slots of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.iter().filter(|&slot| other.contains(slot)).collect()
    }

    /// The slots that the set lacks.
    #[must_use]
    pub fn complement(&self) -> Self {
        (0..SLOT_COUNT).filter(|&slot| !self.contains(slot)).collect()
    }
}

impl FromIterator<u16> for SlotSet {
    /// Slots in any order, duplicates allowed; numbers of 16384 and above are left out.
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut sorted: Vec<u16> = slots.into_iter().filter(|&slot| slot < SLOT_COUNT).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in sorted {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        Self { ranges }
    }
}

/// Why a text is not a set of slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Not a slot or a range of slots.
    #[error("`{text}` is not a slot range: give first-last with 0 <= first <= last <= 16383")]
    Range {
        /// What was given.
        text: String,
    },
    /// A slot was named twice in one set.
    #[error("slot {slot} is named twice in `{text}`")]
    Twice {
        /// The first slot that was named before.
        slot: u16,
        /// What was given.
        text: String,
    },
}

impl FromStr for SlotSet {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        let mut set = Self::empty();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let bad = || SlotError::Range { text: part.to_owned() };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = Self::range(first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?)?;
            if let Some(slot) = set.intersection(&range).iter().next() {
                return Err(SlotError::Twice { slot, text: text.to_owned() });
            }
            set = set.union(&range);
        }
        Ok(set)
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

impl Serialize for SlotSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SlotSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_of_known_keys_match_the_server() {
        // CLUSTER KEYSLOT of these keys on redis-server 7.0
        for (key, slot) in [("", 0), ("123456789", 12739), ("foo", 12182), ("{user1000}.following", 3443)] {
            assert_eq!(key_slot(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn hash_tags_follow_the_specification() {
        for (key, tag) in
            [("foo{}{bar}", "foo{}{bar}"), ("foo{{bar}}zap", "{bar"), ("foo{bar}{zap}", "bar"), ("a{b", "a{b")]
        {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    #[test]
    fn a_set_refuses_what_is_not_slots() {
        for text in ["16384", "5-4", "-1", "a", "0-5,5"] {
            assert!(text.parse::<SlotSet>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn strides_sum_as_bytes_do(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let by_bit = |crc: u16, _| if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            let by_byte = |crc: u16, byte: &u8| (0..8).fold(crc ^ u16::from(*byte) << 8, by_bit);
            prop_assert_eq!(crc16(&bytes), bytes.iter().fold(0, by_byte));
        }

        #[test]
        fn text_form_round_trips(slots in proptest::collection::vec(0u16..SLOT_COUNT, 0..200)) {
            let set: SlotSet = slots.iter().copied().collect();
            prop_assert_eq!(&set.to_string().parse::<SlotSet>().unwrap(), &set);
            prop_assert!(slots.iter().all(|&slot| set.contains(slot)));
            prop_assert_eq!(set.len() + set.complement().len(), usize::from(SLOT_COUNT));
            prop_assert!(set.intersection(&set.complement()).is_empty());
        }
    }
}
