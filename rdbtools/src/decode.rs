//! Decodes values into what they hold, whatever encoding they are kept in.
//!
//! A [`Decoder`] is a sink that follows the structure of values and walks packed encodings, and tells a
//! [`Values`] the items of lists, members of sets, fields of hashes and entries of streams. Strings come in
//! pieces; nothing of a value is held beyond a fixed buffer. What cannot be decoded is an error with its place:
//! a flaw in a packed encoding, a field without a value, a score that is not a number.
//!
//! ```
//! use rdbtools::decode::{Decoder, Part, Values};
//! use rdbtools::{ScanError, Scanner, Sink};
//!
//! #[derive(Default)]
//! struct Items(Vec<String>);
//!
//! impl Sink for Items {}
//!
//! impl Values for Items {
//!     fn part(&mut self, _offset: u64, part: Part<'_>) -> Result<(), ScanError> {
//!         match part {
//!             Part::Begin { .. } => self.0.push(String::new()),
//!             Part::Piece(bytes) => self.0.last_mut().unwrap().push_str(std::str::from_utf8(bytes).unwrap()),
//!             _ => {}
//!         }
//!         Ok(())
//!     }
//! }
//!
//! // the list `a`, a quicklist of one ziplist with "x" and 5
//! let ziplist = b"\x10\0\0\0\x0d\0\0\0\x02\0\0\x01x\x03\xf6\xff";
//! let file = [b"REDIS0003\xfe\x00\x0e\x01a\x01\x10", &ziplist[..], b"\xff"].concat();
//! let mut scanner = Scanner::new(Decoder::new(Items::default()));
//! scanner.feed(&file)?;
//! assert_eq!(scanner.finish()?.1.into_values().0, ["x", "5"]);
//! # Ok::<(), ScanError>(())
//! ```

mod cells;
mod part;
mod stream;

use crate::atom::StringHead;
use crate::error::{Defect, ErrorKind, ScanError};
use crate::packed::{Kind, PackedError, Walk};
use crate::sink::{Key, Sink};
use crate::structure::{Role, Structure};
use crate::value::{ModuleId, ValueType};
use crate::version::{Magic, RdbVersion};

use cells::Cells;

pub use part::{Part, StreamFacts, StreamId, Values};

/// The latest expiry of a hash's field, in ms since 1970 (`EB_EXPIRE_TIME_MAX` in Redis' `ebuckets.h`).
pub const FIELD_EXPIRY_MAX: u64 = 0xffff_ffff_ffff;

/// The entries read of a group that the server did not know (`SCG_INVALID_ENTRIES_READ` in `stream.h`).
const ENTRIES_READ_UNKNOWN: u64 = u64::MAX;

/// A sink that decodes values and tells them to a [`Values`].
#[derive(Debug)]
pub struct Decoder<V> {
    values: V,
    value_type: Option<ValueType>,
    /// The packed value that is passing.
    walk: Option<Walk>,
    /// Where its bytes begin, if they stand in the file as they are.
    plain_body: Option<u64>,
    cells: Cells,
    /// The node of a list is one item.
    is_item: bool,
    least_expiry: u64,
    /// The expiry that stood before its field.
    held_expiry: Option<Option<u64>>,
    /// The first half of an id.
    half: Option<u64>,
    facts: StreamFacts,
    group_last_id: StreamId,
    pending: (StreamId, u64),
    node_id: ([u8; 16], usize),
    /// What is wrong with a template that was told.
    template_defect: Option<ScanError>,
}

impl<V: Values> Decoder<V> {
    /// A decoder at the start of an RDB.
    pub fn new(values: V) -> Self {
        Self {
            values,
            value_type: None,
            walk: None,
            plain_body: None,
            cells: Cells::default(),
            is_item: false,
            least_expiry: 0,
            held_expiry: None,
            half: None,
            facts: StreamFacts::default(),
            group_last_id: StreamId::default(),
            pending: (StreamId::default(), 0),
            node_id: ([0; 16], 0),
            template_defect: None,
        }
    }

