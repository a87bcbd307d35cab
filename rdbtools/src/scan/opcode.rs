//! What stands between values: opcodes with their numbers, and the names of keys.

use crate::atom::{self, Parsed, StringHead};
use crate::error::{Defect, ScanError};
use crate::lzf;
use crate::sink::{Key, Sink};
use crate::value::{self, ModuleId, ValueType};
use crate::version::{Magic, RdbVersion};

use super::record::{Record, decimal};
use super::{Cursor, KEPT_LEN_MAX, Phase, Raw, Scanner};

/// From this version of Redis on opcode 243 is metadata of keys; before, it is nothing.
const KEY_META_VERSION_MIN: u16 = 13;
/// From this version of Redis on (8.10) opcode 242 is a template of hashes; before, it is nothing.
const TEMPLATE_VERSION_MIN: u16 = 15;
/// The most templates of one file.
const TEMPLATES_MAX: usize = 1 << 20;
/// The mark before the number that says when module data is loaded (`RDB_MODULE_OPCODE_UINT`).
pub(crate) const WHEN_MARK: u64 = 2;

/// The opcodes (`rdb.h` of Redis and Valkey).
pub(crate) mod code {
    pub(crate) const HASH_TEMPLATE: u8 = 242;
    pub(crate) const EXTENSION: u8 = 243;
    pub(crate) const SLOT_INFO: u8 = 244;
    pub(crate) const FUNCTION: u8 = 245;
    pub(crate) const FUNCTION_PRE_GA: u8 = 246;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQUENCY: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZE_DB: u8 = 251;
    pub(crate) const EXPIRE_MS: u8 = 252;
    pub(crate) const EXPIRE_S: u8 = 253;
    pub(crate) const SELECT_DB: u8 = 254;
    pub(crate) const END: u8 = 255;
}

/// What stands at a place where a key or an opcode may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Key(ValueType, StringHead),
    ExpireAtMs(i64),
    IdleS(u64),
    Frequency(u8),
    SelectDb(u64),
    ResizeDb(u64, u64),
    SlotInfo(u64, u64, u64),
    ModuleAux { module: ModuleId, when: u64 },
    HashTemplate { id: u64, fields: u64 },
    Record(Record),
    End,
}

/// What was said of the key that comes next, or of the one whose value is passing.
#[derive(Debug, Default)]
pub(super) struct Entry {
    start: Option<u64>,
    expires_at_ms: Option<i64>,
    idle_s: Option<u64>,
    frequency: Option<u8>,
    pub(super) meta: Vec<u8>,
    /// The type and name that are being read.
    key: Option<(ValueType, StringHead)>,
}

/// A key with a short name that is kept as it is and at hand, and what follows it. Everything else is for [`parse`].
#[inline]
fn key_at_hand(bytes: &[u8], magic: Magic) -> Option<(ValueType, &[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let value_type = ValueType::new(first, magic)?;
    let (length, used) = atom::short_length(rest)?;
    let (name, rest) = rest.get(used..)?.split_at_checked(length)?;
    Some((value_type, name, rest))
}

fn parse(bytes: &[u8], version: RdbVersion) -> Parsed<Opcode> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    match ValueType::new(first, version.magic) {
        Some(value_type) => Ok(atom::string_head(rest)?.map(|(head, used)| (Opcode::Key(value_type, head), used + 1))),
        None => parse_special(first, rest, version),
    }
}

/// What begins with a byte that is no value type.
fn parse_special(first: u8, rest: &[u8], version: RdbVersion) -> Parsed<Opcode> {
    let parsed = match first {
        code::EXPIRE_MS => rest.first_chunk().map(|ms| (Opcode::ExpireAtMs(i64::from_le_bytes(*ms)), 8)),
        code::EXPIRE_S => rest.first_chunk().map(|s| (Opcode::ExpireAtMs(i64::from(i32::from_le_bytes(*s)) * 1000), 4)),
        code::IDLE => atom::length(rest)?.map(|(idle, used)| (Opcode::IdleS(idle), used)),
        code::FREQUENCY => rest.first().map(|frequency| (Opcode::Frequency(*frequency), 1)),
        code::SELECT_DB => atom::length(rest)?.map(|(db, used)| (Opcode::SelectDb(db), used)),
        code::RESIZE_DB => {
            atom::two_lengths(rest)?.map(|((keys, expires), used)| (Opcode::ResizeDb(keys, expires), used))
        }
        code::SLOT_INFO => atom::three_lengths(rest)?.map(|((a, b, c), used)| (Opcode::SlotInfo(a, b, c), used)),
        code::MODULE_AUX => module_aux(rest)?,
        code::AUX => Some((Opcode::Record(Record::Aux), 0)),
        code::FUNCTION => Some((Opcode::Record(Record::Function), 0)),
        code::FUNCTION_PRE_GA => Some((Opcode::Record(Record::FunctionPreGa), 0)),
        code::EXTENSION if version.magic == Magic::Valkey => Some((Opcode::Record(Record::SlotImport), 0)),
        code::EXTENSION if version.number >= KEY_META_VERSION_MIN => Some((Opcode::Record(Record::KeyMeta), 0)),
        code::HASH_TEMPLATE if version.magic == Magic::Redis && version.number >= TEMPLATE_VERSION_MIN => {
            atom::two_lengths(rest)?.map(|((id, fields), used)| (Opcode::HashTemplate { id, fields }, used))
        }
        code::END => Some((Opcode::End, 0)),
        _ => return Err(unknown(first, version)),
    };
    Ok(parsed.map(|(opcode, used)| (opcode, used + 1)))
}

