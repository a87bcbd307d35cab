//! Local times and instants, where clocks are put forward and back.
//!
//! The mapping from local times to instants never goes backwards, so that what comes later by the clock on the wall is
//! never earlier in truth:
//! - a local time that does not exist (clocks were put forward over it) is the first instant after the gap;
//! - a local time that exists twice (clocks were put back) is the first of the two.

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::{GapInfo, Tz};

/// Later instants are not looked at: 2101, where the crate `cron` ends. In ms.
const LAST_MS: u64 = 4_133_980_800_000;

/// What the clock on the wall shows at an instant, in ms since 1970.
pub(super) fn local(zone: Tz, ms: u64) -> Option<NaiveDateTime> {
    let ms = i64::try_from(Some(ms).filter(|ms| *ms < LAST_MS)?).ok()?;
    Some(DateTime::from_timestamp_millis(ms)?.with_timezone(&zone).naive_local())
}

/// The least local time that is mapped to `ms` or later.
pub(super) fn earliest(zone: Tz, ms: u64) -> Option<NaiveDateTime> {
    let here = local(zone, ms)?;
    // at the end of a gap all of the gap is mapped to this instant
    let before =
        ms.checked_sub(1).and_then(|before| local(zone, before)?.checked_add_signed(TimeDelta::milliseconds(1)));
    Some(before.map_or(here, |before| here.min(before)))
}

/// The instant of a local time, in ms since 1970.
pub(super) fn instant(zone: Tz, local: NaiveDateTime) -> Option<u64> {
    let time = match zone.from_local_datetime(&local) {
        LocalResult::Single(time) => time,
        LocalResult::Ambiguous(one, other) => one.min(other),
        LocalResult::None => GapInfo::new(&local, &zone)?.end?,
    };
    u64::try_from(time.timestamp_millis()).ok()
}