    /// Who is told the values.
    pub fn values(&self) -> &V {
        &self.values
    }

    /// Who is told the values, to be changed.
    pub fn values_mut(&mut self) -> &mut V {
        &mut self.values
    }

    /// Gives back who was told.
    pub fn into_values(self) -> V {
        self.values
    }

    fn begin(&mut self, role: Role, offset: u64, head: StringHead, body: u64) -> Result<(), ScanError> {
        match role {
            Role::NodeId => {
                self.node_id.1 = 0;
                Ok(())
            }
            Role::Packed if !self.is_item => {
                let Some((kind, roles)) = self.value_type.and_then(packed) else {
                    return Err(Defect::malformed("a packed value stands where none can").at(offset));
                };
                self.walk = Some(Walk::new(kind, head.length()));
                self.plain_body = matches!(head, StringHead::Plain(_)).then_some(body);
                if head.length() == 0 {
                    return Err(Defect::malformed(format!("a {} of no bytes", kind.name())).at(offset));
                }
                self.cells.begin(roles, offset, StreamId::read(&self.node_id.0).unwrap_or_default());
                if roles.is_empty() { self.cells.begin_node(&mut self.values) } else { Ok(()) }
            }
            Role::FieldValue if self.cells.is_templated() => {
                self.cells.field(&mut self.values)?;
                self.values.part(offset, Part::Begin { role, length: head.length() })
            }
            Role::Packed => self.values.part(offset, Part::Begin { role: Role::Item, length: head.length() }),
            _ => self.values.part(offset, Part::Begin { role, length: head.length() }),
        }
    }

    fn piece(&mut self, role: Role, offset: u64, bytes: &[u8]) -> Result<(), ScanError> {
        if role == Role::NodeId {
            let (id, filled) = &mut self.node_id;
            let places = id.iter_mut().skip(*filled);
            places.zip(bytes).for_each(|(place, byte)| *place = *byte);
            *filled += bytes.len();
            return Ok(());
        }
        let Some(walk) = &mut self.walk else { return self.values.part(offset, Part::Piece(bytes)) };
        let (cells, values) = (&mut self.cells, &mut self.values);
        let mut told = Ok(());
        let walked = walk.push(bytes, |element| {
            if told.is_ok()
                && let Err(defect) = cells.element(element, values)
            {
                told = Err(defect);
            }
        });
        told?;
        walked.map_err(|error| flaw(&error, offset, self.plain_body))
    }

    fn end(&mut self, role: Role, offset: u64) -> Result<(), ScanError> {
        if role == Role::NodeId {
            return Ok(());
        }
        if self.walk.take().is_some() {
            return self.cells.end(&mut self.values);
        }
        self.values.part(offset, Part::End)?;
        match self.held_expiry {
            Some(expiry) if role == Role::FieldValue => {
                self.held_expiry = None;
                self.values.part(offset, Part::FieldExpiry(expiry))
            }
            _ => Ok(()),
        }
    }

    fn number(&mut self, role: Role, offset: u64, number: u64) -> Result<(), ScanError> {
        match role {
            Role::Container => self.is_item = number == 1,
            Role::FieldExpiry => self.held_expiry = Some(self.field_expiry(offset, number)?),
            Role::StreamLength => self.facts.length = number,
            Role::EntriesAdded => self.facts.entries_added = Some(number),
            Role::LastId | Role::FirstId | Role::GreatestDeletedId | Role::GroupLastId | Role::ProducerEntry => {
                let Some(ms) = self.half.take() else {
                    self.half = Some(number);
                    return Ok(());
                };
                return self.id(role, offset, StreamId { ms, seq: number });
            }
            Role::Template => return self.cells.begin_templated(offset, number),
            Role::ArrayIndex => return self.values.part(offset, Part::ArrayIndex(number)),
            Role::ArrayInsert => {
                let place = Some(number).filter(|number| *number != u64::MAX);
                return self.values.part(offset, Part::ArrayInsert(place));
            }
            Role::EntriesRead => {
                let entries_read = Some(number).filter(|number| *number != ENTRIES_READ_UNKNOWN);
                return self.values.part(offset, Part::Group { last_id: self.group_last_id, entries_read });
            }
            Role::Deliveries => {
                let (id, delivered_ms) = self.pending;
                return self.values.part(offset, Part::Pending { id, delivered_ms, deliveries: number });
            }
            Role::IdempotenceLimit | Role::IdempotenceCount => {
                return self.values.part(offset, Part::Idempotence { role, number });
            }
            _ => {}
        }
        Ok(())
    }

