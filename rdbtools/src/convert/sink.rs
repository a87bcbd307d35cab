//! Decides for everything that a scanner tells what becomes of it in the output.

use crate::error::{Defect, ScanError};
use crate::info::printable_name;
use crate::report::{DATABASES_MAX, DbCounts, ReportSink};
use crate::sink::{Key, Sink};
use crate::split::library_name;
use crate::value::{ModuleId, ValueType};
use crate::version::RdbVersion;
use crate::write;

use super::loss::{LossKind, Losses};
use super::plan::{Plan, plan};
use super::rewriter::{Halt, Rewriter};
use super::{ConvertError, ConvertOptions};

/// The type of module values that can be walked; 6 cannot, and never gets here.
const MODULE: u8 = 7;

/// Where the raw bytes that pass go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Nowhere,
    AsTheyAre,
    Rewritten,
}

/// The sink of a converter.
#[derive(Debug)]
pub(super) struct Writer {
    options: ConvertOptions,
    buffer: Vec<u8>,
    report: ReportSink,
    losses: Losses,
    rewriter: Rewriter,
    passing: Passing,
    db: Option<u64>,
    /// Database and name of the key whose value is being rewritten, and where its entry begins.
    now: (u64, Vec<u8>, u64),
    written: DbCounts,
    rewritten: u64,
    failure: Option<ConvertError>,
}

impl Writer {
    pub(super) fn new(options: ConvertOptions) -> Self {
        let mut buffer = options.target.version().header();
        let (field, release) = options.target.writer();
        write::put_aux(&mut buffer, field.as_bytes(), release.as_bytes());
        write::put_aux(&mut buffer, b"ctime", (options.now_unix_ms / 1000).to_string().as_bytes());
        Self {
            buffer,
            report: ReportSink::new(false),
            losses: Losses::new(options.drop.clone()),
            rewriter: Rewriter::new(),
            passing: Passing::Nowhere,
            db: None,
            now: (0, Vec::new(), 0),
            written: DbCounts::default(),
            rewritten: 0,
            failure: None,
            options,
        }
    }

    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    pub(super) fn losses(&mut self) -> &mut Losses {
        &mut self.losses
    }

    pub(super) fn report(&self) -> &ReportSink {
        &self.report
    }

    pub(super) fn take_failure(&mut self) -> Option<ConvertError> {
        self.failure.take()
    }

    /// Counts of the input and of the output, how many keys were rewritten, and what was lost.
    pub(super) fn into_parts(self) -> (ReportSink, DbCounts, u64, Losses) {
        (self.report, self.written, self.rewritten, self.losses)
    }

    fn put_key(&mut self, key: &Key<'_>, code: u8) {
        let Some(value_type) = ValueType::new(code, self.options.target.version().magic) else { return };
        if self.db != Some(key.db) {
            self.db = Some(key.db);
            write::put_select_db(&mut self.buffer, key.db);
        }
        self.written.keys += 1;
        self.written.expires += u64::from(key.expires_at_ms.is_some());
        if !key.meta.is_empty() {
            self.losses.add(LossKind::KeyMetadata, Some(key.db), key.name, 1);
        }
        write::put_key(&mut self.buffer, &Key { value_type, meta: &[], ..*key }, key.expires_at_ms);
    }

    fn rewrite(&mut self, bytes: &[u8]) {
        let Err(halt) = self.rewriter.push(bytes, &mut self.buffer) else { return };
        self.passing = Passing::Nowhere;
        let (_, name, offset) = &self.now;
        let key = printable_name(name);
        self.failure.get_or_insert(match halt {
            Halt::Defect(defect) => {
                let message = format!("the value of key \"{key}\": {}", defect.message);
                ConvertError::Scan(Defect { message: message.into(), ..defect }.at(*offset))
            }
            Halt::TooLarge(message) => ConvertError::TooLarge { key, message },
        });
    }
}

impl Sink for Writer {
    const TEMPLATES: bool = true;
    const TEMPLATE_FIELDS: bool = true;

    fn header(&mut self, version: RdbVersion) {
        self.report.header(version);
    }

    fn select_db(&mut self, db: u64) {
        self.report.select_db(db);
        if self.report.databases_counted() >= DATABASES_MAX {
            let message = format!("it holds {DATABASES_MAX} databases or more");
            self.failure.get_or_insert(ConvertError::TooLarge { key: String::new(), message });
        }
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.report.aux(name, value);
        // all others are about the save, or about the server that wrote the file
        if name == b"redis-bits" {
            write::put_aux(&mut self.buffer, name, value);
        }
    }

    fn function(&mut self, source: &[u8]) {
        self.report.function(source);
        if self.options.target.has_functions() {
            write::put_function(&mut self.buffer, source);
        } else {
            self.losses.add(LossKind::Functions, None, library_name(source), 1);
        }
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        self.report.function_pre_ga(name);
        self.losses.add(LossKind::Functions, None, name, 1);
    }

    fn hash_template(&mut self, id: u64, fields: &[Vec<u8>]) {
        if let Err(defect) = self.rewriter.templates().add(id, fields.into()) {
            self.failure.get_or_insert(ConvertError::Scan(defect.at(0)));
        }
    }

    fn slot_import(&mut self) {
        self.losses.add(LossKind::SlotImports, None, b"", 1);
    }

    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.report.module_aux(module, when);
        if self.options.keep_modules {
            write::put_module_aux(&mut self.buffer, module, when);
            self.passing = Passing::AsTheyAre;
        } else {
            self.losses.add(LossKind::Modules, None, module.name().as_bytes(), 1);
            self.passing = Passing::Nowhere;
        }
    }

    fn module_aux_end(&mut self) {
        self.passing = Passing::Nowhere;
    }

    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        self.report.key(key);
        self.passing = Passing::Nowhere;
        if key.value_type.code() == MODULE && !self.options.keep_modules {
            self.losses.add(LossKind::Modules, Some(key.db), key.name, 1);
            return;
        }
        match plan(key.value_type, self.options.target) {
            Plan::Pass => {
                self.put_key(key, key.value_type.code());
                self.passing = Passing::AsTheyAre;
            }
            Plan::Rewrite { code, steps } => {
                self.put_key(key, code);
                self.rewriter.start(steps);
                self.rewritten += u64::from(code != key.value_type.code());
                let (db, name, offset) = &mut self.now;
                (*db, *offset) = (key.db, key.offset);
                name.clear();
                name.extend_from_slice(key.name.get(..NAME_KEPT_MAX).unwrap_or(key.name));
                self.passing = Passing::Rewritten;
            }
            Plan::Unknown => self.losses.add(LossKind::Types, Some(key.db), key.name, 1),
        }
    }

    fn module_value(&mut self, module: ModuleId) {
        self.report.module_value(module);
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        match self.passing {
            Passing::AsTheyAre => self.buffer.extend_from_slice(bytes),
            Passing::Rewritten => self.rewrite(bytes),
            Passing::Nowhere => {}
        }
    }

    #[inline]
    fn key_end(&mut self, _bytes: u64) {
        if self.passing == Passing::Rewritten {
            // steps that read nothing may be left
            self.rewrite(&[]);
            let (db, name, _) = &self.now;
            for (kind, items) in self.rewriter.lacks().kinds() {
                self.losses.add(kind, Some(*db), name, items);
            }
        }
        self.passing = Passing::Nowhere;
    }
}

/// As much of a name as a report shows.
const NAME_KEPT_MAX: usize = crate::info::NAME_SHOWN_MAX;

impl From<ScanError> for ConvertError {
    fn from(error: ScanError) -> Self {
        Self::Scan(error)
    }
}
