//! One object back into its RDB, with everything checked on the way.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ahead::Ahead;
use super::{FRAMES_IN_FLIGHT, Meter};
use crate::bkd::{
    FILTER_NUMBERS, FOOTER_LEN, FRAME_HEAD_LEN, FilterEntry, FrameEntry, FrameHead, HEADER_LEN, Header, Index, Kind,
    Opener, index,
};
use crate::canonical::damaged;
use crate::crypt::DataKey;
use crate::error::{Class, Error, Result};
use crate::manifest::Object;
use crate::store::Store;
use crate::task_failed;

/// How much is read from the store at once.
pub const BLOCK_BYTES: u64 = 4 << 20;
/// How many such reads are under way before the first is used.
pub const BLOCKS_AHEAD: usize = 3;

/// What is read.
#[derive(Debug, Clone)]
pub struct Source {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The key of the object.
    pub key: String,
    /// The snapshot that it must belong to.
    pub snapshot_id: String,
    /// The shard that it must be.
    pub shard: u32,
    /// What the manifest says of it.
    pub object: Object,
    /// The snapshot's data key.
    pub data_key: Option<DataKey>,
}

/// Reads an object from front to back. Plain RDB bytes come out of the channel in order; they were
/// authenticated frame by frame, but only the task's `Ok` says that the whole object was there and right, so
/// nothing may be published before it.
///
/// The task fails with `Verification` or `Key`, naming the object, or with what the store says.
#[must_use]
pub fn shard(source: Source, meter: Arc<Meter>) -> (mpsc::Receiver<Vec<u8>>, JoinHandle<Result<Index>>) {
    let (plain, receiver) = mpsc::channel(FRAMES_IN_FLIGHT);
    let task = tokio::spawn(async move {
        let mut reader = Reader::new(&source, plain, meter);
        let outcome = reader.run().await;
        outcome.map_err(|error| if error.message().contains(&source.key) { error } else { error.at(&source.key) })
    });
    (receiver, task)
}

/// Reads the index of an object alone: its frames and what its slots hold.
///
/// # Errors
/// `Verification` or `Key`, naming the object; what the store says.
pub async fn index(source: &Source) -> Result<Index> {
    let name = &source.key;
    let object = &source.object;
    check_size(source).await?;
    let read = async |offset: u64, length: u64| {
        let bytes = source.store.read_range(name, offset, length).await?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(damaged(name, "it ends too early")) }
    };
    let tail = object.stored_bytes.checked_sub(FOOTER_LEN as u64);
    let tail = tail.ok_or_else(|| damaged(name, "it is shorter than its footer"))?;
    let header_bytes = array(name, &read(0, HEADER_LEN as u64).await?)?;
    let opener = open_header(source, &header_bytes)?;
    let offset = index::decode_footer(name, array(name, &read(tail, FOOTER_LEN as u64).await?)?)?;
    let head = array(name, &read(offset, FRAME_HEAD_LEN as u64).await?)?;
    let head = FrameHead::decode(name, &Header::decode(name, &header_bytes)?, object.frames, head)?;
    let body = read(offset.saturating_add(FRAME_HEAD_LEN as u64), head.body_bytes() as u64).await?.to_vec();
    Index::decode(name, &opener.open(name, object.frames, head, body, head.room())?)
}

/// The size is compared first: an object that was cut or grew is known without reading it.
pub(super) async fn check_size(source: &Source) -> Result<()> {
    let size = source.store.size(&source.key).await?;
    let expected = source.object.stored_bytes;
    match size {
        Some(size) if size == expected => Ok(()),
        Some(size) => Err(damaged(&source.key, &format!("it has {size} bytes, and the manifest says {expected}"))),
        None => Err(damaged(&source.key, "it is missing")),
    }
}

pub(super) fn array<const N: usize>(name: &str, bytes: &[u8]) -> Result<[u8; N]> {
    <[u8; N]>::try_from(bytes).map_err(|_| damaged(name, "it ends too early"))
}

pub(super) fn open_header(source: &Source, header_bytes: &[u8; HEADER_LEN]) -> Result<Opener> {
    let name = &source.key;
    let header = Header::decode(name, header_bytes)?;
    if header.snapshot_id != source.snapshot_id || header.shard != source.shard {
        return Err(damaged(name, &format!("it is shard {} of snapshot {}", header.shard, header.snapshot_id)));
    }
    let encrypted = header.cipher != crate::bkd::Cipher::None;
    if encrypted != source.data_key.is_some() {
        return Err(damaged(name, "its encryption is not the one that the manifest says"));
    }
    let key = header.object_key(source.data_key.as_ref())?;
    header.check_key(name, header_bytes, &key)?;
    Ok(Opener::new(header_bytes, &key))
}

/// Bytes of the whole frame.
fn stored_bytes(head: FrameHead) -> u32 {
    u32::try_from(head.body_bytes() + FRAME_HEAD_LEN).unwrap_or(u32::MAX)
}

type Opening = JoinHandle<Result<Vec<u8>>>;

