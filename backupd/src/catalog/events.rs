//! Events: one line of history each, with a stable code; and which hooks were told of them.

use std::fmt::Write as _;

use serde::Serialize;
use sqlx::AnyConnection;

use super::{Catalog, new_id, signed};
use crate::error::Result;

/// The most events of one answer.
pub const EVENTS_MAX: u32 = 1000;

/// How long a hook is tried to be told of an event, ms.
pub const TELL_FOR_MS: u64 = 86_400_000;

/// What can happen. The texts are stable: they are part of what users rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Code {
    /// An occurrence of a window began a backup.
    WindowFired,
    /// The last occurrence that was missed is made up for.
    WindowCaughtUp,
    /// An occurrence of a window passed without a backup.
    WindowMissed,
    /// A snapshot is available.
    BackupSucceeded,
    /// A backup failed for good.
    BackupFailed,
    /// A backup failed and is tried again.
    BackupRetried,
    /// A snapshot was read again and is whole.
    VerifySucceeded,
    /// A snapshot is not what its manifest says, or could not be read.
    VerifyFailed,
    /// A snapshot was deleted.
    SnapshotDeleted,
    /// A deletion failed.
    DeleteFailed,
    /// Snapshots are in a repository, and were not in the catalog.
    SnapshotFound,
    /// Snapshots are not in their repository any more, though nobody who shares the catalog deleted them.
    SnapshotVanished,
    /// A retention pass deletes snapshots.
    RetentionApplied,
    /// A retention pass was refused.
    RetentionRefused,
    /// A snapshot was copied into another repository.
    SnapshotCopied,
    /// A copy failed.
    CopyFailed,
    /// A snapshot was exported in the clear.
    SnapshotExported,
    /// An export failed.
    ExportFailed,
    /// A snapshot is kept.
    SnapshotKept,
    /// A snapshot that was kept may be deleted again.
    SnapshotReleased,
    /// It could not be noted that a snapshot is kept, or not any more.
    KeepFailed,
    /// A snapshot was restored.
    RestoreSucceeded,
    /// A restore failed.
    RestoreFailed,
    /// Somebody wanted what they may not.
    AccessDenied,
    /// A cluster was seen for the first time.
    ClusterRegistered,
    /// A cluster was removed.
    ClusterRemoved,
    /// A cluster could not be removed.
    RemoveFailed,
    /// Somebody asked for the end of a job.
    JobCanceled,
    /// The worker of a job is gone.
    JobLost,
    /// A worker that ended gave a job back.
    JobHandedBack,
    /// Leftovers of jobs that died were removed.
    GcApplied,
    /// The configuration was read again.
    ConfigReloaded,
    /// The configuration could not be read again; the one before holds.
    ConfigRefused,
    /// A daemon began.
    DaemonStarted,
    /// A daemon ended in good order.
    DaemonStopped,
    /// This machine's clock and that of the database disagree.
    ClockSkew,
}

impl Code {
    /// The text, and how grave it is.
    #[must_use]
    pub fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::WindowFired => ("window.fired", "info"),
            Self::WindowCaughtUp => ("window.caught-up", "warning"),
            Self::WindowMissed => ("window.missed", "error"),
            Self::BackupSucceeded => ("backup.succeeded", "info"),
            Self::BackupFailed => ("backup.failed", "error"),
            Self::BackupRetried => ("backup.retried", "warning"),
            Self::VerifySucceeded => ("verify.succeeded", "info"),
            Self::VerifyFailed => ("verify.failed", "error"),
            Self::SnapshotDeleted => ("snapshot.deleted", "info"),
            Self::DeleteFailed => ("delete.failed", "error"),
            Self::SnapshotFound => ("snapshot.found", "warning"),
            Self::SnapshotVanished => ("snapshot.vanished", "error"),
            Self::RetentionApplied => ("retention.applied", "info"),
            Self::RetentionRefused => ("retention.refused", "error"),
            Self::SnapshotCopied => ("snapshot.copied", "info"),
            Self::CopyFailed => ("copy.failed", "error"),
            Self::SnapshotExported => ("snapshot.exported", "info"),
            Self::ExportFailed => ("export.failed", "error"),
            Self::SnapshotKept => ("snapshot.kept", "info"),
            Self::SnapshotReleased => ("snapshot.released", "info"),
            Self::KeepFailed => ("keep.failed", "error"),
            Self::RestoreSucceeded => ("restore.succeeded", "info"),
            Self::RestoreFailed => ("restore.failed", "error"),
            Self::AccessDenied => ("access.denied", "warning"),
            Self::ClusterRegistered => ("cluster.registered", "info"),
            Self::ClusterRemoved => ("cluster.removed", "info"),
            Self::RemoveFailed => ("remove.failed", "error"),
            Self::JobCanceled => ("job.canceled", "warning"),
            Self::JobLost => ("job.lost", "warning"),
            Self::JobHandedBack => ("job.handed-back", "info"),
            Self::GcApplied => ("gc.applied", "info"),
            Self::ConfigReloaded => ("config.reloaded", "info"),
            Self::ConfigRefused => ("config.refused", "error"),
            Self::DaemonStarted => ("daemon.started", "info"),
            Self::DaemonStopped => ("daemon.stopped", "info"),
            Self::ClockSkew => ("clock.skew", "warning"),
        }
    }
}

