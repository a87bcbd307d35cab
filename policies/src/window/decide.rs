//! What a scheduler does about the window of one cluster now.
//!
//! Each occurrence that begins while the cluster has its window is *settled* once: it fires, or it is skipped with a
//! reason. The caller keeps both in one table with a unique key of cluster and start, and carries out what is decided only when
//! its write into that table succeeded; so an occurrence fires once, however many schedulers ask. The one change that the table allows is from
//! skipped to fired: a clock that was ahead has skipped what is still to come.

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

/// Why an occurrence is skipped: the one reason there is. A backup that fires and then finds no turn is ended by its
/// `start_by_ms`, with the reason that [`crate::job::Wait`] gives.
pub const NOBODY_RAN: &str = "no daemon was running when it was due";

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
    /// The time now.
    pub now_ms: u64,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Occurrences to note as skipped because of [`NOBODY_RAN`], with an event each; at most [`SKIPS_MAX`], oldest first.
    pub skipped: Vec<Occurrence>,
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
        /// When it is too late to begin, ms since 1970: at the end of the occurrence, or, where what was missed is caught up, when
        /// the next one begins; `None` when there is no next one.
        start_by_ms: Option<u64>,
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
            return Decision { skipped: past, next: Next::Again };
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
    Decision { skipped: past, next }
}

impl Question<'_> {
    /// About an occurrence that is not over.
    fn about(&self, occurrence: Occurrence) -> Next {
        let until_ms = occurrence.start_for(self.cluster);
        if self.now_ms < until_ms { Next::Wait { occurrence, until_ms } } else { self.start(occurrence, false) }
    }

    fn start(&self, occurrence: Occurrence, caught_up: bool) -> Next {
        let start_by_ms = match self.missed {
            Missed::Skip => Some(occurrence.end_ms),
            Missed::CatchUp => self.window.at_or_after(occurrence.start_ms.saturating_add(1)).map(|next| next.start_ms),
        };
        Next::Start { occurrence, caught_up, start_by_ms }
    }
}
