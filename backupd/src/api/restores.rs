//! `/v1/restores`: a snapshot becomes a new cluster.

#![expect(unused_qualifications, reason = "utoipa writes the parameters with their paths")]

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use policies::job::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Caller;
use super::extract::{Path, Query, Sent};
use super::jobs::{JobPage, find as find_job, page};
use super::problem::Problem;
use super::snapshots::{find, limit};
use super::spoken::{Accepted, Once};
use super::work::submit;
use crate::error::{Class, Error};
use crate::jobs::submit::RestoreParameters;
use crate::service::jobs::{JobView, Question};
use crate::service::snapshots::Found;

/// A restore that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRestore {
    /// The name of the snapshot.
    snapshot: String,
    /// Its repository; needed when several have a snapshot of this name.
    repository: Option<String>,
    /// A section `[targets.NAME]` of the configuration.
    #[schema(example = "pool")]
    target: String,
    /// What the new cluster is called.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    name: String,
    /// How many shards of equal slots; as many as the snapshot has when neither this nor `slots` is given.
    #[schema(minimum = 1, maximum = 1000)]
    shards: Option<usize>,
    /// Or the slots of each shard, such as `0-8191`.
    #[serde(default)]
    slots: Vec<String>,
    /// `standalone` or `cluster`; cluster when there are several shards.
    #[schema(pattern = "^(standalone|cluster)$")]
    mode: Option<String>,
    /// What happens to expiries: `keep`, `shift` by the time since the snapshot, or `drop`.
    #[schema(pattern = "^(keep|shift|drop)$")]
    ttl: Option<String>,
    /// Replicas per shard, where the target starts servers.
    #[serde(default)]
    #[schema(maximum = 5)]
    replicas: usize,
    /// Only this database.
    db: Option<u64>,
    /// Only keys that fit one of these patterns of KEYS.
    #[serde(default)]
    filter: Vec<String>,
    /// No keys that fit one of these.
    #[serde(default)]
    exclude: Vec<String>,
    /// Only keys of these types.
    #[serde(default)]
    types: Vec<String>,
    /// What may be left out where the engine of the target cannot hold it.
    #[serde(default)]
    drop: Vec<String>,
}

/// What a restore would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlanView {
    /// What the new cluster is called.
    name: String,
    /// Where it comes to be.
    target: String,
    /// Inputs, shards, estimates, and what else is to be known before, as `backupd restore --plan -o json` prints them.
    #[schema(value_type = Object)]
    plan: Value,
}

/// Which restores.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only of snapshots of this cluster.
    cluster: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The most replicas of a shard.
const REPLICAS_MAX: usize = 5;

impl NewRestore {
    fn parameters(&self, api: &Api) -> crate::error::Result<RestoreParameters> {
        if self.replicas > REPLICAS_MAX {
            return Err(Error::new(Class::Usage, format!("a shard can have at most {REPLICAS_MAX} replicas")));
        }
        let parameters = RestoreParameters {
            target: self.target.clone(),
            name: self.name.clone(),
            shards: self.shards,
            slots: self.slots.clone(),
            mode: self.mode.clone(),
            ttl: self.ttl.clone().unwrap_or_default(),
            replicas: self.replicas,
            db: self.db,
            filter: self.filter.clone(),
            exclude: self.exclude.clone(),
            types: self.types.clone(),
            drop: self.drop.clone(),
            seeds: Vec::new(),
        };
        parameters.check(&api.services().config())?;
        Ok(parameters)
    }

    async fn found(&self, api: &Api, caller: &Caller) -> Result<Found, Problem> {
        find(api, caller, &self.snapshot, self.repository.as_deref()).await
    }
}

/// Restores, the newest first: they are jobs.
#[utoipa::path(get, path = "/v1/restores", tag = "restores", params(ListQuery), responses((status = 200, body = JobPage)),
    extensions(("x-action" = json!("job.read"))))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<JobPage>, Problem> {
    let question = Question {
        cluster: query.cluster,
        kind: Some(Kind::Restore),
        only_open: false,
        cursor: query.cursor,
        limit: limit(query.limit)?,
    };
    page(&api, &caller, &question).await
}

/// Restore a snapshot into a new cluster.
#[utoipa::path(post, path = "/v1/restores", tag = "restores", request_body = NewRestore,
    params(Once),
    responses(Accepted),
    extensions(("x-action" = json!("restore.run"))))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    sent: Sent<NewRestore>,
) -> Result<Response, Problem> {
    let found = sent.value.found(&api, &caller).await?;
    let parameters = sent.value.parameters(&api)?;
    submit(&api, &caller, &sent, &found, Kind::Restore, &parameters).await
}

/// Say what a restore would do, or every reason why it cannot be. Nothing is touched.
#[utoipa::path(post, path = "/v1/restores/plan", tag = "restores", request_body = NewRestore,
    responses((status = 200, body = PlanView)), extensions(("x-action" = json!("restore.plan"))))]
pub(super) async fn plan(
    State(api): State<Api>,
    caller: Caller,
    sent: Sent<NewRestore>,
) -> Result<Json<PlanView>, Problem> {
    let found = sent.value.found(&api, &caller).await?;
    let parameters = sent.value.parameters(&api)?;
    let plan = api.services().plan_restore(&found, &parameters).await?;
    Ok(Json(PlanView { name: parameters.name, target: parameters.target, plan }))
}

/// A restore, how far it is, and the nodes that it made.
#[utoipa::path(get, path = "/v1/restores/{job}", tag = "restores", params(("job" = String, Path, description = "The id of its job")),
    responses((status = 200, body = JobView)), extensions(("x-action" = json!("job.read"))))]
pub(super) async fn show(State(api): State<Api>, caller: Caller, Path(id): Path) -> Result<Json<JobView>, Problem> {
    let row = find_job(&api, &caller, &id).await?;
    if row.kind() != Kind::Restore {
        return Err(Error::new(Class::NotFound, format!("the job `{id}` is no restore")).into());
    }
    Ok(Json(row.into()))
}
