//! An object read from front to back, the next blocks while one is used.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Result;
use crate::store::Store;
use crate::task_failed;

/// Blocks of one object in their order. Reads that nobody waits for any more are stopped when it is dropped.
#[derive(Debug)]
pub struct Ahead {
    store: Arc<dyn Store>,
    key: String,
    size_bytes: u64,
    block_bytes: u64,
    /// How many reads are under way at most.
    blocks: usize,
    /// How many are under way now that the blocks before came: the first is not to share the line with those behind it.
    allowed: usize,
    next_offset: u64,
    reading: VecDeque<AbortOnDropHandle<Result<Bytes>>>,
}

impl Ahead {
    /// Of the object `key`, which has `size_bytes`: blocks of `block_bytes`, so many of them at the same time, fewer at the begin. Nothing is
    /// read before the first is asked for.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, key: String, size_bytes: u64, block_bytes: u64, blocks: usize) -> Self {
        Self { store, key, size_bytes, block_bytes, blocks, allowed: 1, next_offset: 0, reading: VecDeque::new() }
    }

    /// The same, with all reads begun that may be under way: nobody waits for the first.
    #[must_use]
    pub fn begun(mut self) -> Self {
        self.allowed = self.blocks;
        self.read();
        self
    }

    /// The next block; `None` behind the last.
    ///
    /// # Errors
    /// What the store says.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.read();
        self.allowed = self.allowed.saturating_mul(2).min(self.blocks);
        match self.reading.pop_front() {
            Some(read) => read.await.map_err(task_failed)?.map(Some),
            None => Ok(None),
        }
    }

    /// Begins the reads that may be under way and are not.
    fn read(&mut self) {
        while self.reading.len() < self.allowed && self.next_offset < self.size_bytes {
            let offset = self.next_offset;
            let length = self.block_bytes.min(self.size_bytes.saturating_sub(offset));
            self.next_offset = offset.saturating_add(length);
            let (store, key) = (Arc::clone(&self.store), self.key.clone());
            let read = tokio::spawn(async move { store.read_range(&key, offset, length).await });
            self.reading.push_back(AbortOnDropHandle::new(read));
        }
    }
}