/// Which events to list, oldest first.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only of this cluster.
    pub cluster: Option<String>,
    /// Only of this snapshot.
    pub snapshot_name: Option<String>,
    /// Not before, ms since 1970.
    pub since_ms: u64,
    /// Before, ms since 1970.
    pub until_ms: Option<u64>,
    /// Only those after this one in the order of the list: its `at_ms` and `event_id`.
    pub after: Option<(u64, String)>,
}

/// An event that is to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What happened.
    pub code: Code,
    /// Of which cluster; empty when of none.
    pub cluster: String,
    /// Of which snapshot; empty when of none.
    pub snapshot_name: String,
    /// In which job; empty when in none.
    pub job_id: String,
    /// In words, without secrets.
    pub message: String,
}

impl NewEvent {
    /// An event about no cluster.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let (cluster, snapshot_name, job_id) = (String::new(), String::new(), String::new());
        Self { code, cluster, snapshot_name, job_id, message: message.into() }
    }

    /// About this cluster.
    #[must_use]
    pub fn of(mut self, cluster: &str) -> Self {
        cluster.clone_into(&mut self.cluster);
        self
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct EventRow {
    /// Its id.
    pub event_id: String,
    /// When, ms since 1970.
    #[sqlx(try_from = "i64")]
    pub at_ms: u64,
    /// Its stable code.
    pub code: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// Of which cluster; empty when of none.
    pub cluster: String,
    /// Of which snapshot; empty when of none.
    pub snapshot_name: String,
    /// In which job; empty when in none.
    pub job_id: String,
    /// In words.
    pub message: String,
}

/// An event that a hook was not told of.
#[derive(Debug, sqlx::FromRow)]
struct UntoldRow {
    #[sqlx(flatten)]
    event: EventRow,
    /// How often it was tried.
    #[sqlx(try_from = "i64")]
    attempts: u32,
}

pub(super) async fn insert_event(
    connection: &mut AnyConnection,
    event: &NewEvent,
    now_unix_ms: u64,
) -> sqlx::Result<()> {
    let (code, severity) = event.code.row();
    tracing::info!(
        code,
        cluster = event.cluster,
        snapshot = event.snapshot_name,
        job = event.job_id,
        "{}",
        event.message
    );
    sqlx::query(
        "INSERT INTO events (event_id, at_ms, code, severity, cluster, snapshot_name, job_id, message)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(new_id(now_unix_ms).map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
    .bind(signed(now_unix_ms))
    .bind(code)
    .bind(severity)
    .bind(&event.cluster)
    .bind(&event.snapshot_name)
    .bind(&event.job_id)
    .bind(&event.message)
    .execute(connection)
    .await
    .map(drop)
}

impl Catalog {
    /// Writes an event.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn add_event(&self, event: &NewEvent, now_unix_ms: u64) -> Result<()> {
        let done = async {
            let mut connection = self.pool.acquire().await?;
            insert_event(&mut connection, event, now_unix_ms).await
        };
        done.await.map_err(|e| self.error("write an event to", &e))
    }

    /// The newest [`EVENTS_MAX`] events since a time, of one cluster or of all, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events(&self, cluster: Option<&str>, since_unix_ms: u64) -> Result<Vec<EventRow>> {
        let query = match cluster {
            Some(cluster) => sqlx::query_as(
                "SELECT * FROM events WHERE at_ms >= $1 AND cluster = $2 ORDER BY at_ms DESC, event_id DESC LIMIT 1000",
            )
            .bind(signed(since_unix_ms))
            .bind(cluster.to_owned()),
            None => {
                sqlx::query_as("SELECT * FROM events WHERE at_ms >= $1 ORDER BY at_ms DESC, event_id DESC LIMIT 1000")
                    .bind(signed(since_unix_ms))
            }
        };
        let mut rows: Vec<EventRow> =
            query.fetch_all(&self.pool).await.map_err(|e| self.error("list the events of", &e))?;
        rows.reverse();
        Ok(rows)
    }

    /// At most [`EVENTS_MAX`] events, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_page(&self, filter: &EventFilter) -> Result<Vec<EventRow>> {
        let mut text =
            "SELECT * FROM events WHERE at_ms >= $1 AND at_ms < $2 AND (at_ms, event_id) > ($3, $4)".to_owned();
        let (mut texts, mut count) = (Vec::new(), 4);
        for (column, value) in [("cluster", &filter.cluster), ("snapshot_name", &filter.snapshot_name)] {
            if let Some(value) = value {
                count += 1;
                // writing to a String cannot fail
                let _infallible = write!(text, " AND {column} = ${count}");
                texts.push(value.clone());
            }
        }
        let _infallible = write!(text, " ORDER BY at_ms, event_id LIMIT {EVENTS_MAX}");
        let (after_ms, after_id) = filter.after.clone().unwrap_or_default();
        let mut query = sqlx::query_as(sqlx::AssertSqlSafe(text))
            .bind(signed(filter.since_ms))
            .bind(filter.until_ms.map_or(i64::MAX, signed))
            .bind(signed(after_ms))
            .bind(after_id);
        for value in texts {
            query = query.bind(value);
        }
        query.fetch_all(&self.pool).await.map_err(|e| self.error("list the events of", &e))
    }

    /// Forgets events before a time. Tells how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_events(&self, before_unix_ms: u64) -> Result<u64> {
        sqlx::query("DELETE FROM events WHERE at_ms < $1")
            .bind(signed(before_unix_ms))
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected())
            .map_err(|e| self.error("forget events of", &e))
    }

    /// The oldest events of the last day that a hook was not told of yet and may be told now, with how often that was tried.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn untold_events(&self, hook: &str, now_unix_ms: u64, count: u32) -> Result<Vec<(EventRow, u32)>> {
        let rows: Vec<UntoldRow> = sqlx::query_as(
            "SELECT e.*, COALESCE(d.attempts, 0) AS attempts FROM events e LEFT JOIN deliveries d ON d.event_id = e.event_id AND d.hook = $1
             WHERE e.at_ms >= $2 AND (d.event_id IS NULL OR (d.done = 0 AND d.next_ms <= $3))
             ORDER BY e.at_ms, e.event_id LIMIT $4",
        )
        .bind(hook)
        .bind(signed(now_unix_ms.saturating_sub(TELL_FOR_MS)))
        .bind(signed(now_unix_ms))
        .bind(i64::from(count))
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.error("look for events in", &e))?;
        Ok(rows.into_iter().map(|row| (row.event, row.attempts)).collect())
    }

    /// Notes that a hook was told of an event (`next_ms` is `None`), or that it could not be told and when to try again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_delivery(&self, hook: &str, event_id: &str, next_ms: Option<u64>) -> Result<()> {
        sqlx::query(
            "INSERT INTO deliveries (hook, event_id, attempts, next_ms, done) VALUES ($1, $2, 1, $3, $4)
             ON CONFLICT (hook, event_id) DO UPDATE SET attempts = deliveries.attempts + 1, next_ms = excluded.next_ms,
                 done = excluded.done",
        )
        .bind(hook)
        .bind(event_id)
        .bind(signed(next_ms.unwrap_or(0)))
        .bind(i64::from(next_ms.is_none()))
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| self.error("note in", &e))
    }
}
