//! Makes a snapshot: claim, capture all shards at the same time, check, publish.
//!
//! `shards` takes them and retakes those that fail, `choice` finds their nodes, `settle` waits for a source in change.
//!
//! The order of writes is the design:
//!
//! 1. the claim on the name, so that two jobs never make one name;
//! 2. the shards' objects;
//! 3. the wrap of the data key: from here on the data can be read by whoever holds the master key; before the shards, when other
//!    workers read some of them, which need it;
//! 4. the manifest, by a conditional write: from here on the snapshot exists.
//!
//! A process that dies before step 4 leaves objects that no manifest names, and a claim that the next
//! job sees to be dead. Nothing of it is ever shown as a snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use policies::replica::Wishes;
use tokio_util::sync::CancellationToken;

use super::attempt::{Reader, Stored};
use super::care::Care;
use super::choice::{check_named, choose_node};
use super::lend::Lend;
use super::method::Method;
use super::settle::{self, patiently};
use super::shards::{Captured, Taker};
use super::turns::Turns;
use crate::canonical::damaged;
use crate::catalog::Catalog;
use crate::clock;
use crate::crypt::{DataKey, wrap};
use crate::error::{Class, Error, Result};
use crate::manifest::{self, Manifest};
use crate::progress::Progress;
use crate::redis::{self, Mode, SourceOptions, Topology};
use crate::repository::claim::{Held, RENEWED_EVERY};
use crate::repository::{Keys, Place, Repository, new_snapshot_id};
use crate::store::Store;

/// How long a source that is in a failover, a migration of slots, or without a node that can serve is waited for,
/// unless the options say otherwise.
pub const SETTLE_WAIT: Duration = Duration::from_secs(60);

/// How often the shape of the cluster may change while it is captured.
const CHANGES_MAX: usize = 3;

/// What snapshot to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// The name of the cluster it is of.
    pub cluster: String,
    /// The id that it gets, where the caller has written it down before; else a new one.
    pub snapshot_id: Option<String>,
    /// `manual`, `automated` or `final`.
    pub source_kind: String,
    /// How to reach the cluster.
    pub source: SourceOptions,
    /// Which nodes may serve.
    pub wishes: Wishes,
    /// How shards are read.
    pub method: Method,
    /// What its captures may cost the cluster.
    pub care: Care,
    /// The catalog in which jobs take turns, when there is one.
    pub turns: Option<Catalog>,
    /// Through which job other workers may be asked to read some of the shards.
    pub lend: Option<Lend>,
    /// How long to wait for a failover or a migration of slots to end, and for a node to retake a shard from.
    pub settle_wait: Duration,
    /// What seals it.
    pub keys: Keys,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// The user's tags.
    pub tags: BTreeMap<String, String>,
}

