//! One shard into one object.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdbtools::scan::Scanner;
use rdbtools::{Report, ReportSink, SlotStats};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::entries::{EntrySink, Held};
use super::rate::Rate;
use super::relay::relay;
use super::spill::Frame;
use super::{FRAMES_IN_FLIGHT, Flow, Meter};
use crate::bkd::filter::Filters;
use crate::bkd::{Entries, FILTER_NUMBERS, FilterEntry, FrameEntry, Header, Index, Kind, Sealer, SlotEntry, index};
use crate::crypt::DataKey;
use crate::error::{Class, Error, Result};
use crate::manifest::Object;
use crate::store::{Store, Upload};
use crate::task_failed;

/// Where a shard goes and how.
#[derive(Debug)]
pub struct Target {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The key of the object.
    pub key: String,
    /// Its file name in the manifest.
    pub file: String,
    /// Its header.
    pub header: Header,
    /// The snapshot's data key.
    pub data_key: Option<DataKey>,
    /// zstd level.
    pub level: i32,
    /// A guess of the RDB's size, for the choice of part sizes; 0 when there is none.
    pub size_hint_bytes: u64,
    /// Where frames wait for the store, and how fast they go there.
    pub flow: Flow,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The object, for the manifest.
    pub object: Object,
    /// What the scanner found.
    pub report: Report,
    /// Keys and bytes per slot.
    pub slots: Vec<SlotEntry>,
}

/// The end of a source: what must follow the RDB.
pub type EndCheck = Box<dyn FnOnce(u64, &[u8]) -> Result<()> + Send>;

/// After how many bytes a thread that works on them lets others have its core, where those wait for it. A server's main thread on the
/// same machine passes on what its child writes, from a pipe of 64 KiB: while it waits for a core, the child stands still.
const STEP_BYTES: usize = 32 << 10;

/// Stores the RDB that comes out of `chunks`.
///
/// The RDB ends where its own EOF opcode and checksum say. Up to `tail_bytes` that follow it are collected and
/// given, with the RDB's length, to `end_check`; only when that agrees does the object become visible.
/// The receiver is dropped as soon as enough is there.
///
/// # Errors
/// `Verification` when the bytes are not a whole valid RDB, `Version` when it is newer than this program, what the
/// store says. Whatever was uploaded is then removed.
pub async fn shard(
    target: Target,
    chunks: mpsc::Receiver<Bytes>,
    tail_bytes: usize,
    end_check: EndCheck,
    meter: Arc<Meter>,
) -> Result<Written> {
    let key = target.header.object_key(target.data_key.as_ref())?;
    let header_bytes = target.header.encode(&key);
    let sealer = Sealer::new(&target.header, &header_bytes, &key, target.level);
    let upload = target.store.upload(&target.key, target.size_hint_bytes).await?;
    let (meter_of_writer, rate) = (Arc::clone(&meter), target.flow.store_rate.clone());
    let mut writer = Writer {
        upload,
        sha256: Sha256::new(),
        stored_bytes: 0,
        frames: Vec::new(),
        filters: Vec::new(),
        meter: meter_of_writer,
        rate,
    };
    let (sealed, frames) = mpsc::channel(FRAMES_IN_FLIGHT);
    let scan = Scan {
        scanner: Scanner::new(EntrySink::new(target.header.frame_bytes)),
        sha256: Sha256::new(),
        frame: BytesMut::new(),
        frame_bytes: usize::try_from(target.header.frame_bytes).unwrap_or(usize::MAX),
        number: 0,
        filters: Vec::new(),
        sealer: sealer.clone(),
        sealed,
        meter,
    };
    let scan = tokio::task::spawn_blocking(move || scan.run(chunks, tail_bytes));
    let (out, mut relayed) = mpsc::channel(1);
    let store = async {
        writer.write(header_bytes.to_vec()).await?;
        while let Some(frame) = relayed.recv().await {
            writer.frame(frame).await?;
        }
        Ok(())
    };
    // the first failure ends both; the queue that goes with the relay is what stops the scanner then
    let outcome = tokio::try_join!(relay(frames, out, &target.flow.spill), store);
    let scanned = scan.await.map_err(task_failed)?;
    let finished = async {
        outcome?; // a failure of the store or the spill is the cause, the scanner's is then only its echo
        let scanned = scanned?;
        end_check(scanned.report.bytes, &scanned.tail)?;
        writer.index(&sealer, &scanned).await?;
        Ok(scanned)
    }
    .await;
    match finished {
        Ok(scanned) => writer.complete(target.file, scanned).await,
        Err(error) => {
            if let Err(left) = writer.upload.abort().await {
                tracing::warn!(key = target.key, error = %left, "an unfinished upload may be left behind");
            }
            Err(error)
        }
    }
}

