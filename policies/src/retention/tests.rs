//! Every rule by cases, and whole plans against a slow oracle.

use proptest::prelude::*;

use super::*;

const HOUR_MS: u64 = 3_600_000;
/// 2026-11-25 12:00 UTC, a Wednesday.
const NOW: u64 = 1_795_608_000_000;
const TERMS: Terms = Terms { now_ms: NOW, grace_ms: GRACE_MS, share_max_percent: 100 };

/// An automated snapshot of so many hours ago.
fn aged(hours: u64) -> Snapshot {
    Snapshot {
        id: format!("{hours:06}"),
        source: Some(Source::Automated),
        taken_ms: NOW - hours * HOUR_MS,
        available: true,
        verified: false,
        kept: false,
        leased: false,
        granted: false,
        locked: false,
        expires_ms: None,
    }
}

/// The ages in hours of those that are kept, and the rules that say so.
fn kept(snapshots: &[Snapshot], policy: Policy) -> Vec<(u64, Vec<Rule>)> {
    let judged = plan(snapshots, Cluster::Registered(&policy), TERMS).unwrap();
    let rules = |judged: &Judged| judged.reasons.iter().map(|reason| reason.rule).collect::<Vec<_>>();
    let kept = judged.iter().filter(|judged| !judged.reasons.is_empty());
    kept.map(|judged| (judged.id.parse().unwrap(), rules(judged))).collect()
}

#[test]
fn each_rule_keeps_what_it_says() {
    use Rule::{Daily, Hourly, KeepLast, Limit, Monthly, NewestAvailable as Newest, Weekly, Yearly};
    let ages = [1, 2, 13, 30, 60, 24 * 10, 24 * 40, 24 * 200, 24 * 330, 24 * 700];
    let snapshots = ages.map(aged);
    let none = Policy::default();
    for (policy, expected) in [
        (
            Policy { limit_days: 2, ..none },
            vec![(1, vec![Newest, Limit]), (2, vec![Limit]), (13, vec![Limit]), (30, vec![Limit])],
        ),
        (Policy { keep_last: 2, ..none }, vec![(1, vec![Newest, KeepLast]), (2, vec![KeepLast])]),
        (Policy { hourly: 2, ..none }, vec![(1, vec![Newest, Hourly]), (2, vec![Hourly])]),
        // 13 hours ago is the day before; 30 hours ago is that day, too
        (Policy { daily: 3, ..none }, vec![(1, vec![Newest, Daily]), (13, vec![Daily]), (60, vec![Daily])]),
        (Policy { weekly: 2, ..none }, vec![(1, vec![Newest, Weekly]), (240, vec![Weekly])]),
        (Policy { monthly: 2, ..none }, vec![(1, vec![Newest, Monthly]), (24 * 40, vec![Monthly])]),
        (Policy { yearly: 2, ..none }, vec![(1, vec![Newest, Yearly]), (24 * 330, vec![Yearly])]),
        (
            Policy { yearly: 9, ..none },
            vec![(1, vec![Newest, Yearly]), (24 * 330, vec![Yearly]), (24 * 700, vec![Yearly])],
        ),
        (
            Policy { keep_last: 1, yearly: 1, daily: 2, ..none },
            vec![(1, vec![Newest, KeepLast, Daily, Yearly]), (13, vec![Daily])],
        ),
    ] {
        assert_eq!(kept(&snapshots, policy), expected, "{policy:?}");
    }
}

#[test]
fn the_boundaries_are_exact() {
    let day = Policy { limit_days: 1, ..Policy::default() };
    let [newest, younger, older] = [aged(0), Snapshot { taken_ms: NOW - DAY_MS + 1, ..aged(24) }, aged(24)];
    assert_eq!(kept(&[newest.clone(), younger], day).len(), 2);
    assert_eq!(kept(&[newest, older], day).len(), 1);
    assert_eq!(check_clocks(NOW, NOW + SKEW_MS_MAX), Ok(()));
    assert_eq!(check_clocks(NOW + SKEW_MS_MAX + 1, NOW), Err(Refusal::Clocks { apart_ms: SKEW_MS_MAX + 1 }));
    // a clock that was ahead when it was taken keeps it
    assert_eq!(kept(&[Snapshot { taken_ms: NOW + DAY_MS, ..aged(7) }], day)[0].1, [Rule::NewestAvailable, Rule::Limit]);
}

