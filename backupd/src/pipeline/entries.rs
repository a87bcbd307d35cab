//! Where the entries of keys lie in the frames of a shard: what the index says of it, and the key filters.

use rdbtools::{Key, ModuleId, ReportSink, Sink};

use crate::bkd::filter::{Filters, digest};
use crate::bkd::{Span, index};

/// What a data frame holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) slot_first: u16,
    pub(super) slot_last: u16,
    pub(super) span: Span,
}

/// Counts what passes, and notes in which frames it lies. Of keys it holds digests: those of one frame.
#[derive(Debug)]
pub(super) struct EntrySink {
    pub(super) report: ReportSink,
    frame_bytes: u64,
    /// The key that is passing: where it begins, its slot, its digest, its database.
    key: (u64, u16, u64, u64),
    /// Whether no key so far had a lower slot than the one before it: then the ranges of slots tell enough.
    is_in_order: bool,
    /// The frame that is being noted, whose number is the length of `frames`.
    held: Held,
    digests: Vec<u64>,
    frames: Vec<Held>,
    filters: Filters,
    full: Vec<Filters>,
    /// Where the last entry ends.
    end: u64,
    /// Whether entries mean what they mean wherever they stand, so that some can be read without the others.
    is_separable: bool,
}

const NOTHING: Held = Held {
    slot_first: index::SLOT_UNKNOWN,
    slot_last: index::SLOT_UNKNOWN,
    span: Span { first_begin: None, last_end: None, db: 0 },
};

impl EntrySink {
    /// For frames of so many plain bytes.
    pub(super) fn new(frame_bytes: u32) -> Self {
        Self {
            report: ReportSink::new(true),
            frame_bytes: u64::from(frame_bytes).max(1),
            key: (0, 0, 0, 0),
            is_in_order: true,
            held: NOTHING,
            digests: Vec::new(),
            frames: Vec::new(),
            filters: Filters::default(),
            full: Vec::new(),
            end: 0,
            is_separable: true,
        }
    }

    /// Filter frames that are full since this was asked last.
    pub(super) fn take_full(&mut self) -> Vec<Filters> {
        std::mem::take(&mut self.full)
    }

    /// What `frames` data frames hold, in order, the last filter frame if it tells anything, and where the last entry
    /// ends, unless frames cannot be read alone.
    pub(super) fn finish(&mut self, frames: usize) -> (Vec<Held>, Option<Filters>, Option<u64>) {
        while self.frames.len() < frames {
            self.close();
        }
        // of one frame all is read anyway
        let filters = Some(std::mem::take(&mut self.filters)).filter(|filters| frames > 1 && filters.tells());
        (std::mem::take(&mut self.frames), filters, self.is_separable.then_some(self.end))
    }

    /// No further entry touches the frame.
    fn close(&mut self) {
        let held = std::mem::replace(&mut self.held, NOTHING);
        self.frames.push(held);
        if self.is_in_order || held.slot_first == held.slot_last {
            self.digests.clear();
        }
        // half a frame of filters is a filter frame, and one more filter still fits into it
        let filter_max = usize::try_from(self.frame_bytes / 2).unwrap_or(usize::MAX).saturating_sub(8);
        self.filters.push(&self.digests, filter_max);
        self.digests.clear();
        if self.filters.plain_len() >= filter_max {
            self.full.push(std::mem::take(&mut self.filters));
        }
    }

    /// The entry of `self.key` ends at `end`.
    fn note(&mut self, end: u64) {
        let (begin, slot, digest, db) = self.key;
        let (first, last) = (begin / self.frame_bytes, end.saturating_sub(1) / self.frame_bytes);
        let within = |place: u64, frame: u64| u32::try_from(place - frame * self.frame_bytes).ok();
        let (begins_at, ends_at) = (within(begin, first), within(end, last));
        for frame in first..=last {
            while (self.frames.len() as u64) < frame {
                self.close();
            }
            if frame == first && self.held.span.first_begin.is_none() {
                self.held.span.first_begin = begins_at;
                self.is_separable &= u32::try_from(db).map(|db| self.held.span.db = db).is_ok();
            }
            if frame == last {
                self.held.span.last_end = ends_at;
            }
            if self.held.slot_first == index::SLOT_UNKNOWN {
                (self.held.slot_first, self.held.slot_last) = (slot, slot);
            }
            self.held.slot_first = self.held.slot_first.min(slot);
            self.held.slot_last = self.held.slot_last.max(slot);
            self.digests.push(digest);
        }
        self.end = end;
    }
}

impl Sink for EntrySink {
    const TEMPLATES: bool = ReportSink::TEMPLATES;

    fn select_db(&mut self, db: u64) {
        self.report.select_db(db);
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.report.aux(name, value);
    }

