//! The flags that name master keys.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

use crate::config::Encryption;
use crate::crypt::keyring::Keyring;
use crate::crypt::kms::Kms;
use crate::error::Result;
use crate::repository::Keys;

/// The master key of snapshots.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyArgs {
    /// The key file (see `backupd key generate`).
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Instead of a key file: a key of AWS KMS, by its ARN, alias or id.
    #[arg(long, value_name = "ARN", conflicts_with = "key_file")]
    pub(super) kms_key: Option<String>,
    /// Where KMS is, when not at AWS or where AWS_ENDPOINT_URL_KMS says.
    #[arg(long, value_name = "URL", requires = "kms_key")]
    pub(super) kms_endpoint: Option<String>,
}

impl KeyArgs {
    /// What they name, if anything.
    ///
    /// # Errors
    /// `Key` when the key file cannot be used, `Usage` when it is no name of a KMS key.
    pub(super) fn read(&self) -> Result<Option<Keys>> {
        match (&self.key_file, &self.kms_key) {
            (Some(path), _) => Keyring::read(path).map(|ring| Some(Keys::Keyring(ring))),
            (None, Some(key)) => Kms::new(key, self.kms_endpoint.as_deref()).map(|kms| Some(Keys::Kms(kms))),
            (None, None) => Ok(None),
        }
    }

    /// Whether the configuration names the same key.
    pub(super) fn are(&self, encryption: &Encryption) -> bool {
        match (encryption, &self.key_file, &self.kms_key) {
            (Encryption::KeyFile(path), Some(named), _) => {
                matches!((path.canonicalize(), named.canonicalize()), (Ok(a), Ok(b)) if a == b)
            }
            (Encryption::Kms { key, .. }, None, Some(named)) => key == named,
            _ => false,
        }
    }
}

impl fmt::Display for KeyArgs {
    /// The path of the key file, or the name of the KMS key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key_file, &self.kms_key) {
            (Some(path), _) => path.display().fmt(f),
            (None, key) => f.write_str(key.as_deref().unwrap_or("no key")),
        }
    }
}

/// The master key of a destination, or the next one.
#[derive(Debug, Clone, Default, Args)]
pub struct ToKeyArgs {
    /// The key file of the destination [default: that of the configuration, else the one of the source].
    #[arg(long, value_name = "FILE")]
    to_key_file: Option<PathBuf>,
    /// Instead of a key file: the key of AWS KMS of the destination.
    #[arg(long, value_name = "ARN", conflicts_with = "to_key_file")]
    to_kms_key: Option<String>,
    /// Where the KMS of the destination is.
    #[arg(long, value_name = "URL", requires = "to_kms_key")]
    to_kms_endpoint: Option<String>,
}

impl From<ToKeyArgs> for KeyArgs {
    fn from(to: ToKeyArgs) -> Self {
        Self { key_file: to.to_key_file, kms_key: to.to_kms_key, kms_endpoint: to.to_kms_endpoint }
    }
}
