//! `/v1/snapshots`: listed, made, shown, deleted.

#![expect(unused_qualifications, reason = "utoipa writes the parameters with their paths")]

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use policies::access::Resource;
use policies::job::Kind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Caller;
use super::extract::{Path, Query, Sent};
use super::jobs::accepted;
use super::problem::Problem;
use super::spoken::{Accepted, Named, Once};
use super::{clusters, work};
use crate::clock;
use crate::error::{Class, Error, Result as Outcome};
use crate::jobs::submit::{self, BackupParameters};
use crate::service::snapshots::{self, Found, Question};
use crate::service::view::{ListLine, SnapshotView};

/// The most tags that may be given, and the longest name and value of one, bytes.
const TAGS_MAX: usize = 50;
const TAG_NAME_BYTES_MAX: usize = 128;
const TAG_VALUE_BYTES_MAX: usize = 256;

/// How many a page has when that is not said, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

/// Which snapshots.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only of this cluster.
    cluster: Option<String>,
    /// Only `manual`, `automated` or `final` ones.
    source: Option<String>,
    /// Only of this name.
    name: Option<String>,
    /// Only in this repository of the configuration.
    repository: Option<String>,
    /// The oldest first (`asc`, as the command line does) or the newest (`desc`).
    #[param(inline)]
    order: Option<Order>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// The oldest first.
    Asc,
    /// The newest first.
    Desc,
}

/// A page of snapshots. They have the members that `backupd snapshot list -o json` gives them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SnapshotPage {
    snapshots: Vec<ListLine>,
    /// For the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Where a snapshot is.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct In {
    /// The repository of the configuration; needed when several have a snapshot of this name.
    pub(super) repository: Option<String>,
}

/// A snapshot that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSnapshot {
    /// A cluster of the configuration.
    #[schema(example = "orders")]
    cluster: String,
    /// Its name; made of the cluster and the time when not given.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    name: Option<String>,
    /// Tags beside those of the cluster; at most 50.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// zstd level; 1 when not given.
    #[schema(minimum = 1, maximum = 19)]
    level: Option<i32>,
}

/// At most how many, as asked.
pub(super) fn limit(asked: Option<u32>) -> Outcome<u32> {
    match asked.unwrap_or(LIMIT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(Error::new(Class::Usage, format!("limit is from 1 to {LIMIT_MAX}"))),
    }
}

/// The snapshots that the catalog has.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", params(ListQuery),
    responses((status = 200, body = SnapshotPage)), extensions(("x-action" = json!("snapshot.read"))))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<SnapshotPage>, Problem> {
    let question = Question {
        cluster: query.cluster,
        source: query.source,
        except_source: None,
        name: query.name,
        repository: query.repository,
        newest_first: query.order == Some(Order::Desc),
        cursor: query.cursor,
        limit: limit(query.limit)?,
    };
    let page = api.services().snapshots(&caller.principal, &question).await?;
    Ok(Json(SnapshotPage { snapshots: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next }))
}

/// Make a snapshot of a cluster.
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshots", request_body = NewSnapshot,
    params(Once),
    responses(Accepted),
    extensions(("x-action" = json!("snapshot.create"))))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    sent: Sent<NewSnapshot>,
) -> Result<Response, Problem> {
    let (services, wanted) = (api.services(), &sent.value);
    clusters::may(&api, &caller, &wanted.cluster).await?;
    let asked = sent.asked(&caller.principal)?;
    if let Some(before) = services.job_before(&asked).await? {
        return Ok(accepted(before));
    }
    check_tags(&wanted.tags)?;
    let level = wanted.level.unwrap_or(1);
    if !(1..=19).contains(&level) {
        return Err(Error::new(Class::Usage, "level is from 1 to 19").into());
    }
    let name = wanted.name.clone().unwrap_or_else(|| snapshots::default_name(&wanted.cluster, clock::now()));
    let parameters = BackupParameters { tags: wanted.tags.clone(), level };
    let now_ms = services.catalog.now_unix_ms().await?;
    let new = submit::new_backup(&services.config(), &wanted.cluster, &name, &parameters, now_ms)?;
    services.check_free(&new.repository, &name).await?;
    Ok(accepted(services.submit(new, asked).await?))
}

fn check_tags(tags: &BTreeMap<String, String>) -> Outcome<()> {
    let is_long = |(name, value): (&String, &String)| {
        name.is_empty() || name.len() > TAG_NAME_BYTES_MAX || value.len() > TAG_VALUE_BYTES_MAX
    };
    if tags.len() > TAGS_MAX || tags.iter().any(is_long) {
        let what = format!(
            "there can be {TAGS_MAX} tags, with names of 1 to {TAG_NAME_BYTES_MAX} and values of up to {TAG_VALUE_BYTES_MAX} bytes"
        );
        return Err(Error::new(Class::Usage, what));
    }
    Ok(())
}

/// One snapshot with its shards, and what became known of it since.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    params(Named, In),
    responses((status = 200, body = SnapshotView)), extensions(("x-action" = json!("snapshot.read"))))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path,
    Query(place): Query<In>,
) -> Result<Json<SnapshotView>, Problem> {
    let found = find(&api, &caller, &name, place.repository.as_deref()).await?;
    Ok(Json(api.services().show(&found).await?))
}

/// Delete a snapshot.
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    params(Named, In),
    responses(Accepted),
    extensions(("x-action" = json!("snapshot.delete"))))]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path,
    Query(place): Query<In>,
    sent: Sent<work::Nothing>,
) -> Result<Response, Problem> {
    let found = find(&api, &caller, &name, place.repository.as_deref()).await?;
    work::submit(&api, &caller, &sent, &found, Kind::Delete, &()).await
}

/// The snapshot of a name, when the caller may do to it what its route does.
pub(super) async fn find(api: &Api, caller: &Caller, name: &str, repository: Option<&str>) -> Result<Found, Problem> {
    let found = api.services().snapshot(name, repository).await?;
    let (cluster, tags) = (&found.snapshot.cluster, found.tags());
    api.may(caller, Resource::Of { cluster, tags: &tags }, name, || snapshots::unknown(name)).await?;
    Ok(found)
}
