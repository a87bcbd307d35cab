//! Which master keys the snapshots of a repository refer to, wrapping them for another, and letting one go.
//!
//! Data is never touched: a wrap is an object of its own. A new wrap is read again and opened before it counts, and an old one goes
//! only when another was proven to open its snapshot.

use std::collections::BTreeMap;

use serde::Serialize;

use super::listing::Status;
use super::{Keys, Place, Repository, SMALL_BYTES_MAX};
use crate::crypt::DataKey;
use crate::crypt::master::Master;
use crate::crypt::wrap::{self, Wrap};
use crate::error::{Class, Error, Result};
use crate::manifest::Manifest;

/// What was done to the wraps of a repository.
#[derive(Debug, Default, Serialize)]
pub struct Rewrapped {
    /// Where the repository is.
    pub url: String,
    /// Encrypted snapshots.
    pub snapshots: usize,
    /// The names of those that have a new wrap now.
    pub wrapped: Vec<String>,
    /// The names of those that could not be wrapped, and why.
    pub failed: Vec<(String, String)>,
    /// The names of those that are wrapped, and whose new wrap somebody cannot read who was granted them by ACLs, and why.
    pub not_given: Vec<(String, String)>,
}

impl Rewrapped {
    /// Gives the new wrap the ACLs of the snapshot's grants. It opens the snapshot whether they can be given or not.
    async fn give(&mut self, repository: &Repository, name: String, place: &Place, to: &Master) {
        if let Err(error) = repository.give_wrap(place, to.id()).await {
            self.not_given.push((name, error.message().to_owned()));
        }
    }
}

/// The snapshots that refer to each key, by key id, as names.
pub type References = BTreeMap<String, Vec<String>>;

/// An encrypted snapshot.
struct Sealed {
    name: String,
    place: Place,
}

