//! Which snapshots are kept, each with its reasons, and which go.
//!
//! Only automated snapshots expire. One is kept while at least one rule says so; a rule never makes another weaker. Two
//! phases: a snapshot that nothing keeps is *marked* with the time at which it goes, and goes when that time has come and
//! still nothing keeps it. The calendar is UTC; a period without snapshots uses up none of a rule's count.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::fmt;

use chrono::DateTime;
use serde::{Deserialize, Serialize};

/// The most days of `snapshot_retention_limit`, as in ElastiCache.
pub const LIMIT_DAYS_MAX: u32 = 35;

/// How long a snapshot stays marked before it goes, unless another time is asked for, ms: a day.
pub const GRACE_MS: u64 = DAY_MS;

/// How far this machine's clock and the store's may be apart, ms.
pub const SKEW_MS_MAX: u64 = 300_000;

/// The share of a cluster's automated snapshots that one plan may mark, in percent, unless another is asked for.
pub const SHARE_MAX_PERCENT: u64 = 50;

/// A plan that marks so few is never refused for its share.
pub const FEW: u64 = 3;

const DAY_MS: u64 = 86_400_000;

/// The rules of one cluster; 0 switches a rule off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Keep what is younger than this many days (`snapshot_retention_limit`).
    #[serde(skip)]
    pub limit_days: u32,
    /// Keep this many of the newest.
    pub keep_last: u32,
    /// Keep the newest of each of so many hours.
    pub hourly: u32,
    /// Keep the newest of each of so many days.
    pub daily: u32,
    /// Keep the newest of each of so many ISO weeks, which begin on Monday.
    pub weekly: u32,
    /// Keep the newest of each of so many months.
    pub monthly: u32,
    /// Keep the newest of each of so many years.
    pub yearly: u32,
}

impl Policy {
    /// Whether no rule keeps anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a snapshot was made, as in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// By a window.
    Automated,
    /// Somebody asked for it.
    Manual,
    /// Before its cluster was removed.
    Final,
}

/// What is known of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, which no other has.
    pub id: String,
    /// Why it was made; `None` when it cannot be read.
    pub source: Option<Source>,
    /// When its capture began, ms since 1970.
    pub taken_ms: u64,
    /// It can be restored. What cannot is never touched, and counts for nothing.
    pub available: bool,
    /// It was read or started whole when it was last verified.
    pub verified: bool,
    /// It was asked to be kept.
    pub kept: bool,
    /// A job reads it.
    pub leased: bool,
    /// Others may read it.
    pub granted: bool,
    /// The store refuses to delete it.
    pub locked: bool,
    /// It is marked: from this time on it may go, ms since 1970.
    pub expires_ms: Option<u64>,
}

/// What is known of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster<'a> {
    /// It is registered, and these are its rules.
    Registered(&'a Policy),
    /// It was removed: its automated snapshots expire.
    Removed,
    /// Nothing is known of it here: nothing of it is touched.
    Unknown,
}

/// The rule behind a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// It is not automated.
    NotAutomated,
    /// It cannot be restored, or not be read.
    NotAvailable,
    /// Its cluster is not known here.
    UnknownCluster,
    /// It was asked to be kept.
    Kept,
    /// A job reads it.
    Leased,
    /// Others may read it.
    Granted,
    /// The store refuses to delete it.
    Locked,
    /// The newest that is available of a registered cluster.
    NewestAvailable,
    /// The newest that is verified of a registered cluster.
    NewestVerified,
    /// Younger than `snapshot_retention_limit`.
    Limit,
    /// Among the newest.
    KeepLast,
    /// The newest of its hour.
    Hourly,
    /// The newest of its day.
    Daily,
    /// The newest of its week.
    Weekly,
    /// The newest of its month.
    Monthly,
    /// The newest of its year.
    Yearly,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The rule.
    pub rule: Rule,
    /// In words.
    pub text: String,
}

impl Reason {
    fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self { rule, text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It stays; its mark is taken back, since something keeps it again.
    Unmark,
    /// Nothing keeps it: it is marked to go at this time, ms since 1970.
    Mark {
        /// From when on it may go.
        expires_ms: u64,
    },
    /// Nothing keeps it, and it is marked to go at this time.
    Wait {
        /// From when on it may go.
        expires_ms: u64,
    },
    /// Nothing keeps it, and its time has come.
    Remove,
}

/// A snapshot with its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The id of the snapshot.
    pub id: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why it is kept: every rule that says so.
    pub reasons: Vec<Reason>,
}