    fn function(&mut self, source: &[u8]) {
        self.report.function(source);
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        self.report.function_pre_ga(name);
    }

    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.report.module_aux(module, when);
    }

    fn module_value(&mut self, module: ModuleId) {
        self.report.module_value(module);
    }

    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        self.report.key(key);
        let slot = self.report.slot();
        self.is_in_order &= self.key.1 <= slot;
        // a hash that refers to a template means nothing without the frame where that stands
        self.is_separable &= !key.value_type.name().starts_with("hash_template");
        self.key = (key.offset, slot, digest(key.name), key.db);
    }

    #[inline]
    fn key_end(&mut self, bytes: u64) {
        self.report.key_end(bytes);
        self.note(self.key.0 + bytes);
    }
}

#[cfg(test)]
mod tests {
    use rdbtools::RdbVersion;
    use rdbtools::scan::Scanner;

    use super::*;
    use crate::bkd::filter;

    /// An RDB of these keys in databases 0 and 3, with short and long values.
    fn rdb(names: &[String]) -> Vec<u8> {
        let mut rdb = RdbVersion::redis(10).header();
        for (number, name) in names.iter().enumerate() {
            if number == 0 || number == names.len() / 2 {
                rdb.extend([0xfe, if number == 0 { 0 } else { 3 }]);
            }
            let length = if number % 7 == 0 { 60 } else { 5 };
            rdb.extend([0, u8::try_from(name.len()).unwrap()]);
            rdb.extend(name.as_bytes());
            rdb.push(length);
            rdb.extend(vec![b'v'; usize::from(length)]);
        }
        rdbtools::write::finish(&mut rdb, RdbVersion::redis(10));
        rdb
    }

    fn notes(rdb: &[u8], frame_bytes: u32) -> (Vec<Held>, Vec<Filters>, Option<u64>) {
        let mut scanner = Scanner::new(EntrySink::new(frame_bytes));
        scanner.feed(rdb).unwrap();
        let sink = scanner.sink_mut();
        let (frames, last, end) = sink.finish(rdb.len().div_ceil(usize::try_from(frame_bytes).unwrap()));
        (frames, sink.take_full().into_iter().chain(last).collect(), end)
    }

    #[test]
    fn every_frame_that_an_entry_touches_knows_its_slot_and_its_key() {
        let names: Vec<String> = (0..60).map(|number| format!("key:{number}")).collect();
        let rdb = rdb(&names);
        let (frames, filters, end) = notes(&rdb, 40);
        let ends = rdb.len() as u64 - 9;
        assert_eq!((frames.len(), end), (rdb.len().div_ceil(40), Some(ends)));
        let bytes: Vec<(u32, Vec<u8>)> = filters.into_iter().map(|each| (each.frames(), each.into_bytes())).collect();
        let filters: Vec<_> =
            bytes.iter().flat_map(|(count, bytes)| filter::decode("x", bytes, *count).unwrap()).collect();
        for name in &names {
            let at = rdb
                .windows(name.len() + 1)
                .position(|window| usize::from(window[0]) == name.len() && &window[1..] == name.as_bytes());
            let begin = at.unwrap() - 1;
            let end = begin + 2 + name.len() + 1 + usize::from(rdb[begin + 2 + name.len()]);
            let slot = policies::slot::key_slot(name.as_bytes());
            for (frame, held) in frames.iter().enumerate().take((end - 1) / 40 + 1).skip(begin / 40) {
                assert!((held.slot_first..=held.slot_last).contains(&slot), "{name} in {frame}");
                assert!(filters.get(frame).is_none_or(|filter| filter.may_hold(digest(name.as_bytes()))), "{name}");
            }
            // a run that begins or ends with these frames has the whole entry
            assert!(frames[begin / 40].span.first_begin.unwrap() as usize <= begin % 40);
            assert!(frames[(end - 1) / 40].span.last_end.unwrap() as usize >= end - (end - 1) / 40 * 40);
        }
        let second = frames.iter().rev().find(|frame| frame.span.first_begin.is_some()).unwrap();
        assert_eq!(second.span.db, 3);
        let excluded = |name: &str| filters.iter().filter(|filter| !filter.may_hold(digest(name.as_bytes()))).count();
        assert!(excluded("key:59") > frames.len() / 2, "a filter that excludes nothing is none");
    }

    #[test]
    fn keys_in_the_order_of_their_slots_need_no_filter() {
        let mut names: Vec<String> = (0..60).map(|number| format!("key:{number}")).collect();
        names.sort_by_key(|name| policies::slot::key_slot(name.as_bytes()));
        let (frames, filters, _) = notes(&rdb(&names), 40);
        assert!(filters.iter().all(|filters| !filters.tells()));
        let known: Vec<&Held> = frames.iter().filter(|held| held.slot_first != index::SLOT_UNKNOWN).collect();
        assert!(known.len() > 20 && known.windows(2).all(|pair| pair[0].slot_last <= pair[1].slot_last));
    }

    #[test]
    fn hashes_that_refer_to_a_template_are_never_read_alone() {
        let mut rdb = RdbVersion::redis(15).header();
        rdbtools::write::put_hash_template(&mut rdb, 5, &[b"field".to_vec()]);
        rdb.extend(b"\x20\x01h\x05\x05value");
        rdbtools::write::finish(&mut rdb, RdbVersion::redis(15));
        assert_eq!(notes(&rdb, 16).2, None);
    }
}