/// A frame on its way.
pub(super) type Sealing = JoinHandle<Result<Frame>>;

/// The blocking stage: scan, digest, cut into frames.
struct Scan {
    scanner: Scanner<EntrySink>,
    sha256: Sha256,
    frame: BytesMut,
    frame_bytes: usize,
    /// Data frames so far.
    number: u64,
    /// For how many data frames each filter frame so far has filters.
    filters: Vec<u32>,
    sealer: Sealer,
    sealed: mpsc::Sender<Sealing>,
    meter: Arc<Meter>,
}

struct Scanned {
    report: Report,
    slots: Vec<SlotEntry>,
    held: Vec<Held>,
    filters: Vec<u32>,
    /// Where the last entry ends, unless frames cannot be read alone.
    entries_end: Option<u64>,
    plain_sha256: [u8; 32],
    tail: Vec<u8>,
}

impl Scan {
    fn run(mut self, mut chunks: mpsc::Receiver<Bytes>, tail_bytes: usize) -> Result<Scanned> {
        let mut tail = Vec::new();
        while !(self.scanner.is_done() && tail.len() >= tail_bytes) {
            let Some(mut chunk) = chunks.blocking_recv() else { break };
            if !self.scanner.is_done() {
                let used = self.pass(&chunk)?;
                chunk = chunk.split_off(used.min(chunk.len()));
                self.meter.passed(self.scanner.offset(), self.scanner.sink().report.keys());
                for full in self.scanner.sink_mut().take_full() {
                    self.seal_filters(full)?;
                }
            }
            let wanted = tail_bytes.saturating_sub(tail.len());
            tail.extend(chunk.iter().take(wanted));
        }
        drop(chunks);
        if !self.scanner.is_done() {
            let bytes = self.scanner.offset();
            return Err(Error::new(
                Class::SourceUnavailable,
                format!("the source ended after {bytes} bytes, before the end of its RDB"),
            )
            .hint("the node or its saving child stopped in the middle; try again"));
        }
        let rest = self.frame.split();
        if !rest.is_empty() {
            self.seal(rest)?;
        }
        let (held, last, entries_end) = self.scanner.sink_mut().finish(usize::try_from(self.number).unwrap_or(0));
        last.map(|filters| self.seal_filters(filters)).transpose()?;
        let (summary, sink) = self.scanner.finish().map_err(|error| scan_error(&error))?;
        let (report, slots) = ReportSink::into_report(&summary, sink.report);
        let slots = slots.as_ref().map(entries).unwrap_or_default();
        let (filters, plain_sha256) = (self.filters, self.sha256.finalize().into());
        Ok(Scanned { report, slots, held, filters, entries_end, plain_sha256, tail })
    }

    /// Scans, digests and cuts, until the end of the RDB. How many of `bytes` belong to it.
    fn pass(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut passed = 0;
        for step in bytes.chunks(STEP_BYTES) {
            let used = self.scanner.feed(step).map_err(|error| scan_error(&error))?;
            let step = step.get(..used).unwrap_or(step);
            self.sha256.update(step);
            self.cut(step)?;
            passed += step.len();
            if self.scanner.is_done() {
                break;
            }
            std::thread::yield_now();
        }
        Ok(passed)
    }

