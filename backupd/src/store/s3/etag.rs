//! What the server says of the bytes that it stored.
//!
//! The ETag of an object, or of a part, is the MD5 of its bytes as the server has them, and that of an object of several parts
//! the MD5 of their MD5s and their number, unless the bucket is encrypted with KMS or the server counts otherwise. Which of
//! both holds is learnt from the first answer. MD5 stands against accidents only; the SHA-256 of the manifest stands against
//! everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use md5::{Digest as _, Md5};

use crate::error::{Class, Error, Result};

const UNKNOWN: u8 = 0;
const DIGESTS: u8 = 1;
const OTHERS: u8 = 2;

/// What is known of the ETags of one server.
#[derive(Debug, Clone, Default)]
pub(super) struct Etags(Arc<AtomicU8>);

/// The MD5 of some bytes.
pub(super) fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// The ETag of an object that was made of parts with these MD5s.
pub(super) fn of_parts(parts: &[[u8; 16]]) -> String {
    format!("{}-{}", hex::encode(md5(&parts.concat())), parts.len())
}

/// An ETag without its quotes.
pub(super) fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}

impl Etags {
    /// Whether every answer so far had the digest that was expected.
    pub(super) fn are_digests(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DIGESTS
    }

    /// From here on nothing can be learnt from them.
    pub(super) fn distrust(&self) {
        self.0.store(OTHERS, Ordering::Relaxed);
    }

    /// Compares the answer to a write with what was sent.
    ///
    /// # Errors
    /// `StoreUnavailable` when the server answered with digests until now, and this one is another.
    pub(super) fn check(&self, place: &str, etag: Option<&str>, expected: &[u8; 16]) -> Result<()> {
        let same = etag.map(bare) == Some(hex::encode(expected).as_str());
        match (same, self.0.load(Ordering::Relaxed)) {
            (true, UNKNOWN) => {
                // an answer of a part on its way at the same time may have said otherwise, and that counts
                let _known_already = self.0.compare_exchange(UNKNOWN, DIGESTS, Ordering::Relaxed, Ordering::Relaxed);
                Ok(())
            }
            (true, _) | (false, OTHERS) => Ok(()),
            (false, DIGESTS) if etag.is_some() => {
                let what = format!("{place}: the server stored other bytes than it was sent, by its own digest");
                Err(Error::new(Class::StoreUnavailable, what).hint("bytes were changed on their way or in the server"))
            }
            _ => {
                self.distrust();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_answers_with_digests_must_go_on_to_do_so() {
        let (etags, sum) = (Etags::default(), md5(b"abc"));
        assert_eq!(hex::encode(sum), "900150983cd24fb0d6963f7d28e17f72");
        assert!(!etags.are_digests());
        etags.check("x", Some("\"900150983cd24fb0d6963f7d28e17f72\""), &sum).unwrap();
        assert!(etags.are_digests());
        let error = etags.check("x", Some("\"900150983cd24fb0d6963f7d28e17f73\""), &sum).unwrap_err();
        assert_eq!(error.class(), Class::StoreUnavailable);
    }

    #[test]
    fn etags_that_are_no_digests_prove_nothing_and_fail_nothing() {
        let (etags, sum) = (Etags::default(), md5(b"abc"));
        for etag in [Some("\"opaque\""), Some("\"900150983cd24fb0d6963f7d28e17f72\""), None] {
            etags.check("x", etag, &sum).unwrap();
            assert!(!etags.are_digests(), "{etag:?}");
        }
    }

    #[test]
    fn the_etag_of_parts_is_that_of_their_digests() {
        // as another program computes it
        assert_eq!(of_parts(&[md5(b"abc"), md5(b"def")]), "4c8e93283780e078db9e0c6b9b3f8043-2");
    }
}