struct Reader<'a> {
    source: &'a Source,
    plain: mpsc::Sender<Vec<u8>>,
    meter: Arc<Meter>,
    blocks: Ahead,
    /// Bytes taken out of blocks so far, and their digest.
    taken: u64,
    sha256: Sha256,
    /// What is left of the block that is being taken apart.
    block: Bytes,
    openings: VecDeque<Opening>,
    frames: Vec<FrameEntry>,
    filters: Vec<FilterEntry>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source, plain: mpsc::Sender<Vec<u8>>, meter: Arc<Meter>) -> Self {
        let (store, key) = (Arc::clone(&source.store), source.key.clone());
        let blocks = Ahead::new(store, key, source.object.stored_bytes, BLOCK_BYTES, BLOCKS_AHEAD);
        Self {
            source,
            plain,
            meter,
            blocks,
            taken: 0,
            sha256: Sha256::new(),
            block: Bytes::new(),
            openings: VecDeque::new(),
            frames: Vec::new(),
            filters: Vec::new(),
        }
    }

    async fn run(&mut self) -> Result<Index> {
        check_size(self.source).await?;
        let header_bytes: [u8; HEADER_LEN] = self.take_array().await?;
        let opener = open_header(self.source, &header_bytes)?;
        let header = Header::decode(&self.source.key, &header_bytes)?;
        loop {
            let number = self.frames.len() as u64;
            let index_offset = self.taken;
            let head: [u8; FRAME_HEAD_LEN] = self.take_array().await?;
            let head = FrameHead::decode(&self.source.key, &header, number, head)?;
            let body = self.take(head.body_bytes()).await?;
            let (opener, key) = (opener.clone(), self.source.key.clone());
            let number = if head.kind == Kind::Filter { FILTER_NUMBERS + self.filters.len() as u64 } else { number };
            let room = head.room();
            let opening = tokio::task::spawn_blocking(move || opener.open(&key, number, head, body, room));
            match head.kind {
                Kind::Data => self.data_frame(head, opening).await?,
                Kind::Filter => {
                    // who reads everything needs it not, but it must be sound
                    drop(opening.await.map_err(task_failed)??);
                    let (after, stored_bytes) = (self.frames.len() as u64, stored_bytes(head));
                    self.filters.push(FilterEntry { after, frames: 0, stored_bytes });
                }
                Kind::Index => {
                    while let Some(opening) = self.openings.pop_front() {
                        self.send(opening).await?;
                    }
                    let index = Index::decode(&self.source.key, &opening.await.map_err(task_failed)??)?;
                    return self.finish(index, index_offset).await;
                }
            }
        }
    }

    async fn data_frame(&mut self, head: FrameHead, opening: Opening) -> Result<()> {
        let stored_bytes = stored_bytes(head);
        let unknown = index::SLOT_UNKNOWN;
        let entry = FrameEntry { plain_bytes: head.plain_bytes, stored_bytes, slot_first: unknown, slot_last: unknown };
        self.frames.push(entry);
        self.openings.push_back(opening);
        if self.openings.len() >= FRAMES_IN_FLIGHT
            && let Some(first) = self.openings.pop_front()
        {
            self.send(first).await?;
        }
        Ok(())
    }

    async fn send(&mut self, opening: Opening) -> Result<()> {
        let plain = opening.await.map_err(task_failed)??;
        self.plain.send(plain).await.map_err(|_| Error::new(Class::Unforeseen, "the consumer of the shard stopped"))
    }

    /// Compares what passed with the index, the footer and the manifest.
    async fn finish(&mut self, index: Index, index_offset: u64) -> Result<Index> {
        let name = &self.source.key.clone();
        let footer: [u8; FOOTER_LEN] = self.take_array().await?;
        if index::decode_footer(name, footer)? != index_offset {
            return Err(damaged(name, "its footer points elsewhere than to its index"));
        }
        if self.taken != self.source.object.stored_bytes {
            return Err(damaged(name, "it has bytes behind its footer"));
        }
        if hex::encode(self.sha256.finalize_reset()) != self.source.object.stored_sha256 {
            return Err(damaged(name, "its SHA-256 is not the one in the manifest"));
        }
        let same =
            |(a, b): (&FrameEntry, &FrameEntry)| (a.plain_bytes, a.stored_bytes) == (b.plain_bytes, b.stored_bytes);
        if index.frames.len() != self.frames.len() || !index.frames.iter().zip(&self.frames).all(same) {
            return Err(damaged(name, "its index lists other frames than it holds"));
        }
        if let Some(entries) = &index.entries {
            let same = |(a, b): (&FilterEntry, &FilterEntry)| (a.after, a.stored_bytes) == (b.after, b.stored_bytes);
            if entries.filters.len() != self.filters.len() || !entries.filters.iter().zip(&self.filters).all(same) {
                return Err(damaged(name, "its index lists other filter frames than it holds"));
            }
        }
        if index.plain_bytes() != self.source.object.plain_bytes
            || hex::encode(index.plain_sha256) != self.source.object.plain_sha256
        {
            return Err(damaged(name, "its index and the manifest disagree about the RDB"));
        }
        Ok(index)
    }

    async fn take_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        array(&self.source.key, &self.take(N).await?)
    }

    /// The next `length` bytes of the object.
    async fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        let left = self.source.object.stored_bytes.saturating_sub(self.taken);
        if length as u64 > left {
            return Err(damaged(&self.source.key, "it ends in the middle of a frame"));
        }
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            if self.block.is_empty() {
                self.block = self.next_block().await?;
            }
            let count = self.block.len().min(length.saturating_sub(bytes.len()));
            bytes.extend_from_slice(&self.block.split_to(count));
        }
        self.taken += length as u64;
        self.meter.moved(self.taken);
        Ok(bytes)
    }

    /// The next block of the object, which is digested.
    async fn next_block(&mut self) -> Result<Bytes> {
        let Some(block) = self.blocks.next().await? else {
            return Err(damaged(&self.source.key, "it ends too early"));
        };
        let mut sha256 = std::mem::take(&mut self.sha256);
        let hashed = block.clone();
        let digest = tokio::task::spawn_blocking(move || {
            sha256.update(&hashed);
            sha256
        });
        self.sha256 = digest.await.map_err(task_failed)?;
        Ok(block)
    }
}

impl Drop for Reader<'_> {
    /// What nobody waits for any more is stopped.
    fn drop(&mut self) {
        self.openings.iter().for_each(JoinHandle::abort);
    }
}
