//! The life of a job: which state follows which, and what becomes of a job whose worker is gone.
//!
//! ```text
//! queued ──claim──► running ──finish──► succeeded
//!   │  ▲              │ │ └──fail─────► failed, or queued again when another attempt may help
//!   │  └──hand back───┘ │
//!   │  └──lease lost────┤
//!   └──cancel───────────┴──stopped────► canceled
//! ```
//!
//! The shell writes the event first and then has its effect, so a job that died is found with the step that it had begun.

use serde::{Deserialize, Serialize};

/// How often a job is begun before it is given up. A backup whose last worker died is begun once more, only to see what that one left.
pub const ATTEMPTS_MAX: u32 = 4;

/// The wait before the second attempt, ms; twice as long each time.
pub const RETRY_FIRST_MS: u64 = 5_000;

/// The longest wait before another attempt, ms.
pub const RETRY_MAX_MS: u64 = 300_000;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Make a snapshot.
    Backup,
    /// Read a snapshot again.
    Verify,
    /// Delete a snapshot.
    Delete,
    /// Remove a cluster, after a last snapshot where one was asked for.
    Remove,
    /// Copy a snapshot into another repository.
    Copy,
    /// Write a snapshot as plain RDB files.
    Export,
    /// Keep a snapshot, or let it go.
    Keep,
    /// Restore a snapshot into a new cluster.
    Restore,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Backup, Self::Verify, Self::Delete, Self::Remove, Self::Copy, Self::Export, Self::Keep, Self::Restore];

    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Verify => "verify",
            Self::Delete => "delete",
            Self::Remove => "remove",
            Self::Copy => "copy",
            Self::Export => "export",
            Self::Keep => "keep",
            Self::Restore => "restore",
        }
    }

    /// The steps, in order. A job of this kind is in at most one of them.
    #[must_use]
    pub fn steps(self) -> &'static [Step] {
        match self {
            Self::Backup => &[Step::Capture, Step::Record],
            Self::Verify => &[Step::Verify, Step::Record],
            Self::Delete => &[Step::Delete, Step::Record],
            Self::Remove => &[Step::Capture, Step::Verify, Step::Remove],
            Self::Copy => &[Step::Copy, Step::Record],
            Self::Export => &[Step::Export, Step::Record],
            Self::Keep => &[Step::Keep, Step::Record],
            Self::Restore => &[Step::Restore, Step::Record],
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One effect of a job. It is written down before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// All shards are read, stored, and published by the manifest.
    Capture,
    /// Every byte is read again.
    Verify,
    /// Manifest and objects are deleted.
    Delete,
    /// The cluster is noted as removed.
    Remove,
    /// Objects and manifest are written into another repository.
    Copy,
    /// Files are written in the clear.
    Export,
    /// The note that it is kept, or not any more, is written.
    Keep,
    /// Nodes are filled and verified.
    Restore,
    /// The catalog is told what is true.
    Record,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Capture,
        Self::Verify,
        Self::Delete,
        Self::Remove,
        Self::Copy,
        Self::Export,
        Self::Keep,
        Self::Restore,
        Self::Record,
    ];

    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Verify => "verify",
            Self::Delete => "delete",
            Self::Remove => "remove",
            Self::Copy => "copy",
            Self::Export => "export",
            Self::Keep => "keep",
            Self::Restore => "restore",
            Self::Record => "record",
        }
    }
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody works on it.
    Queued,
    /// A worker holds it, for as long as it says so.
    Running,
    /// It did what it was for.
    Succeeded,
    /// It did not, and is not tried again.
    Failed,
    /// Somebody asked for its end.
    Canceled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Canceled];

    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing more happens to it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The state of this name.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A worker takes it.
    Claim,
    /// The worker begins a step.
    Begin {
        /// Which.
        step: Step,
    },
    /// All steps are done.
    Finish,
    /// A step failed.
    Fail {
        /// Trying again can help.
        retryable: bool,
    },
    /// The worker ends in good order and gives it back.
    HandBack,
    /// The worker said nothing for longer than its lease.
    LeaseLost,
    /// Somebody asks for its end.
    Cancel,
    /// The worker stopped because of that.
    Stopped,
    /// The time in which it had to begin is over.
    Late,
}

