//! Windows by fixed dates, and against a slow oracle that walks through every minute.

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike};
use proptest::prelude::*;

use super::decide::{Decision, Missed, Next, Question, SKIPS_MAX, decide};
use super::*;

fn at(text: &str) -> u64 {
    u64::try_from(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()).unwrap()
}

fn window(text: &str) -> Window {
    text.parse().unwrap()
}

fn utc(ms: u64) -> String {
    DateTime::from_timestamp_millis(i64::try_from(ms).unwrap()).unwrap().format("%Y-%m-%dT%H:%MZ").to_string()
}

fn starts(text: &str, from: &str, count: usize) -> Vec<String> {
    let (window, mut at_ms, mut found) = (window(text), at(from), Vec::new());
    for _ in 0..count {
        let next = window.at_or_after(at_ms).unwrap();
        found.push(utc(next.start_ms));
        at_ms = next.start_ms + 1;
    }
    found
}

#[test]
fn a_daily_window_may_go_over_midnight_and_is_an_hour_at_least() {
    for good in ["03:00-05:00", "23:30-00:30", "00:00-23:59", "05:00-04:59"] {
        assert_eq!(window(good).to_string(), good);
    }
    let night = window("23:30-00:30");
    let open = night.containing(at("2026-11-25T00:29:59Z")).unwrap();
    assert_eq!(
        (utc(open.start_ms), utc(open.end_ms)),
        ("2026-11-24T23:30Z".to_owned(), "2026-11-25T00:30Z".to_owned())
    );
    assert_eq!(night.containing(at("2026-11-25T00:30:00Z")), None);
    assert_eq!(night.at_or_after(open.start_ms), Some(open));
    assert_eq!(utc(night.at_or_after(open.start_ms + 1).unwrap().start_ms), "2026-11-25T23:30Z");
    let first = window("00:30-01:30");
    assert_eq!(first.containing(0), None);
    assert_eq!(night.longest_interval_ms(7), Some(DAY_MS));
}

#[test]
fn refused_windows_say_why() {
    for (text, reason) in [
        ("03:00-03:59", "it is 59 minutes long, and must be at least 60 minutes"),
        ("03:00-03:00", "it is 0 minutes long"),
        ("3:00-5:00", "write it as hh:mm-hh:mm in UTC"),
        ("24:00-01:00", "write it as hh:mm-hh:mm in UTC"),
        ("0 30 2 * * * for 2h in UTC", "has 6 fields; a cron expression has five"),
        (" for 2h", "has 0 fields"),
        ("60 * * * * for 2h", "minute: `60` is not `*`, a number 0 to 59"),
        ("0 0 * * 8 for 2h", "day of the week: `8` is not `*`, a number 0 to 7 or sun to sat"),
        ("0 0 * * fri-mon for 2h", "goes backwards"),
        ("0 0 30 2 * for 2h", "never comes"),
        ("*/0 * * * * for 2h", "minute: `*/0`"),
        ("0 2 * * * for 30s", "it is open for 30s, and must be for 1m to 7d"),
        ("0 2 * * * for 8d", "it is open for 8d"),
        ("0 2 * * * for two hours", "`two hours` is no length of time"),
        ("0 2 * * * for 2h in Berlin", "`Berlin` is no time zone"),
    ] {
        let error = text.parse::<Window>().unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(text), "{error}");
    }
}

