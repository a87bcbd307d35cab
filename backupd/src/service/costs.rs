//! What the storage of snapshots costs a month.

use std::collections::BTreeMap;

use policies::access::{Principal, Resource};
use policies::cost::{Stored, monthly};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::snapshots::tags;
use super::view::{ClusterLine, cluster_lines};
use crate::catalog::{ROWS_MAX, SnapshotFilter};
use crate::error::Result;

/// What is stored, and what it costs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Costs {
    /// By cluster.
    pub clusters: Vec<ClusterLine>,
    /// The price of a gigabyte for a month, as a decimal number; `null` where the configuration has none.
    pub price_per_gb_month: Option<String>,
    /// Whether the oldest snapshot of each cluster costs nothing.
    pub first_snapshot_free: bool,
}

impl Services {
    /// What the snapshots cost that the caller sees: of one cluster, in one repository of the configuration, or all. A snapshot that several
    /// repositories have is stored several times.
    ///
    /// # Errors
    /// `NotFound` for a repository that the configuration does not name; what the catalog says.
    pub async fn costs(&self, caller: &Principal, cluster: Option<&str>, repository: Option<&str>) -> Result<Costs> {
        let config = self.config();
        let (mut clusters, mut sizes): (BTreeMap<String, usize>, Vec<(usize, u64)>) = (BTreeMap::new(), Vec::new());
        let mut filter =
            SnapshotFilter { cluster: cluster.map(str::to_owned), oldest_first: true, ..SnapshotFilter::default() };
        let mut is_last = false;
        if let Some(name) = repository {
            filter.repository_id = self.repository_id(name).await?;
            // nothing was ever written to it
            is_last = filter.repository_id.is_none();
        }
        while !is_last {
            let rows = self.catalog.snapshots(&filter).await?;
            is_last = rows.len() < usize::try_from(ROWS_MAX).unwrap_or(1);
            filter.after = rows.last().map(|row| (row.begun_ms, row.snapshot_id.clone()));
            for row in rows {
                let tags = tags(&row);
                if self.sees(caller, Resource::Of { cluster: &row.cluster, tags: &tags }) {
                    let next = clusters.len();
                    sizes.push((*clusters.entry(row.cluster).or_insert(next), row.stored_bytes));
                }
            }
        }
        let names: BTreeMap<usize, &str> = clusters.iter().map(|(name, number)| (*number, name.as_str())).collect();
        let stored =
            sizes.iter().filter_map(|(number, bytes)| Some(Stored { cluster: names.get(number)?, bytes: *bytes }));
        let bills = monthly(stored, config.price_per_gb_month, config.first_snapshot_free);
        Ok(Costs {
            clusters: cluster_lines(bills),
            price_per_gb_month: config.price_per_gb_month.map(|price| price.to_string()),
            first_snapshot_free: config.first_snapshot_free,
        })
    }
}
