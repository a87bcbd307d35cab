//! What an index says of the places of keys, counted again from the RDB: so that who reads some frames alone misses no key.
//!
//! Filters are compared by their digests, since all of them together grow with the number of keys.

use rdbtools::scan::Scanner;
use rdbtools::{Report, ReportSink};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::Meter;
use super::entries::{EntrySink, Held};
use super::pick::{header, open, read_range};
use super::read::Source;
use super::write::scan_error;
use crate::bkd::filter::Filters;
use crate::bkd::{Header, Index, Opener, SlotEntry, parts};
use crate::canonical::damaged;
use crate::error::Result;

/// What an RDB holds, and where.
#[derive(Debug)]
pub struct Counted {
    /// What the manifest says of it.
    pub report: Report,
    /// Keys and bytes per slot.
    pub slots: Vec<SlotEntry>,
    /// SHA-256 of the RDB.
    pub sha256: [u8; 32],
    held: Vec<Held>,
    /// Of each filter frame, for how many data frames it has filters, and the SHA-256 of its plain bytes.
    filters: Vec<(u32, [u8; 32])>,
    end: Option<u64>,
}

/// The header of an object, and what opens its frames.
#[derive(Debug)]
pub struct Head {
    header: Header,
    opener: Opener,
}

impl Head {
    /// Reads it.
    ///
    /// # Errors
    /// As [`super::read::shard`].
    pub async fn read(source: &Source) -> Result<Self> {
        let (header, opener) = header(source).await?;
        Ok(Self { header, opener })
    }

    /// The most plain bytes in a data frame.
    #[must_use]
    pub fn frame_bytes(&self) -> u32 {
        self.header.frame_bytes
    }
}

/// Scans an RDB that comes in pieces and was cut into frames of `frame_bytes`.
///
/// # Errors
/// `Verification` when it is not a whole valid RDB or bytes follow it, `Version` when it is newer than this program.
pub fn count(mut chunks: mpsc::Receiver<Vec<u8>>, frame_bytes: u32, meter: &Meter) -> Result<Counted> {
    let mut scanner = Scanner::new(EntrySink::new(frame_bytes));
    let (mut sha256, mut filters) = (Sha256::new(), Vec::new());
    let mut digest = |full: Filters| filters.push((full.frames(), Sha256::digest(full.into_bytes()).into()));
    while let Some(chunk) = chunks.blocking_recv() {
        sha256.update(&chunk);
        let used = scanner.feed(&chunk).map_err(|error| scan_error(&error))?;
        if used < chunk.len() {
            return Err(damaged("the RDB", "bytes follow its end"));
        }
        scanner.sink_mut().take_full().into_iter().for_each(&mut digest);
        meter.passed(scanner.offset(), scanner.sink().report.keys());
    }
    let frames = scanner.offset().div_ceil(u64::from(frame_bytes.max(1)));
    let (held, last, end) = scanner.sink_mut().finish(usize::try_from(frames).unwrap_or(usize::MAX));
    scanner.sink_mut().take_full().into_iter().chain(last).for_each(&mut digest);
    let (summary, sink) = scanner.finish().map_err(|error| scan_error(&error))?;
    let (report, slots) = ReportSink::into_report(&summary, sink.report);
    let slots = slots.map(|slots| slots.iter().map(|(slot, keys, bytes)| SlotEntry { slot, keys, bytes }).collect());
    Ok(Counted { report, slots: slots.unwrap_or_default(), sha256: sha256.finalize().into(), held, filters, end })
}

/// Compares what was counted with what the index and the filter frames of the object say. An index of version 1 says nothing.
///
/// # Errors
/// `Verification`, naming the object; what the store says.
pub async fn placed(source: &Source, head: &Head, index: &Index, counted: &Counted) -> Result<()> {
    let Some(entries) = &index.entries else { return Ok(()) };
    let slots = index.frames.iter().map(|frame| (frame.slot_first, frame.slot_last));
    let spans = counted.held.iter().map(|held| &held.span);
    if counted.end != Some(entries.end)
        || !slots.eq(counted.held.iter().map(|held| (held.slot_first, held.slot_last)))
        || !entries.spans.iter().eq(spans)
    {
        return Err(damaged(&source.key, "its index says that keys lie in other frames than they do"));
    }
    let wrong = || damaged(&source.key, "its key filters are not those of its keys");
    let frames = parts::filter_frames(entries, &parts::data_frames(index, entries));
    if frames.len() != counted.filters.len() {
        return Err(wrong());
    }
    for ((placed, _, count), (counted, sha256)) in frames.into_iter().zip(&counted.filters) {
        let stored = read_range(source, placed.offset, u64::from(placed.stored_bytes)).await?;
        let plain = open(&source.key, &head.header, &head.opener, placed, &stored)?;
        if count != *counted || Sha256::digest(&plain).as_slice() != sha256 {
            return Err(wrong());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rdbtools::RdbVersion;

    use super::super::pick::tests::{rdb, stored};
    use super::super::read;
    use super::*;
    use crate::error::Class;

    async fn counted(rdb: &[u8], frame_bytes: u32) -> Counted {
        let (sender, chunks) = mpsc::channel(1 + rdb.len() / 97);
        for chunk in rdb.chunks(97) {
            sender.send(chunk.to_vec()).await.unwrap();
        }
        drop(sender);
        tokio::task::spawn_blocking(move || count(chunks, frame_bytes, &Meter::default())).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn places_and_filters_are_those_of_the_keys_and_of_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let rdb = rdb(RdbVersion::redis(4));
        for frame_bytes in [64, 256, 1000, 1 << 20] {
            let source = stored(dir.path(), &rdb, frame_bytes).await;
            let index = read::index(&source).await.unwrap();
            let head = Head::read(&source).await.unwrap();
            assert_eq!(head.frame_bytes(), frame_bytes);
            let is_refused = |outcome: Result<()>| outcome.unwrap_err().class() == Class::Verification;
            placed(&source, &head, &index, &counted(&rdb, frame_bytes).await).await.unwrap();
            let entries = || index.entries.clone().unwrap();
            let end =
                Index { entries: Some(crate::bkd::Entries { end: entries().end + 1, ..entries() }), ..index.clone() };
            assert!(is_refused(placed(&source, &head, &end, &counted(&rdb, frame_bytes).await).await));
            let mut spans = entries();
            spans.spans[0].db += 1;
            let spans = Index { entries: Some(spans), ..index.clone() };
            assert!(is_refused(placed(&source, &head, &spans, &counted(&rdb, frame_bytes).await).await));
            let mut slots = index.clone();
            slots.frames[0].slot_last = slots.frames[0].slot_last.wrapping_add(1);
            assert!(is_refused(placed(&source, &head, &slots, &counted(&rdb, frame_bytes).await).await));
            let mut filters = counted(&rdb, frame_bytes).await;
            assert_eq!(filters.filters.is_empty(), frame_bytes == 1 << 20, "one frame needs no filter");
            if let Some((_, sha256)) = filters.filters.last_mut() {
                sha256[0] ^= 1;
                assert!(is_refused(placed(&source, &head, &index, &filters).await));
            }
            let without = Index { entries: None, ..index.clone() };
            placed(&source, &head, &without, &counted(&rdb, frame_bytes).await).await.unwrap();
        }
    }
}
