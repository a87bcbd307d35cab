//! An RDB in, the same data out in the format of an older or another engine.
//!
//! The output has the magic and version that the target writes itself. What the target reads passes as it is:
//! servers read every encoding that an older one wrote. What it does not read becomes a type that it does: packed
//! values become plain ones (or, nodes of lists, ziplists), streams lose the facts of newer types, hashes whose fields
//! expire become those of the other engine. `rdbtools/docs/convert.md` has the table.
//!
//! What a target cannot hold is a [`Loss`]. Those that are data are refused, with the keys named, unless the options
//! allow them; the others are told. Nothing else is left out but facts of the save (time, memory, replication
//! position) and hints of sizes, which servers find out anew.
//!
//! Values pass: nothing is held but a packed value, or a field with its value, while it is rewritten.
//!
//! ```
//! use rdbtools::convert::{ConvertOptions, Converter, Target};
//!
//! // the key `h`, a hash in a listpack, as Redis 7.0 writes it
//! let input = b"REDIS0010\x10\x01h\x0d\x0d\0\0\0\x02\0\x81f\x02\x81v\x02\xff\xff\0\0\0\0\0\0\0\0";
//! let mut converter = Converter::new(Vec::new(), ConvertOptions::new(Target::Redis62));
//! for piece in input.chunks(5) {
//!     converter.feed(piece)?;
//! }
//! let converted = converter.finish()?;
//! assert_eq!((converted.keys, converted.rewritten), (1, 1));
//! assert!(converted.losses.is_empty() && converted.writer.starts_with(b"REDIS0009"));
//! # Ok::<(), rdbtools::convert::ConvertError>(())
//! ```

mod loss;
mod noted;
mod packed;
pub(crate) mod plan;
pub(crate) mod rewriter;
mod sink;
mod target;

use std::io::{self, Write};

use crate::crc64::Crc64;
use crate::error::ScanError;
use crate::report::{Report, ReportSink};
use crate::scan::Scanner;
use crate::version::RdbVersion;
use crate::write;

pub use loss::{Loss, LossKind, Lost, SHOWN_MAX};
pub use target::{Target, UnknownTarget};

use sink::Writer;

/// Input is taken in pieces of this size; after each, a full buffer is written.
const PIECE_LEN: usize = 128 << 10;
/// What the buffer holds before it is written.
const BUFFER_LEN: usize = 256 << 10;
/// What Valkey writes for a field that does not expire (`EXPIRY_NONE` in its `expire.h`).
const NO_EXPIRY: i64 = -1;

/// How an RDB is converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertOptions {
    /// The engine to convert for.
    pub target: Target,
    /// What may be left out, of the kinds that are refused otherwise.
    pub drop: Vec<LossKind>,
    /// The target has the modules whose data the input holds: it is written as it is.
    pub keep_modules: bool,
    /// The time, in ms since 1970, to date the output.
    pub now_unix_ms: u64,
}

impl ConvertOptions {
    /// For this target; nothing may be left out, the target has no modules, and the time is 0.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        Self { target, drop: Vec::new(), keep_modules: false, now_unix_ms: 0 }
    }
}

/// Why a conversion failed. What was written by then is not a whole RDB.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The input is not a sound RDB, or the inside of a value that had to be rewritten is not sound.
    #[error(transparent)]
    Scan(ScanError),
    /// The input holds what the target cannot, and leaving it out was not allowed.
    #[error("{target} cannot hold all of it: {}", summary(losses))]
    Refused {
        /// The engine to convert for.
        target: Target,
        /// What was refused: everything of these kinds in the whole input is counted.
        losses: Vec<Loss>,
    },
    /// A value is too large to be rewritten.
    #[error("the value of key \"{key}\" is too large to be rewritten: {message}")]
    TooLarge {
        /// The key.
        key: String,
        /// What is too large.
        message: String,
    },
    /// Writing failed.
    #[error("cannot write the output: {0}")]
    Write(io::Error),
    /// A call after an error.
    #[error("nothing can be done after an error")]
    Order,
}

