//! Digests what a decoder tells.

use policies::slot::{SLOT_COUNT, SlotSet, key_slot};

use crate::convert::plan::field_expiries;
use crate::decode::{FIELD_EXPIRY_MAX, Part, StreamFacts, StreamId, Values};
use crate::digest::Digest;
use crate::error::{ErrorKind, ScanError};
use crate::select::Family;
use crate::sink::{Key, Sink};
use crate::split::Ttl;
use crate::structure::{ModuleNumber, Role};

use super::{Content, ContentRules, Tally};

/// The most fields that the entries of a stream's node share.
const SHARED_MAX: usize = 1 << 20;

/// Sums up what passes. It stands behind a [`Decoder`](crate::decode::Decoder).
#[derive(Debug)]
pub struct ContentSink {
    rules: ContentRules,
    contents: Vec<Content>,
    /// Index of the shard of each slot; empty when there is one shard.
    owners: Vec<u16>,
    /// Keys whose slot belongs to no shard, and the first of them.
    misplaced: (u64, Vec<u8>),
    key: Passing,
    /// What passes in order: the text of a string, the items of a list, the parts of a module's value.
    ordered: Digest,
    /// The string that is passing.
    string: Digest,
    role: Role,
    /// Digest of the last member, field, group.
    last: u128,
    /// A field with its value, until it is known whether it expires.
    pair: Option<u128>,
    group: u128,
    consumer: u128,
    /// Fields that the entries of a stream's node share, and which is next.
    shared: Vec<u128>,
    next_shared: Option<usize>,
    entry: Option<Digest>,
    is_discarded: bool,
}

/// The key that is passing.
#[derive(Debug, Default)]
struct Passing {
    owner: Option<usize>,
    db: u64,
    name: u128,
    family: Option<Family>,
    expires_at_ms: Option<i64>,
    /// The sum over its elements.
    sum: u128,
    /// Elements that do not expire by themselves.
    lasting: u64,
    /// When the last of the others ends.
    fields_until_ms: u64,
    /// It is in an encoding whose times of fields nothing moves.
    keeps_field_expiries: bool,
}

impl ContentSink {
    /// A sink that has seen nothing.
    #[must_use]
    pub fn new(rules: ContentRules) -> Self {
        let empty = Content { spans: rules.keys.spans, ..Content::default() };
        let owners = owners(&rules.shards);
        let begin = || rules.keys.digester.begin();
        Self {
            contents: vec![empty; rules.shards.len().max(1)],
            owners,
            misplaced: (0, Vec::new()),
            key: Passing::default(),
            ordered: begin(),
            string: begin(),
            role: Role::Untold,
            last: 0,
            pair: None,
            group: 0,
            consumer: 0,
            shared: Vec::new(),
            next_shared: None,
            entry: None,
            is_discarded: false,
            rules,
        }
    }

    /// What passed, shard by shard.
    #[must_use]
    pub fn into_contents(self) -> Vec<Content> {
        self.contents
    }

    /// How many keys were in slots of no shard, and the name of the first.
    #[must_use]
    pub fn misplaced(&self) -> Option<(u64, &[u8])> {
        let (count, name) = &self.misplaced;
        (*count > 0).then_some((*count, name.as_slice()))
    }

    fn digest(&self, parts: &[&[u8]]) -> u128 {
        let mut digest = self.rules.keys.digester.begin();
        for part in parts {
            digest.add(part);
        }
        digest.value()
    }

    /// An element of an unordered value, or of a stream.
    fn element(&mut self, kind: u8, parts: &[&[u8]]) {
        let mut digest = self.rules.keys.digester.begin();
        digest.add(&[kind]);
        for part in parts {
            digest.add(part);
        }
        self.key.sum = self.key.sum.wrapping_add(digest.value());
        self.key.lasting += 1;
    }

    /// Whether the field before this expires is known now.
    fn settle(&mut self, expires_at_ms: Option<u64>) {
        let Some(pair) = self.pair.take() else { return };
        let moved = expires_at_ms.and_then(|at| match self.rules.ttl {
            Ttl::Keep => Some(at),
            Ttl::Drop => None,
            Ttl::Shift(_) if self.key.keeps_field_expiries => Some(at),
            Ttl::Shift(by) => Some(at.saturating_add_signed(by).clamp(1, FIELD_EXPIRY_MAX)),
        });
        let Some(at) = moved else { return self.element(b'f', &[&pair.to_le_bytes()]) };
        let name = self.key.name.to_le_bytes();
        let sum = self.digest(&[b"x", &self.key.db.to_le_bytes(), &name, &pair.to_le_bytes(), &at.to_le_bytes()]);
        self.key.fields_until_ms = self.key.fields_until_ms.max(at);
        let until_ms = self.key.expires_ms().map_or(at, |key| key.min(at));
        self.add(Some(until_ms), Tally { keys: 0, fields: 1, sum });
    }