    fn id(&mut self, role: Role, offset: u64, id: StreamId) -> Result<(), ScanError> {
        match role {
            Role::LastId => self.facts.last_id = id,
            Role::FirstId => self.facts.first_id = Some(id),
            Role::GreatestDeletedId => self.facts.greatest_deleted_id = Some(id),
            Role::ProducerEntry => return self.values.part(offset, Part::ProducerEntry(id)),
            // the oldest type has no count of entries read behind it
            _ if self.value_type.is_some_and(|value_type| value_type.code() == 15) => {
                return self.values.part(offset, Part::Group { last_id: id, entries_read: None });
            }
            _ => self.group_last_id = id,
        }
        Ok(())
    }

    /// The expiry of a field: as it is in the type of the release candidates of Redis 7.4, from there on
    /// counted from the least one; 0 is none.
    fn field_expiry(&self, offset: u64, number: u64) -> Result<Option<u64>, ScanError> {
        let is_relative = self.value_type.is_some_and(|value_type| value_type.code() == 24);
        let at = match number {
            0 => return Ok(None),
            _ if is_relative => self.least_expiry.checked_add(number - 1),
            _ => Some(number),
        };
        match at {
            Some(at) if at <= FIELD_EXPIRY_MAX => Ok(Some(at)),
            _ => Err(Defect::malformed("the expiry of a field is beyond what the server accepts").at(offset)),
        }
    }

