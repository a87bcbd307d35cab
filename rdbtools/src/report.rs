//! Counts of what an RDB holds.

use std::collections::{BTreeMap, BTreeSet};

use policies::slot::{SLOT_COUNT, key_slot};
use serde::{Deserialize, Serialize};

use crate::scan::{CrcState, Summary};
use crate::sink::{Key, Sink};
use crate::value::{ModuleId, ValueType};
use crate::version::{Magic, RdbVersion};

/// The most aux fields that a report holds; servers write about ten.
pub const AUX_FIELDS_MAX: usize = 64;
/// The most characters of an aux field's name or value that a report holds.
pub const AUX_TEXT_MAX: usize = 1024;
/// The most databases that are counted apart; a server has 16 unless it is told otherwise.
pub const DATABASES_MAX: usize = 65_536;
/// The most module types that a report names.
pub const MODULES_MAX: usize = 1024;

/// Keys of one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DbCounts {
    /// All keys, expired or not.
    pub keys: u64,
    /// Those with an expiry.
    pub expires: u64,
}

/// What an RDB holds, as `rdbtools verify -o json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version number.
    pub rdb_version: u16,
    /// Whose format: `REDIS` or `VALKEY`.
    pub magic: Magic,
    /// Length in bytes, header and checksum included.
    pub bytes: u64,
    /// What the checksum said.
    pub crc: CrcState,
    /// Keys in all databases, expired or not.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// Counts per database, by its number. Databases beyond [`DATABASES_MAX`] are in the totals alone.
    pub databases: BTreeMap<u64, DbCounts>,
    /// Keys per type and encoding.
    pub types: BTreeMap<String, u64>,
    /// Libraries of functions.
    pub functions: u64,
    /// Names of the module types whose data it holds.
    pub modules: BTreeSet<String>,
    /// Aux fields, bytes that are not UTF-8 replaced, at most [`AUX_FIELDS_MAX`] of at most [`AUX_TEXT_MAX`]
    /// characters.
    pub aux: BTreeMap<String, String>,
}

/// Keys and bytes per slot.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotStats {
    slots: Vec<(u64, u64)>,
}

impl SlotStats {
    fn new() -> Self {
        Self { slots: vec![(0, 0); usize::from(SLOT_COUNT)] }
    }

    /// Slots that hold keys, ascending: slot, keys, bytes of their entries in the RDB (opcodes, key and value).
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64, u64)> + '_ {
        let numbered = (0..SLOT_COUNT).zip(&self.slots);
        numbered.filter(|(_, (keys, _))| *keys > 0).map(|(slot, (keys, bytes))| (slot, *keys, *bytes))
    }

    fn add(&mut self, slot: u16, bytes: u64) {
        if let Some((keys, sum)) = self.slots.get_mut(usize::from(slot)) {
            *keys += 1;
            *sum += bytes;
        }
    }
}

impl std::fmt::Debug for SlotStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Counts what passes. Its memory does not grow with the number of keys.
#[derive(Debug)]
pub struct ReportSink {
    databases: BTreeMap<u64, DbCounts>,
    /// Counts of the database whose number is beside them, not yet in `databases`.
    current: (u64, DbCounts),
    total: DbCounts,
    types: [u64; 256],
    functions: u64,
    modules: BTreeSet<ModuleId>,
    aux: BTreeMap<String, String>,
    slots: Option<SlotStats>,
    slot: u16,
}

impl ReportSink {
    /// A sink that has seen nothing; `with_slots` also counts per slot, at some cost per key.
    #[must_use]
    pub fn new(with_slots: bool) -> Self {
        Self {
            databases: BTreeMap::new(),
            current: (0, DbCounts::default()),
            total: DbCounts::default(),
            types: [0; 256],
            functions: 0,
            modules: BTreeSet::new(),
            aux: BTreeMap::new(),
            slots: with_slots.then(SlotStats::new),
            slot: 0,
        }
    }

    /// Keys that passed so far.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.total.keys + self.current.1.keys
    }

    /// Keys with an expiry that passed so far.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.total.expires + self.current.1.expires
    }

    /// The slot of the key that was told last; 0 unless slots are counted.
    #[must_use]
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Databases with keys that were counted apart so far.
    pub(crate) fn databases_counted(&self) -> usize {
        self.databases.len()
    }

    /// Types of values of modules that passed.
    pub(crate) fn modules(&self) -> impl Iterator<Item = ModuleId> + '_ {
        self.modules.iter().copied()
    }

    fn close_db(&mut self) {
        let (db, counts) = std::mem::take(&mut self.current);
        self.total.keys += counts.keys;
        self.total.expires += counts.expires;
        if counts.keys > 0 && (self.databases.len() < DATABASES_MAX || self.databases.contains_key(&db)) {
            let sum = self.databases.entry(db).or_default();
            sum.keys += counts.keys;
            sum.expires += counts.expires;
        }
    }

    fn add_module(&mut self, module: ModuleId) {
        if self.modules.len() < MODULES_MAX {
            self.modules.insert(module);
        }
    }

    /// The report of an RDB that was scanned to its end, and what was counted per slot if that was asked for.
    #[must_use]
    pub fn into_report(summary: &Summary, mut sink: Self) -> (Report, Option<SlotStats>) {
        sink.close_db();
        let RdbVersion { magic, number } = summary.version;
        let types = (0..=u8::MAX).zip(sink.types).filter(|(_, count)| *count > 0);
        let report = Report {
            rdb_version: number,
            magic,
            bytes: summary.bytes,
            crc: summary.crc,
            keys: sink.total.keys,
            expires: sink.total.expires,
            databases: sink.databases,
            types: types
                .filter_map(|(code, count)| Some((ValueType::new(code, magic)?.name().to_owned(), count)))
                .collect(),
            functions: sink.functions,
            modules: sink.modules.iter().map(|module| module.name()).collect(),
            aux: sink.aux,
        };
        (report, sink.slots)
    }
}

impl Sink for ReportSink {
    const TEMPLATES: bool = true;

    fn select_db(&mut self, db: u64) {
        self.close_db();
        self.current.0 = db;
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        if self.aux.len() < AUX_FIELDS_MAX {
            self.aux.insert(lossy(name), lossy(value));
        }
    }

    fn function(&mut self, _source: &[u8]) {
        self.functions += 1;
    }

    fn function_pre_ga(&mut self, _name: &[u8]) {
        self.functions += 1;
    }

    fn module_aux(&mut self, module: ModuleId, _when: u64) {
        self.add_module(module);
    }

    fn module_value(&mut self, module: ModuleId) {
        self.add_module(module);
    }

    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        self.current.1.keys += 1;
        self.current.1.expires += u64::from(key.expires_at_ms.is_some());
        if let Some(count) = self.types.get_mut(usize::from(key.value_type.code())) {
            *count += 1;
        }
        if self.slots.is_some() {
            self.slot = key_slot(key.name);
        }
    }

    #[inline]
    fn key_end(&mut self, bytes: u64) {
        if let Some(slots) = &mut self.slots {
            slots.add(self.slot, bytes);
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(AUX_TEXT_MAX).collect()
}
