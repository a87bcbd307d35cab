//! Makes a snapshot: claim, capture all shards at the same time, check, publish.
//!
//! The order of writes is the design:
//!
//! 1. the claim on the name, so that two jobs never make one name;
//! 2. the shards' objects;
//! 3. the wrap of the data key: from here on the data can be read by whoever holds the master key;
//! 4. the manifest, by a conditional write: from here on the snapshot exists.
//!
//! A process that dies before step 4 leaves objects that no manifest names, and a claim that the next
//! job sees to be dead. Nothing of it is ever shown as a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use policies::replica::{Choice, PrimaryUse, choose};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::capture;
use crate::bkd::{Cipher, Compression, Header};
use crate::canonical::damaged;
use crate::clock;
use crate::crypt::{DataKey, wrap};
use crate::error::{Class, Error, Result};
use crate::manifest::{self, Manifest};
use crate::pipeline::Meter;
use crate::pipeline::write::{Target, Written};
use crate::progress::Progress;
use crate::redis::{self, Mode, Node, Replication, SourceOptions, Started, Topology};
use crate::repository::claim::{Held, RENEWED_EVERY};
use crate::repository::{Keys, Repository, new_snapshot_id};
use crate::store::Store;
use crate::task_failed;

/// What snapshot to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// The name of the cluster it is of.
    pub cluster: String,
    /// `manual`, `automated` or `final`.
    pub source_kind: String,
    /// How to reach the cluster.
    pub source: SourceOptions,
    /// The node to use, if the operator named one.
    pub node: Option<String>,
    /// When a primary may serve.
    pub primary_use: PrimaryUse,
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
    let sealing = Sealing::new(&options.keys)?;
    progress.phase("looking at the source");
    let topology = redis::discover(&options.source).await?;
    let chosen = choose_nodes(&topology, &options)?;
    let repository = Repository::open_or_create(store).await?;
    let begun_at = clock::now();
    let held = repository.claim(&options.name, &options.cluster, &new_snapshot_id(begun_at)?).await?;
    let renewing = renew(repository.clone(), held.clone());
    let job =
        Job { repository: repository.clone(), options, topology, chosen, held, sealing, begun_at, progress, cancel };
    let outcome = job.run().await;
    renewing.abort();
    if outcome.is_err() {
        job.clean_up().await;
    }
    outcome
}

/// How the snapshot is sealed: a fresh data key and who may open it.
struct Sealing {
    data_key: Option<DataKey>,
    keys: Keys,
}

impl Sealing {
    fn new(keys: &Keys) -> Result<Self> {
        let data_key = match keys {
            Keys::Unsaid => {
                return Err(Error::new(
                    Class::Key,
                    "no key was given, and a snapshot without encryption must be asked for",
                )
                .hint("`backupd key generate FILE` and then --key-file FILE, or --no-encryption"));
            }
            Keys::NoEncryption => None,
            Keys::Keyring(_) => Some(DataKey::random()?),
        };
        Ok(Self { data_key, keys: keys.clone() })
    }

    fn describe(&self) -> Result<manifest::Encryption> {
        Ok(match &self.keys {
            Keys::Keyring(ring) => {
                manifest::Encryption { cipher: "aes-256-gcm".to_owned(), key_ids: vec![ring.active()?.id.clone()] }
            }
            Keys::Unsaid | Keys::NoEncryption => {
                manifest::Encryption { cipher: "none".to_owned(), key_ids: Vec::new() }
            }
        })
    }
}

/// The node that serves one shard, and why.
struct Chosen {
    node: Node,
    lag_bytes: u64,
    choice: Choice,
}

fn choose_nodes(topology: &Topology, options: &Options) -> Result<Vec<Chosen>> {
    if let Some(slots) = topology.migrating.first() {
        return Err(Error::new(Class::Refused, format!("slots are being moved between shards ({slots})"))
            .hint("wait until the resharding is done, then try again"));
    }
    topology.shards.iter().enumerate().map(|(index, shard)| choose_node(index, shard, options)).collect()
}

fn choose_node(index: usize, shard: &redis::Shard, options: &Options) -> Result<Chosen> {
    let candidates = shard.candidates();
    // a node that is not of this shard does not forbid the others their own choice
    let named = options.node.as_deref().filter(|id| candidates.iter().any(|candidate| candidate.id == *id));
    let choice = choose(&candidates, options.primary_use, named);
    let found = choice.chosen.and_then(|chosen| Some((shard.nodes.get(chosen)?, candidates.get(chosen)?)));
    let Some((node, candidate)) = found else {
        let unreachable = candidates.iter().all(|candidate| candidate.unreachable.is_some());
        let class = if unreachable { Class::SourceUnavailable } else { Class::Refused };
        return Err(Error::new(class, format!("no node of shard {index} can serve a capture: {choice}"))
            .hint("mend a replica, or allow the primary with `--primary fallback`"));
    };
    Ok(Chosen { node: node.clone(), lag_bytes: candidate.lag_bytes, choice })
}