/// Makes a snapshot and returns its manifest. When it returns an error nothing was published.
///
/// # Errors
/// Every class but the restore's; see [`Class`].
pub async fn create(
    store: Arc<dyn Store>,
    options: Options,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<Manifest> {
    let usage = |error: policies::names::NameError| Error::new(Class::Usage, error.to_string());
    policies::names::check("snapshot", &options.name).map_err(usage)?;
    policies::names::check("cluster", &options.cluster).map_err(usage)?;
    let keys = options.keys.of(&options.cluster).clone();
    keys.check_said()?;
    progress.phase("looking at the source");
    let topology = settle::discover(&options.source, options.settle_wait, &cancel).await?;
    // what cannot be is refused before anything is written
    check_named(&topology, &options.wishes)?;
    for (index, shard) in topology.shards.iter().enumerate() {
        choose_node(index, shard, &options.wishes, &HashMap::new())?;
    }
    let repository = Repository::open_or_create(store).await?;
    let begun_at = clock::now();
    let snapshot_id = match &options.snapshot_id {
        Some(id) => id.clone(),
        None => new_snapshot_id(begun_at)?,
    };
    let place = Place { cluster: options.cluster.clone(), snapshot_id: snapshot_id.clone() };
    let sealing = Sealing::new(&keys, &repository, &place).await?;
    let held = repository.claim(&options.name, &options.cluster, &snapshot_id).await?;
    let renewing = renew(repository.clone(), held.clone());
    let taker = Arc::new(Taker {
        reader: Reader {
            repository: repository.clone(),
            place: held.place.clone(),
            data_key: sealing.data_key.clone(),
            level: options.level,
            source: options.source.knowing(&topology),
            primary_use: options.wishes.primary_use,
            method: options.method.clone(),
            care: options.care.clone(),
        },
        cluster: options.cluster.clone(),
        wishes: options.wishes.clone(),
        wrap: sealing.wrap.clone(),
        lend: options.lend.clone(),
        turns: options.turns.clone().map(|catalog| Turns {
            catalog,
            cluster: options.cluster.clone(),
            holder: format!("snapshot {} ({})", options.name, held.place.snapshot_id),
            limits: options.care.limits,
            wait: options.settle_wait,
        }),
        wait: options.settle_wait,
        progress: Arc::clone(&progress),
        cancel: cancel.clone(),
    });
    let job = Job { repository, options, held, sealing, begun_at, taker, progress, cancel };
    let outcome = job.run(topology).await;
    renewing.abort();
    if outcome.is_err() {
        job.clean_up().await;
    }
    outcome
}

/// How the snapshot is sealed: a fresh data key, and its wrap for the key that was active when it began.
struct Sealing {
    data_key: Option<DataKey>,
    /// The id of the master key, and the bytes of the wrap.
    wrap: Option<(String, Vec<u8>)>,
}

impl Sealing {
    async fn new(keys: &Keys, repository: &Repository, place: &Place) -> Result<Self> {
        let Some(master) = keys.active().await? else { return Ok(Self { data_key: None, wrap: None }) };
        let (data_key, file) = wrap::fresh(repository.binding(place), &master).await?;
        Ok(Self { data_key: Some(data_key), wrap: Some((master.id().to_owned(), file)) })
    }

    fn describe(&self) -> manifest::Encryption {
        let cipher = if self.wrap.is_some() { "aes-256-gcm" } else { "none" };
        let key_ids = self.wrap.iter().map(|(key_id, _)| key_id.clone()).collect();
        manifest::Encryption { cipher: cipher.to_owned(), key_ids }
    }
}

/// Keeps the claim alive until aborted.
pub(super) fn renew(repository: Repository, held: Held) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for renewal in 1.. {
            tokio::time::sleep(RENEWED_EVERY).await;
            if let Err(error) = repository.renew(&held, renewal).await {
                // the claim outlives several missed renewals, and publishing checks it
                tracing::warn!(name = held.claim.name, error = %error, "the claim could not be renewed");
            }
        }
    })
}

struct Job {
    repository: Repository,
    options: Options,
    held: Held,
    sealing: Sealing,
    begun_at: DateTime<Utc>,
    taker: Arc<Taker>,
    progress: Arc<Progress>,
    cancel: CancellationToken,
}

/// All shards of one shape of the cluster.
struct Whole {
    topology: Topology,
    shards: BTreeMap<usize, Captured>,
    epoch_end: u64,
}

impl Job {
    async fn run(&self, topology: Topology) -> Result<Manifest> {
        let whole = self.capture(topology).await?;
        self.progress.phase("checking and publishing");
        self.publish(whole).await
    }

    /// Captures until all shards belong to one shape of the cluster: the slots must have had the same owners during
    /// the whole capture, so shards that changed meanwhile are taken again.
    async fn capture(&self, mut topology: Topology) -> Result<Whole> {
        let mut shards: BTreeMap<usize, Captured> = BTreeMap::new();
        let mut attempts: HashMap<usize, u32> = HashMap::new();
        for _ in 0..CHANGES_MAX {
            self.progress.phase("capturing");
            let todo: Vec<usize> = (0..topology.shards.len()).filter(|index| !shards.contains_key(index)).collect();
            for captured in self.taker.take(&topology, &todo, &attempts).await? {
                attempts.insert(captured.index, captured.attempt);
                shards.insert(captured.index, captured);
            }
            let after = if topology.mode == Mode::Cluster { self.look_again().await? } else { topology.clone() };
            let changed = after.changed_since(&topology);
            let (kept, stale): (BTreeMap<_, _>, BTreeMap<_, _>) =
                shards.into_iter().partition(|(index, _)| *index < after.shards.len() && !changed.contains(index));
            for captured in stale.values() {
                self.taker.reader.discard(&captured.stored.written.object.file).await;
            }
            if kept.len() == after.shards.len() {
                return Ok(Whole { epoch_end: after.epoch, topology, shards: kept });
            }
            tracing::warn!(shards = ?changed, "the cluster changed while it was captured");
            (topology, shards) = (after, kept);
        }
        let message = format!("the cluster changed {CHANGES_MAX} times while it was captured");
        Err(Error::new(Class::SourceUnavailable, message)
            .hint("a slot could be missing or double; try again when the resharding is done"))
    }

