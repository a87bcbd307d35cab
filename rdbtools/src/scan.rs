//! The scanner: bytes in, events out.
//!
//! It is pushed: whoever has bytes gives them, cut as they come. It holds at most one incomplete atom (a
//! length, a score, an opcode with its numbers), the state of the value that is passing, and strings that are
//! needed whole: key names, aux fields, sources of functions. The bytes of values pass by and are never held.

mod cursor;
mod deferred;
mod machine;
mod opcode;
mod record;
mod told;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::atom::{ATOM_MAX, Parsed};
use crate::crc64::Crc64;
use crate::error::{Defect, ErrorKind, ScanError};
use crate::lzf;
use crate::sink::Sink;
use crate::structure::Role;
use crate::value::Op;
use crate::version::{self, HEADER_LEN, RdbVersion};

use cursor::Cursor;
use deferred::Deferral;
use opcode::Entry;
use record::{Body, Record};

pub use deferred::Compressed;
pub(crate) use machine::Machine;
pub(crate) use opcode::{WHEN_MARK, code};

/// The longest string that is kept whole: a key, an aux field, the source of a function. The server's own
/// limit on a string from a client (`proto-max-bulk-len`) is the same by default. Memory grows with the bytes
/// that arrive, not with the length that a file claims.
pub const KEPT_LEN_MAX: u64 = 512 << 20;

/// The most bytes of names that one template of hashes has.
const TEMPLATE_LEN_MAX: usize = 16 << 20;

/// Input is walked and summed in pieces of this size, so that the second look at a byte finds it in the cache.
const PIECE_LEN: usize = 128 << 10;

/// What the checksum at the end of an RDB said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CrcState {
    /// It belongs to the bytes before it.
    Ok,
    /// It is zero: the server was told to compute none (`rdbchecksum no`).
    Disabled,
    /// The version is below 5 and has none.
    Absent,
}

impl CrcState {
    /// `ok`, `disabled` or `absent`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Disabled => "disabled",
            Self::Absent => "absent",
        }
    }
}

/// What is known of an RDB that was scanned to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Magic and version.
    pub version: RdbVersion,
    /// The state of its checksum. One that does not fit is an error instead.
    pub crc: CrcState,
    /// Length in bytes, header and checksum included.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Header,
    Opcode,
    KeyName,
    Record,
    Footer,
    Done,
}

/// Where the bytes that pass are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Raw {
    Untold,
    ToSink,
    ToMeta,
}

/// Reads one RDB from bytes that are pushed into it, and tells a [`Sink`] what it holds.
///
/// ```
/// use rdbtools::scan::Scanner;
///
/// // an RDB of version 3 with the key `a`, a string, in database 0
/// let mut scanner = Scanner::new(());
/// for piece in b"REDIS0003\xfe\x00\x00\x01a\x01b\xff".chunks(4) {
///     assert_eq!(scanner.feed(piece)?, piece.len());
/// }
/// let (summary, ()) = scanner.finish()?;
/// assert_eq!((summary.version.number, summary.bytes), (3, 17));
/// # Ok::<(), rdbtools::ScanError>(())
/// ```
#[derive(Debug)]
pub struct Scanner<S> {
    sink: S,
    /// Offset of the first byte of the piece that is being walked; between calls, bytes consumed.
    base: u64,
    phase: Phase,
    version: RdbVersion,
    crc: Crc64,
    crc_state: CrcState,
    carry: Vec<u8>,
    db: u64,
    entry: Entry,
    record: Record,
    machine: Machine<Op>,
    body: Body,
    raw: Raw,
    /// What the string that is passing means and where it began, and what unpacks it, where its bytes are told.
    told: (Role, u64),
    unpack: lzf::Unpack,
    /// How many fields each template of hashes has, and which was read last.
    templates: HashMap<u64, u64>,
    template: u64,
    /// Strings of the record that are needed when it ends.
    kept: Vec<Vec<u8>>,
    /// The string that is being collected, as it stands in the file.
    collected: Vec<u8>,
    deferral: Option<Deferral>,
    failed: Option<ScanError>,
}