fn module_aux(bytes: &[u8]) -> Parsed<Opcode> {
    let Some(((module, mark, when), used)) = atom::three_lengths(bytes)? else { return Ok(None) };
    if mark != WHEN_MARK {
        return Err(Defect::malformed(format!("module data does not say when it is loaded (mark {mark})")));
    }
    Ok(Some((Opcode::ModuleAux { module: ModuleId(module), when }, used)))
}

#[cold]
fn unknown(code: u8, version: RdbVersion) -> Defect {
    Defect::unsupported(format!(
        "{code} is no value type or opcode of {version} that this library knows: \
         the file is damaged, or written by a newer server or a fork"
    ))
}

impl<S: Sink> Scanner<S> {
    pub(super) fn opcode(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
        let start = self.atom_start(cursor);
        let version = self.version;
        if self.carry.is_empty()
            && let Some((value_type, name, rest)) = key_at_hand(cursor.rest, version.magic)
        {
            cursor.rest = rest;
            self.entry.start.get_or_insert(start);
            self.begin_value(cursor, value_type, StringHead::Plain(name.len() as u64), name, name)?;
            return Ok(true);
        }
        let Some(opcode) = self.atom(cursor, |bytes| parse(bytes, version))? else { return Ok(false) };
        match opcode {
            Opcode::Key(value_type, head) => {
                self.entry.start.get_or_insert(start);
                return self.begin_key(cursor, start, value_type, head);
            }
            Opcode::ExpireAtMs(at) => self.attribute(start).expires_at_ms = Some(at),
            Opcode::IdleS(idle) => self.attribute(start).idle_s = Some(idle),
            Opcode::Frequency(frequency) => self.attribute(start).frequency = Some(frequency),
            Opcode::SelectDb(db) => {
                self.db = db;
                self.sink.select_db(db);
            }
            Opcode::ResizeDb(keys, expires) => self.sink.resize_db(keys, expires),
            Opcode::SlotInfo(slot, keys, expires) => self.sink.slot_info(slot, keys, expires),
            Opcode::ModuleAux { module, when } => {
                self.sink.module_aux(module, when);
                self.begin_record(Record::ModuleAux, value::MODULE_AUX);
                self.begin_raw(cursor, Raw::ToSink);
            }
            Opcode::HashTemplate { id, fields } => {
                self.begin_template(id, fields).map_err(|defect| defect.at(start))?;
            }
            Opcode::Record(record) => self.begin_opcode_record(cursor, record, start),
            Opcode::End => self.end(cursor),
        }
        Ok(true)
    }

    fn begin_opcode_record(&mut self, cursor: &mut Cursor<'_>, record: Record, start: u64) {
        let layout = match record {
            Record::Aux => value::AUX,
            Record::Function => value::FUNCTION,
            Record::FunctionPreGa => value::FUNCTION_PRE_GA,
            Record::SlotImport => value::SLOT_IMPORT,
            Record::KeyMeta => value::KEY_META,
            // these have numbers or a name before their layout begins
            Record::ModuleAux | Record::Value | Record::HashTemplate => value::MODULE_AUX,
        };
        self.begin_record(record, layout);
        if record == Record::KeyMeta {
            let entry = self.attribute(start);
            entry.meta.clear();
            entry.meta.push(code::EXTENSION);
            self.begin_raw(cursor, Raw::ToMeta);
        }
    }

    /// A template, which every hash that refers to it needs.
    fn begin_template(&mut self, id: u64, fields: u64) -> Result<(), Defect> {
        if !S::TEMPLATES {
            return Err(Defect::unsupported(
                "the file has templates of hashes (Redis 8.10), which nothing here can take over: \
                 rdbtools convert writes such hashes with their fields",
            ));
        }
        if fields == 0 {
            return Err(Defect::malformed(format!("the template {id} of hashes has no fields")));
        }
        if self.templates.len() >= TEMPLATES_MAX {
            return Err(Defect::unsupported(format!("more than {TEMPLATES_MAX} templates of hashes")));
        }
        if self.templates.insert(id, fields).is_some() {
            return Err(Defect::malformed(format!("the template {id} of hashes occurs twice")));
        }
        self.begin_record(Record::HashTemplate, &[]);
        let field = if S::TEMPLATE_FIELDS { value::TEMPLATE_FIELD } else { value::TEMPLATE_FIELD_UNTOLD };
        self.machine.repeat(field, fields);
        self.template = id;
        Ok(())
    }