impl Event {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Begin { step } => step.as_str(),
            Self::Finish => "finish",
            Self::Fail { .. } => "fail",
            Self::HandBack => "hand-back",
            Self::LeaseLost => "lease-lost",
            Self::Cancel => "cancel",
            Self::Stopped => "stopped",
            Self::Late => "late",
        }
    }
}

/// A job, as far as a decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// What it is for.
    pub kind: Kind,
    /// Where it is.
    pub state: State,
    /// The step that was begun last.
    pub step: Option<Step>,
    /// How often it was begun, the present attempt included.
    pub attempts: u32,
    /// Somebody asked for its end.
    pub is_cancel_wanted: bool,
    /// It must not be begun after this time, ms since 1970; `None` also when it has begun once, and so may begin again.
    pub start_by_unix_ms: Option<u64>,
}

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// Its state from now on.
    pub to: State,
    /// It is not begun before this time, ms since 1970; 0 when that does not change.
    pub not_before_unix_ms: u64,
    /// Whether the attempt counts.
    pub counts: bool,
    /// Why, for the log of the job.
    pub reason: &'static str,
}

/// Why an event cannot happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {} cannot {}: {reason}", .state.as_str(), .event.as_str())]
pub struct Forbidden {
    /// Where the job is.
    pub state: State,
    /// What was to happen.
    pub event: Event,
    /// Why not.
    pub reason: &'static str,
}

/// The table of transitions.
///
/// # Errors
/// [`Forbidden`] when the event cannot happen in this state; nothing may then be done.
pub fn next(job: &Job, event: Event, now_unix_ms: u64) -> Result<Transition, Forbidden> {
    let to = |to, reason| Ok(Transition { to, not_before_unix_ms: 0, counts: true, reason });
    let forbidden = |reason| Err(Forbidden { state: job.state, event, reason });
    let late = job.start_by_unix_ms.is_some_and(|by| by < now_unix_ms);
    match (job.state, event) {
        (State::Queued, Event::Claim) if job.is_cancel_wanted => forbidden("its end was asked for"),
        (State::Queued, Event::Claim) if late => forbidden("the time in which it had to begin is over"),
        (State::Queued, Event::Claim) => to(State::Running, "a worker took it"),
        (State::Queued, Event::Cancel) => to(State::Canceled, "it was canceled before it began"),
        (State::Queued, Event::Late) if late => to(State::Failed, "it could not begin in its time"),
        (State::Queued, Event::Late) => forbidden("it may still begin"),
        (State::Running, Event::Begin { step }) if !job.kind.steps().contains(&step) => {
            forbidden("it has no such step")
        }
        (State::Running, Event::Begin { step }) if is_behind(job, step) => forbidden("it is past that step"),
        (State::Running, Event::Begin { .. }) => to(State::Running, "the step begins"),
        (State::Running, Event::Finish) if job.step != job.kind.steps().last().copied() => {
            forbidden("its last step was not begun")
        }
        (State::Running, Event::Finish) => to(State::Succeeded, "all steps are done"),
        (State::Running, Event::Fail { retryable }) => Ok(failed(job, retryable, now_unix_ms)),
        (State::Running, Event::Cancel) => match job.step {
            // what is half deleted is no snapshot any more
            Some(Step::Delete | Step::Remove) => forbidden("it has begun what cannot be undone, and ends by itself"),
            Some(Step::Keep | Step::Record) => forbidden("it is done but for its note"),
            Some(Step::Capture | Step::Verify | Step::Copy | Step::Export | Step::Restore) | None => {
                to(State::Running, "its worker is told to stop")
            }
        },
        (State::Running, Event::Stopped) if job.is_cancel_wanted => {
            to(State::Canceled, "it was stopped as was asked for")
        }
        (State::Running, Event::Stopped) => forbidden("nobody asked for its end"),
        (State::Running, Event::HandBack) if job.is_cancel_wanted => {
            to(State::Canceled, "it was stopped as was asked for")
        }
        (State::Running, Event::HandBack) => Ok(Transition {
            to: State::Queued,
            not_before_unix_ms: now_unix_ms,
            counts: false,
            reason: "its worker ended in good order",
        }),
        (State::Running, Event::LeaseLost) => Ok(lost(job, now_unix_ms)),
        (State::Queued, _) => forbidden("nobody works on it"),
        (State::Running, Event::Claim) => forbidden("a worker has it"),
        (State::Running, Event::Late) => forbidden("it has begun"),
        (State::Succeeded | State::Failed | State::Canceled, _) => forbidden("it has ended"),
    }
}

