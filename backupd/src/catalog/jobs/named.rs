//! Jobs by the snapshot that they are about.

use super::const_format;
use super::row::{COLUMNS, JobRow};
use crate::catalog::Catalog;
use crate::error::Result;

impl Catalog {
    /// The newest jobs about a snapshot of this name, the newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn jobs_of_snapshot(&self, name: &str) -> Result<Vec<JobRow>> {
        let query = const_format(&[
            "SELECT ",
            COLUMNS,
            " FROM jobs WHERE snapshot_name = $1 ORDER BY created_ms DESC, job_id DESC LIMIT 50",
        ]);
        sqlx::query_as(query).bind(name).fetch_all(&self.pool).await.map_err(|e| self.error("list jobs of", &e))
    }
}
