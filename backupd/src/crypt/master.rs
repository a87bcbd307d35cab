//! A key for which data keys are wrapped: one of a keyring file, one of KMS, or a public key.

use super::keyring::MasterKey;
use super::kms::{Context, KmsKey};
use super::pair::{KeyPair, PublicKey};

/// A key that wraps and opens data keys.
#[derive(Debug, Clone)]
pub enum Master {
    /// Of a keyring file.
    File(MasterKey),
    /// Of KMS.
    Kms(KmsKey),
    /// A key pair of a keyring file.
    Pair(KeyPair),
    /// The public key of somebody else. It seals and does not open.
    Public(PublicKey),
}

impl Master {
    /// Its id: `k-…`, the ARN of a key of KMS, or `x-…`.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::File(key) => &key.id,
            Self::Kms(key) => key.arn(),
            Self::Pair(pair) => &pair.public.id,
            Self::Public(key) => &key.id,
        }
    }

    /// When it was made, RFC 3339, where that is known.
    #[must_use]
    pub fn created_at(&self) -> Option<&str> {
        match self {
            Self::File(key) => Some(&key.created_at),
            Self::Pair(pair) => Some(&pair.created_at),
            Self::Kms(_) | Self::Public(_) => None,
        }
    }
}

/// The snapshot that a data key is of.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The id of the repository.
    pub repository: &'a str,
    /// The cluster.
    pub cluster: &'a str,
    /// The snapshot's id.
    pub snapshot_id: &'a str,
}

impl Binding<'_> {
    /// The same as the encryption context of KMS.
    #[must_use]
    pub fn context(&self) -> Context {
        let pairs = [
            ("backupd:cluster", self.cluster),
            ("backupd:repository", self.repository),
            ("backupd:snapshot", self.snapshot_id),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}
