//! The catalog kept at what a repository holds, now and then and without being asked: what was published by somebody who could not
//! note it is added, and what is gone is noted as gone.
//!
//! A repository is listed by its folders, and only manifests that the catalog does not know are read; [`super::rebuild`] reads them all.

use std::collections::{BTreeMap, BTreeSet};

use super::present::present;
use crate::catalog::Catalog;
use crate::error::{Class, Result};
use crate::repository::{Place, Repository};

/// What was found of one cluster: names of snapshots.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// They exist, and the catalog did not know them.
    pub found: Vec<String>,
    /// The catalog took them for existing, and they do not.
    pub vanished: Vec<String>,
}

/// Every cluster that the repository or the catalog knows snapshots of.
///
/// # Errors
/// What the catalog or the repository says.
pub async fn clusters(catalog: &Catalog, repository: &Repository) -> Result<BTreeSet<String>> {
    let mut clusters = catalog.clusters_with_snapshots(repository.id()).await?;
    clusters.extend(repository.clusters().await?);
    Ok(clusters)
}

/// Makes the catalog say which snapshots of a cluster a repository holds. It can be left at any moment, and repeated.
///
/// # Errors
/// What the catalog or the repository says; what was noted until then is right.
pub async fn follow(catalog: &Catalog, repository: &Repository, cluster: &str) -> Result<Followed> {
    // the catalog first: what is published in between is then not known, and never taken for vanished
    let known: BTreeMap<String, String> = catalog.snapshot_ids(repository.id(), cluster).await?.into_iter().collect();
    let there: BTreeSet<String> = repository.snapshot_ids(cluster).await?.into_iter().collect();
    let place = |id: &String| Place { cluster: cluster.to_owned(), snapshot_id: id.clone() };
    let mut followed = Followed::default();
    for id in there.iter().filter(|id| !known.contains_key(*id)) {
        let manifest = match repository.manifest(&place(id)).await {
            Ok(unproven) => unproven.claimed().clone(),
            // work in progress, or what a listing shows as broken
            Err(error) if matches!(error.class(), Class::NotFound | Class::Verification | Class::Version) => continue,
            Err(error) => return Err(error),
        };
        for snapshot in present(repository, vec![manifest]).await? {
            snapshot.note(catalog, repository).await?;
            followed.found.push(snapshot.manifest.name);
        }
    }
    if !followed.found.is_empty() {
        catalog.follow_snapshots(cluster).await?;
    }
    for (id, name) in known.iter().filter(|(id, _)| !there.contains(*id)) {
        if repository.store().size(&place(id).manifest_key()).await?.is_none()
            && catalog.mark_snapshot_removed(repository.id(), id, catalog.now_unix_ms().await?).await?
        {
            followed.vanished.push(name.clone());
        }
    }
    Ok(followed)
}
