//! What a scheduler does about the window of one cluster now.
//!
//! Each occurrence that begins while the cluster has its window is *settled* once: it fires, or it is skipped with a
//! reason. The caller keeps both in one table with a unique key of cluster and start, and carries out what is decided only when
//! its write into that table succeeded; so an occurrence fires once, however many schedulers ask. The one change that the table allows is from
//! skipped to fired: a clock that was ahead has skipped what is still to come.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Occurrence, Window};

/// How many skipped occurrences one decision names; more come with the next.
pub const SKIPS_MAX: usize = 500;

/// What becomes of an occurrence in which the backup could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// It is skipped.
    #[default]
    Skip,
    /// The newest of them is started after its end, unless the next one is open already. Older ones are skipped.
    CatchUp,
}

/// Why a backup that is due cannot start at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// The cluster's backup before it is still running.
    StillRunning,
    /// As many backups write to its repository as may at one time.
    RepositoryLimit,
    /// As many captures run on one of its hosts as may at one time.
    HostLimit,
    /// As many jobs run in this daemon as may at one time.
    DaemonLimit,
    /// The daemon is ending.
    ShuttingDown,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StillRunning => "the backup before it was still running",
            Self::RepositoryLimit => "its repository had as many backups as may run at one time",
            Self::HostLimit => "one of its hosts had as many captures as may run at one time",
            Self::DaemonLimit => "the daemon had as many jobs as may run at one time",
            Self::ShuttingDown => "the daemon was ending",
        })
    }
}

/// Why an occurrence passed without a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// No scheduler looked at it while it could start.
    NobodyRan,
    /// It could not start until it ended.
    Held(Hold),
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyRan => f.write_str("no daemon was running when it was due"),
            Self::Held(hold) => hold.fmt(f),
        }
    }
}

/// What is known of one cluster and its window.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// Its window.
    pub window: &'a Window,
    /// What becomes of what was missed.
    pub missed: Missed,
    /// Since when it has this window and automated backups are on. What began before is nobody's concern.
    pub since_ms: u64,
    /// The start of the newest occurrence that is settled.
    pub settled_ms: Option<u64>,
    /// The starts of occurrences that fired, ascending. Those that begin before `now_ms` less the length of the window may be left
    /// out, unless the clock was put back.
    pub fired_ms: &'a [u64],
    /// The start of an occurrence that was due, and why it could not start when a scheduler last looked.
    pub held: Option<(u64, Hold)>,
    /// Why nothing could start now; `None` when it could.
    pub hold: Option<Hold>,
    /// The time now.
    pub now_ms: u64,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Occurrences to note as skipped, with an event each; at most [`SKIPS_MAX`], oldest first.
    pub skipped: Vec<(Occurrence, SkipReason)>,
    /// Then this.
    pub next: Next,
}

/// What is to be done about the occurrence that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Note the occurrence as fired, and start the backup.
    Start {
        /// Which.
        occurrence: Occurrence,
        /// It is over and is caught up.
        caught_up: bool,
    },
    /// It is due but cannot start: note why as `held`, and ask again soon.
    Held {
        /// Which.
        occurrence: Occurrence,
        /// Why.
        hold: Hold,
    },
    /// Nothing to do before `until_ms`.
    Wait {
        /// Which comes next.
        occurrence: Occurrence,
        /// When it is due.
        until_ms: u64,
    },
    /// More was missed than one decision names: note what is skipped, and ask again at once.
    Again,
    /// No occurrence comes any more.
    Never,
}

/// Decides. See the module for what the caller does with it.
///
/// When `settled_ms` is after `now_ms` the clock was put back, or had been ahead: then no past occurrence is looked at
/// (they are settled), and one that comes again fires unless it fired before.
#[must_use]
pub fn decide(question: &Question<'_>) -> Decision {
    let Question { window, now_ms, .. } = *question;
    let from_ms = match question.settled_ms {
        Some(settled_ms) if settled_ms > now_ms => window.containing(now_ms).map_or(now_ms, |open| open.start_ms),
        Some(settled_ms) => settled_ms.saturating_add(1),
        None => 0,
    };
    let (mut past, mut open, mut comes) = (Vec::new(), None, None);
    let mut at_ms = from_ms.max(question.since_ms);
    while let Some(occurrence) = window.at_or_after(at_ms) {
        at_ms = occurrence.start_ms.saturating_add(1);
        if question.fired_ms.binary_search(&occurrence.start_ms).is_ok() {
            // it has fired
        } else if occurrence.end_ms <= now_ms {
            past.push(occurrence);
        } else if occurrence.start_ms <= now_ms {
            open = Some(occurrence);
        } else {
            comes = Some(occurrence);
            break;
        }
        if past.len() > SKIPS_MAX {
            past.truncate(SKIPS_MAX);
            return Decision { skipped: question.reasons(past), next: Next::Again };
        }
        if at_ms == u64::MAX {
            break;
        }
    }
    let caught_up = if open.is_none() && question.missed == Missed::CatchUp { past.pop() } else { None };
    let next = match (open, caught_up) {
        (Some(open), _) => question.about(open),
        (None, Some(occurrence)) => question.start(occurrence, true),
        (None, None) => comes.map_or(Next::Never, |comes| question.about(comes)),
    };
    Decision { skipped: question.reasons(past), next }
}

impl Question<'_> {
    /// About an occurrence that is not over.
    fn about(&self, occurrence: Occurrence) -> Next {
        let until_ms = occurrence.start_for(self.cluster);
        if self.now_ms < until_ms { Next::Wait { occurrence, until_ms } } else { self.start(occurrence, false) }
    }

    fn start(&self, occurrence: Occurrence, caught_up: bool) -> Next {
        match self.hold {
            Some(hold) => Next::Held { occurrence, hold },
            None => Next::Start { occurrence, caught_up },
        }
    }

    fn reasons(&self, past: Vec<Occurrence>) -> Vec<(Occurrence, SkipReason)> {
        let reason = |occurrence: &Occurrence| match self.held {
            Some((start_ms, hold)) if start_ms == occurrence.start_ms => SkipReason::Held(hold),
            _ => SkipReason::NobodyRan,
        };
        past.into_iter().map(|occurrence| (occurrence, reason(&occurrence))).collect()
    }
}
