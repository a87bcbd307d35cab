//! `verify --deep`: what values hold, and keys that occur twice.

use std::fs::File;
use std::path::Path;

use rdbtools::decode::Decoder;
use rdbtools::deep::{Deep, DeepSink};
use rdbtools::duplicates::{DuplicateError, Finder, Place, Rule};
use rdbtools::{ErrorKind, Report, ReportSink, ScanError, Summary};
use serde::Serialize;

use super::check::key_at;
use super::failure::{Class, Failure};
use super::input::is_standard_input;
use super::survey::Survey;

/// What a file holds and what a closer look found.
#[derive(Debug, Serialize)]
pub(crate) struct DeepReport {
    #[serde(flatten)]
    pub(crate) report: Report,
    pub(crate) deep: Deep,
}

pub(super) struct VerifyDeep;

/// A finder whose temporary files have no name: they are gone when the process ends, however it ends.
fn finder() -> Finder<File> {
    Finder::new(None, Box::new(tempfile::tempfile))
}

impl Survey for VerifyDeep {
    type Sink = Decoder<DeepSink<Finder<File>>>;
    type Made = DeepReport;

    fn sink(&self) -> Self::Sink {
        Decoder::new(DeepSink::new(finder()))
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
        let finder = std::mem::replace(sink.values_mut().keys_mut(), finder());
        match finder.finish(&Rule::Fail) {
            Ok(_) => Ok(None),
            Err(DuplicateError::Scratch(error)) => Err(Failure::new(
                Class::Unforeseen,
                format!("{}: keys that occur twice cannot be looked for: {error}", std::env::temp_dir().display()),
            )),
            Err(DuplicateError::Unresolved { places, keys }) => {
                let [_, second] = places;
                let name = if is_standard_input(file) { None } else { key_at(file, second.offset)? };
                Ok(Some(defect(places, keys, name)))
            }
        }
    }
}

fn defect([first, second]: [Place; 2], keys: u64, key: Option<(u64, String)>) -> ScanError {
    let which = key.map_or("a key".to_owned(), |(db, name)| format!("key \"{name}\" of database {db}"));
    let others = match keys {
        1 => String::new(),
        keys => format!("; {} other keys occur twice too", keys - 1),
    };
    let message = format!("{which} occurs twice, at byte {} and at byte {}{others}", first.offset, second.offset);
    ScanError { offset: second.offset, kind: ErrorKind::Malformed, message }
}
