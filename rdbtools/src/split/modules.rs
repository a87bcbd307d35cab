//! Data of modules that belongs to no key, on its way into every output.

use std::collections::BTreeMap;
use std::mem;

use crate::value::ModuleId;
use crate::write;

/// Module data with this number is loaded after the keys.
const AFTER_KEYS: u64 = 2;

/// The module data that the outputs have.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// The record that is passing, as it stands.
    data: Vec<u8>,
    now: Option<(ModuleId, u64)>,
    seen: BTreeMap<(ModuleId, u64), Vec<Vec<u8>>>,
    /// In how many later inputs data of a module is another.
    differs: BTreeMap<ModuleId, u64>,
}

impl Modules {
    /// A record begins.
    pub(super) fn begin(&mut self, module: ModuleId, when: u64) {
        self.now = Some((module, when));
        self.data.clear();
        write::put_module_aux(&mut self.data, module, when);
    }

    /// More of the record; whether it stays within `limit` bytes.
    pub(super) fn push(&mut self, bytes: &[u8], limit: usize) -> bool {
        let fits = self.data.len() + bytes.len() <= limit;
        if fits {
            self.data.extend_from_slice(bytes);
        }
        fits
    }

    /// The record ended: answers it where no output has it yet, and whether it is to be written at once.
    pub(super) fn end(&mut self, is_first_input: bool) -> Option<(Vec<u8>, bool)> {
        let data = mem::take(&mut self.data);
        let (module, when) = self.now.take()?;
        let records = self.seen.entry((module, when)).or_default();
        if records.contains(&data) {
            return None;
        }
        // an input may hold several records of a module; those of a later input are the same or another state
        if !is_first_input && !records.is_empty() {
            *self.differs.entry(module).or_default() += 1;
            return None;
        }
        records.push(data.clone());
        Some((data, when != AFTER_KEYS))
    }

    /// What stands behind the keys.
    pub(super) fn after_keys(&self) -> Vec<u8> {
        let after = self.seen.iter().filter(|((_, when), _)| *when == AFTER_KEYS);
        after.flat_map(|(_, records)| records.iter().flatten().copied()).collect()
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.differs.iter().map(|(module, inputs)| {
            let name = module.name();
            format!(
                "data of module {name} that belongs to no key differs in {inputs} inputs: that of the first was kept"
            )
        })
    }
}
