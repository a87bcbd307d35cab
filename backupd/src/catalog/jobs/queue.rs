//! What stands in the queue: jobs that may begin, that wait, that came too late, whose worker is gone.

use policies::job::Beside;

use super::row::COLUMNS;
use super::{JobRow, Limits, const_format};
use crate::catalog::{Catalog, signed};
use crate::error::Result;

impl Catalog {
    /// The jobs that wait and may begin now, those that wait longest first; at most `count`. What the limits hold back is not among
    /// them, so that it stands in nobody's way.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ready_jobs(&self, limits: Limits, now_unix_ms: u64, count: u32) -> Result<Vec<JobRow>> {
        let query = const_format(&[
            "SELECT ",
            COLUMNS,
            " FROM jobs WHERE state = 'queued' AND not_before_ms <= $1
            AND (start_by_ms IS NULL OR started_ms IS NOT NULL OR start_by_ms >= $1)
            AND repository NOT IN
                (SELECT repository FROM jobs WHERE state = 'running' GROUP BY repository HAVING COUNT(*) >= $2)
            AND host NOT IN
                (SELECT host FROM jobs WHERE state = 'running' AND host <> '' GROUP BY host HAVING COUNT(*) >= $3)
            AND (cluster, kind) NOT IN (SELECT cluster, kind FROM jobs WHERE state = 'running')
            ORDER BY not_before_ms, job_id LIMIT $4",
        ]);
        sqlx::query_as(query)
            .bind(signed(now_unix_ms))
            .bind(i64::from(limits.repository))
            .bind(i64::from(limits.host))
            .bind(i64::from(count))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("look for jobs in", &e))
    }

    /// The jobs that run and whose worker said nothing for longer than its lease.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lost_jobs(&self, now_unix_ms: u64) -> Result<Vec<JobRow>> {
        let query =
            const_format(&["SELECT ", COLUMNS, " FROM jobs WHERE state = 'running' AND lease_ms <= $1 LIMIT 1000"]);
        sqlx::query_as(query)
            .bind(signed(now_unix_ms))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("look for lost jobs in", &e))
    }

    /// The jobs that wait and can no more begin in their time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn late_jobs(&self, now_unix_ms: u64) -> Result<Vec<JobRow>> {
        let query = const_format(&[
            "SELECT ",
            COLUMNS,
            " FROM jobs WHERE state = 'queued' AND started_ms IS NULL AND start_by_ms < $1 LIMIT 1000",
        ]);
        sqlx::query_as(query)
            .bind(signed(now_unix_ms))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("look for late jobs in", &e))
    }

    /// What runs beside a job that waits, and how much may.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn beside_job(&self, row: &JobRow, limits: Limits) -> Result<Beside> {
        let counts: (i64, i64, i64) = sqlx::query_as(
            "SELECT COUNT(CASE WHEN cluster = $1 AND kind = $2 THEN 1 END), COUNT(CASE WHEN repository = $3 THEN 1 END),
                 COUNT(CASE WHEN host = $4 AND host <> '' THEN 1 END) FROM jobs WHERE state = 'running'",
        )
        .bind(&row.cluster)
        .bind(&row.kind)
        .bind(&row.repository)
        .bind(&row.host)
        .fetch_one(&self.pool)
        .await
        .map_err(|e| self.error("count the jobs of", &e))?;
        let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Beside {
            same: count(counts.0),
            repository: count(counts.1),
            repository_max: limits.repository,
            host: count(counts.2),
            host_max: limits.host,
        })
    }

    /// How many jobs that have not ended there are, by state.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open_jobs(&self) -> Result<Vec<(String, i64)>> {
        sqlx::query_as("SELECT state, COUNT(*) FROM jobs WHERE state IN ('queued', 'running') GROUP BY state")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.error("count the jobs of", &e))
    }
}
