//! What schedulers know of each cluster, and what was decided of each occurrence of a window.

use serde::Serialize;
use sqlx::{AnyConnection, AssertSqlSafe};

use super::events::insert_event;
use super::jobs::add_job_row;
use super::{Catalog, NewEvent, NewJob, signed, unsigned};
use crate::error::Result;

/// What is known of a cluster. Times are ms since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct ScheduleRow {
    /// Its name.
    pub cluster: String,
    /// The repository in the configuration, as it was last seen there.
    pub repository: String,
    /// The window that holds; empty without one.
    pub window_text: String,
    /// 1 when it was chosen for it.
    pub window_chosen: i64,
    /// When it was first seen with this window: what was before is not missed.
    #[sqlx(try_from = "i64")]
    pub since_ms: u64,
    /// How far windows lie apart at most, s; 0 without one.
    #[sqlx(try_from = "i64")]
    pub expected_interval_s: u64,
    /// The start of the newest occurrence that was decided.
    pub settled_ms: Option<i64>,
    /// When the newest snapshot became available.
    pub last_success_ms: Option<i64>,
    /// When a snapshot was last read again and was whole.
    pub last_verified_ms: Option<i64>,
    /// How the last backup ended: `succeeded`, `failed`, `canceled`, or empty.
    pub last_outcome: String,
    /// When a verification was last asked for.
    pub verify_ms: Option<i64>,
    /// When it was removed.
    pub removed_ms: Option<i64>,
}

/// A cluster with its window, to be noted.
#[derive(Debug)]
pub struct NewSchedule<'a> {
    /// Its name.
    pub cluster: &'a str,
    /// The repository in the configuration.
    pub repository: &'a str,
    /// The window that holds; empty without one.
    pub window: String,
    /// Whether it was chosen for it.
    pub is_chosen: bool,
    /// How far windows lie apart at most, s; 0 without one.
    pub expected_interval_s: u64,
    /// What is to be told when it is new.
    pub event: NewEvent,
}

/// One time of a schedule, to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A snapshot became available.
    Success,
    /// A snapshot was read again and was whole.
    Verified,
    /// It was removed.
    Removed,
}

/// What was decided of an occurrence of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A backup is to begin in it.
    Fired,
    /// A backup is made after it.
    CaughtUp,
    /// Nothing.
    Missed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::CaughtUp => "caught-up",
            Self::Missed => "missed",
        }
    }
}

/// A decision about an occurrence.
#[derive(Debug)]
pub struct Decision<'a> {
    /// Of which cluster.
    pub cluster: &'a str,
    /// When the occurrence begins, ms since 1970.
    pub occurrence_ms: u64,
    /// What was decided.
    pub outcome: Outcome,
    /// Why.
    pub reason: &'a str,
    /// The backup, where there is one.
    pub job: Option<&'a NewJob>,
    /// What is to be told.
    pub event: NewEvent,
}

/// Notes how the last backup of a cluster ended.
pub(super) async fn note_outcome(connection: &mut AnyConnection, cluster: &str, outcome: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE schedules SET last_outcome = $1 WHERE cluster = $2")
        .bind(outcome)
        .bind(cluster)
        .execute(connection)
        .await
        .map(drop)
}

/// One statement for a new cluster, which reads no schedule, since a whole fleet may be new at once.
async fn put_schedule(
    connection: &mut AnyConnection,
    new: &NewSchedule<'_>,
    now_unix_ms: u64,
) -> sqlx::Result<ScheduleRow> {
    let put = |query: String| {
        sqlx::query_as(AssertSqlSafe(query))
            .bind(new.cluster)
            .bind(new.repository)
            .bind(&new.window)
            .bind(i64::from(new.is_chosen))
            .bind(signed(now_unix_ms))
            .bind(signed(new.expected_interval_s))
    };
    let added = put(format!(
        "INSERT INTO schedules (cluster, repository, window_text, window_chosen, since_ms, expected_interval_s, last_outcome,
             last_success_ms, last_verified_ms)
         VALUES ($1, $2, $3, $4, $5, $6, '', {}, {}) ON CONFLICT (cluster) DO NOTHING RETURNING *",
        newest("ended_ms"),
        newest("verified_ms")
    ));
    if let Some(row) = added.fetch_optional(&mut *connection).await? {
        insert_event(connection, &new.event, now_unix_ms).await?;
        return Ok(row);
    }
    let changed =
        put("UPDATE schedules SET repository = $2, since_ms = CASE WHEN window_text = $3 THEN since_ms ELSE $5 END,
             window_text = $3, window_chosen = $4, expected_interval_s = $6
         WHERE cluster = $1 RETURNING *"
            .to_owned());
    changed.fetch_one(connection).await
}

