//! What a scanner tells.

use crate::atom::StringHead;
use crate::error::ScanError;
use crate::structure::{Role, Structure};
use crate::value::{ModuleId, ValueType};
use crate::version::RdbVersion;

/// A key, told when its name is complete and before its value passes.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// Where its entry begins: at its first opcode (expiry, idle time, frequency, metadata) or its type byte.
    pub offset: u64,
    /// The database it is in.
    pub db: u64,
    /// Its name.
    pub name: &'a [u8],
    /// The head of its name as it stands in the file.
    pub head: StringHead,
    /// The bytes that follow the head in the file: the name, nothing, or the name compressed.
    pub body: &'a [u8],
    /// The type of its value.
    pub value_type: ValueType,
    /// When it expires, in ms since 1970.
    pub expires_at_ms: Option<i64>,
    /// How long it was idle when it was saved, in seconds (eviction by age).
    pub idle_s: Option<u64>,
    /// Its access frequency, logarithmic (eviction by frequency).
    pub frequency: Option<u8>,
    /// Metadata that modules attached to it, as it stands in the file, opcode included; mostly empty.
    pub meta: &'a [u8],
}

/// Takes what a scanner tells, in the order of the file. Every method does nothing unless it is given.
///
/// The bytes of values and of module data are told by [`Sink::raw`] in pieces whose borders mean nothing:
/// they depend on how the input was cut.
pub trait Sink {
    /// Whether the pieces of values are told by [`Sink::structure`] too. It costs: strings are unpacked.
    const STRUCTURE: bool = false;

    /// Whether templates of hashes (Redis 8.10) are understood. Values that refer to one mean nothing without it, so
    /// where this is not set a file that has any is refused.
    const TEMPLATES: bool = false;

    /// Whether the fields of templates are told by [`Sink::hash_template`]. They are held until they are complete.
    const TEMPLATE_FIELDS: bool = Self::STRUCTURE;

    /// The header was read.
    #[inline]
    fn header(&mut self, version: RdbVersion) {
        let _ = version;
    }

    /// The keys that follow are in this database.
    #[inline]
    fn select_db(&mut self, db: u64) {
        let _ = db;
    }

    /// A hint: the sizes of the current database.
    #[inline]
    fn resize_db(&mut self, keys: u64, expires: u64) {
        let _ = (keys, expires);
    }

    /// A hint: the sizes of a slot (Redis 7.4 and later in cluster mode).
    #[inline]
    fn slot_info(&mut self, slot: u64, keys: u64, expires: u64) {
        let _ = (slot, keys, expires);
    }

    /// A named fact about the file or the server that wrote it.
    #[inline]
    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let _ = (name, value);
    }

    /// A library of functions, by its source.
    #[inline]
    fn function(&mut self, source: &[u8]) {
        let _ = source;
    }

    /// A library of functions in the form of the release candidates of Redis 7.0, which no released
    /// server loads.
    #[inline]
    fn function_pre_ga(&mut self, name: &[u8]) {
        let _ = name;
    }

    /// A template: the fields of all hashes that refer to it by `id`. Told only where [`Self::TEMPLATES`] and
    /// [`Self::TEMPLATE_FIELDS`] ask for it.
    #[inline]
    fn hash_template(&mut self, id: u64, fields: &[Vec<u8>]) {
        let _ = (id, fields);
    }

    /// An import of slots was under way when the file was written (Valkey 9).
    #[inline]
    fn slot_import(&mut self) {}

    /// Data of a module that belongs to no key begins; `when` is 1 before the keys and 2 after them.
    /// Its parts follow as [`Sink::raw`].
    #[inline]
    fn module_aux(&mut self, module: ModuleId, when: u64) {
        let _ = (module, when);
    }

    /// Data of a module that belongs to no key ended.
    #[inline]
    fn module_aux_end(&mut self) {}

    /// A key; its value follows as [`Sink::raw`].
    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        let _ = key;
    }

    /// The value that is passing belongs to this type of a module.
    #[inline]
    fn module_value(&mut self, module: ModuleId) {
        let _ = module;
    }

    /// Bytes of the value or module data that is passing, as they stand in the file.
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// A piece of the value that is passing, what it means and where it begins (where the string begins, for
    /// its pieces and its end); told only where
    /// [`Self::STRUCTURE`] asks for it.
    ///
    /// # Errors
    /// A defect that the sink found: the scan ends with it.
    #[inline]
    fn structure(&mut self, role: Role, offset: u64, structure: Structure<'_>) -> Result<(), ScanError> {
        let _ = (role, offset, structure);
        Ok(())
    }

    /// The value ended; the whole entry took this many bytes, its opcodes and key included.
    #[inline]
    fn key_end(&mut self, bytes: u64) {
        let _ = bytes;
    }
}

/// Takes nothing: for checking alone.
impl Sink for () {
    const TEMPLATES: bool = true;
}
