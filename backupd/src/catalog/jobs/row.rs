//! Rows of jobs and their steps, and the statements that write them.

use policies::job::{Job, Kind, State, Step, Transition};
use serde::Serialize;
use sqlx::AnyConnection;

use super::super::{signed, unsigned};

/// The columns of a [`JobRow`].
pub(in crate::catalog) const COLUMNS: &str = "job_id, kind, cluster, repository, host, snapshot_name, source, parameters, state, created_ms, \
    not_before_ms, start_by_ms, attempts, worker, fencing, lease_ms, cancel_ms, step, snapshot_id, phase, done_bytes, \
    total_bytes, done_keys, started_ms, ended_ms, class, reason, requested_by, idempotency_key, request_sha256, result";

/// Who asked for a job, and how asking twice is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Who; empty for the scheduler and the command line.
    pub by: String,
    /// The caller's own key for the request; empty without one.
    pub key: String,
    /// SHA-256 of what was asked, hexadecimal; empty without a key.
    pub sha256: String,
}

/// A job that is to be added.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub job_id: String,
    /// What it is for.
    pub kind: Kind,
    /// Of which cluster.
    pub cluster: String,
    /// The name of the repository in the configuration.
    pub repository: String,
    /// The host of the source; empty when none is touched.
    pub host: String,
    /// The name of the snapshot.
    pub snapshot_name: String,
    /// `manual`, `automated` or `final` for a backup, else empty.
    pub source: String,
    /// A JSON object with what else was asked for.
    pub parameters: String,
    /// It is not begun before, ms since 1970.
    pub not_before_ms: u64,
    /// It is not begun after, ms since 1970.
    pub start_by_ms: Option<u64>,
    /// Who asked.
    pub asked: Asked,
}

/// A job. Times are ms since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct JobRow {
    /// Its id.
    pub job_id: String,
    /// What it is for, as [`Kind::as_str`].
    pub kind: String,
    /// Of which cluster.
    pub cluster: String,
    /// The name of the repository in the configuration.
    pub repository: String,
    /// The host of the source; empty when none is touched.
    pub host: String,
    /// The name of the snapshot.
    pub snapshot_name: String,
    /// `manual`, `automated` or `final` for a backup, else empty.
    pub source: String,
    /// A JSON object with what else was asked for.
    pub parameters: String,
    /// As [`State::as_str`].
    pub state: String,
    /// When it was added.
    #[sqlx(try_from = "i64")]
    pub created_ms: u64,
    /// It is not begun before.
    #[sqlx(try_from = "i64")]
    pub not_before_ms: u64,
    /// It is not begun after.
    pub start_by_ms: Option<i64>,
    /// How often it was begun.
    #[sqlx(try_from = "i64")]
    pub attempts: u32,
    /// Who works on it; empty when nobody does.
    pub worker: String,
    /// Higher for each worker than for all before.
    #[sqlx(try_from = "i64")]
    pub fencing: u64,
    /// Until when its worker holds it.
    #[sqlx(try_from = "i64")]
    pub lease_ms: u64,
    /// When somebody asked for its end.
    pub cancel_ms: Option<i64>,
    /// The step that was begun last; empty before the first.
    pub step: String,
    /// The id of the snapshot that the last attempt makes or made.
    pub snapshot_id: String,
    /// What is done now, in words.
    pub phase: String,
    /// Bytes of RDB so far.
    #[sqlx(try_from = "i64")]
    pub done_bytes: u64,
    /// Bytes in all; 0 when that is not known.
    #[sqlx(try_from = "i64")]
    pub total_bytes: u64,
    /// Keys so far.
    #[sqlx(try_from = "i64")]
    pub done_keys: u64,
    /// When it was begun first.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// The class of the error that ended or delayed it; empty without one.
    pub class: String,
    /// Why it is where it is.
    pub reason: String,
    /// Who asked for it; empty for the scheduler and the command line.
    pub requested_by: String,
    /// The caller's own key for the request.
    #[serde(skip)]
    pub idempotency_key: String,
    /// SHA-256 of what was asked.
    #[serde(skip)]
    pub request_sha256: String,
    /// A JSON object with what it made.
    pub result: String,
}

/// One line of the log of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct StepRow {
    /// From 1.
    #[sqlx(try_from = "i64")]
    pub number: u64,
    /// When, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub at_ms: u64,
    /// Who worked on it then.
    pub worker: String,
    /// Under which number.
    #[sqlx(try_from = "i64")]
    pub fencing: u64,
    /// What happened.
    pub event: String,
    /// The state after it.
    pub state: String,
    /// Why.
    pub reason: String,
}

