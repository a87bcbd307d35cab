//! When an automated backup may start: windows, their occurrences, and what to do about them now.
//!
//! | written | means |
//! |---|---|
//! | `03:00-05:00` | every day, UTC, as ElastiCache writes it; at least 60 minutes, may go over midnight |
//! | `30 2 * * 1-5 for 2h in Europe/Berlin` | a crontab line of five fields, a length, a time zone; `in UTC` may be left out |
//!
//! A window has *occurrences*, one for each time that it comes. [`decide::decide`] says what to do about them.
//! Rules for windows by cron:
//! - The length is time that passes, not what the clock on the wall shows. An occurrence ends after it, or when the next one
//!   begins: so no two of them overlap.
//! - A beginning that falls into a gap of daylight saving comes at the first instant after the gap. One that comes
//!   twice is the first of the two. Two that fall on the same instant are one occurrence.
//! - Where day of the month and day of the week are both restricted, one that fits is enough, as in crontab.
//! - After the year 2100 there are none.
//!
//! All times are ms since 1970.

pub mod decide;
mod expr;
mod spread;
#[cfg(test)]
mod tests;
mod zone;

use std::fmt;
use std::str::FromStr;

use chrono_tz::Tz;

use self::expr::Expr;
use self::spread::spread;
use crate::duration;

/// The least length of a window of the form `03:00-05:00`, minutes; as in ElastiCache.
pub const DAILY_MINUTES_MIN: u32 = 60;

/// The least length of a window by cron.
pub const LENGTH_MS_MIN: u64 = 60_000;

/// The greatest length of a window by cron: a week.
pub const LENGTH_MS_MAX: u64 = 7 * DAY_MS;

/// How many local times are looked through for one occurrence: the date line can put a clock back or forward by a day of minutes.
const STEPS_MAX: usize = 2 * 1440;

/// The longest interval between starts is looked for among so many occurrences.
const INTERVALS_MAX: usize = 400;

const DAY_MINUTES: u32 = 1440;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// Why the text of a window was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("window `{text}` is refused: {reason}")]
pub struct WindowError {
    text: String,
    reason: String,
}

/// When an automated backup of a cluster may start. [`FromStr`] and [`fmt::Display`] give its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Window(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Every day, UTC: the minute of the day that it begins at, and its length in minutes.
    Daily {
        start: u32,
        minutes: u32,
    },
    Cron(Box<Cron>),
}

#[derive(Debug, Clone, PartialEq)]
struct Cron {
    expr: Expr,
    length_ms: u64,
    zone: Tz,
}

/// One time that a window comes: from `start_ms` on, until before `end_ms`. With the name of the cluster the start is its key: it fires at
/// most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// Its first ms.
    pub start_ms: u64,
    /// The first ms after it.
    pub end_ms: u64,
}

impl Occurrence {
    /// When the backup of this cluster starts in it: in the first half, spread by a stable hash of cluster and occurrence, so that a
    /// fleet with one window does not start at one moment and there is time left to wait for its turn.
    #[must_use]
    pub fn start_for(&self, cluster: &str) -> u64 {
        let half_ms = self.end_ms.saturating_sub(self.start_ms) / 2;
        self.start_ms.saturating_add(spread(&[cluster.as_bytes(), &self.start_ms.to_le_bytes()], half_ms))
    }
}

impl Window {
    /// The window of a cluster that has none: 60 minutes between 22:00 and 06:00 UTC, by a stable hash of its name.
    #[must_use]
    pub fn chosen_for(cluster: &str) -> Self {
        let (first, last) = (22 * 60, 29 * 60);
        let offset = spread(&[b"window", cluster.as_bytes()], last - first + 1);
        let start = u32::try_from((first + offset) % u64::from(DAY_MINUTES)).unwrap_or(0);
        Self(Kind::Daily { start, minutes: DAILY_MINUTES_MIN })
    }

    /// The first occurrence that begins at `at_ms` or later; `None` when there is none that can be told.
    #[must_use]
    pub fn at_or_after(&self, at_ms: u64) -> Option<Occurrence> {
        match &self.0 {
            Kind::Daily { start, minutes } => {
                let today = daily(at_ms / DAY_MS, *start, *minutes)?;
                if today.start_ms >= at_ms { Some(today) } else { daily(at_ms / DAY_MS + 1, *start, *minutes) }
            }
            Kind::Cron(cron) => cron.at_or_after(at_ms),
        }
    }

    /// The occurrence that is open at `at_ms`.
    #[must_use]
    pub fn containing(&self, at_ms: u64) -> Option<Occurrence> {
        let last = match &self.0 {
            Kind::Daily { start, minutes } => {
                let today = daily(at_ms / DAY_MS, *start, *minutes).filter(|today| today.start_ms <= at_ms);
                today.or_else(|| daily((at_ms / DAY_MS).checked_sub(1)?, *start, *minutes))
            }
            Kind::Cron(cron) => cron.at_or_before(at_ms),
        };
        last.filter(|last| at_ms < last.end_ms)
    }