#[test]
fn days_of_the_week_and_of_the_month_are_as_in_crontab() {
    // 2026-11-25 is a Wednesday
    for sunday in ["0", "7", "sun", "SUN"] {
        let text = format!("30 2 * * {sunday} for 1h");
        assert_eq!(starts(&text, "2026-11-25T00:00:00Z", 2), ["2026-11-29T02:30Z", "2026-12-06T02:30Z"]);
    }
    assert_eq!(starts("0 0 * * 6 for 1h", "2026-11-25T00:00:00Z", 1), ["2026-11-28T00:00Z"]);
    assert_eq!(
        starts("0 0 27 * 1 for 1h", "2026-11-25T00:00:00Z", 3),
        ["2026-11-27T00:00Z", "2026-11-30T00:00Z", "2026-12-07T00:00Z"]
    );
    assert_eq!(
        starts("0 0 */2 * 1 for 1h", "2026-11-29T01:00:00Z", 1),
        ["2026-12-07T00:00Z"],
        "`*/2` does not restrict"
    );
    assert_eq!(starts("0 0 29 2 * for 1h", "2026-11-25T00:00:00Z", 1), ["2028-02-29T00:00Z"]);
    assert_eq!(starts("@weekly for 1h", "2026-11-25T00:00:00Z", 1), ["2026-11-29T00:00Z"]);
    assert_eq!(
        starts("10/20 4 * jan-feb,dec * for 1h", "2026-11-25T00:00:00Z", 2),
        ["2026-12-01T04:10Z", "2026-12-01T04:30Z"]
    );
}

#[test]
fn clocks_that_are_put_forward_or_back_lose_no_occurrence_and_give_none_twice() {
    // Berlin, 2026-03-29: 02:00 becomes 03:00; 2026-10-25: 03:00 becomes 02:00
    let berlin = "30 2 * * * for 2h in Europe/Berlin";
    assert_eq!(
        starts(berlin, "2026-03-28T00:00:00Z", 3),
        ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]
    );
    assert_eq!(
        starts(berlin, "2026-10-24T00:00:00Z", 3),
        ["2026-10-24T00:30Z", "2026-10-25T00:30Z", "2026-10-26T01:30Z"]
    );
    // the length is time that passes: 02:30 in summer to 03:30 in winter
    let open = window(berlin).containing(at("2026-10-25T02:29:59Z")).unwrap();
    assert_eq!((utc(open.start_ms), utc(open.end_ms)), ("2026-10-25T00:30Z".into(), "2026-10-25T02:30Z".into()));
    // all that falls into the gap, and what comes right after it, is one occurrence
    assert_eq!(
        starts("*/20 2,3 * * * for 1h in Europe/Berlin", "2026-03-29T00:00:00Z", 3),
        ["2026-03-29T01:00Z", "2026-03-29T01:20Z", "2026-03-29T01:40Z"]
    );
    // the second 02:00 of the autumn day is no occurrence, and none is open in it once the hour is over
    assert_eq!(window("0 2 * * * for 1h in Europe/Berlin").containing(at("2026-10-25T01:10:00Z")), None);
    // Apia had no 2011-12-30 at all
    assert_eq!(
        starts("0 12 * * * for 1h in Pacific/Apia", "2011-12-29T00:00:00Z", 3),
        ["2011-12-29T22:00Z", "2011-12-30T10:00Z", "2011-12-30T22:00Z"]
    );
    assert_eq!(window("0 12 * * * for 1h").at_or_after(at("2101-01-01T00:00:00Z")), None);
}

#[test]
fn the_chosen_window_and_the_start_in_it_are_stable_and_spread() {
    // these must never change: clusters would move
    assert_eq!(Window::chosen_for("orders").to_string(), "01:18-02:18");
    assert_eq!(Occurrence { start_ms: 0, end_ms: 3_600_000 }.start_for("orders"), 248_011);
    let (mut hours, mut minutes) = ([0_u32; 24], [0_u32; 30]);
    for number in 0..6000 {
        let cluster = format!("cluster-{number}");
        let chosen = Window::chosen_for(&cluster).at_or_after(0).unwrap();
        let hour = usize::try_from(chosen.start_ms / 3_600_000).unwrap() % 24;
        hours[hour] += 1;
        assert!(hour >= 22 || chosen.end_ms % DAY_MS <= 6 * 3_600_000, "{chosen:?}");
        let start_ms = chosen.start_for(&cluster);
        minutes[usize::try_from((start_ms - chosen.start_ms) / 60_000).unwrap()] += 1;
    }
    assert!(hours.iter().all(|count| *count == 0 || *count < 1000), "{hours:?}");
    assert!(minutes.iter().all(|count| (100..320).contains(count)), "{minutes:?}");
}

