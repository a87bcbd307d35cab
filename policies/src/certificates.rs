//! When somebody should be told that a certificate ends.

/// How long before its end a certificate is told of, in days.
pub const TOLD_DAYS: i64 = 14;

const DAY_SECONDS: i64 = 86_400;

/// What to say of the certificate of `what` that ends at `end`, at the time `now` (both in seconds since 1970); `None` while
/// there is time.
#[must_use]
pub fn ends_soon(what: &str, end: i64, now: i64) -> Option<String> {
    let left = end.saturating_sub(now);
    if left >= TOLD_DAYS * DAY_SECONDS {
        return None;
    }
    Some(match left {
        ..=0 => format!("the certificate of {what} has ended"),
        left if left < DAY_SECONDS => format!("the certificate of {what} ends in {} hours", left / 3600),
        left => format!("the certificate of {what} ends in {} days", left / DAY_SECONDS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end() {
        let now = 1_000_000_000;
        let at = |left: i64| ends_soon("h:1", now + left, now);
        assert_eq!(at(14 * DAY_SECONDS), None);
        assert!(at(14 * DAY_SECONDS - 1).unwrap().ends_with("of h:1 ends in 13 days"));
        assert!(at(7300).unwrap().ends_with("ends in 2 hours"));
        assert!(at(0).unwrap().ends_with("has ended") && ends_soon("h", i64::MIN, i64::MAX).is_some());
    }
}
