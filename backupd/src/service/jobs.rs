//! Jobs that callers ask for, and what becomes of them.

use policies::access::{Principal, Resource};
use policies::job::Kind;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{Page, READS_MAX, Services, cursor};
use crate::catalog::{Added, Asked, Code, JOBS_MAX, JobFilter, JobRow, NewJob, SnapshotFilter, StepRow};
use crate::error::{Class, Error, Result};
use crate::jobs::about;

/// The name of the list in cursors.
const LIST: &str = "jobs";

/// The longest key of a caller, bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// A job as callers see it. Times are ms since 1970.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobView {
    /// Its id.
    pub job_id: String,
    /// `backup`, `verify`, `copy`, `export`, `keep`, `delete`, `restore`, `remove`.
    pub kind: String,
    /// The cluster that it is about.
    pub cluster: String,
    /// The repository in the configuration.
    pub repository: String,
    /// The snapshot that it is about, or makes.
    pub snapshot_name: String,
    /// `queued`, `running`, `succeeded`, `failed`, `canceled`.
    pub state: String,
    /// The step that was begun last; empty before the first.
    pub step: String,
    /// What is done now, in words.
    pub phase: String,
    /// RDB bytes so far.
    pub done_bytes: u64,
    /// RDB bytes in all; 0 when that is not known.
    pub total_bytes: u64,
    /// Keys so far.
    pub done_keys: u64,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was asked for.
    pub created_ms: u64,
    /// When it was begun first.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// When its end was asked for.
    pub cancel_ms: Option<i64>,
    /// The class of the error that ended or delayed it; empty without one.
    pub class: String,
    /// Why it is where it is.
    pub reason: String,
    /// Who asked for it; empty for the scheduler and the command line.
    pub requested_by: String,
    /// What was asked for.
    #[schema(value_type = Object)]
    pub parameters: Value,
    /// What it made.
    #[schema(value_type = Object)]
    pub result: Value,
}

impl From<JobRow> for JobView {
    fn from(row: JobRow) -> Self {
        let object = |text: &str| match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Value::Object(object),
            _ => Value::Object(serde_json::Map::new()),
        };
        Self {
            parameters: object(&row.parameters),
            result: object(&row.result),
            job_id: row.job_id,
            kind: row.kind,
            cluster: row.cluster,
            repository: row.repository,
            snapshot_name: row.snapshot_name,
            state: row.state,
            step: row.step,
            phase: row.phase,
            done_bytes: row.done_bytes,
            total_bytes: row.total_bytes,
            done_keys: row.done_keys,
            attempts: row.attempts,
            created_ms: row.created_ms,
            started_ms: row.started_ms,
            ended_ms: row.ended_ms,
            cancel_ms: row.cancel_ms,
            class: row.class,
            reason: row.reason,
            requested_by: row.requested_by,
        }
    }
}

/// Which jobs, and from where on. The newest come first.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Only of this cluster.
    pub cluster: Option<String>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only those that have not ended.
    pub only_open: bool,
    /// Behind the page that gave this.
    pub cursor: Option<String>,
    /// At most so many, from 1 to [`JOBS_MAX`].
    pub limit: u32,
}

/// A caller's own key for a request, with a digest of the request.
///
/// # Errors
/// `Usage` for a key that is empty, too long or not printable.
pub fn asked(by: &Principal, key: Option<&str>, request: &[&[u8]]) -> Result<Asked> {
    let Some(key) = key else { return Ok(Asked { by: by.name.clone(), ..Asked::default() }) };
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!("an idempotency key has 1 to {KEY_BYTES_MAX} printable ASCII characters without spaces");
        return Err(Error::new(Class::Usage, what));
    }
    let mut hasher = Sha256::new();
    for part in request {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Ok(Asked { by: by.name.clone(), key: key.to_owned(), sha256: hex::encode(hasher.finalize()) })
}

impl Services {
    /// The job that this caller asked for before under the same key, when the request is the same.
    ///
    /// # Errors
    /// `Refused` when the key was used for another request, or for one that is no job; those of the catalog.
    pub async fn job_before(&self, asked: &Asked) -> Result<Option<JobRow>> {
        if asked.key.is_empty() {
            return Ok(None);
        }
        match self.catalog.job_asked(&asked.by, &asked.key).await? {
            Some(row) if row.request_sha256 == asked.sha256 => Ok(Some(row)),
            Some(row) => Err(used(&asked.key, &format!("job {}", row.job_id))),
            None => match self.catalog.request_asked(&asked.by, &asked.key).await? {
                Some(row) => Err(used(&asked.key, &row.made_id)),
                None => Ok(None),
            },
        }
    }

