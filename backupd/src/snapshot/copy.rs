//! Copies a snapshot into another repository: another bucket, region, provider, or a folder.
//!
//! Objects go as they are, so the id of the snapshot stays: it is bound into each of them. The order of writes:
//!
//! 1. a lease on the source, so that nobody removes it meanwhile;
//! 2. the claim on the name at the destination, and a lease on its place there;
//! 3. the shards' objects, by the server itself where one server has both sides, through here otherwise;
//! 4. meanwhile the wrap of the data key for the destination's master key, and the fact where the copy came from;
//! 5. the manifest, which differs in name, claim, source and key ids only;
//! 6. the fact at the source that there is a copy.
//!
//! What need not wait for another request does not: a copy of little is as slow as its requests. So the first bytes are read while the
//! leases and the claim are written, which they wait for before any of them goes on.
//!
//! A process that dies before step 5 leaves objects that no manifest names; the same command again looks at each, byte by byte, and
//! goes on with those that are missing.

mod carry;
mod objects;

use std::sync::Arc;

use policies::claim::Claim as Named;
use policies::copying::{Seal, Sealing, sealing};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::create::renew;
use crate::crypt::master::Master;
use crate::crypt::{DataKey, wrap};
use crate::error::{Class, Error, Result};
use crate::manifest::{Encryption, Manifest, Unproven};
use crate::pipeline::ahead::Ahead;
use crate::progress::Progress;
use crate::repository::claim::Held;
use crate::repository::fact::{Fact, Kind};
use crate::repository::lease::Lease;
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
    let opening = source.open_snapshot(&options.name, &options.keys);
    let (opened, there) = tokio::join!(opening, Repository::open(Arc::clone(&target)));
    let opened = opened?;
    // what cannot be is refused before anything is written
    if there.as_ref().is_ok_and(|there| there.id() == source.id()) {
        let what = format!("{} is the repository that holds the snapshot", target.url());
        return Err(Error::new(Class::Refused, what).hint("a copy goes into another repository: give another prefix"));
    }
    let to_keys = options.to_keys.of(&opened.place.cluster).clone();
    check_sealing(&opened, &to_keys)?;
    let begun = objects::begun(source, &target, &opened, options.transfer);
    let leasing = source.lease(&opened.place, "copy");
    let (lease, made) = tokio::join!(leasing, destination(target, there, &opened, &to_keys));
    let (lease, (target, wrap)) = match (lease, made) {
        (Ok(lease), Ok(made)) => (lease, made),
        (Err(error), _) => return Err(error),
        (Ok(lease), Err(error)) => {
            lease.release().await;
            return Err(error);
        }
    };
    Job { source, target, opened, wrap, options, progress, cancel }.run(lease, begun).await
}

