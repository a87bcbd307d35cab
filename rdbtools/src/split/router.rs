//! Decides for every key, function and fact where it goes, and appends it to the buffers of outputs.

use std::collections::HashMap;
use std::io;

use policies::slot::{SLOT_COUNT, SlotSet, key_slot};

use crate::convert::plan::{field_expiries, with_fields};
use crate::convert::rewriter::{Halt, Rewriter};
use crate::report::{DATABASES_MAX, ReportSink};
use crate::sink::{Key, Sink};
use crate::value::{ModuleId, ValueType};
use crate::version::{Magic, RdbVersion};
use crate::write;

use super::carried::{Carried, Fate};
use super::left_out::{LeftOut, Places};
use super::modules::Modules;
use super::target::{Counts, Target};
use super::{SplitOptions, Ttl, preamble};

/// The most bytes of functions, and of module data that belongs to no key. They go to every output and are held
/// to tell whether another input brings the same.
const HELD_LEN_MAX: usize = 64 << 20;
/// Facts that are as true of the outputs as of the input. All others are about the save, or unknown.
const CARRIED_FACTS: [&[u8]; 3] = [b"redis-ver", b"valkey-ver", b"redis-bits"];

/// Where the raw bytes that pass go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Nowhere,
    Value(usize),
    /// The value is written otherwise: with the expiries of its fields left out or moved, or with its fields.
    Rewritten(usize),
    ModuleData,
}

/// The sink of a splitter.
#[derive(Debug)]
pub(super) struct Router {
    options: SplitOptions,
    targets: Vec<Target>,
    /// Index of the target of each slot; empty when there is one target.
    owners: Vec<u16>,
    passing: Passing,
    report: ReportSink,
    refusal: Option<(String, String)>,
    inputs_ended: u32,
    /// The hint of how many keys the current database holds.
    db_size: u64,
    /// Functions by the name of their library.
    functions: HashMap<Vec<u8>, Vec<u8>>,
    modules: Modules,
    /// Bytes of functions and module data that are held.
    held: usize,
    field_expiries: u64,
    slot_imports: u64,
    other_dbs: u64,
    not_selected: u64,
    left_out: LeftOut,
    carried: Carried,
    rewriter: Box<Rewriter>,
}

impl Router {
    pub(super) fn new(targets: &[SlotSet], options: SplitOptions) -> Self {
        let shift = if let Ttl::Shift(by) = options.ttl { by } else { 0 };
        Self {
            targets: targets.iter().map(|_| Target::new(preamble(&options))).collect(),
            options,
            owners: owners(targets),
            passing: Passing::Nowhere,
            report: ReportSink::new(false),
            refusal: None,
            inputs_ended: 0,
            db_size: 0,
            functions: HashMap::new(),
            modules: Modules::default(),
            held: 0,
            field_expiries: 0,
            slot_imports: 0,
            other_dbs: 0,
            not_selected: 0,
            left_out: LeftOut::default(),
            carried: Carried::default(),
            rewriter: Box::new(Rewriter::moving(shift)),
        }
    }

    pub(super) fn inputs_ended(&self) -> u32 {
        self.inputs_ended
    }

    pub(super) fn leave_out(&mut self, places: Places) -> io::Result<()> {
        self.left_out.begin(places)
    }

    pub(super) fn take_left_out_error(&mut self) -> Option<io::Error> {
        self.left_out.failed.take()
    }

    /// The offset of a key of this input that was to be left out and did not come.
    pub(super) fn missed_place(&self) -> Option<u64> {
        self.left_out.next.filter(|place| place.input <= self.inputs_ended).map(|place| place.offset)
    }

    pub(super) fn buffers(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
        self.targets.iter_mut().map(|target| &mut target.buffer)
    }

    pub(super) fn report(&self) -> &ReportSink {
        &self.report
    }

    pub(super) fn take_refusal(&mut self) -> Option<(String, String)> {
        self.refusal.take()
    }

    /// The counts of the input that ended.
    pub(super) fn end_input(&mut self) -> ReportSink {
        self.inputs_ended += 1;
        self.db_size = 0;
        self.carried.differs = false;
        self.rewriter.templates().clear();
        std::mem::replace(&mut self.report, ReportSink::new(false))
    }

    /// Appends what stands behind the keys.
    pub(super) fn end_outputs(&mut self) {
        let after = self.modules.after_keys();
        for target in &mut self.targets {
            target.buffer.extend_from_slice(&after);
            write::put_end(&mut target.buffer);
            target.close_db();
        }
    }

