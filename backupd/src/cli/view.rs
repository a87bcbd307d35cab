//! What commands print of snapshots: the stable fields of the JSON form, and tables for people.

use policies::cost::{Money, Stored, monthly};
use serde::Serialize;

use super::output::{bytes, table};
use crate::manifest::{Encryption, Manifest, Shard};
use crate::repository::fact::Fact;
use crate::repository::listing::{Entry, Status};

/// A snapshot as `create` and `show` print it.
#[derive(Debug, Serialize)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// `available`, …
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
    pub encryption: Encryption,
    /// Tags.
    pub tags: std::collections::BTreeMap<String, String>,
    /// The program that made it.
    pub tool: String,
    /// The shards.
    pub shards: Vec<Shard>,
    /// What became known since, oldest first.
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

impl SnapshotView {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let ratio = (self.plain_bytes * 100).checked_div(self.stored_bytes).unwrap_or(0);
        let sealed = match self.encryption.key_ids.as_slice() {
            [] => "not encrypted".to_owned(),
            ids => format!("{} for {}", self.encryption.cipher, ids.join(", ")),
        };
        let head = format!(
            "snapshot {} of {} is {} ({})\n{} {} {}, {} to {}, skew {} ms\n{} keys, {} of RDB in {} ({}.{:02} : 1), {sealed}",
            self.name,
            self.cluster,
            self.status,
            self.snapshot_id,
            self.engine,
            self.engine_version,
            self.mode,
            self.created_at,
            self.ended_at,
            self.skew_ms,
            self.keys,
            bytes(self.plain_bytes),
            bytes(self.stored_bytes),
            ratio / 100,
            ratio % 100,
        );
        let rows = self.shards.iter().map(|shard| {
            vec![
                shard.index.to_string(),
                shard.slots.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                format!("{} {}", shard.node.role, shard.node.address),
                shard.rdb.keys.to_string(),
                bytes(shard.object.plain_bytes),
                bytes(shard.object.stored_bytes),
                shard.taken_at.clone(),
            ]
        });
        let shards = table(&["shard", "slots", "from", "keys", "rdb", "stored", "taken"], rows);
        let facts = self.facts.iter().map(|fact| {
            let says: Vec<_> = fact.says.iter().map(|(name, value)| format!("{name}={value}")).collect();
            vec![fact.kind.as_str().to_owned(), fact.at.clone(), says.join(" ")]
        });
        match self.facts.is_empty() {
            true => format!("{head}\n\n{shards}"),
            false => format!("{head}\n\n{shards}\n\n{}", table(&["fact", "at", ""], facts)),
        }
    }
}

/// One line of `snapshot list`.
#[derive(Debug, Serialize)]
pub struct ListLine {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// Its state.
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

/// What the snapshots of one cluster store.
#[derive(Debug, Serialize)]
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

/// What `snapshot list` prints.
#[derive(Debug, Serialize)]
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
        let bills = monthly(stored, price, first_free).into_iter();
        let clusters = bills.map(|(cluster, bill)| ClusterLine {
            cluster: cluster.to_owned(),
            snapshots: bill.snapshots,
            stored_bytes: bill.bytes,
            billed_bytes: bill.billed_bytes,
            monthly_cost: bill.monthly.map(|cost| cost.to_string()),
        });
        let clusters = clusters.collect();
        let price_per_gb_month = price.map(|price| price.to_string());
        Self { snapshots: entries.into_iter().map(Into::into).collect(), clusters, price_per_gb_month }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let dash = || "-".to_owned();
        let rows = self.snapshots.iter().map(|line| {
            vec![
                line.name.clone(),
                line.cluster.clone(),
                line.status.to_string(),
                line.created_at.clone().unwrap_or_else(dash),
                line.engine.clone().unwrap_or_else(dash),
                line.shards.map_or_else(dash, |count| count.to_string()),
                line.keys.map_or_else(dash, |count| count.to_string()),
                line.stored_bytes.map_or_else(dash, bytes),
                line.problem.clone().unwrap_or_default(),
            ]
        });
        let snapshots =
            table(&["name", "cluster", "status", "created", "engine", "shards", "keys", "stored", ""], rows);
        let costs = self.clusters.iter().filter_map(|line| {
            let cost = line.monthly_cost.clone()?;
            Some(vec![
                line.cluster.clone(),
                line.snapshots.to_string(),
                bytes(line.stored_bytes),
                bytes(line.billed_bytes),
                cost,
            ])
        });
        match &self.price_per_gb_month {
            None => snapshots,
            Some(price) => {
                let header = ["cluster", "snapshots", "stored", "billed", "a month"];
                format!("{snapshots}\n\n{}\n\nat {price} per GB (2^30 bytes) and month", table(&header, costs))
            }
        }
    }
}
