//! Finds keys that occur more than once in the inputs of a split, and decides which of them stays.
//!
//! Inputs that share no slot share no key, so a first look only counts keys per slot ([`SlotCounts`],
//! [`SlotCensus`]). Where slots are shared, a second look ([`Finder`]) notes a digest and the place of every
//! key, sorts them in temporary files, and finds those that are the same; then the rule decides. What it leaves
//! out is a list of places, in order, for [`Splitter::leave_out`](crate::split::Splitter::leave_out). Memory
//! stays the same however many keys there are.
//!
//! The digest has 128 bits and a key that is new in every process (SipHash, as in the tables of the standard
//! library), so that two names have the same digest by accident less often than storage returns wrong bytes,
//! and nobody can choose names that do.
//!
//! ```
//! use std::io::Cursor;
//!
//! use policies::slot::SlotSet;
//! use rdbtools::duplicates::{Finder, Rule};
//! use rdbtools::split::{SplitOptions, Splitter};
//! use rdbtools::{RdbVersion, Scanner};
//!
//! let inputs = [b"REDIS0003\xfe\x00\x00\x03foo\x01a\xff", b"REDIS0003\xfe\x00\x00\x03foo\x01b\xff"];
//! let mut finder = Finder::new(None, Box::new(|| Ok(Cursor::new(Vec::new()))));
//! for input in inputs {
//!     let mut scanner = Scanner::new(finder);
//!     scanner.feed(input)?;
//!     finder = scanner.finish()?.1;
//!     finder.end_input();
//! }
//! let found = finder.finish(&Rule::Last)?;
//! assert_eq!(found.twice, 1);
//!
//! let options = SplitOptions { cluster: false, ..SplitOptions::new(RdbVersion::redis(3)) };
//! let mut merge = Splitter::new(vec![SlotSet::full()], vec![Vec::new()], options)?;
//! merge.leave_out(found.left_out)?;
//! for input in inputs {
//!     merge.begin_input("input")?;
//!     merge.feed(input)?;
//!     merge.end_input()?;
//! }
//! assert_eq!(merge.finish()?[0].keys, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod sort;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, Write};

use policies::slot::{SLOT_COUNT, SlotSet, key_slot};

use crate::sink::{Key, Sink};

use sort::{Sorted, Sorter};

pub use sort::Scratch;

/// Where a key stands: the index of its input, and the offset of its entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of the input.
    pub input: u32,
    /// Offset of the first byte of the key's entry, its opcodes included.
    pub offset: u64,
}

/// Which of several keys of the same name and database stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// None: it is an error.
    Fail,
    /// That of the first input; in one input the first.
    First,
    /// That of the last input; in one input the last.
    Last,
    /// That of the input that owns the slot: its index for each slot. An error where the owner does not hold
    /// the key, or holds it twice.
    Owner(Vec<u32>),
}

/// Counts the keys of one input per slot, whatever their database.
#[derive(Debug)]
pub struct SlotCounts {
    db: Option<u64>,
    keys: Vec<u64>,
}

impl SlotCounts {
    /// Counts nothing yet; with `db` the keys of that database only.
    #[must_use]
    pub fn new(db: Option<u64>) -> Self {
        Self { db, keys: vec![0; usize::from(SLOT_COUNT)] }
    }
}

impl Sink for SlotCounts {
    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        if self.db.is_none_or(|db| db == key.db)
            && let Some(keys) = self.keys.get_mut(usize::from(key_slot(key.name)))
        {
            *keys += 1;
        }
    }
}

/// Which slots the inputs share, and who holds most keys of each.
#[derive(Debug)]
pub struct SlotCensus {
    inputs: u32,
    /// For each slot the most keys that one input holds, and which.
    most: Vec<(u64, u32)>,
    shared: Vec<bool>,
}

impl SlotCensus {
    /// Has seen no input.
    #[must_use]
    pub fn new() -> Self {
        let slots = usize::from(SLOT_COUNT);
        Self { inputs: 0, most: vec![(0, 0); slots], shared: vec![false; slots] }
    }

    /// Takes in the next input.
    pub fn add(&mut self, counts: &SlotCounts) {
        for ((most, shared), &keys) in self.most.iter_mut().zip(&mut self.shared).zip(&counts.keys) {
            *shared |= most.0 > 0 && keys > 0;
            if keys > most.0 {
                *most = (keys, self.inputs);
            }
        }
        self.inputs += 1;
    }

