//! The catalog made again from the repositories, and compared with them.
//!
//! Manifests and facts are taken as they claim to be, as a listing does: a catalog is an index, and whoever reads a snapshot proves it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::grants;
use super::present::{Present, present};
use super::record::{definition_row, shard_row};
use crate::catalog::{Catalog, Code, Mark, NewEvent, ROWS_MAX, SnapshotFilter, SnapshotRow};
use crate::clock;
use crate::error::Result;
use crate::repository::Repository;
use crate::repository::definition::Definition;
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
    /// The catalog says something else than their manifest and the facts beside it.
    pub different: Vec<String>,
    /// Clusters of which something else was said besides the configuration: their making, window, retention, tags, removal.
    pub clusters: Vec<String>,
    /// Grants, by their ids, of which the catalog says something else than the facts beside snapshots and the bucket's policy.
    pub grants: Vec<String>,
    /// Their manifest cannot be read, so nothing can be said of them; what the catalog knows of them stays. Also what was said of a cluster,
    /// or granted, and cannot be read.
    pub broken: Vec<String>,
}

impl Differences {
    /// Whether the catalog says what the repository holds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.missing, &self.stale, &self.different, &self.clusters, &self.grants].iter().all(|names| names.is_empty())
    }
}

/// Compares; nothing is written. `name` is what the configuration calls the repository.
///
/// # Errors
/// What the catalog or the repository says.
pub async fn check(catalog: &Catalog, repository: &Repository, name: &str) -> Result<Differences> {
    let survey = Survey::make(catalog, repository).await?;
    let mut differences = survey.differences(catalog).await?;
    differences.clusters = definitions(catalog, repository, name, false, &mut differences.broken).await?;
    differences.grants = grants::compare(catalog, repository, false, &mut differences.broken).await?;
    Ok(differences)
}

/// Makes the catalog say what the repository holds. It tells what had to be changed.
///
/// # Errors
/// What the catalog or the repository says; what was changed until then is right, and it can be run again.
pub async fn rebuild(catalog: &Catalog, repository: &Repository, name: &str) -> Result<Differences> {
    let survey = Survey::make(catalog, repository).await?;
    let mut differences = survey.differences(catalog).await?;
    let now_ms = clock::unix_ms(clock::now());
    // oldest first, so that a cluster is known as it was last seen
    for snapshot in &survey.snapshots {
        snapshot.note(catalog, repository).await?;
    }
    for (id, row) in &survey.known {
        if !survey.exists.contains(id) {
            catalog.mark_snapshot_removed(&row.repository_id, id, now_ms).await?;
        }
    }
    differences.clusters = definitions(catalog, repository, name, true, &mut differences.broken).await?;
    let clusters: BTreeSet<&str> = survey.snapshots.iter().map(|it| it.manifest.cluster.as_str()).collect();
    for cluster in clusters {
        catalog.follow_snapshots(cluster).await?;
    }
    differences.grants = grants::compare(catalog, repository, true, &mut differences.broken).await?;
    Ok(differences)
}

/// The clusters of which the repository says something else than the catalog; with `take` the catalog is told.
async fn definitions(
    catalog: &Catalog,
    repository: &Repository,
    name: &str,
    take: bool,
    broken: &mut Vec<String>,
) -> Result<Vec<String>> {
    let (definitions, unreadable) = repository.definitions().await?;
    broken.extend(unreadable.iter().map(|error| error.message().to_owned()));
    let mut different = Vec::new();
    for definition in &definitions {
        let cluster = &definition.cluster;
        let known = catalog.definition(cluster).await?;
        // its snapshots went to another repository since, which says more
        if known.as_ref().is_some_and(|row| row.number > definition.number && row.repository != name) {
            continue;
        }
        let row = definition_row(definition, name);
        let removed_ms = catalog.schedule(cluster).await?.and_then(|schedule| schedule.removed_ms);
        let should_be = row.as_ref().and_then(|row| row.removed_ms);
        if known == row && removed_ms.is_some() == should_be.is_some() {
            continue;
        }
        different.push(cluster.clone());
        if take {
            taken(catalog, definition, name).await?;
        }
    }
    Ok(different)
}

/// Tells the catalog what was said of a cluster, and nothing else.
async fn taken(catalog: &Catalog, definition: &Definition, name: &str) -> Result<()> {
    let (cluster, now_ms) = (&definition.cluster, catalog.now_unix_ms().await?);
    let known = catalog.definition(cluster).await?;
    let Some(row) = definition_row(definition, name) else { return catalog.forget_definition(cluster).await };
    // the repository decides, also when it lost what was said last
    if known.is_some_and(|known| known != row && known.number >= row.number) {
        catalog.forget_definition(cluster).await?;
    }
    catalog.put_definition(&row, now_ms).await?;
    match row.removed_ms.and_then(|ms| u64::try_from(ms).ok()) {
        Some(removed_ms) => catalog.mark_schedule(cluster, Mark::Removed, removed_ms).await,
        None => {
            let message = format!("cluster {cluster} is backed up again, as its repository says");
            let event = NewEvent::new(Code::ClusterRegistered, message).of(cluster);
            catalog.register_again(cluster, &event, now_ms).await.map(drop)
        }
    }
}

/// Both sides.
struct Survey {
    url: String,
    repository_id: String,
    /// Every snapshot that is available, oldest first, with what the catalog should say of it.
    snapshots: Vec<Present>,
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
        let snapshots = present(repository, manifests).await?;
        Ok(Self { url, repository_id, snapshots, broken, exists, known })
    }

    async fn differences(&self, catalog: &Catalog) -> Result<Differences> {
        let mut differences = Differences {
            url: self.url.clone(),
            snapshots: self.snapshots.len(),
            broken: self.broken.clone(),
            ..Differences::default()
        };
        for Present { manifest, row, .. } in &self.snapshots {
            let shards = manifest.shards.iter().map(shard_row).collect::<Result<Vec<_>>>()?;
            match self.known.get(&manifest.snapshot_id) {
                None => differences.missing.push(manifest.name.clone()),
                Some(known)
                    if known != row || catalog.shards(&self.repository_id, &manifest.snapshot_id).await? != shards =>
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