/// Keeps the claim alive until aborted.
fn renew(repository: Repository, held: Held) -> tokio::task::JoinHandle<()> {
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
    topology: Topology,
    chosen: Vec<Chosen>,
    held: Held,
    sealing: Sealing,
    begun_at: DateTime<Utc>,
    progress: Arc<Progress>,
    cancel: CancellationToken,
}

/// A captured shard: its position and what was stored.
struct Captured {
    index: usize,
    replid: String,
    offset: u64,
    taken_at: DateTime<Utc>,
    stored_at: DateTime<Utc>,
    written: Written,
}

/// The attempt at each shard. A shard is taken once; a failed one fails the snapshot.
const ATTEMPT: u32 = 1;

impl Job {
    async fn run(&self) -> Result<Manifest> {
        self.progress.phase("connecting to the chosen nodes");
        let prepared = self.prepare().await?;
        self.progress.phase("capturing");
        let captured = self.capture(prepared).await?;
        self.progress.phase("checking and publishing");
        for shard in &captured {
            self.check_shard(shard)?;
        }
        let epoch_end = self.check_topology().await?;
        self.publish(captured, epoch_end).await
    }

    /// Connects and greets all nodes before any is asked for its data, so that the moments lie close together.
    async fn prepare(&self) -> Result<Vec<Replication>> {
        let mut prepared = Vec::new();
        for chosen in &self.chosen {
            prepared.push(Replication::prepare(&chosen.node, &self.options.source).await?);
        }
        Ok(prepared)
    }

    async fn capture(&self, prepared: Vec<Replication>) -> Result<Vec<Captured>> {
        let mut tasks = JoinSet::new();
        for (index, (replication, chosen)) in prepared.into_iter().zip(&self.chosen).enumerate() {
            let place = format!("shard {index} from {}", chosen.node.address);
            let meter = self.progress.row(place.clone(), None);
            let target = self.target(index, chosen.node.used_memory)?;
            tasks.spawn(capture_one(index, place, replication, target, meter, self.cancel.child_token()));
        }
        let mut captured = Vec::new();
        let mut failure = None;
        while let Some(outcome) = tasks.join_next().await {
            match outcome.map_err(task_failed)? {
                Ok(shard) => captured.push(shard),
                Err(error) if failure.is_none() => {
                    // the others stop too, each removing what it uploaded
                    self.cancel.cancel();
                    failure = Some(error);
                }
                Err(error) => tracing::debug!(error = %error, "stopped after the first failure"),
            }
        }
        captured.sort_by_key(|shard| shard.index);
        failure.map_or(Ok(captured), Err)
    }

    fn target(&self, index: usize, used_memory: u64) -> Result<Target> {
        let shard =
            u32::try_from(index).map_err(|_| Error::new(Class::Unforeseen, "more shards than can be counted"))?;
        let cipher = if self.sealing.data_key.is_some() { Cipher::Aes256Gcm } else { Cipher::None };
        let file = format!("shard-{shard:04}-{ATTEMPT}.bkd");
        Ok(Target {
            store: Arc::clone(self.repository.store()),
            key: self.held.place.key(&file),
            file,
            header: Header::new(cipher, Compression::Zstd, &self.held.place.snapshot_id, shard, ATTEMPT)?,
            data_key: self.sealing.data_key.clone(),
            level: self.options.level,
            size_hint_bytes: used_memory,
        })
    }

    /// The RDB's own position must be the one that the server announced, and its keys must be the shard's.
    fn check_shard(&self, shard: &Captured) -> Result<()> {
        let place = format!("shard {}", shard.index);
        let aux = &shard.written.report.aux;
        let (id, offset) = (aux.get("repl-id"), aux.get("repl-offset").and_then(|text| text.parse::<u64>().ok()));
        if id.is_some_and(|id| *id != shard.replid) || offset.is_some_and(|offset| offset != shard.offset) {
            return Err(Error::new(
                Class::Verification,
                format!(
                    "{place}: the RDB's position {id:?} {offset:?} is not the announced {} {}",
                    shard.replid, shard.offset
                ),
            )
            .retryable(true));
        }
        let slots = self.topology.shards.get(shard.index).and_then(|shard| shard.slots.as_ref());
        if let Some(slots) = slots
            && let Some(foreign) = shard.written.slots.iter().find(|entry| !slots.contains(entry.slot))
        {
            return Err(Error::new(
                Class::Verification,
                format!("{place}: it holds {} keys of slot {}, which is not its own", foreign.keys, foreign.slot),
            )
            .hint("a resharding was under way or failed half-way: `redis-cli --cluster check` tells")
            .retryable(true));
        }
        Ok(())
    }

