//! Puts jobs into the catalog for the daemon.

use policies::job::Kind;

pub use super::backup::Parameters as BackupParameters;
pub use super::copy::Parameters as CopyParameters;
pub use super::export::Parameters as ExportParameters;
pub use super::keep::Parameters as KeepParameters;
use super::reach::host;
pub use super::removal::Parameters as RemovalParameters;
pub use super::restore::Parameters as RestoreParameters;
pub use super::verify::Parameters as VerifyParameters;
use crate::catalog::{Asked, Catalog, NewJob, new_id};
use crate::config::Config;
use crate::error::{Class, Error, Result};

/// A job of a cluster of the configuration, that may begin now.
///
/// # Errors
/// `NotFound` when the configuration does not name the cluster.
pub fn job(config: &Config, kind: Kind, cluster: &str, snapshot_name: &str, now_unix_ms: u64) -> Result<NewJob> {
    let section = config.cluster(cluster)?;
    let touches_source = matches!(kind, Kind::Backup | Kind::Remove);
    let host = if touches_source { host(section) } else { String::new() };
    Ok(NewJob { host, ..of_snapshot(kind, cluster, &section.repository, snapshot_name, &(), now_unix_ms)? })
}

/// A job about a snapshot that there is, in a repository of the configuration, that may begin now.
///
/// # Errors
/// When no randomness is to be had.
pub fn of_snapshot(
    kind: Kind,
    cluster: &str,
    repository: &str,
    snapshot_name: &str,
    parameters: &impl serde::Serialize,
    now_unix_ms: u64,
) -> Result<NewJob> {
    Ok(NewJob {
        job_id: new_id(now_unix_ms)?,
        kind,
        cluster: cluster.to_owned(),
        repository: repository.to_owned(),
        host: String::new(),
        snapshot_name: snapshot_name.to_owned(),
        source: String::new(),
        parameters: json(parameters)?,
        not_before_ms: now_unix_ms,
        start_by_ms: None,
        asked: Asked::default(),
    })
}

/// A job that makes a snapshot because somebody asks for it.
///
/// # Errors
/// `NotFound`, `Usage` for a name that is none.
pub fn new_backup(
    config: &Config,
    cluster: &str,
    name: &str,
    parameters: &BackupParameters,
    now_unix_ms: u64,
) -> Result<NewJob> {
    check_name(name)?;
    let mut new = job(config, Kind::Backup, cluster, name, now_unix_ms)?;
    "manual".clone_into(&mut new.source);
    new.parameters = json(parameters)?;
    Ok(new)
}

/// A job that removes a cluster, after a last snapshot where one is named.
///
/// # Errors
/// `NotFound`, `Usage` for a name that is none.
pub fn new_removal(
    config: &Config,
    cluster: &str,
    final_snapshot: Option<&str>,
    who: &str,
    now_unix_ms: u64,
) -> Result<NewJob> {
    final_snapshot.map_or(Ok(()), check_name)?;
    let mut new = job(config, Kind::Remove, cluster, final_snapshot.unwrap_or_default(), now_unix_ms)?;
    "final".clone_into(&mut new.source);
    new.parameters = json(&RemovalParameters { who: who.to_owned(), final_snapshot: final_snapshot.is_some() })?;
    Ok(new)
}

/// Asks the daemon for a snapshot. It returns the id of the job.
///
/// # Errors
/// As [`new_backup`], and those of the catalog.
pub async fn backup(
    catalog: &Catalog,
    config: &Config,
    cluster: &str,
    name: &str,
    parameters: &BackupParameters,
) -> Result<String> {
    let now_ms = catalog.now_unix_ms().await?;
    let new = new_backup(config, cluster, name, parameters, now_ms)?;
    catalog.add_job(&new, &[], now_ms).await?;
    Ok(new.job_id)
}

/// Asks the daemon to remove a cluster, after a last snapshot where one is named. It returns the id of the job.
///
/// # Errors
/// As [`new_removal`], and those of the catalog.
pub async fn removal(
    catalog: &Catalog,
    config: &Config,
    cluster: &str,
    final_snapshot: Option<&str>,
    who: &str,
) -> Result<String> {
    let now_ms = catalog.now_unix_ms().await?;
    let new = new_removal(config, cluster, final_snapshot, who, now_ms)?;
    catalog.add_job(&new, &[], now_ms).await?;
    Ok(new.job_id)
}

/// Whether a snapshot may be called so.
///
/// # Errors
/// `Usage`.
pub fn check_name(name: &str) -> Result<()> {
    policies::names::check("snapshot", name).map_err(|error| Error::new(Class::Usage, error.to_string()))
}

fn json(parameters: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string(parameters)
        .map_err(|error| Error::new(Class::Unforeseen, format!("parameters cannot be written: {error}")))?;
    // nothing asked for is an empty object
    Ok(if text == "null" { "{}".to_owned() } else { text })
}