const CLUSTER: &str = "orders";

fn question(window: &Window, now_ms: u64) -> Question<'_> {
    Question {
        cluster: CLUSTER,
        window,
        missed: Missed::Skip,
        since_ms: at("2026-11-20T00:00:00Z"),
        settled_ms: Some(at("2026-11-24T03:00:00Z")),
        fired_ms: &[],
        now_ms,
    }
}

#[test]
fn a_window_waits_for_its_start_then_fires_then_waits_for_the_next() {
    let window = window("03:00-05:00");
    let today = window.at_or_after(at("2026-11-25T00:00:00Z")).unwrap();
    let start_ms = today.start_for(CLUSTER);
    let wait = Next::Wait { occurrence: today, until_ms: start_ms };
    let next = |now_ms, settled_ms| decide(&Question { settled_ms, ..question(&window, now_ms) });
    let before = Some(at("2026-11-24T03:00:00Z"));
    for now_ms in [at("2026-11-24T03:00:00Z"), today.start_ms, start_ms - 1] {
        assert_eq!(next(now_ms, before), Decision { skipped: vec![], next: wait });
    }
    for now_ms in [start_ms, today.end_ms - 1] {
        let start = Next::Start { occurrence: today, caught_up: false, start_by_ms: Some(today.end_ms) };
        assert_eq!(next(now_ms, before), Decision { skipped: vec![], next: start });
        assert!(matches!(next(now_ms, Some(today.start_ms)).next, Next::Wait { occurrence, .. } if occurrence > today));
    }
    // what began before the cluster was there is not fired
    let late = Question { since_ms: today.start_ms + 1, ..question(&window, start_ms) };
    assert!(
        matches!(decide(&late), Decision { skipped, next: Next::Wait { occurrence, .. } } if skipped.is_empty() && occurrence > today)
    );
}

#[test]
fn what_was_missed_is_skipped_or_caught_up_once() {
    let window = window("03:00-05:00");
    let now_ms = at("2026-11-27T12:00:00Z");
    let days = ["2026-11-25", "2026-11-26", "2026-11-27"];
    let missed = days.map(|day| window.at_or_after(at(&format!("{day}T00:00:00Z"))).unwrap());
    let skip = decide(&question(&window, now_ms));
    assert_eq!(skip.skipped, missed);
    assert!(matches!(skip.next, Next::Wait { .. }));

    let catch_up = Question { missed: Missed::CatchUp, ..question(&window, now_ms) };
    let newest = missed[2];
    assert_eq!(decide(&catch_up).skipped, skip.skipped[..2]);
    // whatever is caught up may wait for its turn until the next one begins
    let start_by_ms = Some(at("2026-11-28T03:00:00Z"));
    assert_eq!(decide(&catch_up).next, Next::Start { occurrence: newest, caught_up: true, start_by_ms });
    // one that is open comes in its place
    let now_ms = missed[2].end_ms - 1;
    let open = decide(&Question { now_ms, ..catch_up });
    assert_eq!((open.skipped.len(), open.next), (2, Next::Start { occurrence: newest, caught_up: false, start_by_ms }));
    let settled_ms = Some(newest.start_ms);
    let after = decide(&Question { settled_ms, ..catch_up });
    assert!(after.skipped.is_empty() && matches!(after.next, Next::Wait { .. }));
}

