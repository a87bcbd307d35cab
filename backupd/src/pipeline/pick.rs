//! Some keys of one object: only the frames that can hold them are read.
//!
//! What comes out is an RDB again, with the head and the end of the whole one and without a checksum. Every frame is
//! authenticated by its own tag, under its own number, and by the index; the digests of the whole object, which would need
//! all of it, are not looked at.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use policies::slot::key_slot;
use rdbtools::RdbVersion;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::read::{BLOCK_BYTES, BLOCKS_AHEAD, Source, array, check_size, open_header};
use super::wanted::Wanted;
use super::{FRAMES_IN_FLIGHT, Meter};
use crate::bkd::parts::{self, Cutter, Parts, Placed};
use crate::bkd::{Entries, FRAME_HEAD_LEN, FrameHead, HEADER_LEN, Header, Index, Opener, filter};
use crate::canonical::damaged;
use crate::error::{Class, Error, Result};
use crate::task_failed;

/// Bytes of the checksum at the end of an RDB.
const CHECKSUM_LEN: u64 = 8;

/// What is read of an object.
#[derive(Debug, Clone)]
pub struct Pick {
    parts: Parts,
    /// The version of the RDB.
    version: RdbVersion,
    /// Bytes that are read in all: frames, header, index, and the filters that were read to find the frames.
    pub stored_bytes: u64,
}

impl Pick {
    /// How many data frames are read.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.parts.frames.len()
    }

    /// RDB bytes that come out, about.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.parts.segments.iter().map(|segment| segment.end.saturating_sub(segment.begin)).sum()
    }
}

/// Finds the frames of an object that can hold what is wanted; filters are read where the slots do not tell enough.
/// `None` when that is all of them, or nothing tells where keys are: then all of it must be read.
///
/// # Errors
/// `Verification` or `Key`, naming the object; what the store says.
pub async fn pick(source: &Source, index: &Index, wanted: &Wanted, version: RdbVersion) -> Result<Option<Pick>> {
    let Some(entries) = &index.entries else { return Ok(None) };
    let mut frames = parts::with_slots(index, wanted.slots());
    let filters_bytes = match &wanted.names {
        Some(names) => ask_filters(source, index, entries, names, &mut frames).await?,
        None => 0,
    };
    let end_len = if version.has_checksum() { CHECKSUM_LEN } else { 0 };
    let parts = Parts::of(index, entries, &frames, end_len);
    if parts.frames.len() >= index.frames.len() {
        return Ok(None);
    }
    let behind: u64 = index.frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum();
    let filters: u64 = entries.filters.iter().map(|filter| u64::from(filter.stored_bytes)).sum();
    // header, index and footer
    let around = source.object.stored_bytes.saturating_sub(behind).saturating_sub(filters);
    let stored_bytes = parts.stored_bytes().saturating_add(filters_bytes).saturating_add(around);
    Ok(Some(Pick { parts, version, stored_bytes }))
}

/// Unmarks the frames that hold none of `names` by their filters; how many bytes of filters were read.
async fn ask_filters(
    source: &Source,
    index: &Index,
    entries: &Entries,
    names: &[Vec<u8>],
    frames: &mut [bool],
) -> Result<u64> {
    let wanted: Vec<(u16, u64)> = names.iter().map(|name| (key_slot(name), filter::digest(name))).collect();
    let (header, opener) = header(source).await?;
    let mut bytes = 0;
    for (placed, first, count) in parts::filter_frames(entries, &parts::data_frames(index, entries)) {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let covered = frames.iter_mut().zip(&index.frames).skip(first).take(usize::try_from(count).unwrap_or(0));
        let mut covered: Vec<_> = covered.collect();
        if !covered.iter().any(|(is_wanted, _)| **is_wanted) {
            continue;
        }
        bytes += u64::from(placed.stored_bytes);
        let stored = read_range(source, placed.offset, u64::from(placed.stored_bytes)).await?;
        let plain = open(&source.key, &header, &opener, placed, &stored)?;
        let filters = filter::decode(&source.key, &plain, count)?;
        for ((is_wanted, frame), filter) in covered.iter_mut().zip(filters) {
            let slots = frame.slot_first..=frame.slot_last;
            **is_wanted &= wanted.iter().any(|(slot, digest)| slots.contains(slot) && filter.may_hold(*digest));
        }
    }
    Ok(bytes)
}

