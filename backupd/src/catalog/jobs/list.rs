//! The list of jobs.

use std::fmt::Write as _;

use policies::job::Kind;

use super::const_format;
use super::row::{COLUMNS, JobRow};
use crate::catalog::{Catalog, signed};
use crate::error::Result;

/// Which jobs to list: newest first.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only of this cluster.
    pub cluster: Option<String>,
    /// Only those that have not ended.
    pub only_open: bool,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only those after this one in the order of the list: its `created_ms` and `job_id`.
    pub after: Option<(u64, String)>,
}

impl Catalog {
    /// At most [`super::JOBS_MAX`] jobs, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let mut text = format!("SELECT {COLUMNS} FROM jobs WHERE 1 = 1");
        let (mut texts, mut count) = (Vec::new(), 0);
        let mut add = |condition: &str, value: &str| {
            count += 1;
            texts.push(value.to_owned());
            // writing to a String cannot fail
            let _infallible = write!(text, " AND {condition} ${count}");
        };
        if let Some(cluster) = &filter.cluster {
            add("cluster =", cluster);
        }
        if let Some(kind) = filter.kind {
            add("kind =", kind.as_str());
        }
        if filter.only_open {
            text.push_str(" AND state IN ('queued', 'running')");
        }
        if filter.after.is_some() {
            let _infallible = write!(text, " AND (created_ms, job_id) < (${}, ${})", count + 1, count + 2);
        }
        text.push_str(" ORDER BY created_ms DESC, job_id DESC LIMIT 1000");
        let mut query = sqlx::query_as(const_format(&[&text]));
        for text in texts {
            query = query.bind(text);
        }
        if let Some((created_ms, id)) = &filter.after {
            query = query.bind(signed(*created_ms)).bind(id.clone());
        }
        query.fetch_all(&self.pool).await.map_err(|e| self.error("list the jobs of", &e))
    }
}
