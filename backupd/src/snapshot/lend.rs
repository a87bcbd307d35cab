//! Shards of a snapshot that other workers read: offered through the catalog, so that one worker need not carry a large cluster alone.
//!
//! Who takes an offer connects to the node and says `ready`; all nodes are then released together, as if one worker had them all. What is
//! not taken soon, or whose worker dies, is read by the worker of the job. Only that one publishes: what another worker stored counts when
//! its row says `done`, and for nothing when its row is gone.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rdbtools::Report;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::attempt::Stored;
use super::capture::interrupted;
use crate::catalog::{Catalog, OfferKey, OfferRow};
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::manifest::Object;
use crate::pipeline::Meter;
use crate::pipeline::write::Written;

/// How long ago a worker must have been heard of to be offered something.
const HEARD_OF: Duration = Duration::from_secs(15);

/// How long an offer stands that nobody takes: twice what workers wait between two looks.
const OFFERED_FOR: Duration = Duration::from_millis(1500);

/// How long who took one may need to connect to its node.
const READY_WAIT: Duration = Duration::from_secs(15);

/// Between two looks before the word is given, and after it.
const LOOK_SOON: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Through which job shards are offered.
#[derive(Debug, Clone)]
pub struct Lend {
    /// Where offers are.
    pub catalog: Catalog,
    /// The job.
    pub job_id: String,
    /// The fencing number of its worker.
    pub fencing: u64,
    /// The name of the repository in the configuration.
    pub repository: String,
    /// The worker of the job.
    pub worker: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The snapshot.
    pub snapshot_id: String,
    /// The node that serves the shard, by its id.
    pub node_id: String,
    /// The slots that the shard has.
    pub slots: Option<String>,
    /// The number of the attempt.
    pub attempt: u32,
    /// How it is read, as the manifest has it.
    pub method: String,
    /// zstd level.
    pub level: i32,
    /// Whether it is encrypted: then the wrap of the data key is in its place already.
    pub sealed: bool,
    /// The most shards of the job that one worker takes.
    pub each_max: usize,
}

/// What came of an offer. Times are by the clock of the database, ms since 1970.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Outcome {
    /// It is stored.
    Stored {
        /// The history of the position.
        replid: String,
        /// The position.
        offset: u64,
        /// When the node began to serve.
        taken_ms: i64,
        /// When the object was whole.
        stored_ms: i64,
        /// The object.
        object: Object,
        /// What is in it.
        report: Box<Report>,
    },
    /// It is not.
    Failed {
        /// The class of the error.
        class: String,
        /// What happened.
        message: String,
        /// What to do.
        hint: String,
        /// Whether trying again can help.
        retryable: bool,
    },
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        Self::Failed {
            class: error.class().code().to_owned(),
            message: error.message().to_owned(),
            hint: error.advice().unwrap_or("try again").to_owned(),
            retryable: error.is_retryable(),
        }
    }
}

/// How far the clock of a catalog is before ours.
///
/// # Errors
/// What the catalog says.
pub async fn clock_ahead(catalog: &Catalog) -> Result<TimeDelta> {
    let theirs = i64::try_from(catalog.now_unix_ms().await?).unwrap_or(i64::MAX);
    Ok(TimeDelta::milliseconds(theirs.saturating_sub(clock::now().timestamp_millis())))
}

/// A shard that was offered.
#[derive(Debug)]
pub(super) struct Loan {
    catalog: Catalog,
    key: OfferKey,
    /// Who has it; empty before.
    pub(super) worker: String,
}

impl Lend {
    /// How many other workers there are. When that cannot be known, nothing is lent.
    pub(super) async fn others(&self) -> usize {
        let counted = async {
            let now_ms = self.catalog.now_unix_ms().await?;
            let since_ms = now_ms.saturating_sub(u64::try_from(HEARD_OF.as_millis()).unwrap_or(u64::MAX));
            self.catalog.other_workers(&self.worker, since_ms).await
        };
        counted.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "shards are not lent");
            0
        })
    }

    /// Offers a shard; `None` when that is not possible.
    pub(super) async fn offer(&self, cluster: &str, shard: usize, offer: &Offer) -> Option<Loan> {
        let key = OfferKey { job_id: self.job_id.clone(), fencing: self.fencing, shard: u32::try_from(shard).ok()? };
        let text = serde_json::to_string(offer).ok()?;
        match self.catalog.offer_shard(&key, cluster, &self.repository, &text).await {
            Ok(()) => Some(Loan { catalog: self.catalog.clone(), key, worker: String::new() }),
            Err(error) => {
                tracing::warn!(%error, shard, "a shard is not lent");
                None
            }
        }
    }

    /// Writes into the log of the job.
    pub(super) async fn note(&self, text: &str) {
        if let Err(error) = self.catalog.note_in_log(&self.job_id, self.fencing, "shared", text).await {
            tracing::warn!(%error, text, "the log of the job could not be written");
        }
    }
}

