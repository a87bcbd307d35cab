//! The catalog made again from the repositories, and compared with them.
//!
//! Manifests are taken as they claim to be, as a listing does: a catalog is an index, and whoever reads a snapshot proves it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::record::{cluster_row, shard_row, snapshot_row};
use crate::catalog::{Catalog, ROWS_MAX, SnapshotFilter, SnapshotRow};
use crate::clock;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::repository::Repository;
use crate::repository::listing::Status;

/// How a catalog and one repository differ: names of snapshots, or ids where the name is not known.
#[derive(Debug, Default, Serialize)]
pub struct Differences {
    /// Where the repository is.
    pub url: String,
    /// Snapshots that the repository holds.
    pub snapshots: usize,
    /// They exist, and the catalog does not know them or says that they were removed.
    pub missing: Vec<String>,
    /// The catalog knows them, and they do not exist.
    pub stale: Vec<String>,
    /// The catalog says something else than their manifest.
    pub different: Vec<String>,
    /// Their manifest cannot be read, so nothing can be said of them; what the catalog knows of them stays.
    pub broken: Vec<String>,
}

impl Differences {
    /// Whether the catalog says what the repository holds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.stale.is_empty() && self.different.is_empty()
    }
}

/// Compares; nothing is written.
///
/// # Errors
/// What the catalog or the repository says.
pub async fn check(catalog: &Catalog, repository: &Repository) -> Result<Differences> {
    Survey::make(catalog, repository).await?.differences(catalog).await
}

/// Makes the catalog say what the repository holds. It tells what had to be changed.
///
/// # Errors
/// What the catalog or the repository says; what was changed until then is right, and it can be run again.
pub async fn rebuild(catalog: &Catalog, repository: &Repository) -> Result<Differences> {
    let survey = Survey::make(catalog, repository).await?;
    let differences = survey.differences(catalog).await?;
    let (url, now_ms) = (repository.store().url(), clock::unix_ms(clock::now()));
    // oldest first, so that a cluster is known as it was last seen
    for manifest in &survey.manifests {
        catalog.upsert_cluster(&cluster_row(manifest, &url, now_ms)).await?;
        let shards = manifest.shards.iter().map(shard_row).collect::<Result<Vec<_>>>()?;
        catalog.record_snapshot(&snapshot_row(repository.id(), manifest)?, &shards).await?;
        catalog.mark_snapshot_present(repository.id(), &manifest.snapshot_id).await?;
    }
    for (id, row) in &survey.known {
        if !survey.exists.contains(id) {
            catalog.mark_snapshot_removed(&row.repository_id, id, now_ms).await?;
        }
    }
    Ok(differences)
}

/// Both sides.
struct Survey {
    url: String,
    repository_id: String,
    /// Of every snapshot that is available, oldest first.
    manifests: Vec<Manifest>,
    broken: Vec<String>,
    /// The ids of all that have a manifest, broken ones too.
    exists: BTreeSet<String>,
    /// What the catalog says of those that it takes for existing.
    known: BTreeMap<String, SnapshotRow>,
}

impl Survey {
    async fn make(catalog: &Catalog, repository: &Repository) -> Result<Self> {
        // the catalog first: what is published in between is then missing in it, and never taken for stale
        let known = known(catalog, repository.id()).await?;
        let (mut manifests, mut broken, mut exists) = (Vec::new(), Vec::new(), BTreeSet::new());
        for entry in repository.snapshots(None).await? {
            match (entry.status, entry.manifest) {
                (Status::Available, Some(manifest)) => {
                    exists.insert(manifest.snapshot_id.clone());
                    manifests.push(manifest);
                }
                (Status::Broken, _) => {
                    exists.insert(entry.place.snapshot_id);
                    broken.push(entry.name);
                }
                _ => {}
            }
        }
        let (url, repository_id) = (repository.store().url(), repository.id().to_owned());
        Ok(Self { url, repository_id, manifests, broken, exists, known })
    }

    async fn differences(&self, catalog: &Catalog) -> Result<Differences> {
        let mut differences = Differences {
            url: self.url.clone(),
            snapshots: self.manifests.len(),
            broken: self.broken.clone(),
            ..Differences::default()
        };
        for manifest in &self.manifests {
            let shards = manifest.shards.iter().map(shard_row).collect::<Result<Vec<_>>>()?;
            let row = snapshot_row(&self.repository_id, manifest)?;
            match self.known.get(&manifest.snapshot_id) {
                None => differences.missing.push(manifest.name.clone()),
                Some(known)
                    if *known != row || catalog.shards(&self.repository_id, &manifest.snapshot_id).await? != shards =>
                {
                    differences.different.push(manifest.name.clone());
                }
                Some(_) => {}
            }
        }
        let stale = self.known.iter().filter(|(id, _)| !self.exists.contains(*id));
        differences.stale = stale.map(|(_, row)| row.name.clone()).collect();
        Ok(differences)
    }
}

async fn known(catalog: &Catalog, repository_id: &str) -> Result<BTreeMap<String, SnapshotRow>> {
    let mut known = BTreeMap::new();
    let mut filter = SnapshotFilter { repository_id: Some(repository_id.to_owned()), ..SnapshotFilter::default() };
    loop {
        let rows = catalog.snapshots(&filter).await?;
        filter.after = rows.last().map(|row| (row.begun_ms, row.snapshot_id.clone()));
        let more = u32::try_from(rows.len()).is_ok_and(|count| count >= ROWS_MAX);
        known.extend(rows.into_iter().map(|row| (row.snapshot_id.clone(), row)));
        if !more {
            return Ok(known);
        }
    }
}
