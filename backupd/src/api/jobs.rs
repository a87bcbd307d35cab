//! `/v1/jobs`: what goes on, and how far it is.

#![expect(unused_qualifications, reason = "utoipa writes the parameters with their paths")]

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use policies::access::Resource;
use policies::job::Kind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Caller;
use super::extract::{Path, Query, Sent};
use super::problem::Problem;
use super::snapshots::limit;
use crate::catalog::{JobRow, StepRow};
use crate::error::{Class, Error};
use crate::service::jobs::{JobView, Question};

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only of this cluster.
    cluster: Option<String>,
    /// Only of this kind, such as `backup`.
    kind: Option<String>,
    /// Only those that have not ended.
    open: Option<bool>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A page of jobs, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobPage {
    pub(super) jobs: Vec<JobView>,
    /// For the next page; `null` on the last.
    pub(super) next_cursor: Option<String>,
}

/// A job and what happened to it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobWithSteps {
    job: JobView,
    steps: Vec<StepView>,
}

/// One thing that happened to a job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepView {
    /// When, ms since 1970.
    at_ms: u64,
    /// What.
    event: String,
    /// The state after it.
    state: String,
    /// Who worked on it then.
    worker: String,
    /// Why.
    reason: String,
}

impl From<StepRow> for StepView {
    fn from(row: StepRow) -> Self {
        Self { at_ms: row.at_ms, event: row.event, state: row.state, worker: row.worker, reason: row.reason }
    }
}

/// 202, with the job and where it is found.
pub(super) fn accepted(row: JobRow) -> Response {
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", row.job_id));
    let mut response = (StatusCode::ACCEPTED, Json(JobView::from(row))).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Jobs, the newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(ListQuery), responses((status = 200, body = JobPage)),
    extensions(("x-action" = json!("job.read"))))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<JobPage>, Problem> {
    let kind = query.kind.map(|text| {
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        Kind::of(&text).ok_or_else(|| Error::new(Class::Usage, format!("`{text}` is no kind of job: one of {known}")))
    });
    let question = Question {
        cluster: query.cluster,
        kind: kind.transpose()?,
        only_open: query.open == Some(true),
        cursor: query.cursor,
        limit: limit(query.limit)?,
    };
    page(&api, &caller, &question).await
}

/// A page, for callers of any route that lists jobs.
pub(super) async fn page(api: &Api, caller: &Caller, question: &Question) -> Result<Json<JobPage>, Problem> {
    let page = api.services().jobs(&caller.principal, question).await?;
    Ok(Json(JobPage { jobs: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next }))
}

/// A job, how far it is, and what happened to it.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path, description = "Its id")),
    responses((status = 200, body = JobWithSteps)), extensions(("x-action" = json!("job.read"))))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path,
) -> Result<Json<JobWithSteps>, Problem> {
    let row = find(&api, &caller, &id).await?;
    let steps = api.services().steps(&id).await?.into_iter().map(Into::into).collect();
    Ok(Json(JobWithSteps { job: row.into(), steps }))
}

/// End a job: one that waits at once, one that runs within seconds.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", tag = "jobs", params(("job" = String, Path, description = "Its id")),
    responses((status = 202, body = JobView, headers(("Location" = String, description = "The job")))),
    extensions(("x-action" = json!("job.cancel"))))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path,
    _: Sent<super::work::Nothing>,
) -> Result<Response, Problem> {
    let row = find(&api, &caller, &id).await?;
    Ok(accepted(api.services().cancel(&caller.principal, &row).await?))
}

/// The job of an id, when the caller may do to it what its route does.
pub(super) async fn find(api: &Api, caller: &Caller, id: &str) -> Result<JobRow, Problem> {
    let unknown = || Error::new(Class::NotFound, format!("there is no job `{id}`"));
    let row = match api.services().catalog.job(id).await {
        Err(error) if error.class() == Class::NotFound => return Err(unknown().into()),
        row => row?,
    };
    let (cluster, tags) = (&row.cluster, api.services().cluster_tags(&row.cluster));
    api.may(caller, Resource::Of { cluster, tags: &tags }, id, unknown).await?;
    Ok(row)
}
