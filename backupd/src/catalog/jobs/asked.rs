//! Jobs that callers of the API asked for: asking twice under one key is asking once.

use super::row::{JobRow, NewJob};
use super::{COLUMNS, const_format, insert_events, insert_job};
use crate::catalog::{Catalog, NewEvent, signed};
use crate::error::{Class, Error, Result};

/// What became of a request for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It was added.
    New,
    /// The same was asked for before, under the same key: this is the job.
    Before(Box<JobRow>),
    /// Something else was asked for under the same key: this is its job.
    Other(String),
}

impl Catalog {
    /// Adds a job with events about it, unless its caller asked for one under the same key before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn add_job_once(&self, job: &NewJob, events: &[NewEvent], now_unix_ms: u64) -> Result<Added> {
        let done = async {
            let mut transaction = self.pool.begin().await?;
            if !insert_job(&mut transaction, job, now_unix_ms).await? {
                return Ok(false);
            }
            insert_events(&mut transaction, events, now_unix_ms).await?;
            transaction.commit().await.map(|()| true)
        };
        if done.await.map_err(|e| self.error("add a job to", &e))? {
            return Ok(Added::New);
        }
        match self.job_asked(&job.asked.by, &job.asked.key).await? {
            Some(row) if row.request_sha256 == job.asked.sha256 => Ok(Added::Before(Box::new(row))),
            Some(row) => Ok(Added::Other(row.job_id)),
            // it was forgotten in between
            None => Err(Error::new(Class::Busy, format!("the key `{}` was just given free", job.asked.key))),
        }
    }

    /// The job that somebody asked for under a key.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn job_asked(&self, by: &str, key: &str) -> Result<Option<JobRow>> {
        let query = const_format(&["SELECT ", COLUMNS, " FROM jobs WHERE requested_by = $1 AND idempotency_key = $2"]);
        sqlx::query_as(query)
            .bind(by)
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.error("read a job of", &e))
    }

    /// Notes what a job made, as JSON, while it is under its number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_result(&self, row: &JobRow, result: &str) -> Result<()> {
        sqlx::query("UPDATE jobs SET result = $1 WHERE job_id = $2 AND fencing = $3")
            .bind(result)
            .bind(&row.job_id)
            .bind(signed(row.fencing))
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| self.error("note the result of a job in", &e))
    }
}