impl Repository {
    /// Wraps every encrypted snapshot, or those of `cluster`, for `to`, as far as `keys` open it. One that cannot be opened is told, and the others are
    /// wrapped all the same. Whoever was granted one by ACLs may read the new wrap too; where that cannot be given it is told.
    ///
    /// # Errors
    /// What the store and KMS say. It can be run again, and goes on where it ended.
    pub async fn rewrap(&self, keys: &Keys, to: &Master, cluster: Option<&str>) -> Result<Rewrapped> {
        let mut done = Rewrapped { url: self.store.url(), ..Rewrapped::default() };
        for Sealed { name, place } in self.sealed(cluster, &mut done.failed).await? {
            done.snapshots += 1;
            if self.wraps(&place).await?.iter().any(|id| id == to.id())
                && self.opened_with(&place, Some(to)).await.is_ok()
            {
                // who ended the rotation before this one may have done so between the wrap and its ACL
                done.give(self, name, &place, to).await;
                continue;
            }
            match self.wrap_for(&place, keys, to).await {
                Ok(()) => {
                    done.wrapped.push(name.clone());
                    done.give(self, name, &place, to).await;
                }
                // `Busy`: a wrap is there that cannot be opened
                Err(error)
                    if matches!(error.class(), Class::Key | Class::Verification | Class::Version | Class::Busy) =>
                {
                    done.failed.push((name, error.message().to_owned()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    async fn wrap_for(&self, place: &Place, keys: &Keys, to: &Master) -> Result<()> {
        let unproven = self.manifest(place).await?;
        let Some(from) = self.opener(place, unproven.claimed(), keys).await? else { return Ok(()) };
        let (key, wrap) = self.wrap(place, &from).await?;
        let file = if let Some(file) = wrap::reseal(&key, &wrap, self.binding(place), &from, to).await? {
            let resealed = wrap::parse(&place.wrap_key(to.id()), &file, &place.snapshot_id, to.id())?;
            let data_key = wrap::open(&place.wrap_key(to.id()), &resealed, self.binding(place), to).await?;
            unproven.prove(Some(&data_key))?;
            file
        } else {
            let data_key = wrap::open(&key, &wrap, self.binding(place), &from).await?;
            // a data key that does not prove the manifest must not be given on
            unproven.prove(Some(&data_key))?;
            wrap::seal(self.binding(place), &data_key, to).await?
        };
        self.create_document(&place.wrap_key(to.id()), file).await?;
        self.opened_with(place, Some(to)).await.map(drop)
    }

    /// Makes sure that a place has a wrap of this data key for `master`, which is `file`: one that is there and holds another, or
    /// cannot be opened, gives way.
    ///
    /// # Errors
    /// What the store and KMS say.
    pub(crate) async fn ensure_wrap(
        &self,
        place: &Place,
        data_key: &DataKey,
        master: &Master,
        file: Vec<u8>,
    ) -> Result<()> {
        match self.create_document(&place.wrap_key(master.id()), file.clone()).await {
            Err(error) if error.class() == Class::Busy => {}
            other => return other,
        }
        match self.unwrap(place, master).await {
            Ok(found) if found.expose() == data_key.expose() => return Ok(()),
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) if !matches!(error.class(), Class::Key | Class::Verification) => return Err(error),
            Ok(_) | Err(_) => self.store.delete(&place.wrap_key(master.id())).await?,
        }
        self.create_document(&place.wrap_key(master.id()), file).await
    }

    /// Proves that a key opens a snapshot: its wrap, and with what is in it the manifest. Without a key the manifest is one of a snapshot
    /// that is not encrypted.
    ///
    /// # Errors
    /// `Key`, `Verification`, and what the store says.
    pub(crate) async fn opened_with(&self, place: &Place, master: Option<&Master>) -> Result<Manifest> {
        let data_key = async {
            match master {
                Some(master) => self.unwrap(place, master).await.map(Some),
                None => Ok(None),
            }
        };
        let (unproven, data_key) = tokio::try_join!(self.manifest(place), data_key)?;
        unproven.prove(data_key.as_ref())
    }

    /// The data key of a snapshot from its wrap for this key.
    ///
    /// # Errors
    /// `NotFound` when there is no such wrap, `Key`, `Verification`; what the store and KMS say.
    pub(crate) async fn unwrap(&self, place: &Place, master: &Master) -> Result<DataKey> {
        let (key, wrap) = self.wrap(place, master).await?;
        wrap::open(&key, &wrap, self.binding(place), master).await
    }

    /// The data key of a snapshot that may not be published yet, by whichever of `keys` it is wrapped for.
    ///
    /// # Errors
    /// `Key` when it is wrapped for none of them, `Verification` when the wrap is damaged, what the store says.
    pub async fn data_key_at(&self, place: &Place, keys: &Keys) -> Result<DataKey> {
        let keys = keys.of(&place.cluster);
        let master = self.opener_of(place, keys, "the data key", "give all daemons the same keys").await?;
        self.unwrap(place, &master).await
    }

    /// The wrap for a key, with the key of its object.
    async fn wrap(&self, place: &Place, master: &Master) -> Result<(String, Wrap)> {
        let key = place.wrap_key(master.id());
        let file = self.store.read(&key, SMALL_BYTES_MAX).await?;
        let wrap = wrap::parse(&key, &file, &place.snapshot_id, master.id())?;
        Ok((key, wrap))
    }

    /// Which snapshots have a wrap for which key. Broken ones count: their wraps may be needed when they are mended.
    ///
    /// # Errors
    /// What the store says.
    pub async fn key_references(&self) -> Result<References> {
        let mut references = References::new();
        for entry in self.snapshots(None).await? {
            if matches!(entry.status, Status::Available | Status::Broken) && entry.place.snapshot_id != "?" {
                for key_id in self.wraps(&entry.place).await? {
                    references.entry(key_id).or_default().push(entry.name.clone());
                }
            }
        }
        Ok(references)
    }

    /// Whether no snapshot needs a key: each that has a wrap for it has another one that one of `keys` opens.
    ///
    /// # Errors
    /// `Refused` when one needs it, naming it; `Busy` while a snapshot is being made, which may be wrapped for this key.
    pub async fn check_unneeded(&self, keys: &Keys, id: &str) -> Result<()> {
        let others: Vec<Master> = keys.all().await?.into_iter().filter(|key| key.id() != id).collect();
        for entry in self.snapshots(None).await? {
            if entry.status == Status::Creating {
                let what = format!("snapshot {} is being made in {}", entry.name, self.store.url());
                return Err(Error::new(Class::Busy, what).hint("it may be wrapped for this key: wait for its end"));
            }
            if !matches!(entry.status, Status::Available | Status::Broken) {
                continue;
            }
            let wraps = self.wraps(&entry.place).await?;
            if !wraps.iter().any(|wrap| wrap == id) {
                continue;
            }
            let mut proven = false;
            for master in others.iter().filter(|key| wraps.iter().any(|wrap| wrap == key.id())) {
                proven |= self.opened_with(&entry.place, Some(master)).await.is_ok();
            }
            if !proven {
                let what = format!("snapshot {} in {} needs the key {id}", entry.name, self.store.url());
                return Err(Error::new(Class::Refused, what).hint(
                    "`backupd key rotate --resume` wraps it for the active key, `--to-kms-key` for one of KMS; one that is broken can only be deleted",
                ));
            }
        }
        Ok(())
    }

    /// Removes the wraps for a key that no snapshot needs. Tells how many.
    ///
    /// # Errors
    /// As [`Repository::check_unneeded`], and what the store says. It can be run again.
    pub async fn remove_wraps(&self, keys: &Keys, id: &str) -> Result<usize> {
        self.check_unneeded(keys, id).await?;
        let mut removed = 0;
        for entry in self.snapshots(None).await? {
            if matches!(entry.status, Status::Available | Status::Broken)
                && self.wraps(&entry.place).await?.iter().any(|wrap| wrap == id)
            {
                self.store.delete(&entry.place.wrap_key(id)).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The encrypted snapshots; those whose manifest cannot be read go into `failed`.
    async fn sealed(&self, cluster: Option<&str>, failed: &mut Vec<(String, String)>) -> Result<Vec<Sealed>> {
        let mut sealed = Vec::new();
        for entry in self.snapshots(cluster).await? {
            match (entry.status, entry.manifest) {
                (Status::Available, Some(manifest)) if manifest.encryption.is_on() => {
                    sealed.push(Sealed { name: entry.name, place: entry.place });
                }
                (Status::Broken, _) => failed.push((entry.name, entry.problem.unwrap_or_default())),
                _ => {}
            }
        }
        Ok(sealed)
    }
}