/// The destination, which becomes a repository when it is none, and the wrap of the data key for its master key.
async fn destination(
    store: Arc<dyn Store>,
    there: Result<Repository>,
    opened: &Opened,
    to_keys: &Keys,
) -> Result<(Repository, Option<(Master, Vec<u8>)>)> {
    let target = match there {
        Err(error) if error.class() == Class::NotFound => Repository::create(store).await?,
        other => other?,
    };
    let wrap = wrapped(&target, opened, to_keys).await?;
    Ok((target, wrap))
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
    /// `lease` is that on the source, `begun` the object of the first shard where its reading was begun.
    async fn run(&self, lease: Lease, begun: Option<Ahead>) -> Result<Copied> {
        let done = self.arrive(begun).await;
        let noting = async {
            if let Ok(copied) = &done {
                self.note_at_source(copied).await;
            }
        };
        tokio::join!(noting, lease.release());
        done
    }

    /// Everything at the destination.
    async fn arrive(&self, begun: Option<Ahead>) -> Result<Copied> {
        let (name, folder) = (&self.options.new_name, self.opened.place.key(""));
        let (already, named, there) =
            tokio::join!(self.already(), self.target.state(name), self.target.keys_below(&folder));
        if let Some(manifest) = already? {
            return Ok(self.copied(manifest, Moved::default()));
        }
        let there = there?;
        let (held, lease) = self.held_place(named?.as_ref()).await?;
        let renewing = renew(self.target.clone(), held.clone());
        let done = self.transfer(&held, &there, begun).await;
        renewing.abort();
        lease.release().await;
        if done.is_err() {
            self.give_up(&held).await;
        }
        done.map_err(|error| match error.advice() {
            Some(_) => error,
            None => error.hint("what has arrived stays for the next attempt; gc removes it when there is none"),
        })
    }

    /// The claim on the name at the destination, and a lease on the place there: both, or neither.
    async fn held_place(&self, named: Option<&Named>) -> Result<(Held, Lease)> {
        let (place, name) = (&self.opened.place, &self.options.new_name);
        let claiming = self.target.claim_after(named, name, &place.cluster, &place.snapshot_id);
        match tokio::join!(claiming, self.target.lease_for_writing(place, "copy")) {
            (Ok(held), Ok(lease)) => Ok((held, lease)),
            (Ok(held), Err(error)) => {
                self.give_up(&held).await;
                Err(error)
            }
            (Err(error), Ok(lease)) => {
                lease.release().await;
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    async fn give_up(&self, held: &Held) {
        if let Err(error) = self.target.release(held).await {
            tracing::warn!(error = %error, "the name stays claimed at the destination until its claim runs out");
        }
    }

    /// `there`: the keys that were at the place before.
    async fn transfer(&self, held: &Held, there: &[String], begun: Option<Ahead>) -> Result<Copied> {
        self.progress.phase("copying");
        // neither waits for the other, and one that fails does not break off what the other has begun
        let (moved, prepared) = tokio::join!(self.shards(there, begun), self.prepare(&held.place, there));
        let (moved, data_key) = (moved?, prepared?);
        self.progress.phase("publishing");
        let manifest = self.publish(held, data_key).await?;
        Ok(self.copied(manifest, moved))
    }

    async fn shards(&self, there: &[String], mut begun: Option<Ahead>) -> Result<Moved> {
        let mut moved = Moved::default();
        for shard in &self.opened.manifest.shards {
            moved += self.shard(shard, there, begun.take()).await?;
        }
        Ok(moved)
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

    /// What lies beside the manifest and means nothing without it. Gives the data key as the destination's own key opens it there.
    async fn prepare(&self, place: &Place, there: &[String]) -> Result<Option<DataKey>> {
        let wrapping = async {
            let (Some((master, file)), Some(data_key)) = (&self.wrap, &self.opened.data_key) else { return Ok(None) };
            self.target.ensure_wrap(place, data_key, master, file.clone()).await?;
            self.target.unwrap(place, master).await.map(Some)
        };
        let (data_key, noted) = tokio::join!(wrapping, self.note_at_target(place, there));
        noted.and(data_key)
    }

    /// `data_key`: what the destination's own key opens, which must prove the manifest.
    async fn publish(&self, held: &Held, data_key: Option<DataKey>) -> Result<Manifest> {
        let (place, key) = (&held.place, held.place.manifest_key());
        let file = self.manifest(held).seal(self.opened.data_key.as_ref())?;
        let manifest = Unproven::parse(&key, &file)?.prove(data_key.as_ref())?;
        tokio::try_join!(self.target.clear_tombstones(place), self.target.check_held(held))?;
        if self.cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted before the copy was published"));
        }
        self.target.create_document(&key, file).await?;
        if self.target.store().proves_writes() {
            return Ok(manifest);
        }
        self.target.opened_with(place, self.wrap.as_ref().map(|(master, _)| master)).await
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
    async fn note_at_target(&self, place: &Place, there: &[String]) -> Result<()> {
        let (key, facts) = (self.opened.data_key.as_ref(), place.key("fact-"));
        if there.iter().any(|key| key.starts_with(&facts))
            && !self.target.facts_of(Kind::Copied, place, key).await?.is_empty()
        {
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