    fn add(&mut self, until_ms: Option<u64>, tally: Tally) {
        let (Some(owner), Some(family)) = (self.key.owner, self.key.family) else { return };
        if let Some(content) = self.contents.get_mut(owner) {
            content.add(self.key.db, family, until_ms, tally);
        }
    }

    fn begin(&mut self, offset: u64, role: Role, length: u64) -> Result<(), ScanError> {
        self.role = role;
        if !matches!(role, Role::FieldValue) || self.entry.is_some() {
            self.settle(None);
        }
        if role == Role::SharedField && self.shared.len() >= SHARED_MAX {
            let message = format!("more than {SHARED_MAX} fields that entries of a stream share");
            return Err(ScanError { offset, kind: ErrorKind::Unsupported, message });
        }
        if is_ordered(role) {
            self.ordered.add(&length.to_le_bytes());
        } else {
            self.string = self.rules.keys.digester.begin();
        }
        Ok(())
    }

    fn end(&mut self) {
        if is_ordered(self.role) {
            return;
        }
        let value = self.string.value();
        match self.role {
            Role::SharedField => self.shared.push(value),
            Role::Field | Role::FieldValue if self.entry.is_some() => {
                if self.role == Role::FieldValue
                    && let Some(next) = self.next_shared
                {
                    let field = self.shared.get(next).copied().unwrap_or_default();
                    self.next_shared = Some(next + 1);
                    self.put_entry(field);
                }
                self.put_entry(value);
            }
            Role::FieldValue => self.pair = Some(self.digest(&[&self.last.to_le_bytes(), &value.to_le_bytes()])),
            Role::Member if self.key.family == Some(Family::Set) => self.element(b'm', &[&value.to_le_bytes()]),
            Role::Consumer => {
                self.consumer = value;
                self.element(b'c', &[&self.group.to_le_bytes(), &value.to_le_bytes()]);
            }
            Role::Group => self.group = value,
            _ => self.last = value,
        }
    }

    fn put_entry(&mut self, digest: u128) {
        if let Some(entry) = &mut self.entry {
            entry.add(&digest.to_le_bytes());
        }
    }

    fn stream(&mut self, facts: StreamFacts) {
        self.element(b's', &[&id(facts.last_id)]);
        if self.rules.stream_facts {
            // what servers take where the type does not say it
            let added = facts.entries_added.unwrap_or(facts.length).to_le_bytes();
            let deleted = id(facts.greatest_deleted_id.unwrap_or_default());
            self.element(b't', &[&added, &deleted]);
        }
    }

    fn stream_part(&mut self, part: Part<'_>) {
        let group = self.group.to_le_bytes();
        match part {
            Part::Node(_) => self.shared.clear(),
            Part::Entry { id: entry, deleted, shared, .. } => {
                // the strings of a deleted entry are told too, and count for nothing
                self.is_discarded = deleted;
                self.next_shared = shared.then_some(0);
                if !deleted {
                    let mut digest = self.rules.keys.digester.begin();
                    digest.add(b"e");
                    digest.add(&id(entry));
                    self.entry = Some(digest);
                }
            }
            Part::Stream(facts) => self.stream(facts),
            Part::Group { last_id, entries_read } => {
                self.element(b'g', &[&group, &id(last_id)]);
                if self.rules.stream_facts {
                    self.element(b'r', &[&group, &entries_read.unwrap_or(u64::MAX).to_le_bytes()]);
                }
            }
            Part::Pending { id: entry, delivered_ms, deliveries } => {
                self.element(b'p', &[&group, &id(entry), &delivered_ms.to_le_bytes(), &deliveries.to_le_bytes()]);
            }
            Part::ConsumerPending(entry) => {
                let consumer = self.consumer.to_le_bytes();
                self.element(b'q', &[&group, &consumer, &id(entry)]);
            }
            _ => {}
        }
    }

    fn value_end(&mut self) {
        self.settle(None);
        let key = std::mem::take(&mut self.key);
        let Some(family) = key.family else { return };
        let expires = key.expires_at_ms.map_or([0; 9], |at| {
            let mut bytes = [1; 9];
            bytes.iter_mut().skip(1).zip(at.to_le_bytes()).for_each(|(place, byte)| *place = byte);
            bytes
        });
        let ordered = self.ordered.value().to_le_bytes();
        let (db, name, sum) = (key.db.to_le_bytes(), key.name.to_le_bytes(), key.sum.to_le_bytes());
        let sum = self.digest(&[family.name().as_bytes(), &db, &name, &expires, &sum, &ordered]);
        let mut until_ms = key.expires_ms();
        if key.lasting == 0 && key.fields_until_ms > 0 {
            // a hash goes with its last field
            until_ms = Some(until_ms.map_or(key.fields_until_ms, |at| at.min(key.fields_until_ms)));
        }
        self.key = key;
        self.add(until_ms, Tally { keys: 1, fields: 0, sum });
        self.key = Passing::default();
    }
}

