//! How a value of one type is rewritten as one of another: layouts whose steps say what becomes of each piece.
//!
//! Sources: `rdbLoadObject` and `rdbSaveObject` in the `rdb.c` of Redis 6.2 to 8.2 and of Valkey 8 and 9.

use crate::value::ValueType;
use crate::version::Magic;

use super::Target;

use Atom::{Fixed, Number, Text};
use Step::{Collect, Do, Element, Node, Note, Pass, Repeat, Rest, Skip, SkipRepeat, Take, TakeRepeat, Templated};

/// What becomes of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Plan {
    /// It passes as it stands.
    Pass,
    /// It becomes one of another type, by these steps.
    Rewrite { code: u8, steps: &'static [Step] },
    /// The target has nothing like it.
    Unknown,
}

/// A piece of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Atom {
    /// A number in the form of lengths.
    Number,
    /// This many bytes; eight of them are a little-endian number.
    Fixed(u8),
    /// A string.
    Text,
}

/// What becomes of a piece.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// It is written as it stands.
    Pass(Atom),
    /// It is left out.
    Skip(Atom),
    /// It is written as it stands, and its number is of interest.
    Note(Atom, Mark),
    /// It is left out, and its number is of interest.
    Take(Atom, Mark),
    /// A string that is held whole, and written otherwise when it has ended.
    Collect(Held),
    /// The string of a quicklist's node, which is held or not as the number before it said.
    Element,
    /// The id of a template of hashes, in whose place the number of its fields is written; then the steps for each.
    Templated(&'static [Self]),
    /// A number, which is written, then the steps that many times.
    Repeat(&'static [Self]),
    /// A number, which is left out, then the steps that many times.
    SkipRepeat(&'static [Self]),
    /// A number, which is left out but of interest, then the steps that many times.
    TakeRepeat(Mark, &'static [Self]),
    /// The string of a stream's node, which is written as it stands; its entries are counted.
    Node,
    /// All that is left of the value, which is written as it stands.
    Rest,
    /// Nothing is read.
    Do(Mark),
}

/// A packed value that is held whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held {
    /// The listpack of a hash.
    Hash,
    /// The listpack of a set.
    Set,
    /// The listpack of a sorted set.
    Zset,
    /// The listpack of a hash whose fields may expire; they stay so, or not.
    ExpiringHash { keep: bool },
    /// The same; it becomes a plain one whose expiries stand before the fields, and are moved.
    MovedHash,
    /// The listpack of a hash that refers to a template: its id, then the values.
    TemplatedHash,
    /// The listpack of a quicklist's node, which becomes a ziplist.
    Node,
}

/// What a number is, or what is to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    /// The least expiry of a hash's fields.
    LeastExpiry,
    /// A field's expiry, from the least one on, plus one; 0: none.
    ExpiryFromLeast,
    /// A field's expiry, or 0.
    ExpiryOrZero,
    /// A field's expiry that the target cannot hold, or 0.
    LostExpiryOrZero,
    /// A field's expiry that the target cannot hold, or -1.
    LostExpiry,
    /// The field's expiry as Valkey writes it is due.
    PutExpiry,
    /// A least expiry is due.
    PutLeastExpiry,
    /// The least expiry, to be written moved.
    MoveLeastExpiry,
    /// A field's expiry or -1, to be written moved.
    MoveExpiry,
    /// What follows is held until the expiry behind it is known.
    Hold,
    /// That expiry, or -1.
    Release,
    /// The next field of the template is due.
    PutField,
    /// How a node of a quicklist is kept.
    Container,
    /// Of a stream: how many entries it has.
    Length,
    /// The same, to be written as it was counted.
    CountedLength,
    LastMs,
    LastSeq,
    DeletedMs,
    DeletedSeq,
    /// How many entries were ever added.
    Added,
    /// Of a group of a stream: the id of the last entry it got.
    GroupMs,
    GroupSeq,
    /// How many entries it has read.
    Read,
    /// Of a consumer: when it was last seen.
    Seen,
    /// When it last got an entry.
    Active,
    /// What follows is held until it is known whether the group has pending entries that no consumer has.
    HoldConsumers,
    /// Of a group: how many consumers.
    Consumers,
    /// The id of a pending entry that no consumer has.
    GivenBack,
    /// The consumers are due, with the time of activity or without.
    PutConsumers {
        active: bool,
    },
    /// Of a stream's producers: how long and how many ids are kept, for each.
    ProducerDuration,
    ProducerLimit,
    /// An id that a producer gave.
    ProducerId,
    /// How many ids came, or came twice.
    ProducerCount,
}

const HASH: &[Step] = &[Collect(Held::Hash)];
const SET: &[Step] = &[Collect(Held::Set)];
const ZSET: &[Step] = &[Collect(Held::Zset)];
const QUICKLIST: &[Step] = &[Repeat(&[Take(Number, Mark::Container), Element])];

const METADATA_TO_HASH: &[Step] =
    &[Skip(Fixed(8)), Repeat(&[Take(Number, Mark::LostExpiryOrZero), Pass(Text), Pass(Text)])];
const METADATA_TO_HASH_2: &[Step] = &[
    Take(Fixed(8), Mark::LeastExpiry),
    Repeat(&[Take(Number, Mark::ExpiryFromLeast), Pass(Text), Pass(Text), Do(Mark::PutExpiry)]),
];
const METADATA_PRE_GA_TO_HASH: &[Step] = &[Repeat(&[Take(Number, Mark::LostExpiryOrZero), Pass(Text), Pass(Text)])];
const METADATA_PRE_GA_TO_HASH_2: &[Step] =
    &[Repeat(&[Take(Number, Mark::ExpiryOrZero), Pass(Text), Pass(Text), Do(Mark::PutExpiry)])];
const LISTPACK_EX_TO_HASH: &[Step] = &[Skip(Fixed(8)), Collect(Held::ExpiringHash { keep: false })];
const LISTPACK_EX_TO_HASH_2: &[Step] = &[Skip(Fixed(8)), Collect(Held::ExpiringHash { keep: true })];
const LISTPACK_EX_PRE_GA_TO_HASH: &[Step] = &[Collect(Held::ExpiringHash { keep: false })];
const LISTPACK_EX_PRE_GA_TO_HASH_2: &[Step] = &[Collect(Held::ExpiringHash { keep: true })];
const HASH_2_TO_HASH: &[Step] = &[Repeat(&[Pass(Text), Pass(Text), Take(Fixed(8), Mark::LostExpiry)])];
const HASH_2_TO_METADATA: &[Step] =
    &[Do(Mark::PutLeastExpiry), Repeat(&[Do(Mark::Hold), Pass(Text), Pass(Text), Take(Fixed(8), Mark::Release)])];

const TEMPLATED_LISTPACK_TO_HASH: &[Step] = &[Collect(Held::TemplatedHash)];
const TEMPLATED_TO_HASH: &[Step] = &[Templated(&[Do(Mark::PutField), Pass(Text)])];

const PENDING: Step = Repeat(&[Pass(Fixed(24)), Pass(Number)]);
const OWNED: Step = Repeat(&[Pass(Fixed(16))]);
const CONSUMERS_1: Step = Repeat(&[Pass(Text), Pass(Fixed(8)), OWNED]);
const CONSUMERS_3: Step = Repeat(&[Pass(Text), Pass(Fixed(16)), OWNED]);
const CONSUMERS_3_TO_1: Step = Repeat(&[Pass(Text), Note(Fixed(8), Mark::Seen), Take(Fixed(8), Mark::Active), OWNED]);
/// The ids of pending entries that no consumer has.
const GIVEN_BACK: Step = SkipRepeat(&[Take(Fixed(16), Mark::GivenBack)]);
/// How long ids of producers are kept, how many, the producers, two counts.
const PRODUCERS: [Step; 5] = [
    Take(Number, Mark::ProducerDuration),
    Take(Number, Mark::ProducerLimit),
    SkipRepeat(&[Skip(Text), SkipRepeat(&[Skip(Text), Take(Number, Mark::ProducerId), Skip(Number)])]),
    Take(Number, Mark::ProducerCount),
    Take(Number, Mark::ProducerCount),
];

/// A stream's nodes, length and last id; then its first id, greatest deleted id, count of entries added, and groups,
/// either as they are or without what type 1 lacks.
macro_rules! stream {
    (to_1, [$($group:expr),+] $(, $after:expr)*) => {
        &[
            Repeat(&[Pass(Text), Pass(Text)]),
            Note(Number, Mark::Length), Note(Number, Mark::LastMs), Note(Number, Mark::LastSeq),
            Skip(Number), Skip(Number),
            Take(Number, Mark::DeletedMs), Take(Number, Mark::DeletedSeq), Take(Number, Mark::Added),
            Repeat(&[
                Pass(Text),
                Note(Number, Mark::GroupMs), Note(Number, Mark::GroupSeq), Take(Number, Mark::Read),
                PENDING, $($group),+
            ])
            $(, $after)*
        ]
    };
    (as_is, $nodes:expr, $length:expr, [$($group:expr),+] $(, $after:expr)*) => {
        &[
            $nodes, $length,
            Pass(Number), Pass(Number),
            Pass(Number), Pass(Number), Pass(Number), Pass(Number), Pass(Number),
            Repeat(&[Pass(Text), Pass(Number), Pass(Number), Pass(Number), PENDING, $($group),+])
            $(, $after)*
        ]
    };
    (as_is, [$($group:expr),+] $(, $after:expr)*) => {
        stream!(as_is, Repeat(&[Pass(Text), Pass(Text)]), Pass(Number), [$($group),+] $(, $after)*)
    };
    // with producers behind the groups, which are left out
    (without_producers, $($stream:tt)+) => {
        stream!($($stream)+, PRODUCERS[0], PRODUCERS[1], PRODUCERS[2], PRODUCERS[3], PRODUCERS[4])
    };
}

const NODES_COUNTED: Step = Repeat(&[Pass(Text), Node]);
const COUNTED: Step = Take(Number, Mark::CountedLength);
const HOLD: Step = Do(Mark::HoldConsumers);
const PUT_1: Step = Do(Mark::PutConsumers { active: false });
const PUT_3: Step = Do(Mark::PutConsumers { active: true });
const HELD_3: Step = TakeRepeat(Mark::Consumers, &[Pass(Text), Pass(Fixed(16)), OWNED]);
const HELD_3_TO_1: Step =
    TakeRepeat(Mark::Consumers, &[Pass(Text), Note(Fixed(8), Mark::Seen), Take(Fixed(8), Mark::Active), OWNED]);

const STREAM_COUNTED: &[Step] = &[NODES_COUNTED, COUNTED, Rest];
const STREAM_2_TO_1: &[Step] = stream!(to_1, [CONSUMERS_1]);
const STREAM_3_TO_1: &[Step] = stream!(to_1, [CONSUMERS_3_TO_1]);
const STREAM_3_TO_2: &[Step] = stream!(as_is, [CONSUMERS_3_TO_1]);
const STREAM_4_TO_1: &[Step] = stream!(without_producers, to_1, [CONSUMERS_3_TO_1]);
const STREAM_4_TO_2: &[Step] = stream!(without_producers, as_is, [CONSUMERS_3_TO_1]);
const STREAM_4_TO_3: &[Step] = stream!(without_producers, as_is, [CONSUMERS_3]);
const STREAM_4_TO_3_COUNTED: &[Step] = stream!(without_producers, as_is, NODES_COUNTED, COUNTED, [CONSUMERS_3]);
const STREAM_5_TO_1: &[Step] = stream!(without_producers, to_1, [HOLD, HELD_3_TO_1, GIVEN_BACK, PUT_1]);
const STREAM_5_TO_2: &[Step] = stream!(without_producers, as_is, [HOLD, HELD_3_TO_1, GIVEN_BACK, PUT_1]);
const STREAM_5_TO_3: &[Step] = stream!(without_producers, as_is, [HOLD, HELD_3, GIVEN_BACK, PUT_3]);
const STREAM_5_TO_3_COUNTED: &[Step] =
    stream!(without_producers, as_is, NODES_COUNTED, COUNTED, [HOLD, HELD_3, GIVEN_BACK, PUT_3]);

const METADATA_MOVED: &[Step] = &[Take(Fixed(8), Mark::MoveLeastExpiry), Rest];
const LISTPACK_EX_MOVED: &[Step] = &[Skip(Fixed(8)), Do(Mark::PutLeastExpiry), Collect(Held::MovedHash)];
const HASH_2_MOVED: &[Step] = &[Repeat(&[Pass(Text), Pass(Text), Take(Fixed(8), Mark::MoveExpiry)])];

/// The type and the steps by which the expiries of a hash's fields are left out, or moved; nothing for values without,
/// and for those of the release candidates of Redis 7.4.
pub(crate) fn field_expiries(value_type: ValueType, drop: bool) -> Option<(u8, &'static [Step])> {
    Some(match (value_type.code(), value_type.magic(), drop) {
        (22, Magic::Valkey, true) => (4, HASH_2_TO_HASH),
        (22, Magic::Redis, true) => (4, METADATA_PRE_GA_TO_HASH),
        (23, Magic::Redis, true) => (4, LISTPACK_EX_PRE_GA_TO_HASH),
        (24, Magic::Redis, true) => (4, METADATA_TO_HASH),
        (25, Magic::Redis, true) => (4, LISTPACK_EX_TO_HASH),
        (22, Magic::Valkey, false) => (22, HASH_2_MOVED),
        (24, Magic::Redis, false) => (24, METADATA_MOVED),
        (25, Magic::Redis, false) => (24, LISTPACK_EX_MOVED),
        _ => return None,
    })
}

/// The type and the steps by which a hash that refers to a template becomes one that has its fields itself; nothing for
/// other values.
pub(crate) fn with_fields(value_type: ValueType) -> Option<(u8, &'static [Step])> {
    match (value_type.code(), value_type.magic()) {
        (30, Magic::Redis) => Some((4, TEMPLATED_LISTPACK_TO_HASH)),
        (32, Magic::Redis) => Some((4, TEMPLATED_TO_HASH)),
        _ => None,
    }
}

/// What becomes of a value of this type on its way to the target.
pub(super) fn plan(value_type: ValueType, target: Target) -> Plan {
    let is_stream = matches!((value_type.code(), value_type.magic()), (15 | 19 | 21, _) | (26 | 27, Magic::Redis));
    if is_stream {
        return stream_plan(value_type.code(), target);
    }
    if target.reads(value_type) {
        return Plan::Pass;
    }
    match (value_type.code(), value_type.magic()) {
        (16, _) => Plan::Rewrite { code: 4, steps: HASH },
        (17, _) => Plan::Rewrite { code: 5, steps: ZSET },
        (18, _) => Plan::Rewrite { code: 14, steps: QUICKLIST },
        (20, _) => Plan::Rewrite { code: 2, steps: SET },
        (30 | 32, Magic::Redis) => {
            with_fields(value_type).map_or(Plan::Unknown, |(code, steps)| Plan::Rewrite { code, steps })
        }
        (22, _) | (23..=25, Magic::Redis) => hash_plan(value_type, target.expiring_hash()),
        _ => Plan::Unknown,
    }
}

fn stream_plan(from: u8, target: Target) -> Plan {
    let to = from.min(target.stream_code());
    let steps = match (from, to) {
        (26, 21) if target.counts_entries() => STREAM_4_TO_3_COUNTED,
        (27, 21) if target.counts_entries() => STREAM_5_TO_3_COUNTED,
        _ if from == to && target.counts_entries() => STREAM_COUNTED,
        _ if from == to => return Plan::Pass,
        (19, 15) => STREAM_2_TO_1,
        (21, 15) => STREAM_3_TO_1,
        (21, 19) => STREAM_3_TO_2,
        (26, 15) => STREAM_4_TO_1,
        (26, 19) => STREAM_4_TO_2,
        (26, 21) => STREAM_4_TO_3,
        (27, 15) => STREAM_5_TO_1,
        (27, 19) => STREAM_5_TO_2,
        (27, 21) => STREAM_5_TO_3,
        _ => return Plan::Unknown,
    };
    Plan::Rewrite { code: to, steps }
}

/// A hash whose fields may expire, for a target that keeps such hashes as `to`, or has none.
fn hash_plan(from: ValueType, to: Option<ValueType>) -> Plan {
    let to = to.map(|to| (to.code(), to.magic()));
    let steps = match (from.code(), from.magic(), to.map(|(_, magic)| magic)) {
        (22, Magic::Valkey, None) => HASH_2_TO_HASH,
        (22, Magic::Valkey, Some(Magic::Redis)) => HASH_2_TO_METADATA,
        (22, Magic::Redis, None) => METADATA_PRE_GA_TO_HASH,
        (22, Magic::Redis, Some(Magic::Valkey)) => METADATA_PRE_GA_TO_HASH_2,
        (23, _, None) => LISTPACK_EX_PRE_GA_TO_HASH,
        (23, _, Some(Magic::Valkey)) => LISTPACK_EX_PRE_GA_TO_HASH_2,
        (24, _, None) => METADATA_TO_HASH,
        (24, _, Some(Magic::Valkey)) => METADATA_TO_HASH_2,
        (25, _, None) => LISTPACK_EX_TO_HASH,
        (25, _, Some(Magic::Valkey)) => LISTPACK_EX_TO_HASH_2,
        _ => return Plan::Unknown,
    };
    Plan::Rewrite { code: to.map_or(4, |(code, _)| code), steps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::DEPTH_MAX;

    fn depth(steps: &[Step]) -> usize {
        let of = |step: &Step| {
            if let Repeat(inner) | SkipRepeat(inner) | TakeRepeat(_, inner) | Templated(inner) = step {
                1 + depth(inner)
            } else {
                0
            }
        };
        steps.iter().map(of).max().unwrap_or(0)
    }

    #[test]
    fn every_type_passes_or_becomes_one_that_the_target_reads() {
        let types = [Magic::Redis, Magic::Valkey]
            .into_iter()
            .flat_map(|magic| (0..=255).filter_map(move |code| ValueType::new(code, magic)));
        for (value_type, target) in types.flat_map(|value_type| Target::all().map(move |target| (value_type, target))) {
            match plan(value_type, target) {
                Plan::Pass => assert!(target.reads(value_type)),
                // arrays, which no target has
                Plan::Unknown => assert!(value_type.code() == 28, "{value_type} for {target}"),
                Plan::Rewrite { code, steps } => {
                    let to = ValueType::new(code, target.version().magic).unwrap();
                    assert!(target.reads(to) && depth(steps) <= DEPTH_MAX, "{value_type} for {target}");
                }
            }
        }
    }
}
