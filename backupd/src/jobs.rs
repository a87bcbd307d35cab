//! Jobs: taken from the catalog by workers, done step by step, and given back when a worker ends.
//!
//! A step is written into the catalog before its effect, under the fencing number of its worker. Whoever takes a job after a worker
//! that died finds there what that one had begun, and either goes on behind it or undoes it and begins anew.

mod assist;
mod backup;
mod copy;
mod export;
pub mod follow;
mod keep;
pub mod reach;
mod removal;
pub mod restore;
pub mod said;
pub mod seen;
pub mod submit;
pub mod target;
mod verify;
mod work;

use std::sync::Arc;
use std::time::Duration;

use policies::job::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Code, JobRow, Limits, NewEvent, Why, Worker};
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::live::Definitions;
use crate::snapshot::care::Care;
use crate::telemetry::Telemetry;

/// How often a worker looks for jobs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a worker says that it lives.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// The wait after the catalog could not be reached.
const PAUSE: Duration = Duration::from_secs(2);

/// How many jobs that may begin a worker looks at: more than one, since others take jobs, too.
const CANDIDATES_MAX: u32 = 16;

/// The configuration as it is now.
pub type Live = watch::Receiver<Arc<Config>>;

/// The workers of this process.
#[derive(Debug, Clone)]
pub struct Crew {
    /// Where jobs are.
    pub catalog: Catalog,
    /// What they are about.
    pub config: Live,
    /// What was said of clusters, which is a part of that.
    pub definitions: Arc<Definitions>,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// What captures may cost: made once, so that all jobs of the process share its limits.
    pub care: Care,
    /// Different for every process.
    pub name: String,
}

impl Crew {
    fn worker(&self) -> Worker {
        Worker { name: self.name.clone(), lease: self.config.borrow().daemon.lease }
    }

    /// Takes and does jobs until `stop`; then gives what is running `stop_wait` to end, and hands the rest back.
    pub async fn run(self, stop: CancellationToken) {
        let seats = Arc::new(Semaphore::new(self.config.borrow().daemon.jobs));
        let (mut jobs, hand_back) = (JoinSet::new(), CancellationToken::new());
        let mut said: Option<Instant> = None;
        while !stop.is_cancelled() {
            while jobs.try_join_next().is_some() {}
            let looked = async {
                self.say(&mut said).await?;
                self.look(&seats, &mut jobs, &hand_back).await
            };
            let looked = looked.await;
            let pause = match looked {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    self.telemetry.catalog_failed(&error);
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        // so that nobody waits for it to take anything; when that cannot be written, it is not heard of any more
        drop(self.catalog.worker_left(&self.name).await);
        let wait = self.config.borrow().daemon.stop_wait;
        if tokio::time::timeout(wait, async { while jobs.join_next().await.is_some() {} }).await.is_err() {
            tracing::info!(jobs = jobs.len(), "jobs are handed back");
            hand_back.cancel();
            while jobs.join_next().await.is_some() {}
        }
    }

    /// Says now and then that this worker lives.
    async fn say(&self, said: &mut Option<Instant>) -> Result<()> {
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            self.catalog.worker_seen(&self.name, self.catalog.now_unix_ms().await?).await?;
            *said = Some(Instant::now());
        }
        Ok(())
    }

    async fn look(&self, seats: &Arc<Semaphore>, jobs: &mut JoinSet<()>, hand_back: &CancellationToken) -> Result<()> {
        let now_ms = self.catalog.now_unix_ms().await?;
        self.take_back(now_ms).await?;
        self.telemetry.catalog_answered();
        let limits = Limits::from(&self.config.borrow().daemon);
        while let Ok(seat) = Arc::clone(seats).try_acquire_owned() {
            let Some(held) = self.take(limits, now_ms).await? else { break };
            let (crew, hand_back) = (self.clone(), hand_back.clone());
            jobs.spawn(async move {
                work::work(crew, held, hand_back).await;
                drop(seat);
            });
        }
        assist::take(self, seats, jobs, hand_back).await
    }

    /// Takes one job, if there is one. What is taken changes what else may begin, so it is looked again for the next.
    async fn take(&self, limits: Limits, now_ms: u64) -> Result<Option<JobRow>> {
        for row in self.catalog.ready_jobs(limits, now_ms, CANDIDATES_MAX).await? {
            let held = self.catalog.claim_job(&row, &self.worker(), limits, now_ms).await?;
            if held.is_some() {
                return Ok(held);
            }
        }
        Ok(None)
    }

    /// Jobs whose worker said nothing for longer than its lease are queued again, or ended.
    async fn take_back(&self, now_ms: u64) -> Result<()> {
        for row in self.catalog.lost_jobs(now_ms).await? {
            let event = |transition: &job::Transition| {
                let message = format!("worker {} of {} is gone: {}", row.worker, row.kind, transition.reason);
                let mut events = vec![about(&row, Code::JobLost, message)];
                if transition.to == job::State::Failed {
                    events.push(about(&row, failed_code(&row), transition.reason));
                }
                events
            };
            match self.catalog.end_job(&row, Event::LeaseLost, &Why::default(), event, now_ms).await {
                Ok(_) => {}
                // another worker saw it first, or its worker came back in time
                Err(error) if !error.is_retryable() => tracing::debug!(job = row.job_id, error = %error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What was asked for with a job. What is not understood is never guessed at: a removal would lose its final snapshot.
///
/// # Errors
/// `Version` when this program does not know what it says.
fn parameters<T: DeserializeOwned>(row: &JobRow) -> Result<T> {
    serde_json::from_str(&row.parameters).map_err(|error| {
        let what = format!("what was asked for with job {} is not understood: {error}", row.job_id);
        Error::new(Class::Version, what)
            .hint("let the version of backupd that asked for it do it, or ask again with this one")
    })
}

/// An event about a job.
pub(crate) fn about(row: &JobRow, code: Code, message: impl Into<String>) -> NewEvent {
    NewEvent {
        code,
        cluster: row.cluster.clone(),
        snapshot_name: row.snapshot_name.clone(),
        job_id: row.job_id.clone(),
        message: message.into(),
    }
}

/// What is told when a job of this kind has failed for good.
pub(crate) fn failed_code(row: &JobRow) -> Code {
    match row.kind() {
        job::Kind::Backup => Code::BackupFailed,
        job::Kind::Verify => Code::VerifyFailed,
        job::Kind::Delete => Code::DeleteFailed,
        job::Kind::Remove => Code::RemoveFailed,
        job::Kind::Copy => Code::CopyFailed,
        job::Kind::Export => Code::ExportFailed,
        job::Kind::Keep => Code::KeepFailed,
        job::Kind::Restore => Code::RestoreFailed,
    }
}