impl Passing {
    fn expires_ms(&self) -> Option<u64> {
        self.expires_at_ms.map(|at| u64::try_from(at).unwrap_or(0))
    }
}

/// The index of the shard of each slot, the greatest number where there is none; nothing when all keys are of one.
fn owners(shards: &[SlotSet]) -> Vec<u16> {
    if shards.is_empty() {
        return Vec::new();
    }
    let mut owners = vec![u16::MAX; usize::from(SLOT_COUNT)];
    let numbered = (0u16..).zip(shards);
    for (index, slot) in numbered.flat_map(|(index, slots)| slots.iter().map(move |slot| (index, slot))) {
        if let Some(owner) = owners.get_mut(usize::from(slot)) {
            *owner = index;
        }
    }
    owners
}

/// Strings whose order counts, or of which there is one.
fn is_ordered(role: Role) -> bool {
    matches!(role, Role::Text | Role::Item | Role::Module | Role::Value)
}

fn id(id: StreamId) -> [u8; 16] {
    (u128::from(id.ms) << 64 | u128::from(id.seq)).to_be_bytes()
}

impl Sink for ContentSink {
    const TEMPLATES: bool = true;

    fn function(&mut self, source: &[u8]) {
        let digest = self.digest(&[source]);
        for content in &mut self.contents {
            content.functions.insert(digest);
        }
    }

    fn key(&mut self, key: &Key<'_>) {
        self.pair = None;
        self.entry = None;
        self.is_discarded = false;
        self.ordered = self.rules.keys.digester.begin();
        self.shared.clear();
        let is_taken = self.rules.db.is_none_or(|db| db == key.db) && self.rules.select.takes(key);
        let owner = match self.owners.as_slice() {
            [] => Some(0),
            owners => {
                owners.get(usize::from(key_slot(key.name))).filter(|owner| **owner != u16::MAX).map(|o| usize::from(*o))
            }
        };
        if is_taken && owner.is_none() {
            if self.misplaced.0 == 0 {
                self.misplaced.1 = key.name.to_vec();
            }
            self.misplaced.0 += 1;
        }
        self.key = Passing {
            owner: owner.filter(|_| is_taken),
            db: if self.rules.one_database { 0 } else { key.db },
            name: self.digest(&[key.name]),
            family: Some(Family::of(key.value_type)),
            expires_at_ms: match self.rules.ttl {
                Ttl::Keep => key.expires_at_ms,
                Ttl::Drop => None,
                Ttl::Shift(by) => key.expires_at_ms.map(|at| at.saturating_add(by)),
            },
            keeps_field_expiries: field_expiries(key.value_type, false).is_none(),
            ..Passing::default()
        };
    }

    fn key_end(&mut self, _bytes: u64) {
        self.value_end();
    }
}

impl Values for ContentSink {
    fn part(&mut self, offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        match part {
            Part::Begin { .. } | Part::Piece(_) | Part::End if self.is_discarded => {}
            Part::Begin { role, length } => return self.begin(offset, role, length),
            Part::Piece(bytes) if is_ordered(self.role) => self.ordered.add(bytes),
            Part::Piece(bytes) => self.string.add(bytes),
            Part::End => self.end(),
            Part::Score(score) => {
                // one zero, not two
                let bits = (score + 0.0).to_bits().to_le_bytes();
                self.element(b'z', &[&self.last.to_le_bytes(), &bits]);
            }
            Part::FieldExpiry(at) => self.settle(at),
            Part::EntryEnd => {
                self.is_discarded = false;
                if let Some(entry) = self.entry.take() {
                    self.key.sum = self.key.sum.wrapping_add(entry.value());
                }
            }
            Part::ModuleNumber(number) => {
                let (kind, bits) = match number {
                    ModuleNumber::Signed(number) => (1, number.cast_unsigned()),
                    ModuleNumber::Unsigned(number) => (2, number),
                    ModuleNumber::Float(number) => (3, u64::from(number.to_bits())),
                    ModuleNumber::Double(number) => (4, number.to_bits()),
                };
                self.ordered.add(&[kind]);
                self.ordered.add(&bits.to_le_bytes());
            }
            Part::ArrayIndex(index) => self.ordered.add(&index.to_le_bytes()),
            part => self.stream_part(part),
        }
        Ok(())
    }
}
