//! How a snapshot gets into another repository: what becomes of its seal, and in which parts a large object is copied.

use std::fmt;

/// The most parts of an object, a limit of S3.
pub const PARTS_MAX: u64 = 10_000;
/// The least that a part but the last has, bytes: a limit of S3.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// The most that a part has, bytes: a limit of S3.
pub const PART_BYTES_MAX: u64 = 5 << 30;
/// The size of a part when nothing asks for another, bytes.
pub const PART_BYTES: u64 = 512 << 20;

/// What the destination of a copy opens its snapshots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// Nothing was said.
    Unsaid,
    /// They are in the clear, which was asked for by name.
    Clear,
    /// A master key.
    Key,
}

/// What becomes of the data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// There is none: the snapshot is in the clear on both sides.
    Clear,
    /// It is wrapped for the destination's master key.
    Wrap,
}

/// Why a snapshot cannot be sealed as its destination wants it. Data is copied as it is, never encrypted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealRefusal {
    /// It is encrypted, and the destination has no key.
    NoKey,
    /// It is encrypted, and the destination wants it in the clear.
    Encrypted,
    /// It is in the clear, and the destination wants it encrypted.
    InTheClear,
}

impl fmt::Display for SealRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "the snapshot is encrypted, and no key of the destination is known",
            Self::Encrypted => "the snapshot is encrypted, and the destination was said to be without encryption",
            Self::InTheClear => "the snapshot is not encrypted, and the destination has a key",
        })
    }
}

/// Decides what becomes of the data key of a snapshot that is copied.
///
/// # Errors
/// When the two sides do not fit.
pub fn sealing(encrypted: bool, destination: Seal) -> Result<Sealing, SealRefusal> {
    match (encrypted, destination) {
        (true, Seal::Key) => Ok(Sealing::Wrap),
        (true, Seal::Unsaid) => Err(SealRefusal::NoKey),
        (true, Seal::Clear) => Err(SealRefusal::Encrypted),
        (false, Seal::Key) => Err(SealRefusal::InTheClear),
        (false, Seal::Unsaid | Seal::Clear) => Ok(Sealing::Clear),
    }
}

/// What is wished of the parts of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartsWanted {
    /// The size of the source's parts, bytes: with the same size the digests of both objects are the same.
    pub as_source: Option<u64>,
    /// The most that one request may copy, bytes.
    pub at_most: u64,
}

/// An object that no parts can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// Its size, bytes.
    pub size_bytes: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes do not fit into {PARTS_MAX} parts", self.size_bytes)
    }
}

/// The parts of an object, each as its first and last byte.
///
/// # Errors
/// When it is larger than an object can be.
pub fn part_ranges(size_bytes: u64, wanted: PartsWanted) -> Result<Vec<(u64, u64)>, TooLarge> {
    let needed = size_bytes.div_ceil(PARTS_MAX).max(PART_BYTES_MIN);
    if needed > PART_BYTES_MAX {
        return Err(TooLarge { size_bytes });
    }
    let most = wanted.at_most.clamp(needed, PART_BYTES_MAX);
    let fits = |part: &u64| (needed..=most).contains(part);
    let part = wanted.as_source.filter(fits).unwrap_or(PART_BYTES.clamp(needed, most));
    let mut ranges = Vec::new();
    let mut first = 0;
    while first < size_bytes {
        let end = first.saturating_add(part).min(size_bytes);
        ranges.push((first, end.saturating_sub(1)));
        first = end;
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn data_is_never_sealed_anew() {
        assert_eq!(sealing(true, Seal::Key), Ok(Sealing::Wrap));
        assert_eq!(sealing(false, Seal::Unsaid), Ok(Sealing::Clear));
        assert_eq!(sealing(false, Seal::Clear), Ok(Sealing::Clear));
        assert_eq!(sealing(true, Seal::Clear), Err(SealRefusal::Encrypted));
        assert_eq!(sealing(true, Seal::Unsaid), Err(SealRefusal::NoKey));
        assert_eq!(sealing(false, Seal::Key), Err(SealRefusal::InTheClear));
    }

    #[test]
    fn parts_are_those_of_the_source_where_they_fit() {
        let mib = 1 << 20;
        let count = |size, as_source, at_most| part_ranges(size, PartsWanted { as_source, at_most }).unwrap().len();
        assert_eq!(count(28 * mib, Some(8 * mib), 16 * mib), 4);
        assert_eq!(count(28 * mib, None, 8 * mib), 4);
        // more than the parts that there can be
        assert_eq!(count(1 << 40, Some(8 * mib), PART_BYTES_MAX), 2048);
        assert!(part_ranges(u64::MAX, PartsWanted { as_source: None, at_most: 1 }).is_err());
    }

    proptest! {
        #[test]
        fn parts_cover_every_byte_once_within_the_limits(
            size in 1_u64..(40 << 40), source in proptest::option::of(0_u64..(6 << 30)), most in 0_u64..(6 << 30),
        ) {
            let ranges = part_ranges(size, PartsWanted { as_source: source, at_most: most }).unwrap();
            prop_assert!(ranges.len() as u64 <= PARTS_MAX);
            let mut next = 0;
            for (index, (first, last)) in ranges.iter().enumerate() {
                prop_assert_eq!(*first, next);
                let length = last + 1 - first;
                prop_assert!(length <= PART_BYTES_MAX);
                prop_assert!(length >= PART_BYTES_MIN || index + 1 == ranges.len());
                next = last + 1;
            }
            prop_assert_eq!(next, size);
        }
    }
}
