//! Streams: their entries, groups and consumers.

use crate::decode::{Part, StreamFacts, StreamId};

use super::{ContentSink, Kind};

impl ContentSink {
    fn stream(&mut self, facts: StreamFacts) {
        self.put_all(Kind::Stream, &[id(facts.last_id)]);
        if self.rules.stream_facts {
            // what servers take where the type does not say it
            let added = facts.entries_added.unwrap_or(facts.length);
            let deleted = id(facts.greatest_deleted_id.unwrap_or_default());
            self.put_all(Kind::StreamFacts, &[added.into(), deleted]);
        }
    }

    pub(super) fn stream_part(&mut self, part: Part<'_>) {
        match part {
            Part::Node(_) => self.shared.clear(),
            Part::Entry { id: entry, deleted, shared, .. } => {
                // the strings of a deleted entry are told too, and count for nothing
                self.is_discarded = deleted;
                self.next_shared = shared.then_some(0);
                if !deleted {
                    self.is_entry = true;
                    self.entry = self.digest(Kind::Entry, 0);
                    self.entry.add_wide(id(entry));
                }
            }
            Part::Stream(facts) => self.stream(facts),
            Part::Group { last_id, entries_read } => {
                self.put_all(Kind::Group, &[self.group, id(last_id)]);
                if self.rules.stream_facts {
                    self.put_all(Kind::GroupRead, &[self.group, entries_read.unwrap_or(u64::MAX).into()]);
                }
            }
            Part::Pending { id: entry, delivered_ms, deliveries } => {
                self.put_all(Kind::Pending, &[self.group, id(entry), delivered_ms.into(), deliveries.into()]);
            }
            Part::ConsumerPending(entry) => {
                self.put_all(Kind::ConsumerPending, &[self.group, self.consumer, id(entry)]);
            }
            _ => {}
        }
    }
}

fn id(id: StreamId) -> u128 {
    u128::from(id.ms) << 64 | u128::from(id.seq)
}
