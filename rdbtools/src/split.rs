//! Any number of RDBs in, any number out, every key in the output whose slots it belongs to.
//!
//! Values pass as they are: what was encoded or compressed stays so, and nothing of a value is held. Around
//! them the splitter writes what a server needs: header, facts about the engine, functions and module data
//! (in every output, what is the same once), database numbers, expiries, idle times and frequencies, end and
//! checksum. Dropped are facts that are only true of the input: replication position, time and memory of the
//! save, size hints, imports of slots that were under way.
//!
//! Size hints are those of the databases and those of the slots that servers in cluster mode write (Redis 7.4
//! and later): they are true of an input, not of the part of it that an output gets, and no server needs them.
//!
//! A splitter by itself does not notice the same key in two inputs, and a server that loads an output with a
//! key twice refuses it. Where inputs share slots, [`duplicates`](crate::duplicates) finds such keys first and
//! decides which stays.
//!
//! ```
//! use policies::slot::SlotSet;
//! use rdbtools::split::{SplitOptions, Splitter};
//! use rdbtools::RdbVersion;
//!
//! let low = SlotSet::range(0, 8191).unwrap();
//! let options = SplitOptions::new(RdbVersion::redis(10));
//! let mut splitter = Splitter::new(vec![low.clone(), low.complement()], vec![Vec::new(), Vec::new()], options)?;
//! splitter.begin_input("dump.rdb")?;
//! splitter.feed(b"REDIS0003\xfe\x00\x00\x03foo\x03bar\xff")?;
//! assert_eq!(splitter.end_input()?.keys, 1);
//! let outputs = splitter.finish()?;
//! assert_eq!((outputs[0].keys, outputs[1].keys), (0, 1)); // foo is in slot 12182
//! # Ok::<(), rdbtools::split::SplitError>(())
//! ```

mod carried;
mod left_out;
mod modules;
mod outlet;
mod router;
mod target;

use std::collections::BTreeMap;
use std::io;

use policies::shards::{PlanError, check_cover};
use policies::slot::SlotSet;

use crate::crc64::Crc64;
use crate::duplicates::Place;
use crate::error::ScanError;
use crate::report::{DbCounts, Report, ReportSink};
use crate::scan::Scanner;
use crate::select::Selection;
use crate::version::RdbVersion;
use crate::write;

use router::Router;

pub use outlet::Outlet;
pub(crate) use router::library_name;

/// Input is taken in pieces of this size; after each, full buffers are written.
const PIECE_LEN: usize = 128 << 10;
/// What the buffers of all outputs may hold together before they are written.
const BUFFERS_LEN: usize = 8 << 20;
/// A buffer is never smaller than this, however many outputs there are.
const BUFFER_LEN_MIN: usize = 8 << 10;
/// A buffer is never larger than this, however few outputs there are.
const BUFFER_LEN_MAX: usize = 256 << 10;

/// What becomes of expiries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// They stay.
    #[default]
    Keep,
    /// No key of the output expires.
    Drop,
    /// They move by this many ms.
    Shift(i64),
}

/// How inputs are split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitOptions {
    /// Magic and version of the outputs. An input with another magic or a higher number is refused.
    pub version: RdbVersion,
    /// What becomes of expiries, of keys and of the fields of hashes. Those of fields in the encodings of the release
    /// candidates of Redis 7.4 stay as they are.
    pub ttl: Ttl,
    /// Take the keys of this database only; those of others are left out.
    pub db: Option<u64>,
    /// Which keys are taken; the others are left out.
    pub select: Selection,
    /// The outputs are shards of a cluster, which has database 0 only: keys of other databases are refused,
    /// unless `db` picks one, which then becomes database 0.
    pub cluster: bool,
    /// The time, in ms since 1970: to count keys that are expired already, which are written all the same,
    /// and to date the outputs.
    pub now_unix_ms: u64,
    /// The inputs were scanned before and are known to be the same bytes: compressed strings that are at hand pass without
    /// being looked into.
    pub scanned_before: bool,
}

impl SplitOptions {
    /// Outputs of this version for a cluster, expiries as they are, at time 0.
    #[must_use]
    pub const fn new(version: RdbVersion) -> Self {
        let select = Selection { include: Vec::new(), exclude: Vec::new(), families: Vec::new(), slots: None };
        Self { version, ttl: Ttl::Keep, db: None, select, cluster: true, now_unix_ms: 0, scanned_before: false }
    }
}

