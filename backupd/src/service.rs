//! What can be asked of the daemon, whoever asks: the REST API, the ElastiCache Query API and, where it fits, the command line.
//!
//! Lists come from the catalog, filtered by what the caller may see, in pages with an opaque cursor. Long work becomes a job of the catalog
//! (`jobs::submit`), under the caller's own key where it gives one. What is done here for a caller is decided by `policies::access` and
//! written down: every refusal, and every permission that changes something.

pub mod access;
pub mod clusters;
pub mod costs;
pub mod cursor;
pub mod events;
pub mod facts;
pub mod grants;
pub mod jobs;
pub mod restores;
pub mod retention;
pub mod snapshots;
pub mod view;
pub mod windows;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use policies::access::Principal;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::jobs::{Live, reach};

/// How many times a page asks the catalog, which gives up to a thousand rows each time. Who sees little of much gets pages that are not full,
/// or empty, and a cursor to go on with: so no request reads all that there is.
const READS_MAX: usize = 10;

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Services {
    /// The catalog.
    pub catalog: Catalog,
    live: Live,
    /// Ids of repositories by their URLs: an id never changes.
    ids: Arc<Mutex<BTreeMap<String, String>>>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// Where the next part begins; `None` when there is no more.
    pub next: Option<String>,
}

impl Services {
    /// Services of this catalog and of the configuration as it is at any time.
    #[must_use]
    pub fn new(catalog: Catalog, live: Live) -> Self {
        Self { catalog, live, ids: Arc::default() }
    }

    /// The configuration as it is now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.live.borrow())
    }

    /// The id of a repository of the configuration; `None` when nothing was written to it yet.
    ///
    /// # Errors
    /// `NotFound` when the configuration does not name it; what its store says.
    pub async fn repository_id(&self, name: &str) -> Result<Option<String>> {
        let config = self.config();
        let url = config.repository(name)?.url.to_string();
        if let Some(id) = self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(&url) {
            return Ok(Some(id.clone()));
        }
        let Some((repository, _)) = reach::begun(&config, name).await? else { return Ok(None) };
        let id = repository.id().to_owned();
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(url, id.clone());
        Ok(Some(id))
    }

    /// The name that the configuration has for the repository of this id.
    ///
    /// # Errors
    /// `NotFound` when it has none; what the stores of its repositories say.
    pub async fn repository_name(&self, id: &str) -> Result<String> {
        let mut failed = None;
        for section in self.config().repositories() {
            match self.repository_id(&section.name).await {
                Ok(Some(found)) if found == id => return Ok(section.name.clone()),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| {
            Error::new(Class::NotFound, format!("the repository {id} is not in the configuration"))
                .hint("add a section [repositories.NAME] for it")
        }))
    }

    /// The one cluster that a caller sees things of, where there is no other: then the catalog is asked for it alone.
    fn only_cluster(caller: &Principal) -> Option<String> {
        match caller.scope.clusters.as_slice() {
            [one] if !one.ends_with('*') => Some(one.clone()),
            _ => None,
        }
    }

    /// The tags of a cluster as they are now; none of one that is not known.
    #[must_use]
    pub fn cluster_tags(&self, cluster: &str) -> BTreeMap<String, String> {
        self.config().cluster_tags(cluster)
    }
}
