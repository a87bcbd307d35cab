//! Copies a snapshot into another repository: another bucket, region, provider, or a folder.
//!
//! Objects go as they are, so the id of the snapshot stays: it is bound into each of them. The order of writes:
//!
//! 1. a lease on the source, so that nobody removes it meanwhile;
//! 2. the claim on the name at the destination, and a lease on its place there;
//! 3. the shards' objects, by the server itself where one server has both sides, through here otherwise;
//! 4. the wrap of the data key for the destination's master key, and the fact where the copy came from;
//! 5. the manifest, which differs in name, claim, source and key ids only;
//! 6. the fact at the source that there is a copy.
//!
//! A process that dies before step 5 leaves objects that no manifest names; the same command again looks at each, byte by byte, and
//! goes on with those that are missing.

mod carry;
mod objects;

use std::sync::Arc;

use policies::copying::{Seal, Sealing, sealing};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::create::renew;
use crate::crypt::master::Master;
use crate::crypt::wrap;
use crate::error::{Class, Error, Result};
use crate::manifest::{Encryption, Manifest};
use crate::progress::Progress;
use crate::repository::claim::Held;
use crate::repository::fact::{Fact, Kind};
use crate::repository::{Keys, Opened, Place, Repository};
use crate::store::Store;
pub use objects::{Moved, Transfer};

/// What is copied, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name of the snapshot.
    pub name: String,
    /// Its name at the destination.
    pub new_name: String,
    /// What opens it.
    pub keys: Keys,
    /// What the destination's snapshots are opened with.
    pub to_keys: Keys,
    /// `manual`, `automated` or `final`: what the copy is to its own retention.
    pub source_kind: String,
    /// Who moves the bytes.
    pub transfer: Transfer,
    /// The largest object that one request copies within a provider, bytes; larger ones go in parts.
    pub single_bytes_max: u64,
}

/// What was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The manifest at the destination.
    pub manifest: Manifest,
    /// The URL of the source's repository.
    pub from: String,
    /// The URL of the destination.
    pub to: String,
    /// How many bytes went which way.
    pub moved: Moved,
}

