//! How the snapshots of a repository, or of one cluster in it, are encrypted.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::file::Text;
use crate::crypt::kms::Kms;
use crate::error::{Error, Result};

/// How snapshots are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With the master key in this file.
    KeyFile(PathBuf),
    /// With a master key of KMS.
    Kms {
        /// Its name: an ARN, an alias or an id.
        key: String,
        /// Where KMS is, when not where the environment says.
        endpoint: Option<String>,
    },
    /// Not at all, which was asked for by name.
    None,
}

/// The keys of a section that say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealing<'a> {
    pub(super) key_file: Option<&'a PathBuf>,
    pub(super) kms_key: Option<&'a Spanned<String>>,
    pub(super) kms_endpoint: Option<&'a Spanned<String>>,
    pub(super) no_encryption: bool,
}

impl Sealing<'_> {
    /// What they say; nothing when none of them is there. `section` is `[repositories.main]`, and begins at `offset`.
    pub(super) fn read(
        self,
        text: Text<'_>,
        folder: &Path,
        section: &str,
        offset: usize,
    ) -> Result<Option<Encryption>> {
        let wrong = |reason: &str| Err(text.error(offset, &format!("{section} {reason}")));
        if let (None, Some(endpoint)) = (self.kms_key, self.kms_endpoint) {
            return Err(text.error(endpoint.span().start, &format!("{section} has kms_endpoint without kms_key")));
        }
        match (self.key_file, self.kms_key, self.no_encryption) {
            (None, None, false) => Ok(None),
            (Some(path), None, false) => Ok(Some(Encryption::KeyFile(folder.join(path)))),
            (None, Some(key), false) => {
                let endpoint = self.kms_endpoint.map(|endpoint| endpoint.get_ref().as_str());
                let at = |e: Error| text.error(key.span().start, e.message()).hint(e.advice().unwrap_or_default());
                Kms::new(key.get_ref(), endpoint).map_err(at)?;
                Ok(Some(Encryption::Kms { key: key.get_ref().clone(), endpoint: endpoint.map(str::to_owned) }))
            }
            (None, None, true) => Ok(Some(Encryption::None)),
            (Some(_), _, true) => wrong("has both key_file and no_encryption"),
            (None, Some(_), true) => wrong("has both kms_key and no_encryption"),
            (Some(_), Some(_), false) => wrong("has both key_file and kms_key"),
        }
    }
}
