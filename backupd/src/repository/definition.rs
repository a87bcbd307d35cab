//! What was said of a cluster besides the configuration, as `<cluster>/definition-<number>.json`: that it was made, its window and
//! retention, its tags, its removal. The highest number counts and says all of it; nothing is overwritten.

use std::collections::BTreeMap;

use policies::garbage::definition_of;
use serde::{Deserialize, Serialize};

use super::{Repository, SMALL_BYTES_MAX};
use crate::canonical::{self, Proof, damaged};
use crate::clock;
use crate::error::{Class, Error, Result};

/// A definition object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// 1.
    pub format: u32,
    /// The cluster that it is about.
    pub cluster: String,
    /// Its number, from 1.
    pub number: u64,
    /// When it was written, RFC 3339.
    pub at: String,
    /// Program and version that wrote it.
    pub tool: String,
    /// What holds from here on; `None`: nothing is said of the cluster any more.
    pub says: Option<Said>,
}

/// What is said of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// It was made through the API; else the configuration names it.
    pub made: bool,
    /// `group` or `cluster`: what it was made as.
    pub shape: String,
    /// What is said of it.
    pub description: String,
    /// Its window, instead of that of the configuration.
    pub window: Option<String>,
    /// For how many days automated snapshots are kept, instead of what the configuration says; 0: none are made.
    pub retention_days: Option<i64>,
    /// The node that was named for snapshots.
    pub snapshotting: String,
    /// Where its nodes came from, by the name in the configuration.
    pub target: String,
    /// The job that fills it.
    pub job_id: String,
    /// Its nodes once it is filled, as `host:port`.
    pub nodes: Vec<String>,
    /// Tags that were given and, as `null`, taken away.
    pub tags: BTreeMap<String, Option<String>>,
    /// When something was said of it first, ms since 1970.
    pub created_unix_ms: u64,
    /// When it was removed, ms since 1970.
    pub removed_unix_ms: Option<i64>,
}

impl Repository {
    /// What was said of a cluster last; `None` when nothing ever was.
    ///
    /// # Errors
    /// `Verification` when it is damaged: what holds is not known then. What the store says.
    pub async fn definition(&self, cluster: &str) -> Result<Option<Definition>> {
        let prefix = format!("{cluster}/definition-");
        let keys = self.keys_below(&prefix).await?;
        let number = |key: &String| definition_of(key.strip_prefix(cluster)?.strip_prefix('/')?);
        let Some(last) = keys.iter().filter_map(number).max() else { return Ok(None) };
        let key = key(cluster, last);
        let object = canonical::parse(&key, &self.store.read(&key, SMALL_BYTES_MAX).await?)?;
        let definition: Definition = canonical::open(&key, object, Proof::Digest)?;
        if definition.cluster != cluster || definition.number != last {
            return Err(damaged(&key, "it is a definition of something else"));
        }
        Ok(Some(definition))
    }

    /// Says something of a cluster under a number, which is one more than the last.
    ///
    /// # Errors
    /// `Busy` when somebody else has the number, and what the store says.
    pub async fn define(&self, cluster: &str, number: u64, says: Option<Said>) -> Result<Definition> {
        policies::names::check("cluster", cluster).map_err(|error| Error::new(Class::Usage, error.to_string()))?;
        let definition = Definition {
            format: 1,
            cluster: cluster.to_owned(),
            number,
            at: clock::text(clock::now()),
            tool: concat!("backupd ", env!("CARGO_PKG_VERSION")).to_owned(),
            says,
        };
        self.create_document(&key(cluster, number), canonical::seal(&definition, Proof::Digest)?).await?;
        Ok(definition)
    }

    /// What was said last of each cluster that something was said of; and the clusters of which that cannot be read, with the reasons.
    ///
    /// # Errors
    /// What the store says.
    pub async fn definitions(&self) -> Result<(Vec<Definition>, Vec<Error>)> {
        let (mut definitions, mut broken) = (Vec::new(), Vec::new());
        for cluster in self.folders("").await? {
            if policies::names::check("cluster", &cluster).is_err() {
                continue;
            }
            match self.definition(&cluster).await {
                Ok(found) => definitions.extend(found),
                Err(error) if error.class() == Class::Verification => broken.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok((definitions, broken))
    }
}

fn key(cluster: &str, number: u64) -> String {
    format!("{cluster}/definition-{number:06}.json")
}
