//! Bytes on their way: from a source through scanner, frames, compression and sealing into an object, and back.
//!
//! Every stage is joined to the next by a queue of fixed length, so a slow stage slows the ones before it and
//! nothing grows. Memory of one shard on its way in ([`mod@write`]):
//!
//! ```text
//! (CHUNKS_QUEUED + 2) × chunk  +  (FRAMES_IN_FLIGHT + 2) × (plain frame + sealed frame)  +  the upload's parts
//! ```
//!
//! and on its way out ([`read`]):
//!
//! ```text
//! (BLOCKS_AHEAD + 2) × BLOCK_BYTES  +  (FRAMES_IN_FLIGHT + 2) × (sealed frame + plain frame)
//! ```
//!
//! Neither depends on the size of the keyspace or of a value. This module knows neither catalog nor HTTP.

pub mod read;
pub mod write;

use std::sync::atomic::{AtomicU64, Ordering};

/// Chunks of source bytes waiting for the scanner.
pub const CHUNKS_QUEUED: usize = 4;
/// Frames being compressed and sealed, or opened, of one shard.
pub const FRAMES_IN_FLIGHT: usize = 4;

/// How far one shard is, for whoever shows progress.
#[derive(Debug, Default)]
pub struct Meter {
    plain_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    keys: AtomicU64,
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

    pub(crate) fn passed(&self, plain_bytes: u64, keys: u64) {
        self.plain_bytes.store(plain_bytes, Ordering::Relaxed);
        self.keys.store(keys, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, stored_bytes: u64) {
        self.stored_bytes.store(stored_bytes, Ordering::Relaxed);
    }
}
