//! `/v1/grants`: who else may read what is in the buckets.

use axum::Json;
use axum::extract::State;
use policies::grants::{Principal, Way};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::extract::{Path, Query, Sent};
use super::problem::Problem;
use super::snapshots::{In, find};
use super::spoken::Once;
use super::{clusters, work};
use crate::error::{Class, Error};
use crate::service::grants::{self, GrantView, Subject};

/// Grants.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Grants {
    grants: Vec<GrantView>,
}

/// What is granted, and to whom: one snapshot or one cluster, and one of account, principal and canonical id.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGrant {
    /// The snapshot.
    snapshot: Option<String>,
    /// Or all snapshots of this cluster, now and later.
    cluster: Option<String>,
    /// The repository of the configuration; that of the cluster, or the only one that has the snapshot, when not given.
    repository: Option<String>,
    /// An account: `123456789012`.
    #[schema(example = "123456789012")]
    account: Option<String>,
    /// Or a user or role: `arn:aws:iam::123456789012:role/restore`.
    principal: Option<String>,
    /// Or an account by its canonical id.
    canonical_id: Option<String>,
    /// A public key of theirs (`backupd key public`), for which the snapshot is wrapped, so that no key of ours is given away. Not for a cluster.
    #[schema(example = "x25519:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=", pattern = "^x25519:[A-Za-z0-9+/]{43}=$")]
    key: Option<String>,
    /// Or their key of AWS KMS, by its ARN, with which the daemon may encrypt.
    #[schema(example = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab")]
    grantee_kms_key: Option<String>,
    /// Say it by the ACLs of the snapshot's objects instead of the bucket's policy: they can read the objects then, but not list them. Of one
    /// snapshot, for a `canonical_id`.
    #[serde(default)]
    acl: bool,
}

impl NewGrant {
    fn whom(&self) -> Result<Principal, Error> {
        let named = [
            self.account.clone().map(Principal::Account),
            self.principal.clone().map(Principal::Arn),
            self.canonical_id.clone().map(Principal::CanonicalId),
        ];
        let mut named = named.into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(Error::new(Class::Usage, "give one of account, principal and canonical_id")),
        }
    }
}

/// Grants as the policies of the buckets, and the ACLs of objects, really have them, beside what was given.
#[utoipa::path(get, path = "/v1/grants", tag = "grants", params(In), responses((status = 200, body = Grants)),
    extensions(("x-action" = json!("grant.read"))))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(place): Query<In>,
) -> Result<Json<Grants>, Problem> {
    let grants = api.services().grants(&caller.principal, place.repository.as_deref()).await?;
    Ok(Json(Grants { grants }))
}

/// Let another account read a snapshot, or those of a cluster, and nothing else of the bucket.
#[utoipa::path(post, path = "/v1/grants", tag = "grants", request_body = NewGrant,
    params(Once), responses((status = 200, body = GrantView)), extensions(("x-action" = json!("grant.add"))))]
pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    sent: Sent<NewGrant>,
) -> Result<Json<GrantView>, Problem> {
    let wanted = &sent.value;
    let (subject, repository) = match (&wanted.snapshot, &wanted.cluster) {
        (Some(name), None) => {
            let found = find(&api, &caller, name, wanted.repository.as_deref()).await?;
            (Subject::Snapshot(found.snapshot.name), found.repository)
        }
        (None, Some(cluster)) => {
            clusters::may(&api, &caller, cluster).await?;
            let of_cluster = || api.services().config().cluster(cluster).map(|section| section.repository.clone());
            let repository = wanted.repository.clone().map_or_else(of_cluster, Ok)?;
            (Subject::Cluster(cluster.clone()), repository)
        }
        _ => return Err(Error::new(Class::Usage, "give a snapshot or a cluster").into()),
    };
    let to = wanted.whom()?;
    let way = if wanted.acl { Way::Acl } else { Way::Policy };
    let theirs = grants::their_key(wanted.key.as_deref(), wanted.grantee_kms_key.as_deref()).await?;
    let asked = sent.asked(&caller.principal)?;
    let wanted = grants::Wanted { repository, subject, to, way, theirs };
    Ok(Json(api.services().grant(&wanted, &asked).await?))
}

/// Take a grant back. What was read by then cannot be taken back.
#[utoipa::path(delete, path = "/v1/grants/{grant}", tag = "grants",
    params(("grant" = String, Path, description = "Its id"), In),
    responses((status = 200, body = GrantView)), extensions(("x-action" = json!("grant.revoke"))))]
pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path,
    Query(place): Query<In>,
    _: Sent<work::Nothing>,
) -> Result<Json<GrantView>, Problem> {
    Ok(Json(api.services().revoke_grant(&caller.principal, &id, place.repository.as_deref()).await?))
}
