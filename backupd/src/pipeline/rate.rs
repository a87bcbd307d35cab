//! A limit of bytes per second that several streams share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// So many bytes a second, however many take part.
#[derive(Debug)]
pub struct Rate {
    bytes_per_second: u64,
    /// When what was granted so far has passed.
    passed: Mutex<Instant>,
}

impl Rate {
    /// A limit; `None` is none.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Option<Arc<Self>> {
        let bytes_per_second = bytes_per_second?.max(1);
        Some(Arc::new(Self { bytes_per_second, passed: Mutex::new(Instant::now()) }))
    }

    /// Waits until what was granted before has passed, and grants `bytes` more.
    pub async fn pass(&self, bytes: usize) {
        let from = {
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let (from, then) = self.grant(*passed, Instant::now(), bytes);
            *passed = then;
            from
        };
        sleep_until(from).await;
    }

    /// When `bytes` may pass, and when they have passed. Time in which nothing passed is not saved up.
    fn grant(&self, passed: Instant, now: Instant, bytes: usize) -> (Instant, Instant) {
        let bytes = u128::try_from(bytes).unwrap_or(u128::MAX);
        let nanos = bytes.saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = passed.max(now);
        (from, from.checked_add(takes).unwrap_or(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_what_there_is_and_save_nothing_up() {
        assert!(Rate::new(None).is_none());
        let rate = Rate::new(Some(1000)).unwrap();
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        // whoever asks waits for those before
        assert_eq!(rate.grant(begun, begun, 500), (begun, after(500)));
        assert_eq!(rate.grant(after(500), begun, 250), (after(500), after(750)));
        assert_eq!(rate.grant(after(750), after(10_000), 500), (after(10_000), after(10_500)));
    }
}
