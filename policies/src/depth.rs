//! How many bytes of commands a server may have before it, so that it never waits for us and we never wait long for it.
//!
//! What a server answers is timed: from the moment at which a batch of commands is sent to that at which its last reply is
//! here. The least such time is what the way and the work take when nothing stands in the queue. While answers come
//! within a few times that, more may be under way; when they take much longer, the queue alone has grown, and less may be.

/// A queue that answers within so many times the least time is not too long.
const PATIENCE: u64 = 4;
/// Answers within this time are never too slow, in microseconds: a server's thread may have been put aside for so long.
const QUICK_US: u64 = 20_000;

/// The bytes that may be under way, adapted to how fast they are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    bytes: u64,
    least_bytes: u64,
    most_bytes: u64,
    least_us: Option<u64>,
    /// It grows with every answer until one was slow, and slowly from there on.
    is_settled: bool,
    /// Answers that are still to come of what was sent before it became less.
    sent_before: u64,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// More may be under way: answers come soon.
    More,
    /// As before.
    Same,
    /// Less may be under way: the queue makes answers late.
    Less,
}

impl Depth {
    /// Between these bounds, in bytes; it begins with the lower.
    #[must_use]
    pub const fn new(least_bytes: u64, most_bytes: u64) -> Self {
        Self { bytes: least_bytes, least_bytes, most_bytes, least_us: None, is_settled: false, sent_before: 0 }
    }

    /// How many bytes may be under way.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A batch of `bytes` was answered `us` microseconds after it was sent.
    pub fn answered(&mut self, bytes: u64, us: u64) -> Change {
        let least = self.least_us.map_or(us, |least| least.min(us));
        self.least_us = Some(least);
        if self.sent_before > 0 {
            // it stood in the queue that was found too long
            self.sent_before = self.sent_before.saturating_sub(bytes);
            return Change::Same;
        }
        let good = least.saturating_mul(PATIENCE).max(QUICK_US);
        if us <= good {
            let more = if self.is_settled { bytes.saturating_mul(bytes) / self.bytes.max(1) } else { bytes };
            return self.become_bytes(self.bytes.saturating_add(more));
        }
        if us <= good.saturating_mul(2) {
            return Change::Same;
        }
        self.is_settled = true;
        self.sent_before = self.bytes;
        self.become_bytes(self.bytes / 4 * 3)
    }

    fn become_bytes(&mut self, bytes: u64) -> Change {
        let before = std::mem::replace(&mut self.bytes, bytes.clamp(self.least_bytes, self.most_bytes));
        match self.bytes.cmp(&before) {
            std::cmp::Ordering::Greater => Change::More,
            std::cmp::Ordering::Equal => Change::Same,
            std::cmp::Ordering::Less => Change::Less,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BATCH: u64 = 1000;

    /// Where it ends with a server that works through so many bytes a millisecond, behind a way of so many ms.
    fn settled(depth: &mut Depth, bytes_a_ms: u64, way_ms: u64) -> u64 {
        let mut seen = 0;
        for _ in 0..5000 {
            depth.answered(BATCH, 1000 * (way_ms + depth.bytes() / bytes_a_ms));
            seen = depth.bytes();
        }
        seen
    }

    #[test]
    fn a_long_way_takes_more_than_a_short_one_and_a_server_that_is_slow_gets_less() {
        let limits = || Depth::new(BATCH, 1_000_000);
        let (near, far) = (settled(&mut limits(), 100, 0), settled(&mut limits(), 100, 50));
        // about four times what the first answers took, 10 and 60 ms
        assert!((4_000..=5_000).contains(&near), "{near}");
        assert!((15_000..=20_000).contains(&far), "{far}");
        let mut depth = limits();
        settled(&mut depth, 1000, 0);
        let fast = depth.bytes();
        let slow = settled(&mut depth, 100, 0);
        assert!(slow < fast / 4, "{fast} then {slow}");
    }

    #[test]
    fn one_late_answer_takes_away_once() {
        let mut depth = Depth::new(BATCH, 100 * BATCH);
        for _ in 0..50 {
            depth.answered(BATCH, 100);
        }
        let before = depth.bytes();
        assert_eq!(depth.answered(BATCH, 1_000_000), Change::Less);
        // those that stood behind it are late as well
        assert_eq!(depth.answered(BATCH, 1_000_000), Change::Same);
        assert_eq!(depth.bytes(), before / 4 * 3);
    }

    proptest! {
        #[test]
        fn it_keeps_its_bounds(answers in proptest::collection::vec((0..10_000u64, 0..10_000_000u64), 0..200)) {
            let mut depth = Depth::new(500, 7000);
            for (bytes, us) in answers {
                depth.answered(bytes, us);
                prop_assert!((500..=7000).contains(&depth.bytes()));
            }
        }
    }
}
