//! Digests what a decoder tells.

mod stream;

use policies::slot::{SLOT_COUNT, SlotSet, key_slot};

use crate::convert::plan::field_expiries;
use crate::decode::{FIELD_EXPIRY_MAX, Part, Values};
use crate::digest::Digest;
use crate::error::{ErrorKind, ScanError};
use crate::select::Family;
use crate::sink::{Key, Sink};
use crate::split::Ttl;
use crate::structure::{ModuleNumber, Role};

use super::kind::Kind;
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
    /// The key, and what passes in order: the text of a string, the items of a list, the parts of a module's value.
    ordered: Digest,
    /// The element that is passing: a member with its score, a field with its value, or a name.
    element: Digest,
    /// The entry of a stream that is passing.
    entry: Digest,
    is_entry: bool,
    role: Role,
    place: Place,
    /// The element is a field with its value, and it is not known yet whether it expires.
    is_pair: bool,
    group: u128,
    consumer: u128,
    /// Fields that the entries of a stream's node share, and which is next.
    shared: Vec<u128>,
    next_shared: Option<usize>,
    is_discarded: bool,
}

/// Where the bytes of the string that is passing go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ordered,
    Element,
    Entry,
}

/// The key that is passing.
#[derive(Debug, Default)]
struct Passing {
    owner: Option<usize>,
    db: u64,
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
            element: begin(),
            entry: begin(),
            is_entry: false,
            role: Role::Untold,
            place: Place::Element,
            is_pair: false,
            group: 0,
            consumer: 0,
            shared: Vec::new(),
            next_shared: None,
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

    /// A digest of something of this kind, with so many bytes or none in particular.
    #[inline]
    fn digest(&self, kind: Kind, length: u64) -> Digest {
        let mut digest = self.rules.keys.digester.begin();
        digest.add_number(kind.with(length));
        digest
    }

    /// Adds an element of an unordered value, or of a stream.
    #[inline]
    fn put(&mut self, digest: Digest) {
        self.key.sum = self.key.sum.wrapping_add(digest.value());
        self.key.lasting += 1;
    }

    fn put_all(&mut self, kind: Kind, numbers: &[u128]) {
        let mut digest = self.digest(kind, 0);
        numbers.iter().for_each(|number| digest.add_wide(*number));
        self.put(digest);
    }

    /// Whether the field before this expires is known now.
    #[inline]
    fn settle(&mut self, expires_at_ms: Option<u64>) {
        if !std::mem::take(&mut self.is_pair) {
            return;
        }
        let mut pair = self.element;
        let moved = expires_at_ms.and_then(|at| match self.rules.ttl {
            Ttl::Keep => Some(at),
            Ttl::Drop => None,
            Ttl::Shift(_) if self.key.keeps_field_expiries => Some(at),
            Ttl::Shift(by) => Some(at.saturating_add_signed(by).clamp(1, FIELD_EXPIRY_MAX)),
        });
        let Some(at) = moved else { return self.put(pair) };
        // it is in the sum of another span than its key
        pair.add_wide(self.ordered.value());
        pair.add_number(at);
        self.key.fields_until_ms = self.key.fields_until_ms.max(at);
        let until_ms = self.key.expires_ms().map_or(at, |key| key.min(at));
        self.add(Some(until_ms), Tally { keys: 0, fields: 1, sum: pair.value() });
    }

    fn add(&mut self, until_ms: Option<u64>, tally: Tally) {
        let (Some(owner), Some(family)) = (self.key.owner, self.key.family) else { return };
        if let Some(content) = self.contents.get_mut(owner) {
            content.add(self.key.db, family, until_ms, tally);
        }
    }

    fn begin(&mut self, offset: u64, role: Role, length: u64) -> Result<(), ScanError> {
        self.role = role;
        if !matches!(role, Role::FieldValue) || self.is_entry {
            self.settle(None);
        }
        if role == Role::SharedField && self.shared.len() >= SHARED_MAX {
            let message = format!("more than {SHARED_MAX} fields that entries of a stream share");
            return Err(ScanError { offset, kind: ErrorKind::Unsupported, message });
        }
        let kind = match role {
            Role::Text | Role::Item | Role::Module | Role::Value => {
                self.place = Place::Ordered;
                self.ordered.add_number(length);
                return Ok(());
            }
            Role::FieldValue if self.is_entry => {
                self.place = Place::Entry;
                if let Some(next) = self.next_shared {
                    self.entry.add_wide(self.shared.get(next).copied().unwrap_or_default());
                    self.next_shared = Some(next + 1);
                }
                self.entry.add_number(length);
                return Ok(());
            }
            Role::FieldValue => {
                self.element.add_number(length);
                return Ok(());
            }
            Role::Field if !self.is_entry => Kind::Field,
            Role::Member => Kind::Member,
            _ => Kind::Name,
        };
        self.place = Place::Element;
        self.element = self.digest(kind, length);
        Ok(())
    }

