//! Sorts records of a fixed length in bounded memory: sorted runs in a file, merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Makes the files that hold what does not fit into memory: temporary ones, empty, to be written and read.
pub type Scratch<F> = Box<dyn FnMut() -> io::Result<F> + Send>;

/// What records may take in memory before they are written as a run.
const BUFFER_LEN: usize = 6 << 20;
/// How many runs are merged at once.
const RUNS_MAX: usize = 512;
/// How much of a run is read at once.
const READ_LEN: usize = 8 << 10;

/// Takes records in any order.
pub(super) struct Sorter<F, const N: usize> {
    buffer: Vec<[u8; N]>,
    capacity: usize,
    runs: Runs<F>,
}

/// Sorted runs, one behind the other in a file.
struct Runs<F> {
    file: Option<F>,
    /// Where each begins and ends.
    places: Vec<(u64, u64)>,
    end: u64,
}

impl<F> Default for Runs<F> {
    fn default() -> Self {
        Self { file: None, places: Vec::new(), end: 0 }
    }
}

impl<F: Read + Write + Seek, const N: usize> Sorter<F, N> {
    pub(super) fn new() -> Self {
        Self::with_capacity(BUFFER_LEN / N)
    }

    /// With this many records in memory.
    fn with_capacity(capacity: usize) -> Self {
        Self { buffer: Vec::new(), capacity, runs: Runs::default() }
    }

    pub(super) fn push(&mut self, record: [u8; N], scratch: &mut Scratch<F>) -> io::Result<()> {
        if self.buffer.len() >= self.capacity {
            self.buffer.sort_unstable();
            self.runs.add(self.buffer.drain(..).map(Ok), scratch)?;
        }
        self.buffer.push(record);
        Ok(())
    }

    /// The records in order, those that are the same as often as they came.
    pub(super) fn sorted(mut self, scratch: &mut Scratch<F>) -> io::Result<Sorted<F, N>> {
        self.buffer.sort_unstable();
        if self.runs.places.is_empty() {
            return Ok(Sorted { buffer: self.buffer.into_iter(), merge: None });
        }
        self.runs.add(self.buffer.drain(..).map(Ok), scratch)?;
        drop(self.buffer);
        while self.runs.places.len() > RUNS_MAX {
            self.runs = self.runs.fewer::<N>(scratch)?;
        }
        let places = std::mem::take(&mut self.runs.places);
        Ok(Sorted { buffer: Vec::new().into_iter(), merge: Some(Merge::new(self.runs.file, &places)?) })
    }
}

impl<F: Read + Write + Seek> Runs<F> {
    /// Writes a run behind the others.
    fn add<const N: usize>(
        &mut self,
        records: impl Iterator<Item = io::Result<[u8; N]>>,
        scratch: &mut Scratch<F>,
    ) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(scratch()?),
        };
        let mut out = io::BufWriter::with_capacity(READ_LEN * 32, file);
        let start = self.end;
        for record in records {
            out.write_all(&record?)?;
            self.end += N as u64;
        }
        out.flush()?;
        self.places.push((start, self.end));
        Ok(())
    }

    /// The same records in fewer runs, in another file.
    fn fewer<const N: usize>(self, scratch: &mut Scratch<F>) -> io::Result<Self> {
        let mut fewer = Self::default();
        let mut file = self.file;
        for places in self.places.chunks(RUNS_MAX) {
            let mut merge = Merge::<F, N>::new(file, places)?;
            fewer.add(std::iter::from_fn(|| merge.next().transpose()), scratch)?;
            file = merge.file;
        }
        Ok(fewer)
    }
}

/// Records in order.
pub(super) struct Sorted<F, const N: usize> {
    buffer: std::vec::IntoIter<[u8; N]>,
    merge: Option<Merge<F, N>>,
}

impl<F, const N: usize> Sorted<F, N> {
    /// No records.
    pub(super) fn none() -> Self {
        Self { buffer: Vec::new().into_iter(), merge: None }
    }
}

