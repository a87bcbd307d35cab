//! Which bytes of an RDB are needed for some of its frames, so that what is left is an RDB again.

use std::collections::VecDeque;

use policies::slot::SlotSet;
use rdbtools::write::put_select_db;

use super::header::HEADER_LEN;
use super::index::{Entries, Index, SLOT_UNKNOWN};

/// Bytes of the RDB that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The database that must be selected before it; `None` where its own bytes say so.
    pub db: Option<u32>,
    /// Offset of its first byte in the RDB.
    pub begin: u64,
    /// Offset behind its last byte.
    pub end: u64,
}

/// A frame and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub number: u64,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Stored bytes of the whole frame.
    pub stored_bytes: u32,
    /// Offset of its first plain byte in the RDB; 0 for one of filters.
    pub begin: u64,
    /// Its plain bytes; 0 for one of filters, where the index does not tell.
    pub plain_bytes: u32,
}

/// What is read, and what of it is passed on: the head of the RDB (facts, functions), whole entries of keys, its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// In the order of the RDB.
    pub segments: Vec<Segment>,
    /// The data frames that they lie in, in order.
    pub frames: Vec<Placed>,
}

/// Which data frames hold keys of these slots, as far as the index tells.
#[must_use]
pub fn with_slots(index: &Index, slots: &SlotSet) -> Vec<bool> {
    let touches = |first: u16, last: u16| slots.ranges().any(|(low, high)| low <= last && first <= high);
    // a frame without a known slot has none: the head of the RDB, or its end
    index
        .frames
        .iter()
        .map(|frame| frame.slot_first != SLOT_UNKNOWN && touches(frame.slot_first, frame.slot_last))
        .collect()
}

/// The data frames, with their places in the file.
#[must_use]
pub fn data_frames(index: &Index, entries: &Entries) -> Vec<Placed> {
    let mut filters = entries.filters.iter().peekable();
    let (mut offset, mut begin) = (HEADER_LEN as u64, 0_u64);
    let placed = index.frames.iter().zip(0_u64..).map(|(frame, number)| {
        while let Some(filter) = filters.next_if(|filter| filter.after <= number) {
            offset = offset.saturating_add(u64::from(filter.stored_bytes));
        }
        let (stored_bytes, plain_bytes) = (frame.stored_bytes, frame.plain_bytes);
        let placed = Placed { number, offset, stored_bytes, begin, plain_bytes };
        offset = offset.saturating_add(u64::from(stored_bytes));
        begin = begin.saturating_add(u64::from(plain_bytes));
        placed
    });
    placed.collect()
}

/// The filter frames with their places, and for each the first of the data frames that it has filters for, and how many.
#[must_use]
pub fn filter_frames(entries: &Entries, frames: &[Placed]) -> Vec<(Placed, u64, u32)> {
    let (mut first, mut placed) = (0_u64, Vec::new());
    let mut behind = (0_u64, 0_u64);
    for (filter, count) in entries.filters.iter().zip(0_u64..) {
        let before = usize::try_from(filter.after).ok().and_then(|after| frames.get(after.checked_sub(1)?));
        let end = before.map_or(HEADER_LEN as u64, |frame| frame.offset.saturating_add(u64::from(frame.stored_bytes)));
        // several may follow each other
        let offset = if behind.0 == filter.after { end.max(behind.1) } else { end };
        let number = super::FILTER_NUMBERS | count;
        let frame = Placed { number, offset, stored_bytes: filter.stored_bytes, begin: 0, plain_bytes: 0 };
        placed.push((frame, first, filter.frames));
        behind = (filter.after, offset.saturating_add(u64::from(filter.stored_bytes)));
        first = first.saturating_add(u64::from(filter.frames));
    }
    placed
}

impl Parts {
    /// What is needed for the keys of the data frames that are marked in `wanted`. `end_len` bytes are left out at the end
    /// of the RDB: its checksum.
    #[must_use]
    pub fn of(index: &Index, entries: &Entries, wanted: &[bool], end_len: u64) -> Self {
        let frames = data_frames(index, entries);
        let all: Vec<_> = frames.iter().zip(&entries.spans).zip(wanted).collect();
        let first = all.iter().find_map(|((frame, span), _)| Some(frame.begin + u64::from(span.first_begin?)));
        let mut segments = vec![Segment { db: None, begin: 0, end: first.unwrap_or(entries.end) }];
        for run in all.chunk_by(|(.., a), (.., b)| a == b).filter(|run| run.iter().all(|(.., wanted)| **wanted)) {
            let begin =
                run.iter().find_map(|((frame, span), _)| Some((frame.begin + u64::from(span.first_begin?), span.db)));
            let end = run.iter().rev().find_map(|((frame, span), _)| Some(frame.begin + u64::from(span.last_end?)));
            if let (Some((begin, db)), Some(end)) = (begin, end)
                && begin < end
            {
                segments.push(Segment { db: Some(db), begin, end });
            }
        }
        let end = index.plain_bytes().saturating_sub(end_len);
        segments.push(Segment { db: None, begin: entries.end, end });
        let is_needed = |frame: &Placed| {
            let end = frame.begin.saturating_add(u64::from(frame.plain_bytes));
            segments.iter().any(|segment| segment.begin < end && frame.begin < segment.end)
        };
        let frames = frames.into_iter().filter(is_needed).collect();
        Self { segments, frames }
    }

    /// Stored bytes of the frames.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum()
    }
}

/// Cuts the segments out of frames, which come in order.
#[derive(Debug)]
pub struct Cutter {
    segments: VecDeque<Segment>,
}

impl Cutter {
    /// Cuts these.
    #[must_use]
    pub fn new(segments: Vec<Segment>) -> Self {
        Self { segments: segments.into() }
    }

    /// What is passed on of a frame whose first byte stands at `begin` in the RDB.
    pub fn cut(&mut self, begin: u64, plain: &[u8]) -> Vec<Vec<u8>> {
        let (mut pieces, end) = (Vec::new(), begin.saturating_add(plain.len() as u64));
        while let Some(segment) = self.segments.front_mut().filter(|segment| segment.begin < end) {
            if let Some(db) = segment.db.take() {
                let mut select = Vec::new();
                put_select_db(&mut select, u64::from(db));
                pieces.push(select);
            }
            let within = |place: u64| usize::try_from(place.saturating_sub(begin)).unwrap_or(usize::MAX);
            let (from, to) = (within(segment.begin), within(segment.end.min(end)));
            pieces.extend(plain.get(from..to).filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec));
            if segment.end > end {
                break;
            }
            self.segments.pop_front();
        }
        pieces
    }
}
