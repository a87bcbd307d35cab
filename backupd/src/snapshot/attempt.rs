//! One attempt at one shard: its node is connected, then read into an object of the snapshot, which is checked.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use policies::replica::PrimaryUse;
use policies::slot::SlotSet;
use tokio_util::sync::CancellationToken;

use super::care::{Care, watched};
use super::method::{Method, Prepared, Taken};
use crate::bkd::{Cipher, Compression, Header};
use crate::clock;
use crate::crypt::DataKey;
use crate::error::{Class, Error, Result};
use crate::pipeline::Meter;
use crate::pipeline::write::{Target, Written};
use crate::redis::{Node, SourceOptions};
use crate::repository::{Place, Repository};

/// What all attempts at the shards of a snapshot share, whichever worker makes them.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Where the snapshot goes.
    pub repository: Repository,
    /// Its place there.
    pub place: Place,
    /// What seals it; `None` when it is not encrypted.
    pub data_key: Option<DataKey>,
    /// zstd level.
    pub level: i32,
    /// How to reach the source.
    pub source: SourceOptions,
    /// Whether primaries may serve.
    pub primary_use: PrimaryUse,
    /// How shards are read.
    pub method: Method,
    /// What a capture may cost.
    pub care: Care,
}

/// Which shard of the snapshot.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Its place in the cluster.
    pub index: usize,
    /// Its slots, in cluster mode.
    pub slots: Option<SlotSet>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

/// What an attempt stored.
#[derive(Debug)]
pub struct Stored {
    /// The history that the position is of.
    pub replid: String,
    /// The position.
    pub offset: u64,
    /// When the node began to serve.
    pub taken_at: DateTime<Utc>,
    /// When the object was whole.
    pub stored_at: DateTime<Utc>,
    /// The object.
    pub written: Written,
}

impl Reader {
    /// Connects to `node`; it does no work yet.
    ///
    /// # Errors
    /// `SourceUnavailable`, `SourceAuth`, `Refused`.
    pub async fn prepare(&self, node: &Node) -> Result<Prepared> {
        self.method.prepare(node, &self.source, self.primary_use).await
    }

    /// Reads a shard from a node that waits for the word. What a failed attempt stored is removed.
    ///
    /// # Errors
    /// What the source, the store and the checks say.
    pub async fn read(
        &self,
        shard: &Shard,
        node: &Node,
        prepared: Prepared,
        meter: Arc<Meter>,
        stop: &CancellationToken,
    ) -> Result<Stored> {
        let target = self.target(shard, node.used_memory)?;
        let file = target.file.clone();
        let over = stop.child_token();
        let watch = self.care.watch(node, &self.source, &meter);
        let taken = watched(prepared.take(target, Arc::clone(&meter), &over), watch, || over.cancel()).await;
        let checked = taken.and_then(|taken| {
            let Taken { replid, offset, taken_at, written } = taken;
            let stored = Stored { replid, offset, taken_at, stored_at: clock::now(), written };
            stored.check(shard.slots.as_ref()).map(|()| stored)
        });
        if checked.is_err() {
            self.discard(&file).await;
        }
        checked
    }

    fn target(&self, shard: &Shard, used_memory: u64) -> Result<Target> {
        let index =
            u32::try_from(shard.index).map_err(|_| Error::new(Class::Unforeseen, "more shards than can be counted"))?;
        let cipher = if self.data_key.is_some() { Cipher::Aes256Gcm } else { Cipher::None };
        let file = format!("shard-{index:04}-{}.bkd", shard.attempt);
        Ok(Target {
            store: Arc::clone(self.repository.store()),
            key: self.place.key(&file),
            file,
            header: Header::new(cipher, Compression::Zstd, &self.place.snapshot_id, index, shard.attempt)?,
            data_key: self.data_key.clone(),
            level: self.level,
            size_hint_bytes: used_memory,
            flow: self.care.flow.clone(),
        })
    }

    /// Removes the object of a capture that no manifest will name, as far as that is possible.
    pub async fn discard(&self, file: &str) {
        let key = self.place.key(file);
        if let Err(error) = self.repository.store().delete(&key).await {
            tracing::warn!(key, error = %error, "the object of a shard that was retaken is left behind");
        }
    }
}

impl Stored {
    /// The RDB's own position must be the one that the server announced, and its keys must be the shard's.
    fn check(&self, slots: Option<&SlotSet>) -> Result<()> {
        let aux = &self.written.report.aux;
        let (id, offset) = (aux.get("repl-id"), aux.get("repl-offset").and_then(|text| text.parse::<u64>().ok()));
        if id.is_some_and(|id| *id != self.replid) || offset.is_some_and(|offset| offset != self.offset) {
            let message =
                format!("the RDB's position {id:?} {offset:?} is not the announced {} {}", self.replid, self.offset);
            return Err(Error::new(Class::Verification, message).retryable(true));
        }
        if let Some(slots) = slots
            && let Some(foreign) = self.written.slots.iter().find(|entry| !slots.contains(entry.slot))
        {
            let message = format!("it holds {} keys of slot {}, which is not its own", foreign.keys, foreign.slot);
            return Err(Error::new(Class::Verification, message)
                .hint("a resharding was under way or failed half-way: `redis-cli --cluster check` tells")
                .retryable(true));
        }
        Ok(())
    }
}
