//! Digests of names, to find out whether one occurs twice without holding the names.
//!
//! A digest has 128 bits: a keyed hash (SipHash-1-3 with a result of 128 bits) whose key is drawn for each
//! [`Digester`], so that nobody can choose names that collide.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::deep::COMPARED_MAX;

/// Makes digests that can be compared with each other.
#[derive(Clone)]
pub(crate) struct Digester(SipHasher13);

impl Digester {
    pub(crate) fn new() -> Self {
        // what the standard library knows of chance is not told, only what it hashes to
        let random = RandomState::new();
        Self(SipHasher13::new_with_keys(random.hash_one(0u8), random.hash_one(1u8)))
    }

    #[inline]
    pub(crate) fn begin(&self) -> Digest {
        Digest(self.0)
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").finish_non_exhaustive()
    }
}

/// The digest of bytes that come in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(SipHasher13);

impl Digest {
    #[inline]
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Adds a number of fixed length.
    #[inline]
    pub(crate) fn add_number(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    /// Adds another digest, or what is as long.
    #[inline]
    pub(crate) fn add_wide(&mut self, number: u128) {
        self.add(&number.to_le_bytes());
    }

    #[inline]
    pub(crate) fn value(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

/// Digests of one value, at most [`COMPARED_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Seen {
    digests: Vec<u128>,
    overflowed: bool,
}

impl Seen {
    pub(crate) fn clear(&mut self) {
        self.digests.clear();
        self.overflowed = false;
    }

    pub(crate) fn add(&mut self, digest: u128) {
        if self.digests.len() < COMPARED_MAX {
            self.digests.push(digest);
        } else {
            self.overflowed = true;
        }
    }

    /// Whether there were more than are compared.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Whether one of those that are compared occurs twice.
    pub(crate) fn has_twice(&mut self) -> bool {
        self.digests.sort_unstable();
        self.digests.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cuts_of_a_name_change_nothing() {
        let digester = Digester::new();
        let name: Vec<u8> = (0..200).collect();
        let mut whole = digester.begin();
        whole.add(&name);
        for cut in 1..40 {
            let mut pieces = digester.begin();
            name.chunks(cut).for_each(|piece| pieces.add(piece));
            assert_eq!(pieces.value(), whole.value());
        }
        let mut other = digester.begin();
        other.add(&name[1..]);
        assert_ne!(other.value(), whole.value());
    }

    #[test]
    fn one_that_occurs_twice_is_found() {
        let mut seen = Seen::default();
        for digest in [5, 3, 9] {
            seen.add(digest);
        }
        assert!(!seen.has_twice());
        seen.add(3);
        assert!(seen.has_twice());
        seen.clear();
        assert!(!seen.has_twice());
    }
}
