//! One job from its claim to its end: heartbeats beside it, its steps, and what is written when it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policies::job::{Event, Kind, State, Step, Transition};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Crew, about, backup, copy, export, failed_code, keep, removal, restore, verify};
use crate::catalog::{Beat, Catalog, Code, JobRow, NewEvent, Why, Worker};
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::progress::Progress;
use crate::snapshot::care::Care;
use crate::telemetry::Telemetry;

/// The longest time between two heartbeats.
const BEAT_MAX: Duration = Duration::from_secs(2);

/// How often the end of a job is tried to be written while the catalog is away; then its lease has run out anyway.
const END_ATTEMPTS_MAX: u32 = 120;

/// The wait between them.
const END_WAIT: Duration = Duration::from_secs(1);

/// Why a job is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Canceled,
    HandBack,
    Lost,
    Overdue,
}

/// What stops a job, and remembers the first reason.
#[derive(Debug, Clone)]
struct Brake {
    cancel: CancellationToken,
    why: Arc<Mutex<Option<Stop>>>,
}

impl Brake {
    fn pull(&self, why: Stop) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.cancel.cancel();
    }

    fn why(&self) -> Option<Stop> {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job in the hands of a worker.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) catalog: Catalog,
    pub(super) config: Arc<Config>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) care: Care,
    /// As it was last written.
    pub(super) row: JobRow,
    pub(super) progress: Arc<Progress>,
    /// Set when the work is to stop, for whatever reason.
    pub(super) cancel: CancellationToken,
}

impl Held {
    /// Writes that a step begins.
    pub(super) async fn begin(&mut self, step: Step, snapshot_id: &str) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted"));
        }
        let now_ms = self.catalog.now_unix_ms().await?;
        self.row = self.catalog.begin_step(&self.row, step, snapshot_id, now_ms).await?;
        Ok(())
    }

    /// Notes what the job made, for whoever asked for it.
    pub(super) async fn note(&self, result: &serde_json::Value) -> Result<()> {
        self.catalog.note_result(&self.row, &result.to_string()).await
    }
}

/// Does a job that was claimed, and writes how it ended.
pub(super) async fn work(crew: Crew, row: JobRow, hand_back: CancellationToken) {
    let worker = crew.worker();
    // the job may be of a cluster that was made a moment ago, elsewhere
    if let Err(error) = crew.definitions.refresh().await {
        tracing::warn!(error = %error, "what was said of clusters could not be read");
    }
    let mut held = Held {
        catalog: crew.catalog.clone(),
        config: Arc::clone(&crew.config.borrow()),
        telemetry: Arc::clone(&crew.telemetry),
        care: crew.care.clone(),
        row,
        progress: Arc::new(Progress::default()),
        cancel: CancellationToken::new(),
    };
    let brake = Brake { cancel: held.cancel.clone(), why: Arc::default() };
    let beating = tokio::spawn(beat(
        crew.catalog.clone(),
        worker,
        held.row.clone(),
        Arc::clone(&held.progress),
        brake.clone(),
        hand_back,
        held.config.daemon.job_time_max,
    ));
    let began = Instant::now();
    tracing::info!(
        job = held.row.job_id,
        kind = held.row.kind,
        cluster = held.row.cluster,
        fencing = held.row.fencing,
        "job begins"
    );
    let outcome = match held.row.kind() {
        Kind::Backup => Box::pin(backup::run(&mut held)).await,
        Kind::Verify => Box::pin(verify::run(&mut held)).await,
        Kind::Delete => Box::pin(removal::delete(&mut held)).await,
        Kind::Remove => Box::pin(removal::remove(&mut held)).await,
        Kind::Copy => Box::pin(copy::run(&mut held)).await,
        Kind::Export => Box::pin(export::run(&mut held)).await,
        Kind::Keep => Box::pin(keep::run(&mut held)).await,
        Kind::Restore => Box::pin(restore::run(&mut held)).await,
    };
    let stopped = brake.why();
    held.telemetry.job_ended(&held.row, outcome.as_ref().err(), stopped.is_some(), began.elapsed());
    held.telemetry.job_cost(&held.row, &held.progress.cost());
    conclude(&held, outcome, stopped).await;
    beating.abort();
}