    /// The slots of which more than one input holds keys.
    #[must_use]
    pub fn shared(&self) -> SlotSet {
        (0..SLOT_COUNT).zip(&self.shared).filter(|(_, shared)| **shared).map(|(slot, _)| slot).collect()
    }

    /// The owner of each slot by majority: the input that holds most keys of it, the first of those that hold
    /// as many.
    #[must_use]
    pub fn majority(&self) -> Vec<u32> {
        self.most.iter().map(|(_, input)| *input).collect()
    }
}

impl Default for SlotCensus {
    fn default() -> Self {
        Self::new()
    }
}

/// Length of a digest.
const DIGEST_LEN: usize = 16;
/// Digest, input, offset, slot.
const SEEN_LEN: usize = DIGEST_LEN + 4 + 8 + 2;
/// Input, offset.
const PLACE_LEN: usize = 4 + 8;

/// Notes every key of all inputs, one input after the other.
pub struct Finder<F> {
    db: Option<u64>,
    hash: (RandomState, RandomState),
    input: u32,
    sorter: Sorter<F, SEEN_LEN>,
    scratch: Scratch<F>,
    failed: Option<io::Error>,
}

impl<F> fmt::Debug for Finder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder").field("input", &self.input).finish_non_exhaustive()
    }
}

/// Why a rule could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum DuplicateError {
    /// A temporary file failed.
    #[error("a temporary file for finding keys that occur twice: {0}")]
    Scratch(#[from] io::Error),
    /// The rule does not say which of these stays.
    #[error("{keys} keys occur more than once, the first at byte {} of input {} and at byte {} of input {}",
        .places[0].offset, .places[0].input, .places[1].offset, .places[1].input)]
    Unresolved {
        /// Two places of the same key: of those keys the one whose second place comes first.
        places: [Place; 2],
        /// How many keys there are that the rule does not decide.
        keys: u64,
    },
}

/// What was found, and what the rule leaves out.
#[derive(Debug)]
pub struct Found<F> {
    /// How many keys occur more than once.
    pub twice: u64,
    /// The places that are left out.
    pub left_out: LeftOut<F>,
}

/// Places in order.
#[derive(Debug)]
pub struct LeftOut<F> {
    sorted: Sorted<F, PLACE_LEN>,
    /// How many places there are.
    pub count: u64,
}

impl<F> LeftOut<F> {
    /// No place.
    #[must_use]
    pub fn none() -> Self {
        Self { sorted: Sorted::none(), count: 0 }
    }
}

impl<F: Read + Seek> Iterator for LeftOut<F> {
    type Item = io::Result<Place>;

    fn next(&mut self) -> Option<Self::Item> {
        self.sorted.next().map(|record| record.map(|bytes| Place::from_bytes(&bytes)))
    }
}

impl<F: Read + Write + Seek> Finder<F> {
    /// Has seen no key; with `db` it notes the keys of that database only. `scratch` makes temporary files.
    #[must_use]
    pub fn new(db: Option<u64>, scratch: Scratch<F>) -> Self {
        Self {
            db,
            hash: (RandomState::new(), RandomState::new()),
            input: 0,
            sorter: Sorter::new(),
            scratch,
            failed: None,
        }
    }

    /// The input ended; what follows is of the next.
    pub fn end_input(&mut self) {
        self.input += 1;
    }

    /// Applies a rule to all keys that occur more than once.
    ///
    /// # Errors
    /// When the rule does not decide, or a temporary file failed.
    pub fn finish(mut self, rule: &Rule) -> Result<Found<F>, DuplicateError> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let sorted = self.sorter.sorted(&mut self.scratch)?;
        let (losers, scratch) = (Sorter::new(), self.scratch);
        let mut judge = Judge { rule, losers, scratch, twice: 0, lost: 0, unresolved: None };
        let mut group: Option<Group> = None;
        for record in sorted {
            let seen = Seen::from_bytes(&record?);
            match &mut group {
                Some(group) if group.first.digest == seen.digest => judge.another(group, seen)?,
                _ => judge.end(group.replace(Group { first: seen, last: seen, keys: 1, kept: 0 })),
            }
        }
        judge.end(group);
        judge.found()
    }
}

