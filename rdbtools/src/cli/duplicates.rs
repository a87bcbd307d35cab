//! Finds digests that occur twice among any number of them, in bounded memory.
//!
//! Digests are collected until the memory is full, sorted and written to a temporary file as one run; in the end
//! the runs are merged. The file has no name: it is gone when the process ends, however it ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// A digest and an offset, big-endian so that their order is that of their bytes.
const RECORD_LEN: usize = 24;
/// How much of a run is read at once at most.
const READ_LEN_MAX: usize = 256 << 10;

type Record = (u128, u64);

/// Keys that occur twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duplicate {
    /// Where the entry of one of them begins.
    pub(crate) first: u64,
    /// Where it begins again: the least offset at which any key occurs a second time.
    pub(crate) second: u64,
    /// How many keys occur twice or more.
    pub(crate) keys: u64,
}

/// Collects digests.
#[derive(Debug)]
pub(crate) struct Sorter {
    records: Vec<Record>,
    limit: usize,
    file: Option<File>,
    /// Where each run begins and ends in the file.
    runs: Vec<(u64, u64)>,
    failed: Option<io::Error>,
}

impl Sorter {
    /// A sorter that takes `memory` bytes.
    pub(crate) fn new(memory: usize) -> Self {
        let limit = (memory / size_of::<Record>()).max(2);
        Self { records: Vec::new(), limit, file: None, runs: Vec::new(), failed: None }
    }

    pub(crate) fn add(&mut self, digest: u128, offset: u64) {
        if self.records.len() >= self.limit
            && let Err(error) = self.spill()
        {
            self.failed.get_or_insert(error);
        }
        if self.failed.is_none() {
            // it grows by half, not to the double, and not beyond the limit
            if self.records.len() == self.records.capacity() {
                let more = (self.records.len() / 2).max(1024);
                self.records.reserve_exact(more.min(self.limit - self.records.len()));
            }
            self.records.push((digest, offset));
        }
    }

    /// Writes what is in memory as one run.
    fn spill(&mut self) -> io::Result<()> {
        self.records.sort_unstable();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        let start = self.runs.last().map_or(0, |(_, end)| *end);
        let end = start + (self.records.len() * RECORD_LEN) as u64;
        let mut writer = io::BufWriter::with_capacity(READ_LEN_MAX, file);
        for (digest, offset) in self.records.drain(..) {
            writer.write_all(&digest.to_be_bytes())?;
            writer.write_all(&offset.to_be_bytes())?;
        }
        writer.flush()?;
        self.runs.push((start, end));
        Ok(())
    }

    /// What occurs twice, if anything does. The digests are gone afterwards.
    ///
    /// # Errors
    /// When the temporary file could not be written or read.
    pub(crate) fn finish(&mut self) -> io::Result<Option<Duplicate>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut found = Found::default();
        if self.runs.is_empty() {
            self.records.sort_unstable();
            self.records.drain(..).for_each(|record| found.add(record));
            return Ok(found.end());
        }
        self.spill()?;
        let memory = self.limit * size_of::<Record>();
        self.records = Vec::new();
        let Some(file) = &self.file else { return Ok(None) };
        let length = (memory / self.runs.len()).min(READ_LEN_MAX) / RECORD_LEN * RECORD_LEN;
        let mut runs: Vec<Run<'_>> = self.runs.iter().map(|(at, end)| Run::new(file, *at, *end, length)).collect();
        let mut heap = BinaryHeap::with_capacity(runs.len());
        for (index, run) in runs.iter_mut().enumerate() {
            heap.extend(run.next()?.map(|record| Reverse((record, index))));
        }
        while let Some(Reverse((record, index))) = heap.pop() {
            found.add(record);
            if let Some(run) = runs.get_mut(index) {
                heap.extend(run.next()?.map(|record| Reverse((record, index))));
            }
        }
        Ok(found.end())
    }
}

/// Reads one run.
#[derive(Debug)]
struct Run<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
    length: usize,
}

impl<'a> Run<'a> {
    fn new(file: &'a File, at: u64, end: u64, length: usize) -> Self {
        Self { file, at, end, buffer: Vec::new(), used: 0, length: length.max(RECORD_LEN) }
    }

    fn next(&mut self) -> io::Result<Option<Record>> {
        if self.used == self.buffer.len() {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(self.length);
            if left == 0 {
                return Ok(None);
            }
            self.buffer.resize(left, 0);
            self.file.read_exact_at(&mut self.buffer, self.at)?;
            self.at += left as u64;
            self.used = 0;
        }
        let record = self.buffer.get(self.used..).unwrap_or_default();
        let digest = record.first_chunk().map(|bytes| u128::from_be_bytes(*bytes));
        let offset = record.get(16..).and_then(|rest| rest.first_chunk()).map(|bytes| u64::from_be_bytes(*bytes));
        self.used += RECORD_LEN;
        Ok(digest.zip(offset))
    }
}

/// Looks at records in order.
#[derive(Debug, Default)]
struct Found {
    last: Option<Record>,
    /// Whether the last digest was counted already.
    counted: bool,
    duplicate: Option<Duplicate>,
}

impl Found {
    fn add(&mut self, record: Record) {
        match self.last {
            Some((digest, first)) if digest == record.0 => {
                if self.counted {
                    return;
                }
                self.counted = true;
                let keys = self.duplicate.map_or(0, |duplicate| duplicate.keys) + 1;
                let earlier = self.duplicate.filter(|duplicate| duplicate.second < record.1);
                let (first, second) = earlier.map_or((first, record.1), |earlier| (earlier.first, earlier.second));
                self.duplicate = Some(Duplicate { first, second, keys });
            }
            _ => {
                self.last = Some(record);
                self.counted = false;
            }
        }
    }

    fn end(self) -> Option<Duplicate> {
        self.duplicate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_across_runs_and_named_by_the_earliest() {
        for memory in [100, 1000, 1 << 20] {
            let mut sorter = Sorter::new(memory);
            for number in 0..1000u64 {
                sorter.add(u128::from(number * 7919 % 1009) << 100, number);
            }
            assert_eq!(sorter.finish().unwrap(), None);

            let mut sorter = Sorter::new(memory);
            for number in 0..1000u64 {
                sorter.add(u128::from(number % 700), number * 10);
            }
            sorter.add(5, 20_000);
            assert_eq!(sorter.finish().unwrap(), Some(Duplicate { first: 0, second: 7000, keys: 300 }));
        }
    }
}
