//! A closer check than that of the scanner: what values hold.
//!
//! [`DeepSink`] takes decoded values and refuses what no server wrote, or what a server would refuse or serve
//! wrongly: members and fields that occur twice, sorted sets and expiries of fields out of order, streams whose
//! entries do not ascend, pending entries that belong to nobody. The rules are those of `rdbLoadObject` with
//! `sanitize-dump-payload yes`, and the order of elements that lookups rely on. What a server loads although it is
//! odd is counted in [`Deep`] and not refused.

use serde::{Deserialize, Serialize};

use crate::decode::{Part, Values};
use crate::digest::{Digest, Digester, Seen};
use crate::error::ScanError;
use crate::report::ReportSink;
use crate::sink::{Key, Sink};
use crate::structure::Role;
use crate::value::{ModuleId, ValueType};
use crate::version::RdbVersion;

mod stream;

use stream::Stream;

/// The most members or fields of one value that are compared with each other.
pub const COMPARED_MAX: usize = 1 << 18;

/// What a closer check found in a sound file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deep {
    /// Items, members, fields and entries of streams.
    pub elements: u64,
    /// Keys whose value is an empty collection: servers skip them when they load the file.
    pub empty: u64,
    /// Values with more members, fields, groups, consumers or pending entries than are compared
    /// ([`COMPARED_MAX`]): whether one occurs twice is not known.
    pub not_compared: u64,
    /// Streams whose length is not the number of their entries: old servers miscounted, and all load them.
    pub lengths_wrong: u64,
}

/// Checks decoded values, and counts as a report does.
#[derive(Debug)]
pub struct DeepSink<K> {
    report: ReportSink,
    keys: K,
    digester: Digester,
    found: Deep,
    value_type: Option<ValueType>,
    start: u64,
    elements: u64,
    members: Seen,
    /// Where a member or field is passing that is compared.
    passing: Option<Digest>,
    last_score: Option<f64>,
    last_expiry: Option<Option<u64>>,
    stream: Stream,
}

impl<K: Sink> DeepSink<K> {
    /// A sink that has seen nothing and tells keys to `keys`, as a [`Finder`](crate::duplicates::Finder) wants them.
    pub fn new(keys: K) -> Self {
        Self {
            report: ReportSink::new(false),
            keys,
            digester: Digester::new(),
            found: Deep::default(),
            value_type: None,
            start: 0,
            elements: 0,
            members: Seen::default(),
            passing: None,
            last_score: None,
            last_expiry: None,
            stream: Stream::default(),
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn found(&self) -> Deep {
        self.found
    }

    /// Who was told the keys, to be asked.
    pub fn keys_mut(&mut self) -> &mut K {
        &mut self.keys
    }

    /// The counts, without the rest.
    #[must_use]
    pub fn into_report_sink(self) -> ReportSink {
        self.report
    }

    fn is_stream(&self) -> bool {
        matches!(self.value_type.map(ValueType::code), Some(15 | 19 | 21 | 26 | 27))
    }

    fn begin(&mut self, role: Role) {
        let is_element = matches!(role, Role::Item | Role::Member | Role::Field);
        if is_element && !self.is_stream() {
            self.elements += 1;
            self.passing = (role != Role::Item).then(|| self.digester.begin());
        } else if matches!(role, Role::Group | Role::Consumer) {
            self.passing = Some(self.digester.begin());
            self.stream.begin_name(role);
        }
    }

    fn end(&mut self, offset: u64) -> Result<(), ScanError> {
        let Some(digest) = self.passing.take() else { return Ok(()) };
        if self.is_stream() {
            return self.stream.name(digest.value(), offset);
        }
        self.members.add(digest.value());
        Ok(())
    }

    /// Small sorted sets are searched from either end: they must ascend.
    fn score(&mut self, offset: u64, score: f64) -> Result<(), ScanError> {
        let is_packed = matches!(self.value_type.map(ValueType::code), Some(12 | 17));
        if is_packed && self.last_score.is_some_and(|last| last > score) {
            return Err(ScanError::malformed(offset, "the scores of a packed sorted set do not ascend"));
        }
        self.last_score = Some(score);
        Ok(())
    }

    /// Packed fields with an expiry come first and ascend by it (`lpValidateIntegrityAndDups` in `rdb.c`).
    fn expiry(&mut self, offset: u64, expiry: Option<u64>) -> Result<(), ScanError> {
        let is_packed =
            matches!(self.value_type.map(ValueType::name), Some("hash_listpack_ex" | "hash_listpack_ex_pre_ga"));
        if is_packed
            && let (Some(last), Some(at)) = (self.last_expiry, expiry)
            && last.is_none_or(|last| at < last)
        {
            return Err(ScanError::malformed(offset, "the expiries of a packed hash's fields do not ascend"));
        }
        self.last_expiry = Some(expiry);
        Ok(())
    }

    fn value_end(&mut self) -> Result<(), ScanError> {
        if self.is_stream() {
            let odd = self.stream.end(self.start)?;
            self.found.lengths_wrong += u64::from(odd.length_is_wrong);
            self.found.not_compared += u64::from(odd.not_compared);
            self.found.elements += odd.entries;
            return Ok(());
        }
        self.found.elements += self.elements;
        let is_collection = !matches!(self.value_type.map(ValueType::code), Some(0 | 7));
        self.found.empty += u64::from(is_collection && self.elements == 0);
        self.found.not_compared += u64::from(self.members.overflowed());
        if self.members.has_twice() {
            let what = if matches!(self.value_type.map(ValueType::code), Some(2 | 3 | 5 | 11 | 12 | 17 | 20)) {
                "a member occurs twice in a set"
            } else {
                "a field occurs twice in a hash"
            };
            return Err(ScanError::malformed(self.start, what));
        }
        Ok(())
    }
}

impl<K: Sink> Values for DeepSink<K> {
    fn part(&mut self, offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        match part {
            Part::Begin { role, .. } => {
                self.begin(role);
                Ok(())
            }
            Part::Piece(bytes) => {
                if let Some(digest) = &mut self.passing {
                    digest.add(bytes);
                }
                Ok(())
            }
            Part::End => self.end(offset),
            Part::Score(score) => self.score(offset, score),
            Part::FieldExpiry(expiry) => self.expiry(offset, expiry),
            Part::ValueEnd => self.value_end(),
            Part::ArrayIndex(_) | Part::ArrayInsert(_) => Ok(()),
            Part::Count { .. } | Part::ModuleNumber(_) | Part::ProducerEntry(_) | Part::Idempotence { .. } => Ok(()),
            _ => self.stream.part(offset, part),
        }
    }
}

impl<K: Sink> Sink for DeepSink<K> {
    fn header(&mut self, version: RdbVersion) {
        self.report.header(version);
    }

    fn select_db(&mut self, db: u64) {
        self.report.select_db(db);
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.report.aux(name, value);
    }

    fn function(&mut self, source: &[u8]) {
        self.report.function(source);
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        self.report.function_pre_ga(name);
    }

    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.report.module_aux(module, when);
    }

    fn key(&mut self, key: &Key<'_>) {
        self.report.key(key);
        self.keys.key(key);
        self.value_type = Some(key.value_type);
        self.start = key.offset;
        self.elements = 0;
        self.members.clear();
        self.passing = None;
        self.last_score = None;
        self.last_expiry = None;
        self.stream.begin();
    }

    fn module_value(&mut self, module: ModuleId) {
        self.report.module_value(module);
    }

    fn key_end(&mut self, bytes: u64) {
        self.report.key_end(bytes);
    }
}
