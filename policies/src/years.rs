//! Years of windows and retention in simulated time: several daemons with clocks of their own that are put forward and
//! back, outages, backups that take long, limits, and changes of daylight saving. What each daemon does is what the caller of
//! [`decide`] is told to do; the table below stands for the unique key of the catalog.
//!
//! Each cluster is simulated alone, so that its seed is enough to see it again:
//! `YEARS_SEED=1 YEARS_CLUSTERS=500 YEARS=10 cargo test --release -p policies years::full -- --ignored --nocapture`

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use crate::retention::tests::oracle;
use crate::retention::{Cluster, Policy, Refusal, Snapshot, Source, Terms, Verdict, check_clocks, plan};
use crate::window::decide::{Missed, Next, Question, decide};
use crate::window::{Occurrence, Window};

const MINUTE: u64 = 60_000;
const DAY: u64 = 86_400_000;
/// 2026-01-01 00:00 UTC.
const BEGIN: u64 = 1_767_225_600_000;
const DAEMONS: usize = 3;

/// Random numbers that depend on the seed alone: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// What was seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    clusters: u64,
    decisions: u64,
    occurrences: u64,
    fired: u64,
    caught_up: u64,
    fired_after_a_wrong_skip: u64,
    skipped: u64,
    late: u64,
    lost_races: u64,
    outages: u64,
    clock_steps: u64,
    plans: u64,
    plans_refused_by_the_clock: u64,
    plans_refused_as_empty: u64,
    judged: u64,
    marked: u64,
    unmarked: u64,
    removed: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        macro_rules! add { ($($field:ident)*) => { $(self.$field += other.$field;)* } }
        add!(clusters decisions occurrences fired caught_up fired_after_a_wrong_skip skipped late
            lost_races outages clock_steps plans plans_refused_by_the_clock plans_refused_as_empty judged marked
            unmarked removed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Fired,
    Skipped,
}

/// One daemon: when it is up, and how far its clock is ahead from when on.
struct Daemon {
    down: Vec<(u64, u64)>,
    ahead: BTreeMap<u64, i64>,
}

impl Daemon {
    fn is_up(&self, at: u64) -> bool {
        !self.down.iter().any(|(from, to)| (*from..*to).contains(&at))
    }

    fn clock(&self, at: u64) -> u64 {
        let ahead = self.ahead.range(..=at).next_back().map_or(0, |(_, ahead)| *ahead);
        at.saturating_add_signed(ahead)
    }
}

