//! JSON: an array with one object per line, for each key, aux field, function library and module's data.
//! `docs/dump.md` has the whole form.

use rdbtools::commands::{Held, Output};
use rdbtools::decode::{Part, StreamFacts, Values};
use rdbtools::structure::{ModuleNumber, Role};
use rdbtools::{Key, ModuleId, ScanError, Sink};
use serde_json::json;

use super::text::{Text, string};
use super::{Dumper, Out};

/// What the value that is passing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    List,
    Set,
    Zset,
    Hash { expires: bool },
    Stream,
    Module,
    Array,
}

impl Shape {
    fn of(key: &Key<'_>) -> Self {
        match (key.value_type.code(), key.value_type.name()) {
            (0, _) => Self::Text,
            (1 | 10 | 14 | 18, _) => Self::List,
            (2 | 11 | 20, _) => Self::Set,
            (3 | 5 | 12 | 17, _) => Self::Zset,
            (28, _) => Self::Array,
            (4 | 9 | 13 | 16 | 30 | 32, _) => Self::Hash { expires: false },
            (_, name) if name.starts_with("stream") => Self::Stream,
            (_, name) if name.starts_with("module") => Self::Module,
            _ => Self::Hash { expires: true },
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Hash { .. } => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
            Self::Array => "array",
        }
    }

    /// What stands around its elements.
    const fn brackets(self) -> (&'static str, &'static str) {
        match self {
            Self::Text => ("", ""),
            Self::List | Self::Set | Self::Zset | Self::Hash { .. } => ("[", "]"),
            Self::Stream => ("{\"entries\":[", "}"),
            Self::Array => ("{", "]}"),
            // its beginning is written when the name of the module is told
            Self::Module => ("", "]}"),
        }
    }
}

/// Lists that may be open at the same time: the value's own, and in a stream groups or producers, the
/// consumers of one or the ids of the other, and pending entries of a consumer.
const LEVELS: usize = 4;

/// Writes JSON.
pub(super) struct Json {
    out: Out,
    /// Whether the array has begun.
    begun: bool,
    shape: Shape,
    /// How many lists are open inside the value's own, and whether each has an element.
    level: usize,
    filled: [bool; LEVELS],
    role: Role,
    text: Text,
    /// Fields that entries of a node share, and which the next value belongs to if its entry has them.
    shared: Held,
    next_shared: Option<usize>,
    /// The entry that is passing was deleted.
    is_deleted: bool,
    /// Whether its first field is still to come.
    fields: bool,
    /// Limits or counters of idempotence that passed.
    idempotence: u8,
    in_module_aux: bool,
}

impl Json {
    pub(super) fn new(out: Out) -> Self {
        Self {
            out,
            begun: false,
            shape: Shape::Text,
            level: 0,
            filled: [false; LEVELS],
            role: Role::Untold,
            text: Text::default(),
            shared: Held::default(),
            next_shared: None,
            is_deleted: false,
            fields: false,
            idempotence: 0,
            in_module_aux: false,
        }
    }

    fn put(&mut self, text: &str) -> Result<(), ScanError> {
        self.out.put(text.as_bytes())
    }

    /// Begins another element of the array.
    fn item(&mut self) -> Result<(), ScanError> {
        let before = if self.begun { ",\n" } else { "[\n" };
        self.begun = true;
        self.put(before)
    }

    /// Writes an element of the array that is told whole. An error of the output is kept there.
    fn whole_item(&mut self, item: &serde_json::Value) {
        let _ = self.item().and_then(|()| self.put(&item.to_string()));
    }

    /// A comma, unless it is the first element of the list that is open.
    fn comma(&mut self) -> Result<(), ScanError> {
        let filled = self.filled.get_mut(self.level).is_some_and(|filled| std::mem::replace(filled, true));
        if filled { self.put(",") } else { Ok(()) }
    }

    fn open(&mut self, text: &str) -> Result<(), ScanError> {
        self.level += 1;
        if let Some(filled) = self.filled.get_mut(self.level) {
            *filled = false;
        }
        self.put(text)
    }

    /// Closes lists, and the objects that hold them, until so many are open.
    fn close_to(&mut self, level: usize) -> Result<(), ScanError> {
        while self.level > level {
            self.put(if self.level == 1 { "]" } else { "]}" })?;
            self.level -= 1;
        }
        Ok(())
    }