/// Reads what was picked. As [`super::read::shard`]: what comes out was authenticated frame by frame, and only the task's `Ok`
/// says that all of it came.
#[must_use]
pub fn read(source: Source, pick: Pick, meter: Arc<Meter>) -> (mpsc::Receiver<Vec<u8>>, JoinHandle<Result<()>>) {
    let (plain, receiver) = mpsc::channel(FRAMES_IN_FLIGHT);
    let task = tokio::spawn(async move {
        let name = source.key.clone();
        let outcome = pass_on(source, pick, &plain, &meter).await;
        outcome.map_err(|error| if error.message().contains(&name) { error } else { error.at(&name) })
    });
    (receiver, task)
}

async fn pass_on(source: Source, pick: Pick, plain: &mpsc::Sender<Vec<u8>>, meter: &Meter) -> Result<()> {
    check_size(&source).await?;
    let (header, opener) = header(&source).await?;
    let (source, header) = (Arc::new(source), Arc::new(header));
    let Pick { parts: Parts { segments, frames }, version, .. } = pick;
    let mut segments = Cutter::new(segments);
    let (mut blocks, mut reading, mut moved) = (blocks(&frames).into_iter(), VecDeque::new(), 0);
    loop {
        while reading.len() < BLOCKS_AHEAD
            && let Some(block) = blocks.next()
        {
            let (source, header, opener) = (Arc::clone(&source), Arc::clone(&header), opener.clone());
            let opened = tokio::spawn(async move { read_block(&source, &header, &opener, block).await });
            reading.push_back(AbortOnDropHandle::new(opened));
        }
        let Some(block) = reading.pop_front() else { break };
        for (frame, bytes) in block.await.map_err(task_failed)?? {
            moved += u64::from(frame.stored_bytes);
            meter.moved(moved);
            for piece in segments.cut(frame.begin, &bytes) {
                send(plain, piece).await?;
            }
        }
    }
    if version.has_checksum() {
        send(plain, vec![0; usize::try_from(CHECKSUM_LEN).unwrap_or(0)]).await?;
    }
    Ok(())
}

async fn send(plain: &mpsc::Sender<Vec<u8>>, bytes: Vec<u8>) -> Result<()> {
    plain.send(bytes).await.map_err(|_| Error::new(Class::Unforeseen, "the consumer of the shard stopped"))
}

/// Frames that follow each other in the file, so that one request reads them: of at most [`BLOCK_BYTES`] when they are
/// opened.
fn blocks(frames: &[Placed]) -> Vec<Vec<Placed>> {
    let mut blocks: Vec<Vec<Placed>> = Vec::new();
    let end = |frame: &Placed| frame.offset.saturating_add(u64::from(frame.stored_bytes));
    for frame in frames {
        let plain_end = frame.begin.saturating_add(u64::from(frame.plain_bytes));
        match blocks.last_mut() {
            Some(block)
                if block.last().is_some_and(|last| end(last) == frame.offset)
                    && block.first().is_some_and(|first| plain_end.saturating_sub(first.begin) <= BLOCK_BYTES) =>
            {
                block.push(*frame);
            }
            _ => blocks.push(vec![*frame]),
        }
    }
    blocks
}

async fn read_block(
    source: &Source,
    header: &Header,
    opener: &Opener,
    block: Vec<Placed>,
) -> Result<Vec<(Placed, Vec<u8>)>> {
    let offset = block.first().map_or(0, |frame| frame.offset);
    let length = block.iter().map(|frame| u64::from(frame.stored_bytes)).sum();
    let mut stored = read_range(source, offset, length).await?;
    let (name, header, opener) = (source.key.clone(), header.clone(), opener.clone());
    let open_all = move || {
        let opened = block.into_iter().map(|frame| {
            let length = usize::try_from(frame.stored_bytes).unwrap_or(usize::MAX).min(stored.len());
            Ok((frame, open(&name, &header, &opener, frame, &stored.split_to(length))?))
        });
        opened.collect()
    };
    tokio::task::spawn_blocking(open_all).await.map_err(task_failed)?
}

