//! What is said of clusters and snapshots besides the configuration: written into their repository first, which has it when the catalog is
//! lost, then into the catalog.

use super::reach;
use crate::catalog::{Catalog, DefinitionRow};
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::repository::Repository;
use crate::repository::fact::TagChanges;
use crate::snapshot::record::{definition_row, said};

/// How often something is said again that others say something of at the same time.
const ATTEMPTS_MAX: u32 = 8;

/// Says something of a cluster, in a repository of the configuration: `change` makes of what holds what is to hold, `None` when nothing is
/// said of it (any more). Who says something at the same time is not overwritten: then `change` is asked again.
///
/// # Errors
/// What `change` refuses; `Verification` when what holds cannot be read; what the store and the catalog say.
pub async fn of_cluster(
    config: &Config,
    catalog: &Catalog,
    (name, cluster): (&str, &str),
    change: impl Fn(Option<DefinitionRow>) -> Result<Option<DefinitionRow>>,
) -> Result<()> {
    let (store, _) = reach::store(config, name).await?;
    let repository = Repository::open_or_create(store).await?;
    for _ in 0..ATTEMPTS_MAX {
        let last = repository.definition(cluster).await?;
        // what an older release said is in the catalog alone
        let known = catalog.definition(cluster).await?;
        let number = last.as_ref().map_or(0, |it| it.number).max(known.as_ref().map_or(0, |it| it.number)) + 1;
        // and what was said before the cluster's snapshots went to this repository is in another one
        let before = match (last, known) {
            (Some(last), Some(known)) if known.number > last.number => Some(known),
            (Some(last), _) => definition_row(&last, name),
            (None, known) => known,
        };
        let after = change(before.clone())?;
        if after == before {
            return Ok(());
        }
        match repository.define(cluster, number, after.as_ref().map(said)).await {
            Ok(_) => {}
            Err(error) if error.class() == Class::Busy => continue,
            Err(error) => return Err(error),
        }
        return match after {
            Some(row) => {
                let row = DefinitionRow { number, repository: name.to_owned(), ..row };
                catalog.put_definition(&row, catalog.now_unix_ms().await?).await
            }
            None => catalog.forget_definition(cluster).await,
        };
    }
    Err(Error::new(Class::Busy, format!("others say something of the cluster {cluster} all the time")))
}

/// Says which nodes a job filled, when it was to fill a cluster that is still to be filled by it.
///
/// # Errors
/// As [`of_cluster`].
pub async fn filled(config: &Config, catalog: &Catalog, job_id: &str, nodes: &[String]) -> Result<()> {
    let Some(row) = catalog.definition_of_job(job_id).await? else { return Ok(()) };
    let nodes = serde_json::json!(nodes).to_string();
    of_cluster(config, catalog, (&row.repository, &row.cluster), |before| {
        let fill = |row: DefinitionRow| DefinitionRow { nodes: nodes.clone(), ..row };
        Ok(before.map(|row| if row.job_id == job_id { fill(row) } else { row }))
    })
    .await
}

/// Says that a cluster was removed, or with `None` that it is one again.
///
/// # Errors
/// As [`of_cluster`].
pub async fn removal(config: &Config, catalog: &Catalog, cluster: &str, removed_ms: Option<u64>) -> Result<()> {
    let name = config.cluster(cluster)?.repository.clone();
    let now_ms = catalog.now_unix_ms().await?;
    let removed_ms = removed_ms.and_then(|ms| i64::try_from(ms).ok());
    of_cluster(config, catalog, (&name, cluster), |before| {
        let row = before.unwrap_or_else(|| DefinitionRow::new(cluster, now_ms));
        // the attempt before this one may have said it
        Ok(Some(DefinitionRow { removed_ms: removed_ms.map(|now| row.removed_ms.unwrap_or(now)), ..row }))
    })
    .await
}

/// Gives tags to a snapshot, or takes them away.
///
/// # Errors
/// `Busy` or `NotFound` when it is being removed or was; `Key`; what the store and the catalog say.
pub async fn of_snapshot(
    config: &Config,
    catalog: &Catalog,
    (repository, snapshot): (&str, &str),
    changes: &TagChanges,
) -> Result<()> {
    let (repository, keys) = reach::repository(config, repository).await?;
    let (place, data_key) = repository.place_of(snapshot, &keys).await?;
    repository.tag(&place, changes, data_key.as_ref()).await?;
    catalog.change_snapshot_tags(repository.id(), &place.snapshot_id, changes).await
}
