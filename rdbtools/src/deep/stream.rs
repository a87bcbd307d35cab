//! What must hold in a stream.

use crate::decode::{Part, StreamFacts, StreamId};
use crate::digest::Seen;
use crate::error::ScanError;
use crate::structure::Role;

use super::COMPARED_MAX;

/// What is odd in a stream that servers load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odd {
    pub(super) entries: u64,
    pub(super) length_is_wrong: bool,
    pub(super) not_compared: bool,
}

/// A stream that is passing.
#[derive(Debug, Default)]
pub(super) struct Stream {
    node: Option<StreamId>,
    last: Option<StreamId>,
    live: u64,
    all: u64,
    facts: StreamFacts,
    groups: Seen,
    consumers: Seen,
    is_group: bool,
    pending: Pending,
    not_compared: bool,
}

/// Pending entries of a group, and which of them a consumer has.
#[derive(Debug, Default)]
struct Pending {
    ids: Vec<StreamId>,
    taken: Vec<bool>,
    overflowed: bool,
    sorted: bool,
}

impl Stream {
    /// Another key begins. The memory of the one before is used again.
    pub(super) fn begin(&mut self) {
        self.node = None;
        self.last = None;
        self.live = 0;
        self.all = 0;
        self.not_compared = false;
        self.groups.clear();
        self.consumers.clear();
        self.pending.clear();
    }

    pub(super) fn begin_name(&mut self, role: Role) {
        self.is_group = role == Role::Group;
    }

    /// The name of a group or consumer ended.
    pub(super) fn name(&mut self, digest: u128, offset: u64) -> Result<(), ScanError> {
        if !self.is_group {
            self.consumers.add(digest);
            return Ok(());
        }
        self.end_group(offset)?;
        self.groups.add(digest);
        Ok(())
    }

    pub(super) fn part(&mut self, offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        let refuse = |message: &str| Err(ScanError::malformed(offset, message));
        match part {
            Part::Node(id) => {
                if self.last.or(self.node).is_some_and(|last| id <= last) {
                    return refuse("the nodes of a stream do not ascend");
                }
                self.node = Some(id);
            }
            Part::NodeEnd if self.last < self.node => return refuse("a node of a stream holds no entry"),
            Part::Entry { id, deleted, .. } => {
                if self.node.is_some_and(|node| id < node) || self.last.is_some_and(|last| id <= last) {
                    return refuse("the ids of a stream's entries do not ascend");
                }
                self.last = Some(id);
                self.all += 1;
                self.live += u64::from(!deleted);
            }
            Part::Stream(facts) => {
                self.facts = facts;
                if self.last.is_some_and(|last| last > facts.last_id) {
                    return refuse("the last id of a stream is below that of its last entry");
                }
                if facts.length > 0 && self.node.is_none() {
                    return refuse("a stream has a length and no entry");
                }
            }
            Part::Pending { id, .. } => self.pending.add(id),
            Part::ConsumerPending(id) | Part::Nacked(id) => return self.pending.take(id).or_else(refuse),
            _ => {}
        }
        Ok(())
    }

    fn end_group(&mut self, offset: u64) -> Result<(), ScanError> {
        self.not_compared |= self.consumers.overflowed() || self.pending.overflowed;
        if self.consumers.has_twice() {
            return Err(ScanError::malformed(offset, "a consumer occurs twice in a group of a stream"));
        }
        self.consumers.clear();
        self.pending.end().map_err(|message| ScanError::malformed(offset, message))?;
        self.pending.clear();
        Ok(())
    }

    /// The value ended; it began at `offset`.
    pub(super) fn end(&mut self, offset: u64) -> Result<Odd, ScanError> {
        self.end_group(offset)?;
        if self.groups.has_twice() {
            return Err(ScanError::malformed(offset, "a group occurs twice in a stream"));
        }
        let not_compared = self.not_compared || self.groups.overflowed();
        Ok(Odd { entries: self.live, length_is_wrong: self.live != self.facts.length, not_compared })
    }
}

impl Pending {
    fn clear(&mut self) {
        self.ids.clear();
        self.taken.clear();
        self.overflowed = false;
        self.sorted = false;
    }

    fn add(&mut self, id: StreamId) {
        if self.ids.len() < COMPARED_MAX {
            self.ids.push(id);
        } else {
            self.overflowed = true;
        }
    }

    /// They are written in order, but nothing demands it.
    fn sort(&mut self) {
        if !self.sorted {
            self.ids.sort_unstable();
            self.taken.resize(self.ids.len(), false);
            self.sorted = true;
        }
    }

    /// A consumer has the entry.
    fn take(&mut self, id: StreamId) -> Result<(), &'static str> {
        if self.overflowed {
            return Ok(());
        }
        self.sort();
        let place = self.ids.binary_search(&id).ok().and_then(|index| self.taken.get_mut(index));
        let Some(taken) = place else { return Err("an entry is pending with a consumer and not with its group") };
        if *taken {
            return Err("an entry is pending with a consumer twice, or with two");
        }
        *taken = true;
        Ok(())
    }

    fn end(&mut self) -> Result<(), &'static str> {
        if self.overflowed {
            return Ok(());
        }
        self.sort();
        if self.ids.is_sorted_by(|a, b| a < b) {
            if self.taken.iter().all(|taken| *taken) {
                Ok(())
            } else {
                Err("an entry is pending with a group and with none of its consumers")
            }
        } else {
            Err("an entry is pending with a group twice")
        }
    }
}