    fn begin(&mut self, offset: u64, role: Role, length: u64) -> Result<(), ScanError> {
        self.role = role;
        let is_stream = self.shape == Shape::Stream;
        match role {
            Role::SharedField => return self.shared.begin(offset, length),
            Role::Field | Role::FieldValue if is_stream && self.is_deleted => {
                self.text.discard();
                return Ok(());
            }
            Role::Field if is_stream => {
                let comma = if std::mem::replace(&mut self.fields, true) { ",[" } else { "[" };
                self.put(comma)?;
            }
            Role::FieldValue if is_stream => self.begin_stream_value()?,
            // its index stands before it
            Role::Item if self.shape == Shape::Array => self.put("\"value\":")?,
            Role::Item => self.comma()?,
            Role::Member => {
                self.comma()?;
                self.put(if self.shape == Shape::Zset { "{\"member\":" } else { "" })?;
            }
            Role::Field => {
                self.comma()?;
                self.put("{\"field\":")?;
            }
            Role::FieldValue => self.put(",\"value\":")?,
            Role::Group | Role::Producer => {
                self.close_to(1)?;
                self.comma()?;
                self.put("{\"name\":")?;
            }
            Role::Consumer => {
                self.close_to(2)?;
                self.comma()?;
                self.put("{\"name\":")?;
            }
            Role::ProducerId => {
                self.comma()?;
                self.put("{\"id\":")?;
            }
            Role::Module => {
                self.comma()?;
                self.put("{\"string\":")?;
            }
            _ => {}
        }
        self.text.begin(length, &mut self.out)
    }

    fn begin_stream_value(&mut self) -> Result<(), ScanError> {
        let Some(index) = self.next_shared else { return self.put(",") };
        self.next_shared = Some(index + 1);
        let name = self.shared.strings.get(index).map(|name| string(name).to_string()).unwrap_or_default();
        let comma = if std::mem::replace(&mut self.fields, true) { "," } else { "" };
        self.put(&format!("{comma}[{name},"))
    }

    fn end(&mut self) -> Result<(), ScanError> {
        if self.role == Role::SharedField || !self.text.end(&mut self.out)? {
            return Ok(());
        }
        match (self.role, self.shape) {
            (Role::FieldValue, Shape::Stream) => self.put("]"),
            (Role::Item, Shape::Array) => self.put("}"),
            (Role::FieldValue, Shape::Hash { expires: false }) | (Role::Module, _) => self.put("}"),
            _ => Ok(()),
        }
    }

    fn stream(&mut self, facts: &StreamFacts) -> Result<(), ScanError> {
        let id =
            |id: Option<_>| id.map_or(serde_json::Value::Null, |id: rdbtools::decode::StreamId| json!(id.to_string()));
        self.put(&format!(
            "],\"length\":{},\"last_id\":{},\"first_id\":{},\"greatest_deleted_id\":{},\"entries_added\":{}",
            facts.length,
            id(Some(facts.last_id)),
            id(facts.first_id),
            id(facts.greatest_deleted_id),
            json!(facts.entries_added),
        ))
    }

    fn count(&mut self, role: Role) -> Result<(), ScanError> {
        match role {
            Role::Group => self.open(",\"groups\":["),
            // it is closed before the consumers are opened
            Role::Pending => self.open(",\"pending\":["),
            Role::Consumer => {
                self.level = 1;
                self.open("],\"consumers\":[")
            }
            Role::ConsumerPending => self.open(",\"pending\":["),
            Role::Nacked => {
                self.close_to(2)?;
                self.level = 1;
                self.open("],\"nacked\":[")
            }
            Role::Producer => self.open(",\"producers\":["),
            Role::ProducerId => self.open(",\"ids\":["),
            _ => Ok(()),
        }
    }

    fn idempotence(&mut self, role: Role, number: u64) -> Result<(), ScanError> {
        self.close_to(0)?;
        self.idempotence += 1;
        let text = match (role, self.idempotence) {
            (Role::IdempotenceLimit, 1) => format!(",\"idempotence\":{{\"duration_s\":{number}"),
            (Role::IdempotenceLimit, _) => format!(",\"limit\":{number}"),
            (_, 3) => format!(",\"added\":{number}"),
            _ => format!(",\"duplicates\":{number}}}"),
        };
        self.put(&text)
    }

    fn module_number(&mut self, number: ModuleNumber) -> Result<(), ScanError> {
        self.comma()?;
        let part = match number {
            ModuleNumber::Signed(number) => json!({"signed": number}),
            ModuleNumber::Unsigned(number) => json!({"unsigned": number}),
            ModuleNumber::Float(number) => json!({"float": float(number.into())}),
            ModuleNumber::Double(number) => json!({"double": float(number)}),
        };
        self.put(&part.to_string())
    }

    fn value_end(&mut self) -> Result<(), ScanError> {
        self.close_to(0)?;
        let (_, close) = self.shape.brackets();
        self.put(close)?;
        self.put("}")
    }

    fn begin_key(&mut self, key: &Key<'_>) -> Result<(), ScanError> {
        self.shape = Shape::of(key);
        self.level = 0;
        self.filled = [false; LEVELS];
        self.idempotence = 0;
        self.item()?;
        self.put(&format!(
            "{{\"db\":{},\"key\":{},\"type\":\"{}\",\"encoding\":\"{}\"",
            key.db,
            string(key.name),
            self.shape.name(),
            key.value_type.name()
        ))?;
        if let Some(at) = key.expires_at_ms {
            self.put(&format!(",\"expires_at_ms\":{at}"))?;
        }
        if let Some(idle) = key.idle_s {
            self.put(&format!(",\"idle_s\":{idle}"))?;
        }
        if let Some(frequency) = key.frequency {
            self.put(&format!(",\"frequency\":{frequency}"))?;
        }
        if !key.meta.is_empty() {
            self.put(&format!(",\"metadata\":{}", super::text::base64(key.meta)))?;
        }
        self.put(",\"value\":")?;
        self.put(self.shape.brackets().0)
    }
}