#[test]
fn what_holds_a_snapshot_is_stronger_than_any_policy() {
    let policy = Policy { keep_last: 1, ..Policy::default() };
    let old = aged(5000);
    for (held, rule) in [
        (Snapshot { source: Some(Source::Manual), ..old.clone() }, Rule::NotAutomated),
        (Snapshot { source: Some(Source::Final), ..old.clone() }, Rule::NotAutomated),
        (Snapshot { source: None, ..old.clone() }, Rule::NotAvailable),
        (Snapshot { available: false, ..old.clone() }, Rule::NotAvailable),
        (Snapshot { kept: true, ..old.clone() }, Rule::Kept),
        (Snapshot { leased: true, ..old.clone() }, Rule::Leased),
        (Snapshot { granted: true, ..old.clone() }, Rule::Granted),
        (Snapshot { locked: true, ..old.clone() }, Rule::Locked),
        (Snapshot { verified: true, ..old.clone() }, Rule::NewestVerified),
    ] {
        let snapshots = [aged(1), held];
        assert_eq!(kept(&snapshots, policy)[1].1, [rule]);
        let removed = plan(&snapshots, Cluster::Removed, TERMS).unwrap();
        assert_eq!(removed[1].reasons.is_empty(), rule == Rule::NewestVerified, "{rule:?} of a removed cluster");
    }
    // one that is not available is no floor, and counts for no rule
    let broken = Snapshot { available: false, ..aged(0) };
    assert_eq!(kept(&[broken, aged(1), aged(2)], policy)[1], (1, vec![Rule::NewestAvailable, Rule::KeepLast]));
    let unknown = plan(&[old], Cluster::Unknown, TERMS).unwrap();
    assert_eq!((unknown[0].verdict, unknown[0].reasons[0].rule), (Verdict::Keep, Rule::UnknownCluster));
}

#[test]
fn a_snapshot_is_marked_then_waits_then_goes_unless_something_keeps_it_again() {
    let policy = Policy { keep_last: 1, ..Policy::default() };
    let old = |expires_ms| Snapshot { expires_ms, ..aged(9) };
    let judge =
        |snapshot: Snapshot| plan(&[aged(1), snapshot], Cluster::Registered(&policy), TERMS).unwrap()[1].verdict;
    assert_eq!(judge(old(None)), Verdict::Mark { expires_ms: NOW + GRACE_MS });
    assert_eq!(judge(old(Some(NOW + 1))), Verdict::Wait { expires_ms: NOW + 1 });
    assert_eq!(judge(old(Some(NOW))), Verdict::Remove);
    assert_eq!(judge(Snapshot { kept: true, ..old(Some(NOW)) }), Verdict::Unmark);
}

#[test]
fn plans_that_are_too_large_or_say_nothing_are_refused() {
    let snapshots: Vec<Snapshot> = (1..=10).map(aged).collect();
    let judge = |keep_last, share_max_percent| {
        let policy = Policy { keep_last, ..Policy::default() };
        plan(&snapshots, Cluster::Registered(&policy), Terms { share_max_percent, ..TERMS })
    };
    assert_eq!(judge(0, 100), Err(Refusal::EmptyPolicy));
    assert_eq!(judge(4, 50), Err(Refusal::Share { marks: 6, automated: 10, percent: 50 }));
    assert!(judge(5, 50).is_ok() && judge(4, 60).is_ok());
    assert!(judge(7, 0).is_ok() && judge(6, 0).is_err(), "few may always go");
}

/// Days since 1970 to year and month, by the algorithm of Howard Hinnant: not the code that is tested.
fn year_month(day: u64) -> (u64, u64) {
    let z = day + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month)
}

/// The period that a time in ms lies in.
type Period = dyn Fn(u64) -> (u64, u64);