/// The terms of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The time now, ms since 1970.
    pub now_ms: u64,
    /// How long a snapshot stays marked before it goes, ms.
    pub grace_ms: u64,
    /// The share of the automated snapshots that are not marked yet, in percent, that the plan may mark.
    pub share_max_percent: u64,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule keeps anything.
    #[error("the policy is empty: it would keep no automated snapshot at all")]
    EmptyPolicy,
    /// More would expire than is allowed.
    #[error("{marks} of {automated} automated snapshots would expire, more than {percent} percent")]
    Share {
        /// How many would be marked.
        marks: u64,
        /// Of how many.
        automated: u64,
        /// The share that is allowed.
        percent: u64,
    },
    /// The clocks disagree.
    #[error("the clocks of this machine and of the store are {} s apart", .apart_ms / 1000)]
    Clocks {
        /// How far they are apart, ms.
        apart_ms: u64,
    },
}

/// Refuses to judge by age where the clocks of this machine and of the store disagree. Both in ms since 1970.
///
/// # Errors
/// [`Refusal::Clocks`] when they are more than [`SKEW_MS_MAX`] apart.
pub fn check_clocks(now_ms: u64, store_now_ms: u64) -> Result<(), Refusal> {
    let apart_ms = now_ms.abs_diff(store_now_ms);
    if apart_ms > SKEW_MS_MAX { Err(Refusal::Clocks { apart_ms }) } else { Ok(()) }
}

/// Judges all snapshots of one cluster, in their order.
///
/// # Errors
/// Why the plan is refused as a whole.
pub fn plan(snapshots: &[Snapshot], cluster: Cluster<'_>, terms: Terms) -> Result<Vec<Judged>, Refusal> {
    let expires_any = snapshots.iter().any(is_counted);
    if expires_any && matches!(cluster, Cluster::Registered(policy) if policy.is_empty()) {
        return Err(Refusal::EmptyPolicy);
    }
    let mut reasons: Vec<Vec<Reason>> = snapshots.iter().map(|snapshot| own_reasons(snapshot, cluster)).collect();
    if let Cluster::Registered(policy) = cluster {
        floors(snapshots, &mut reasons);
        rules(snapshots, policy, terms.now_ms, &mut reasons);
    }
    let judge = |(snapshot, reasons): (&Snapshot, Vec<Reason>)| {
        let verdict = verdict(snapshot, &reasons, terms);
        Judged { id: snapshot.id.clone(), verdict, reasons }
    };
    let judged: Vec<Judged> = snapshots.iter().zip(reasons).map(judge).collect();
    match cluster {
        Cluster::Registered(_) => check_share(snapshots, &judged, terms).map(|()| judged),
        Cluster::Removed | Cluster::Unknown => Ok(judged),
    }
}

fn verdict(snapshot: &Snapshot, reasons: &[Reason], terms: Terms) -> Verdict {
    match (reasons.is_empty(), snapshot.expires_ms) {
        (false, None) => Verdict::Keep,
        (false, Some(_)) => Verdict::Unmark,
        (true, None) => Verdict::Mark { expires_ms: terms.now_ms.saturating_add(terms.grace_ms) },
        (true, Some(expires_ms)) if expires_ms <= terms.now_ms => Verdict::Remove,
        (true, Some(expires_ms)) => Verdict::Wait { expires_ms },
    }
}

fn check_share(snapshots: &[Snapshot], judged: &[Judged], terms: Terms) -> Result<(), Refusal> {
    let unmarked = |snapshot: &&Snapshot| is_counted(snapshot) && snapshot.expires_ms.is_none();
    let automated = snapshots.iter().filter(unmarked).count() as u64;
    let marks = judged.iter().filter(|judged| matches!(judged.verdict, Verdict::Mark { .. })).count() as u64;
    let percent = terms.share_max_percent;
    if marks > FEW && marks.saturating_mul(100) > automated.saturating_mul(percent) {
        return Err(Refusal::Share { marks, automated, percent });
    }
    Ok(())
}

/// What the rules look at.
fn is_counted(snapshot: &Snapshot) -> bool {
    snapshot.available && snapshot.source == Some(Source::Automated)
}