/// Copies a snapshot; the destination becomes a repository when it is none.
///
/// # Errors
/// `NotFound`, `Key`, `Verification` for the source; `Refused` when the name is taken, the snapshot is there already, or the
/// destination wants it sealed otherwise; `Busy` while it is removed on either side; what the stores say. What has arrived stays for
/// the next attempt.
pub async fn copy(
    source: &Repository,
    target: Arc<dyn Store>,
    options: Options,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Copied> {
    let usage = |error: policies::names::NameError| Error::new(Class::Usage, error.to_string());
    policies::names::check("snapshot", &options.new_name).map_err(usage)?;
    progress.phase("opening the snapshot");
    let opened = source.open_snapshot(&options.name, &options.keys).await?;
    // what cannot be is refused before anything is written
    let to_keys = options.to_keys.of(&opened.place.cluster).clone();
    check_sealing(&opened, &to_keys)?;
    let target = Repository::open_or_create(target).await?;
    if target.id() == source.id() {
        let what = format!("{} is the repository that holds the snapshot", target.store().url());
        return Err(Error::new(Class::Refused, what).hint("a copy goes into another repository: give another prefix"));
    }
    let wrap = wrapped(&target, &opened, &to_keys).await?;
    let lease = source.lease(&opened.place, "copy").await?;
    let job = Job { source, target, opened, wrap, options, progress, cancel };
    let done = job.run().await;
    lease.release().await;
    let copied = done?;
    job.note_at_source(&copied).await;
    Ok(copied)
}

fn check_sealing(opened: &Opened, to_keys: &Keys) -> Result<Sealing> {
    let seal = match to_keys {
        Keys::Unsaid => Seal::Unsaid,
        Keys::NoEncryption => Seal::Clear,
        Keys::Keyring(_) | Keys::Kms(_) | Keys::PerCluster { .. } => Seal::Key,
    };
    sealing(opened.data_key.is_some(), seal).map_err(|refusal| {
        Error::new(Class::Refused, refusal.to_string()).hint(match seal {
            Seal::Unsaid | Seal::Clear => "a copy is never encrypted or decrypted anew: give --to-key-file FILE",
            Seal::Key => "a copy is never encrypted or decrypted anew: --to-no-encryption copies it as it is",
        })
    })
}

/// The data key, wrapped for the destination's master key: a key that cannot be used is found before anything is moved.
async fn wrapped(target: &Repository, opened: &Opened, to_keys: &Keys) -> Result<Option<(Master, Vec<u8>)>> {
    let Some(data_key) = &opened.data_key else { return Ok(None) };
    let Some(master) = to_keys.active().await? else { return Ok(None) };
    let file = wrap::seal(target.binding(&opened.place), data_key, &master).await?;
    Ok(Some((master, file)))
}

struct Job<'a> {
    source: &'a Repository,
    target: Repository,
    opened: Opened,
    /// The destination's master key, and the wrap for it.
    wrap: Option<(Master, Vec<u8>)>,
    options: Options,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Job<'_> {
    async fn run(&self) -> Result<Copied> {
        if let Some(manifest) = self.already().await? {
            return Ok(self.copied(manifest, Moved::default()));
        }
        let place = &self.opened.place;
        let held = self.target.claim(&self.options.new_name, &place.cluster, &place.snapshot_id).await?;
        let renewing = renew(self.target.clone(), held.clone());
        let done = self.under_claim(&held).await;
        renewing.abort();
        if done.is_err()
            && let Err(error) = self.target.release(&held).await
        {
            tracing::warn!(error = %error, "the name stays claimed at the destination until its claim runs out");
        }
        done.map_err(|error| match error.advice() {
            Some(_) => error,
            None => error.hint("what has arrived stays for the next attempt; gc removes it when there is none"),
        })
    }

    async fn under_claim(&self, held: &Held) -> Result<Copied> {
        let lease = self.target.lease_for_writing(&held.place, "copy").await?;
        let done = self.transfer(held).await;
        lease.release().await;
        done
    }

    async fn transfer(&self, held: &Held) -> Result<Copied> {
        self.progress.phase("copying");
        let mut moved = Moved::default();
        for shard in &self.opened.manifest.shards {
            moved += self.shard(shard).await?;
        }
        self.progress.phase("publishing");
        let manifest = self.publish(held).await?;
        Ok(self.copied(manifest, moved))
    }

    fn copied(&self, manifest: Manifest, moved: Moved) -> Copied {
        Copied { manifest, from: self.source.store().url(), to: self.target.store().url(), moved }
    }

    /// What an earlier attempt published; it only remains to be noted at the source.
    async fn already(&self) -> Result<Option<Manifest>> {
        let place = &self.opened.place;
        let there = match self.target.manifest(place).await {
            Ok(unproven) => unproven,
            Err(error) if error.class() == Class::NotFound => return Ok(None),
            Err(error) => return Err(error.at(self.target.store().url())),
        };
        let name = &there.claimed().name;
        let noted = self.copies().await?.iter().any(|fact| {
            fact.says.get("repository_id").and_then(Value::as_str) == Some(self.target.id())
                && fact.says.get("name").and_then(Value::as_str) == Some(name.as_str())
        });
        if *name == self.options.new_name && !noted {
            return there.prove(self.opened.data_key.as_ref()).map(Some);
        }
        let what = format!("snapshot {} is in {} already, as {name}", self.options.name, self.target.store().url());
        Err(Error::new(Class::Refused, what).hint("a repository holds a snapshot once"))
    }

    /// The facts at the source that there are copies.
    async fn copies(&self) -> Result<Vec<Fact>> {
        self.source.facts_of(Kind::Copied, &self.opened.place, self.opened.data_key.as_ref()).await
    }

    async fn publish(&self, held: &Held) -> Result<Manifest> {
        let (place, data_key) = (&held.place, self.opened.data_key.as_ref());
        let manifest = self.manifest(held);
        if let (Some((master, file)), Some(data_key)) = (&self.wrap, data_key) {
            self.target.ensure_wrap(place, data_key, master, file.clone()).await?;
        }
        self.note_at_target(place).await?;
        self.target.check_no_removal(place).await?;
        self.target.clear_tombstones(place).await?;
        if self.cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted before the copy was published"));
        }
        self.target.check_held(held).await?;
        self.target.create_document(&place.manifest_key(), manifest.seal(data_key)?).await?;
        // the destination's own key must open it
        let there = self.target.open_snapshot(&manifest.name, &self.options.to_keys).await?;
        Ok(there.manifest)
    }

    fn manifest(&self, held: &Held) -> Manifest {
        let manifest = self.opened.manifest.clone();
        let key_ids = self.wrap.iter().map(|(master, _)| master.id().to_owned()).collect();
        Manifest {
            name: self.options.new_name.clone(),
            claim: held.claim.number,
            source: self.options.source_kind.clone(),
            encryption: Encryption { key_ids, ..manifest.encryption },
            ..manifest
        }
    }

    /// Says at the destination where the copy came from, once.
    async fn note_at_target(&self, place: &Place) -> Result<()> {
        let key = self.opened.data_key.as_ref();
        if !self.target.facts_of(Kind::Copied, place, key).await?.is_empty() {
            return Ok(());
        }
        let says = says("from", self.source, &self.options.name);
        self.target.note(place, Kind::Copied, says, key).await.map(drop)
    }

    /// Says at the source that there is a copy. With credentials that only read nothing is said, with a warning.
    async fn note_at_source(&self, copied: &Copied) {
        let says = says("to", &self.target, &copied.manifest.name);
        let noted = self.source.note(&self.opened.place, Kind::Copied, says, self.opened.data_key.as_ref());
        if let Err(error) = noted.await {
            tracing::warn!(error = %error, "the copy is there, and the source could not be told of it");
        }
    }
}

/// What a fact of a copy says of the other side.
fn says(direction: &str, other: &Repository, name: &str) -> Map<String, Value> {
    let members =
        [(direction, other.store().url()), ("repository_id", other.id().to_owned()), ("name", name.to_owned())];
    members.into_iter().map(|(member, value)| (member.to_owned(), value.into())).collect()
}
