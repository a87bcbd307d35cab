//! Spans of time, so that what ends can be summed up by when it ends without a sum for every moment.

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// From the begin on, spans are minutes for so long.
const MINUTES: u64 = 120;
/// Then they are hours for so long; what ends later is in one span.
const HOURS: u64 = 24 * 7;

/// The span of what never ends.
const NEVER: u64 = u64::MAX;

/// Numbers spans of time: 0 is what ended before they began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spans {
    begin_ms: u64,
}

impl Spans {
    pub(super) fn new(begin_ms: u64) -> Self {
        Self { begin_ms }
    }

    /// The span in which something ends.
    pub(super) fn of(self, until_ms: Option<u64>) -> u64 {
        let Some(until_ms) = until_ms else { return NEVER };
        let Some(after_ms) = until_ms.checked_sub(self.begin_ms) else { return 0 };
        match (after_ms / MINUTE_MS, after_ms / HOUR_MS) {
            (minute, _) if minute < MINUTES => 1 + minute,
            (_, hour) => 1 + MINUTES + hour.min(HOURS),
        }
    }

    /// The first span that begins after this moment.
    pub(super) fn first_after(self, now_ms: u64) -> u64 {
        match self.of(Some(now_ms)) {
            // nothing is known of when the parts of the last span end
            span if span >= 1 + MINUTES + HOURS => NEVER,
            span => span + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_ended_by_now_is_never_in_a_later_span(begin in 0..1u64 << 42, now in 0..1u64 << 42, until in 0..1u64 << 43) {
            let spans = Spans::new(begin);
            if until <= now {
                prop_assert!(spans.of(Some(until)) < spans.first_after(now));
            }
            prop_assert!(spans.of(None) >= spans.first_after(now));
            prop_assert!(spans.of(Some(until)) <= spans.of(Some(until + 1)));
        }
    }

    #[test]
    fn an_expiry_of_tomorrow_is_compared_today() {
        let spans = Spans::new(1_000_000);
        assert!(spans.of(Some(1_000_000 + 24 * HOUR_MS)) >= spans.first_after(1_000_000 + HOUR_MS));
        assert!(spans.of(Some(1_000_000 + 3 * MINUTE_MS)) >= spans.first_after(1_000_000 + MINUTE_MS));
    }
}
