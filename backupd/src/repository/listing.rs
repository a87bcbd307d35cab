//! What a repository holds.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{Place, Repository, side_by_side};
use crate::error::{Class, Result};
use crate::manifest::{Manifest, Unproven};
use crate::store::ObjectEntry;

/// The state of a snapshot in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its manifest is there: it can be restored.
    Available,
    /// A job is making it.
    Creating,
    /// A job began it and is gone; what it left is garbage.
    Failed,
    /// Its manifest is there and is damaged.
    Broken,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Available => "available",
            Self::Creating => "creating",
            Self::Failed => "failed",
            Self::Broken => "broken",
        })
    }
}

/// One line of a listing.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name; of a broken one what its place says.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Its state.
    pub status: Status,
    /// What its manifest says, proof unchecked where it is encrypted.
    pub manifest: Option<Manifest>,
    /// Why it is broken.
    pub problem: Option<String>,
}

/// What puts entries in the order of their making: an id begins with its second, the manifest has the millisecond.
fn age(entry: &Entry) -> (&str, &str, &str) {
    let id = entry.place.snapshot_id.as_str();
    let begun_at = entry.manifest.as_ref().map_or("", |manifest| manifest.begun_at.as_str());
    (id.split('-').next().unwrap_or(id), begun_at, id)
}

impl Repository {
    /// All snapshots, oldest first, of one cluster or of all.
    ///
    /// # Errors
    /// What the store says. A damaged manifest is an entry, not an error.
    pub async fn snapshots(&self, cluster: Option<&str>) -> Result<Vec<Entry>> {
        let places: Vec<Place> = self
            .places()
            .await?
            .into_iter()
            .filter(|place| cluster.is_none_or(|cluster| place.cluster == cluster))
            .collect();
        let read = side_by_side(places, |place| {
            let repository = self.clone();
            async move { repository.entry(place).await }
        });
        let mut entries: Vec<Entry> = read.await?.into_iter().flatten().collect();
        let published: BTreeSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        for name in self.folders("_names/").await? {
            if !published.contains(&name) {
                entries.extend(
                    self.unpublished(&name)
                        .await?
                        .filter(|entry| cluster.is_none_or(|cluster| entry.place.cluster == cluster)),
                );
            }
        }
        entries.sort_by(|a, b| age(a).cmp(&age(b)));
        Ok(entries)
    }

    /// The folders in which a snapshot may be.
    pub(super) async fn places(&self) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for cluster in self.clusters().await? {
            for snapshot_id in self.snapshot_ids(&cluster).await? {
                places.push(Place { cluster: cluster.clone(), snapshot_id });
            }
        }
        Ok(places)
    }

    /// The clusters that it has a folder of.
    ///
    /// # Errors
    /// What the store says.
    pub async fn clusters(&self) -> Result<Vec<String>> {
        let mut folders = self.folders("").await?;
        // `_names`, or something that is not ours
        folders.retain(|cluster| policies::names::check("cluster", cluster).is_ok());
        Ok(folders)
    }

    /// The ids of a cluster's snapshots, and of what was begun or left behind: only a manifest makes a snapshot.
    ///
    /// # Errors
    /// What the store says.
    pub async fn snapshot_ids(&self, cluster: &str) -> Result<Vec<String>> {
        self.folders(&format!("{cluster}/")).await
    }

    /// The snapshot of this name among `places`, found by reading manifests.
    pub(super) async fn find_by_manifest(
        &self,
        name: &str,
        places: impl Iterator<Item = Place>,
    ) -> Result<Option<(Place, Unproven)>> {
        for place in places {
            match self.manifest(&place).await {
                Ok(unproven) if unproven.claimed().name == name => return Ok(Some((place, unproven))),
                Ok(_) => {}
                Err(error) if matches!(error.class(), Class::NotFound | Class::Verification) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn entry(&self, place: Place) -> Result<Option<Entry>> {
        match self.manifest(&place).await {
            Ok(unproven) => {
                let manifest = unproven.claimed().clone();
                let name = manifest.name.clone();
                Ok(Some(Entry { name, place, status: Status::Available, manifest: Some(manifest), problem: None }))
            }
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) if matches!(error.class(), Class::Verification | Class::Version) => {
                let (name, problem) = (place.snapshot_id.clone(), Some(error.message().to_owned()));
                Ok(Some(Entry { name, place, status: Status::Broken, manifest: None, problem }))
            }
            Err(error) => Err(error),
        }
    }

    /// The state of a name whose snapshot has no manifest.
    async fn unpublished(&self, name: &str) -> Result<Option<Entry>> {
        let claim = match self.highest_claim(name).await {
            Ok(Some(claim)) => claim,
            Ok(None) => return Ok(None),
            Err(error) if error.class() == Class::Verification => {
                let place = Place { cluster: "?".to_owned(), snapshot_id: "?".to_owned() };
                let problem = Some(error.message().to_owned());
                return Ok(Some(Entry {
                    name: name.to_owned(),
                    place,
                    status: Status::Broken,
                    manifest: None,
                    problem,
                }));
            }
            Err(error) => return Err(error),
        };
        let status = if self.is_live(&claim).await? { Status::Creating } else { Status::Failed };
        let place = Place { cluster: claim.cluster, snapshot_id: claim.snapshot_id };
        // a manifest that could not be read is listed as broken already, under its id
        if status == Status::Failed && self.store.size(&place.manifest_key()).await?.is_some() {
            return Ok(None);
        }
        Ok(Some(Entry { name: name.to_owned(), place, status, manifest: None, problem: None }))
    }

    /// The objects and folders right below `prefix`.
    pub(super) async fn level(&self, prefix: &str) -> Result<(Vec<ObjectEntry>, Vec<String>)> {
        let (mut objects, mut folders, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let page = self.store.list(prefix, true, after.as_deref()).await?;
            objects.extend(page.objects);
            folders.extend(page.folders);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((objects, folders)),
            }
        }
    }

    /// All objects below `prefix`.
    pub(super) async fn entries(&self, prefix: &str) -> Result<Vec<ObjectEntry>> {
        let (mut objects, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list(prefix, false, after.as_deref()).await?;
            objects.extend(page.objects);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(objects),
            }
        }
    }

    /// The names of the folders right below `prefix`.
    pub(super) async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let (_, folders) = self.level(prefix).await?;
        let names = folders.iter().filter_map(|folder| folder.strip_prefix(prefix)?.strip_suffix('/'));
        Ok(names.map(str::to_owned).collect())
    }
}