    fn attribute(&mut self, start: u64) -> &mut Entry {
        self.entry.start.get_or_insert(start);
        &mut self.entry
    }

    #[inline]
    fn begin_key(
        &mut self,
        cursor: &mut Cursor<'_>,
        start: u64,
        value_type: ValueType,
        head: StringHead,
    ) -> Result<bool, ScanError> {
        if let StringHead::Plain(length) = head
            && length <= cursor.rest.len() as u64
        {
            let name = cursor.take(length);
            self.begin_value(cursor, value_type, head, name, name)?;
            return Ok(true);
        }
        self.check_kept(head).map_err(|defect| defect.at(start))?;
        self.entry.key = Some((value_type, head));
        self.collected.clear();
        self.phase = Phase::KeyName;
        Ok(true)
    }

    /// Collects a name that is not at hand as it is: cut by the input, a number, or compressed.
    pub(super) fn collect_name(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
        let Some((value_type, head)) = self.entry.key else { return Ok(true) };
        let start = self.base + cursor.position() as u64 - self.collected.len() as u64;
        let missing = head.body_length().saturating_sub(self.collected.len() as u64);
        self.collected.extend_from_slice(cursor.take(missing));
        if (self.collected.len() as u64) < head.body_length() {
            return Ok(false);
        }
        let body = std::mem::take(&mut self.collected);
        match head {
            StringHead::Plain(_) => self.begin_value(cursor, value_type, head, &body, &body)?,
            StringHead::Int { value, .. } => {
                self.begin_value(cursor, value_type, head, decimal(value).as_bytes(), &body)?;
            }
            StringHead::Lzf { length, .. } => {
                let mut name = Vec::new();
                lzf::unpack(&body, length, &mut name).map_err(|defect| defect.at(start))?;
                self.begin_value(cursor, value_type, head, &name, &body)?;
            }
        }
        // the memory is used again for the next name, unless it was an uncommonly long one
        if body.capacity() <= super::PIECE_LEN {
            self.collected = body;
        }
        Ok(true)
    }

    pub(super) fn check_kept(&self, head: StringHead) -> Result<(), Defect> {
        let length = head.length().max(head.body_length());
        if length > KEPT_LEN_MAX {
            return Err(Defect::malformed(format!(
                "a name or field of {length} bytes; no server accepts more than {KEPT_LEN_MAX}"
            )));
        }
        Ok(())
    }

    #[inline]
    fn begin_value(
        &mut self,
        cursor: &mut Cursor<'_>,
        value_type: ValueType,
        head: StringHead,
        name: &[u8],
        body: &[u8],
    ) -> Result<(), ScanError> {
        let offset = self.entry.start.unwrap_or_default();
        let Some(layout) = value_type.layout() else { return Err(opaque(offset, name)) };
        self.sink.key(&Key {
            offset,
            db: self.db,
            name,
            head,
            body,
            value_type,
            expires_at_ms: self.entry.expires_at_ms,
            idle_s: self.entry.idle_s,
            frequency: self.entry.frequency,
            meta: &self.entry.meta,
        });
        if !S::STRUCTURE
            && value_type.is_one_string()
            && let Some(rest) = atom::after_short_string(cursor.rest)
        {
            self.sink.raw(cursor.pass_to(rest));
            self.phase = Phase::Opcode;
            self.close_key(cursor);
            return Ok(());
        }
        self.begin_record(Record::Value, layout);
        self.begin_raw(cursor, Raw::ToSink);
        Ok(())
    }

    /// The value has passed.
    #[inline]
    pub(super) fn end_key(&mut self, cursor: &mut Cursor<'_>) {
        self.end_raw(cursor);
        self.close_key(cursor);
    }

    /// The value has passed, and its bytes were told.
    #[inline]
    fn close_key(&mut self, cursor: &Cursor<'_>) {
        let end = self.base + cursor.position() as u64;
        let start = self.entry.start.take().unwrap_or(end);
        self.sink.key_end(end - start);
        self.entry.expires_at_ms = None;
        self.entry.idle_s = None;
        self.entry.frequency = None;
        self.entry.meta.clear();
    }
}

#[cold]
fn opaque(offset: u64, name: &[u8]) -> ScanError {
    /// How much of a key's name a message shows.
    const SHOWN_MAX: usize = 64;
    let shown: String =
        name.iter().take(SHOWN_MAX).copied().flat_map(std::ascii::escape_default).map(char::from).collect();
    Defect::unsupported(format!(
        "the value of key \"{shown}\" is of type 6, which release candidates of Redis 4.0 wrote for modules: \
         only the module itself can tell where it ends"
    ))
    .at(offset)
}