/// The newest of a time of the snapshots of cluster `$1`.
fn newest(of: &str) -> String {
    format!("(SELECT MAX({of}) FROM snapshots WHERE cluster = $1 AND removed_ms IS NULL)")
}

impl Catalog {
    /// All schedules, in no order: a scheduler reads a whole fleet of them every second.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>> {
        sqlx::query_as("SELECT * FROM schedules")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("list the schedules of", &e))
    }

    /// The schedule of a cluster.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn schedule(&self, cluster: &str) -> Result<Option<ScheduleRow>> {
        sqlx::query_as("SELECT * FROM schedules WHERE cluster = $1")
            .bind(cluster)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.error("read a schedule of", &e))
    }

    /// Notes clusters with their windows, all of them or none, and tells of those that are new. One that was known keeps its times, but for
    /// those that begin anew with another window; a new one has those of its snapshots. Returns what is known of each then.
    /// Several schedulers may do so at once, as long as all go by the order of the names.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_schedules(&self, noted: &[NewSchedule<'_>], now_unix_ms: u64) -> Result<Vec<ScheduleRow>> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            let mut rows = Vec::with_capacity(noted.len());
            for new in noted {
                rows.push(put_schedule(&mut transaction, new, now_unix_ms).await?);
            }
            transaction.commit().await.map(|()| rows)
        };
        done.await.map_err(|e| self.error("note schedules in", &e))
    }

    /// Sets a time of a schedule.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn mark_schedule(&self, cluster: &str, mark: Mark, now_unix_ms: u64) -> Result<()> {
        let query = match mark {
            Mark::Success => "UPDATE schedules SET last_success_ms = $1 WHERE cluster = $2",
            Mark::Verified => "UPDATE schedules SET last_verified_ms = $1 WHERE cluster = $2",
            Mark::Removed => {
                "INSERT INTO schedules (cluster, repository, window_text, window_chosen, since_ms, expected_interval_s,
                     last_outcome, removed_ms)
                 VALUES ($2, '', '', 0, $1, 0, '', $1) ON CONFLICT (cluster) DO UPDATE SET removed_ms = excluded.removed_ms"
            }
        };
        let done = sqlx::query(query).bind(signed(now_unix_ms)).bind(cluster).execute(&self.pool).await;
        done.map(drop).map_err(|e| self.error("note a time in", &e))
    }

    /// Brings the times of a schedule up to what is known of the cluster's snapshots; later ones stay. So a schedule that was lost with its
    /// catalog is not one of a cluster that was never backed up.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn follow_snapshots(&self, cluster: &str) -> Result<()> {
        for (time, of) in [("last_success_ms", "ended_ms"), ("last_verified_ms", "verified_ms")] {
            let newest = newest(of);
            let query = format!(
                "UPDATE schedules SET {time} = {newest} WHERE cluster = $1 AND COALESCE({time}, 0) < COALESCE({newest}, 0)"
            );
            let done = sqlx::query(AssertSqlSafe(query)).bind(cluster).execute(&self.pool).await;
            done.map_err(|e| self.error("note a time in", &e))?;
        }
        Ok(())
    }

    /// The starts of the occurrences of a cluster from a time on that fired, ascending.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn fired_since(&self, cluster: &str, since_unix_ms: u64) -> Result<Vec<u64>> {
        let starts: Vec<i64> = sqlx::query_scalar(
            "SELECT occurrence_ms FROM windows_fired WHERE cluster = $1 AND occurrence_ms >= $2 AND outcome <> 'missed'
             ORDER BY occurrence_ms",
        )
        .bind(cluster)
        .bind(signed(since_unix_ms))
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("read the windows of", &e))?;
        Ok(starts.into_iter().map(unsigned).collect())
    }

    /// Takes a cluster up again that was removed. Tells whether it was. Its window counts from now on, and what was made of it
    /// before stays.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn register_again(&self, cluster: &str, event: &NewEvent, now_unix_ms: u64) -> Result<bool> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            let taken = sqlx::query(
                "UPDATE schedules SET removed_ms = NULL, since_ms = $1 WHERE cluster = $2 AND removed_ms IS NOT NULL",
            )
            .bind(signed(now_unix_ms))
            .bind(cluster)
            .execute(&mut *transaction)
            .await?;
            if taken.rows_affected() == 0 {
                return Ok(false);
            }
            insert_event(&mut transaction, event, now_unix_ms).await?;
            transaction.commit().await.map(|()| true)
        };
        done.await.map_err(|e| self.error("take up a cluster in", &e))
    }

    /// Decides an occurrence: writes the decision, its job and its event together. False when it was decided before; one that
    /// was missed may still fire, since a clock that was ahead takes what is to come for missed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn decide_window(&self, decision: &Decision<'_>, now_unix_ms: u64) -> Result<bool> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            let written = sqlx::query(
                "INSERT INTO windows_fired (cluster, occurrence_ms, outcome, job_id, reason, decided_ms)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (cluster, occurrence_ms) DO UPDATE SET outcome = excluded.outcome, job_id = excluded.job_id,
                     reason = excluded.reason, decided_ms = excluded.decided_ms
                 WHERE windows_fired.outcome = 'missed' AND excluded.outcome = 'fired'",
            )
            .bind(decision.cluster)
            .bind(signed(decision.occurrence_ms))
            .bind(decision.outcome.as_str())
            .bind(decision.job.map_or("", |job| &job.job_id))
            .bind(decision.reason)
            .bind(signed(now_unix_ms))
            .execute(&mut *transaction)
            .await?;
            if written.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query(
                "UPDATE schedules SET settled_ms = $1 WHERE cluster = $2 AND (settled_ms IS NULL OR settled_ms < $1)",
            )
            .bind(signed(decision.occurrence_ms))
            .bind(decision.cluster)
            .execute(&mut *transaction)
            .await?;
            if let Some(job) = decision.job {
                add_job_row(&mut transaction, job, now_unix_ms).await?;
            }
            insert_event(&mut transaction, &decision.event, now_unix_ms).await?;
            transaction.commit().await.map(|()| true)
        };
        done.await.map_err(|e| self.error("decide a window in", &e))
    }

    /// Adds a verification of a cluster, when nobody asked for one since the schedule was read.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ask_verification(&self, row: &ScheduleRow, job: &NewJob, now_unix_ms: u64) -> Result<bool> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            let asked = sqlx::query(
                "UPDATE schedules SET verify_ms = $1 WHERE cluster = $2 AND COALESCE(verify_ms, 0) = $3 AND removed_ms IS NULL",
            )
            .bind(signed(now_unix_ms))
            .bind(&row.cluster)
            .bind(row.verify_ms.unwrap_or(0))
            .execute(&mut *transaction)
            .await?;
            if asked.rows_affected() == 0 {
                return Ok(false);
            }
            add_job_row(&mut transaction, job, now_unix_ms).await?;
            transaction.commit().await.map(|()| true)
        };
        done.await.map_err(|e| self.error("ask for a verification in", &e))
    }

    /// Forgets decisions before a time, but for the newest of each cluster.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_windows(&self, before_unix_ms: u64) -> Result<u64> {
        sqlx::query(
            "DELETE FROM windows_fired WHERE occurrence_ms < $1 AND occurrence_ms <
                 (SELECT MAX(w.occurrence_ms) FROM windows_fired w WHERE w.cluster = windows_fired.cluster)",
        )
        .bind(signed(before_unix_ms))
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected())
        .map_err(|e| self.error("forget windows of", &e))
    }
}