/// The plain bytes of a frame, which must be the one that the index lists.
pub(super) fn open(name: &str, header: &Header, opener: &Opener, placed: Placed, stored: &Bytes) -> Result<Vec<u8>> {
    let cut = || damaged(name, "it ends in the middle of a frame");
    let (head, body) = stored.split_first_chunk::<FRAME_HEAD_LEN>().ok_or_else(cut)?;
    let head = FrameHead::decode(name, header, placed.number, *head)?;
    let is_listed = placed.plain_bytes == 0 || head.plain_bytes == placed.plain_bytes;
    if head.body_bytes() != body.len() || !is_listed {
        return Err(damaged(name, "its index lists other frames than it holds"));
    }
    opener.open(name, placed.number, head, body.to_vec(), head.room())
}

pub(super) async fn header(source: &Source) -> Result<(Header, Opener)> {
    let bytes: [u8; HEADER_LEN] = array(&source.key, &read_range(source, 0, HEADER_LEN as u64).await?)?;
    Ok((Header::decode(&source.key, &bytes)?, open_header(source, &bytes)?))
}

pub(super) async fn read_range(source: &Source, offset: u64, length: u64) -> Result<Bytes> {
    let bytes = source.store.read_range(&source.key, offset, length).await?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(damaged(&source.key, "it ends too early")) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use policies::slot::SlotSet;
    use rdbtools::scan::Scanner;
    use rdbtools::select::{Glob, Selection};
    use rdbtools::write::{finish, put_aux, put_function, put_select_db, put_string};
    use rdbtools::{Key, Sink};

    use super::*;
    use crate::bkd::{Cipher, Compression};
    use crate::crypt::DataKey;
    use crate::pipeline::spill::Spill;
    use crate::pipeline::{Flow, read as whole, write};
    use crate::store::{LocalStore, Store};

    /// What a scan told.
    #[derive(Default)]
    struct Told {
        keys: Vec<(u64, Vec<u8>)>,
        functions: usize,
    }

    impl Sink for Told {
        fn key(&mut self, key: &Key<'_>) {
            self.keys.push((key.db, key.name.to_vec()));
        }

        fn function(&mut self, _source: &[u8]) {
            self.functions += 1;
        }
    }

    /// An RDB of 300 keys in two databases, one of them long.
    pub(in crate::pipeline) fn rdb(version: RdbVersion) -> Vec<u8> {
        let mut rdb = version.header();
        if version.number >= 10 {
            put_aux(&mut rdb, b"redis-ver", b"7.0.0");
            put_function(&mut rdb, b"#!lua name=l");
        }
        for number in 0..300_usize {
            if number % 150 == 0 {
                put_select_db(&mut rdb, number as u64 / 50);
            }
            if number % 3 == 0 {
                rdb.extend([0xfc, 0, 0, 0, 0, 0, 1, 0, 0]);
            }
            rdb.push(0);
            put_string(&mut rdb, format!("key:{number}").as_bytes());
            put_string(&mut rdb, &vec![b'v'; if number == 100 { 900 } else { number % 60 }]);
        }
        finish(&mut rdb, version);
        rdb
    }

    /// The object of an RDB in frames of `frame_bytes`.
    pub(in crate::pipeline) async fn stored(dir: &std::path::Path, rdb: &[u8], frame_bytes: u32) -> Source {
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(dir));
        let (key, id) = (format!("{frame_bytes}.bkd"), "20261125T000000Z-00000000");
        let header = Header::new(Cipher::Aes256Gcm, Compression::Zstd, id, 0, 1).unwrap();
        let data_key = Some(DataKey::random().unwrap());
        let target = write::Target {
            store: Arc::clone(&store),
            key: key.clone(),
            file: key.clone(),
            header: Header { frame_bytes, ..header },
            data_key: data_key.clone(),
            level: 1,
            size_hint_bytes: 0,
            flow: Flow {
                spill: Spill::new(dir, 0, Duration::from_secs(60)).unwrap(),
                source_rate: None,
                store_rate: None,
            },
        };
        let (sender, chunks) = mpsc::channel(rdb.len());
        for chunk in rdb.chunks(37) {
            sender.send(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        drop(sender);
        let written = write::shard(target, chunks, 0, Box::new(|_, _| Ok(())), Arc::default()).await.unwrap();
        Source { store, key, snapshot_id: id.to_owned(), shard: 0, object: written.object, data_key }
    }

    /// What is told of the keys of this selection, and how many frames were read for it.
    async fn told(source: &Source, select: Selection, version: RdbVersion) -> (Told, usize) {
        let index = whole::index(source).await.unwrap();
        let wanted = Wanted::by(&select).unwrap();
        let picked = pick(source, &index, &wanted, version).await.unwrap();
        let frames = picked.as_ref().map_or(index.frames.len(), Pick::frames);
        let mut scanner = Scanner::new(Told::default());
        let (mut chunks, task) = match picked {
            Some(picked) => read(source.clone(), picked, Arc::default()),
            None => {
                let (chunks, task) = whole::shard(source.clone(), Arc::default());
                (chunks, tokio::spawn(async move { task.await.unwrap().map(drop) }))
            }
        };
        while let Some(chunk) = chunks.recv().await {
            assert_eq!(scanner.feed(&chunk).unwrap(), chunk.len());
        }
        task.await.unwrap().unwrap();
        (scanner.finish().unwrap().1, frames)
    }

    #[tokio::test]
    async fn every_key_is_found_wherever_frames_cut_its_entry() {
        let dir = tempfile::tempdir().unwrap();
        for (version, frame_bytes) in [(10, 64), (10, 97), (10, 256), (4, 64), (10, 1000)] {
            let version = RdbVersion::redis(version);
            let rdb = rdb(version);
            let source = stored(dir.path(), &rdb, frame_bytes).await;
            // who reads all of it notices nothing
            let (mut chunks, task) = whole::shard(source.clone(), Arc::default());
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                all.extend(chunk);
            }
            let index = task.await.unwrap().unwrap();
            assert!(all == rdb && !index.entries.unwrap().filters.is_empty());
            let (mut read, mut extra) = (0, 0);
            // 100 is the long one
            for number in (2..300).step_by(7) {
                let key = (number / 150 * 3, format!("key:{number}").into_bytes());
                let include = vec![Glob::new(&key.1)];
                let (told, frames) = told(&source, Selection { include, ..Selection::default() }, version).await;
                assert_eq!(told.keys.iter().filter(|found| **found == key).count(), 1, "{number} in {frame_bytes}");
                assert_eq!(told.functions, usize::from(version.number >= 10));
                read += frames;
                extra += told.keys.len() - 1;
            }
            let all = rdb.len().div_ceil(usize::try_from(frame_bytes).unwrap()) * 43;
            assert!(read < all / 2 && extra < 43 * 60, "{read} of {all} frames, {extra} other keys");
            std::fs::remove_file(dir.path().join(&source.key)).unwrap();
        }
    }

    #[tokio::test]
    async fn keys_of_slots_are_all_found_and_no_slot_reads_head_and_end_alone() {
        let dir = tempfile::tempdir().unwrap();
        let version = RdbVersion::redis(10);
        let source = stored(dir.path(), &rdb(version), 64).await;
        for slots in [SlotSet::range(0, 2000).unwrap(), SlotSet::range(9000, 16_383).unwrap()] {
            let select = Selection { slots: Some(slots.clone()), ..Selection::default() };
            let (told, _) = told(&source, select, version).await;
            let found = told.keys.iter().filter(|(_, name)| slots.contains(key_slot(name))).count();
            let names = (0..300).map(|number| format!("key:{number}"));
            assert_eq!(found, names.filter(|name| slots.contains(key_slot(name.as_bytes()))).count());
        }
        let nothing =
            Selection { include: vec![Glob::new("x")], slots: Some(SlotSet::empty()), ..Selection::default() };
        let (told, frames) = told(&source, nothing, version).await;
        assert!(told.keys.is_empty() && frames <= 3, "{frames} frames");
    }
}
