//! Reads a shard of a snapshot that another worker makes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Crew, reach};
use crate::catalog::{Catalog, OfferKey, OfferRow};
use crate::error::{Class, Error, Result};
use crate::pipeline::Meter;
use crate::progress::Progress;
use crate::redis::{self, Node};
use crate::repository::{Place, Repository};
use crate::snapshot::attempt::{Reader, Shard};
use crate::snapshot::lend::{Offer, Outcome, clock_ahead};
use crate::snapshot::method::Prepared;

/// How often the word is looked for once the node is connected.
const LOOK_SOON: Duration = Duration::from_millis(50);

/// The longest time between two heartbeats.
const BEAT_MAX: Duration = Duration::from_secs(1);

/// How often the outcome is tried to be written while the catalog is away.
const TOLD_MAX: u32 = 20;

/// Takes what others offer, as far as there are seats.
pub(super) async fn take(
    crew: &Crew,
    seats: &Arc<Semaphore>,
    jobs: &mut JoinSet<()>,
    hand_back: &CancellationToken,
) -> Result<()> {
    let mut offers = crew.catalog.shard_offers(&crew.name).await?;
    for place in 0..offers.len() {
        let Some(row) = offers.get(place).filter(|row| row.state == "offered").cloned() else { continue };
        let Ok(offer) = serde_json::from_str::<Offer>(&row.offer) else {
            tracing::debug!(job = row.job_id, "another version offers a shard");
            continue;
        };
        let is_mine = |other: &&OfferRow| other.job_id == row.job_id && other.worker == crew.name;
        if offers.iter().filter(is_mine).count() >= offer.each_max || !knows(crew, &row) {
            continue;
        }
        let Ok(seat) = Arc::clone(seats).try_acquire_owned() else { return Ok(()) };
        let (worker, now_ms) = (crew.worker(), crew.catalog.now_unix_ms().await?);
        if !crew.catalog.take_offer(&row.key(), &worker.name, worker.lease, now_ms).await? {
            continue;
        }
        if let Some(taken) = offers.get_mut(place) {
            taken.worker.clone_from(&worker.name);
        }
        let assistance =
            Assistance { crew: crew.clone(), row, offer, lease: worker.lease, hand_back: hand_back.clone() };
        jobs.spawn(async move {
            Box::pin(assistance.work()).await;
            drop(seat);
        });
    }
    Ok(())
}

/// Whether the configuration has what the offer is about.
fn knows(crew: &Crew, row: &OfferRow) -> bool {
    let config = crew.config.borrow();
    config.cluster(&row.cluster).is_ok() && config.repository(&row.repository).is_ok()
}

struct Assistance {
    crew: Crew,
    row: OfferRow,
    offer: Offer,
    lease: Duration,
    hand_back: CancellationToken,
}

impl Assistance {
    async fn work(self) {
        let (key, stop, progress) = (self.row.key(), CancellationToken::new(), Progress::default());
        let meter = progress.row(format!("shard {}", key.shard), None);
        let catalog = &self.crew.catalog;
        tracing::info!(
            job = key.job_id,
            cluster = self.row.cluster,
            shard = key.shard,
            "a shard is read for another worker"
        );
        let beating = tokio::spawn(beat(catalog.clone(), key.clone(), self.lease, Arc::clone(&meter), stop.clone()));
        let mut read = Box::pin(self.read(&meter, &stop));
        let done = tokio::select! {
            done = &mut read => done,
            () = self.hand_back.cancelled() => {
                stop.cancel();
                // it undoes what it began, and the worker of the job reads the shard again
                read.await.map_err(|_| Error::new(Class::SourceUnavailable, "the worker ended").retryable(true))
            }
        };
        if let Err(error) = done {
            tracing::warn!(job = key.job_id, shard = key.shard, error = %error, "the shard was not read");
            if let Ok(text) = serde_json::to_string(&Outcome::from(&error)) {
                for from in ["taken", "ready", "asked"] {
                    // in whatever state it is; when it is gone, nobody waits for it
                    drop(catalog.move_offer(&key, from, "failed", &text).await);
                }
            }
        }
        self.crew.telemetry.captured(&self.row.cluster, &progress.cost());
        beating.abort();
    }

    async fn read(&self, meter: &Arc<Meter>, stop: &CancellationToken) -> Result<()> {
        let (reader, node, shard) = self.found().await?;
        let prepared = reader.prepare(&node).await?;
        let (key, catalog) = (self.row.key(), &self.crew.catalog);
        if !catalog.move_offer(&key, "taken", "ready", "").await? || !self.asked(stop).await? {
            tracing::info!(job = key.job_id, shard = key.shard, "the shard is not asked for any more");
            return Ok(());
        }
        self.store(&reader, &node, &shard, prepared, meter, stop).await
    }

