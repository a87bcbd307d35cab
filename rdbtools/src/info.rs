//! A closer look: who wrote it, sizes per type, the largest keys, where keys lie among the slots, when they expire,
//! types of modules, names of function libraries and functions.

mod engine;
mod expiry;
mod functions;

use std::collections::BTreeMap;

use policies::slot::SLOT_COUNT;
use serde::{Deserialize, Serialize};

use crate::report::{Report, ReportSink, SlotStats};
use crate::scan::Summary;
use crate::sink::{Key, Sink};
use crate::split::library_name;
use crate::value::{ModuleId, ValueType};
use crate::version::RdbVersion;

use expiry::Expiries;
use functions::functions_of;

pub use engine::Engine;
pub use expiry::{ExpiryHistogram, ExpiryStep, RelativeTo, STEPS_S};
pub use functions::FUNCTIONS_SHOWN_MAX;

/// The most bytes of a key's name that are shown.
pub const NAME_SHOWN_MAX: usize = 256;
/// The most names of function libraries that are shown.
pub const LIBRARIES_SHOWN_MAX: usize = 1024;
/// How many ranges the slots are counted in.
const SLOT_RANGES: u16 = 16;

/// A key among the largest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeKey {
    /// Its name; bytes that are not printable are written `\x00`, names above [`NAME_SHOWN_MAX`] are cut.
    pub key: String,
    /// Its database.
    pub db: u64,
    /// The type of its value.
    #[serde(rename = "type")]
    pub value_type: String,
    /// Bytes of its entry in the RDB.
    pub bytes: u64,
}

/// Keys and bytes of a range of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRange {
    /// The first slot.
    pub first: u16,
    /// The last slot.
    pub last: u16,
    /// Slots of the range that hold keys.
    pub used: u64,
    /// Keys.
    pub keys: u64,
    /// Bytes of their entries.
    pub bytes: u64,
}

/// A type of value of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleType {
    /// Its nine characters, as `ReJSON-RL`.
    pub name: String,
    /// The version of the module's own encoding.
    pub encoding_version: u64,
}

/// What `rdbtools info -o json` prints of an RDB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Counts.
    #[serde(flatten)]
    pub report: Report,
    /// Who wrote it.
    pub engine: Engine,
    /// When its keys expire.
    pub expiry: ExpiryHistogram,
    /// Types of values of modules.
    pub module_types: Vec<ModuleType>,
    /// Bytes of entries per type and encoding.
    pub bytes_per_type: BTreeMap<String, u64>,
    /// The largest keys, largest first.
    pub largest: Vec<LargeKey>,
    /// The slots in 16 ranges of the same size.
    pub slots: Vec<SlotRange>,
    /// Names of function libraries.
    pub libraries: Vec<String>,
    /// Names of the functions of each library, as far as they stand in its source as text; at most
    /// [`FUNCTIONS_SHOWN_MAX`] of each.
    pub function_names: BTreeMap<String, Vec<String>>,
}

/// Collects [`Info`]. Its memory does not grow with the number of keys.
#[derive(Debug)]
pub struct InfoSink {
    report: ReportSink,
    bytes_per_type: [u64; 256],
    largest: Vec<LargeKey>,
    shown: usize,
    /// Name, database and type of the key whose value is passing.
    now: (Vec<u8>, u64, Option<ValueType>),
    libraries: Vec<String>,
    function_names: BTreeMap<String, Vec<String>>,
    expiries: Expiries,
}

