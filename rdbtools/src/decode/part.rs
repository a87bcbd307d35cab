//! What a decoder tells.

use std::fmt;

use crate::error::ScanError;
use crate::sink::Sink;
use crate::structure::{ModuleNumber, Role};

/// The id of a stream's entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Milliseconds since 1970, unless the client chose otherwise.
    pub ms: u64,
    /// Tells entries of one millisecond apart.
    pub seq: u64,
}

impl StreamId {
    /// From 16 bytes, big-endian.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (ms, seq) = (bytes.first_chunk()?, bytes.get(8..)?.first_chunk()?);
        Some(Self { ms: u64::from_be_bytes(*ms), seq: u64::from_be_bytes(*seq) })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What is known of a stream beside its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// Entries that are not deleted.
    pub length: u64,
    /// The last id that was given out.
    pub last_id: StreamId,
    /// The first id; `None` where the type does not hold it (before Redis 7.0).
    pub first_id: Option<StreamId>,
    /// The greatest id that was deleted; `None` as above.
    pub greatest_deleted_id: Option<StreamId>,
    /// Entries that were ever added; `None` as above.
    pub entries_added: Option<u64>,
}

/// A part of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'a> {
    /// How many there are of what `role` names: of elements where they are not packed, of groups, consumers,
    /// pending entries, producers.
    Count {
        /// What is counted.
        role: Role,
        /// How many there are.
        count: u64,
    },
    /// A string begins.
    Begin {
        /// What it is.
        role: Role,
        /// Its length in bytes.
        length: u64,
    },
    /// Bytes of the string; the borders of pieces mean nothing.
    Piece(&'a [u8]),
    /// The string ended.
    End,
    /// The score of the member that ended; never NaN.
    Score(f64),
    /// When the field whose value ended expires, in ms since 1970. Told for every field of a hash in an
    /// encoding that has expiries.
    FieldExpiry(Option<u64>),
    /// A node of a stream begins; its shared fields follow, then its entries.
    Node(StreamId),
    /// An entry of a stream; its fields and their values follow by turns, or the values alone where it has the
    /// shared fields of its node.
    Entry {
        /// Its id.
        id: StreamId,
        /// Whether it was deleted: it is still in the file, but no longer part of the stream.
        deleted: bool,
        /// Whether it has the shared fields of its node.
        shared: bool,
        /// How many fields it has.
        fields: u64,
    },
    /// The entry ended.
    EntryEnd,
    /// The node ended.
    NodeEnd,
    /// What is known of the stream whose entries have passed; its groups follow.
    Stream(StreamFacts),
    /// What is known of the group whose name ended; its pending entries and consumers follow.
    Group {
        /// The last id it was given.
        last_id: StreamId,
        /// Entries it has read; `None` where the type does not hold it or the server did not know.
        entries_read: Option<u64>,
    },
    /// An entry that was delivered to the group and not acknowledged.
    Pending {
        /// Id of the entry, which may be deleted.
        id: StreamId,
        /// When it was delivered last, in ms since 1970.
        delivered_ms: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// What is known of the consumer whose name ended; its pending entries follow.
    Consumer {
        /// When it was seen last, in ms since 1970.
        seen_ms: i64,
        /// When it read or claimed last; -1: never. `None` where the type does not hold it.
        active_ms: Option<i64>,
    },
    /// An entry that is pending with the group and with no consumer: one gave it back (Redis 8.8).
    Nacked(StreamId),
    /// Where the next element of the array is inserted, if there is such a place.
    ArrayInsert(Option<u64>),
    /// The index of the item that follows, in an array.
    ArrayIndex(u64),
    /// An entry that is pending with the consumer.
    ConsumerPending(StreamId),
    /// A number of idempotent production: a limit, or a counter (`role` tells).
    Idempotence {
        /// [`Role::IdempotenceLimit`] or [`Role::IdempotenceCount`].
        role: Role,
        /// The number.
        number: u64,
    },
    /// The entry that the id of a producer, which ended, belongs to.
    ProducerEntry(StreamId),
    /// A number in a module's value.
    ModuleNumber(ModuleNumber),
    /// The value ended.
    ValueEnd,
}

/// Takes decoded values, and everything else that a sink takes.
pub trait Values: Sink {
    /// A part of the value that is passing, and where the string that holds it begins.
    ///
    /// # Errors
    /// A defect in what it was told: the scan ends with it.
    fn part(&mut self, offset: u64, part: Part<'_>) -> Result<(), ScanError>;
}
