//! Snapshots as everybody shows them: the stable fields of the JSON of the command line and of the API.

use std::collections::BTreeMap;

use policies::cost::{Bill, Money, Stored, monthly};
use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::ListedRow;
use crate::clock;
use crate::manifest::{Encryption, Manifest, Shard};
use crate::repository::fact::Fact;
use crate::repository::listing::{Entry, Status};

/// A snapshot as `create` and `show` print it.
#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// `available`, …
    #[schema(value_type = String, example = "available")]
    pub status: Status,
    /// Its id.
    pub snapshot_id: String,
    /// `manual`, `automated`, `final`.
    pub source: String,
    /// `standalone` or `cluster`.
    pub mode: String,
    /// The engine.
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// How shards were read.
    pub method: String,
    /// When it began.
    pub created_at: String,
    /// When the last shard was stored.
    pub ended_at: String,
    /// Between the points in time of the first and the last shard.
    pub skew_ms: u64,
    /// All keys.
    pub keys: u64,
    /// RDB bytes.
    pub plain_bytes: u64,
    /// Bytes in the repository.
    pub stored_bytes: u64,
    /// How it is sealed.
    #[schema(value_type = Object)]
    pub encryption: Encryption,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// The program that made it.
    pub tool: String,
    /// The shards.
    #[schema(value_type = Vec<Object>)]
    pub shards: Vec<Shard>,
    /// What became known since, oldest first.
    #[schema(value_type = Vec<Object>)]
    pub facts: Vec<Fact>,
}

impl From<&Manifest> for SnapshotView {
    fn from(manifest: &Manifest) -> Self {
        let manifest = manifest.clone();
        Self {
            status: Status::Available,
            keys: manifest.keys(),
            plain_bytes: manifest.plain_bytes(),
            stored_bytes: manifest.stored_bytes(),
            name: manifest.name,
            cluster: manifest.cluster,
            snapshot_id: manifest.snapshot_id,
            source: manifest.source,
            mode: manifest.mode,
            engine: manifest.engine,
            engine_version: manifest.engine_version,
            method: manifest.method,
            created_at: manifest.begun_at,
            ended_at: manifest.ended_at,
            skew_ms: manifest.skew_ms,
            encryption: manifest.encryption,
            tags: manifest.tags,
            tool: manifest.tool,
            shards: manifest.shards,
            facts: Vec::new(),
        }
    }
}

/// One line of `snapshot list`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListLine {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// Its state.
    #[schema(value_type = String, example = "available")]
    pub status: Status,
    /// Its id.
    pub snapshot_id: String,
    /// `manual`, `automated`, `final`; `null` where the manifest cannot be read.
    pub source: Option<String>,
    /// When it began.
    pub created_at: Option<String>,
    /// The engine and its version.
    pub engine: Option<String>,
    /// Shards.
    pub shards: Option<usize>,
    /// Keys.
    pub keys: Option<u64>,
    /// RDB bytes.
    pub plain_bytes: Option<u64>,
    /// Bytes in the repository.
    pub stored_bytes: Option<u64>,
    /// Whether it is encrypted.
    pub encrypted: Option<bool>,
    /// Why it is broken.
    pub problem: Option<String>,
}

impl From<Entry> for ListLine {
    fn from(entry: Entry) -> Self {
        let manifest = entry.manifest.as_ref();
        Self {
            source: manifest.map(|manifest| manifest.source.clone()),
            created_at: manifest.map(|manifest| manifest.begun_at.clone()),
            engine: manifest.map(|manifest| format!("{} {}", manifest.engine, manifest.engine_version)),
            shards: manifest.map(|manifest| manifest.shards.len()),
            keys: manifest.map(Manifest::keys),
            plain_bytes: manifest.map(Manifest::plain_bytes),
            stored_bytes: manifest.map(Manifest::stored_bytes),
            encrypted: manifest.map(|manifest| manifest.encryption.is_on()),
            name: entry.name,
            cluster: entry.place.cluster,
            status: entry.status,
            snapshot_id: entry.place.snapshot_id,
            problem: entry.problem,
        }
    }
}

impl From<ListedRow> for ListLine {
    fn from(row: ListedRow) -> Self {
        let snapshot = row.snapshot;
        let begun = i64::try_from(snapshot.begun_ms).ok().and_then(chrono::DateTime::from_timestamp_millis);
        Self {
            source: Some(snapshot.source),
            created_at: begun.map(clock::text),
            engine: Some(format!("{} {}", snapshot.engine, snapshot.engine_version)),
            shards: usize::try_from(row.shard_count).ok(),
            keys: Some(snapshot.keys),
            plain_bytes: Some(snapshot.plain_bytes),
            stored_bytes: Some(snapshot.stored_bytes),
            encrypted: Some(snapshot.cipher != "none"),
            name: snapshot.name,
            cluster: snapshot.cluster,
            status: Status::Available,
            snapshot_id: snapshot.snapshot_id,
            problem: None,
        }
    }
}

/// What the snapshots of one cluster store.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClusterLine {
    /// The cluster.
    pub cluster: String,
    /// Its snapshots that are available.
    pub snapshots: u64,
    /// Their bytes in the repository.
    pub stored_bytes: u64,
    /// Of these, bytes that cost something.
    pub billed_bytes: u64,
    /// What they cost a month, as a decimal number; `null` without a price.
    pub monthly_cost: Option<String>,
}

/// Bills as lines, by cluster.
#[must_use]
pub fn cluster_lines(bills: BTreeMap<&str, Bill>) -> Vec<ClusterLine> {
    let line = |(cluster, bill): (&str, Bill)| ClusterLine {
        cluster: cluster.to_owned(),
        snapshots: bill.snapshots,
        stored_bytes: bill.bytes,
        billed_bytes: bill.billed_bytes,
        monthly_cost: bill.monthly.map(|cost| cost.to_string()),
    };
    bills.into_iter().map(line).collect()
}

/// What `snapshot list` prints.
#[derive(Debug, Serialize, ToSchema)]
pub struct List {
    /// Oldest first.
    pub snapshots: Vec<ListLine>,
    /// What they store, by cluster.
    pub clusters: Vec<ClusterLine>,
    /// The price of a gigabyte for a month, as a decimal number, where there is one.
    pub price_per_gb_month: Option<String>,
}

impl List {
    /// A listing with its cost; with `first_free` the oldest snapshot of each cluster costs nothing.
    #[must_use]
    pub fn new(entries: Vec<Entry>, price: Option<Money>, first_free: bool) -> Self {
        let stored = entries.iter().filter_map(|entry| {
            let bytes = entry.manifest.as_ref()?.stored_bytes();
            Some(Stored { cluster: &entry.place.cluster, bytes })
        });
        let clusters = cluster_lines(monthly(stored, price, first_free));
        let price_per_gb_month = price.map(|price| price.to_string());
        Self { snapshots: entries.into_iter().map(Into::into).collect(), clusters, price_per_gb_month }
    }
}