/// Says that the job is alive, and listens whether it is to stop. It stops by itself before its lease is over when that cannot be renewed.
async fn beat(
    catalog: Catalog,
    worker: Worker,
    row: JobRow,
    progress: Arc<Progress>,
    brake: Brake,
    hand_back: CancellationToken,
    job_time_max: Option<Duration>,
) {
    let every = (worker.lease / 4).min(BEAT_MAX);
    let mut renewed = Instant::now();
    let overdue = async {
        match job_time_max {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(overdue);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = hand_back.cancelled(), if !brake.cancel.is_cancelled() => brake.pull(Stop::HandBack),
            () = &mut overdue, if !brake.cancel.is_cancelled() => brake.pull(Stop::Overdue),
        }
        let began = Instant::now();
        let beaten = async {
            let now_ms = catalog.now_unix_ms().await?;
            catalog.beat_job(&row, &worker, &beat_of(&progress), now_ms).await
        };
        match tokio::time::timeout(worker.lease / 2, beaten).await {
            Ok(Ok(is_cancel_wanted)) => {
                renewed = began;
                if is_cancel_wanted {
                    brake.pull(Stop::Canceled);
                }
            }
            Ok(Err(error)) if error.class() == Class::Busy && !error.is_retryable() => {
                tracing::warn!(job = row.job_id, error = %error, "the job is stopped");
                return brake.pull(Stop::Lost);
            }
            failed => {
                tracing::warn!(job = row.job_id, failed = ?failed, "no heartbeat could be written");
                if renewed.elapsed() + every + every > worker.lease {
                    brake.pull(Stop::Lost);
                }
            }
        }
    }
}

fn beat_of(progress: &Progress) -> Beat {
    let (phase, rows) = progress.look();
    Beat {
        phase,
        done_bytes: rows.iter().map(|row| row.meter.plain_bytes()).sum(),
        total_bytes: rows.iter().filter_map(|row| row.total_bytes).sum(),
        done_keys: rows.iter().map(|row| row.meter.keys()).sum(),
    }
}

async fn conclude(held: &Held, outcome: Result<Vec<NewEvent>>, stopped: Option<Stop>) {
    let (event, why, done) = match (outcome, stopped) {
        (Ok(events), _) => (Event::Finish, Why::default(), events),
        (Err(error), Some(Stop::Lost)) => {
            tracing::warn!(job = held.row.job_id, error = %error, "the job was lost; another worker goes on with it");
            return;
        }
        (Err(_), Some(Stop::Canceled)) => (Event::Stopped, Why::default(), Vec::new()),
        (Err(_), Some(Stop::HandBack)) => (Event::HandBack, Why::default(), Vec::new()),
        (Err(error), Some(Stop::Overdue)) => {
            let what = format!("the job was ended since it took longer than job_time_max: {}", error.message());
            let error = Error::new(Class::Unforeseen, what)
                .hint("see what held it up; [daemon] job_time_max says how long jobs may take");
            tracing::warn!(job = held.row.job_id, error = %error, "the job failed");
            (Event::Fail { retryable: false }, Why::from(&error), Vec::new())
        }
        (Err(error), None) => {
            tracing::warn!(job = held.row.job_id, class = error.class().code(), error = %error, "the job failed");
            (Event::Fail { retryable: error.is_retryable() }, Why::from(&error), Vec::new())
        }
    };
    for _ in 0..END_ATTEMPTS_MAX {
        match end(held, event, &why, &done).await {
            Ok(()) => return,
            Err(error) if error.is_retryable() => {
                held.telemetry.catalog_failed(&error);
                tokio::time::sleep(END_WAIT).await;
            }
            Err(error) => {
                tracing::warn!(job = held.row.job_id, error = %error, "the end of the job is another worker's to write");
                return;
            }
        }
    }
    tracing::error!(
        job = held.row.job_id,
        "the end of the job could not be written: it is found as lost and looked at again"
    );
}

async fn end(held: &Held, event: Event, why: &Why, done: &[NewEvent]) -> Result<()> {
    let now_ms = held.catalog.now_unix_ms().await?;
    // whether its end was asked for is known best by the row as it is now
    let row = JobRow { cancel_ms: held.catalog.job(&held.row.job_id).await?.cancel_ms, ..held.row.clone() };
    let events = |transition: &Transition| told(&row, event, transition, why, done);
    held.catalog.end_job(&row, event, why, events, now_ms).await.map(drop)
}

fn told(row: &JobRow, event: Event, transition: &Transition, why: &Why, done: &[NewEvent]) -> Vec<NewEvent> {
    match (event, transition.to) {
        (Event::Finish, _) => done.to_vec(),
        (_, State::Canceled) => vec![about(row, Code::JobCanceled, transition.reason)],
        (Event::HandBack, _) => vec![about(row, Code::JobHandedBack, transition.reason)],
        (_, State::Queued) if row.kind() == Kind::Backup => {
            vec![about(row, Code::BackupRetried, format!("{}: {}", transition.reason, why.reason))]
        }
        (_, State::Failed) => {
            vec![about(row, failed_code(row), format!("{} ({})", why.reason, transition.reason))]
        }
        _ => Vec::new(),
    }
}