fn summary(losses: &[Loss]) -> String {
    let of = |loss: &Loss| {
        let names: Vec<&str> = loss.shown.iter().take(3).map(|lost| lost.name.as_str()).collect();
        let more = if loss.places > names.len() as u64 { ", …" } else { "" };
        format!("{} {} ({}{more})", loss.items, loss.kind.unit(), names.join(", "))
    };
    losses.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// What a conversion read and wrote.
#[derive(Debug)]
pub struct Converted<W> {
    /// The writer, flushed.
    pub writer: W,
    /// Counts of the input.
    pub input: Report,
    /// Magic and version of the output.
    pub version: RdbVersion,
    /// Length of the output in bytes.
    pub bytes: u64,
    /// Keys of the output.
    pub keys: u64,
    /// Those with an expiry.
    pub expires: u64,
    /// Those whose value became one of another type or encoding.
    pub rewritten: u64,
    /// What the output does not hold.
    pub losses: Vec<Loss>,
}

/// Converts one RDB. Feed it, then finish.
#[derive(Debug)]
pub struct Converter<W> {
    /// Gone after an error.
    scanner: Option<Box<Scanner<Writer>>>,
    writer: W,
    crc: Crc64,
    bytes: u64,
    target: Target,
    fresh: Vec<Lost>,
}

impl<W: Write> Converter<W> {
    /// A converter that writes to `writer`.
    #[must_use]
    pub fn new(writer: W, options: ConvertOptions) -> Self {
        let target = options.target;
        let scanner = Some(Box::new(Scanner::new(Writer::new(options))));
        Self { scanner, writer, crc: Crc64::new(), bytes: 0, target, fresh: Vec::new() }
    }

    /// Takes in bytes of the input and answers how many of them belonged to it: all of them, or fewer when its end
    /// was reached. Once something is refused nothing more is written, and the rest of the input is read to count.
    ///
    /// # Errors
    /// The first defect of the input, a value too large to be rewritten, or a failed write.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, ConvertError> {
        let mut scanner = self.scanner.take().ok_or(ConvertError::Order)?;
        let mut fed = 0;
        for piece in bytes.chunks(PIECE_LEN) {
            if scanner.is_done() {
                break;
            }
            let result = scanner.feed(piece);
            // what went wrong inside a value comes before a defect that the scanner met after it
            if let Some(failure) = scanner.sink_mut().take_failure() {
                return Err(failure);
            }
            fed += result?;
            self.fresh.extend(scanner.sink_mut().losses().take_fresh());
            self.write_buffer(scanner.sink_mut(), BUFFER_LEN)?;
        }
        self.scanner = Some(scanner);
        Ok(fed)
    }

    fn write_buffer(&mut self, sink: &mut Writer, least: usize) -> Result<(), ConvertError> {
        let refused = sink.losses().is_refused();
        let buffer = sink.buffer();
        if buffer.len() >= least && !refused {
            self.write(buffer)?;
        }
        if buffer.len() >= least || refused {
            buffer.clear();
            // a large packed value leaves a large buffer behind
            buffer.shrink_to(BUFFER_LEN + PIECE_LEN);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        self.writer.write_all(bytes).map_err(ConvertError::Write)
    }

    /// Whether the end of the input was reached.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.scanner.as_ref().is_some_and(|scanner| scanner.is_done())
    }

    /// How many bytes of the input were consumed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.scanner.as_ref().map_or(0, |scanner| scanner.offset())
    }

    /// Counts of the input so far.
    #[must_use]
    pub fn progress(&self) -> Option<&ReportSink> {
        self.scanner.as_ref().map(|scanner| scanner.sink().report())
    }

    /// Every loss since the last call, one for each place. Whoever wants all of them calls this after each
    /// [`Self::feed`]; a report names the first of each kind alone.
    pub fn take_losses(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.fresh)
    }

    /// Ends the output and answers what it holds, with its writer flushed.
    ///
    /// # Errors
    /// When the input is cut short, when something was refused, or when writing fails.
    pub fn finish(mut self) -> Result<Converted<W>, ConvertError> {
        let scanner = self.scanner.take().ok_or(ConvertError::Order)?;
        let (summary, mut sink) = scanner.finish()?;
        if sink.losses().is_refused() {
            let (.., losses) = sink.into_parts();
            return Err(ConvertError::Refused { target: self.target, losses: losses.into_kinds() });
        }
        write::put_end(sink.buffer());
        self.write_buffer(&mut sink, 0)?;
        let version = self.target.version();
        if version.has_checksum() {
            let checksum = self.crc.value().to_le_bytes();
            self.write(&checksum)?;
        }
        self.writer.flush().map_err(ConvertError::Write)?;
        let (report, written, rewritten, losses) = sink.into_parts();
        Ok(Converted {
            writer: self.writer,
            input: ReportSink::into_report(&summary, report).0,
            version,
            bytes: self.bytes,
            keys: written.keys,
            expires: written.expires,
            rewritten,
            losses: losses.into_kinds(),
        })
    }
}
