//! From names in the configuration to what a job works on.

use std::collections::BTreeMap;
use std::sync::Arc;

use policies::replica::Wishes;
use policies::retention;

use crate::catalog::ScheduleRow;
use crate::config::{Capture, Cluster, Config, Encryption, Repository};
use crate::crypt::keyring::Keyring;
use crate::crypt::kms::Kms;
use crate::error::{Class, Error, Result};
use crate::pipeline::Flow;
use crate::pipeline::rate::Rate;
use crate::pipeline::spill::Spill;
use crate::redis::{AddressMap, SourceOptions};
use crate::repository::{self, Keys};
use crate::secret::{self, Password};
use crate::snapshot::care::Care;
use crate::snapshot::method::Method;
use crate::store::{self, Store};

/// A cluster with its source and the repository of its snapshots.
#[derive(Debug)]
pub struct Source {
    /// How it is reached.
    pub options: SourceOptions,
    /// Which nodes may serve.
    pub wishes: Wishes,
    /// How its shards are read.
    pub method: Method,
    /// What its snapshots are tagged with.
    pub tags: BTreeMap<String, String>,
}

/// What opens the snapshots of a repository of the configuration.
///
/// # Errors
/// `Key` when a key file cannot be used.
pub fn keys(config: &Config, repository: &Repository) -> Result<Keys> {
    let of = |encryption: &Encryption| match encryption {
        Encryption::KeyFile(path) => Keyring::read(path).map(Keys::Keyring),
        Encryption::Kms { key, endpoint } => Kms::new(key, endpoint.as_deref()).map(Keys::Kms),
        Encryption::None => Ok(Keys::NoEncryption),
    };
    let mut clusters = BTreeMap::new();
    for cluster in config.clusters().filter(|cluster| cluster.repository == repository.name) {
        if let Some(encryption) = &cluster.encryption {
            clusters.insert(cluster.name.clone(), of(encryption)?);
        }
    }
    let others = of(&repository.encryption)?;
    Ok(if clusters.is_empty() { others } else { Keys::PerCluster { others: Box::new(others), clusters } })
}

/// The store of a repository of the configuration, and its keys.
///
/// # Errors
/// `NotFound` when the configuration does not name it; `Key`; what the store says.
pub async fn store(config: &Config, name: &str) -> Result<(Arc<dyn Store>, Keys)> {
    let section = config.repository(name)?;
    Ok((store::open(&section.url).await?, keys(config, section)?))
}

/// A repository of the configuration, and its keys.
///
/// # Errors
/// As [`fn@store`], and `NotFound` when nothing was written to it yet.
pub async fn repository(config: &Config, name: &str) -> Result<(repository::Repository, Keys)> {
    let (store, keys) = store(config, name).await?;
    Ok((repository::Repository::open(store).await?, keys))
}

/// A repository of the configuration, and its keys; `None` when nothing was written to it yet.
///
/// # Errors
/// As [`repository()`], but for that.
pub async fn begun(config: &Config, name: &str) -> Result<Option<(repository::Repository, Keys)>> {
    match repository(config, name).await {
        Err(error) if error.class() == Class::NotFound => Ok(None),
        reached => reached.map(Some),
    }
}

/// The source of a cluster of the configuration.
///
/// # Errors
/// `NotFound` when the configuration does not name it, `Config` when its password cannot be read.
pub fn source(config: &Config, name: &str) -> Result<Source> {
    let cluster = config.cluster(name)?;
    let options = options(cluster, cluster.password.as_ref())?;
    let wishes = Wishes { primary_use: cluster.primary_use, node: None, zone: cluster.zone.clone() };
    let method = Method::new(cluster.method, cluster.data_dirs.clone());
    Ok(Source { options, wishes, method, tags: cluster.tags.clone() })
}

/// How a cluster of the configuration is reached, with the password that is in this place.
///
/// # Errors
/// `Config` when the password cannot be read.
pub fn options(cluster: &Cluster, password: Option<&Password>) -> Result<SourceOptions> {
    let mut options = SourceOptions::new(cluster.sources.clone());
    options.tls = cluster.tls.clone();
    options.sentinel_master.clone_from(&cluster.sentinel_master);
    options.username.clone_from(&cluster.username);
    options.addresses = AddressMap::new(cluster.addresses.clone()).map_err(|why| Error::new(Class::Config, why))?;
    options.password = secret::read(password)?;
    if let Some(Password::File(path)) = password {
        options.password_file = Some(path.clone());
    }
    Ok(options)
}

/// What retention knows of the clusters of a repository: the rules of those whose automated backups are on or that have copies there,
/// and which were removed. Of clusters that neither the configuration nor the catalog knows it knows nothing, and of those that are switched off neither.
#[must_use]
pub fn retained<'a>(
    config: &'a Config,
    schedules: &[ScheduleRow],
    repository: &str,
) -> BTreeMap<String, retention::Cluster<'a>> {
    let here = config.clusters().filter(|cluster| cluster.repository == repository && cluster.automation.on);
    let rules = |cluster: &'a Cluster| retention::Cluster::Registered(&cluster.automation.policy);
    let copies = config.clusters().filter_map(|cluster| {
        let copies = cluster.copies.iter().find(|copies| copies.to == repository)?;
        Some((cluster.name.clone(), retention::Cluster::Registered(&copies.retention)))
    });
    let mut known: BTreeMap<_, _> = here.map(|cluster| (cluster.name.clone(), rules(cluster))).collect();
    known.extend(copies);
    let removed = schedules.iter().filter(|row| row.removed_ms.is_some());
    known.extend(removed.map(|row| (row.cluster.clone(), retention::Cluster::Removed)));
    known
}

/// What captures may cost, as the configuration says. Who shares it shares its limits.
///
/// # Errors
/// `Config` when the folder of the spill cannot be used.
pub fn care(capture: &Capture) -> Result<Care> {
    let spill = Spill::new(&capture.spill_folder, capture.spill_bytes_max, capture.spill_wait)?;
    let (source_rate, store_rate) = (Rate::new(capture.source_rate_max), Rate::new(capture.store_rate_max));
    Ok(Care { budget: capture.budget, limits: capture.limits, flow: Flow { spill, source_rate, store_rate } })
}

/// The host that limits how many captures of it run at the same time: that of the first source.
#[must_use]
pub fn host(cluster: &Cluster) -> String {
    cluster.sources.first().map(|url| url.address.host().to_owned()).unwrap_or_default()
}
