//! Walks along the parts of a compressed string, at two places at once.
//!
//! Where a part begins is known only when the part before it was read, so that one walk mostly waits for memory. A
//! walk that begins at any byte takes other bytes for control bytes, but soon comes upon the beginning of a part, and
//! from there on goes the way of the true walk. So a second walk begins in the middle, and counts from where it stands
//! after some parts. When the first comes to exactly that place, what the second counted is true; when it
//! passes over it, it goes on alone.

use std::hint::select_unpredictable;

use super::{LONG, REFERENCE};

/// How many parts the walk in the middle goes before it counts. In 97 of 100 strings of text that is enough.
const WARM_UP: usize = 16;
/// Shorter strings are walked once.
const TWICE_LEN_MIN: usize = 256;

/// How many bytes the part of each control byte takes, and how many it produces before its byte of more length.
static PARTS: [(u8, u8); 256] = parts();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time; the loop bound is the array length")]
const fn parts() -> [(u8, u8); 256] {
    let mut parts = [(0, 0); 256];
    let mut control = 0u8;
    loop {
        parts[control as usize] = match control {
            0..REFERENCE => (control + 2, control + 1),
            REFERENCE..LONG => (2, (control >> 5) + 2),
            LONG.. => (3, 9),
        };
        if control == u8::MAX {
            return parts;
        }
        control += 1;
    }
}

/// What is known of the parts that were walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    /// How many bytes they take; the beginning of the next part.
    pub(super) at: usize,
    /// How many bytes they produce.
    pub(super) produced: i64,
    /// The furthest that a reference reaches behind the first byte produced, less one: they are sound where at least
    /// one byte more was produced before. Negative where none reaches behind it.
    reach: i64,
}

impl Chain {
    fn begin(at: usize) -> Self {
        Self { at, produced: 0, reach: i64::MIN }
    }

    /// Walks from the first byte to the last part that is followed by enough bytes to be looked at as a whole.
    pub(super) fn walk(bytes: &[u8]) -> Self {
        let last = bytes.len().saturating_sub(2);
        let mut first = Self::begin(0);
        if bytes.len() < TWICE_LEN_MIN {
            first.go(bytes, last);
            return first;
        }
        let mut ahead = Self::begin(bytes.len() / 2);
        for _ in 0..WARM_UP {
            ahead.step(bytes);
        }
        let middle = ahead.at;
        ahead = Self::begin(middle);
        while first.at < middle && ahead.at < last && ahead.step(bytes) {
            first.step(bytes);
        }
        first.go(bytes, middle);
        if first.at == middle {
            ahead.go(bytes, last);
            first.followed_by(ahead)
        } else {
            first.go(bytes, last);
            first
        }
    }

    /// Whether no reference reaches before the start of the string, of which so many bytes were produced before.
    pub(super) fn is_sound(&self, produced: u64) -> bool {
        self.reach < i64::try_from(produced).unwrap_or(i64::MAX)
    }

    /// Walks up to a place, or beyond it where no part begins there.
    #[inline]
    fn go(&mut self, bytes: &[u8], end: usize) {
        while self.at < end && self.step(bytes) {}
    }

    /// Walks one part without a branch that depends on its kind: kinds alternate too irregularly to be predicted.
    /// Answers whether it was there as a whole.
    #[inline]
    fn step(&mut self, bytes: &[u8]) -> bool {
        let part = bytes.get(self.at..).and_then(|rest| Some((rest.first_chunk::<3>()?, rest.len())));
        let Some((&[control, second, third], there)) = part else { return false };
        let (used, length) = PARTS.get(usize::from(control)).copied().unwrap_or_default();
        if usize::from(used) > there {
            return false;
        }
        let is_long = control >= LONG;
        let more = select_unpredictable(is_long, second, 0);
        let low = select_unpredictable(is_long, third, second);
        let distance = i64::from(u16::from_be_bytes([control & 0x1f, low]));
        let behind = distance.wrapping_sub(self.produced);
        self.reach = self.reach.max(select_unpredictable(control < REFERENCE, i64::MIN, behind));
        // neither can pass the end: a part takes 33 bytes and produces 264 at most
        self.produced = self.produced.wrapping_add(i64::from(length)).wrapping_add(i64::from(more));
        self.at = self.at.wrapping_add(usize::from(used));
        true
    }

    /// These parts, and those that follow.
    fn followed_by(self, other: Self) -> Self {
        Self {
            at: other.at,
            produced: self.produced.saturating_add(other.produced),
            reach: self.reach.max(other.reach.saturating_sub(self.produced)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_walks_come_to_what_one_comes_to(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut one = Chain::begin(0);
            one.go(&bytes, bytes.len().saturating_sub(2));
            prop_assert_eq!(Chain::walk(&bytes), one);
        }

        #[test]
        fn in_text_two_walks_come_to_what_one_comes_to(
            parts in proptest::collection::vec((1u8..33, any::<u16>(), 1u8..8), 100..600),
        ) {
            let part = |(run, distance, length): (u8, u16, u8)| {
                let [high, low] = (distance % 8192).to_be_bytes();
                let more = (length == 7).then_some(low ^ 0x55);
                let reference = [length << 5 | high].into_iter().chain(more).chain([low]);
                let literals = std::iter::repeat_n(b'a', usize::from(run));
                [run - 1].into_iter().chain(literals).chain(reference).collect::<Vec<u8>>()
            };
            let bytes: Vec<u8> = parts.into_iter().flat_map(part).collect();
            let mut one = Chain::begin(0);
            one.go(&bytes, bytes.len().saturating_sub(2));
            prop_assert_eq!(Chain::walk(&bytes), one);
        }
    }
}