    /// Whether a name is free in a repository of the configuration, as far as the catalog tells; its claim on the name is what decides.
    ///
    /// # Errors
    /// `Refused` when a snapshot has it, or a job that has not ended makes one of this name; those of the catalog.
    pub async fn check_free(&self, repository: &str, name: &str) -> Result<()> {
        let taken = |by: String| {
            Err(Error::new(Class::Refused, format!("the name `{name}` is taken in {repository}: {by}"))
                .hint("give another name"))
        };
        if let Some(id) = self.repository_id(repository).await? {
            let filter = SnapshotFilter {
                repository_id: Some(id),
                name: Some(name.to_owned()),
                limit: 1,
                ..SnapshotFilter::default()
            };
            if let Some(row) = self.catalog.snapshots(&filter).await?.first() {
                return taken(format!("it is the snapshot {} of {}", row.snapshot_id, row.cluster));
            }
        }
        let open = self.catalog.jobs(&JobFilter { only_open: true, ..JobFilter::default() }).await?;
        let makes = |row: &&JobRow| {
            matches!(row.kind(), Kind::Backup | Kind::Remove)
                && row.repository == repository
                && row.snapshot_name == name
        };
        match open.iter().find(makes) {
            Some(row) => taken(format!("job {} makes it", row.job_id)),
            None => Ok(()),
        }
    }

    /// Adds a job that a caller asks for; the one that it asked for before when the key and the request are the same.
    ///
    /// # Errors
    /// `Refused` when the key was used for another request; those of the catalog.
    pub async fn submit(&self, mut new: NewJob, asked: Asked) -> Result<JobRow> {
        new.asked = asked;
        let now_ms = self.catalog.now_unix_ms().await?;
        match self.catalog.add_job_once(&new, &[], now_ms).await? {
            Added::New => self.catalog.job(&new.job_id).await,
            Added::Before(row) => Ok(*row),
            Added::Other(id) => Err(used(&new.asked.key, &format!("job {id}"))),
        }
    }

    /// A page of the jobs that the caller sees.
    ///
    /// # Errors
    /// `Usage` for a cursor that is none; what the catalog says.
    pub async fn jobs(&self, caller: &Principal, question: &Question) -> Result<Page<JobRow>> {
        let limit = usize::try_from(question.limit.clamp(1, JOBS_MAX)).unwrap_or(1);
        let mut filter = JobFilter {
            cluster: question.cluster.clone().or_else(|| Self::only_cluster(caller)),
            only_open: question.only_open,
            kind: question.kind,
            after: question.cursor.as_deref().map(|text| cursor::read(LIST, text)).transpose()?,
        };
        let mut items: Vec<JobRow> = Vec::new();
        for _ in 0..READS_MAX {
            let rows = self.catalog.jobs(&filter).await?;
            let is_last = rows.len() < usize::try_from(JOBS_MAX).unwrap_or(1);
            filter.after = rows.last().map(|row| (row.created_ms, row.job_id.clone()));
            for row in rows {
                if !self.sees_job(caller, &row) {
                    continue;
                }
                if items.len() == limit {
                    let next = items.last().map(|last| cursor::write(LIST, last.created_ms, &last.job_id));
                    return Ok(Page { items, next });
                }
                items.push(row);
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
        }
        Ok(Page { items, next: filter.after.map(|(ms, id)| cursor::write(LIST, ms, &id)) })
    }

    fn sees_job(&self, caller: &Principal, row: &JobRow) -> bool {
        let tags = self.cluster_tags(&row.cluster);
        self.sees(caller, Resource::Of { cluster: &row.cluster, tags: &tags })
    }

    /// The steps of a job, in order.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn steps(&self, job_id: &str) -> Result<Vec<StepRow>> {
        self.catalog.job_steps(job_id).await
    }

    /// Asks for the end of a job.
    ///
    /// # Errors
    /// `NotFound`, `Refused` when it has ended or cannot be stopped any more; those of the catalog.
    pub async fn cancel(&self, caller: &Principal, row: &JobRow) -> Result<JobRow> {
        let event = about(row, Code::JobCanceled, format!("{} canceled it", caller.name));
        self.catalog.cancel_job(&row.job_id, event, self.catalog.now_unix_ms().await?).await
    }
}

/// The key was used for another request, which made `what`.
pub(super) fn used(key: &str, what: &str) -> Error {
    Error::new(Class::Refused, format!("the idempotency key `{key}` was used for another request, which is {what}"))
        .hint("use a new key for a new request")
}
