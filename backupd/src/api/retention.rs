//! `/v1/retention`: what becomes of automated snapshots.

#![expect(unused_qualifications, reason = "utoipa writes the parameters with their paths")]

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::auth::Caller;
use super::clusters::may;
use super::extract::Query;
use super::problem::Problem;
use crate::service::retention::Report;

/// Of which cluster.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// Only of this cluster.
    cluster: Option<String>,
}

/// What becomes of each snapshot by the rules of the configuration, and why. Nothing is changed.
#[utoipa::path(get, path = "/v1/retention", tag = "snapshots", params(Of), responses((status = 200, body = Report)),
    extensions(("x-action" = json!("snapshot.read"))))]
pub(super) async fn plan(
    State(api): State<Api>,
    caller: Caller,
    Query(of): Query<Of>,
) -> Result<Json<Report>, Problem> {
    if let Some(cluster) = &of.cluster {
        may(&api, &caller, cluster).await?;
    }
    Ok(Json(api.services().retention(&caller.principal, of.cluster.as_deref()).await?))
}