    /// Copies `bytes` into frames and sends the full ones off to be sealed.
    fn cut(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.frame_bytes - self.frame.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if self.frame.is_empty() {
                self.frame.reserve(self.frame_bytes);
            }
            self.frame.extend_from_slice(now);
            bytes = later;
            if self.frame.len() == self.frame_bytes {
                let full = self.frame.split();
                self.seal(full)?;
            }
        }
        Ok(())
    }

    fn seal(&mut self, plain: BytesMut) -> Result<()> {
        let number = self.number;
        self.number += 1;
        self.send(number, Kind::Data, plain)
    }

    /// What was noted of frames that are on their way already.
    fn seal_filters(&mut self, filters: Filters) -> Result<()> {
        let number = FILTER_NUMBERS + self.filters.len() as u64;
        self.filters.push(filters.frames());
        self.send(number, Kind::Filter, filters.into_bytes())
    }

    fn send(&mut self, number: u64, kind: Kind, plain: impl AsRef<[u8]> + Send + 'static) -> Result<()> {
        let sealer = self.sealer.clone();
        let sealing = Handle::current().spawn_blocking(move || {
            let plain = plain.as_ref();
            let plain_bytes =
                u32::try_from(plain.len()).map_err(|_| Error::new(Class::Unforeseen, "a frame over 4 GiB"))?;
            Ok(Frame { kind, plain_bytes, stored: sealer.seal(number, kind, plain)? })
        });
        self.sealed.blocking_send(sealing).map_err(|_| Error::new(Class::StoreUnavailable, "the upload stopped"))
    }
}

fn entries(slots: &SlotStats) -> Vec<SlotEntry> {
    slots.iter().map(|(slot, keys, bytes)| SlotEntry { slot, keys, bytes }).collect()
}

/// What a scanner's error means for a capture or a restore.
pub(crate) fn scan_error(error: &rdbtools::ScanError) -> Error {
    use rdbtools::ErrorKind as Kind;
    let class = match error.kind {
        Kind::Unsupported => Class::Version,
        Kind::Truncated | Kind::Malformed | Kind::Checksum | Kind::NotRdb => Class::Verification,
    };
    let error = Error::new(class, error.to_string());
    if class == Class::Version { error.hint("the RDB is newer than this program: use a newer backupd") } else { error }
}

/// The asynchronous stage: digest, count, upload.
struct Writer {
    upload: Box<dyn Upload>,
    sha256: Sha256,
    stored_bytes: u64,
    frames: Vec<FrameEntry>,
    filters: Vec<FilterEntry>,
    meter: Arc<Meter>,
    rate: Option<Arc<Rate>>,
}

