//! The five fields of a crontab line, handed to the crate `cron` in the form that it takes.
//!
//! The crate takes six or seven fields, counts days of the week from 1 = Sunday, and wants both a day of the month and a
//! day of the week to fit. Crontab has five fields, counts from 0 = Sunday (7 is Sunday too), and when both kinds of days are restricted
//! one that fits is enough. So the fields are read here, and the crate gets plain lists of numbers; it never sees a time
//! zone, only local times as if they were UTC.

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Utc};
use cron::Schedule;

/// The years that the crate knows.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2100;

/// A field: its name, its least and greatest value, and the names that stand for values from the least on.
struct Field(&'static str, u32, u32, &'static [&'static str]);

const MINUTE: Field = Field("minute", 0, 59, &[]);
const HOUR: Field = Field("hour", 0, 23, &[]);
const DAY: Field = Field("day of the month", 1, 31, &[]);
const MONTH: Field =
    Field("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]);
const WEEKDAY: Field = Field("day of the week", 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]);

/// Short forms of whole expressions.
const SHORT: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Local times at which windows begin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    text: String,
    /// Two when both kinds of days are restricted: a time that fits either is one.
    schedules: Vec<Schedule>,
}

impl Expr {
    /// Reads five fields, or a short form such as `@daily`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let long = SHORT.iter().find(|(short, _)| *short == text).map_or(text.as_str(), |(_, long)| long);
        let fields: Vec<&str> = long.split(' ').collect();
        let [minute, hour, day, month, weekday] = *fields.as_slice() else {
            return Err(format!(
                "`{text}` has {} fields; a cron expression has five: minute, hour, day of the month, month, day of the week",
                if text.is_empty() { 0 } else { fields.len() }
            ));
        };
        let (minutes, hours, months) = (MINUTE.list(minute)?, HOUR.list(hour)?, MONTH.list(month)?);
        let (days, weekdays) = (DAY.list(day)?, WEEKDAY.list(weekday)?);
        let weekdays = crate_weekdays(&weekdays);
        let schedule = |days: &str, weekdays: &str| {
            let line = format!("0 {} {} {days} {} {weekdays}", join(&minutes), join(&hours), join(&months));
            line.parse::<Schedule>().map_err(|error| format!("`{text}` is no cron expression: {error}"))
        };
        // crontab: a field that begins with `*` does not restrict
        let schedules = match (day.starts_with('*'), weekday.starts_with('*')) {
            (false, false) => vec![schedule(&join(&days), "*")?, schedule("*", &join(&weekdays))?],
            _ => vec![schedule(&join(&days), &join(&weekdays))?],
        };
        let expr = Self { text: text.clone(), schedules };
        let begin = DateTime::UNIX_EPOCH.naive_utc();
        if expr.at_or_after(begin).is_none() {
            return Err(format!("`{text}` never comes: no such day is in any year"));
        }
        Ok(expr)
    }

    /// As it was written, with single spaces.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The first time that is not before `local`; `None` after the year 2100.
    pub(super) fn at_or_after(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let before = known(local.checked_sub_signed(TimeDelta::nanoseconds(1))?)?;
        self.schedules.iter().filter_map(|s| s.after(&before).next()).min().map(|time| time.naive_utc())
    }

    /// The last time that is not after `local`; `None` when there is none since 1970.
    pub(super) fn at_or_before(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = known(local.checked_add_signed(TimeDelta::nanoseconds(1))?)?;
        self.schedules.iter().filter_map(|s| s.after(&after).next_back()).max().map(|time| time.naive_utc())
    }
}

/// As the crate takes times; `None` for years that it does not know.
fn known(local: NaiveDateTime) -> Option<DateTime<Utc>> {
    let near = YEARS.start().saturating_sub(1)..=YEARS.end().saturating_add(1);
    near.contains(&local.year()).then(|| local.and_utc())
}

/// Days of the week as the crate counts them: 1 = Sunday to 7 = Saturday.
fn crate_weekdays(weekdays: &[u32]) -> Vec<u32> {
    let mut theirs: Vec<u32> = weekdays.iter().map(|day| day % 7 + 1).collect();
    theirs.sort_unstable();
    theirs.dedup();
    theirs
}

fn join(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

impl Field {
    /// The values that a field names, ascending.
    fn list(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut values = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let step = step.parse::<u32>().ok().filter(|step| (1..=self.2).contains(step));
                    (range, Some(step.ok_or_else(|| self.wrong(part))?))
                }
                None => (part, None),
            };
            let (first, last) = match (range, range.split_once('-')) {
                ("*", _) => (self.1, self.2),
                (_, Some((first, last))) => (self.value(first, part)?, self.value(last, part)?),
                // crontab: a single number with a step goes on to the end
                (one, None) if step.is_some() => (self.value(one, part)?, self.2),
                (one, None) => (self.value(one, part)?, self.value(one, part)?),
            };
            if first > last {
                return Err(format!("{}: `{range}` goes backwards; write it as two parts with a comma", self.0));
            }
            values.extend((first..=last).step_by(usize::try_from(step.unwrap_or(1)).unwrap_or(1)));
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    fn value(&self, text: &str, part: &str) -> Result<u32, String> {
        let name = text.to_ascii_lowercase();
        let named = (self.1..).zip(self.3).find(|(_, known)| **known == name).map(|(value, _)| value);
        let number = || text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let value = named.or_else(number).filter(|value| (self.1..=self.2).contains(value));
        value.ok_or_else(|| self.wrong(part))
    }

    fn wrong(&self, part: &str) -> String {
        let names = match (self.3.first(), self.3.last()) {
            (Some(first), Some(last)) => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        format!(
            "{}: `{part}` is not `*`, a number {} to {}{names}, a range a-b, or one of them with a step /n",
            self.0, self.1, self.2
        )
    }
}
