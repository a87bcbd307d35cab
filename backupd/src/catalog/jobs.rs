//! Jobs and the log of their steps. What may follow what is decided by [`policies::job`]; each change is written together with
//! its line of the log, and only while the job is still as it was read.

mod asked;
mod list;
mod named;
mod queue;
mod row;

use std::time::Duration;

use policies::job::{self, Event, Kind, State, Step, Transition};
use sqlx::AnyConnection;

pub use self::asked::Added;
pub use self::list::JobFilter;
pub use self::row::{Asked, JobRow, NewJob, StepRow};
use self::row::{COLUMNS, insert_job, insert_step, update_job};
use super::events::insert_event;
use super::offers::withdraw_offers;
use super::schedules::note_outcome;
use super::{Catalog, NewEvent, later, signed};
use crate::error::{Class, Error, Result};

/// The most jobs of one answer.
pub const JOBS_MAX: u32 = 1000;

/// How often a job that goes on meanwhile is looked at, to be canceled.
const CANCEL_LOOKS: u32 = 5;

/// How many jobs may run at the same time, over all daemons that share the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one repository.
    pub repository: u32,
    /// Whose source is on one host.
    pub host: u32,
}

/// Who works on jobs, and how long it may say nothing.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Different for every process.
    pub name: String,
    /// How long it holds a job without a heartbeat.
    pub lease: Duration,
}

/// What a heartbeat tells.
#[derive(Debug, Clone, Default)]
pub struct Beat {
    /// What is done now, in words.
    pub phase: String,
    /// Bytes of RDB so far.
    pub done_bytes: u64,
    /// Bytes in all, as far as they are known; 0 when not.
    pub total_bytes: u64,
    /// Keys so far.
    pub done_keys: u64,
}

/// How a job ended, for its row.
#[derive(Debug, Clone, Default)]
pub struct Why {
    /// The class of the error; empty when there was none.
    pub class: String,
    /// Words; those of the transition when empty.
    pub reason: String,
}

impl From<&Error> for Why {
    fn from(error: &Error) -> Self {
        Self { class: error.class().code().to_owned(), reason: error.message().to_owned() }
    }
}