impl<S: Sink> Scanner<S> {
    /// A scanner at the first byte of an RDB.
    pub fn new(sink: S) -> Self {
        Self {
            sink,
            base: 0,
            phase: Phase::Header,
            version: RdbVersion::redis(0),
            crc: Crc64::new(),
            crc_state: CrcState::Absent,
            carry: Vec::with_capacity(ATOM_MAX),
            db: 0,
            entry: Entry::default(),
            record: Record::Value,
            machine: Machine::default(),
            body: Body::None,
            raw: Raw::Untold,
            told: (Role::Untold, 0),
            unpack: lzf::Unpack::default(),
            templates: HashMap::new(),
            template: 0,
            kept: Vec::new(),
            collected: Vec::new(),
            deferral: None,
            failed: None,
        }
    }

    /// Takes in bytes and answers how many of them belonged to the RDB: all of them, or fewer when its end
    /// was reached inside `input`.
    ///
    /// # Errors
    /// The first defect of the RDB. From then on every call answers with the same error.
    pub fn feed(&mut self, input: &[u8]) -> Result<usize, ScanError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut fed = 0;
        if let Some(deferral) = &mut self.deferral {
            deferral.begin(self.base);
        }
        for piece in input.chunks(PIECE_LEN) {
            if self.is_done() {
                break;
            }
            let mut cursor = Cursor::new(piece);
            if let Err(error) = self.walk(&mut cursor) {
                self.failed = Some(error.clone());
                return Err(error);
            }
            self.tell_raw(&mut cursor);
            let used = cursor.position();
            self.check_meta()?;
            if !matches!(self.phase, Phase::Footer | Phase::Done) {
                self.sum(piece);
            }
            self.base += used as u64;
            fed += used;
        }
        Ok(fed)
    }

    /// Whether the end of the RDB was reached.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// How many bytes of the RDB were consumed so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.base
    }

    /// The sink, while the scan is under way.
    #[must_use]
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// The sink, to be changed while the scan is under way.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Gives the scan up and answers the sink with what it was told so far.
    pub fn into_sink(self) -> S {
        self.sink
    }

    /// The magic and version, once the header was read.
    #[must_use]
    pub fn version(&self) -> Option<RdbVersion> {
        (self.phase != Phase::Header).then_some(self.version)
    }

    /// Ends the scan.
    ///
    /// # Errors
    /// The defect that [`Self::feed`] met, or [`ErrorKind::Truncated`] when the end of the RDB was not reached.
    pub fn finish(self) -> Result<(Summary, S), ScanError> {
        Ok((self.outcome()?, self.sink))
    }

    /// What [`Self::finish`] would say now.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn outcome(&self) -> Result<Summary, ScanError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let message = match self.phase {
            Phase::Done => return Ok(Summary { version: self.version, crc: self.crc_state, bytes: self.base }),
            Phase::Header if !RdbVersion::is_plausible_start(&self.carry) => {
                return Err(version::not_rdb(&self.carry).at(0));
            }
            Phase::Header => "the bytes end inside the header",
            Phase::Opcode => "the bytes end where the next key or the end mark should stand",
            Phase::KeyName => "the bytes end inside the name of a key",
            Phase::Record if self.record == Record::Value => "the bytes end inside a value",
            Phase::Record => "the bytes end inside a record",
            Phase::Footer => "the bytes end inside the checksum",
        };
        Err(ScanError { offset: self.base, kind: ErrorKind::Truncated, message: message.to_owned() })
    }

    /// Metadata is told with its key, so it is kept until the key comes.
    fn check_meta(&mut self) -> Result<(), ScanError> {
        if self.entry.meta.len() as u64 <= KEPT_LEN_MAX {
            return Ok(());
        }
        let defect = Defect::malformed(format!("metadata of a key of more than {KEPT_LEN_MAX} bytes"));
        let error = defect.at(self.base);
        self.failed = Some(error.clone());
        Err(error)
    }

    fn walk(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        loop {
            let go_on = match self.phase {
                Phase::Opcode => self.opcode(cursor)?,
                Phase::Record => self.pass_record(cursor)?,
                Phase::KeyName => self.collect_name(cursor)?,
                Phase::Header => self.header(cursor)?,
                Phase::Footer => self.footer(cursor)?,
                Phase::Done => false,
            };
            if !go_on {
                return Ok(());
            }
        }
    }

    fn header(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
        let parse = |bytes: &[u8]| bytes.first_chunk().map(|h| Ok((RdbVersion::parse(h)?, HEADER_LEN))).transpose();
        let Some(version) = self.atom(cursor, parse)? else { return Ok(false) };
        self.version = version;
        self.phase = Phase::Opcode;
        self.sink.header(version);
        Ok(true)
    }

    /// The end opcode has been read.
    fn end(&mut self, cursor: &Cursor<'_>) {
        if self.version.has_checksum() {
            self.sum(cursor.passed());
            self.phase = Phase::Footer;
        } else {
            self.phase = Phase::Done;
        }
    }

    fn sum(&mut self, bytes: &[u8]) {
        // before the header is read nothing is known of the version; its bytes are summed in any case
        if self.phase == Phase::Header || self.version.has_checksum() {
            self.crc.update(bytes);
        }
    }

    fn footer(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
        let start = self.atom_start(cursor);
        let parse = |bytes: &[u8]| Ok(bytes.first_chunk().map(|bytes| (u64::from_le_bytes(*bytes), 8)));
        let Some(stored) = self.atom(cursor, parse)? else { return Ok(false) };
        let computed = self.crc.value();
        if stored != 0 && stored != computed {
            return Err(ScanError {
                offset: start,
                kind: ErrorKind::Checksum,
                message: format!("the checksum is {stored:016x}, that of the bytes is {computed:016x}"),
            });
        }
        self.crc_state = if stored == 0 { CrcState::Disabled } else { CrcState::Ok };
        self.phase = Phase::Done;
        Ok(false)
    }

    /// Offset of the atom that is read next, wherever the input was cut.
    #[inline]
    fn atom_start(&self, cursor: &Cursor<'_>) -> u64 {
        self.base + cursor.position() as u64 - self.carry.len() as u64
    }

    /// Reads one atom; `None` when the piece ends inside it, and then its bytes are carried.
    #[inline]
    fn atom<T>(&mut self, cursor: &mut Cursor<'_>, parse: impl Fn(&[u8]) -> Parsed<T>) -> Result<Option<T>, ScanError> {
        if self.carry.is_empty() {
            match parse(cursor.rest) {
                Ok(Some((value, used))) => {
                    cursor.skip(used);
                    return Ok(Some(value));
                }
                Ok(None) => {
                    self.carry.extend_from_slice(cursor.take_all());
                    return Ok(None);
                }
                Err(defect) => return Err(self.defect(cursor, defect)),
            }
        }
        self.carried_atom(cursor, parse)
    }

    #[cold]
    fn carried_atom<T>(
        &mut self,
        cursor: &mut Cursor<'_>,
        parse: impl Fn(&[u8]) -> Parsed<T>,
    ) -> Result<Option<T>, ScanError> {
        // byte by byte, so that the carry never holds more than the atom; atoms are short
        while let Some((byte, rest)) = cursor.rest.split_first() {
            let start = self.atom_start(cursor);
            self.carry.push(*byte);
            cursor.rest = rest;
            match parse(&self.carry) {
                Ok(Some((value, _))) => {
                    self.carry.clear();
                    return Ok(Some(value));
                }
                Ok(None) => {}
                Err(defect) => return Err(defect.at(start)),
            }
        }
        Ok(None)
    }

    /// A defect in the atom that is read next.
    #[cold]
    fn defect(&self, cursor: &Cursor<'_>, defect: Defect) -> ScanError {
        defect.at(self.atom_start(cursor))
    }

    /// From here on bytes are told to `raw`.
    #[inline]
    fn begin_raw(&mut self, cursor: &mut Cursor<'_>, raw: Raw) {
        self.raw = raw;
        cursor.told = cursor.rest;
    }

    /// Tells the bytes that passed since they were told last.
    #[inline]
    fn tell_raw(&mut self, cursor: &mut Cursor<'_>) {
        let passed = cursor.told.split_at_checked(cursor.told.len() - cursor.rest.len());
        let bytes = passed.map_or(&[][..], |(bytes, _)| bytes);
        match self.raw {
            Raw::ToSink if !bytes.is_empty() => self.sink.raw(bytes),
            Raw::ToMeta => self.entry.meta.extend_from_slice(bytes),
            Raw::ToSink | Raw::Untold => {}
        }
    }

    /// Tells what passed, and nothing from here on.
    #[inline]
    fn end_raw(&mut self, cursor: &mut Cursor<'_>) {
        self.tell_raw(cursor);
        self.raw = Raw::Untold;
    }
}
