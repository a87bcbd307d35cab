//! Plain text: one line per value, through the `rdb` crate, which reads the same bytes right after the scanner
//! has checked them.
//!
//! That crate leaves out what it does not know without a word, so the scanner ends the dump where something of
//! that kind comes.

use std::io::{self, Read, Write};
use std::path::Path;

use rdb::filter::Simple;
use rdb::{RdbDecoder, RdbValue};
use rdbtools::decode::{Decoder, Part, Values};
use rdbtools::{Key, Magic, ModuleId, RdbVersion, ScanError, Scanner, Sink};

use super::super::failure::{Class, Failure};
use super::super::input::{Input, trailing};
use super::{Out, written};

/// The newest version that the crate reads.
const CRATE_VERSION_MAX: u16 = 13;
/// The most bytes of one value, because the crate holds values whole.
const VALUE_LEN_MAX: u64 = 4 << 20;
/// What it takes to hold a string, besides its bytes.
const STRING_COST: u64 = 64;
/// As much of a name as is shown.
const NAME_SHOWN_MAX: usize = 64;

/// Notices what the crate does not show.
#[derive(Debug, Default)]
struct Watch {
    found: Option<String>,
    /// The key whose value passes, and what that takes so far.
    name: Vec<u8>,
    held: u64,
}

impl Watch {
    fn find(&mut self, what: String) {
        self.found.get_or_insert(what);
    }
}

impl Sink for Watch {
    fn header(&mut self, version: RdbVersion) {
        if version.magic == Magic::Valkey || version.number > CRATE_VERSION_MAX {
            self.find(format!("a file of version {version}"));
        }
    }

    fn function(&mut self, _source: &[u8]) {
        self.find("libraries of functions".to_owned());
    }

    fn function_pre_ga(&mut self, _name: &[u8]) {
        self.find("libraries of functions".to_owned());
    }

    fn module_aux(&mut self, module: ModuleId, _when: u64) {
        self.find(format!("data of the module {}", module.name()));
    }

    fn key(&mut self, key: &Key<'_>) {
        self.held = 0;
        self.name.clear();
        self.name.extend(key.name.iter().take(NAME_SHOWN_MAX));
        let name = key.value_type.name();
        // streams, modules, and hashes whose fields expire
        if matches!(key.value_type.code(), 6 | 7 | 15 | 19 | 21..) {
            self.find(format!("key \"{}\", a {name}", key.name.escape_ascii()));
        }
    }
}

impl Values for Watch {
    fn part(&mut self, _offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        // what a value claims to hold counts as well: the crate believes it
        let more = match part {
            Part::Begin { length, .. } => length.saturating_add(STRING_COST),
            Part::Count { count, .. } => count.saturating_mul(STRING_COST),
            _ => 0,
        };
        self.held = self.held.saturating_add(more);
        if self.held > VALUE_LEN_MAX {
            self.find(format!(
                "key \"{}\", whose value would take more than {} MiB of memory",
                self.name.escape_ascii(),
                VALUE_LEN_MAX >> 20
            ));
        }
        Ok(())
    }
}

/// Reads a file, has the scanner check what was read, and hands it on.
struct Checked {
    input: Input,
    scanner: Scanner<Decoder<Watch>>,
    piece: Vec<u8>,
    used: usize,
    failure: Option<Failure>,
}

impl Checked {
    fn fill(&mut self) -> Result<(), Failure> {
        self.piece.clear();
        self.used = 0;
        let bytes = self.input.next()?;
        self.piece.extend_from_slice(bytes);
        let path = self.input.path().to_owned();
        let defect = |error: &ScanError| Failure::defect(&path, error);
        if self.piece.is_empty() {
            self.scanner.outcome().map_err(|error| defect(&error))?;
        }
        let fed = self.scanner.feed(&self.piece);
        if let Some(what) = &self.scanner.sink().values().found {
            let message = format!("{}: plain text cannot show {what}", path.display());
            return Err(Failure::new(Class::Refused, message).hint("use --format json or resp"));
        }
        match fed {
            Err(error) => Err(defect(&error)),
            Ok(used) if used < self.piece.len() => Err(defect(&trailing(self.scanner.offset()))),
            Ok(_) => Ok(()),
        }
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len()
            && let Err(failure) = self.fill()
        {
            self.failure = Some(failure);
            return Err(io::Error::other("the file cannot be dumped"));
        }
        let rest = self.piece.get(self.used..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.used += count;
        Ok(count)
    }
}

/// Writes lines.
struct Lines {
    out: Out,
    db: u32,
}

impl Lines {
    fn line(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        write!(self.out.writer, "db={} ", self.db)?;
        parts.iter().try_for_each(|part| self.out.writer.write_all(part))?;
        self.out.writer.write_all(b"\n")
    }

