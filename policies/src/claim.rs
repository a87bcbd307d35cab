//! Who owns the name of a snapshot.
//!
//! A name is claimed by creating claim objects numbered 1, 2, 3 …, each with a conditional write, so that
//! exactly one job gets each number. The highest number owns the name. A new claim may be made only
//! when the one before it is void.

use serde::{Deserialize, Serialize};

/// What is known of the highest claim on a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its number, from 1.
    pub number: u64,
    /// The snapshot it claims the name for has a manifest.
    pub published: bool,
    /// Its job said that it gave up.
    pub released: bool,
    /// Until when it is valid, in ms since 1970; renewed while its job lives.
    pub expires_unix_ms: u64,
    /// Its job ran on this host and its process is gone.
    pub process_gone: bool,
}

/// What a new job may do about the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Create the claim of this number.
    Take {
        /// The number to create.
        number: u64,
        /// Why the name is free.
        reason: &'static str,
    },
    /// A snapshot of this name exists.
    Exists,
    /// Another job is making a snapshot of this name.
    Busy {
        /// When its claim runs out unless it is renewed, ms since 1970.
        expires_unix_ms: u64,
    },
}

/// Decides whether a new job may claim a name, given the highest claim so far.
#[must_use]
pub fn decide(highest: Option<&Claim>, now_unix_ms: u64) -> Verdict {
    let Some(claim) = highest else {
        return Verdict::Take { number: 1, reason: "the name was never claimed" };
    };
    let take = |reason| Verdict::Take { number: claim.number.saturating_add(1), reason };
    if claim.published {
        Verdict::Exists
    } else if claim.released {
        take("the job that claimed it gave up")
    } else if claim.process_gone {
        take("the process that claimed it on this host is gone")
    } else if claim.expires_unix_ms <= now_unix_ms {
        take("the claim ran out without a manifest")
    } else {
        Verdict::Busy { expires_unix_ms: claim.expires_unix_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_only_when_the_claim_before_is_void() {
        let live = Claim { number: 4, published: false, released: false, expires_unix_ms: 1000, process_gone: false };
        assert!(matches!(decide(None, 0), Verdict::Take { number: 1, .. }));
        assert_eq!(decide(Some(&live), 999), Verdict::Busy { expires_unix_ms: 1000 });
        assert!(matches!(decide(Some(&live), 1000), Verdict::Take { number: 5, .. }));
        for void in [Claim { released: true, ..live.clone() }, Claim { process_gone: true, ..live.clone() }] {
            assert!(matches!(decide(Some(&void), 0), Verdict::Take { number: 5, .. }));
        }
        let published = Claim { published: true, released: true, process_gone: true, ..live };
        assert_eq!(decide(Some(&published), u64::MAX), Verdict::Exists);
    }
}