    /// The slots must have had the same owners during the whole capture.
    async fn check_topology(&self) -> Result<u64> {
        if self.topology.mode == Mode::Standalone {
            return Ok(self.topology.epoch);
        }
        let after = redis::discover(&self.options.source).await?;
        match after.changed_since(&self.topology) {
            None => Ok(after.epoch),
            Some(what) => {
                let message = format!("the cluster changed while it was captured: {what}");
                Err(Error::new(Class::SourceUnavailable, message)
                    .hint("a slot could be missing or double; try again when the resharding is done"))
            }
        }
    }

    async fn publish(&self, captured: Vec<Captured>, epoch_end: u64) -> Result<Manifest> {
        let place = &self.held.place;
        let manifest = self.manifest(captured, epoch_end)?;
        if let (Keys::Keyring(ring), Some(data_key)) = (&self.sealing.keys, &self.sealing.data_key) {
            let master = ring.active()?;
            let file = wrap::seal(&place.snapshot_id, data_key, master)?;
            self.repository.create_document(&place.wrap_key(&master.id), file).await?;
        }
        if self.cancel.is_cancelled() {
            return Err(Error::new(Class::Unforeseen, "interrupted before the snapshot was published"));
        }
        self.repository.check_held(&self.held).await?;
        let file = manifest.seal(self.sealing.data_key.as_ref())?;
        self.repository.create_document(&place.manifest_key(), file).await?;
        Ok(manifest)
    }

    fn manifest(&self, captured: Vec<Captured>, epoch_end: u64) -> Result<Manifest> {
        let times = || captured.iter().map(|shard| shard.taken_at);
        let skew = times().max().zip(times().min()).map_or(0, |(last, first)| (last - first).num_milliseconds());
        let shards = captured.into_iter().map(|shard| self.shard(shard)).collect::<Result<Vec<_>>>()?;
        Ok(Manifest {
            format: manifest::FORMAT,
            snapshot_id: self.held.place.snapshot_id.clone(),
            name: self.options.name.clone(),
            claim: self.held.claim.number,
            cluster: self.options.cluster.clone(),
            source: self.options.source_kind.clone(),
            mode: if self.topology.mode == Mode::Cluster { "cluster" } else { "standalone" }.to_owned(),
            engine: self.topology.engine.clone(),
            engine_version: self.topology.version.clone(),
            method: "stream".to_owned(),
            begun_at: clock::text(self.begun_at),
            ended_at: clock::text(clock::now()),
            skew_ms: u64::try_from(skew).unwrap_or(0),
            epoch_begin: self.topology.epoch,
            epoch_end,
            encryption: self.sealing.describe()?,
            compression: manifest::Compression { algorithm: "zstd".to_owned(), level: self.options.level },
            shards,
            tags: self.options.tags.clone(),
            tool: concat!("backupd ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    fn shard(&self, captured: Captured) -> Result<manifest::Shard> {
        let lost = || damaged("the snapshot", "a shard has no node");
        let chosen = self.chosen.get(captured.index).ok_or_else(lost)?;
        let slots = self.topology.shards.get(captured.index).ok_or_else(lost)?.slots.clone();
        Ok(manifest::Shard {
            index: u32::try_from(captured.index).map_err(|_| lost())?,
            slots,
            node: manifest::Node {
                id: chosen.node.id.clone(),
                address: chosen.node.address.to_string(),
                role: chosen.node.role.as_str().to_owned(),
                run_id: chosen.node.run_id.clone(),
                lag_bytes: chosen.lag_bytes,
            },
            choice: chosen.choice.verdicts.clone(),
            attempt: ATTEMPT,
            replid: captured.replid,
            offset: captured.offset,
            taken_at: clock::text(captured.taken_at),
            stored_at: clock::text(captured.stored_at),
            object: captured.written.object,
            rdb: captured.written.report,
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

async fn capture_one(
    index: usize,
    place: String,
    replication: Replication,
    target: Target,
    meter: Arc<Meter>,
    cancel: CancellationToken,
) -> Result<Captured> {
    let outcome = async {
        let Started { replid, offset, payload, .. } = replication.start().await?;
        let taken_at = clock::now();
        let written = capture::shard(payload, target, meter, &cancel).await?;
        Ok(Captured { index, replid, offset, taken_at, stored_at: clock::now(), written })
    };
    outcome.await.map_err(|error: Error| error.at(place))
}