    fn value(&mut self, value: &RdbValue) -> io::Result<()> {
        match value {
            RdbValue::SelectDb(db) => {
                self.db = *db;
                Ok(())
            }
            RdbValue::ResizeDb { .. } | RdbValue::Checksum(_) => Ok(()),
            RdbValue::AuxField { key, value } => {
                self.out.writer.write_all(&[b"aux ", &key[..], b" -> ", value, b"\n"].concat())
            }
            RdbValue::String { key, value, expiry } => {
                self.line(&[key, b" -> ", value])?;
                self.expiry(key, *expiry)
            }
            RdbValue::Hash { key, values, expiry } => {
                values.iter().try_for_each(|(field, value)| self.line(&[key, b" . ", field, b" -> ", value]))?;
                self.expiry(key, *expiry)
            }
            RdbValue::Set { key, members, expiry } => {
                members.iter().try_for_each(|member| self.line(&[key, b" { ", member, b" }"]))?;
                self.expiry(key, *expiry)
            }
            RdbValue::List { key, values, expiry } => {
                for (index, item) in values.iter().enumerate() {
                    self.line(&[key, format!("[{index}] -> ").as_bytes(), item])?;
                }
                self.expiry(key, *expiry)
            }
            RdbValue::SortedSet { key, values, expiry } => {
                for (index, (score, member)) in values.iter().enumerate() {
                    let (place, score) = (format!("[{index}] -> {{"), format!(", score={score:?}}}"));
                    self.line(&[key, place.as_bytes(), member, score.as_bytes()])?;
                }
                self.expiry(key, *expiry)
            }
        }
    }

    fn expiry(&mut self, key: &[u8], expiry: Option<u64>) -> io::Result<()> {
        let Some(at) = expiry else { return Ok(()) };
        self.line(&[key, format!(" expires at {at} ms").as_bytes()])
    }
}

/// Dumps a file as plain text.
pub(super) fn dump(path: &Path, out: Out) -> Result<(), Failure> {
    let input = Input::open(path)?;
    let mut checked = Checked {
        input,
        scanner: Scanner::new(Decoder::new(Watch::default())),
        piece: Vec::new(),
        used: 0,
        failure: None,
    };
    let mut lines = Lines { out, db: 0 };
    let result = lines_of(&mut checked, &mut lines);
    let flushed = lines.out.writer.flush();
    match (checked.failure.take(), result) {
        (Some(failure), _) => Err(failure),
        (None, Err(Stop::Write(error))) => written(error).map(|_| ()),
        (None, Err(Stop::Read(message))) => {
            // the scanner and the decoder found nothing wrong with the bytes
            let message = format!("{}: the rdb crate cannot read this sound file: {message}", path.display());
            Err(Failure::new(Class::Refused, message).hint("use --format json or resp"))
        }
        (None, Ok(())) => flushed.or_else(|error| written(error).map(|_| ())),
    }
}

/// Why no more lines are written.
enum Stop {
    Read(String),
    Write(io::Error),
}

fn lines_of(checked: &mut Checked, lines: &mut Lines) -> Result<(), Stop> {
    let decoder = RdbDecoder::new(checked, Simple::new()).map_err(|error| Stop::Read(error.to_string()))?;
    for value in decoder {
        let value = value.map_err(|error| Stop::Read(error.to_string()))?;
        lines.value(&value).map_err(Stop::Write)?;
    }
    Ok(())
}
