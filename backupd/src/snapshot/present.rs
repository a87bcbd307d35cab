//! What a repository says of a snapshot that is there, for the catalog: its manifest, and the facts beside it.

use super::record::{capabilities, cluster_row, shard_row, snapshot_row};
use crate::catalog::{Catalog, SnapshotRow, changed_tags};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::repository::fact::{Fact, Kind};
use crate::repository::{Place, Repository, side_by_side};

/// A snapshot.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) manifest: Manifest,
    /// What the catalog should say of it: what its manifest says, with tags and verdict as facts tell them.
    pub(super) row: SnapshotRow,
    /// It came from another repository.
    is_copy: bool,
    /// The ids of the repositories that it was copied into, and its names there.
    copies: Vec<(String, String)>,
}

/// Reads the facts beside snapshots; those that cannot be read are left out.
///
/// # Errors
/// What the repository says.
pub(super) async fn present(repository: &Repository, manifests: Vec<Manifest>) -> Result<Vec<Present>> {
    let read = side_by_side(manifests, |manifest| {
        let repository = repository.clone();
        async move {
            let place = Place { cluster: manifest.cluster.clone(), snapshot_id: manifest.snapshot_id.clone() };
            let facts = repository.facts(&place, None).await?;
            let of = |kind| facts.iter().filter(move |fact| fact.kind == kind);
            let mut row = snapshot_row(repository.id(), &manifest)?;
            let mut tags = manifest.tags.clone();
            of(Kind::Tags).for_each(|fact| changed_tags(&mut tags, &fact.tags()));
            row.tags = serde_json::json!(tags).to_string();
            row.verified_ms = verified_ms(of(Kind::Verified).next_back());
            let is_copy = of(Kind::Copied).any(|fact| fact.says.contains_key("from"));
            let copies = of(Kind::Copied).filter_map(copied_to).collect();
            Ok(Present { manifest, row, is_copy, copies })
        }
    });
    read.await
}

impl Present {
    /// Tells the catalog of it. How its cluster was then is told too, unless it is a copy and the catalog knows the cluster: where its snapshots go is
    /// known better by whoever makes them.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(super) async fn note(&self, catalog: &Catalog, repository: &Repository) -> Result<()> {
        let Self { manifest, row, .. } = self;
        if !self.is_copy || catalog.cluster_seen(&manifest.cluster).await?.is_none() {
            catalog.upsert_cluster(&cluster_row(row, repository.store().url())).await?;
            catalog.record_node_capabilities(&manifest.cluster, &capabilities(manifest, row.ended_ms)).await?;
        }
        let shards = manifest.shards.iter().map(shard_row).collect::<Result<Vec<_>>>()?;
        catalog.record_snapshot(row, &shards).await?;
        let (repository_id, snapshot_id) = (&row.repository_id, &row.snapshot_id);
        catalog.put_snapshot_tags(repository_id, snapshot_id, &row.tags).await?;
        catalog.put_snapshot_verified(repository_id, snapshot_id, row.verified_ms).await?;
        catalog.mark_snapshot_present(repository_id, snapshot_id).await?;
        for (to, name) in &self.copies {
            let now_ms = catalog.now_unix_ms().await?;
            catalog.note_copy((repository_id, snapshot_id), (to, name), now_ms).await?;
        }
        Ok(())
    }
}

/// When a verdict found the snapshot whole.
pub(super) fn verified_ms(verdict: Option<&Fact>) -> Option<i64> {
    let whole = verdict.filter(|fact| fact.says.get("ok").and_then(serde_json::Value::as_bool) == Some(true))?;
    chrono::DateTime::parse_from_rfc3339(&whole.at).ok().map(|at| at.timestamp_millis())
}

/// Where a copy was made, and its name there.
fn copied_to(fact: &Fact) -> Option<(String, String)> {
    let said = |member: &str| fact.says.get(member)?.as_str().map(str::to_owned);
    said("to").and(said("repository_id").zip(said("name")))
}