    /// The node of the shard as it is seen from here, and all that reading it takes.
    async fn found(&self) -> Result<(Reader, Node, Shard)> {
        let config = Arc::clone(&self.crew.config.borrow());
        let source = reach::source(&config, &self.row.cluster)?;
        if source.method.as_str() != self.offer.method {
            let what = format!("it is to be read by {} and here by {}", self.offer.method, source.method.as_str());
            return Err(Error::new(Class::Config, what).hint("give all daemons the same configuration"));
        }
        let (store, keys) = reach::store(&config, &self.row.repository).await?;
        let repository = Repository::open(store).await?;
        let place = Place { cluster: self.row.cluster.clone(), snapshot_id: self.offer.snapshot_id.clone() };
        let data_key = if self.offer.sealed { Some(repository.data_key_at(&place, &keys).await?) } else { None };
        let topology = redis::discover(&source.options).await?;
        let index = usize::try_from(self.row.shard_index).unwrap_or(usize::MAX);
        let seen = topology
            .shards
            .get(index)
            .filter(|shard| shard.slots.as_ref().map(ToString::to_string) == self.offer.slots);
        let node = seen.and_then(|shard| Some((shard, shard.nodes.iter().find(|node| node.id == self.offer.node_id)?)));
        let Some((shard, node)) = node else {
            let what = format!("node {} of shard {index} is not seen from here", self.offer.node_id);
            return Err(Error::new(Class::SourceUnavailable, what).retryable(true));
        };
        let shard = Shard { index, slots: shard.slots.clone(), attempt: self.offer.attempt };
        let reader = Reader {
            repository,
            place,
            data_key,
            level: self.offer.level,
            source: source.options.knowing(&topology),
            primary_use: source.wishes.primary_use,
            method: source.method,
            care: self.crew.care.clone(),
        };
        Ok((reader, node.clone(), shard))
    }

    /// Waits for the word; false when it will not come.
    async fn asked(&self, stop: &CancellationToken) -> Result<bool> {
        while !stop.is_cancelled() {
            match self.crew.catalog.shard_offer(&self.row.key()).await?.as_ref().map(|row| row.state.as_str()) {
                Some("ready") => sleep(LOOK_SOON).await,
                Some("asked") => return Ok(true),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    async fn store(
        &self,
        reader: &Reader,
        node: &Node,
        shard: &Shard,
        prepared: Prepared,
        meter: &Arc<Meter>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let stored = reader.read(shard, node, prepared, Arc::clone(meter), stop).await?;
        let file = stored.written.object.file.clone();
        let ahead = clock_ahead(&self.crew.catalog).await?;
        let outcome = Outcome::Stored {
            taken_ms: (stored.taken_at + ahead).timestamp_millis(),
            stored_ms: (stored.stored_at + ahead).timestamp_millis(),
            replid: stored.replid,
            offset: stored.offset,
            object: stored.written.object,
            report: Box::new(stored.written.report),
        };
        let text = serde_json::to_string(&outcome)
            .map_err(|error| Error::new(Class::Unforeseen, format!("what was stored cannot be told: {error}")))?;
        let mut is_certain = true;
        for _ in 0..TOLD_MAX {
            match self.crew.catalog.move_offer(&self.row.key(), "asked", "done", &text).await {
                Ok(true) => return Ok(()),
                // the catalog may have taken it and lost the answer: then the object may be in a manifest by now
                Ok(false) if !is_certain => return Ok(()),
                Ok(false) => {
                    tracing::info!(file, "nobody wants the shard any more");
                    reader.discard(&file).await;
                    return Ok(());
                }
                Err(error) => {
                    is_certain = false;
                    tracing::warn!(%error, "what was stored could not be told yet");
                    sleep(BEAT_MAX).await;
                }
            }
        }
        Ok(())
    }
}

/// Says that the shard is being read, until nobody wants it any more or that cannot be said for longer than the lease.
async fn beat(catalog: Catalog, key: OfferKey, lease: Duration, meter: Arc<Meter>, stop: CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        sleep((lease / 4).min(BEAT_MAX)).await;
        let began = Instant::now();
        let beaten = async {
            let now_ms = catalog.now_unix_ms().await?;
            catalog.beat_offer(&key, (meter.plain_bytes(), meter.keys()), lease, now_ms).await
        };
        match tokio::time::timeout(lease / 2, beaten).await {
            Ok(Ok(Some(_))) => renewed = began,
            Ok(Ok(None)) => return stop.cancel(),
            failed => {
                tracing::warn!(job = key.job_id, failed = ?failed, "no heartbeat could be written");
                if renewed.elapsed() > lease {
                    return stop.cancel();
                }
            }
        }
    }
}
