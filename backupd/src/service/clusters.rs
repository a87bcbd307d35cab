//! Clusters, from all that is known: the configuration, the catalog, schedules.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::{Catalog, ClusterRow, ScheduleRow};
use crate::config::Config;
use crate::error::{Class, Error, Result};

/// A cluster, from all that is known.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// `registered`, `removed`, or `unknown` to the configuration.
    #[schema(value_type = String)]
    pub status: &'static str,
    /// Whether the configuration names it.
    pub configured: bool,
    /// Where its snapshots go: a name of the configuration, or a URL.
    pub repository: String,
    /// The window that holds; empty without one.
    pub window: String,
    /// Whether that was chosen for it.
    pub window_chosen: bool,
    /// `standalone` or `cluster`, as it was last seen; empty before.
    pub mode: String,
    /// The engine, as it was last seen.
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// How far windows lie apart at most, s; 0 without one.
    pub expected_interval_s: u64,
    /// When its newest snapshot became available, ms since 1970.
    pub last_success_ms: Option<i64>,
    /// When a snapshot of it was last read again and was whole.
    pub last_verified_ms: Option<i64>,
    /// How its last backup ended: `succeeded`, `failed`, `canceled`, or empty.
    pub last_outcome: String,
    /// When it was removed.
    pub removed_ms: Option<i64>,
}

/// One cluster.
///
/// # Errors
/// `NotFound`, and those of the catalog.
pub async fn one(config: &Config, catalog: &Catalog, name: &str) -> Result<ClusterView> {
    all(config, catalog).await?.remove(name).ok_or_else(|| {
        Error::new(Class::NotFound, format!("there is no cluster `{name}`"))
            .hint("`backupd cluster list` shows what there is")
    })
}

/// All clusters, by name: those of the configuration, and those that snapshots or schedules are known of.
///
/// # Errors
/// Those of the catalog.
pub async fn all(config: &Config, catalog: &Catalog) -> Result<BTreeMap<String, ClusterView>> {
    let seen: BTreeMap<String, ClusterRow> =
        catalog.clusters().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    let schedules: BTreeMap<String, ScheduleRow> =
        catalog.schedules().await?.into_iter().map(|row| (row.cluster.clone(), row)).collect();
    let names = config.clusters().map(|cluster| &cluster.name).chain(seen.keys()).chain(schedules.keys());
    let views = names.map(|name| (name.clone(), view(name, config, seen.get(name), schedules.get(name))));
    Ok(views.collect())
}

fn view(name: &str, config: &Config, seen: Option<&ClusterRow>, schedule: Option<&ScheduleRow>) -> ClusterView {
    let configured = config.cluster(name).ok();
    let removed_ms = schedule.and_then(|row| row.removed_ms);
    let status = match (removed_ms, configured) {
        (Some(_), _) => "removed",
        (None, Some(_)) => "registered",
        (None, None) => "unknown",
    };
    let text = |pick: fn(&ClusterRow) -> &String| seen.map(|row| pick(row).clone()).unwrap_or_default();
    ClusterView {
        name: name.to_owned(),
        status,
        configured: configured.is_some(),
        repository: configured
            .map(|cluster| cluster.repository.clone())
            .or_else(|| seen.map(|row| row.repository_url.clone()))
            .unwrap_or_default(),
        window: schedule.map(|row| row.window_text.clone()).unwrap_or_default(),
        window_chosen: schedule.is_some_and(|row| row.window_chosen != 0),
        mode: text(|row| &row.mode),
        engine: text(|row| &row.engine),
        engine_version: text(|row| &row.engine_version),
        expected_interval_s: schedule.map_or(0, |row| row.expected_interval_s),
        last_success_ms: schedule.and_then(|row| row.last_success_ms),
        last_verified_ms: schedule.and_then(|row| row.last_verified_ms),
        last_outcome: schedule.map(|row| row.last_outcome.clone()).unwrap_or_default(),
        removed_ms,
    }
}