    #[inline]
    fn piece(&mut self, bytes: &[u8]) {
        match self.place {
            Place::Ordered => self.ordered.add(bytes),
            Place::Element => self.element.add(bytes),
            Place::Entry => self.entry.add(bytes),
        }
    }

    #[inline]
    fn end(&mut self) {
        if self.place != Place::Element {
            return;
        }
        match self.role {
            Role::FieldValue => self.is_pair = true,
            Role::Member if self.key.family == Some(Family::Set) => self.put(self.element),
            Role::SharedField => self.shared.push(self.element.value()),
            Role::Field if self.is_entry => self.entry.add_wide(self.element.value()),
            Role::Consumer => {
                self.consumer = self.element.value();
                self.put_all(Kind::Consumer, &[self.group, self.consumer]);
            }
            Role::Group => self.group = self.element.value(),
            _ => {}
        }
    }

    /// The digest of the key that is passing, for its value to follow.
    fn of_key(&self, name: &[u8]) -> Digest {
        let mut digest = self.digest(Kind::Key, name.len() as u64);
        let family = self.key.family.map_or(0, |family| family as u64 + 1);
        digest.add_number(family << 1 | u64::from(self.key.expires_at_ms.is_some()));
        digest.add_number(self.key.expires_at_ms.unwrap_or_default().cast_unsigned());
        digest.add_number(self.key.db);
        digest.add(name);
        digest
    }

    fn value_end(&mut self) {
        self.settle(None);
        let key = std::mem::take(&mut self.key);
        if key.family.is_none() {
            return;
        }
        let mut digest = self.ordered;
        digest.add_wide(key.sum);
        let mut until_ms = key.expires_ms();
        if key.lasting == 0 && key.fields_until_ms > 0 {
            // a hash goes with its last field
            until_ms = Some(until_ms.map_or(key.fields_until_ms, |at| at.min(key.fields_until_ms)));
        }
        self.key = key;
        self.add(until_ms, Tally { keys: 1, fields: 0, sum: digest.value() });
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

impl Sink for ContentSink {
    const TEMPLATES: bool = true;

    fn function(&mut self, source: &[u8]) {
        let mut digest = self.digest(Kind::Function, source.len() as u64);
        digest.add(source);
        for content in &mut self.contents {
            content.functions.insert(digest.value());
        }
    }

    fn key(&mut self, key: &Key<'_>) {
        self.is_pair = false;
        self.is_entry = false;
        self.is_discarded = false;
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
            family: Some(Family::of(key.value_type)),
            expires_at_ms: match self.rules.ttl {
                Ttl::Keep => key.expires_at_ms,
                Ttl::Drop => None,
                Ttl::Shift(by) => key.expires_at_ms.map(|at| at.saturating_add(by)),
            },
            keeps_field_expiries: field_expiries(key.value_type, false).is_none(),
            ..Passing::default()
        };
        self.ordered = self.of_key(key.name);
    }

    fn key_end(&mut self, _bytes: u64) {
        self.value_end();
    }
}

impl Values for ContentSink {
    fn part(&mut self, offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        if self.key.owner.is_none() {
            return Ok(());
        }
        match part {
            Part::Begin { .. } | Part::Piece(_) | Part::End if self.is_discarded => {}
            Part::Begin { role, length } => return self.begin(offset, role, length),
            Part::Piece(bytes) => self.piece(bytes),
            Part::End => self.end(),
            Part::Score(score) => {
                // one zero, not two
                self.element.add_number((score + 0.0).to_bits());
                self.put(self.element);
            }
            Part::FieldExpiry(at) => self.settle(at),
            Part::EntryEnd => {
                self.is_discarded = false;
                if std::mem::take(&mut self.is_entry) {
                    self.put(self.entry);
                }
            }
            Part::ModuleNumber(number) => {
                let (kind, bits) = match number {
                    ModuleNumber::Signed(number) => (Kind::Signed, number.cast_unsigned()),
                    ModuleNumber::Unsigned(number) => (Kind::Unsigned, number),
                    ModuleNumber::Float(number) => (Kind::Float, u64::from(number.to_bits())),
                    ModuleNumber::Double(number) => (Kind::Double, number.to_bits()),
                };
                self.ordered.add_number(kind.with(0));
                self.ordered.add_number(bits);
            }
            Part::ArrayIndex(index) => self.ordered.add_number(index),
            part => self.stream_part(part),
        }
        Ok(())
    }
}
