//! What repositories say of snapshots and keys, where the catalog does not know it.

use super::Services;
use super::snapshots::Found;
use crate::error::Result;
use crate::jobs::reach;
use crate::repository::Keys;

impl Services {
    /// Whether a snapshot is kept, so that it cannot be deleted.
    ///
    /// # Errors
    /// What its repository says.
    pub async fn is_kept(&self, found: &Found) -> Result<bool> {
        let (repository, keys) = reach::repository(&self.config(), &found.repository).await?;
        let (place, _) = repository.place_of(&found.snapshot.name, &keys).await?;
        repository.is_kept(&place, false).await
    }

    /// The id of the master key that new snapshots of a repository are wrapped for; none where they are not encrypted.
    ///
    /// # Errors
    /// `NotFound`, `Key`.
    pub fn active_key(&self, repository: &str) -> Result<Option<String>> {
        let config = self.config();
        match reach::keys(&config, config.repository(repository)?)?.of("") {
            Keys::Keyring(ring) => ring.active().map(|key| Some(key.id.clone())),
            Keys::Kms(kms) => Ok(Some(kms.name().to_owned())),
            _ => Ok(None),
        }
    }
}
