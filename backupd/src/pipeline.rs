//! Bytes on their way: from a source through scanner, frames, compression and sealing into an object, and back.
//!
//! Every stage is joined to the next by a queue of fixed length, so a slow stage slows the ones before it and
//! nothing grows. Memory of one shard on its way in ([`mod@write`]):
//!
//! ```text
//! (CHUNKS_QUEUED + 2) × chunk  +  (FRAMES_IN_FLIGHT + 2) × (plain frame + sealed frame)  +  3 sealed frames  +  the upload's parts
//! ```
//!
//! What the store does not take in time goes to the [`spill`], on disk. Memory
//! of one shard on its way out ([`read`]):
//!
//! ```text
//! (BLOCKS_AHEAD + 2) × BLOCK_BYTES  +  (FRAMES_IN_FLIGHT + 2) × (sealed frame + plain frame)
//! ```
//!
//! or, where only some of its frames are read ([`pick`]), `(BLOCKS_AHEAD + 1) × 2 × BLOCK_BYTES` and one filter frame.
//!
//! Neither depends on the size of the keyspace or of a value. This module knows neither catalog nor HTTP.

pub mod ahead;
mod entries;
pub mod pick;
pub mod prove;
pub mod rate;
pub mod read;
mod relay;
pub mod spill;
pub mod wanted;
pub mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::rate::Rate;
use self::spill::Spill;

/// Chunks of source bytes waiting for the scanner.
pub const CHUNKS_QUEUED: usize = 4;
/// Frames being compressed and sealed, or opened, of one shard.
pub const FRAMES_IN_FLIGHT: usize = 4;

/// What all captures of a process share on their way.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Where frames wait that the store does not take.
    pub spill: Arc<Spill>,
    /// How fast sources are read.
    pub source_rate: Option<Arc<Rate>>,
    /// How fast stores are written.
    pub store_rate: Option<Arc<Rate>>,
}

/// How far one shard is, for whoever shows progress.
#[derive(Debug, Default)]
pub struct Meter {
    plain_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    keys: AtomicU64,
    copied_bytes: AtomicU64,
    source_waited_us: AtomicU64,
    store_waited_us: AtomicU64,
}

impl Meter {
    /// RDB bytes that passed.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes.load(Ordering::Relaxed)
    }

    /// Bytes written to or read from the store.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Keys that passed.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// The most that the server's child had copied, since the data was written to meanwhile.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes.load(Ordering::Relaxed)
    }

    /// How long the source, and how long whatever is behind it was waited for.
    #[must_use]
    pub fn waited(&self) -> (Duration, Duration) {
        let time = |waited: &AtomicU64| Duration::from_micros(waited.load(Ordering::Relaxed));
        (time(&self.source_waited_us), time(&self.store_waited_us))
    }

    pub(crate) fn cost(&self, copied_bytes: u64) {
        self.copied_bytes.fetch_max(copied_bytes, Ordering::Relaxed);
    }

    pub(crate) fn waited_for_source(&self, time: Duration) {
        self.source_waited_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn waited_for_store(&self, time: Duration) {
        self.store_waited_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn passed(&self, plain_bytes: u64, keys: u64) {
        self.plain_bytes.store(plain_bytes, Ordering::Relaxed);
        self.keys.store(keys, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, stored_bytes: u64) {
        self.stored_bytes.store(stored_bytes, Ordering::Relaxed);
    }
}