    fn bytes(&mut self, role: Role, offset: u64, bytes: &[u8]) -> Result<(), ScanError> {
        let number = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
        let unsigned = |at: usize| number(at).map(u64::from_le_bytes).unwrap_or_default();
        let signed = |at: usize| number(at).map(i64::from_le_bytes);
        match role {
            Role::LeastExpiry => self.least_expiry = unsigned(0),
            Role::FieldExpiry => {
                let expiry =
                    match signed(0) {
                        None | Some(-1) => None,
                        Some(at) => Some(u64::try_from(at).map_err(|_| {
                            Defect::malformed(format!("the expiry {at} of a field is no time")).at(offset)
                        })?),
                    };
                return self.values.part(offset, Part::FieldExpiry(expiry));
            }
            Role::Pending => self.pending = (StreamId::read(bytes).unwrap_or_default(), unsigned(16)),
            Role::ConsumerTimes => {
                let part = Part::Consumer { seen_ms: signed(0).unwrap_or_default(), active_ms: signed(8) };
                return self.values.part(offset, part);
            }
            Role::Nacked => {
                let id = StreamId::read(bytes).unwrap_or_default();
                return self.values.part(offset, Part::Nacked(id));
            }
            Role::ConsumerPending => {
                let id = StreamId::read(bytes).unwrap_or_default();
                return self.values.part(offset, Part::ConsumerPending(id));
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, role: Role, offset: u64, count: u64) -> Result<(), ScanError> {
        if role == Role::Group {
            self.values.part(offset, Part::Stream(self.facts))?;
        }
        self.values.part(offset, Part::Count { role, count })
    }
}

/// Which packed encoding values of a type are in, and what their elements are by turns; none for streams.
fn packed(value_type: ValueType) -> Option<(Kind, &'static [Role])> {
    const LIST: &[Role] = &[Role::Item];
    const SET: &[Role] = &[Role::Member];
    const ZSET: &[Role] = &[Role::Member, Role::Score];
    const HASH: &[Role] = &[Role::Field, Role::FieldValue];
    Some(match (value_type.code(), value_type.magic()) {
        (9, _) => (Kind::Zipmap, HASH),
        (10 | 14, _) => (Kind::Ziplist, LIST),
        (11, _) => (Kind::Intset, SET),
        (12, _) => (Kind::Ziplist, ZSET),
        (13, _) => (Kind::Ziplist, HASH),
        (16, _) => (Kind::Listpack, HASH),
        (17, _) => (Kind::Listpack, ZSET),
        (18, _) => (Kind::Listpack, LIST),
        (20, _) => (Kind::Listpack, SET),
        (23 | 25, Magic::Redis) => (Kind::Listpack, &[Role::Field, Role::FieldValue, Role::FieldExpiry]),
        (30, Magic::Redis) => (Kind::Listpack, &[Role::Template]),
        (15 | 19 | 21, _) | (26 | 27, Magic::Redis) => (Kind::Listpack, &[]),
        _ => return None,
    })
}

/// A flaw in a packed value: at its own place where the value is not compressed.
#[cold]
fn flaw(error: &PackedError, offset: u64, plain_body: Option<u64>) -> ScanError {
    match plain_body {
        Some(body) => Defect::malformed(format!("{}: {}", error.kind.name(), error.message)).at(body + error.offset),
        None => {
            Defect::malformed(format!("{}, byte {} when unpacked: {}", error.kind.name(), error.offset, error.message))
                .at(offset)
        }
    }
}

impl<V: Values> Sink for Decoder<V> {
    const STRUCTURE: bool = true;
    const TEMPLATES: bool = true;

    fn hash_template(&mut self, id: u64, fields: &[Vec<u8>]) {
        // where it is refused, the next value is
        self.template_defect = self.template_defect.take().or(self.cells.add_template(id, fields).err());
    }

    fn header(&mut self, version: RdbVersion) {
        self.values.header(version);
    }

    fn select_db(&mut self, db: u64) {
        self.values.select_db(db);
    }

    fn resize_db(&mut self, keys: u64, expires: u64) {
        self.values.resize_db(keys, expires);
    }

    fn slot_info(&mut self, slot: u64, keys: u64, expires: u64) {
        self.values.slot_info(slot, keys, expires);
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.values.aux(name, value);
    }

    fn function(&mut self, source: &[u8]) {
        self.values.function(source);
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        self.values.function_pre_ga(name);
    }

    fn slot_import(&mut self) {
        self.values.slot_import();
    }

    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.values.module_aux(module, when);
    }

    fn module_aux_end(&mut self) {
        self.values.module_aux_end();
    }

    fn key(&mut self, key: &Key<'_>) {
        self.value_type = Some(key.value_type);
        self.walk = None;
        self.is_item = false;
        self.held_expiry = None;
        self.half = None;
        self.cells.end_templated();
        self.facts = StreamFacts::default();
        self.values.key(key);
    }

    fn module_value(&mut self, module: ModuleId) {
        self.values.module_value(module);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.values.raw(bytes);
    }

    fn structure(&mut self, role: Role, offset: u64, structure: Structure<'_>) -> Result<(), ScanError> {
        if let Some(defect) = self.template_defect.take() {
            return Err(ScanError { offset, ..defect });
        }
        match structure {
            Structure::Begin { head, body } => self.begin(role, offset, head, body),
            Structure::Piece(bytes) => self.piece(role, offset, bytes),
            Structure::End => self.end(role, offset),
            Structure::Count(count) => self.count(role, offset, count),
            Structure::Number(number) => self.number(role, offset, number),
            Structure::Bytes(bytes) => self.bytes(role, offset, bytes),
            Structure::Score(score) => self.values.part(offset, Part::Score(score)),
            Structure::ModuleNumber(number) => self.values.part(offset, Part::ModuleNumber(number)),
            Structure::ValueEnd => self.values.part(offset, Part::ValueEnd),
        }
    }

    fn key_end(&mut self, bytes: u64) {
        self.values.key_end(bytes);
    }
}

impl ScanError {
    /// A defect in what a value holds.
    pub(crate) fn malformed(offset: u64, message: impl Into<String>) -> Self {
        Self { offset, kind: ErrorKind::Malformed, message: message.into() }
    }
}
