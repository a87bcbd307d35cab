//! Numbers of a value that decide what is written, and what of the value is lost.

use super::loss::LossKind;
use super::plan::Mark;

/// What `stream-idmp-duration` and `stream-idmp-maxsize` are unless they are set.
const PRODUCER_DEFAULT: u64 = 100;

/// What a value had that its new type lacks.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    pub(super) field_ttls: u64,
    pub(super) stream_counters: u64,
    pub(super) activity: u64,
    pub(super) producers: u64,
    pub(super) given_back: u64,
}

impl Lacks {
    /// Kinds and how many of each, none of which is 0.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (LossKind, u64)> {
        let kinds = [
            (LossKind::FieldTtls, self.field_ttls),
            (LossKind::StreamCounters, self.stream_counters),
            (LossKind::ConsumerActivity, self.activity),
            (LossKind::StreamProducers, self.producers),
            (LossKind::GivenBack, self.given_back),
        ];
        kinds.into_iter().filter(|(_, items)| *items > 0)
    }
}

/// Numbers that were read and are needed further on.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) least_expiry: u64,
    pub(super) expiry: Option<i64>,
    pub(super) container: u64,
    pub(super) length: u64,
    pub(super) counted: u64,
    pub(super) last: (u64, u64),
    pub(super) deleted: (u64, u64),
    pub(super) added: u64,
    pub(super) group: (u64, u64),
    pub(super) consumers: u64,
    pub(super) seen: u64,
}

/// What is known of the value that is passing.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) numbers: Numbers,
    pub(super) lacks: Lacks,
}

impl Noted {
    /// What is counted as lost is what the target, or a newer server after it, would not find out by itself.
    pub(super) fn note_stream(&mut self, mark: Mark, number: u64) {
        let numbers = &mut self.numbers;
        match mark {
            Mark::Length => numbers.length = number,
            Mark::LastMs => numbers.last.0 = number,
            Mark::LastSeq => numbers.last.1 = number,
            Mark::DeletedMs => numbers.deleted.0 = number,
            Mark::DeletedSeq => {
                numbers.deleted.1 = number;
                self.lacks.stream_counters += u64::from(numbers.deleted != (0, 0));
            }
            Mark::Added => {
                numbers.added = number;
                self.lacks.stream_counters += u64::from(number != numbers.length);
            }
            Mark::GroupMs => numbers.group.0 = number,
            Mark::GroupSeq => numbers.group.1 = number,
            Mark::Read => {
                let unknown = number == u64::MAX;
                let nothing = number == 0 && numbers.group == (0, 0);
                let everything = number == numbers.added && numbers.group == numbers.last;
                self.lacks.stream_counters += u64::from(!(unknown || nothing || everything));
            }
            Mark::Seen => numbers.seen = number,
            Mark::Active => self.lacks.activity += u64::from(number != numbers.seen),
            Mark::ProducerDuration | Mark::ProducerLimit => {
                self.lacks.producers += u64::from(number != PRODUCER_DEFAULT);
            }
            Mark::ProducerId => self.lacks.producers += 1,
            Mark::ProducerCount => self.lacks.producers += u64::from(number > 0),
            _ => {}
        }
    }
}
