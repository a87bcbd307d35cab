//! The listpack of a stream's node (`streamAppendItem` in the server's `t_stream.c`).
//!
//! It begins with the number of entries, of deleted ones, of shared fields, those fields and a zero. An entry
//! is its flags, its id relative to that of the node (ms, sequence number), the number of its fields and each
//! with its value, or the values of the shared fields alone, and the number of elements of it before this one.

use crate::structure::Role;

use super::{Part, StreamId};

const DELETED: u64 = 1;
const SHARED: u64 = 2;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Entries,
    Deleted,
    SharedFields,
    SharedField {
        left: u64,
    },
    Zero,
    Flags,
    Ms,
    Seq,
    Fields,
    Field {
        left: u64,
    },
    Value {
        left: u64,
    },
    SharedValue {
        left: u64,
    },
    Elements,
}

/// Where a walk over the listpack of a node stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Node {
    id: StreamId,
    next: Next,
    live: u64,
    deleted: u64,
    shared_fields: u64,
    flags: u64,
    ms: u64,
    seq: u64,
    fields: u64,
}

/// A flaw, in words.
type Flaw = String;

impl Node {
    pub(super) fn new(id: StreamId) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    /// What the element that comes next is, if it may be a text.
    pub(super) fn text_role(&self) -> Option<Role> {
        match self.next {
            Next::SharedField { .. } => Some(Role::SharedField),
            Next::Field { .. } => Some(Role::Field),
            Next::Value { .. } | Next::SharedValue { .. } => Some(Role::FieldValue),
            _ => None,
        }
    }

    /// A text has passed.
    pub(super) fn after_text(&mut self) {
        self.next = match self.next {
            Next::SharedField { left } if left > 1 => Next::SharedField { left: left - 1 },
            Next::SharedField { .. } => Next::Zero,
            Next::Field { left } => Next::Value { left },
            Next::Value { left } if left > 1 => Next::Field { left: left - 1 },
            Next::SharedValue { left } if left > 1 => Next::SharedValue { left: left - 1 },
            _ => Next::Elements,
        };
    }

    /// A number that is not the content of an entry.
    pub(super) fn number(&mut self, number: i64) -> Result<Option<Part<'static>>, Flaw> {
        let count = || u64::try_from(number).map_err(|_| format!("the count {number} in a stream's node is negative"));
        match self.next {
            Next::Entries => {
                self.live = count()?;
                self.next = Next::Deleted;
            }
            Next::Deleted => {
                self.deleted = count()?;
                self.next = Next::SharedFields;
            }
            Next::SharedFields => {
                self.shared_fields = count()?;
                self.next = if number > 0 { Next::SharedField { left: self.shared_fields } } else { Next::Zero };
            }
            Next::Zero if number != 0 => return Err(format!("{number} stands where the head of a stream's node ends")),
            Next::Zero => self.next = Next::Flags,
            Next::Flags => return self.flags(number).map(|()| None),
            Next::Ms => {
                self.ms = self.id.ms.wrapping_add(number.cast_unsigned());
                self.next = Next::Seq;
            }
            Next::Seq => {
                self.seq = self.id.seq.wrapping_add(number.cast_unsigned());
                if self.flags & SHARED == 0 {
                    self.next = Next::Fields;
                    return Ok(None);
                }
                self.fields = self.shared_fields;
                self.next = if self.fields > 0 { Next::SharedValue { left: self.fields } } else { Next::Elements };
                return Ok(Some(self.entry()));
            }
            Next::Fields => {
                self.fields = count()?;
                self.next = if number > 0 { Next::Field { left: self.fields } } else { Next::Elements };
                return Ok(Some(self.entry()));
            }
            _ => {
                self.elements(number)?;
                self.next = Next::Flags;
                return Ok(Some(Part::EntryEnd));
            }
        }
        Ok(None)
    }

    fn flags(&mut self, number: i64) -> Result<(), Flaw> {
        let flags = u64::try_from(number).ok().filter(|flags| *flags <= DELETED | SHARED);
        self.flags = flags.ok_or_else(|| format!("{number} are no flags of a stream's entry"))?;
        let left = if self.flags & DELETED == 0 { &mut self.live } else { &mut self.deleted };
        let Some(less) = left.checked_sub(1) else {
            let kind = if self.flags & DELETED == 0 { "live" } else { "deleted" };
            return Err(format!("a stream's node holds more {kind} entries than its head says"));
        };
        *left = less;
        self.next = Next::Ms;
        Ok(())
    }

    fn entry(&self) -> Part<'static> {
        let id = StreamId { ms: self.ms, seq: self.seq };
        let (deleted, shared) = (self.flags & DELETED != 0, self.flags & SHARED != 0);
        Part::Entry { id, deleted, shared, fields: self.fields }
    }

    fn elements(&self, number: i64) -> Result<(), Flaw> {
        let expected = if self.flags & SHARED == 0 {
            self.fields.checked_mul(2).and_then(|fields| fields.checked_add(4))
        } else {
            self.fields.checked_add(3)
        };
        if u64::try_from(number).ok() == expected {
            Ok(())
        } else {
            Err(format!("an entry of a stream counts {number} elements wrongly"))
        }
    }

    /// The listpack ended.
    pub(super) fn end(&self) -> Result<(), Flaw> {
        if self.next != Next::Flags {
            return Err("a stream's node ends inside its head or an entry".to_owned());
        }
        if self.live > 0 || self.deleted > 0 {
            let (live, deleted) = (self.live, self.deleted);
            return Err(format!(
                "a stream's node lacks {live} live and {deleted} deleted entries that its head counts"
            ));
        }
        Ok(())
    }
}