#[test]
fn a_clock_that_is_put_back_fires_nothing_twice_and_loses_nothing() {
    let window = window("03:00-05:00");
    let day = |day: &str| window.at_or_after(at(&format!("{day}T00:00:00Z"))).unwrap();
    let today = day("2026-11-25");
    let now_ms = today.end_ms - 1;
    // the clock was ahead until the 30th: nothing was running then, so all until there was skipped
    let ahead = Question { settled_ms: Some(day("2026-11-30").start_ms), ..question(&window, now_ms) };
    let next = Next::Start { occurrence: today, caught_up: false, start_by_ms: Some(today.end_ms) };
    assert_eq!(decide(&ahead), Decision { skipped: vec![], next });
    // and this one was fired
    let fired = Question { fired_ms: &[today.start_ms], ..ahead };
    let Decision { skipped, next: Next::Wait { occurrence, .. } } = decide(&fired) else { panic!() };
    assert_eq!((skipped, occurrence), (vec![], day("2026-11-26")));
}

#[test]
fn a_long_outage_is_told_in_pieces() {
    let window = window("* * * * * for 1m");
    let mut asked = Question { settled_ms: None, ..question(&window, at("2026-11-21T00:00:30Z")) };
    let mut named = Vec::new();
    let last = loop {
        let decision = decide(&asked);
        assert!(decision.skipped.len() <= SKIPS_MAX);
        named.extend(decision.skipped);
        asked.settled_ms = named.last().map(|occurrence: &Occurrence| occurrence.start_ms);
        if decision.next != Next::Again {
            break decision.next;
        }
    };
    assert_eq!(named.len(), 1440);
    assert!(named.is_sorted() && matches!(last, Next::Start { caught_up: false, .. } | Next::Wait { .. }));
}

/// The fields of a cron expression, as lists of values; `None` is `*`.
type Fields = [Option<Vec<u32>>; 5];

fn fits(fields: &Fields, local: NaiveDateTime) -> bool {
    let [minute, hour, day, month, weekday] = fields;
    let one = |field: &Option<Vec<u32>>, value: u32| field.as_ref().is_none_or(|values| values.contains(&value));
    let sunday = local.weekday().num_days_from_sunday();
    let on_weekday = one(weekday, sunday) || (sunday == 0 && one(weekday, 7));
    let on_day = match (day, weekday) {
        (Some(_), Some(_)) => one(day, local.day()) || on_weekday,
        _ => one(day, local.day()) && on_weekday,
    };
    on_day && one(minute, local.minute()) && one(hour, local.hour()) && one(month, local.month())
}

/// All starts of a cron window in some days: by walking through every minute of real time and every minute that the clock
/// on the wall shows for the first time.
fn oracle(fields: &Fields, zone: Tz, from_ms: u64, days: u64) -> Vec<u64> {
    let minute = TimeDelta::minutes(1);
    let shown = |ms: u64| {
        DateTime::from_timestamp_millis(i64::try_from(ms).unwrap()).unwrap().with_timezone(&zone).naive_local()
    };
    // two days before, so that the latest time that was ever shown is known
    let begin_ms = from_ms - 2 * DAY_MS;
    let (mut latest, mut starts) = (shown(begin_ms - MINUTE_MS), Vec::new());
    for ms in (begin_ms..from_ms + days * DAY_MS).step_by(60_000) {
        let now = shown(ms);
        let mut fired = false;
        while latest < now {
            latest += minute;
            fired |= fits(fields, latest);
        }
        if fired && ms >= from_ms {
            starts.push(ms);
        }
    }
    starts
}