/// Whether a snapshot of a registered cluster is kept, by the words of the documentation, looking at all others for each rule.
pub(crate) fn oracle(snapshots: &[Snapshot], policy: &Policy, now_ms: u64, this: &Snapshot) -> bool {
    let newer = |a: &Snapshot, b: &Snapshot| (a.taken_ms, &a.id) > (b.taken_ms, &b.id);
    let newest =
        |of: &dyn Fn(&Snapshot) -> bool| of(this) && !snapshots.iter().any(|other| of(other) && newer(other, this));
    let counts = |snapshot: &Snapshot| snapshot.available && snapshot.source == Some(Source::Automated);
    if !counts(this) || this.kept || this.leased || this.granted || this.locked {
        return true;
    }
    if newest(&|s| s.available) || newest(&|s| s.available && s.verified) {
        return true;
    }
    let before = snapshots.iter().filter(|other| counts(other) && newer(other, this));
    if before.clone().count() < policy.keep_last as usize {
        return true;
    }
    if this.taken_ms + u64::from(policy.limit_days) * DAY_MS > now_ms && policy.limit_days > 0 {
        return true;
    }
    let hour = |ms: u64| (ms / HOUR_MS, 0);
    let day = |ms: u64| (ms / DAY_MS, 0);
    let week = |ms: u64| ((ms / DAY_MS + 3) / 7, 0); // 1970-01-01 was a Thursday
    let month = |ms: u64| year_month(ms / DAY_MS);
    let year = |ms: u64| (year_month(ms / DAY_MS).0, 0);
    let periods: [(u32, &Period); 5] = [
        (policy.hourly, &hour),
        (policy.daily, &day),
        (policy.weekly, &week),
        (policy.monthly, &month),
        (policy.yearly, &year),
    ];
    periods.into_iter().any(|(count, period)| {
        let mut others: Vec<_> = before.clone().map(|other| period(other.taken_ms)).collect();
        others.sort_unstable();
        others.dedup();
        !others.contains(&period(this.taken_ms)) && others.len() < count as usize
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let often = || prop::bool::weighted(0.9);
    let seldom = || prop::bool::weighted(0.05);
    let source = prop_oneof![
        8 => Just(Some(Source::Automated)), 1 => Just(Some(Source::Manual)), 1 => Just(Some(Source::Final)), 1 => Just(None),
    ];
    let marked = prop::option::weighted(0.3, NOW - DAY_MS..NOW + DAY_MS);
    // close together, and over years
    let age_ms = prop_oneof![0..3 * DAY_MS, 0..60 * DAY_MS, 0..1500 * DAY_MS];
    (age_ms, often(), seldom(), [seldom(), seldom(), seldom(), seldom()], source, marked).prop_map(
        |(age_ms, available, verified, [kept, leased, granted, locked], source, expires_ms)| Snapshot {
            id: String::new(),
            taken_ms: NOW - age_ms,
            available,
            verified,
            kept,
            leased,
            granted,
            locked,
            source,
            expires_ms,
        },
    )
}

fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
    prop::collection::vec(snapshot(), 0..60).prop_map(|mut snapshots| {
        for (number, snapshot) in snapshots.iter_mut().enumerate() {
            snapshot.id = format!("{number:03}");
        }
        snapshots
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let count = || prop_oneof![2 => Just(0_u32), 1 => 1_u32..8];
    (0_u32..=35, count(), count(), count(), count(), count(), count()).prop_map(
        |(limit_days, keep_last, hourly, daily, weekly, monthly, yearly)| Policy {
            limit_days: limit_days.saturating_sub(20),
            keep_last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        },
    )
}

proptest! {
    #[test]
    fn plans_are_what_the_oracle_says(snapshots in snapshots(), policy in policy()) {
        match plan(&snapshots, Cluster::Registered(&policy), TERMS) {
            Err(refusal) => {
                prop_assert_eq!(refusal, Refusal::EmptyPolicy);
                prop_assert!(policy.is_empty());
            }
            Ok(judged) => for (snapshot, judged) in snapshots.iter().zip(judged) {
                prop_assert_eq!(&snapshot.id, &judged.id);
                prop_assert_eq!(!judged.reasons.is_empty(), oracle(&snapshots, &policy, NOW, snapshot), "{:?}", snapshot);
                let goes = matches!(judged.verdict, Verdict::Mark { .. } | Verdict::Wait { .. } | Verdict::Remove);
                prop_assert_eq!(goes, judged.reasons.is_empty());
                prop_assert!(judged.verdict != Verdict::Remove || snapshot.expires_ms.is_some_and(|ms| ms <= NOW));
            }
        }
    }

    #[test]
    fn no_plan_takes_the_last_available_or_verified_snapshot_or_more_than_its_share(
        snapshots in snapshots(), policy in policy(), share_max_percent in 0_u64..=100, now_ms: u64,
    ) {
        let terms = Terms { now_ms, share_max_percent, ..TERMS };
        let Ok(judged) = plan(&snapshots, Cluster::Registered(&policy), terms) else { return Ok(()) };
        let stays = |judged: &Judged| matches!(judged.verdict, Verdict::Keep | Verdict::Unmark);
        for counts in [|s: &Snapshot| s.available, |s: &Snapshot| s.available && s.verified] {
            let of: Vec<_> = snapshots.iter().zip(&judged).filter(|(snapshot, _)| counts(snapshot)).collect();
            prop_assert!(of.is_empty() || of.iter().any(|(_, judged)| stays(judged)));
        }
        let unmarked = snapshots.iter().filter(|s| s.available && s.source == Some(Source::Automated) && s.expires_ms.is_none());
        let marks = judged.iter().filter(|judged| matches!(judged.verdict, Verdict::Mark { .. })).count() as u64;
        prop_assert!(marks <= FEW || marks * 100 <= unmarked.count() as u64 * share_max_percent);
    }

    /// What nobody knows or somebody holds never goes, and only automated snapshots of a removed cluster do.
    #[test]
    fn clusters_that_are_unknown_or_removed_lose_nothing_that_is_held(snapshots in snapshots()) {
        for cluster in [Cluster::Removed, Cluster::Unknown] {
            for (snapshot, judged) in snapshots.iter().zip(plan(&snapshots, cluster, TERMS).unwrap()) {
                let free = !(snapshot.kept || snapshot.leased || snapshot.granted || snapshot.locked);
                let automated = snapshot.available && snapshot.source == Some(Source::Automated);
                prop_assert_eq!(judged.reasons.is_empty(), cluster == Cluster::Removed && free && automated);
            }
        }
    }
}
