//! The commands that make streams, their groups, and what is pending.

use crate::decode::{StreamFacts, StreamId};
use crate::error::{ErrorKind, ScanError};

use super::{Commands, Delivery, HELD_MAX, Output, bulk, command};

/// The most pending entries of a group that are held until its consumers come.
const PENDING_MAX: usize = HELD_MAX / size_of::<Delivery>();

/// The most ids of a stream's entries that are held to tell whether a pending entry is still there.
const LIVE_MAX: usize = HELD_MAX / size_of::<StreamId>();

impl<O: Output> Commands<O> {
    pub(super) fn entry(&mut self, id: StreamId, deleted: bool, shared: bool, fields: u64) -> Result<(), ScanError> {
        self.is_discarded = deleted;
        self.next_shared = shared.then_some(0);
        if deleted {
            return Ok(());
        }
        self.live = self.live.take().filter(|live| live.len() < LIVE_MAX);
        if let Some(live) = &mut self.live {
            live.push(id);
        }
        command(&mut self.out, &[b"XADD", &self.key, id.to_string().as_bytes()], fields.saturating_mul(2))
    }

    /// The stream's entries have passed: the rest of what it knows.
    pub(super) fn stream(&mut self, facts: StreamFacts) -> Result<(), ScanError> {
        self.facts = facts;
        if !self.is_made {
            // a stream without entries can only be made with one that is trimmed at once
            command(&mut self.out, &[b"XADD", &self.key, b"MAXLEN", b"0", b"0-1", b"x", b"y"], 0)?;
            self.is_made = true;
        }
        let last = facts.last_id.to_string();
        let (Some(added), Some(deleted)) = (facts.entries_added, facts.greatest_deleted_id) else {
            return command(&mut self.out, &[b"XSETID", &self.key, last.as_bytes()], 0);
        };
        let (added, deleted) = (added.to_string(), deleted.to_string());
        let facts: [&[u8]; 7] = [
            b"XSETID",
            &self.key,
            last.as_bytes(),
            b"ENTRIESADDED",
            added.as_bytes(),
            b"MAXDELETEDID",
            deleted.as_bytes(),
        ];
        command(&mut self.out, &facts, 0)
    }

    pub(super) fn group(&mut self, last_id: StreamId, entries_read: Option<u64>) -> Result<(), ScanError> {
        let last = last_id.to_string();
        let create: [&[u8]; 5] = [b"XGROUP", b"CREATE", &self.key, &self.group, last.as_bytes()];
        let Some(read) = entries_read else { return command(&mut self.out, &create, 0) };
        command(&mut self.out, &create, 2)?;
        let mut text = Vec::new();
        bulk(&mut text, b"ENTRIESREAD");
        bulk(&mut text, read.to_string().as_bytes());
        self.out.put(&text)
    }

    pub(super) fn delivery(&mut self, offset: u64, delivery: Delivery) -> Result<(), ScanError> {
        if self.pending.len() >= PENDING_MAX {
            let message = format!("a group has more than {PENDING_MAX} pending entries, which cannot be held");
            return Err(ScanError { offset, kind: ErrorKind::Unsupported, message });
        }
        self.pending.push(delivery);
        Ok(())
    }

    pub(super) fn claim(&mut self, offset: u64, id: StreamId) -> Result<(), ScanError> {
        // they are written in order; where they are not, it is found anyway
        let found = self.pending.binary_search_by_key(&id, |(id, ..)| *id).ok();
        let index = found.or_else(|| self.pending.iter().position(|(other, ..)| *other == id));
        let Some((_, delivered, times)) = index.and_then(|index| self.pending.get(index)) else {
            let message = "an entry is pending with a consumer and not with its group".to_owned();
            return Err(ScanError { offset, kind: ErrorKind::Malformed, message });
        };
        self.losses.pending_unknown += u64::from(self.live.is_none());
        // no command makes one whose entry is gone
        if self.live.as_ref().is_some_and(|live| live.binary_search(&id).is_err()) {
            self.losses.pending += 1;
            return Ok(());
        }
        let (id, delivered, times) = (id.to_string(), delivered.to_string(), times.to_string());
        let claim: [&[u8]; 12] = [
            b"XCLAIM",
            &self.key,
            &self.group,
            &self.field,
            b"0",
            id.as_bytes(),
            b"TIME",
            delivered.as_bytes(),
            b"RETRYCOUNT",
            times.as_bytes(),
            b"JUSTID",
            b"FORCE",
        ];
        command(&mut self.out, &claim, 0)
    }
}