impl InfoSink {
    /// A sink that has seen nothing and will tell the `shown` largest keys. The time, in ms since 1970, counts
    /// where the file does not say when it was saved.
    #[must_use]
    pub fn new(shown: usize, now_unix_ms: i64) -> Self {
        Self {
            report: ReportSink::new(true),
            bytes_per_type: [0; 256],
            largest: Vec::new(),
            shown,
            now: (Vec::new(), 0, None),
            libraries: Vec::new(),
            function_names: BTreeMap::new(),
            expiries: Expiries::new(now_unix_ms),
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn report(&self) -> &ReportSink {
        &self.report
    }

    /// The counts, without the rest.
    #[must_use]
    pub fn into_report_sink(self) -> ReportSink {
        self.report
    }

    /// What is known of an RDB that was scanned to its end.
    #[must_use]
    pub fn into_info(summary: &Summary, sink: Self) -> Info {
        let types = sink
            .report
            .modules()
            .map(|module| ModuleType { name: module.name(), encoding_version: module.encoding_version() });
        let module_types = types.collect();
        let (report, slots) = ReportSink::into_report(summary, sink.report);
        let named = |(code, bytes)| Some((ValueType::new(code, summary.version.magic)?.name().to_owned(), bytes));
        let per_type = (0..=u8::MAX).zip(sink.bytes_per_type).filter(|(_, bytes)| *bytes > 0);
        Info {
            engine: Engine::guess(&report),
            expiry: sink.expiries.into_histogram(),
            module_types,
            bytes_per_type: per_type.filter_map(named).collect(),
            largest: sink.largest,
            slots: slots.as_ref().map(slot_ranges).unwrap_or_default(),
            libraries: sink.libraries,
            function_names: sink.function_names,
            report,
        }
    }

    #[cold]
    fn insert(&mut self, bytes: u64) {
        let (name, db, value_type) = &self.now;
        let place = self.largest.partition_point(|key| key.bytes >= bytes);
        let value_type = value_type.map_or("", ValueType::name).to_owned();
        self.largest.insert(place, LargeKey { key: printable_name(name), db: *db, value_type, bytes });
        self.largest.truncate(self.shown);
    }
}

impl Sink for InfoSink {
    const TEMPLATES: bool = true;

    fn header(&mut self, version: RdbVersion) {
        self.report.header(version);
    }

    fn select_db(&mut self, db: u64) {
        self.report.select_db(db);
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.report.aux(name, value);
        if name == b"ctime" {
            self.expiries.saved_at(value);
        }
    }

    fn function(&mut self, source: &[u8]) {
        self.report.function(source);
        if self.libraries.len() < LIBRARIES_SHOWN_MAX {
            let name = printable_name(library_name(source));
            self.function_names.insert(name.clone(), functions_of(source));
            self.libraries.push(name);
        }
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        self.report.function_pre_ga(name);
        if self.libraries.len() < LIBRARIES_SHOWN_MAX {
            self.libraries.push(printable_name(name));
        }
    }

    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.report.module_aux(module, when);
    }

    fn module_value(&mut self, module: ModuleId) {
        self.report.module_value(module);
    }

    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        self.report.key(key);
        if let Some(at) = key.expires_at_ms {
            self.expiries.add(at);
        }
        let (name, db, value_type) = &mut self.now;
        name.clear();
        name.extend_from_slice(key.name.get(..NAME_SHOWN_MAX).unwrap_or(key.name));
        *db = key.db;
        *value_type = Some(key.value_type);
    }

    #[inline]
    fn key_end(&mut self, bytes: u64) {
        self.report.key_end(bytes);
        let code = self.now.2.map_or(0, ValueType::code);
        if let Some(sum) = self.bytes_per_type.get_mut(usize::from(code)) {
            *sum += bytes;
        }
        if self.largest.len() < self.shown || self.largest.last().is_some_and(|least| least.bytes < bytes) {
            self.insert(bytes);
        }
    }
}

fn slot_ranges(stats: &SlotStats) -> Vec<SlotRange> {
    let width = SLOT_COUNT / SLOT_RANGES;
    let range =
        |index: u16| SlotRange { first: index * width, last: index * width + (width - 1), used: 0, keys: 0, bytes: 0 };
    let mut ranges: Vec<SlotRange> = (0..SLOT_RANGES).map(range).collect();
    for (slot, keys, bytes) in stats.iter() {
        if let Some(range) = ranges.get_mut(usize::from(slot / width)) {
            range.used += 1;
            range.keys += keys;
            range.bytes += bytes;
        }
    }
    ranges
}

/// A name as reports show it, cut at [`NAME_SHOWN_MAX`].
pub(crate) fn printable_name(name: &[u8]) -> String {
    printable(name.get(..NAME_SHOWN_MAX).unwrap_or(name))
}

fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