impl<F: Read + Seek, const N: usize> Iterator for Sorted<F, N> {
    type Item = io::Result<[u8; N]>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.merge {
            None => self.buffer.next().map(Ok),
            Some(merge) => merge.next().transpose(),
        }
    }
}

impl<F, const N: usize> fmt::Debug for Sorted<F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sorted").finish_non_exhaustive()
    }
}

/// Runs of one file that are merged.
struct Merge<F, const N: usize> {
    file: Option<F>,
    runs: Vec<Run>,
    /// The first record of each run that is not at its end.
    heads: BinaryHeap<Reverse<([u8; N], usize)>>,
}

struct Run {
    at: u64,
    end: u64,
    bytes: Vec<u8>,
    used: usize,
}

impl<F: Read + Seek, const N: usize> Merge<F, N> {
    fn new(file: Option<F>, places: &[(u64, u64)]) -> io::Result<Self> {
        let run = |&(at, end): &(u64, u64)| Run { at, end, bytes: Vec::new(), used: 0 };
        let mut merge =
            Self { file, runs: places.iter().map(run).collect(), heads: BinaryHeap::with_capacity(places.len()) };
        for index in 0..places.len() {
            merge.advance(index)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> io::Result<Option<[u8; N]>> {
        let Some(Reverse((record, run))) = self.heads.pop() else { return Ok(None) };
        self.advance(run)?;
        Ok(Some(record))
    }

    /// Takes the next record of a run to the heads.
    fn advance(&mut self, index: usize) -> io::Result<()> {
        let (Some(run), Some(file)) = (self.runs.get_mut(index), &mut self.file) else { return Ok(()) };
        if let Some(record) = run.next(file)? {
            self.heads.push(Reverse((record, index)));
        }
        Ok(())
    }
}

impl Run {
    fn next<const N: usize>(&mut self, file: &mut (impl Read + Seek)) -> io::Result<Option<[u8; N]>> {
        if self.used == self.bytes.len() {
            let length = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(READ_LEN / N * N);
            self.bytes.resize(length, 0);
            self.used = 0;
            file.seek(SeekFrom::Start(self.at))?;
            file.read_exact(&mut self.bytes)?;
            self.at += length as u64;
        }
        let record = self.bytes.get(self.used..).and_then(|rest| rest.first_chunk::<N>()).copied();
        self.used += record.map_or(0, |record| record.len());
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    proptest! {
        #[test]
        fn records_come_in_order(mut records in proptest::collection::vec(any::<[u8; 3]>(), 0..4000), capacity in 1usize..500) {
            let mut scratch: Scratch<Cursor<Vec<u8>>> = Box::new(|| Ok(Cursor::new(Vec::new())));
            let mut sorter = Sorter::with_capacity(capacity);
            for record in &records {
                sorter.push(*record, &mut scratch).unwrap();
            }
            let sorted: io::Result<Vec<[u8; 3]>> = sorter.sorted(&mut scratch).unwrap().collect();
            records.sort_unstable();
            prop_assert_eq!(sorted.unwrap(), records);
        }
    }

    #[test]
    fn what_cannot_be_written_or_read_is_an_error() {
        let mut scratch: Scratch<Cursor<Vec<u8>>> = Box::new(|| Err(io::ErrorKind::StorageFull.into()));
        let mut sorter = Sorter::with_capacity(2);
        sorter.push([1], &mut scratch).unwrap();
        sorter.push([2], &mut scratch).unwrap();
        assert_eq!(sorter.push([3], &mut scratch).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut cut = Merge::<_, 2> { file: Some(Cursor::new(vec![0; 3])), runs: Vec::new(), heads: BinaryHeap::new() };
        cut.runs.push(Run { at: 0, end: 4, bytes: Vec::new(), used: 0 });
        assert_eq!(cut.advance(0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
