//! The CRC-32C of the parts of an object, where the server computes it too.
//!
//! A server that knows this checksum says so when an upload begins; it then compares each part with what it is told, answers with
//! what it computed itself, and in the end tells that of the whole object ("Checking object integrity in Amazon S3": of the type
//! `FULL_OBJECT`, which follows from the CRCs of the parts, or `COMPOSITE`, which is the CRC of those). It takes a thirtieth of the time of an MD5, which ETags need; servers are slower with
//! other CRCs (docs/performance.md). Any other server
//! is asked once, and its ETags are compared instead (see `etag`). A CRC stands against accidents only; the SHA-256 of the manifest stands
//! against everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm::Crc32Iscsi;

use crate::error::{Class, Error, Result};

/// The server was not asked yet.
const UNASKED: u8 = 0;
/// It said that it knows the checksum.
const KNOWN: u8 = 1;
/// It did not, or refused to be asked.
const UNKNOWN: u8 = 2;

/// Whether one server knows the checksum.
#[derive(Debug, Clone, Default)]
pub(super) struct Checksums(Arc<AtomicU8>);

/// A CRC-32C, and of how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crc {
    value: u64,
    size_bytes: u64,
}

impl Checksums {
    /// `None` before it was asked.
    pub(super) fn are_known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            UNASKED => None,
            state => Some(state == KNOWN),
        }
    }

    /// What it answered. Once it did not know it, nobody asks again.
    pub(super) fn learn(&self, known: bool) {
        self.0.store(if known { KNOWN } else { UNKNOWN }, Ordering::Relaxed);
    }
}

impl Crc {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { value: crc_fast::checksum(Crc32Iscsi, bytes), size_bytes: super::length_of_body(bytes) }
    }

    /// That of the object that these parts make, one after the other.
    pub(super) fn of_parts(parts: &[Self]) -> Self {
        parts.iter().fold(Self { value: 0, size_bytes: 0 }, |before, part| Self {
            value: crc_fast::checksum_combine(Crc32Iscsi, before.value, part.value, part.size_bytes),
            size_bytes: before.size_bytes.saturating_add(part.size_bytes),
        })
    }

    /// Big-endian, as headers have it in base 64. The upper half of `value` is zero.
    fn bytes(self) -> [u8; 4] {
        let [.., a, b, c, d] = self.value.to_be_bytes();
        [a, b, c, d]
    }

    /// As headers have it.
    pub(super) fn header(self) -> String {
        BASE64.encode(self.bytes())
    }

    /// Compares it with what the server answered. Whether it did: it may have left that out.
    ///
    /// # Errors
    /// `StoreUnavailable` when it answered with another.
    pub(super) fn check(self, place: &str, answer: Option<&str>) -> Result<bool> {
        match answer {
            None => Ok(false),
            Some(same) if same == self.header() => Ok(true),
            Some(other) => Err(another(place, &self.header(), other)),
        }
    }
}

/// Compares what the server answered for a whole object, if it did, with the CRCs of its parts: either type will do.
///
/// # Errors
/// `StoreUnavailable`, not worth another attempt, when it answered with another: the object is there by then.
pub(super) fn check_whole(parts: &[Crc], place: &str, answer: Option<&str>) -> Result<()> {
    let full = Crc::of_parts(parts).header();
    let of_crcs = Crc::of(&parts.iter().flat_map(|part| part.bytes()).collect::<Vec<u8>>()).header();
    match answer {
        Some(other) if other != full && other != format!("{of_crcs}-{}", parts.len()) => {
            Err(another(place, &full, other).retryable(false))
        }
        _ => Ok(()),
    }
}

fn another(place: &str, ours: &str, theirs: &str) -> Error {
    let what = format!("{place}: the server stored other bytes than it was sent: its CRC-32C is {theirs}, not {ours}");
    Error::new(Class::StoreUnavailable, what).hint("bytes were changed on their way or in the server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_of_an_object_follows_from_its_parts() {
        // the check value of the catalogue of CRCs
        assert_eq!(Crc::of(b"123456789").value, 0xe306_9283);
        assert_eq!(Crc::of(b"123456789").header(), "4waSgw==");
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for part in [1, 7, 4096, 99_999, 100_000] {
            let parts: Vec<Crc> = bytes.chunks(part).map(Crc::of).collect();
            assert_eq!(Crc::of_parts(&parts), Crc::of(&bytes), "{part}");
        }
        assert_eq!(Crc::of_parts(&[]), Crc::of(b""));
    }

    #[test]
    fn an_answer_is_the_same_or_missing_or_an_error() {
        let crc = Crc::of(b"123456789");
        assert!(crc.check("x", Some("4waSgw==")).unwrap());
        assert!(!crc.check("x", None).unwrap());
        for other in ["4waSgg==", "4waSgw==-2", ""] {
            let error = crc.check("x", Some(other)).unwrap_err();
            assert!(error.class() == Class::StoreUnavailable && error.is_retryable(), "{error}");
        }
    }

    #[test]
    fn a_whole_is_compared_by_either_type() {
        let parts = [Crc::of(b"1234"), Crc::of(b"56789")];
        // the second as another program computes it
        for same in [None, Some("4waSgw=="), Some("wClZWQ==-2")] {
            check_whole(&parts, "x", same).unwrap();
        }
        for other in ["4waSgg==", "wClZWQ==-3", ""] {
            let error = check_whole(&parts, "x", Some(other)).unwrap_err();
            assert!(error.class() == Class::StoreUnavailable && !error.is_retryable(), "{error}");
        }
    }
}
