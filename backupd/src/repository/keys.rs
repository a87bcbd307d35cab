//! What opens the snapshots of a repository, and what new ones are wrapped for.

use std::collections::BTreeMap;

use crate::crypt::keyring::{Keyring, MasterKey};
use crate::crypt::kms::Kms;
use crate::crypt::master::{Binding, Master};
use crate::crypt::wrap;
use crate::error::{Class, Error, Result};

/// What opens the snapshots of a repository.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Nothing was said: only what is not encrypted can be read, and nothing can be made.
    Unsaid,
    /// `--no-encryption` was asked for by name.
    NoEncryption,
    /// Master keys of a file.
    Keyring(Keyring),
    /// A master key of KMS.
    Kms(Kms),
    /// Others for the snapshots of some clusters.
    PerCluster {
        /// For all other clusters.
        others: Box<Keys>,
        /// By cluster; none of them is this again.
        clusters: BTreeMap<String, Keys>,
    },
}

impl Keys {
    /// Those for the snapshots of a cluster.
    #[must_use]
    pub fn of(&self, cluster: &str) -> &Self {
        match self {
            Self::PerCluster { others, clusters } => clusters.get(cluster).unwrap_or(others),
            one => one,
        }
    }

    /// Refuses to make a snapshot of which nobody said how it is sealed.
    ///
    /// # Errors
    /// `Key`.
    pub fn check_said(&self) -> Result<()> {
        match self {
            Self::Unsaid => {
                Err(Error::new(Class::Key, "no key was given, and a snapshot without encryption must be asked for")
                    .hint("`backupd key generate FILE` and then --key-file FILE, or --kms-key ARN, or --no-encryption"))
            }
            Self::NoEncryption | Self::Keyring(_) | Self::Kms(_) | Self::PerCluster { .. } => Ok(()),
        }
    }

    /// Whether there is a key, for some cluster at least.
    #[must_use]
    pub fn are_given(&self) -> bool {
        !matches!(self, Self::Unsaid | Self::NoEncryption)
    }

    /// All keys that may open a snapshot; of a repository with keys for single clusters those for all others.
    ///
    /// # Errors
    /// What KMS says of a key that was not named by its ARN.
    pub async fn all(&self) -> Result<Vec<Master>> {
        Ok(match self {
            Self::Unsaid | Self::NoEncryption => Vec::new(),
            Self::Keyring(ring) => {
                let keys = ring.keys().iter().cloned().map(Master::File);
                keys.chain(ring.pairs().iter().cloned().map(Master::Pair)).collect()
            }
            Self::Kms(kms) => vec![Master::Kms(kms.key().await?.clone())],
            Self::PerCluster { others, .. } => Box::pin(others.all()).await?,
        })
    }

    /// The key that new snapshots are wrapped for; none where they are not encrypted. Of a repository with keys for single clusters
    /// that for all others.
    ///
    /// # Errors
    /// As [`Keys::all`].
    pub async fn active(&self) -> Result<Option<Master>> {
        Ok(match self {
            Self::Unsaid | Self::NoEncryption => None,
            Self::Keyring(ring) => Some(Master::File(ring.active()?.clone())),
            Self::Kms(kms) => Some(Master::Kms(kms.key().await?.clone())),
            Self::PerCluster { others, .. } => Box::pin(others.active()).await?,
        })
    }

    /// Refuses keys that could not make and open a snapshot of a cluster now. A key of KMS is tried, bound to the `repository` of this id.
    ///
    /// # Errors
    /// As [`Keys::check_said`], and what KMS says.
    pub async fn check(&self, repository: &str, cluster: &str) -> Result<()> {
        let keys = self.of(cluster);
        keys.check_said()?;
        let Some(master @ Master::Kms(_)) = keys.active().await? else { return Ok(()) };
        let binding = Binding { repository, cluster, snapshot_id: "check" };
        let (_, file) = wrap::fresh(binding, &master).await?;
        let wrap = wrap::parse("wrap", &file, binding.snapshot_id, master.id())?;
        wrap::open("wrap", &wrap, binding, &master).await.map(drop)
    }

    /// The keys of KMS among them.
    #[must_use]
    pub fn kms(&self) -> Vec<&Kms> {
        match self {
            Self::Kms(kms) => vec![kms],
            Self::PerCluster { others, clusters } => {
                std::iter::once(&**others).chain(clusters.values()).flat_map(Self::kms).collect()
            }
            Self::Unsaid | Self::NoEncryption | Self::Keyring(_) => Vec::new(),
        }
    }

    /// What they are, for messages that tell which were tried.
    #[must_use]
    pub fn told(&self) -> String {
        let ids = |keys: &[MasterKey]| keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            Self::Unsaid | Self::NoEncryption => "no key was given".to_owned(),
            Self::Keyring(ring) => format!("the key file holds {}", ids(ring.keys())),
            Self::Kms(kms) => format!("the key that was given is {}", kms.name()),
            Self::PerCluster { others, .. } => others.told(),
        }
    }
}
