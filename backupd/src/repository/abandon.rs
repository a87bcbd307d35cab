//! What an attempt left that died before it published: found, and put out of action by the attempt that follows it.

use policies::job::Remains;

use super::{Place, Repository};
use crate::error::Result;

impl Repository {
    /// What is there of an attempt to make the snapshot `name` at `place`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn remains(&self, name: &str, place: &Place) -> Result<Remains> {
        if self.store.size(&place.manifest_key()).await?.is_some() {
            return Ok(Remains::Published);
        }
        let is_claimed = self.highest_claim(name).await?.is_some_and(|claim| claim.snapshot_id == place.snapshot_id);
        let page = self.store.list(&place.key(""), false, None).await?;
        Ok(if is_claimed || !page.objects.is_empty() { Remains::Unfinished } else { Remains::Nothing })
    }

    /// Makes sure that the attempt at `place` never publishes: its claim is voided, so that the name is free and a process that
    /// stood still is refused. Its objects go at once when its process is known to be gone; else `gc` takes them when
    /// they are old enough, since that process may just be writing the manifest.
    ///
    /// # Errors
    /// What the store says.
    pub async fn abandon(&self, name: &str, place: &Place) -> Result<Remains> {
        let claim = self.highest_claim(name).await?.filter(|claim| claim.snapshot_id == place.snapshot_id);
        let is_gone = claim.as_ref().is_some_and(|claim| claim.process.is_gone());
        if let Some(claim) = &claim {
            self.void(name, claim.number).await?;
        }
        let remains = self.remains(name, place).await?;
        if is_gone && remains == Remains::Unfinished {
            self.remove_rest(place).await?;
        }
        Ok(remains)
    }
}
