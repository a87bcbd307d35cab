//! When a capture costs its server too much.

/// What a capture may cost; `None`: as much as it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that the server's child copied because they were written to (`current_cow_size`).
    pub copied_bytes_max: Option<u64>,
    /// The server's `used_memory` and what its child copied, in bytes.
    pub memory_bytes_max: Option<u64>,
    /// What the server holds resident and its child copied, in percent of its machine's memory.
    pub memory_percent_max: Option<u64>,
    /// Keys that the server evicted since the capture began.
    pub evictions_max: Option<u64>,
    /// From the begin of the capture, in seconds.
    pub seconds_max: Option<u64>,
}

/// What a server says of itself. Bytes; 0 where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// `current_cow_size`
    pub copied: u64,
    /// `used_memory`
    pub used: u64,
    /// `used_memory_rss`
    pub resident: u64,
    /// `total_system_memory`
    pub system: u64,
    /// `evicted_keys`: since the server started.
    pub evicted_keys: u64,
}

/// Why a capture has to end, `seconds` after its begin, when the server was as in `before` and is as in `now`; `None`
/// while it costs no more than it may.
#[must_use]
pub fn exceeded(budget: &Budget, before: &Load, now: &Load, seconds: u64) -> Option<String> {
    let over = |value: u64, max: Option<u64>| max.filter(|max| value > *max);
    let mib = |bytes: u64| bytes >> 20;
    if let Some(max) = over(now.copied, budget.copied_bytes_max) {
        return Some(format!("its child copied {} MiB, more than the {} MiB of copied_max", mib(now.copied), mib(max)));
    }
    let used = now.used.saturating_add(now.copied);
    if let Some(max) = over(used, budget.memory_bytes_max) {
        let (copied, max) = (mib(now.copied), mib(max));
        return Some(format!(
            "it uses {} MiB with {copied} MiB copied, more than the {max} MiB of memory_max",
            mib(used)
        ));
    }
    let resident = now.resident.saturating_add(now.copied);
    // percent of a machine without memory are not known
    let percent = resident.saturating_mul(100).checked_div(now.system).unwrap_or(0);
    if let Some(max) = over(percent, budget.memory_percent_max) {
        return Some(format!(
            "it holds {} MiB with {} MiB copied, {percent} % of the {} MiB of its machine, more than the {max} % of memory_percent_max",
            mib(resident),
            mib(now.copied),
            mib(now.system)
        ));
    }
    // a counter that went back belongs to another run of the server
    let evicted = now.evicted_keys.saturating_sub(before.evicted_keys);
    if let Some(max) = over(evicted, budget.evictions_max) {
        return Some(format!(
            "it evicted {evicted} keys since the capture began, more than the {max} of evictions_max"
        ));
    }
    over(seconds, budget.seconds_max)
        .map(|max| format!("the capture runs for {seconds} s, longer than the {max} s of time_max"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn load() -> Load {
        Load { copied: 10 * MIB, used: 500 * MIB, resident: 600 * MIB, system: 1000 * MIB, evicted_keys: 7 }
    }

    #[test]
    fn each_limit_ends_a_capture_only_when_it_is_passed_and_names_the_numbers() {
        let none = Budget::default();
        let cases = [
            (Budget { copied_bytes_max: Some(10 * MIB), ..none }, Load { copied: 11 * MIB, ..load() }, "copied 11 MiB"),
            (Budget { memory_bytes_max: Some(510 * MIB), ..none }, Load { used: 501 * MIB, ..load() }, "uses 511 MiB"),
            (
                Budget { memory_percent_max: Some(61), ..none },
                Load { resident: 610 * MIB, ..load() },
                "62 % of the 1000",
            ),
            (Budget { evictions_max: Some(0), ..none }, Load { evicted_keys: 8, ..load() }, "evicted 1 keys"),
        ];
        for (budget, over, words) in cases {
            assert_eq!(exceeded(&budget, &load(), &load(), 9), None, "{words}");
            let why = exceeded(&budget, &load(), &over, 9).unwrap();
            assert!(why.contains(words), "{why}");
        }
        let budget = Budget { seconds_max: Some(9), ..none };
        assert_eq!(exceeded(&budget, &load(), &load(), 9), None);
        assert!(exceeded(&budget, &load(), &load(), 10).unwrap().contains("10 s"));
    }

    #[test]
    fn what_is_not_known_or_not_limited_ends_nothing() {
        let most = Load { copied: u64::MAX, used: u64::MAX, resident: u64::MAX, system: 1, evicted_keys: u64::MAX };
        assert_eq!(exceeded(&Budget::default(), &load(), &most, u64::MAX), None);
        let budget = Budget { memory_percent_max: Some(1), evictions_max: Some(0), ..Budget::default() };
        let silent = Load { system: 0, evicted_keys: 0, ..load() };
        assert_eq!(exceeded(&budget, &load(), &silent, 0), None, "another run, and no word of the machine");
    }
}
