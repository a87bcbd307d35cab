//! Notes in the catalog what repositories say: a published snapshot, the cluster as it was, its shards, what its nodes can do; and what
//! was said of a cluster.

use std::sync::Arc;

use super::check::{Capability, Report};
use super::present::{present, verified_ms};
use crate::catalog::{Catalog, ClusterRow, DefinitionRow, Mark, NodeCapabilityRow, ShardRow, SnapshotRow};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::manifest::{Manifest, Shard};
use crate::repository::Repository;
use crate::repository::definition::{Definition, Said};
use crate::repository::fact::Kind;
use crate::store::Store;

/// Writes what `manifest` says into the catalog. It can be repeated.
///
/// # Errors
/// What the catalog or the repository says. The snapshot exists whatever happens here.
pub async fn record(catalog: &Catalog, store: Arc<dyn Store>, manifest: &Manifest) -> Result<()> {
    let repository_url = store.url();
    let repository = Repository::open(store).await?;
    let row = snapshot_row(repository.id(), manifest)?;
    catalog.upsert_cluster(&cluster_row(&row, repository_url)).await?;
    let shards = manifest.shards.iter().map(shard_row).collect::<Result<Vec<_>>>()?;
    catalog.record_snapshot(&row, &shards).await?;
    catalog.record_node_capabilities(&manifest.cluster, &capabilities(manifest, row.ended_ms)).await?;
    catalog.mark_schedule(&manifest.cluster, Mark::Success, row.ended_ms).await
}

/// Writes what is said of a copy into the catalog. That the cluster's snapshots go elsewhere stays.
///
/// # Errors
/// As [`record`].
pub async fn record_copy(catalog: &Catalog, store: Arc<dyn Store>, manifest: &Manifest) -> Result<()> {
    let repository = Repository::open(store).await?;
    // a copy that was deleted and is made again has the same place, and nothing of the one before
    for copy in present(&repository, vec![manifest.clone()]).await? {
        copy.note(catalog, &repository).await?;
    }
    Ok(())
}

/// Writes the newest verdict on a snapshot into the catalog: when it was found whole, ms since 1970.
///
/// # Errors
/// As [`record`].
pub async fn verdict(catalog: &Catalog, repository: &Repository, name: &str) -> Result<Option<u64>> {
    let (place, _) = repository.find(name).await?;
    let verified_ms = verified_ms(repository.facts_of(Kind::Verified, &place, None).await?.last());
    catalog.put_snapshot_verified(repository.id(), &place.snapshot_id, verified_ms).await?;
    catalog.follow_snapshots(&place.cluster).await?;
    Ok(verified_ms.and_then(|ms| u64::try_from(ms).ok()))
}

/// Writes what a check saw of a cluster into the catalog: what its nodes can do. Nothing when the source did not answer.
///
/// # Errors
/// What the catalog says.
pub async fn checked(catalog: &Catalog, repository_url: &str, report: &Report) -> Result<()> {
    let Some((mode, engine, engine_version)) = report.seen.clone() else { return Ok(()) };
    let seen_ms = clock::unix_ms(clock::now());
    let (name, mode) = (report.cluster.clone(), mode.as_str().to_owned());
    let repository_url = repository_url.to_owned();
    catalog
        .upsert_cluster(&ClusterRow { name, mode, engine, engine_version, repository_url, last_seen_ms: seen_ms })
        .await?;
    let row = |it: &Capability| NodeCapabilityRow {
        node_id: it.node.clone(),
        capability: it.method.to_owned(),
        available: it.available,
        reason: it.reason.clone(),
        seen_ms,
    };
    let rows: Vec<NodeCapabilityRow> = report.capabilities.iter().map(row).collect();
    catalog.record_node_capabilities(&report.cluster, &rows).await
}

/// A cluster as it was when a snapshot of it was complete.
pub(super) fn cluster_row(row: &SnapshotRow, repository_url: String) -> ClusterRow {
    ClusterRow {
        name: row.cluster.clone(),
        mode: row.mode.clone(),
        engine: row.engine.clone(),
        engine_version: row.engine_version.clone(),
        repository_url,
        last_seen_ms: row.ended_ms,
    }
}