    pub(super) fn into_counts(self) -> impl Iterator<Item = Counts> {
        self.targets.into_iter().map(|target| target.counts)
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.modules.notes().collect();
        if self.field_expiries > 0 {
            notes.push(format!("the expiries of fields of {} hashes were kept as they are", self.field_expiries));
        }
        if self.carried.expanded > 0 {
            notes.push(format!(
                "{} hashes were written with their fields, because templates of inputs differ",
                self.carried.expanded
            ));
        }
        if self.slot_imports > 0 {
            notes.push(format!("{} imports of slots that were under way were left out", self.slot_imports));
        }
        if self.left_out.count > 0 {
            notes.push(format!("{} keys were left out because others of the same name stay", self.left_out.count));
        }
        if self.other_dbs > 0 {
            notes.push(format!("{} keys of other databases were left out", self.other_dbs));
        }
        if self.not_selected > 0 {
            notes.push(format!("{} keys that were not selected were left out", self.not_selected));
        }
        notes
    }

    #[cold]
    fn refuse(&mut self, message: String, hint: &str) {
        self.refusal.get_or_insert((message, hint.to_owned()));
    }

    #[cold]
    fn refuse_db(&mut self, db: u64) {
        let size = match self.db_size {
            0 => "keys".to_owned(),
            keys => format!("about {keys} keys"),
        };
        self.refuse(
            format!("database {db} holds {size}, and a cluster has database 0 only"),
            "pick one database, or make a standalone server of it",
        );
    }

    /// Writes more of a value that is written otherwise.
    fn rewrite(&mut self, owner: usize, bytes: &[u8]) {
        let Some(target) = self.targets.get_mut(owner) else { return };
        if let Err(halt) = self.rewriter.push(bytes, &mut target.buffer) {
            let why = match halt {
                Halt::Defect(defect) => defect.message.to_string(),
                Halt::TooLarge(message) => message,
            };
            self.passing = Passing::Nowhere;
            self.refuse(
                format!("a hash cannot be rewritten: {why}"),
                "look into the file: rdbtools verify --deep; where it is sound, leave expiries as they are: --ttl keep",
            );
        }
    }

    #[cold]
    fn refuse_type(&mut self, key: &Key<'_>) {
        let (name, value_type, output) = (key.name.escape_ascii(), key.value_type, self.options.version);
        self.refuse(
            format!("key {name} is of type {value_type}, which {output} does not have"),
            "convert the inputs to one engine first: rdbtools convert --to",
        );
    }

    fn check_held(&mut self) {
        if self.held > HELD_LEN_MAX {
            self.refuse_held();
        }
    }

    #[cold]
    fn refuse_held(&mut self) {
        self.refuse(
            format!("functions, or data of modules that belongs to no key, take more than {HELD_LEN_MAX} bytes"),
            "restore to as many shards as there were, without splitting",
        );
    }

    fn put_everywhere(&mut self, put: impl Fn(&mut Vec<u8>)) {
        self.targets.iter_mut().for_each(|target| put(&mut target.buffer));
    }

    fn expiry(&self, key: &Key<'_>) -> Option<i64> {
        match self.options.ttl {
            Ttl::Keep => key.expires_at_ms,
            Ttl::Drop => None,
            Ttl::Shift(by) => key.expires_at_ms.map(|at| at.saturating_add(by)),
        }
    }

    #[inline]
    fn owner(&self, name: &[u8]) -> usize {
        if self.owners.is_empty() {
            return 0;
        }
        self.owners.get(usize::from(key_slot(name))).copied().unwrap_or(0).into()
    }
}

impl Sink for Router {
    const TEMPLATES: bool = true;
    const TEMPLATE_FIELDS: bool = true;

    fn header(&mut self, version: RdbVersion) {
        self.report.header(version);
        let output = self.options.version;
        if !version.fits_into(output) {
            self.refuse(
                format!("it is {version}, which cannot be written as {output}"),
                if version.magic == output.magic {
                    "write the outputs in the newest version of all inputs"
                } else {
                    "convert the inputs to one engine first: rdbtools convert --to"
                },
            );
        }
    }

    fn select_db(&mut self, db: u64) {
        self.report.select_db(db);
        self.db_size = 0;
        if self.report.databases_counted() >= DATABASES_MAX {
            self.refuse(format!("it holds {DATABASES_MAX} databases or more"), "pick one database");
        }
    }

    fn resize_db(&mut self, keys: u64, _expires: u64) {
        self.db_size = keys;
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.report.aux(name, value);
        if self.inputs_ended == 0 && CARRIED_FACTS.contains(&name) {
            self.put_everywhere(|buffer| write::put_aux(buffer, name, value));
        }
    }

    fn function(&mut self, source: &[u8]) {
        self.report.function(source);
        let library = library_name(source);
        match self.functions.get(library) {
            None => {
                self.held += source.len();
                self.functions.insert(library.to_vec(), source.to_vec());
                self.put_everywhere(|buffer| write::put_function(buffer, source));
                self.check_held();
            }
            Some(other) if other == source => {}
            Some(_) => self.refuse(
                format!("its function library {} differs from that of another input", library.escape_ascii()),
                "make the libraries the same on all shards, and save again",
            ),
        }
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        self.report.function_pre_ga(name);
        self.refuse(
            format!("its function {} is in a form that no released server loads", name.escape_ascii()),
            "load the file into the server that wrote it, and delete the function there",
        );
    }

