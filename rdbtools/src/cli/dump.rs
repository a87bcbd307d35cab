//! `dump`: writes everything that a file holds, checking it at the same time.

mod json;
mod plain;
mod text;

use std::io::{self, BufWriter, StdoutLock, Write};

use rdbtools::commands::{Commands, Output};
use rdbtools::decode::{Decoder, Values};
use rdbtools::{ErrorKind, ScanError, Scanner, Sink};

use super::failure::{Class, Failure};
use super::input::{Input, trailing};
use super::{Dump, DumpFormat, Format, print};

use json::Json;

/// How much is written at once.
const WRITE_LEN: usize = 256 << 10;

/// The standard output, buffered. A scan cannot carry an error of the system or a refusal, so they are kept here.
struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    failed: Option<io::Error>,
    refusal: Option<Failure>,
}

impl Out {
    fn new() -> Self {
        Self { writer: BufWriter::with_capacity(WRITE_LEN, io::stdout().lock()), failed: None, refusal: None }
    }
}

impl Output for Out {
    /// Writes, or ends the scan.
    fn put(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        self.check()?;
        self.writer.write_all(bytes).map_err(|error| {
            let message = error.to_string();
            self.failed.get_or_insert(error);
            stop(message)
        })
    }

    /// Nothing is written from here on, and the scan ends where it can.
    fn refuse(&mut self, message: String, hint: &str) {
        self.refusal.get_or_insert(Failure::new(Class::Refused, message).hint(hint));
    }

    fn check(&self) -> Result<(), ScanError> {
        self.refusal.as_ref().map_or(Ok(()), |refusal| Err(stop(refusal.message.clone())))
    }
}

/// Ends a scan for a reason that is kept elsewhere.
fn stop(message: String) -> ScanError {
    ScanError { offset: 0, kind: ErrorKind::Unsupported, message }
}

/// A format of the decoder's own.
trait Dumper: Values {
    /// Nothing comes after this.
    fn close(&mut self) -> Result<(), ScanError>;
    /// Where it is written to.
    fn out(&mut self) -> &mut Out;
    /// What could not be written, and how often.
    fn losses(&self) -> Vec<String>;
}

impl Dumper for Commands<Out> {
    fn close(&mut self) -> Result<(), ScanError> {
        self.out().check()
    }

    fn out(&mut self) -> &mut Out {
        self.out()
    }

    fn losses(&self) -> Vec<String> {
        self.losses()
    }
}

/// Dumps a file; the exit code.
pub(super) fn dump(dump: &Dump, format: Format) -> Result<u8, Failure> {
    let losses = match dump.format {
        DumpFormat::Json => run(dump, Json::new(Out::new())),
        DumpFormat::Resp => run(dump, Commands::new(Out::new(), dump.skip_modules)),
        DumpFormat::Plain => plain::dump(&dump.file, Out::new()).map(|()| Vec::new()),
    }?;
    print::losses(&losses, format);
    Ok(0)
}

fn run<D: Dumper>(dump: &Dump, dumper: D) -> Result<Vec<String>, Failure> {
    let mut scanner = Scanner::new(Decoder::new(dumper));
    let scanned = feed(&mut scanner, dump);
    let path = dump.file.as_path();
    let outcome = match scanned {
        Ok(None) => scanner.outcome().err(),
        Ok(Some(error)) => Some(error),
        Err(failure) => return Err(failure),
    };
    let dumper = scanner.sink_mut().values_mut();
    let closed = if outcome.is_none() { dumper.close().err() } else { None };
    let out = dumper.out();
    let flushed = out.writer.flush();
    if let Some(error) = out.failed.take().or(flushed.err()) {
        return written(error);
    }
    if let Some(refusal) = out.refusal.take() {
        return Err(refusal);
    }
    match outcome.or(closed) {
        Some(error) => Err(Failure::defect(path, &error)),
        None => Ok(dumper.losses()),
    }
}

/// Whoever reads has seen enough, or nothing more can be written.
fn written(error: io::Error) -> Result<Vec<String>, Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Vec::new());
    }
    Err(Failure::new(Class::Unforeseen, format!("cannot write: {error}")))
}

/// Feeds a whole file, and answers with what is wrong with it or behind its end.
fn feed<S: Sink>(scanner: &mut Scanner<S>, dump: &Dump) -> Result<Option<ScanError>, Failure> {
    let mut input = Input::open(&dump.file)?;
    loop {
        let bytes = input.next()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match scanner.feed(bytes) {
            Err(error) => return Ok(Some(error)),
            Ok(used) if used < bytes.len() => return Ok(Some(trailing(scanner.offset()))),
            Ok(_) => {}
        }
    }
}