    /// The longest time between the beginnings of two occurrences that follow each other, among those that come next after `at_ms`: what a
    /// monitor may expect between two backups.
    #[must_use]
    pub fn longest_interval_ms(&self, at_ms: u64) -> Option<u64> {
        let (mut last, mut longest) = (self.at_or_after(at_ms)?, None);
        for _ in 0..INTERVALS_MAX {
            let Some(next) = self.at_or_after(last.start_ms.saturating_add(1)) else { break };
            longest = longest.max(Some(next.start_ms.saturating_sub(last.start_ms)));
            last = next;
        }
        longest
    }
}

fn daily(day: u64, start: u32, minutes: u32) -> Option<Occurrence> {
    let start_ms = day.checked_mul(DAY_MS)?.checked_add(u64::from(start) * MINUTE_MS)?;
    Some(Occurrence { start_ms, end_ms: start_ms.checked_add(u64::from(minutes) * MINUTE_MS)? })
}

impl Cron {
    fn at_or_after(&self, at_ms: u64) -> Option<Occurrence> {
        let mut local = self.expr.at_or_after(zone::earliest(self.zone, at_ms)?)?;
        for _ in 0..STEPS_MAX {
            // not before `at_ms` unless this local time exists twice and `at_ms` lies in its second time
            let start_ms = zone::instant(self.zone, local)?;
            if start_ms >= at_ms {
                return self.occurrence(start_ms, local);
            }
            local = self.next(local)?;
        }
        None
    }

    fn at_or_before(&self, at_ms: u64) -> Option<Occurrence> {
        let mut local = self.expr.at_or_before(zone::local(self.zone, at_ms)?)?;
        for _ in 0..STEPS_MAX {
            match self.next(local) {
                Some(next) if zone::instant(self.zone, next)? <= at_ms => local = next,
                _ => return self.occurrence(zone::instant(self.zone, local)?, local),
            }
        }
        None
    }

    /// The occurrence that begins at `start_ms`, which is the instant of `local`.
    fn occurrence(&self, start_ms: u64, mut local: chrono::NaiveDateTime) -> Option<Occurrence> {
        let end_ms = start_ms.checked_add(self.length_ms)?;
        for _ in 0..STEPS_MAX {
            let next_ms = match self.next(local) {
                Some(next) => {
                    local = next;
                    zone::instant(self.zone, next)?
                }
                None => end_ms,
            };
            // in a gap several local times are one instant
            if next_ms > start_ms {
                return Some(Occurrence { start_ms, end_ms: end_ms.min(next_ms) });
            }
        }
        None
    }

    fn next(&self, local: chrono::NaiveDateTime) -> Option<chrono::NaiveDateTime> {
        self.expr.at_or_after(local.checked_add_signed(chrono::TimeDelta::seconds(1))?)
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let kind = if text.contains(" for ") { parse_cron(text) } else { parse_daily(text) };
        // the text may be anything: only its beginning is repeated
        kind.map(Self).map_err(|reason| WindowError { text: text.chars().take(100).collect(), reason })
    }
}

fn parse_daily(text: &str) -> Result<Kind, String> {
    let form = || {
        "write it as hh:mm-hh:mm in UTC, such as 03:00-05:00, or by cron, such as 30 2 * * * for 2h in Europe/Berlin"
            .to_owned()
    };
    let (from, to) = text.split_once('-').ok_or_else(form)?;
    let (start, end) = (minute_of_day(from).ok_or_else(form)?, minute_of_day(to).ok_or_else(form)?);
    let minutes = (end + DAY_MINUTES - start) % DAY_MINUTES;
    if minutes < DAILY_MINUTES_MIN {
        return Err(format!("it is {minutes} minutes long, and must be at least {DAILY_MINUTES_MIN} minutes"));
    }
    Ok(Kind::Daily { start, minutes })
}

fn minute_of_day(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits =
        |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?;
    let (hour, minute): (u32, u32) = (two_digits(hour)?, two_digits(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

fn parse_cron(text: &str) -> Result<Kind, String> {
    let (expr, rest) = text.split_once(" for ").unwrap_or((text, ""));
    let (length, name) = rest.split_once(" in ").unwrap_or((rest, "UTC"));
    let expr = Expr::parse(expr)?;
    let length_ms = duration::parse(length)?;
    if !(LENGTH_MS_MIN..=LENGTH_MS_MAX).contains(&length_ms) {
        let (min, max) = (duration::text(LENGTH_MS_MIN), duration::text(LENGTH_MS_MAX));
        return Err(format!("it is open for {}, and must be for {min} to {max}", duration::text(length_ms)));
    }
    let zone = name.trim().parse().map_err(|_| {
        format!("`{}` is no time zone: write it as the tz database does, such as Europe/Berlin or UTC", name.trim())
    })?;
    Ok(Kind::Cron(Box::new(Cron { expr, length_ms, zone })))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Daily { start, minutes } => {
                let end = (start + minutes) % DAY_MINUTES;
                write!(f, "{:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60)
            }
            Kind::Cron(cron) => {
                write!(f, "{} for {} in {}", cron.expr.text(), duration::text(cron.length_ms), cron.zone)
            }
        }
    }
}
