//! Snapshots: listed and found by the catalog, shown by what their repository proves.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use policies::access::{Principal, Resource};

use super::view::SnapshotView;
use super::{Page, READS_MAX, Services, cursor};
use crate::catalog::{ListedRow, ROWS_MAX, SnapshotFilter, SnapshotRow, changed_tags};
use crate::error::{Class, Error, Result};
use crate::jobs::reach;
use crate::repository::{Keys, Repository};

/// The name of the list in cursors.
const LIST: &str = "snapshots";

/// Which snapshots, and from where on.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Only of this cluster.
    pub cluster: Option<String>,
    /// Only of this source.
    pub source: Option<String>,
    /// All but those of this source.
    pub except_source: Option<String>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only of this repository of the configuration.
    pub repository: Option<String>,
    /// The newest first, instead of the oldest.
    pub newest_first: bool,
    /// Behind the page that gave this.
    pub cursor: Option<String>,
    /// At most so many, from 1 to [`ROWS_MAX`].
    pub limit: u32,
}

/// A snapshot, and the name that the configuration has for its repository.
#[derive(Debug, Clone)]
pub struct Found {
    /// As the catalog has it.
    pub snapshot: SnapshotRow,
    /// The repository.
    pub repository: String,
}

impl Found {
    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> BTreeMap<String, String> {
        tags(&self.snapshot)
    }
}

/// The tags of a snapshot.
#[must_use]
pub fn tags(row: &SnapshotRow) -> BTreeMap<String, String> {
    serde_json::from_str(&row.tags).unwrap_or_default()
}

impl Services {
    /// A page of the snapshots that the caller sees.
    ///
    /// # Errors
    /// `Usage` for a cursor that is none, `NotFound` for a repository that the configuration does not name; what the catalog says.
    pub async fn snapshots(&self, caller: &Principal, question: &Question) -> Result<Page<ListedRow>> {
        let limit = usize::try_from(question.limit.clamp(1, ROWS_MAX)).unwrap_or(1);
        let repository_id = match &question.repository {
            None => None,
            Some(name) => match self.repository_id(name).await? {
                Some(id) => Some(id),
                None => return Ok(Page { items: Vec::new(), next: None }),
            },
        };
        let mut filter = SnapshotFilter {
            repository_id,
            cluster: question.cluster.clone().or_else(|| Self::only_cluster(caller)),
            name: question.name.clone(),
            source: question.source.clone(),
            except_source: question.except_source.clone(),
            oldest_first: !question.newest_first,
            after: question.cursor.as_deref().map(|text| cursor::read(LIST, text)).transpose()?,
            // one more tells whether there is another page; who sees a part only is given what is found among many
            limit: if caller.scope.is_everything() { question.limit.saturating_add(1) } else { 0 },
            ..SnapshotFilter::default()
        };
        let mut items: Vec<ListedRow> = Vec::new();
        for _ in 0..READS_MAX {
            let rows = self.catalog.listed_snapshots(&filter).await?;
            let is_last =
                rows.len() < usize::try_from(if filter.limit == 0 { ROWS_MAX } else { filter.limit }).unwrap_or(1);
            filter.after = rows.last().map(|row| (row.snapshot.begun_ms, row.snapshot.snapshot_id.clone()));
            for row in rows {
                let tags = tags(&row.snapshot);
                if !self.sees(caller, Resource::Of { cluster: &row.snapshot.cluster, tags: &tags }) {
                    continue;
                }
                if items.len() == limit {
                    let last = items.last().map(|row| &row.snapshot);
                    let next = last.map(|last| cursor::write(LIST, last.begun_ms, &last.snapshot_id));
                    return Ok(Page { items, next });
                }
                items.push(row);
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
        }
        Ok(Page { items, next: filter.after.map(|(ms, id)| cursor::write(LIST, ms, &id)) })
    }

    /// The snapshot of a name, in the repository that is named or in the only one that has it. Nobody is asked whether the caller may see it.
    ///
    /// # Errors
    /// `NotFound`; `Usage` when several repositories have the name and none is named.
    pub async fn snapshot(&self, name: &str, repository: Option<&str>) -> Result<Found> {
        let question = SnapshotFilter { name: Some(name.to_owned()), ..SnapshotFilter::default() };
        let mut rows = self.catalog.snapshots(&question).await?;
        if let Some(repository) = repository {
            let id = self.repository_id(repository).await?;
            rows.retain(|row| Some(&row.repository_id) == id.as_ref());
        }
        let mut rows = rows.into_iter();
        match (rows.next(), rows.next()) {
            (None, _) => Err(unknown(name)),
            (Some(snapshot), None) => {
                Ok(Found { repository: self.repository_name(&snapshot.repository_id).await?, snapshot })
            }
            (Some(_), Some(_)) => {
                Err(Error::new(Class::Usage, format!("several repositories have a snapshot `{name}`"))
                    .hint("name the repository"))
            }
        }
    }

    /// What there is to show of a snapshot.
    ///
    /// # Errors
    /// What its repository says.
    pub async fn show(&self, found: &Found) -> Result<SnapshotView> {
        let (repository, keys) = reach::repository(&self.config(), &found.repository).await?;
        show(&repository, &keys, &found.snapshot.name).await
    }
}

/// What a snapshot is called that was given no name.
#[must_use]
pub fn default_name(cluster: &str, now: DateTime<Utc>) -> String {
    format!("{cluster}-{}", now.format("%Y-%m-%d-%H-%M-%S"))
}

/// There is no such snapshot, or none that the caller may know of: the words are the same.
#[must_use]
pub fn unknown(name: &str) -> Error {
    Error::new(Class::NotFound, format!("there is no snapshot `{name}`")).hint(
        "the list of snapshots has those of the catalog; `backupd catalog rebuild` reads them from the repositories",
    )
}

/// A snapshot as its repository has it: with a key its manifest and facts are proven; without one they are as they claim to be.
///
/// # Errors
/// `NotFound`, `Key`, `Verification`; what the store says.
pub async fn show(repository: &Repository, keys: &Keys, name: &str) -> Result<SnapshotView> {
    let (place, manifest, data_key) = if keys.are_given() {
        let opened = repository.open_snapshot(name, keys).await?;
        (opened.place, opened.manifest, opened.data_key)
    } else {
        let (place, unproven) = repository.find(name).await?;
        (place, unproven.claimed().clone(), None)
    };
    let facts = repository.facts(&place, data_key.as_ref()).await?;
    let mut view = SnapshotView::from(&manifest);
    facts.iter().for_each(|fact| changed_tags(&mut view.tags, &fact.tags()));
    Ok(SnapshotView { facts, ..view })
}
