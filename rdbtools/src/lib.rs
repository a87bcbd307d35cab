//! RDB files of Redis and Valkey, read, checked and rewritten in bounded memory.
//!
//! | module | what it does |
//! |---|---|
//! | [`scan`] | the scanner: bytes are pushed in, in any pieces, and a [`Sink`] is told what they hold |
//! | [`report`] | counts of keys, expiries, types, modules; keys and bytes per slot |
//! | [`info`] | sizes per type, the largest keys, a histogram of slots |
//! | [`select`] | which keys are taken: patterns as `KEYS` knows them, kinds of values |
//! | [`split`] | any number of RDBs in, any number out, every key in the output that owns its slot |
//! | [`decode`] | values, whatever encoding they are in: items, members, fields, entries of streams |
//! | [`content`] | what RDBs hold, to be compared whatever its order and encoding |
//! | [`commands`] | the commands that make what an RDB holds |
//! | [`deep`] | what must hold inside values: order, no member twice, streams that belong together |
//! | [`structure`] | the pieces of a value and what they mean, for sinks that ask for them |
//! | [`convert`] | one RDB in, the same data out in the format of an older or another engine |
//! | [`packed`] | listpacks, ziplists, intsets, zipmaps: walked and checked as their bytes arrive |
//! | [`duplicates`] | keys that occur in more than one of the RDBs of a split, and which of them stays |
//! | [`write`](mod@write) | the parts of an RDB that are not raw values |
//! | [`crc64`] | the checksum at the end |
//! | [`version`] | magic and version number |
//!
//! The library does no IO: it takes bytes and gives bytes. It reads every version of Redis from 1 to 15
//! (Redis 8.10) and of Valkey from `REDIS0011` to `VALKEY080` (Valkey 9), with every value type but one: the
//! module values of the release candidates of Redis 4.0, which only the module can read. It checks framing,
//! lengths, compressed strings and the checksum. What values hold, in packed encodings too, is checked by
//! [`deep`]; a scan alone does not look there, and does not notice a key that occurs twice.
//!
//! Whatever the bytes, a scan ends with an answer; its memory grows with the longest key and never with what
//! a length claims.
//!
//! # Example
//!
//! ```
//! use rdbtools::scan::Scanner;
//! use rdbtools::{ErrorKind, ReportSink};
//!
//! let file = b"REDIS0003\xfe\x00\xfd\xff\xff\xff\x7f\x00\x03foo\x03bar\x01\x04list\x02\x01a\x01b\xff";
//! let mut scanner = Scanner::new(ReportSink::new(true));
//! for piece in file.chunks(7) {
//!     scanner.feed(piece)?;
//! }
//! let (summary, sink) = scanner.finish()?;
//! let (report, slots) = ReportSink::into_report(&summary, sink);
//! assert_eq!((report.keys, report.expires, report.types["list"]), (2, 1, 1));
//! assert_eq!(slots.unwrap().iter().map(|(slot, keys, _)| (slot, keys)).collect::<Vec<_>>(), [(12182, 1), (12291, 1)]);
//!
//! // a file that was cut short is refused, with the place
//! let mut scanner = Scanner::new(());
//! scanner.feed(&file[..20])?;
//! let error = scanner.finish().unwrap_err();
//! assert_eq!((error.kind, error.offset), (ErrorKind::Truncated, 20));
//! # Ok::<(), rdbtools::ScanError>(())
//! ```

#![forbid(unsafe_code)]

mod atom;
pub mod commands;
pub mod content;
pub mod convert;
pub mod crc64;
pub mod decode;
pub mod deep;
mod digest;
pub mod duplicates;
mod error;
pub mod info;
mod lzf;
pub mod packed;
pub mod report;
pub mod scan;
pub mod select;
mod sink;
pub mod split;
mod string;
pub mod structure;
mod templates;
mod value;
pub mod version;
pub mod write;

pub use atom::StringHead;
pub use error::{ErrorKind, ScanError};
pub use report::{DbCounts, Report, ReportSink, SlotStats};
pub use scan::{CrcState, Scanner, Summary};
pub use sink::{Key, Sink};
pub use string::short_string;
pub use value::{ModuleId, ValueType};
pub use version::{Magic, RdbVersion};
