//! When a clock differs from ours so much that somebody should be told.

/// How far the clock of a node may be from ours, in milliseconds, before it is told of.
pub const TOLD_MS: u64 = 5_000;

/// What to say of a node whose clock is so many milliseconds ahead of ours (negative: behind); `None` while it is near.
#[must_use]
pub fn differs(ahead_ms: i64) -> Option<String> {
    let off = ahead_ms.unsigned_abs();
    let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
    (off > TOLD_MS).then(|| format!("its clock is {}.{} s {way} ours", off / 1000, off % 1000 / 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_told_of_beyond_five_seconds_either_way() {
        assert_eq!((differs(5_000), differs(-5_000), differs(0)), (None, None, None));
        assert_eq!(differs(5_001).unwrap(), "its clock is 5.0 s ahead of ours");
        assert_eq!(differs(-3_600_250).unwrap(), "its clock is 3600.2 s behind ours");
        assert!(differs(i64::MIN).is_some() && differs(i64::MAX).is_some());
    }
}
