//! What is done to a snapshot: it is verified, copied, exported, kept or let go.

use axum::extract::State;
use axum::response::Response;
use policies::job::Kind;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::extract::{Path, Query, Sent};
use super::jobs::accepted;
use super::problem::Problem;
use super::snapshots::{In, find};
use super::spoken::{Accepted, Named, Once};
use crate::error::{Class, Error};
use crate::jobs::submit::{self, CopyParameters, ExportParameters, KeepParameters, VerifyParameters};
use crate::service::snapshots::Found;

/// Nothing is asked for besides.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// How it is verified.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Verification {
    /// Whether servers are started with it; as the configuration says when not given.
    boot: Option<bool>,
}

/// Where it is copied to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Copy {
    /// Another repository of the configuration.
    #[schema(example = "elsewhere")]
    to: String,
    /// The name of the copy; that of the snapshot when not given.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    name: Option<String>,
    /// Whether all of the copy is read afterwards.
    #[serde(default)]
    verify: bool,
}

/// Where it is exported to, in the clear.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    /// A section `[exports.NAME]` of the configuration.
    #[schema(example = "warehouse")]
    to: String,
    /// Folders below it; the name of the snapshot when not given.
    #[schema(max_length = 256)]
    prefix: Option<String>,
    /// What the names of the files begin with; the name of the snapshot when not given.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    name: Option<String>,
    /// How many files; as many as the snapshot has shards when not given.
    #[schema(minimum = 1, maximum = 1000)]
    shards: Option<usize>,
    /// The engine that is to read them, such as `redis-6.2`, when it is another than that of the snapshot.
    engine: Option<String>,
    /// What may be left out where that engine cannot hold it.
    #[serde(default)]
    drop: Vec<String>,
}

/// Read a snapshot again, every byte.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/verify", tag = "snapshots", request_body = Verification,
    params(Named, In, Once), responses(Accepted),
    extensions(("x-action" = json!("snapshot.verify"))))]
pub(super) async fn verify(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path,
    Query(place): Query<In>,
    sent: Sent<Verification>,
) -> Result<Response, Problem> {
    let found = find(&api, &caller, &name, place.repository.as_deref()).await?;
    submit(&api, &caller, &sent, &found, Kind::Verify, &VerifyParameters { boot: sent.value.boot }).await
}

/// Copy a snapshot into another repository.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/copy", tag = "snapshots", request_body = Copy,
    params(Named, In, Once), responses(Accepted),
    extensions(("x-action" = json!("snapshot.copy"))))]
pub(super) async fn copy(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path,
    Query(place): Query<In>,
    sent: Sent<Copy>,
) -> Result<Response, Problem> {
    let found = find(&api, &caller, &name, place.repository.as_deref()).await?;
    let wanted = &sent.value;
    let new_name = wanted.name.clone().unwrap_or_else(|| name.clone());
    submit::check_name(&new_name)?;
    api.services().config().repository(&wanted.to)?;
    let parameters =
        CopyParameters { to: wanted.to.clone(), name: new_name, verify: wanted.verify, source: String::new() };
    submit(&api, &caller, &sent, &found, Kind::Copy, &parameters).await
}

/// Write a snapshot as plain RDB files for other tools.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/export", tag = "snapshots", request_body = Export,
    params(Named, In, Once), responses(Accepted),
    extensions(("x-action" = json!("snapshot.export"))))]
pub(super) async fn export(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path,
    Query(place): Query<In>,
    sent: Sent<Export>,
) -> Result<Response, Problem> {
    let found = find(&api, &caller, &name, place.repository.as_deref()).await?;
    let wanted = &sent.value;
    if wanted.shards.is_some_and(|count| !(1..=policies::shards::SHARDS_MAX).contains(&count)) {
        let what = format!("shards are from 1 to {}", policies::shards::SHARDS_MAX);
        return Err(Error::new(Class::Usage, what).into());
    }
    let parameters = ExportParameters {
        to: wanted.to.clone(),
        prefix: wanted.prefix.clone().unwrap_or_default(),
        name: wanted.name.clone().unwrap_or_default(),
        shards: wanted.shards,
        engine: wanted.engine.clone(),
        drop: wanted.drop.clone(),
    };
    parameters.check(&api.services().config(), &name)?;
    submit(&api, &caller, &sent, &found, Kind::Export, &parameters).await
}

/// Keep a snapshot: it cannot be deleted until it is released.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/keep", tag = "snapshots",
    params(Named, In, Once), responses(Accepted),
    extensions(("x-action" = json!("snapshot.keep"))))]
pub(super) async fn keep(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path,
    Query(place): Query<In>,
    sent: Sent<Nothing>,
) -> Result<Response, Problem> {
    let found = find(&api, &caller, &name, place.repository.as_deref()).await?;
    submit(&api, &caller, &sent, &found, Kind::Keep, &KeepParameters { kept: true }).await
}

/// Let a snapshot go that was kept.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/release", tag = "snapshots",
    params(Named, In, Once), responses(Accepted),
    extensions(("x-action" = json!("snapshot.release"))))]
pub(super) async fn release(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path,
    Query(place): Query<In>,
    sent: Sent<Nothing>,
) -> Result<Response, Problem> {
    let found = find(&api, &caller, &name, place.repository.as_deref()).await?;
    submit(&api, &caller, &sent, &found, Kind::Keep, &KeepParameters { kept: false }).await
}

/// Asks for a job about a snapshot; the one that was asked for before when the key and the request are the same.
pub(super) async fn submit<T>(
    api: &Api,
    caller: &Caller,
    sent: &Sent<T>,
    found: &Found,
    kind: Kind,
    parameters: &impl Serialize,
) -> Result<Response, Problem> {
    let services = api.services();
    let asked = sent.asked(&caller.principal)?;
    if let Some(before) = services.job_before(&asked).await? {
        return Ok(accepted(before));
    }
    let now_ms = services.catalog.now_unix_ms().await?;
    let snapshot = &found.snapshot;
    let new = submit::of_snapshot(kind, &snapshot.cluster, &found.repository, &snapshot.name, parameters, now_ms)?;
    Ok(accepted(services.submit(new, asked).await?))
}