fn values(from: u32, to: u32) -> impl Strategy<Value = Option<Vec<u32>>> {
    prop_oneof![
        1 => Just(None),
        2 => prop::collection::btree_set(from..=to, 1..4).prop_map(|set| Some(set.into_iter().collect())),
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    let all_months = prop_oneof![4 => Just(None), 1 => values(1, 12)];
    [values(0, 59).boxed(), values(0, 4).boxed(), values(1, 28).boxed(), all_months.boxed(), values(0, 7).boxed()]
}

fn zone_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Pacific/Kwajalein",
        "America/St_Johns",
        "Asia/Gaza",
        "Africa/Cairo",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Every start of a year, both ways of asking, and that occurrences do not overlap.
    #[test]
    fn windows_by_cron_are_what_the_oracle_says(
        fields in fields(), zone in zone_name(), from_day in 3_u64..24_800, minutes in 1_u64..3000,
    ) {
        let field = |values: &Option<Vec<u32>>| values.as_ref().map_or("*".to_owned(), |values| {
            values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        });
        let expr = fields.iter().map(field).collect::<Vec<_>>().join(" ");
        let text = format!("{expr} for {minutes}m in {zone}");
        let window: Window = text.parse().unwrap();
        prop_assert_eq!(&window.to_string().parse::<Window>().unwrap(), &window);
        let (from_ms, days) = (from_day * DAY_MS, 370);
        let expected = oracle(&fields, zone.parse().unwrap(), from_ms, days);
        let (mut found, mut last) = (Vec::new(), None::<Occurrence>);
        let mut at_ms = from_ms;
        while let Some(next) = window.at_or_after(at_ms).filter(|next| next.start_ms < from_ms + days * DAY_MS) {
            prop_assert!(last.is_none_or(|last| last.end_ms <= next.start_ms));
            let end_ms = last.map_or(0, |last| last.start_ms + minutes * MINUTE_MS);
            prop_assert!(last.is_none_or(|last| last.end_ms == end_ms.min(next.start_ms)), "{text}");
            // every second of them is looked at from inside, too
            if found.len() % 2 == 0 {
                for inside in [next.start_ms, next.end_ms - 1] {
                    prop_assert_eq!(window.containing(inside), Some(next), "{} at {}", text, utc(inside));
                }
                if let Some(last) = last.filter(|last| last.end_ms < next.start_ms) {
                    prop_assert_eq!(window.containing(last.end_ms), None);
                    prop_assert_eq!(window.containing(next.start_ms - 1), None);
                }
            }
            found.push(next.start_ms);
            last = Some(next);
            at_ms = next.start_ms + 1;
        }
        prop_assert!(found == expected, "{text} from {}: {found:?} {expected:?}", utc(from_ms));
    }
}

proptest! {
    #[test]
    fn nothing_panics(text in "[-0-9a-z*/, :@]{0,30}", tail in "( for [0-9]{1,3}[mh]( in [A-Za-z/_]{0,15})?)?", at_ms: u64) {
        for text in [format!("{text}{tail}"), format!("{at_ms} * * * *{tail}")] {
            if let Ok(window) = text.parse::<Window>() {
                let _occurrence = (window.at_or_after(at_ms), window.containing(at_ms), window.to_string());
            }
        }
        for window in ["00:30-02:00", "23:30-01:00", "*/7 * * * * for 1h in Europe/Berlin"].map(window) {
            let _occurrence = (window.at_or_after(at_ms), window.containing(at_ms), window.longest_interval_ms(at_ms));
            let asked = Question { since_ms: at_ms.saturating_sub(DAY_MS), settled_ms: None, ..question(&window, at_ms) };
            prop_assert!(decide(&asked).skipped.len() <= SKIPS_MAX);
        }
    }

    #[test]
    fn daily_windows_hold_what_they_say(start in 0_u32..1440, length in 60_u32..1440, at_ms in 0..40_000 * DAY_MS) {
        let end = (start + length) % 1440;
        let text = format!("{:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60);
        let window = window(&text);
        prop_assert_eq!(window.to_string(), text);
        let next = window.at_or_after(at_ms).unwrap();
        prop_assert!(next.start_ms >= at_ms && next.start_ms < at_ms + DAY_MS);
        prop_assert_eq!(next.start_ms % DAY_MS, u64::from(start) * MINUTE_MS);
        prop_assert_eq!(next.end_ms - next.start_ms, u64::from(length) * MINUTE_MS);
        prop_assert_eq!(window.containing(next.start_ms), Some(next));
        prop_assert_eq!(window.containing(next.end_ms - 1), Some(next));
        prop_assert_eq!(window.containing(next.end_ms), None);
    }
}