impl JobRow {
    /// Where it is. A state that this program does not know counts as ended, so that nothing is done with it.
    #[must_use]
    pub fn state(&self) -> State {
        State::of(&self.state).unwrap_or(State::Failed)
    }

    /// What it is for. The database holds no other kinds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::of(&self.kind).unwrap_or(Kind::Verify)
    }

    /// What a decision about it needs.
    #[must_use]
    pub fn facts(&self) -> Job {
        Job {
            kind: self.kind(),
            state: self.state(),
            step: Step::ALL.into_iter().find(|step| step.as_str() == self.step),
            attempts: self.attempts,
            is_cancel_wanted: self.cancel_ms.is_some(),
            // one that has begun in its time may go on, and begin again, after it
            start_by_unix_ms: self.start_by_ms.filter(|_| self.started_ms.is_none()).map(unsigned),
        }
    }

    pub(super) fn after(&self, transition: &Transition) -> Self {
        Self { state: transition.to.as_str().to_owned(), ..self.clone() }
    }
}

/// False when the caller has asked for a job under the same key before.
pub(in super::super) async fn insert_job(
    connection: &mut AnyConnection,
    job: &NewJob,
    now_unix_ms: u64,
) -> sqlx::Result<bool> {
    sqlx::query(
        "INSERT INTO jobs (job_id, kind, cluster, repository, host, snapshot_name, source, parameters, state, created_ms,
             not_before_ms, start_by_ms, attempts, worker, fencing, lease_ms, step, snapshot_id, phase, done_bytes, total_bytes,
             done_keys, class, reason, requested_by, idempotency_key, request_sha256, result)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', $9, $10, $11, 0, '', 0, 0, '', '', '', 0, 0, 0, '', '', $12, $13, $14, '{}')
         ON CONFLICT (requested_by, idempotency_key) WHERE idempotency_key <> '' DO NOTHING",
    )
    .bind(&job.job_id)
    .bind(job.kind.as_str())
    .bind(&job.cluster)
    .bind(&job.repository)
    .bind(&job.host)
    .bind(&job.snapshot_name)
    .bind(&job.source)
    .bind(&job.parameters)
    .bind(signed(now_unix_ms))
    .bind(signed(job.not_before_ms))
    .bind(job.start_by_ms.map(signed))
    .bind(&job.asked.by)
    .bind(&job.asked.key)
    .bind(&job.asked.sha256)
    .execute(connection)
    .await
    .map(|done| done.rows_affected() > 0)
}

/// Writes what changed, when the job still is as `from`; with `expired_by` only when its lease is over by then.
pub(super) async fn update_job(
    connection: &mut AnyConnection,
    from: &JobRow,
    to: &JobRow,
    expired_by: Option<u64>,
) -> sqlx::Result<bool> {
    sqlx::query(
        "UPDATE jobs SET state = $1, not_before_ms = $2, attempts = $3, worker = $4, fencing = $5, step = $6,
             snapshot_id = $7, started_ms = $8, ended_ms = $9, class = $10, reason = $11,
             lease_ms = CASE WHEN state = 'running' AND $1 = 'running' THEN lease_ms ELSE $12 END
         WHERE job_id = $13 AND state = $14 AND fencing = $15 AND lease_ms <= $16",
    )
    .bind(&to.state)
    .bind(signed(to.not_before_ms))
    .bind(i64::from(to.attempts))
    .bind(&to.worker)
    .bind(signed(to.fencing))
    .bind(&to.step)
    .bind(&to.snapshot_id)
    .bind(to.started_ms)
    .bind(to.ended_ms)
    .bind(&to.class)
    .bind(&to.reason)
    .bind(signed(to.lease_ms))
    .bind(&from.job_id)
    .bind(&from.state)
    .bind(signed(from.fencing))
    .bind(expired_by.map_or(i64::MAX, signed))
    .execute(connection)
    .await
    .map(|done| done.rows_affected() > 0)
}

pub(super) async fn insert_step(
    connection: &mut AnyConnection,
    job: &JobRow,
    worker: &str,
    event: &str,
    reason: &str,
    now_unix_ms: u64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO job_steps (job_id, number, at_ms, worker, fencing, event, state, reason)
         SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, $5, $6, $7 FROM job_steps WHERE job_id = $1",
    )
    .bind(&job.job_id)
    .bind(signed(now_unix_ms))
    .bind(worker)
    .bind(signed(job.fencing))
    .bind(event)
    .bind(&job.state)
    .bind(reason)
    .execute(connection)
    .await
    .map(drop)
}