/// A number with a fraction; what JSON has no number for is a string.
fn float(number: f64) -> serde_json::Value {
    if number.is_finite() { json!(number) } else { json!(number.to_string()) }
}

impl Values for Json {
    fn part(&mut self, offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        match part {
            Part::Begin { role, length } => self.begin(offset, role, length),
            Part::Piece(bytes) if self.role == Role::SharedField => {
                self.shared.add(bytes);
                Ok(())
            }
            Part::Piece(bytes) => self.text.add(bytes, &mut self.out),
            Part::End => self.end(),
            Part::Score(score) => self.put(&format!(",\"score\":{}}}", float(score))),
            Part::FieldExpiry(at) => self.put(&format!(",\"expires_at_ms\":{}}}", json!(at))),
            Part::Node(_) => {
                self.shared.clear();
                Ok(())
            }
            Part::Entry { id, deleted, shared, .. } => {
                self.is_deleted = deleted;
                self.next_shared = shared.then_some(0);
                self.fields = false;
                if deleted {
                    return Ok(());
                }
                self.comma()?;
                self.put(&format!("{{\"id\":\"{id}\",\"fields\":["))
            }
            Part::EntryEnd => self.put(if self.is_deleted { "" } else { "]}" }),
            Part::NodeEnd => Ok(()),
            Part::Stream(facts) => self.stream(&facts),
            Part::Count { role, .. } => self.count(role),
            Part::Group { last_id, entries_read } => {
                self.put(&format!(",\"last_id\":\"{last_id}\",\"entries_read\":{}", json!(entries_read)))
            }
            Part::Pending { id, delivered_ms, deliveries } => {
                self.comma()?;
                self.put(&format!("{{\"id\":\"{id}\",\"delivered_at_ms\":{delivered_ms},\"deliveries\":{deliveries}}}"))
            }
            Part::Consumer { seen_ms, active_ms } => {
                self.put(&format!(",\"seen_at_ms\":{seen_ms},\"active_at_ms\":{}", json!(active_ms)))
            }
            Part::ArrayInsert(place) => self.put(&format!("\"insert_index\":{},\"elements\":[", json!(place))),
            Part::ArrayIndex(index) => {
                self.comma()?;
                self.put(&format!("{{\"index\":{index},"))
            }
            Part::ConsumerPending(id) | Part::Nacked(id) => {
                self.comma()?;
                self.put(&format!("\"{id}\""))
            }
            Part::Idempotence { role, number } => self.idempotence(role, number),
            Part::ProducerEntry(id) => self.put(&format!(",\"entry\":\"{id}\"}}")),
            Part::ModuleNumber(number) => self.module_number(number),
            Part::ValueEnd => self.value_end(),
        }
    }
}

impl Sink for Json {
    fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.whole_item(&json!({"aux": {"name": string(name), "value": string(value)}}));
    }

    fn function(&mut self, source: &[u8]) {
        self.whole_item(&json!({"function": string(source)}));
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        let name = name.escape_ascii();
        let message = format!("the function library \"{name}\" is in a form that no released server loads");
        self.out.refuse(message, "the release candidates of Redis 7.0 wrote it; nothing decodes it");
    }

    fn slot_import(&mut self) {
        self.whole_item(&json!({"slot_import": true}));
    }

    fn module_aux(&mut self, module: ModuleId, when: u64) {
        let head = json!(module.name());
        self.in_module_aux = true;
        let _ = self.item().and_then(|()| {
            self.put(&format!("{{\"module_aux\":{{\"module\":{head},\"when\":{when},\"data\":"))?;
            self.text.begin_base64(&mut self.out)
        });
    }

    fn module_aux_end(&mut self) {
        self.in_module_aux = false;
        let _ = self.text.end(&mut self.out).and_then(|_| self.put("}}"));
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.in_module_aux {
            let _ = self.text.add(bytes, &mut self.out);
        }
    }

    fn key(&mut self, key: &Key<'_>) {
        let _ = self.begin_key(key);
    }

    fn module_value(&mut self, module: ModuleId) {
        let (name, version) = (json!(module.name()), module.encoding_version());
        let _ = self.put(&format!("{{\"module\":{name},\"version\":{version},\"parts\":["));
    }
}

impl Dumper for Json {
    fn close(&mut self) -> Result<(), ScanError> {
        self.put(if self.begun { "\n]\n" } else { "[]\n" })
    }

    fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    fn losses(&self) -> Vec<String> {
        Vec::new()
    }
}