impl<F: Read + Write + Seek> Sink for Finder<F> {
    #[inline]
    fn key(&mut self, key: &Key<'_>) {
        if self.db.is_some_and(|db| db != key.db) || self.failed.is_some() {
            return;
        }
        let named = (key.db, key.name);
        let (high, low) = (self.hash.0.hash_one(named), self.hash.1.hash_one(named));
        let digest = u128::from(high) << 64 | u128::from(low);
        let place = Place { input: self.input, offset: key.offset };
        let record = Seen { digest, place, slot: key_slot(key.name) }.to_bytes();
        if let Err(error) = self.sorter.push(record, &mut self.scratch) {
            self.failed = Some(error);
        }
    }
}

/// A key that was noted.
#[derive(Debug, Clone, Copy)]
struct Seen {
    digest: u128,
    place: Place,
    slot: u16,
}

/// All keys with the same digest, in the order of their places.
#[derive(Debug)]
struct Group {
    first: Seen,
    last: Seen,
    keys: u64,
    /// How many of them are the owner's.
    kept: u64,
}

struct Judge<'a, F> {
    rule: &'a Rule,
    losers: Sorter<F, PLACE_LEN>,
    scratch: Scratch<F>,
    twice: u64,
    lost: u64,
    unresolved: Option<([Place; 2], u64)>,
}

impl<F: Read + Write + Seek> Judge<'_, F> {
    /// One more key of the same digest.
    fn another(&mut self, group: &mut Group, seen: Seen) -> io::Result<()> {
        group.keys += 1;
        let before = std::mem::replace(&mut group.last, seen);
        match self.rule {
            Rule::Fail => {}
            Rule::First => self.lose(seen)?,
            Rule::Last => self.lose(before)?,
            Rule::Owner(owners) => {
                // the first was not judged while it might have been the only one
                let first = (group.keys == 2).then_some(before);
                for seen in first.into_iter().chain([seen]) {
                    if owners.get(usize::from(seen.slot)) == Some(&seen.place.input) {
                        group.kept += 1;
                    } else {
                        self.lose(seen)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn lose(&mut self, seen: Seen) -> io::Result<()> {
        self.lost += 1;
        self.losers.push(seen.place.to_bytes(), &mut self.scratch)
    }

    fn end(&mut self, group: Option<Group>) {
        let Some(group) = group.filter(|group| group.keys > 1) else { return };
        self.twice += 1;
        let decided = match self.rule {
            Rule::Fail => false,
            Rule::First | Rule::Last => true,
            Rule::Owner(_) => group.kept == 1,
        };
        if decided {
            return;
        }
        let places = [group.first.place, group.last.place];
        let (first, keys) = self.unresolved.get_or_insert((places, 0));
        *keys += 1;
        if (places[1], places[0]) < (first[1], first[0]) {
            *first = places;
        }
    }

    fn found(mut self) -> Result<Found<F>, DuplicateError> {
        if let Some((places, keys)) = self.unresolved {
            return Err(DuplicateError::Unresolved { places, keys });
        }
        let sorted = self.losers.sorted(&mut self.scratch)?;
        Ok(Found { twice: self.twice, left_out: LeftOut { sorted, count: self.lost } })
    }
}

impl Place {
    fn to_bytes(self) -> [u8; PLACE_LEN] {
        let mut bytes = [0; PLACE_LEN];
        put(&mut bytes, &[&self.input.to_be_bytes(), &self.offset.to_be_bytes()]);
        bytes
    }

    fn from_bytes(bytes: &[u8; PLACE_LEN]) -> Self {
        Self { input: u32::from_be_bytes(take(bytes, 0)), offset: u64::from_be_bytes(take(bytes, 4)) }
    }
}

impl Seen {
    /// The bytes sort as digest and place do.
    fn to_bytes(self) -> [u8; SEEN_LEN] {
        let mut bytes = [0; SEEN_LEN];
        put(&mut bytes, &[&self.digest.to_be_bytes(), &self.place.to_bytes(), &self.slot.to_be_bytes()]);
        bytes
    }

    fn from_bytes(bytes: &[u8; SEEN_LEN]) -> Self {
        Self {
            digest: u128::from_be_bytes(take(bytes, 0)),
            place: Place::from_bytes(&take(bytes, DIGEST_LEN)),
            slot: u16::from_be_bytes(take(bytes, DIGEST_LEN + PLACE_LEN)),
        }
    }
}

fn put(bytes: &mut [u8], parts: &[&[u8]]) {
    let all = parts.iter().flat_map(|part| part.iter());
    bytes.iter_mut().zip(all).for_each(|(byte, part)| *byte = *part);
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
