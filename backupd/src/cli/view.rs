//! What commands print of snapshots for people.

use super::output::{bytes, table};
use crate::service::view::{List, SnapshotView};

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

impl List {
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