fn window(random: &mut Random, cluster: &str) -> Window {
    const ZONES: [&str; 10] = [
        "UTC",
        "Europe/Berlin",
        "Europe/London",
        "America/New_York",
        "America/Santiago",
        "Australia/Lord_Howe",
        "Australia/Sydney",
        "Africa/Cairo",
        "Asia/Kathmandu",
        "America/St_Johns",
    ];
    let text = match random.below(20) {
        0..6 => return Window::chosen_for(cluster),
        6..10 => {
            let (start, length) = (random.below(1440), 60 + random.below(300));
            let end = (start + length) % 1440;
            format!("{:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60)
        }
        10 => format!("{} * * * * for {}m in {}", random.below(60), 20 + random.below(100), random.pick(&ZONES)),
        kind => {
            let days = match kind {
                11..17 => "* * *".to_owned(),
                17 => format!("* * {}", random.below(8)),
                18 => format!("{} * *", 1 + random.below(31)),
                _ => format!("*/2 * {}", random.below(7)),
            };
            // where clocks change
            format!(
                "{} {} {days} for {}m in {}",
                random.below(60),
                random.below(5),
                30 + random.below(300),
                random.pick(&ZONES)
            )
        }
    };
    text.parse().unwrap()
}

fn policy(random: &mut Random) -> Policy {
    let mut some = |limit| if random.one_in(2) { u32::try_from(random.below(limit)).unwrap() } else { 0 };
    Policy {
        limit_days: some(36),
        keep_last: some(6),
        hourly: some(25),
        daily: some(15),
        weekly: some(9),
        monthly: some(13),
        yearly: some(6),
    }
}

/// Outages and clock steps, the more the longer; the last 40 days are calm, so that the end can be looked at.
fn daemon(random: &mut Random, end: u64, counts: &mut Counts) -> Daemon {
    let (mut at, mut down, mut ahead) = (BEGIN, Vec::new(), BTreeMap::new());
    let calm_from = end - 40 * DAY;
    loop {
        at += 1 + random.below(60 * DAY);
        if at >= calm_from {
            break;
        }
        if random.one_in(4) {
            counts.clock_steps += 1;
            // mostly right, else wrong by up to ten minutes, or up to five days, in either direction
            let scale = *random.pick(&[0, 0, 10 * MINUTE, 5 * DAY]);
            let wrong = i64::try_from(if scale == 0 { 0 } else { random.below(scale) }).unwrap();
            ahead.insert(at, if random.one_in(2) { wrong } else { -wrong });
        } else {
            counts.outages += 1;
            let scale = *random.pick(&[10 * MINUTE, DAY, 12 * DAY]);
            let to = (at + random.below(scale)).min(calm_from);
            down.push((at, to));
        }
    }
    ahead.insert(calm_from, 0);
    Daemon { down, ahead }
}

/// One cluster over the years.
struct World {
    random: Random,
    cluster: String,
    window: Window,
    missed: Missed,
    policy: Policy,
    /// Nothing goes wrong here, so nothing may be skipped.
    calm: bool,
    table: BTreeMap<u64, Settled>,
    running_until: u64,
    snapshots: Vec<Snapshot>,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let cluster = format!("cluster-{seed}");
        Self {
            window: window(&mut random, &cluster),
            missed: if random.one_in(2) { Missed::Skip } else { Missed::CatchUp },
            policy: policy(&mut random),
            calm: random.one_in(10),
            random,
            cluster,
            table: BTreeMap::new(),
            running_until: 0,
            snapshots: Vec::new(),
            counts: Counts { clusters: 1, ..Counts::default() },
        }
    }

    fn run(mut self, years: u64) -> Counts {
        let end = BEGIN + years * 365 * DAY;
        let daemons: Vec<Daemon> = (0..DAEMONS)
            .map(|_| match self.calm {
                true => Daemon { down: Vec::new(), ahead: BTreeMap::new() },
                false => daemon(&mut self.random, end, &mut self.counts),
            })
            .collect();
        // a daemon looks when it starts, when its clock steps, and when it said that it would
        let mut wakes: BTreeSet<(u64, usize)> = (0..DAEMONS).map(|number| (BEGIN, number)).collect();
        for (number, daemon) in daemons.iter().enumerate() {
            wakes.extend(daemon.down.iter().map(|(_, up)| (*up, number)));
            wakes.extend(daemon.ahead.keys().map(|at| (*at, number)));
        }
        while let Some((at, number)) = wakes.pop_first().filter(|(at, _)| *at < end) {
            let daemon = &daemons[number];
            if daemon.is_up(at) {
                let clock = daemon.clock(at);
                let wait = self.look(at, clock);
                wakes.insert((at + wait, number));
            }
        }
        while self.look(end, end) == 0 {}
        self.check(end);
        self.counts
    }

    /// One look of a daemon at `at`, with its clock. Returns after how long it looks again.
    fn look(&mut self, at: u64, clock: u64) -> u64 {
        self.counts.decisions += 1;
        let fired = |(start, settled): (&u64, &Settled)| (*settled == Settled::Fired).then_some(*start);
        let fired_ms: Vec<u64> = self.table.range(clock.saturating_sub(8 * DAY)..).filter_map(fired).collect();
        let decision = decide(&Question {
            cluster: &self.cluster,
            window: &self.window,
            missed: self.missed,
            since_ms: BEGIN,
            settled_ms: self.table.last_key_value().map(|(start, _)| *start),
            fired_ms: &fired_ms,
            now_ms: clock,
        });
        for occurrence in decision.skipped {
            assert!(occurrence.end_ms <= clock, "skipped before it ended");
            let before = self.table.insert(occurrence.start_ms, Settled::Skipped);
            assert_eq!(before, None, "settled twice");
        }
        match decision.next {
            Next::Start { occurrence, caught_up, start_by_ms } => {
                self.start(occurrence, caught_up, clock);
                self.work(at, clock, start_by_ms.unwrap());
                1
            }
            Next::Wait { until_ms, .. } => {
                assert!(until_ms > clock);
                until_ms - clock + self.random.below(MINUTE)
            }
            Next::Again => 0,
            Next::Never => panic!("{} ends", self.window),
        }
    }

    fn start(&mut self, occurrence: Occurrence, caught_up: bool, clock: u64) {
        let open = (occurrence.start_for(&self.cluster)..occurrence.end_ms).contains(&clock);
        assert_eq!(open, !caught_up, "started outside of its time");
        assert!(!caught_up || self.missed == Missed::CatchUp);
        assert!(self.claim(occurrence), "decided to fire what has fired");
        if self.random.one_in(3) {
            // another daemon decided the same by the same rows
            assert!(!self.claim(occurrence));
            self.counts.lost_races += 1;
        }
        self.counts.caught_up += u64::from(caught_up);
    }

    /// The backup: it waits for the one before it, now and then for a limit, and not for longer than it may.
    fn work(&mut self, at: u64, clock: u64, start_by: u64) {
        assert!(start_by > clock, "too late from the beginning");
        let limits = if !self.calm && self.random.one_in(5) { self.random.below(6 * 60 * MINUTE) } else { 0 };
        let wait = self.running_until.saturating_sub(at) + limits;
        if clock + wait > start_by {
            self.counts.late += 1;
            return;
        }
        let (at, clock) = (at + wait, clock + wait);
        let longest = if self.calm { 5 * MINUTE } else { 180 * MINUTE };
        self.running_until = at + self.random.below(longest);
        self.snapshots.push(Snapshot {
            id: format!("{:06}", self.counts.plans + self.counts.plans_refused_by_the_clock),
            source: Some(if self.random.one_in(40) { Source::Manual } else { Source::Automated }),
            taken_ms: clock,
            available: !self.random.one_in(50),
            verified: self.random.one_in(15),
            kept: self.random.one_in(100),
            leased: false,
            granted: false,
            locked: false,
            expires_ms: None,
        });
        self.retain(at, clock);
    }

    /// Notes an occurrence as fired, as the unique key of the table allows it: once.
    fn claim(&mut self, occurrence: Occurrence) -> bool {
        match self.table.get(&occurrence.start_ms) {
            Some(Settled::Fired) => return false,
            Some(Settled::Skipped) => self.counts.fired_after_a_wrong_skip += 1,
            None => {}
        }
        self.table.insert(occurrence.start_ms, Settled::Fired);
        true
    }

    /// A retention run, compared with the oracle and carried out.
    fn retain(&mut self, at: u64, clock: u64) {
        if check_clocks(clock, at).is_err() {
            self.counts.plans_refused_by_the_clock += 1;
            return;
        }
        self.counts.plans += 1;
        for snapshot in &mut self.snapshots {
            snapshot.leased = self.random.one_in(60);
        }
        let terms = Terms { now_ms: clock, grace_ms: DAY, share_max_percent: 100 };
        let judged = match plan(&self.snapshots, Cluster::Registered(&self.policy), terms) {
            Ok(judged) => judged,
            Err(refusal) => {
                assert_eq!((refusal, self.policy.is_empty()), (Refusal::EmptyPolicy, true));
                self.counts.plans_refused_as_empty += 1;
                // nothing else takes them away here
                self.snapshots.clear();
                return;
            }
        };
        let before = self.snapshots.clone();
        let mut gone = BTreeSet::new();
        for (snapshot, judged) in self.snapshots.iter_mut().zip(&judged) {
            self.counts.judged += 1;
            let stays = oracle(&before, &self.policy, clock, snapshot);
            assert_eq!(stays, !judged.reasons.is_empty(), "{snapshot:?} {:?} at {clock}", self.policy);
            match judged.verdict {
                Verdict::Keep | Verdict::Wait { .. } => {}
                Verdict::Mark { expires_ms } => {
                    self.counts.marked += 1;
                    snapshot.expires_ms = Some(expires_ms);
                }
                Verdict::Unmark => {
                    self.counts.unmarked += 1;
                    snapshot.expires_ms = None;
                }
                Verdict::Remove => {
                    assert!(!stays && snapshot.expires_ms.is_some_and(|ms| ms <= clock));
                    self.counts.removed += 1;
                    gone.insert(snapshot.id.clone());
                }
            }
        }
        self.snapshots.retain(|snapshot| !gone.contains(&snapshot.id));
        for counts in [|s: &Snapshot| s.available, |s: &Snapshot| s.available && s.verified] {
            assert!(!before.iter().any(counts) || self.snapshots.iter().any(counts), "the last one is gone");
        }
    }

    /// Every occurrence of the years is settled, and nothing else is.
    fn check(&mut self, end: u64) {
        let mut at = BEGIN;
        let mut seen = 0;
        while let Some(occurrence) = self.window.at_or_after(at).filter(|occurrence| occurrence.end_ms <= end) {
            at = occurrence.start_ms + 1;
            seen += 1;
            match self.table.get(&occurrence.start_ms) {
                Some(Settled::Fired) => self.counts.fired += 1,
                Some(Settled::Skipped) => self.counts.skipped += 1,
                None => panic!("{} of {}: {occurrence:?} is lost", self.cluster, self.window),
            }
        }
        self.counts.occurrences += seen;
        for start in self.table.keys() {
            assert_eq!(self.window.containing(*start).unwrap().start_ms, *start, "no occurrence begins there");
        }
        if self.calm {
            assert_eq!((self.counts.skipped, self.counts.late, self.counts.caught_up), (0, 0, 0));
        }
    }
}

fn simulate(seed: u64, clusters: u64, years: u64) -> Counts {
    let mut counts = Counts::default();
    for cluster in 0..clusters {
        counts += World::new(seed.wrapping_add(cluster)).run(years);
    }
    // each thing that the simulation is for has happened
    assert!(counts.fired > counts.occurrences / 2 && counts.caught_up > 0 && counts.fired_after_a_wrong_skip > 0);
    assert!(counts.skipped > 0 && counts.late > 0 && counts.removed > 0 && counts.unmarked > 0);
    counts
}

#[test]
fn no_window_of_two_years_is_fired_twice_or_lost_and_retention_is_as_the_oracle_says() {
    simulate(1, 30, 2);
}

#[test]
#[ignore = "takes minutes; the command is in docs/windows.md"]
fn full() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, years, clusters) = (number("YEARS_SEED", 1), number("YEARS", 10), number("YEARS_CLUSTERS", 500));
    println!("seed {seed}, {clusters} clusters, {years} years: {:#?}", simulate(seed, clusters, years));
}
