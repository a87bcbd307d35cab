//! Value types, and how the bytes of each are laid out.
//!
//! A layout is a list of [`Op`]s that the scanner follows; nothing else in this crate knows what a value
//! looks like. Sources: `rdbLoadObject` in the `rdb.c` of Redis (all versions up to 8.10) and Valkey 9, and
//! the files those servers write.

use std::fmt;

use crate::structure::Role;
use crate::version::Magic;

/// The type byte of a key's value, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueType {
    code: u8,
    magic: Magic,
}

impl ValueType {
    /// The type of byte `code` in a file of `magic`, if there is one.
    #[must_use]
    #[inline]
    pub fn new(code: u8, magic: Magic) -> Option<Self> {
        let known = match magic {
            Magic::Redis => matches!(code, 0..=7 | 9..=28 | 30 | 32),
            Magic::Valkey => matches!(code, 0..=7 | 9..=22),
        };
        known.then_some(Self { code, magic })
    }

    /// The byte in the file.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.code
    }

    /// Whose type it is.
    #[must_use]
    pub const fn magic(self) -> Magic {
        self.magic
    }

    /// Whether Redis and Valkey have the type in common, under the same byte (`rdb.h` of Redis 7.2 and Valkey 9).
    #[inline]
    pub(crate) const fn is_common(self) -> bool {
        self.code <= 21
    }

    /// The name used in reports: the encoding, as `hash_listpack`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.code, self.magic) {
            (0, _) => "string",
            (1, _) => "list",
            (2, _) => "set",
            (3, _) => "zset",
            (4, _) => "hash",
            (5, _) => "zset_2",
            (6, _) => "module",
            (7, _) => "module_2",
            (9, _) => "hash_zipmap",
            (10, _) => "list_ziplist",
            (11, _) => "set_intset",
            (12, _) => "zset_ziplist",
            (13, _) => "hash_ziplist",
            (14, _) => "list_quicklist",
            (15, _) => "stream_listpacks",
            (16, _) => "hash_listpack",
            (17, _) => "zset_listpack",
            (18, _) => "list_quicklist_2",
            (19, _) => "stream_listpacks_2",
            (20, _) => "set_listpack",
            (21, _) => "stream_listpacks_3",
            (22, Magic::Valkey) => "hash_2(valkey)",
            (22, Magic::Redis) => "hash_metadata_pre_ga",
            (23, Magic::Redis) => "hash_listpack_ex_pre_ga",
            (24, Magic::Redis) => "hash_metadata",
            (25, Magic::Redis) => "hash_listpack_ex",
            (26, Magic::Redis) => "stream_listpacks_4",
            (27, Magic::Redis) => "stream_listpacks_5",
            (28, Magic::Redis) => "array",
            (30, Magic::Redis) => "hash_template_listpack",
            (32, Magic::Redis) => "hash_template",
            // `new` lets no other code pass
            _ => "unknown",
        }
    }

    /// Whether the value is one string in the file.
    #[inline]
    pub(crate) const fn is_one_string(self) -> bool {
        matches!((self.code, self.magic), (0 | 9..=13 | 16 | 17 | 20, _) | (23 | 30, Magic::Redis))
    }

    /// How the value's bytes are laid out; `None` for the one type that cannot be walked, the module values
    /// of the release candidates of Redis 4.0, which only the module itself can read.
    #[inline]
    pub(crate) const fn layout(self) -> Option<&'static [Op]> {
        Some(match (self.code, self.magic) {
            // those of one string are listed in `is_one_string` too
            (0, _) => &[Op::String(Role::Text)],
            (9..=13 | 16 | 17 | 20, _) | (23 | 30, Magic::Redis) => PACKED,
            (1, _) => &[Op::Repeat(Role::Elements, &[Op::String(Role::Item)])],
            (2, _) => &[Op::Repeat(Role::Elements, &[Op::String(Role::Member)])],
            (3, _) => &[Op::Repeat(Role::Elements, &[Op::String(Role::Member), Op::TextScore])],
            (4, _) => &[Op::Repeat(Role::Elements, &[Op::String(Role::Field), Op::String(Role::FieldValue)])],
            (5, _) => &[Op::Repeat(Role::Elements, &[Op::String(Role::Member), Op::BinaryScore])],
            (7, _) => &[Op::ModuleId, Op::ModuleParts],
            (14, _) => &[Op::Repeat(Role::Elements, PACKED)],
            (18, _) => &[Op::Repeat(Role::Elements, &[Op::Container, Op::String(Role::Packed)])],
            (15, _) => STREAM_1,
            (19, _) => STREAM_2,
            (21, _) => STREAM_3,
            (26, Magic::Redis) => STREAM_4,
            (27, Magic::Redis) => STREAM_5,
            (28, Magic::Redis) => &[Op::Array(&[Op::ArrayElement])],
            (32, Magic::Redis) => &[Op::Template(&[Op::String(Role::FieldValue)])],
            // the expiry in ms or -1
            (22, Magic::Valkey) => &[Op::Repeat(
                Role::Elements,
                &[Op::String(Role::Field), Op::String(Role::FieldValue), Op::Raw(Role::FieldExpiry, 8)],
            )],
            (22, Magic::Redis) => HASH_EXPIRIES,
            (24, Magic::Redis) => &[Op::Raw(Role::LeastExpiry, 8), HASH_EXPIRIES_OP],
            (25, Magic::Redis) => &[Op::Raw(Role::LeastExpiry, 8), Op::String(Role::Packed)],
            _ => return None,
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One step of a layout.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// A string whose bytes pass by.
    String(Role),
    /// A string of exactly 16 bytes: the id of a stream's node.
    NodeId,
    /// A string that is kept until the end of its record.
    Keep,
    /// A number.
    Number(Role),
    /// This many bytes, at most [`RAW_MAX`].
    Raw(Role, u8),
    /// A sorted-set score as text.
    TextScore,
    /// A sorted-set score as a double.
    BinaryScore,
    /// How a quicklist's node is kept: 1 plain, 2 packed.
    Container,
    /// A number, then the steps that many times.
    Repeat(Role, &'static [Op]),
    /// How many elements an array has, whether it has a place for insertion, that place, then the steps for each.
    Array(&'static [Op]),
    /// The index of an element of an array, how it is kept, and the element.
    ArrayElement,
    /// The id of a template of hashes, then the steps as many times as that has fields.
    Template(&'static [Op]),
    /// The id of a module type.
    ModuleId,
    /// The self-describing parts of a module's value, up to their end mark.
    ModuleParts,
}

/// The deepest nesting of [`Op::Repeat`] in any layout: stream, groups, consumers, pending entries.
pub(crate) const DEPTH_MAX: usize = 4;
/// The most bytes of an [`Op::Raw`].
pub(crate) const RAW_MAX: usize = 24;

const PACKED: &[Op] = &[Op::String(Role::Packed)];
const STRING: &[Op] = &[Op::String(Role::Untold)];
/// Expiry of the field, field, value.
const HASH_EXPIRIES_OP: Op =
    Op::Repeat(Role::Elements, &[Op::Number(Role::FieldExpiry), Op::String(Role::Field), Op::String(Role::FieldValue)]);
const HASH_EXPIRIES: &[Op] = &[HASH_EXPIRIES_OP];

const STREAM_NODES: Op = Op::Repeat(Role::Elements, &[Op::NodeId, Op::String(Role::Packed)]);
/// Entry id, delivery time, delivery count.
const PENDING: Op = Op::Repeat(Role::Pending, &[Op::Raw(Role::Pending, 24), Op::Number(Role::Deliveries)]);
/// Entry ids.
const CONSUMER_PENDING: Op = Op::Repeat(Role::ConsumerPending, &[Op::Raw(Role::ConsumerPending, 16)]);
const CONSUMERS_1: Op =
    Op::Repeat(Role::Consumer, &[Op::String(Role::Consumer), Op::Raw(Role::ConsumerTimes, 8), CONSUMER_PENDING]);
/// With the time of activity beside the time it was seen.
const CONSUMERS_3: Op =
    Op::Repeat(Role::Consumer, &[Op::String(Role::Consumer), Op::Raw(Role::ConsumerTimes, 16), CONSUMER_PENDING]);
const GROUP_LAST_ID: Op = Op::Number(Role::GroupLastId);
const GROUPS_1: Op =
    Op::Repeat(Role::Group, &[Op::String(Role::Group), GROUP_LAST_ID, GROUP_LAST_ID, PENDING, CONSUMERS_1]);
/// With the count of entries read.
const GROUPS_2: Op = Op::Repeat(
    Role::Group,
    &[Op::String(Role::Group), GROUP_LAST_ID, GROUP_LAST_ID, Op::Number(Role::EntriesRead), PENDING, CONSUMERS_1],
);
const GROUPS_3: Op = Op::Repeat(
    Role::Group,
    &[Op::String(Role::Group), GROUP_LAST_ID, GROUP_LAST_ID, Op::Number(Role::EntriesRead), PENDING, CONSUMERS_3],
);
/// With the pending entries that no consumer has (Redis 8.8).
const GROUPS_5: Op = Op::Repeat(
    Role::Group,
    &[
        Op::String(Role::Group),
        GROUP_LAST_ID,
        GROUP_LAST_ID,
        Op::Number(Role::EntriesRead),
        PENDING,
        CONSUMERS_3,
        Op::Repeat(Role::Nacked, &[Op::Raw(Role::Nacked, 16)]),
    ],
);
const PRODUCER_ENTRY: Op = Op::Number(Role::ProducerEntry);
/// Producer, then its idempotency ids with the entry id of each.
const PRODUCERS: Op = Op::Repeat(
    Role::Producer,
    &[
        Op::String(Role::Producer),
        Op::Repeat(Role::ProducerId, &[Op::String(Role::ProducerId), PRODUCER_ENTRY, PRODUCER_ENTRY]),
    ],
);

/// Nodes, length, last id, groups.
const STREAM_1: &[Op] =
    &[STREAM_NODES, Op::Number(Role::StreamLength), Op::Number(Role::LastId), Op::Number(Role::LastId), GROUPS_1];

/// With first id, greatest deleted id and count of entries ever added before the groups.
macro_rules! stream {
    ($($after:expr),+) => {
        &[
            STREAM_NODES,
            Op::Number(Role::StreamLength), Op::Number(Role::LastId), Op::Number(Role::LastId),
            Op::Number(Role::FirstId), Op::Number(Role::FirstId),
            Op::Number(Role::GreatestDeletedId), Op::Number(Role::GreatestDeletedId),
            Op::Number(Role::EntriesAdded),
            $($after),+
        ]
    };
}

const STREAM_2: &[Op] = stream!(GROUPS_2);
const STREAM_3: &[Op] = stream!(GROUPS_3);
/// With duration, limit, producers and two counters of idempotent production.
const STREAM_4: &[Op] = stream!(
    GROUPS_3,
    Op::Number(Role::IdempotenceLimit),
    Op::Number(Role::IdempotenceLimit),
    PRODUCERS,
    Op::Number(Role::IdempotenceCount),
    Op::Number(Role::IdempotenceCount)
);
const STREAM_5: &[Op] = stream!(
    GROUPS_5,
    Op::Number(Role::IdempotenceLimit),
    Op::Number(Role::IdempotenceLimit),
    PRODUCERS,
    Op::Number(Role::IdempotenceCount),
    Op::Number(Role::IdempotenceCount)
);

/// Name and value.
pub(crate) const AUX: &[Op] = &[Op::Keep, Op::Keep];
/// Source of the library.
pub(crate) const FUNCTION: &[Op] = &[Op::Keep];
/// Name, engine, description if the flag says so, code.
pub(crate) const FUNCTION_PRE_GA: &[Op] =
    &[Op::Keep, Op::String(Role::Untold), Op::Repeat(Role::Untold, STRING), Op::String(Role::Untold)];
/// Name of the job, then the slot ranges.
pub(crate) const SLOT_IMPORT: &[Op] =
    &[Op::String(Role::Untold), Op::Repeat(Role::Untold, &[Op::Number(Role::Untold), Op::Number(Role::Untold)])];
/// Module type, when it is loaded (a mark and a number), parts.
pub(crate) const MODULE_AUX: &[Op] = &[Op::ModuleParts];
/// For each class of metadata: four bytes that name it, parts.
pub(crate) const KEY_META: &[Op] = &[Op::Repeat(Role::Untold, &[Op::Raw(Role::Untold, 4), Op::ModuleParts])];

/// One field of a template of hashes, kept and not kept.
pub(crate) const TEMPLATE_FIELD: &[Op] = &[Op::Keep];
pub(crate) const TEMPLATE_FIELD_UNTOLD: &[Op] = STRING;

/// The id of a module type: nine characters and a version of its encoding, packed into 64 bits
/// (`moduleTypeEncodeId` in the server's `module.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(pub u64);

impl ModuleId {
    /// The nine characters, as `ReJSON-RL`.
    #[must_use]
    pub fn name(self) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..9)
            .map(|index| usize::try_from(self.0 >> (10 + 6 * (8 - index)) & 63).unwrap_or(0))
            .map(|letter| char::from(LETTERS.get(letter).copied().unwrap_or(b'?')))
            .collect()
    }

    /// The version of the module's own encoding, 0 to 1023.
    #[must_use]
    pub const fn encoding_version(self) -> u64 {
        self.0 & 1023
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(ops: &[Op]) -> usize {
        ops.iter()
            .map(|op| {
                if let Op::Repeat(_, inner) | Op::Array(inner) | Op::Template(inner) = op {
                    1 + depth(inner)
                } else {
                    0
                }
            })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn every_type_has_a_layout_within_the_depth() {
        let mut known = 0;
        for magic in [Magic::Redis, Magic::Valkey] {
            for value_type in (0..=255).filter_map(|code| ValueType::new(code, magic)) {
                known += 1;
                assert_ne!(value_type.name(), "unknown");
                match value_type.layout() {
                    Some(ops) => assert!(depth(ops) <= DEPTH_MAX && !ops.is_empty(), "{value_type}"),
                    None => assert_eq!(value_type.code(), 6),
                }
            }
        }
        assert_eq!(known, 30 + 22);
        assert!([AUX, FUNCTION, FUNCTION_PRE_GA, SLOT_IMPORT, MODULE_AUX, KEY_META].iter().all(|o| depth(o) <= 2));
    }

    #[test]
    fn module_names_are_unpacked() {
        // the id that the server computes for the type ReJSON-RL with encoding version 3
        let packed = "ReJSON-RL".bytes().fold(0u64, |id, letter| {
            let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            id << 6 | letters.bytes().position(|l| l == letter).unwrap() as u64
        });
        let id = ModuleId(packed << 10 | 3);
        assert_eq!((id.name().as_str(), id.encoding_version()), ("ReJSON-RL", 3));
    }
}