fn is_behind(job: &Job, step: Step) -> bool {
    let place = |step| job.kind.steps().iter().position(|known| *known == step);
    job.step.is_some_and(|at| place(step) < place(at))
}

fn failed(job: &Job, retryable: bool, now_unix_ms: u64) -> Transition {
    let end = |reason| Transition { to: State::Failed, not_before_unix_ms: 0, counts: true, reason };
    if job.is_cancel_wanted {
        return Transition { to: State::Canceled, reason: "it failed while it was being canceled", ..end("") };
    }
    if !retryable {
        return end("trying again does not help");
    }
    if job.attempts >= ATTEMPTS_MAX {
        return end("it was tried as often as may be");
    }
    let again = now_unix_ms.saturating_add(wait_ms(job.attempts));
    Transition { to: State::Queued, not_before_unix_ms: again, counts: true, reason: "it is tried again after a wait" }
}

/// A job whose worker is gone. It had begun in its time, so it may begin again after it.
fn lost(job: &Job, now_unix_ms: u64) -> Transition {
    let (to, reason) = if job.is_cancel_wanted {
        (State::Canceled, "its worker is gone, and its end was asked for")
    } else if job.attempts == ATTEMPTS_MAX && job.kind == Kind::Backup {
        (State::Queued, "its workers died as often as may be; what the last one left is looked at")
    } else if job.attempts >= ATTEMPTS_MAX {
        (State::Failed, "its workers died as often as may be")
    } else {
        (State::Queued, "its worker is gone")
    };
    Transition { to, not_before_unix_ms: if to == State::Queued { now_unix_ms } else { 0 }, counts: true, reason }
}

/// The wait after attempt number `attempts`, ms.
fn wait_ms(attempts: u32) -> u64 {
    let doubled = RETRY_FIRST_MS.checked_shl(attempts.saturating_sub(1)).unwrap_or(RETRY_MAX_MS);
    doubled.min(RETRY_MAX_MS)
}

/// Whether this attempt may only end what the ones before it began: take a snapshot that was published for what it is, or clean up.
#[must_use]
pub fn only_looks(attempts: u32) -> bool {
    attempts > ATTEMPTS_MAX
}

/// What a new worker finds of the attempt before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// There was no attempt, or it left nothing.
    Nothing,
    /// The snapshot of that attempt has its manifest.
    Published,
    /// A claim on the name, or objects that no manifest names.
    Unfinished,
}

/// What a new worker does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// Begin with the first step.
    Begin,
    /// The effect is there: go on behind it.
    GoOn,
    /// Void the claim and remove the objects, then begin.
    CleanAndBegin,
}

/// How a backup goes on that somebody else may have begun.
#[must_use]
pub fn resume(remains: Remains) -> (Resume, &'static str) {
    match remains {
        Remains::Nothing => (Resume::Begin, "nothing was begun"),
        Remains::Published => (Resume::GoOn, "the attempt before this one had published the snapshot"),
        Remains::Unfinished => (Resume::CleanAndBegin, "the attempt before this one left a claim or objects"),
    }
}

mod wait;
pub use wait::{Beside, Wait, wait};

#[cfg(test)]
mod tests;
