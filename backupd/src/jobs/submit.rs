//! Puts jobs into the catalog for the daemon.

use policies::job::Kind;

pub use super::backup::Parameters as BackupParameters;
use super::reach::host;
pub use super::removal::Parameters as RemovalParameters;
use crate::catalog::{Catalog, NewJob, new_id};
use crate::config::Config;
use crate::error::{Class, Error, Result};

/// A job of a cluster of the configuration, that may begin now.
///
/// # Errors
/// `NotFound` when the configuration does not name the cluster.
pub fn job(config: &Config, kind: Kind, cluster: &str, snapshot_name: &str, now_unix_ms: u64) -> Result<NewJob> {
    let section = config.cluster(cluster)?;
    let touches_source = matches!(kind, Kind::Backup | Kind::Remove);
    Ok(NewJob {
        job_id: new_id(now_unix_ms)?,
        kind,
        cluster: cluster.to_owned(),
        repository: section.repository.clone(),
        host: if touches_source { host(section) } else { String::new() },
        snapshot_name: snapshot_name.to_owned(),
        source: String::new(),
        parameters: "{}".to_owned(),
        not_before_ms: now_unix_ms,
        start_by_ms: None,
    })
}

/// Asks the daemon for a snapshot. It returns the id of the job.
///
/// # Errors
/// `NotFound`, `Usage` for a name that is none, and those of the catalog.
pub async fn backup(
    catalog: &Catalog,
    config: &Config,
    cluster: &str,
    name: &str,
    parameters: &BackupParameters,
) -> Result<String> {
    policies::names::check("snapshot", name).map_err(|error| Error::new(Class::Usage, error.to_string()))?;
    let now_ms = catalog.now_unix_ms().await?;
    let mut new = job(config, Kind::Backup, cluster, name, now_ms)?;
    "manual".clone_into(&mut new.source);
    new.parameters = json(parameters)?;
    catalog.add_job(&new, &[], now_ms).await?;
    Ok(new.job_id)
}

/// Asks the daemon to remove a cluster, after a last snapshot where one is named. It returns the id of the job.
///
/// # Errors
/// `NotFound`, `Usage` for a name that is none, and those of the catalog.
pub async fn removal(
    catalog: &Catalog,
    config: &Config,
    cluster: &str,
    final_snapshot: Option<&str>,
    who: &str,
) -> Result<String> {
    if let Some(name) = final_snapshot {
        policies::names::check("snapshot", name).map_err(|error| Error::new(Class::Usage, error.to_string()))?;
    }
    let now_ms = catalog.now_unix_ms().await?;
    let mut new = job(config, Kind::Remove, cluster, final_snapshot.unwrap_or_default(), now_ms)?;
    "final".clone_into(&mut new.source);
    new.parameters = json(&RemovalParameters { who: who.to_owned(), final_snapshot: final_snapshot.is_some() })?;
    catalog.add_job(&new, &[], now_ms).await?;
    Ok(new.job_id)
}

fn json(parameters: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(parameters)
        .map_err(|error| Error::new(Class::Unforeseen, format!("parameters cannot be written: {error}")))
}
