//! What is digested, by kind.

/// What a digest of an element, a name or a key begins with, so that none is the digest of another kind of thing. The
/// lengths of strings stand before them; they are below 2^56.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Key = 1,
    Function,
    Name,
    Member,
    Field,
    Entry,
    Stream,
    StreamFacts,
    Group,
    GroupRead,
    Consumer,
    Pending,
    ConsumerPending,
    Signed,
    Unsigned,
    Float,
    Double,
}

impl Kind {
    /// The number that a digest begins with.
    #[inline]
    pub(super) fn with(self, length: u64) -> u64 {
        (self as u64) << 56 ^ length
    }
}