/// What the nodes that served a snapshot could do then.
pub(super) fn capabilities(manifest: &Manifest, seen_ms: u64) -> Vec<NodeCapabilityRow> {
    let row = |shard: &Shard| NodeCapabilityRow {
        node_id: shard.node.id.clone(),
        capability: manifest.method.clone(),
        available: true,
        reason: "it served a capture".to_owned(),
        seen_ms,
    };
    manifest.shards.iter().map(row).collect()
}

/// What a repository says of a cluster; `name` is what the configuration calls the repository. `None` when it says nothing any more.
#[must_use]
pub fn definition_row(definition: &Definition, name: &str) -> Option<DefinitionRow> {
    let said = definition.says.as_ref()?;
    Some(DefinitionRow {
        cluster: definition.cluster.clone(),
        made: i64::from(said.made),
        shape: said.shape.clone(),
        description: said.description.clone(),
        window_text: said.window.clone(),
        retention_days: said.retention_days,
        snapshotting: said.snapshotting.clone(),
        repository: name.to_owned(),
        target: said.target.clone(),
        job_id: said.job_id.clone(),
        nodes: serde_json::json!(said.nodes).to_string(),
        created_ms: said.created_unix_ms,
        number: definition.number,
        tags: serde_json::json!(said.tags).to_string(),
        removed_ms: said.removed_unix_ms,
    })
}

/// The same as a repository says it.
#[must_use]
pub fn said(row: &DefinitionRow) -> Said {
    Said {
        made: row.is_made(),
        shape: row.shape.clone(),
        description: row.description.clone(),
        window: row.window_text.clone(),
        retention_days: row.retention_days,
        snapshotting: row.snapshotting.clone(),
        target: row.target.clone(),
        job_id: row.job_id.clone(),
        nodes: row.nodes(),
        tags: row.tag_changes(),
        created_unix_ms: row.created_ms,
        removed_unix_ms: row.removed_ms,
    }
}

fn unix_ms(text: &str) -> Result<u64> {
    let time = chrono::DateTime::parse_from_rfc3339(text)
        .map_err(|_| Error::new(Class::Verification, format!("`{text}` in a manifest is not a time")))?;
    Ok(clock::unix_ms(time.to_utc()))
}

pub(super) fn snapshot_row(repository_id: &str, manifest: &Manifest) -> Result<SnapshotRow> {
    let tags = serde_json::to_string(&manifest.tags)
        .map_err(|error| Error::new(Class::Unforeseen, format!("tags cannot be written: {error}")))?;
    let key_ids = serde_json::to_string(&manifest.encryption.key_ids)
        .map_err(|error| Error::new(Class::Unforeseen, format!("key ids cannot be written: {error}")))?;
    Ok(SnapshotRow {
        repository_id: repository_id.to_owned(),
        snapshot_id: manifest.snapshot_id.clone(),
        name: manifest.name.clone(),
        cluster: manifest.cluster.clone(),
        source: manifest.source.clone(),
        mode: manifest.mode.clone(),
        engine: manifest.engine.clone(),
        engine_version: manifest.engine_version.clone(),
        method: manifest.method.clone(),
        begun_ms: unix_ms(&manifest.begun_at)?,
        ended_ms: unix_ms(&manifest.ended_at)?,
        skew_ms: manifest.skew_ms,
        cipher: manifest.encryption.cipher.clone(),
        key_ids,
        keys: manifest.keys(),
        plain_bytes: manifest.plain_bytes(),
        stored_bytes: manifest.stored_bytes(),
        tags,
        verified_ms: None,
    })
}

pub(super) fn shard_row(shard: &Shard) -> Result<ShardRow> {
    Ok(ShardRow {
        shard_index: shard.index,
        slots: shard.slots.as_ref().map(ToString::to_string),
        node_id: shard.node.id.clone(),
        node_address: shard.node.address.clone(),
        node_role: shard.node.role.clone(),
        replid: shard.replid.clone(),
        repl_offset: shard.offset,
        taken_ms: unix_ms(&shard.taken_at)?,
        file: shard.object.file.clone(),
        keys: shard.rdb.keys,
        plain_bytes: shard.object.plain_bytes,
        stored_bytes: shard.object.stored_bytes,
    })
}