    async fn look_again(&self) -> Result<Topology> {
        let look = || async { settle::settled(redis::discover(&self.taker.reader.source).await?) };
        patiently(self.options.settle_wait, &self.cancel, look).await
    }

    async fn publish(&self, whole: Whole) -> Result<Manifest> {
        let place = &self.held.place;
        let manifest = self.manifest(whole)?;
        if let Some((key_id, file)) = &self.sealing.wrap {
            self.repository.create_document(&place.wrap_key(key_id), file.clone()).await?;
        }
        if self.cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted before the snapshot was published"));
        }
        self.repository.check_held(&self.held).await?;
        let file = manifest.seal(self.sealing.data_key.as_ref())?;
        self.repository.create_document(&place.manifest_key(), file).await?;
        Ok(manifest)
    }

    fn manifest(&self, whole: Whole) -> Result<Manifest> {
        let Whole { topology, shards, epoch_end } = whole;
        let times = || shards.values().map(|shard| shard.stored.taken_at);
        let skew = times().max().zip(times().min()).map_or(0, |(last, first)| (last - first).num_milliseconds());
        let shards = shards.into_values().map(described).collect::<Result<Vec<_>>>()?;
        Ok(Manifest {
            format: manifest::FORMAT,
            snapshot_id: self.held.place.snapshot_id.clone(),
            name: self.options.name.clone(),
            claim: self.held.claim.number,
            cluster: self.options.cluster.clone(),
            source: self.options.source_kind.clone(),
            mode: topology.mode.as_str().to_owned(),
            engine: topology.engine,
            engine_version: topology.version,
            method: self.options.method.as_str().to_owned(),
            begun_at: clock::text(self.begun_at),
            ended_at: clock::text(clock::now()),
            skew_ms: u64::try_from(skew).unwrap_or(0),
            epoch_begin: topology.epoch,
            epoch_end,
            encryption: self.sealing.describe(),
            compression: manifest::Compression { algorithm: "zstd".to_owned(), level: self.options.level },
            shards,
            tags: self.options.tags.clone(),
            tool: concat!("backupd ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    /// After a failure: removes the objects that no manifest will name, and frees the name. Best effort, since
    /// what stays behind is garbage by construction.
    async fn clean_up(&self) {
        let store = self.repository.store();
        // a manifest whose write failed on the way back may be there: then nothing may be removed
        match store.size(&self.held.place.manifest_key()).await {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return,
        }
        let prefix = self.held.place.key("");
        let objects = store.list(&prefix, false, None).await.map(|page| page.objects).unwrap_or_default();
        for object in objects {
            if let Err(error) = store.delete(&object.key).await {
                tracing::warn!(key = object.key, error = %error, "an object of the failed snapshot is left behind");
            }
        }
        if let Err(error) = self.repository.release(&self.held).await {
            tracing::warn!(name = self.held.claim.name, error = %error, "the name stays claimed until its claim runs out");
        }
    }
}

fn described(captured: Captured) -> Result<manifest::Shard> {
    let Captured { index, slots, chosen, attempt, stored } = captured;
    let Stored { replid, offset, taken_at, stored_at, written } = stored;
    let node = manifest::Node {
        id: chosen.node.id,
        address: chosen.node.address.to_string(),
        role: chosen.node.role.as_str().to_owned(),
        run_id: chosen.node.run_id,
        lag_bytes: chosen.lag_bytes,
    };
    Ok(manifest::Shard {
        index: u32::try_from(index).map_err(|_| damaged("the snapshot", "it has more shards than can be counted"))?,
        slots,
        node,
        choice: chosen.choice.verdicts,
        attempt,
        replid,
        offset,
        taken_at: clock::text(taken_at),
        stored_at: clock::text(stored_at),
        object: written.object,
        rdb: written.report,
    })
}