impl Writer {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        if let Some(rate) = &self.rate {
            rate.pass(bytes.len()).await;
        }
        self.sha256.update(&bytes);
        self.stored_bytes += bytes.len() as u64;
        self.upload.write(Bytes::from(bytes)).await?;
        self.meter.moved(self.stored_bytes);
        Ok(())
    }

    async fn frame(&mut self, frame: Frame) -> Result<()> {
        let Frame { kind, plain_bytes, stored } = frame;
        let stored_bytes =
            u32::try_from(stored.len()).map_err(|_| Error::new(Class::Unforeseen, "a frame of more than 4 GiB"))?;
        if kind == Kind::Filter {
            // for how many frames is told when all of it was scanned
            self.filters.push(FilterEntry { after: self.frames.len() as u64, frames: 0, stored_bytes });
        } else {
            let (slot_first, slot_last) = (index::SLOT_UNKNOWN, index::SLOT_UNKNOWN);
            self.frames.push(FrameEntry { plain_bytes, stored_bytes, slot_first, slot_last });
        }
        self.write(stored).await
    }

    async fn index(&mut self, sealer: &Sealer, scanned: &Scanned) -> Result<()> {
        for (frame, held) in self.frames.iter_mut().zip(&scanned.held) {
            (frame.slot_first, frame.slot_last) = (held.slot_first, held.slot_last);
        }
        for (filter, frames) in self.filters.iter_mut().zip(&scanned.filters) {
            filter.frames = *frames;
        }
        let spans = scanned.held.iter().map(|held| held.span).collect();
        let index = Index {
            plain_sha256: scanned.plain_sha256,
            frames: self.frames.clone(),
            slots: scanned.slots.clone(),
            entries: scanned.entries_end.map(|end| Entries { end, spans, filters: self.filters.clone() }),
        };
        let (offset, number) = (self.stored_bytes, self.frames.len() as u64);
        self.write(sealer.seal(number, Kind::Index, &index.encode())?).await?;
        self.write(index::encode_footer(offset).to_vec()).await
    }

    async fn complete(self, file: String, scanned: Scanned) -> Result<Written> {
        self.upload.complete().await?;
        let object = Object {
            file,
            stored_bytes: self.stored_bytes,
            stored_sha256: hex::encode(self.sha256.finalize()),
            plain_bytes: scanned.report.bytes,
            plain_sha256: hex::encode(scanned.plain_sha256),
            frames: self.frames.len() as u64,
        };
        Ok(Written { object, report: scanned.report, slots: scanned.slots })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdbtools::RdbVersion;
    use rdbtools::write::{finish, put_hash_template};

    use super::*;
    use crate::bkd::{Cipher, Compression};
    use crate::pipeline::spill::Spill;
    use crate::store::LocalStore;

    /// Stores an RDB of version 15 that holds `body`; answers with its keys and how many objects there are then.
    async fn store(body: &[u8]) -> (Result<u64>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(dir.path()));
        let target = Target {
            store: Arc::clone(&store),
            key: "shard.bkd".to_owned(),
            file: "shard.bkd".to_owned(),
            header: Header::new(Cipher::None, Compression::Zstd, "20261125T000000Z-00000000", 0, 1).unwrap(),
            data_key: None,
            level: 1,
            size_hint_bytes: 0,
            flow: Flow {
                spill: Spill::new(dir.path(), 1 << 20, Duration::from_secs(60)).unwrap(),
                source_rate: None,
                store_rate: None,
            },
        };
        let mut rdb = RdbVersion::redis(15).header();
        rdb.extend(body);
        finish(&mut rdb, RdbVersion::redis(15));
        let (sender, chunks) = mpsc::channel(1);
        sender.send(Bytes::from(rdb)).await.unwrap();
        drop(sender);
        let written = shard(target, chunks, 0, Box::new(|_, _| Ok(())), Arc::default()).await;
        let objects = store.list("", false, None).await.map_or(0, |page| page.objects.len());
        (written.map(|written| written.report.keys), objects)
    }

    #[tokio::test]
    async fn what_is_newer_than_this_program_is_refused_and_leaves_nothing() {
        let (stored, objects) = store(b"\xfe\x00\x00\x01a\x01b").await;
        assert_eq!((stored.unwrap(), objects), (1, 1));
        // a template of hashes with one field, and the hash that refers to it (Redis 8.10)
        let mut templated = Vec::new();
        put_hash_template(&mut templated, 5, &[b"field".to_vec()]);
        templated.extend(b"\x20\x01h\x05\x05value");
        let (stored, objects) = store(&templated).await;
        assert_eq!((stored.unwrap(), objects), (1, 1));
        // a type that no release writes
        let (refused, objects) = store(b"\x21\x01k\x01v").await;
        assert_eq!((refused.unwrap_err().class(), objects), (Class::Version, 0));
    }
}