    fn hash_template(&mut self, id: u64, fields: &[Vec<u8>]) {
        let taken = self.carried.take(id, fields).and_then(|(fate, shared)| {
            self.rewriter.templates().add(id, shared)?;
            Ok(fate)
        });
        match taken {
            Ok(Fate::Written) => self.put_everywhere(|buffer| write::put_hash_template(buffer, id, fields)),
            Ok(Fate::Known | Fate::Differs) => {}
            Err(defect) => self.refuse(defect.message.to_string(), "restore to as many shards as there were"),
        }
    }

    fn slot_import(&mut self) {
        self.slot_imports += 1;
    }

    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.report.module_aux(module, when);
        self.modules.begin(module, when);
        self.passing = Passing::ModuleData;
    }

    fn module_aux_end(&mut self) {
        self.passing = Passing::Nowhere;
        let Some((data, at_once)) = self.modules.end(self.inputs_ended == 0) else { return };
        self.held += data.len();
        if at_once {
            self.put_everywhere(|buffer| buffer.extend_from_slice(&data));
        }
        self.check_held();
    }

    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        self.report.key(key);
        self.passing = Passing::Nowhere;
        if self.options.db.is_some_and(|db| db != key.db) {
            self.other_dbs += 1;
            return;
        }
        // asked first, since it knows the places in their order
        if self.left_out.holds(self.inputs_ended, key.offset) {
            return;
        }
        if !self.options.select.takes(key) {
            self.not_selected += 1;
            return;
        }
        if self.options.cluster && key.db != 0 && self.options.db.is_none() {
            self.refuse_db(key.db);
            return;
        }
        if key.value_type.magic() != self.options.version.magic && !key.value_type.is_common() {
            self.refuse_type(key);
            return;
        }
        let owner = self.owner(key.name);
        let expiry = self.expiry(key);
        let now = i64::try_from(self.options.now_unix_ms).unwrap_or(i64::MAX);
        let db = if self.options.cluster { 0 } else { key.db };
        let Some(target) = self.targets.get_mut(owner) else { return };
        let mut rewritten = None;
        if self.options.ttl != Ttl::Keep && has_field_expiries(key) {
            rewritten = field_expiries(key.value_type, self.options.ttl == Ttl::Drop);
            self.field_expiries += u64::from(rewritten.is_none());
        } else if self.carried.differs {
            rewritten = with_fields(key.value_type);
            self.carried.expanded += u64::from(rewritten.is_some());
        }
        if let Some((code, steps)) = rewritten
            && let Some(value_type) = ValueType::new(code, key.value_type.magic())
        {
            target.put_key(&Key { value_type, ..*key }, db, expiry, now);
            self.rewriter.start(steps);
            self.passing = Passing::Rewritten(owner);
            return;
        }
        target.put_key(key, db, expiry, now);
        self.passing = Passing::Value(owner);
    }

    fn module_value(&mut self, module: ModuleId) {
        self.report.module_value(module);
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        match self.passing {
            Passing::Value(owner) => {
                if let Some(target) = self.targets.get_mut(owner) {
                    target.buffer.extend_from_slice(bytes);
                }
            }
            Passing::Rewritten(owner) => self.rewrite(owner, bytes),
            Passing::Nowhere => {}
            Passing::ModuleData => {
                if !self.modules.push(bytes, HELD_LEN_MAX) {
                    self.refuse_held();
                }
            }
        }
    }
}

/// The index of the target of each slot; nothing when there is one target.
fn owners(targets: &[SlotSet]) -> Vec<u16> {
    if targets.len() < 2 {
        return Vec::new();
    }
    let mut owners = vec![0; usize::from(SLOT_COUNT)];
    let numbered = (0u16..).zip(targets);
    for (index, slot) in numbered.flat_map(|(index, slots)| slots.iter().map(move |slot| (index, slot))) {
        if let Some(owner) = owners.get_mut(usize::from(slot)) {
            *owner = index;
        }
    }
    owners
}

fn has_field_expiries(key: &Key<'_>) -> bool {
    matches!((key.value_type.code(), key.value_type.magic()), (22, _) | (23..=25, Magic::Redis))
}

/// The name of a function library: the value of `name` in the first line of its source, `#!lua name=mylib`;
/// the whole source where there is none.
pub(crate) fn library_name(source: &[u8]) -> &[u8] {
    let line = source.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(u8::is_ascii_whitespace);
    words.find_map(|word| word.strip_prefix(b"name=")).unwrap_or(source)
}
