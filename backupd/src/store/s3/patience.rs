//! How long a bucket is waited for. Every limit has a default, and some a variable for networks that need another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Class, Error, Result};

/// How long a body may stand still, and how long an answer may take besides the time for the body: `BACKUPD_STORE_STALL`.
const STALL: Duration = Duration::from_secs(30);

/// How long the parts of an upload are sent again while none arrives: `BACKUPD_STORE_DEADLINE`. Each request has besides its own attempts and
/// times.
const DEADLINE: Duration = Duration::from_secs(300);

/// The wait before the second attempt of a request; doubled for each further one, with jitter: `BACKUPD_STORE_BACKOFF`.
const BACKOFF: Duration = Duration::from_millis(200);

/// The slowest upload that is not given up, bytes per second of each request: `BACKUPD_STORE_SLOWEST`.
const SLOWEST: u64 = 128 << 10;

/// The longest that a variable may ask for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is waited for, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a body may stand still, and how long an answer may take besides the time for the body.
    pub stall: Duration,
    /// How long the parts of an upload are sent again while none arrives.
    pub deadline: Duration,
    /// The wait before the second attempt of a request; doubled for each further one.
    pub backoff: Duration,
    /// The slowest upload that is not given up, bytes per second.
    pub slowest: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { stall: STALL, deadline: DEADLINE, backoff: BACKOFF, slowest: SLOWEST }
    }
}

impl Patience {
    /// The defaults, and what the environment says otherwise.
    ///
    /// # Errors
    /// `Config`, naming the variable.
    pub(super) fn of_environment() -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            stall: variable("BACKUPD_STORE_STALL", default.stall)?,
            deadline: variable("BACKUPD_STORE_DEADLINE", default.deadline)?,
            backoff: variable("BACKUPD_STORE_BACKOFF", default.backoff)?,
            slowest: rate("BACKUPD_STORE_SLOWEST", default.slowest)?,
        })
    }

    /// The time until the answer to a request with a body of `length` bytes must begin.
    pub(super) fn time_for(&self, length: u64) -> Duration {
        self.stall.saturating_add(Duration::from_secs(length.div_ceil(self.slowest.max(1))))
    }
}

fn variable(name: &str, default: Duration) -> Result<Duration> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(default) };
    value.to_str().and_then(duration).ok_or_else(|| {
        Error::new(Class::Config, format!("the variable {name} is no duration up to 24 h"))
            .hint("write it as a number and ms, s or m, such as 90s")
    })
}

fn rate(name: &str, default: u64) -> Result<u64> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(default) };
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|rate| *rate > 0)
        .ok_or_else(|| Error::new(Class::Config, format!("the variable {name} is no number of bytes per second")))
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        _ => return None,
    };
    (!duration.is_zero() && duration <= LONGEST).then_some(duration)
}

/// How many parts may be on their way: fewer when the server asks for patience or fails, more again as parts arrive.
#[derive(Debug, Clone)]
pub(super) struct Window {
    most: usize,
    now: Arc<AtomicUsize>,
}

impl Window {
    pub(super) fn new(most: usize) -> Self {
        Self { most, now: Arc::new(AtomicUsize::new(most)) }
    }

    /// At least one.
    pub(super) fn parts(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// A part failed: half as many.
    pub(super) fn shrink(&self) {
        let halved = |parts: usize| Some((parts / 2).max(1));
        let _always_some = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, halved);
    }

    /// A part arrived: one more.
    pub(super) fn grow(&self) {
        let more = |parts: usize| (parts < self.most).then_some(parts + 1);
        let _full_already = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_limit() {
        for (text, millis) in [("250ms", 250), ("2s", 2000), ("10m", 600_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "0s", "-1s", "1h", "99999999999999999999s", "1441m", "1.5s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_window_halves_grows_by_one_and_never_closes() {
        let window = Window::new(4);
        let seen: Vec<usize> = [true, true, true, false, false, false, false]
            .into_iter()
            .map(|fails| {
                if fails {
                    window.shrink();
                } else {
                    window.grow();
                }
                window.parts()
            })
            .collect();
        assert_eq!(seen, [2, 1, 1, 2, 3, 4, 4]);
    }
}
