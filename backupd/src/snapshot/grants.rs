//! Grants in the catalog: which places of a repository are to be looked at, so that nobody who asks need list all of it.
//!
//! Those of snapshots are what facts beside them say; those of clusters, of which no fact tells, are what the bucket's policy says. How
//! a grant stands is always asked of the bucket.

use std::collections::{BTreeMap, BTreeSet};

use policies::grants::{Grant, Principal, Scope, Way};

use crate::catalog::{Catalog, GrantRow};
use crate::error::{Class, Error, Result};
use crate::repository::grant::{Given, Standing, Stated, Subject};
use crate::repository::{Place, Repository};

/// The places of a repository that the catalog knows grants of.
///
/// # Errors
/// Those of the catalog.
pub async fn known(catalog: &Catalog, repository: &Repository) -> Result<BTreeSet<Place>> {
    Ok(catalog.grants(repository.id(), false).await?.iter().filter_map(place).collect())
}

/// Notes a grant that was just given, or what is there of one that could not be. The bucket has it whatever happens here, and the catalog
/// follows it: what cannot be noted is a warning.
pub async fn given(catalog: &Catalog, repository: &Repository, subject: &Subject, done: &Result<Standing>) {
    let noted = async {
        match (done, subject) {
            (Ok(Standing { scope: Some(scope), grant_id, principal, kms_key, .. }), _) => match Place::of(scope) {
                Some(place) => beside(catalog, repository, &place).await,
                None => {
                    let row = by_policy(repository, grant_id, scope, principal.as_ref());
                    let (kms_key, given_ms) = (kms_key.clone(), catalog.now_unix_ms().await?);
                    catalog.put_grant(&GrantRow { kms_key, given_ms, ..row }).await
                }
            },
            // its fact may be there already
            (Err(_), Subject::Snapshot(name)) => match repository.find(name).await {
                Ok((place, _)) => beside(catalog, repository, &place).await,
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    };
    warn(noted.await);
}

/// Notes a grant that was just taken back; `scope` is what it was for, as far as that is known. As [`given`].
pub async fn revoked(catalog: &Catalog, repository: &Repository, grant_id: &str, scope: Option<&Scope>) {
    let noted = async {
        if let Some(place) = scope.and_then(Place::of) {
            beside(catalog, repository, &place).await?;
        }
        // of a cluster, or of a snapshot that is gone
        catalog.mark_grant_revoked(repository.id(), grant_id, catalog.now_unix_ms().await?).await.map(drop)
    };
    warn(noted.await);
}

fn warn(noted: Result<()>) {
    if let Err(error) = noted {
        tracing::warn!(error = %error, "the grant could not be noted in the catalog, which will follow");
    }
}

/// Makes the catalog say what was given and taken back without it: the policy is asked once, and only places that it names and the catalog
/// does not, or the other way round, are looked at. A repository that is no bucket has no grants.
///
/// # Errors
/// What the catalog or the repository says; what was noted until then is right.
pub async fn follow(catalog: &Catalog, repository: &Repository) -> Result<()> {
    if repository.store().as_bucket().is_none() {
        return Ok(());
    }
    // the catalog first: what is given in between is then not known, and never taken for gone
    let known = catalog.grants(repository.id(), false).await?;
    let stated = match repository.stated().await {
        // nothing was given by a policy that nobody may read
        Err(error) if !error.is_retryable() && known.is_empty() => {
            tracing::debug!(error = %error, "the policy is not followed");
            return Ok(());
        }
        stated => stated?,
    };
    let now_ms = catalog.now_unix_ms().await?;
    let mut places = BTreeSet::new();
    for one in stated.iter().filter(|one| known.iter().all(|row| row.grant_id != one.grant_id)) {
        places.extend(one.scope.as_ref().and_then(Place::of));
        if let Some(row) = of_cluster(repository, one) {
            catalog.put_grant(&GrantRow { given_ms: now_ms, ..row }).await?;
        }
    }
    for row in known.iter().filter(|row| stated.iter().all(|one| one.grant_id != row.grant_id)) {
        match place(row) {
            Some(place) => drop(places.insert(place)),
            None => drop(catalog.mark_grant_revoked(&row.repository_id, &row.grant_id, now_ms).await?),
        }
    }
    for place in places {
        match beside(catalog, repository, &place).await {
            Err(error) if is_unreadable(&error) => tracing::warn!(error = %error, "grants cannot be followed"),
            other => other?,
        }
    }
    Ok(())
}

/// Makes the catalog say what the facts beside a snapshot say.
async fn beside(catalog: &Catalog, repository: &Repository, at: &Place) -> Result<()> {
    // the catalog first, as above
    let mut known = catalog.grants(repository.id(), false).await?;
    known.retain(|row| place(row).as_ref() == Some(at));
    let given = repository.given_at(at).await?;
    for one in &given {
        catalog.put_grant(&row(repository, one)).await?;
    }
    for row in known.iter().filter(|row| given.iter().all(|one| one.grant.id != row.grant_id)) {
        let now_ms = catalog.now_unix_ms().await?;
        catalog.mark_grant_revoked(&row.repository_id, &row.grant_id, now_ms).await?;
    }
    Ok(())
}

/// The grants of which the repository says something else than the catalog, by their ids; with `take` the catalog is told. What cannot be
/// read is added to `broken`, and what the catalog knows of it stays.
///
/// # Errors
/// What the catalog or the repository says.
pub(super) async fn compare(
    catalog: &Catalog,
    repository: &Repository,
    take: bool,
    broken: &mut Vec<String>,
) -> Result<Vec<String>> {
    if repository.store().as_bucket().is_none() {
        return Ok(Vec::new());
    }
    // the catalog first, as above
    let rows = catalog.grants(repository.id(), true).await?;
    let known: BTreeMap<&str, &GrantRow> = rows.iter().map(|row| (row.grant_id.as_str(), row)).collect();
    let now_ms = catalog.now_unix_ms().await?;
    let said = Said::of(repository, &known, now_ms, broken).await?;
    let mut different = Vec::new();
    for row in said.grants.values().filter(|row| known.get(row.grant_id.as_str()) != Some(row)) {
        different.push(row.grant_id.clone());
        if take {
            catalog.put_grant(row).await?;
        }
    }
    for row in rows.iter().filter(|row| row.revoked_ms.is_none() && said.is_gone(row)) {
        different.push(row.grant_id.clone());
        if take {
            catalog.mark_grant_revoked(&row.repository_id, &row.grant_id, now_ms).await?;
        }
    }
    Ok(different)
}

/// What a repository says of grants.
struct Said {
    /// What the catalog should say, by the ids of the grants.
    grants: BTreeMap<String, GrantRow>,
    /// Where something was granted that cannot be read.
    unreadable: BTreeSet<Place>,
    /// Whether the policy could be read.
    policy: bool,
}

impl Said {
    /// `now_ms`: since when the policy says what the catalog does not know.
    async fn of(
        repository: &Repository,
        known: &BTreeMap<&str, &GrantRow>,
        now_ms: u64,
        broken: &mut Vec<String>,
    ) -> Result<Self> {
        let mut said = Self { grants: BTreeMap::new(), unreadable: BTreeSet::new(), policy: true };
        for place in repository.granted_places(None).await? {
            match repository.given_at(&place).await {
                Ok(given) => {
                    let rows = given.iter().map(|one| (one.grant.id.clone(), row(repository, one)));
                    said.grants.extend(rows);
                }
                Err(error) if is_unreadable(&error) => {
                    broken.push(error.message().to_owned());
                    said.unreadable.insert(place);
                }
                Err(error) => return Err(error),
            }
        }
        match repository.stated().await {
            Ok(stated) => {
                let of_clusters = stated.iter().filter_map(|one| of_cluster(repository, one));
                said.grants.extend(of_clusters.map(|row| {
                    let known = known.get(row.grant_id.as_str());
                    // what the policy does not tell
                    let kms_key = known.and_then(|known| known.kms_key.clone());
                    let given_ms = known.map_or(now_ms, |known| known.given_ms);
                    (row.grant_id.clone(), GrantRow { kms_key, given_ms, ..row })
                }));
            }
            // servers without policies, and who may not read them, do without where nothing is granted
            Err(error) if !error.is_retryable() => {
                said.policy = false;
                if !known.is_empty() || !said.grants.is_empty() {
                    broken.push(error.message().to_owned());
                }
            }
            Err(error) => return Err(error),
        }
        Ok(said)
    }

    /// Whether it is known that a grant is not there.
    fn is_gone(&self, row: &GrantRow) -> bool {
        !self.grants.contains_key(&row.grant_id)
            && match place(row) {
                Some(place) => !self.unreadable.contains(&place),
                None => self.policy,
            }
    }
}

fn is_unreadable(error: &Error) -> bool {
    matches!(error.class(), Class::Verification | Class::Version)
}

/// Where the snapshot of a grant is; `None` when it is for a cluster.
fn place(row: &GrantRow) -> Option<Place> {
    let is_snapshot = !row.snapshot_id.is_empty();
    is_snapshot.then(|| Place { cluster: row.cluster.clone(), snapshot_id: row.snapshot_id.clone() })
}

/// What facts say of a grant.
fn row(repository: &Repository, given: &Given) -> GrantRow {
    let Grant { id, scope, principal, way, .. } = &given.grant;
    GrantRow {
        way: if *way == Way::Acl { "acl" } else { "policy" }.to_owned(),
        key_id: given.key_id.clone(),
        kms_key: given.kms_key.clone(),
        given_ms: given.given_ms,
        revoked_ms: given.revoked_ms.and_then(|ms| i64::try_from(ms).ok()),
        ..by_policy(repository, id, scope, Some(principal))
    }
}

/// What a statement says of a grant of a cluster; `None` of another one.
fn of_cluster(repository: &Repository, stated: &Stated) -> Option<GrantRow> {
    let scope = stated.scope.as_ref().filter(|scope| matches!(scope, Scope::Cluster { .. }))?;
    Some(by_policy(repository, &stated.grant_id, scope, stated.principal.as_ref()))
}

/// A grant of which no more is known than a policy says.
fn by_policy(repository: &Repository, id: &str, scope: &Scope, principal: Option<&Principal>) -> GrantRow {
    let (cluster, snapshot_id, snapshot_name) = match scope {
        Scope::Snapshot { cluster, snapshot_id, name } => (cluster.as_str(), snapshot_id.as_str(), name.as_str()),
        Scope::Cluster { cluster } => (cluster.as_str(), "", ""),
    };
    GrantRow {
        repository_id: repository.id().to_owned(),
        grant_id: id.to_owned(),
        cluster: cluster.to_owned(),
        snapshot_id: snapshot_id.to_owned(),
        snapshot_name: snapshot_name.to_owned(),
        principal: serde_json::json!(principal).to_string(),
        way: "policy".to_owned(),
        key_id: None,
        kms_key: None,
        given_ms: 0,
        revoked_ms: None,
    }
}