/// What keeps a snapshot whatever others there are.
fn own_reasons(snapshot: &Snapshot, cluster: Cluster<'_>) -> Vec<Reason> {
    let source = match snapshot.source {
        Some(Source::Automated) => None,
        Some(Source::Manual) => Some(Reason::new(Rule::NotAutomated, "manual: it never expires")),
        Some(Source::Final) => Some(Reason::new(Rule::NotAutomated, "final: it never expires")),
        None => Some(Reason::new(Rule::NotAvailable, "nobody can tell why it was made")),
    };
    let holds = [
        (!snapshot.available, Rule::NotAvailable, "it is not available"),
        (cluster == Cluster::Unknown, Rule::UnknownCluster, "its cluster is not known here"),
        (snapshot.kept, Rule::Kept, "it was asked to be kept"),
        (snapshot.leased, Rule::Leased, "a job is reading it"),
        (snapshot.granted, Rule::Granted, "others were granted to read it"),
        (snapshot.locked, Rule::Locked, "the store has it locked"),
    ];
    let held = holds.into_iter().filter(|(holds, ..)| *holds).map(|(_, rule, text)| Reason::new(rule, text));
    source.into_iter().chain(held).collect()
}

/// Indexes of the snapshots that `counts`, newest first.
fn newest_first(snapshots: &[Snapshot], counts: impl Fn(&Snapshot) -> bool) -> Vec<(usize, &Snapshot)> {
    let mut indexed: Vec<_> = snapshots.iter().enumerate().filter(|(_, snapshot)| counts(snapshot)).collect();
    indexed.sort_by(|(_, a), (_, b)| (b.taken_ms, &b.id).cmp(&(a.taken_ms, &a.id)));
    indexed
}

/// What no policy crosses.
fn floors(snapshots: &[Snapshot], reasons: &mut [Vec<Reason>]) {
    let available = newest_first(snapshots, |snapshot| snapshot.available);
    let verified = available.iter().find(|(_, snapshot)| snapshot.verified);
    let floors = [
        (available.first(), Rule::NewestAvailable, "the newest that is available"),
        (verified, Rule::NewestVerified, "the newest that is verified"),
    ];
    for (found, rule, text) in floors {
        if let Some(reasons) = found.and_then(|(index, _)| reasons.get_mut(*index)) {
            reasons.push(Reason::new(rule, text));
        }
    }
}

/// The rules of the policy.
fn rules(snapshots: &[Snapshot], policy: &Policy, now_ms: u64, reasons: &mut [Vec<Reason>]) {
    let counted = newest_first(snapshots, is_counted);
    let mut say = |index: usize, rule, text: String| {
        if let Some(reasons) = reasons.get_mut(index) {
            reasons.push(Reason::new(rule, text));
        }
    };
    let limit_ms = u64::from(policy.limit_days) * DAY_MS;
    for (number, (index, snapshot)) in (1..).zip(&counted) {
        if now_ms.saturating_sub(snapshot.taken_ms) < limit_ms {
            say(*index, Rule::Limit, format!("younger than {} days", policy.limit_days));
        }
        if number <= policy.keep_last {
            say(*index, Rule::KeepLast, format!("{number} of the {} newest", policy.keep_last));
        }
    }
    let periods = [
        (policy.hourly, Rule::Hourly, "%Y-%m-%d %H:00", "hour"),
        (policy.daily, Rule::Daily, "%Y-%m-%d", "day"),
        (policy.weekly, Rule::Weekly, "%G-W%V", "week"),
        (policy.monthly, Rule::Monthly, "%Y-%m", "month"),
        (policy.yearly, Rule::Yearly, "%Y", "year"),
    ];
    for (count, rule, form, unit) in periods {
        let (count, mut seen) = (usize::try_from(count).unwrap_or(usize::MAX), BTreeSet::new());
        for (index, snapshot) in &counted {
            if seen.len() >= count {
                break;
            }
            let period = period(snapshot.taken_ms, form);
            if seen.insert(period.clone()) {
                say(*index, rule, format!("newest of {unit} {period}"));
            }
        }
    }
}

/// The name of the period that a time lies in.
fn period(ms: u64, form: &str) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| "beyond the calendar".to_owned(), |time| time.format(form).to_string())
}
