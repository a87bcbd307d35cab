//! `/v1/events`: what happened.

#![expect(unused_qualifications, reason = "utoipa writes the parameters with their paths")]

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Caller;
use super::extract::Query;
use super::problem::Problem;
use super::snapshots::limit;
use crate::catalog::EventRow;
use crate::service::events::Question;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only of this cluster.
    cluster: Option<String>,
    /// Only of this snapshot.
    snapshot: Option<String>,
    /// Not before, ms since 1970.
    since_ms: Option<u64>,
    /// Before, ms since 1970.
    until_ms: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// One line of history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    event_id: String,
    /// When, ms since 1970.
    at_ms: u64,
    /// Its stable code.
    code: String,
    /// `info`, `warning` or `error`.
    severity: String,
    /// Of which cluster; empty when of none.
    cluster: String,
    /// Of which snapshot; empty when of none.
    snapshot_name: String,
    /// In which job; empty when in none.
    job_id: String,
    /// In words.
    message: String,
}

impl From<EventRow> for EventView {
    fn from(row: EventRow) -> Self {
        Self {
            event_id: row.event_id,
            at_ms: row.at_ms,
            code: row.code,
            severity: row.severity,
            cluster: row.cluster,
            snapshot_name: row.snapshot_name,
            job_id: row.job_id,
            message: row.message,
        }
    }
}

/// A page of events, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventPage {
    events: Vec<EventView>,
    /// For the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// What happened, the oldest first. Events that concern no cluster are for who sees everything.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(ListQuery), responses((status = 200, body = EventPage)),
    extensions(("x-action" = json!("event.read"))))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<EventPage>, Problem> {
    let question = Question {
        cluster: query.cluster,
        snapshot_name: query.snapshot,
        since_ms: query.since_ms.unwrap_or(0),
        until_ms: query.until_ms,
        cursor: query.cursor,
        limit: limit(query.limit)?,
    };
    let page = api.services().events(&caller.principal, &question).await?;
    Ok(Json(EventPage { events: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next }))
}
