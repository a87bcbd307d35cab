//! The pieces of a value and what each of them means, for sinks that want more than its raw bytes.

use crate::atom::StringHead;

/// What a piece of a value means. The layouts in `value.rs` say where each stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The value as a whole.
    Value,
    /// A value that is a string.
    Text,
    /// Items, members or fields: how many.
    Elements,
    /// An item of a list.
    Item,
    /// A member of a set or sorted set.
    Member,
    /// The score of the member before it.
    Score,
    /// A field of a hash.
    Field,
    /// The value of the field before it.
    FieldValue,
    /// When the field expires, in the form of the value's type.
    FieldExpiry,
    /// The least expiry of the hash's fields, in ms since 1970.
    LeastExpiry,
    /// A whole collection, or a node of one, in a packed encoding.
    Packed,
    /// Whether the node of a list is one item or a packed encoding.
    Container,
    /// The name of a field that entries of a stream's node share.
    SharedField,
    /// The id of a stream's node.
    NodeId,
    /// Entries of a stream: how many are not deleted.
    StreamLength,
    /// The last id that a stream gave out: ms, then sequence number.
    LastId,
    /// The first id of a stream: ms, then sequence number.
    FirstId,
    /// The greatest id that was deleted from a stream: ms, then sequence number.
    GreatestDeletedId,
    /// How many entries were ever added to a stream.
    EntriesAdded,
    /// Consumer groups: how many; then the name of one.
    Group,
    /// The last id that a group was given: ms, then sequence number.
    GroupLastId,
    /// How many entries a group has read.
    EntriesRead,
    /// Pending entries of a group: how many; then id and time of delivery of one.
    Pending,
    /// How often a pending entry was delivered.
    Deliveries,
    /// Consumers of a group: how many; then the name of one.
    Consumer,
    /// When a consumer was seen, and in later types when it was active, in ms since 1970.
    ConsumerTimes,
    /// Pending entries of a consumer: how many; then the id of one.
    ConsumerPending,
    /// Pending entries of a group that no consumer has: how many; then the id of one.
    Nacked,
    /// Where the next element of an array is inserted; the greatest number where there is no such place.
    ArrayInsert,
    /// The index of an element of an array.
    ArrayIndex,
    /// The id of a template of hashes.
    Template,
    /// How long ids of idempotent production are remembered, and how many of them.
    IdempotenceLimit,
    /// Producers: how many; then the name of one.
    Producer,
    /// Ids of a producer: how many; then one.
    ProducerId,
    /// The entry that a producer's id belongs to: ms, then sequence number.
    ProducerEntry,
    /// Counters of idempotent production.
    IdempotenceCount,
    /// A part of a module's value.
    Module,
    /// Nothing that is told: it belongs to no value.
    Untold,
}

/// A piece of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Structure<'a> {
    /// How many times the pieces that follow occur.
    Count(u64),
    /// A number.
    Number(u64),
    /// A score that is a number.
    Score(f64),
    /// Bytes of a fixed number.
    Bytes(&'a [u8]),
    /// A string begins.
    Begin {
        /// How it is kept.
        head: StringHead,
        /// Where the bytes behind its head begin in the file.
        body: u64,
    },
    /// Bytes of the string itself, unpacked; the borders of pieces mean nothing.
    Piece(&'a [u8]),
    /// The string ended.
    End,
    /// A number of a module's value: signed, unsigned, and the bits of a `float` or `double`.
    ModuleNumber(ModuleNumber),
    /// The value ended.
    ValueEnd,
}

/// A number in a module's value (`RDB_MODULE_OPCODE_*` in `rdb.h`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ModuleNumber {
    /// A signed number.
    Signed(i64),
    /// An unsigned number.
    Unsigned(u64),
    /// A number of 32 bits with a fraction.
    Float(f32),
    /// A number of 64 bits with a fraction.
    Double(f64),
}
