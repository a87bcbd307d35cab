//! What a conversion leaves behind: counted, named, and refused unless it was allowed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::info::printable_name;

/// How many places of each kind a report names; all are counted.
pub const SHOWN_MAX: usize = 20;

/// A kind of thing that a target may not be able to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Expiries of fields of hashes. The fields stay.
    FieldTtls,
    /// Keys whose values only a module can read, and data of modules that belongs to no key.
    Modules,
    /// Libraries of functions.
    Functions,
    /// Metadata that modules attached to keys. The keys stay.
    KeyMetadata,
    /// Keys of a type that the target does not have.
    Types,
    /// Counters of streams and consumer groups: entries added and read, the greatest deleted id, a length that was not
    /// the number of entries (it is set right). The entries, groups, consumers and pending entries stay.
    StreamCounters,
    /// When consumers of streams last got an entry. When they were last seen stays.
    ConsumerActivity,
    /// What streams know of producers that may send an entry twice. The entries stay.
    StreamProducers,
    /// That pending entries of a group were given back and belong to no consumer (Redis 8.8). They stay pending, with a
    /// consumer that is made for them.
    GivenBack,
    /// Imports of slots that were under way in the cluster when the file was written. The keys stay.
    SlotImports,
}

impl LossKind {
    /// The kinds that are refused unless they are allowed.
    pub const REFUSED: [Self; 5] = [Self::FieldTtls, Self::Modules, Self::Functions, Self::KeyMetadata, Self::Types];

    /// Whether a conversion that would lose this is refused unless it is allowed. What is not refused is no data that
    /// a client wrote.
    #[must_use]
    pub fn is_refused(self) -> bool {
        Self::REFUSED.contains(&self)
    }

    /// As it is named on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FieldTtls => "field-ttls",
            Self::Modules => "modules",
            Self::Functions => "functions",
            Self::KeyMetadata => "key-metadata",
            Self::Types => "types",
            Self::StreamCounters => "stream-counters",
            Self::ConsumerActivity => "consumer-activity",
            Self::StreamProducers => "stream-producers",
            Self::GivenBack => "given-back",
            Self::SlotImports => "slot-imports",
        }
    }

    /// What `items` counts.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::FieldTtls => "expiries of fields",
            Self::Modules => "values of modules",
            Self::Functions => "libraries of functions",
            Self::KeyMetadata => "keys with metadata",
            Self::Types => "keys of unknown types",
            Self::StreamCounters => "counters of streams",
            Self::ConsumerActivity => "times of activity",
            Self::StreamProducers => "facts of producers",
            Self::GivenBack => "entries without a consumer",
            Self::SlotImports => "imports of slots",
        }
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that the output does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// What it is.
    pub kind: LossKind,
    /// The database of the key; `None` where it belongs to no key.
    pub db: Option<u64>,
    /// The name of the key, library or module; bytes that are not printable are written `\x00`, and names above
    /// [`NAME_SHOWN_MAX`](crate::info::NAME_SHOWN_MAX) bytes are cut.
    pub name: String,
    /// How many there are at this place: fields, counters.
    pub items: u64,
}

/// Everything of one kind that the output does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// What it is.
    pub kind: LossKind,
    /// How many, in all places.
    pub items: u64,
    /// In how many places: keys, libraries.
    pub places: u64,
    /// The first places, at most [`SHOWN_MAX`].
    pub shown: Vec<Lost>,
}

/// Counts losses and remembers which of them were not allowed.
#[derive(Debug)]
pub(super) struct Losses {
    allowed: Vec<LossKind>,
    kinds: BTreeMap<LossKind, Loss>,
    fresh: Vec<Lost>,
    refused: bool,
}

impl Losses {
    pub(super) fn new(allowed: Vec<LossKind>) -> Self {
        Self { allowed, kinds: BTreeMap::new(), fresh: Vec::new(), refused: false }
    }

    #[cold]
    pub(super) fn add(&mut self, kind: LossKind, db: Option<u64>, name: &[u8], items: u64) {
        let lost = Lost { kind, db, name: printable_name(name), items };
        let loss = self.kinds.entry(kind).or_insert_with(|| Loss { kind, items: 0, places: 0, shown: Vec::new() });
        loss.items += items;
        loss.places += 1;
        if loss.shown.len() < SHOWN_MAX {
            loss.shown.push(lost.clone());
        }
        self.refused |= kind.is_refused() && !self.allowed.contains(&kind);
        self.fresh.push(lost);
    }

    /// Whether something is lost that must not be.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Those since the last call.
    pub(super) fn take_fresh(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.fresh)
    }

    /// All kinds; where something was refused, the refused ones alone.
    pub(super) fn into_kinds(self) -> Vec<Loss> {
        let refused = |kind: LossKind| kind.is_refused() && !self.allowed.contains(&kind);
        self.kinds.into_values().filter(|loss| !self.refused || refused(loss.kind)).collect()
    }
}
