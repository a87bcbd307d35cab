//! When keys expire, in a few steps.

use serde::{Deserialize, Serialize};

/// The ends of the steps, in seconds from the time they are relative to: expired, an hour, a day, a week, 30 days.
pub const STEPS_S: [u64; 5] = [0, 3600, 86_400, 604_800, 2_592_000];

/// What expiries are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelativeTo {
    /// The time of the save, from the aux field `ctime`.
    Ctime,
    /// The time at which the file is looked at, where it does not say when it was saved.
    Now,
}

/// Keys that expire up to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryStep {
    /// The end of the step, in seconds; 0 counts what has expired, none what expires after all other steps.
    pub up_to_s: Option<u64>,
    /// Keys that expire after the step before and up to here.
    pub keys: u64,
}

/// When keys expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryHistogram {
    /// What the steps are relative to.
    pub relative_to: RelativeTo,
    /// That time, in ms since 1970.
    pub at_unix_ms: i64,
    /// All steps, ascending.
    pub steps: Vec<ExpiryStep>,
}

/// Counts expiries.
#[derive(Debug)]
pub(super) struct Expiries {
    relative_to: RelativeTo,
    at_unix_ms: i64,
    keys: [u64; STEPS_S.len() + 1],
}

impl Expiries {
    pub(super) fn new(now_unix_ms: i64) -> Self {
        Self { relative_to: RelativeTo::Now, at_unix_ms: now_unix_ms, keys: [0; STEPS_S.len() + 1] }
    }

    /// The time of the save became known; servers tell it before any key.
    pub(super) fn saved_at(&mut self, ctime: &[u8]) {
        let seconds = std::str::from_utf8(ctime).ok().and_then(|text| text.parse::<i64>().ok());
        if let Some(ms) = seconds.and_then(|seconds| seconds.checked_mul(1000)) {
            (self.relative_to, self.at_unix_ms) = (RelativeTo::Ctime, ms);
        }
    }

    #[inline]
    pub(super) fn add(&mut self, expires_at_ms: i64) {
        let left = expires_at_ms.saturating_sub(self.at_unix_ms).max(0).unsigned_abs();
        let step = STEPS_S.iter().take_while(|end| left > **end * 1000).count();
        if let Some(keys) = self.keys.get_mut(step) {
            *keys += 1;
        }
    }

    pub(super) fn into_histogram(self) -> ExpiryHistogram {
        let ends = STEPS_S.into_iter().map(Some).chain([None]);
        let steps = ends.zip(self.keys).map(|(up_to_s, keys)| ExpiryStep { up_to_s, keys }).collect();
        ExpiryHistogram { relative_to: self.relative_to, at_unix_ms: self.at_unix_ms, steps }
    }
}
