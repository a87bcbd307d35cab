//! `/v1/costs`: what the storage of snapshots costs a month.

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
use crate::service::costs::Costs;

/// Of what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// Only of this cluster.
    cluster: Option<String>,
    /// Only in this repository of the configuration.
    repository: Option<String>,
}

/// What the snapshots of each cluster store, and what that costs a month at the price of the configuration.
#[utoipa::path(get, path = "/v1/costs", tag = "snapshots", params(Of), responses((status = 200, body = Costs)),
    extensions(("x-action" = json!("snapshot.read"))))]
pub(super) async fn show(State(api): State<Api>, caller: Caller, Query(of): Query<Of>) -> Result<Json<Costs>, Problem> {
    if let Some(cluster) = &of.cluster {
        may(&api, &caller, cluster).await?;
    }
    Ok(Json(api.services().costs(&caller.principal, of.cluster.as_deref(), of.repository.as_deref()).await?))
}
