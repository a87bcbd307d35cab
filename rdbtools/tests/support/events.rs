//! A sink that writes down what it is told.

use rdbtools::scan::Scanner;
use rdbtools::{Key, ModuleId, RdbVersion, ScanError, Sink, Summary};

/// Everything a sink can be told; raw bytes of one value together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Header(RdbVersion),
    SelectDb(u64),
    ResizeDb(u64, u64),
    SlotInfo(u64, u64, u64),
    Aux(Vec<u8>, Vec<u8>),
    Function(Vec<u8>),
    FunctionPreGa(Vec<u8>),
    SlotImport,
    ModuleAux(ModuleId, u64),
    ModuleAuxEnd,
    Key(String),
    ModuleValue(ModuleId),
    Raw(Vec<u8>),
    KeyEnd(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Events(pub(crate) Vec<Event>);

impl Sink for Events {
    const TEMPLATES: bool = true;

    fn header(&mut self, version: RdbVersion) {
        self.0.push(Event::Header(version));
    }
    fn select_db(&mut self, db: u64) {
        self.0.push(Event::SelectDb(db));
    }
    fn resize_db(&mut self, keys: u64, expires: u64) {
        self.0.push(Event::ResizeDb(keys, expires));
    }
    fn slot_info(&mut self, slot: u64, keys: u64, expires: u64) {
        self.0.push(Event::SlotInfo(slot, keys, expires));
    }
    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.0.push(Event::Aux(name.to_vec(), value.to_vec()));
    }
    fn function(&mut self, source: &[u8]) {
        self.0.push(Event::Function(source.to_vec()));
    }
    fn function_pre_ga(&mut self, name: &[u8]) {
        self.0.push(Event::FunctionPreGa(name.to_vec()));
    }
    fn slot_import(&mut self) {
        self.0.push(Event::SlotImport);
    }
    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.0.push(Event::ModuleAux(module, when));
    }
    fn module_aux_end(&mut self) {
        self.0.push(Event::ModuleAuxEnd);
    }
    fn key(&mut self, key: &Key<'_>) {
        self.0.push(Event::Key(format!("{key:?}")));
    }
    fn module_value(&mut self, module: ModuleId) {
        // a module's name comes with the first bytes of its value; where they are cut decides what is told first
        let at = self.0.len() - usize::from(matches!(self.0.last(), Some(Event::Raw(_))));
        self.0.insert(at, Event::ModuleValue(module));
    }
    fn raw(&mut self, bytes: &[u8]) {
        match self.0.last_mut() {
            Some(Event::Raw(all)) => all.extend(bytes),
            _ => self.0.push(Event::Raw(bytes.to_vec())),
        }
    }
    fn key_end(&mut self, bytes: u64) {
        self.0.push(Event::KeyEnd(bytes));
    }
}

/// Scans bytes that arrive cut at `cuts`, one after another and over again.
pub(crate) fn scan(bytes: &[u8], cuts: &[usize]) -> (Vec<Event>, Result<Summary, ScanError>) {
    let mut scanner = Scanner::new(Events::default());
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        let (piece, after) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
        rest = after;
        let fed = scanner.feed(piece);
        if rest.is_empty() || fed.is_err() || scanner.is_done() {
            break;
        }
    }
    let outcome = scanner.outcome();
    (scanner.into_sink().0, outcome)
}
