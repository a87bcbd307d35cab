//! `verify --deep`: what values hold, and keys that occur twice.

use std::path::Path;

use rdbtools::decode::Decoder;
use rdbtools::deep::{Deep, DeepSink, KeyDigests};
use rdbtools::{ErrorKind, Key, Report, ReportSink, ScanError, Scanner, Sink, Summary};
use serde::Serialize;

use super::duplicates::{Duplicate, Sorter};
use super::failure::Failure;
use super::input::Input;
use super::survey::Survey;

/// Memory for digests of keys, for all files that are read at the same time.
const SORT_MEMORY: usize = 48 << 20;
/// How much of a key's name a message shows.
const NAME_SHOWN_MAX: usize = 128;

/// What a file holds and what a closer look found.
#[derive(Debug, Serialize)]
pub(crate) struct DeepReport {
    #[serde(flatten)]
    pub(crate) report: Report,
    pub(crate) deep: Deep,
}

pub(super) struct VerifyDeep {
    memory: usize,
}

impl VerifyDeep {
    pub(super) fn new(threads: usize) -> Self {
        Self { memory: SORT_MEMORY / threads.max(1) }
    }
}

impl KeyDigests for Sorter {
    fn key_digest(&mut self, digest: u128, offset: u64) {
        self.add(digest, offset);
    }
}

impl Survey for VerifyDeep {
    type Sink = Decoder<DeepSink<Sorter>>;
    type Made = DeepReport;

    fn sink(&self) -> Self::Sink {
        Decoder::new(DeepSink::new(Sorter::new(self.memory)))
    }

    fn make(&self, summary: &Summary, sink: Self::Sink) -> DeepReport {
        let sink = sink.into_values();
        let deep = sink.found();
        DeepReport { report: ReportSink::into_report(summary, sink.into_report_sink()).0, deep }
    }

    fn counts(&self, sink: Self::Sink) -> ReportSink {
        sink.into_values().into_report_sink()
    }

    fn judge(&self, file: &Path, sink: &mut Self::Sink) -> Result<Option<ScanError>, Failure> {
        let sorter = sink.values_mut().keys_mut();
        let found = sorter.finish().map_err(|error| Failure::io(&std::env::temp_dir(), &error))?;
        let Some(duplicate) = found else { return Ok(None) };
        let name = if file == Path::new("-") { None } else { name(file, duplicate.second)? };
        Ok(Some(defect(&duplicate, name)))
    }
}

fn defect(duplicate: &Duplicate, key: Option<(u64, String)>) -> ScanError {
    let which = key.map_or("a key".to_owned(), |(db, name)| format!("key \"{name}\" of database {db}"));
    let others = match duplicate.keys {
        1 => String::new(),
        keys => format!("; {} other keys occur twice too", keys - 1),
    };
    let message = format!("{which} occurs twice, at byte {} and at byte {}{others}", duplicate.first, duplicate.second);
    ScanError { offset: duplicate.second, kind: ErrorKind::Malformed, message }
}

/// Finds the key whose entry begins at an offset.
struct KeyAt {
    offset: u64,
    found: Option<(u64, String)>,
}

impl Sink for KeyAt {
    fn key(&mut self, key: &Key<'_>) {
        if key.offset == self.offset {
            let shown = key.name.get(..NAME_SHOWN_MAX).unwrap_or(key.name);
            self.found = Some((key.db, shown.escape_ascii().to_string()));
        }
    }
}

/// Database and name of the key whose entry begins at `offset`, from a second look at the file.
fn name(file: &Path, offset: u64) -> Result<Option<(u64, String)>, Failure> {
    let mut input = Input::open(file)?;
    let mut scanner = Scanner::new(KeyAt { offset, found: None });
    while scanner.sink().found.is_none() {
        let bytes = input.next()?;
        // it was sound a moment ago; where it is not any more, the offsets must do
        if bytes.is_empty() || scanner.feed(bytes).is_err() {
            break;
        }
    }
    Ok(scanner.into_sink().found)
}
