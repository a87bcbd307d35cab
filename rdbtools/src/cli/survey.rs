//! `verify` and `info`: read files to their end and say what they hold.

use std::path::{Path, PathBuf};

use rdbtools::info::{Info, InfoSink};
use rdbtools::{CrcState, RdbVersion, Report, ReportSink, ScanError, Scanner, Sink, Summary};
use serde::Serialize;

use super::checker::Checker;
use super::deep::VerifyDeep;
use super::failure::{Class, Failure};
use super::input::{Input, can_be_read_again, trailing};
use super::{Format, now_unix_ms, parallel, print};

/// What a file turned out to be.
pub(crate) enum Outcome<T> {
    /// A sound RDB.
    Sound(T),
    /// Defective, with what was counted up to the defect.
    Defective {
        /// Its version, where the header could be read.
        version: Option<RdbVersion>,
        /// Counts and bytes up to the defect.
        counted: Box<Report>,
        /// The defect.
        error: ScanError,
    },
    /// It could not be read.
    Unread(Failure),
}

impl<T> Outcome<T> {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Sound(_) => 0,
            Self::Defective { error, .. } => Class::of_defect(error.kind).exit_code(),
            Self::Unread(failure) => failure.class.exit_code(),
        }
    }
}

/// A command that reads files and makes one thing of each.
pub(super) trait Survey: Sync {
    type Sink: Sink;
    type Made: Serialize + Send;
    fn sink(&self) -> Self::Sink;
    fn make(&self, summary: &Summary, sink: Self::Sink) -> Self::Made;
    fn counts(&self, sink: Self::Sink) -> ReportSink;
    /// What is wrong with a file that was read to its end.
    fn judge(&self, _file: &Path, _sink: &mut Self::Sink) -> Result<Option<ScanError>, Failure> {
        Ok(None)
    }
}

struct Verify;

impl Survey for Verify {
    type Sink = ReportSink;
    type Made = Report;

    fn sink(&self) -> ReportSink {
        ReportSink::new(false)
    }

    fn make(&self, summary: &Summary, sink: ReportSink) -> Report {
        ReportSink::into_report(summary, sink).0
    }

    fn counts(&self, sink: ReportSink) -> ReportSink {
        sink
    }
}

struct Inspect {
    /// How many of the largest keys are shown.
    top: usize,
    now_unix_ms: i64,
}

impl Survey for Inspect {
    type Sink = InfoSink;
    type Made = Info;

    fn sink(&self) -> InfoSink {
        InfoSink::new(self.top, self.now_unix_ms)
    }

    fn make(&self, summary: &Summary, sink: InfoSink) -> Info {
        InfoSink::into_info(summary, sink)
    }

    fn counts(&self, sink: InfoSink) -> ReportSink {
        sink.into_report_sink()
    }
}

/// Checks files.
pub(crate) fn verify(files: &[PathBuf], format: Format) -> Result<u8, Failure> {
    let alone = files.len() == 1;
    let outcomes = parallel::map(files, |file| survey_one(&Verify, file, alone));
    finish(files, outcomes, format, print::verified)
}

/// Checks files and what their values hold.
pub(crate) fn verify_deep(files: &[PathBuf], format: Format) -> Result<u8, Failure> {
    let outcomes = parallel::map(files, |file| survey_one(&VerifyDeep, file, false));
    finish(files, outcomes, format, print::verified_deep)
}

/// Shows what files hold.
pub(crate) fn info(files: &[PathBuf], top: usize, format: Format) -> Result<u8, Failure> {
    let inspect = Inspect { top, now_unix_ms: i64::try_from(now_unix_ms()).unwrap_or(i64::MAX) };
    let alone = files.len() == 1;
    let outcomes = parallel::map(files, |file| survey_one(&inspect, file, alone));
    finish(files, outcomes, format, print::inspected)
}

fn finish<T: Serialize>(
    files: &[PathBuf],
    mut outcomes: Vec<Outcome<T>>,
    format: Format,
    table: impl Fn(&Path, &Outcome<T>) -> String,
) -> Result<u8, Failure> {
    let code = outcomes.iter().map(Outcome::exit_code).find(|code| *code != 0).unwrap_or(0);
    // of one file that cannot be read there is nothing to report: it is an error of the command
    if outcomes.len() == 1
        && let Some(Outcome::Unread(failure)) = outcomes.pop_if(|outcome| matches!(outcome, Outcome::Unread(_)))
    {
        return Err(failure);
    }
    print::reports(files, &outcomes, format, table)?;
    Ok(code)
}

/// Surveys a file with the help of another thread. What is sound is sound; of anything else a scan on one thread
/// tells which defect is the first, and what was counted up to it.
fn survey_helped<S: Survey>(survey: &S, file: &Path) -> Option<Outcome<S::Made>> {
    let mut scanner = Scanner::new(survey.sink()).deferring_compressed();
    let (mut input, mut checker) = (Input::open(file).ok()?, Checker::start());
    loop {
        let bytes = input.next().ok()?;
        if bytes.is_empty() {
            break;
        }
        if scanner.feed(bytes).ok()? < bytes.len() {
            return None;
        }
        checker.check(&input, scanner.compressed());
    }
    if !checker.join() {
        return None;
    }
    let (summary, sink) = scanner.finish().ok()?;
    Some(Outcome::Sound(survey.make(&summary, sink)))
}

fn survey_one<S: Survey>(survey: &S, file: &Path, alone: bool) -> Outcome<S::Made> {
    if alone
        && can_be_read_again(file)
        && let Some(outcome) = survey_helped(survey, file)
    {
        return outcome;
    }
    let mut scanner = Scanner::new(survey.sink());
    let trailing = match read(&mut scanner, file) {
        Err(failure) => return Outcome::Unread(failure),
        Ok(trailing) => trailing,
    };
    let (version, bytes) = (scanner.version(), scanner.offset());
    let mut outcome = trailing.map_or(scanner.outcome(), Err);
    if outcome.is_ok() {
        match survey.judge(file, scanner.sink_mut()) {
            Err(failure) => return Outcome::Unread(failure),
            Ok(defect) => outcome = defect.map_or(outcome, Err),
        }
    }
    match outcome {
        Ok(summary) => Outcome::Sound(survey.make(&summary, scanner.into_sink())),
        Err(error) => {
            let counts = survey.counts(scanner.into_sink());
            let summary = Summary { version: version.unwrap_or(RdbVersion::redis(0)), crc: CrcState::Absent, bytes };
            let counted = Box::new(ReportSink::into_report(&summary, counts).0);
            Outcome::Defective { version, counted, error }
        }
    }
}

/// Feeds a whole file up to its first defect, and answers with what is wrong behind its end.
pub(super) fn read<S: Sink>(scanner: &mut Scanner<S>, file: &Path) -> Result<Option<ScanError>, Failure> {
    let mut input = Input::open(file)?;
    loop {
        let bytes = input.next()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match scanner.feed(bytes) {
            Err(_) => return Ok(None),
            Ok(used) if used < bytes.len() => return Ok(Some(trailing(scanner.offset()))),
            Ok(_) => {}
        }
    }
}
