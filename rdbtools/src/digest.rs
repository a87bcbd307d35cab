//! Digests of names, to find out whether one occurs twice without holding the names.
//!
//! A digest has 128 bits: two keyed hashes (SipHash, as the standard library has it) whose keys are drawn for
//! each [`Digester`], so that nobody can choose names that collide.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::{BuildHasher, Hasher};

use crate::deep::COMPARED_MAX;

/// Makes digests that can be compared with each other.
#[derive(Debug, Clone)]
pub(crate) struct Digester {
    first: RandomState,
    second: RandomState,
}

impl Digester {
    pub(crate) fn new() -> Self {
        Self { first: RandomState::new(), second: RandomState::new() }
    }

    pub(crate) fn begin(&self) -> Digest {
        Digest { first: self.first.build_hasher(), second: self.second.build_hasher() }
    }
}

/// The digest of bytes that come in pieces.
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    first: DefaultHasher,
    second: DefaultHasher,
}

impl Digest {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.first.write(bytes);
        self.second.write(bytes);
    }

    pub(crate) fn value(&self) -> u128 {
        u128::from(self.first.finish()) << 64 | u128::from(self.second.finish())
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