impl Loan {
    /// Waits until somebody took the shard and its node waits for the word. `None`: it is to be read here.
    pub(super) async fn ready(mut self, stop: &CancellationToken) -> Option<Self> {
        let begun = Instant::now();
        while !stop.is_cancelled() {
            let row = match self.catalog.shard_offer(&self.key).await {
                Ok(Some(row)) => row,
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(%error, "a shard that was offered is read here");
                    break;
                }
            };
            match row.state.as_str() {
                "ready" => {
                    self.worker = row.worker;
                    return Some(self);
                }
                // who took it in this very moment keeps it
                "offered" if begun.elapsed() >= OFFERED_FOR => {
                    if self.withdraw(Some("offered")).await {
                        return None;
                    }
                }
                "offered" | "taken" if begun.elapsed() < READY_WAIT => {}
                state => {
                    tracing::warn!(worker = row.worker, state, outcome = row.outcome, "the shard is read here");
                    break;
                }
            }
            sleep(LOOK_SOON).await;
        }
        self.withdraw(None).await;
        None
    }

    /// Gives the word, and waits for what comes of it.
    pub(super) async fn take(self, meter: &Arc<Meter>, stop: &CancellationToken) -> Result<Stored> {
        let taken = self.asked(meter, stop).await;
        // when its row is gone, nobody has it any more
        self.withdraw(None).await;
        taken
    }

    async fn asked(&self, meter: &Arc<Meter>, stop: &CancellationToken) -> Result<Stored> {
        if !self.catalog.move_offer(&self.key, "ready", "asked", "").await? {
            return Err(self.gone("said no more"));
        }
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return Err(interrupted()),
            }
            let looked = async {
                let now_ms = self.catalog.now_unix_ms().await?;
                Ok::<_, Error>((now_ms, self.catalog.shard_offer(&self.key).await?))
            };
            let (now_ms, row) = match looked.await {
                Ok((now_ms, Some(row))) => (now_ms, row),
                Ok((_, None)) => return Err(self.gone("lost its offer")),
                // the heartbeat of the job ends it when this lasts
                Err(error) => {
                    tracing::warn!(%error, "what another worker does is not known now");
                    continue;
                }
            };
            meter.passed(row.done_bytes, row.done_keys);
            match row.state.as_str() {
                "done" | "failed" => return self.outcome(&row).await,
                _ if row.lease_ms <= now_ms => return Err(self.gone("said nothing for longer than its lease")),
                _ => {}
            }
        }
    }

    async fn outcome(&self, row: &OfferRow) -> Result<Stored> {
        let outcome = serde_json::from_str(&row.outcome)
            .map_err(|error| self.gone(&format!("told what is not understood ({error})")))?;
        match outcome {
            Outcome::Stored { replid, offset, taken_ms, stored_ms, object, report } => {
                let ahead = clock_ahead(&self.catalog).await?;
                let time = |ms| DateTime::<Utc>::from_timestamp_millis(ms).map(|time| time - ahead);
                let (Some(taken_at), Some(stored_at)) = (time(taken_ms), time(stored_ms)) else {
                    return Err(self.gone("told a time that cannot be"));
                };
                let written = Written { object, report: *report, slots: Vec::new() };
                Ok(Stored { replid, offset, taken_at, stored_at, written })
            }
            Outcome::Failed { class, message, hint, retryable } => {
                let class = Class::of(&class).unwrap_or(Class::Unforeseen);
                Err(Error::new(class, format!("read by worker {}: {message}", self.worker))
                    .hint(hint)
                    .retryable(retryable))
            }
        }
    }

    fn gone(&self, what: &str) -> Error {
        Error::new(Class::SourceUnavailable, format!("worker {}, which was to read the shard, {what}", self.worker))
            .hint("the shard is read again")
            .retryable(true)
    }

    async fn withdraw(&self, from: Option<&str>) -> bool {
        self.catalog.withdraw_offer(&self.key, from).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "an offer could not be withdrawn");
            false
        })
    }
}
