//! `/v1/clusters`, and who the caller is.

#![expect(unused_qualifications, reason = "utoipa writes the parameters with their paths")]

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use policies::access::Resource;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Caller;
use super::extract::{Path, Query, Sent};
use super::jobs::accepted;
use super::problem::Problem;
use super::spoken::Accepted;
use crate::error::{Class, Error};
use crate::jobs::submit;
use crate::service::clusters::{self, ClusterView};
use crate::service::windows::{COUNT_MAX, Preview};

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Who {
    /// As it stands in audit lines.
    name: String,
    /// `reader`, `operator` or `admin`.
    role: String,
    /// The clusters of its scope; all when empty.
    clusters: Vec<String>,
    /// The tags that its scope asks for.
    tags: BTreeMap<String, String>,
    /// From when on the credentials are refused, ms since 1970.
    expires_ms: Option<u64>,
}

/// Clusters by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Clusters {
    clusters: Vec<ClusterView>,
}

/// What is asked of a removal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Removal {
    /// Take a last snapshot of this name first; the cluster is removed only when that is available and verified.
    #[param(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    final_snapshot: Option<String>,
}

/// What is asked of windows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Windows {
    /// Another window that the cluster could have.
    window: Option<String>,
    /// How many occurrences.
    #[param(minimum = 1, maximum = 100)]
    count: Option<u32>,
}

/// Who the caller is, and what it may.
#[utoipa::path(get, path = "/v1/whoami", tag = "access", responses((status = 200, body = Who)),
    extensions(("x-action" = json!("api.describe"))))]
pub(super) async fn whoami(caller: Caller) -> Json<Who> {
    let principal = &caller.principal;
    Json(Who {
        name: principal.name.clone(),
        role: principal.role.to_string(),
        clusters: principal.scope.clusters.clone(),
        tags: principal.scope.tags.clone(),
        expires_ms: principal.expires_unix_ms,
    })
}

/// Clusters of the configuration, and others that snapshots are known of.
#[utoipa::path(get, path = "/v1/clusters", tag = "clusters", responses((status = 200, body = Clusters)),
    extensions(("x-action" = json!("cluster.read"))))]
pub(super) async fn list(State(api): State<Api>, caller: Caller) -> Result<Json<Clusters>, Problem> {
    let services = api.services();
    let mut views = clusters::all(&services.config(), &services.catalog).await?;
    views.retain(|name, _| {
        let tags = services.cluster_tags(name);
        services.sees(&caller.principal, Resource::Of { cluster: name, tags: &tags })
    });
    Ok(Json(Clusters { clusters: views.into_values().collect() }))
}

/// One cluster.
#[utoipa::path(get, path = "/v1/clusters/{cluster}", tag = "clusters", params(("cluster" = String, Path, description = "Its name")),
    responses((status = 200, body = ClusterView)), extensions(("x-action" = json!("cluster.read"))))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(cluster): Path,
) -> Result<Json<ClusterView>, Problem> {
    let services = api.services();
    may(&api, &caller, &cluster).await?;
    Ok(Json(clusters::one(&services.config(), &services.catalog, &cluster).await?))
}

/// Remove a cluster: nothing is scheduled for it any more; its automated snapshots expire, the others stay.
#[utoipa::path(delete, path = "/v1/clusters/{cluster}", tag = "clusters",
    params(("cluster" = String, Path, description = "Its name"), Removal),
    responses(Accepted),
    extensions(("x-action" = json!("cluster.remove"))))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(cluster): Path,
    Query(removal): Query<Removal>,
    sent: Sent<super::work::Nothing>,
) -> Result<Response, Problem> {
    let services = api.services();
    may(&api, &caller, &cluster).await?;
    let asked = sent.asked(&caller.principal)?;
    if let Some(before) = services.job_before(&asked).await? {
        return Ok(accepted(before));
    }
    let now_ms = services.catalog.now_unix_ms().await?;
    let last = removal.final_snapshot.as_deref();
    let new = submit::new_removal(&services.config(), &cluster, last, &caller.principal.name, now_ms)?;
    if let Some(name) = last {
        services.check_free(&new.repository, name).await?;
    }
    Ok(accepted(services.submit(new, asked).await?))
}

/// When automated backups of a cluster will start.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/windows", tag = "clusters",
    params(("cluster" = String, Path, description = "Its name"), Windows),
    responses((status = 200, body = Preview)), extensions(("x-action" = json!("cluster.read"))))]
pub(super) async fn windows(
    State(api): State<Api>,
    caller: Caller,
    Path(cluster): Path,
    Query(question): Query<Windows>,
) -> Result<Json<Preview>, Problem> {
    may(&api, &caller, &cluster).await?;
    let count = usize::try_from(question.count.unwrap_or(10)).unwrap_or(COUNT_MAX);
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(Error::new(Class::Usage, format!("count is from 1 to {COUNT_MAX}")).into());
    }
    Ok(Json(api.services().windows(&cluster, question.window.as_deref(), count).await?))
}

/// Whether the caller may do what its route does to this cluster.
pub(super) async fn may(api: &Api, caller: &Caller, cluster: &str) -> Result<(), Problem> {
    let tags = api.services().cluster_tags(cluster);
    let unknown = || {
        Error::new(Class::NotFound, format!("there is no cluster `{cluster}`"))
            .hint("`backupd cluster list` shows what there is")
    };
    api.may(caller, Resource::Of { cluster, tags: &tags }, cluster, unknown).await
}