impl Catalog {
    /// Adds a job, with events about it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn add_job(&self, job: &NewJob, events: &[NewEvent], now_unix_ms: u64) -> Result<()> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            insert_job(&mut transaction, job, now_unix_ms).await?;
            insert_events(&mut transaction, events, now_unix_ms).await?;
            transaction.commit().await
        };
        done.await.map_err(|e| self.error("add a job to", &e))
    }

    /// A job.
    ///
    /// # Errors
    /// `NotFound`, and those of the database.
    pub async fn job(&self, id: &str) -> Result<JobRow> {
        let query = const_format(&["SELECT ", COLUMNS, " FROM jobs WHERE job_id = $1"]);
        let row = sqlx::query_as(query).bind(id).fetch_optional(&self.pool).await;
        row.map_err(|e| self.error("read a job of", &e))?.ok_or_else(|| {
            Error::new(Class::NotFound, format!("there is no job `{id}`"))
                .hint("`backupd job list` shows what there is")
        })
    }

    /// The steps of a job, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn job_steps(&self, id: &str) -> Result<Vec<StepRow>> {
        sqlx::query_as(
            "SELECT number, at_ms, worker, fencing, event, state, reason FROM job_steps WHERE job_id = $1 ORDER BY number",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("read the steps of a job in", &e))
    }

    /// Takes a job for a worker, when it still waits and the limits leave room. Its fencing number is then higher than that of every
    /// worker before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn claim_job(
        &self,
        row: &JobRow,
        worker: &Worker,
        limits: Limits,
        now_unix_ms: u64,
    ) -> Result<Option<JobRow>> {
        let Ok(transition) = job::next(&row.facts(), Event::Claim, now_unix_ms) else { return Ok(None) };
        let mut claimed = row.after(&transition);
        claimed.attempts = row.attempts.saturating_add(1);
        claimed.fencing = row.fencing.saturating_add(1);
        claimed.worker.clone_from(&worker.name);
        claimed.lease_ms = later(now_unix_ms, worker.lease);
        claimed.started_ms = row.started_ms.or_else(|| Some(signed(now_unix_ms)));
        let done = async {
            let mut transaction = self.pool.begin().await?;
            // one claim at a time, so that the counts below are true when the job is taken
            sqlx::query("UPDATE leases SET acquired_ms = $1 WHERE name = 'jobs'")
                .bind(signed(now_unix_ms))
                .execute(&mut *transaction)
                .await?;
            let room: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM jobs WHERE job_id = $1 AND cancel_ms IS NULL
                   AND (SELECT COUNT(*) FROM jobs r WHERE r.state = 'running' AND r.repository = $2) < $3
                   AND (SELECT COUNT(*) FROM jobs r WHERE r.state = 'running' AND r.host = $4 AND r.host <> '') < $5
                   AND NOT EXISTS (SELECT 1 FROM jobs r WHERE r.state = 'running' AND r.cluster = $6 AND r.kind = $7)",
            )
            .bind(&row.job_id)
            .bind(&row.repository)
            .bind(i64::from(limits.repository))
            .bind(&row.host)
            .bind(i64::from(limits.host))
            .bind(&row.cluster)
            .bind(&row.kind)
            .fetch_one(&mut *transaction)
            .await?;
            if room == 0 || !update_job(&mut transaction, row, &claimed, None).await? {
                return Ok(false);
            }
            insert_step(
                &mut transaction,
                &claimed,
                &worker.name,
                Event::Claim.as_str(),
                transition.reason,
                now_unix_ms,
            )
            .await?;
            transaction.commit().await.map(|()| true)
        };
        done.await.map(|taken| taken.then_some(claimed)).map_err(|e| self.error("take a job in", &e))
    }

    /// Says that the worker lives and how far it is. Tells whether somebody asked for the end of the job.
    ///
    /// # Errors
    /// `Busy`, not retryable, when the job was lost: its worker must stop. Those of the database.
    pub async fn beat_job(&self, row: &JobRow, worker: &Worker, beat: &Beat, now_unix_ms: u64) -> Result<bool> {
        let wanted: Option<Option<i64>> = sqlx::query_scalar(
            "UPDATE jobs SET lease_ms = $1, phase = $2, done_bytes = $3, total_bytes = $4, done_keys = $5
             WHERE job_id = $6 AND state = 'running' AND worker = $7 AND fencing = $8 RETURNING cancel_ms",
        )
        .bind(signed(later(now_unix_ms, worker.lease)))
        .bind(&beat.phase)
        .bind(signed(beat.done_bytes))
        .bind(signed(beat.total_bytes))
        .bind(signed(beat.done_keys))
        .bind(&row.job_id)
        .bind(&worker.name)
        .bind(signed(row.fencing))
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.error("renew a job in", &e))?;
        wanted.map(|cancel| cancel.is_some()).ok_or_else(|| lost(row))
    }

    /// Adds a line to the log of a job, as long as its worker has it: nothing is to follow from it.
    ///
    /// # Errors
    /// `NotFound`, and those of the database.
    pub async fn note_in_log(&self, job_id: &str, fencing: u64, event: &str, reason: &str) -> Result<()> {
        let (row, now_ms) = (self.job(job_id).await?, self.now_unix_ms().await?);
        if row.fencing != fencing {
            return Ok(());
        }
        let done = async {
            let mut connection = self.pool.acquire().await?;
            insert_step(&mut connection, &row, &row.worker, event, reason, now_ms).await
        };
        done.await.map_err(|e| self.error("note a step of a job in", &e))
    }

    /// Notes that a step begins, before its effect. `snapshot_id` is what the step makes, where it makes something.
    ///
    /// # Errors
    /// `Busy`, not retryable, when the job was lost; `Refused` when the step cannot follow. Those of the database.
    pub async fn begin_step(&self, row: &JobRow, step: Step, snapshot_id: &str, now_unix_ms: u64) -> Result<JobRow> {
        let event = Event::Begin { step };
        let transition = job::next(&row.facts(), event, now_unix_ms).map_err(forbidden)?;
        let mut begun = row.after(&transition);
        step.as_str().clone_into(&mut begun.step);
        if !snapshot_id.is_empty() {
            snapshot_id.clone_into(&mut begun.snapshot_id);
        }
        self.change(row, &begun, event, &transition, &[], None, now_unix_ms).await?;
        Ok(begun)
    }

    /// Ends a job, or queues it again, as its event says.
    ///
    /// # Errors
    /// `Busy`, not retryable, when the job was lost; `Refused` when that cannot happen to it. Those of the database.
    pub async fn end_job(
        &self,
        row: &JobRow,
        event: Event,
        why: &Why,
        events: impl FnOnce(&Transition) -> Vec<NewEvent>,
        now_unix_ms: u64,
    ) -> Result<JobRow> {
        let transition = job::next(&row.facts(), event, now_unix_ms).map_err(forbidden)?;
        let mut ended = row.after(&transition);
        if transition.not_before_unix_ms > 0 {
            ended.not_before_ms = transition.not_before_unix_ms;
        }
        if !transition.counts {
            ended.attempts = row.attempts.saturating_sub(1);
        }
        ended.class.clone_from(&why.class);
        ended.reason = if why.reason.is_empty() { transition.reason.to_owned() } else { why.reason.clone() };
        ended.worker.clear();
        ended.lease_ms = 0;
        if transition.to == State::Queued {
            // the new attempt begins at the first step, and finds by the id what the last one left
            ended.step.clear();
        } else {
            ended.ended_ms = Some(signed(now_unix_ms));
        }
        let expired = matches!(event, Event::LeaseLost).then_some(now_unix_ms);
        self.change(row, &ended, event, &transition, &events(&transition), expired, now_unix_ms).await?;
        Ok(ended)
    }

    /// Asks for the end of a job. One that waits has ended then; one that runs is stopped by its worker.
    ///
    /// # Errors
    /// `NotFound`; `Refused` when it has ended or cannot be stopped any more; `Busy` when it changes faster than it can
    /// be looked at. Those of the database.
    pub async fn cancel_job(&self, id: &str, event: NewEvent, now_unix_ms: u64) -> Result<JobRow> {
        // its worker goes on meanwhile, and may have passed the step from which it can be stopped: look again
        for _ in 0..CANCEL_LOOKS {
            let row = self.job(id).await?;
            if row.state() == State::Queued {
                match self.end_job(&row, Event::Cancel, &Why::default(), |_| vec![event.clone()], now_unix_ms).await {
                    Err(error) if error.class() == Class::Busy => continue,
                    ended => return ended,
                }
            }
            job::next(&row.facts(), Event::Cancel, now_unix_ms).map_err(forbidden)?;
            if self.mark_canceled(&row, now_unix_ms).await? {
                return self.job(id).await;
            }
        }
        Err(Error::new(Class::Busy, format!("the job {id} changed each time it was looked at")).hint("look again"))
    }

    /// Whether a job that runs was marked before it came to another step.
    async fn mark_canceled(&self, row: &JobRow, now_unix_ms: u64) -> Result<bool> {
        let marked =
            sqlx::query("UPDATE jobs SET cancel_ms = $1 WHERE job_id = $2 AND state = 'running' AND step = $3")
                .bind(signed(now_unix_ms))
                .bind(&row.job_id)
                .bind(&row.step)
                .execute(&self.pool)
                .await
                .map_err(|e| self.error("cancel a job in", &e))?;
        Ok(marked.rows_affected() > 0)
    }

    /// Forgets jobs that ended before `before_unix_ms`. Tells how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_jobs(&self, before_unix_ms: u64) -> Result<u64> {
        sqlx::query("DELETE FROM jobs WHERE ended_ms < $1")
            .bind(signed(before_unix_ms))
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected())
            .map_err(|e| self.error("forget jobs of", &e))
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where all of a change comes together")]
    async fn change(
        &self,
        from: &JobRow,
        to: &JobRow,
        event: Event,
        transition: &Transition,
        events: &[NewEvent],
        expired_by: Option<u64>,
        now_unix_ms: u64,
    ) -> Result<()> {
        let reason = if to.reason.is_empty() { transition.reason } else { &to.reason };
        let done = async {
            let mut transaction = self.pool.begin().await?;
            if !update_job(&mut transaction, from, to, expired_by).await? {
                return Ok(false);
            }
            insert_step(&mut transaction, to, &from.worker, event.as_str(), reason, now_unix_ms).await?;
            if to.kind() == Kind::Backup && to.state().is_final() {
                note_outcome(&mut transaction, &to.cluster, &to.state).await?;
            }
            if to.state().is_final() {
                withdraw_offers(&mut transaction, &to.job_id).await?;
            }
            insert_events(&mut transaction, events, now_unix_ms).await?;
            transaction.commit().await.map(|()| true)
        };
        match done.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost(from)),
            Err(e) => Err(self.error("change a job in", &e)),
        }
    }
}

async fn insert_events(connection: &mut AnyConnection, events: &[NewEvent], now_unix_ms: u64) -> sqlx::Result<()> {
    for event in events {
        insert_event(connection, event, now_unix_ms).await?;
    }
    Ok(())
}

pub(super) use self::row::{COLUMNS as JOB_COLUMNS, insert_job as add_job_row};

/// A query of constant parts.
fn const_format(parts: &[&str]) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(parts.concat())
}

fn lost(row: &JobRow) -> Error {
    let what = format!("the job {} was lost: it is not under number {} any more", row.job_id, row.fencing);
    Error::new(Class::Busy, what).retryable(false)
}

fn forbidden(forbidden: job::Forbidden) -> Error {
    Error::new(Class::Refused, forbidden.to_string())
}