/// Why a split ended early. What was written by then is not a whole RDB.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// An input is not a sound RDB.
    #[error("{input}: {error}")]
    Scan {
        /// Name of the input.
        input: String,
        /// The first defect.
        error: ScanError,
    },
    /// Writing failed.
    #[error("cannot write output {output}: {source}")]
    Write {
        /// Index of the output.
        output: usize,
        /// What the writer said.
        source: io::Error,
    },
    /// The targets do not hold every slot once.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An input holds what the outputs must not or cannot hold.
    #[error("{input}: {message}")]
    Refused {
        /// Name of the input.
        input: String,
        /// What is refused and why.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The list of keys to leave out could not be read.
    #[error("the list of keys that are left out cannot be read: {0}")]
    LeftOut(io::Error),
    /// A call at the wrong time: an input inside an input, bytes without one, anything after an error.
    #[error("{0}")]
    Order(&'static str),
}

/// What an output holds.
#[derive(Debug)]
pub struct OutputReport<W> {
    /// The writer, flushed.
    pub writer: W,
    /// Length in bytes.
    pub bytes: u64,
    /// Keys.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// Keys whose expiry is not after the time given in the options.
    pub expired: u64,
    /// Counts per database, by its number in the output.
    pub databases: BTreeMap<u64, DbCounts>,
}

/// Splits and merges RDBs. Feed one input after another, then finish.
#[derive(Debug)]
pub struct Splitter<W> {
    state: State,
    outputs: Vec<Output<W>>,
    buffer_len: usize,
    input: String,
    options: SplitOptions,
}

#[derive(Debug)]
enum State {
    Between(Box<Router>),
    Within(Box<Scanner<Router>>),
    Broken,
}

#[derive(Debug)]
struct Output<W> {
    writer: W,
    crc: Crc64,
    bytes: u64,
}

impl<W: Outlet> Splitter<W> {
    /// A splitter that writes the keys of `targets[i]` to `outputs[i]`.
    ///
    /// One target with all slots, and `cluster` not set in the options, is a merge: all databases are kept.
    ///
    /// # Errors
    /// When the targets do not hold every slot exactly once, or there are not as many outputs as targets.
    pub fn new(targets: Vec<SlotSet>, outputs: Vec<W>, options: SplitOptions) -> Result<Self, SplitError> {
        check_cover(&targets)?;
        if targets.len() != outputs.len() {
            return Err(SplitError::Order("there must be as many outputs as targets"));
        }
        let buffer_len = (BUFFERS_LEN / targets.len().max(1)).clamp(BUFFER_LEN_MIN, BUFFER_LEN_MAX);
        Ok(Self {
            state: State::Between(Box::new(Router::new(&targets, options.clone()))),
            outputs: outputs.into_iter().map(|writer| Output { writer, crc: Crc64::new(), bytes: 0 }).collect(),
            buffer_len,
            input: String::new(),
            options,
        })
    }

    /// Leaves out the keys at these places, which must come in order. To be called before the first input.
    ///
    /// # Errors
    /// When an input has begun already, or the first place cannot be read.
    pub fn leave_out<P>(&mut self, places: P) -> Result<(), SplitError>
    where
        P: Iterator<Item = io::Result<Place>> + Send + 'static,
    {
        match &mut self.state {
            State::Between(router) if router.inputs_ended() == 0 => {
                router.leave_out(Box::new(places)).map_err(SplitError::LeftOut)
            }
            _ => Err(SplitError::Order("keys to leave out are told before the first input")),
        }
    }

    /// Begins an input; `name` names it in errors.
    ///
    /// # Errors
    /// When another input has not ended.
    pub fn begin_input(&mut self, name: &str) -> Result<(), SplitError> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Between(router) => {
                let scanner = Scanner::new(*router);
                let scanner = if self.options.scanned_before { scanner.deferring_compressed() } else { scanner };
                self.state = State::Within(Box::new(scanner));
                name.clone_into(&mut self.input);
                Ok(())
            }
            _ => Err(SplitError::Order("an input begins inside another, or after an error")),
        }
    }

    /// Takes in bytes of the input and answers how many of them belonged to it: all of them, or fewer when
    /// its end was reached.
    ///
    /// # Errors
    /// The first defect of the input, what it holds that is refused, or a failed write.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, SplitError> {
        let result = self.feed_pieces(bytes);
        if result.is_err() {
            self.state = State::Broken;
        }
        result
    }

    fn feed_pieces(&mut self, bytes: &[u8]) -> Result<usize, SplitError> {
        let State::Within(scanner) = &mut self.state else {
            return Err(SplitError::Order("bytes outside an input, or after an error"));
        };
        let mut fed = 0;
        for piece in bytes.chunks(PIECE_LEN) {
            if scanner.is_done() {
                break;
            }
            let result = scanner.feed(piece);
            // what the router refuses comes before a defect that the scanner met after it
            if let Some((message, hint)) = scanner.sink_mut().take_refusal() {
                return Err(SplitError::Refused { input: self.input.clone(), message, hint });
            }
            if let Some(error) = scanner.sink_mut().take_left_out_error() {
                return Err(SplitError::LeftOut(error));
            }
            fed += result.map_err(|error| SplitError::Scan { input: self.input.clone(), error })?;
            write_full_buffers(scanner.sink_mut(), &mut self.outputs, self.buffer_len)?;
        }
        Ok(fed)
    }

    /// How many bytes of the input under way were consumed.
    #[must_use]
    pub fn input_offset(&self) -> u64 {
        match &self.state {
            State::Within(scanner) => scanner.offset(),
            State::Between(_) | State::Broken => 0,
        }
    }

    /// Counts of the input that is under way.
    #[must_use]
    pub fn progress(&self) -> Option<&ReportSink> {
        match &self.state {
            State::Within(scanner) => Some(scanner.sink().report()),
            _ => None,
        }
    }

    /// What was left out or left as it was and should be told to whoever asked for the split.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match &self.state {
            State::Within(scanner) => scanner.sink().notes(),
            State::Between(router) => router.notes(),
            State::Broken => Vec::new(),
        }
    }

    /// Ends the input and answers what it held.
    ///
    /// # Errors
    /// When the input is cut short, or none is under way.
    pub fn end_input(&mut self) -> Result<Report, SplitError> {
        let State::Within(scanner) = std::mem::replace(&mut self.state, State::Broken) else {
            return Err(SplitError::Order("no input is under way"));
        };
        let (summary, mut router) =
            scanner.finish().map_err(|error| SplitError::Scan { input: self.input.clone(), error })?;
        let missed = router.missed_place();
        let sink = router.end_input();
        if let Some(offset) = missed {
            let message = format!("no key to leave out begins at byte {offset}: it changed since it was looked at");
            let hint = "copy the file while nothing writes it, and run again".to_owned();
            return Err(SplitError::Refused { input: self.input.clone(), message, hint });
        }
        self.state = State::Between(Box::new(router));
        Ok(ReportSink::into_report(&summary, sink).0)
    }

    /// Ends the outputs and answers what each holds, with its writer flushed.
    ///
    /// # Errors
    /// When writing fails, or an input is still under way.
    pub fn finish(self) -> Result<Vec<OutputReport<W>>, SplitError> {
        let State::Between(mut router) = self.state else {
            return Err(SplitError::Order("the last input has not ended, or an error came before"));
        };
        router.end_outputs();
        let mut outputs = self.outputs;
        write_full_buffers(&mut router, &mut outputs, 0)?;
        let mut reports = Vec::with_capacity(outputs.len());
        for (index, (mut output, counts)) in outputs.into_iter().zip(router.into_counts()).enumerate() {
            if self.options.version.has_checksum() {
                let mut checksum = output.crc.value().to_le_bytes().to_vec();
                output.put(&mut checksum).map_err(|source| SplitError::Write { output: index, source })?;
            }
            output.writer.end().map_err(|source| SplitError::Write { output: index, source })?;
            reports.push(OutputReport {
                writer: output.writer,
                bytes: output.bytes,
                keys: counts.databases.values().map(|db| db.keys).sum(),
                expires: counts.databases.values().map(|db| db.expires).sum(),
                expired: counts.expired,
                databases: counts.databases,
            });
        }
        Ok(reports)
    }
}

impl<W: Outlet> Output<W> {
    fn put(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.crc.update(buffer);
        self.bytes += buffer.len() as u64;
        self.writer.put(buffer)
    }
}

fn write_full_buffers<W: Outlet>(
    router: &mut Router,
    outputs: &mut [Output<W>],
    buffer_len: usize,
) -> Result<(), SplitError> {
    for (index, (output, buffer)) in outputs.iter_mut().zip(router.buffers()).enumerate() {
        if buffer.len() >= buffer_len {
            output.put(buffer).map_err(|source| SplitError::Write { output: index, source })?;
        }
    }
    Ok(())
}

/// The bytes that every output begins with.
fn preamble(options: &SplitOptions) -> Vec<u8> {
    let mut out = options.version.header();
    write::put_aux(&mut out, b"ctime", (options.now_unix_ms / 1000).to_string().as_bytes());
    out
}
