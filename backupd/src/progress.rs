//! What a long job tells whoever watches it. Jobs write, watchers poll; neither waits for the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::pipeline::Meter;

/// One line of progress.
#[derive(Debug, Clone)]
pub struct Row {
    /// What moves, such as `shard 0`.
    pub label: String,
    /// How far it is.
    pub meter: Arc<Meter>,
    /// RDB bytes in all, where that is known.
    pub total_bytes: Option<u64>,
}

/// What captures cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// The most that a server's child copied, bytes.
    pub copied_bytes: u64,
    /// How long the source was waited for, by all captures together.
    pub source_waited: Duration,
    /// How long what is behind it was waited for.
    pub store_waited: Duration,
    /// Bytes of RDB that passed.
    pub plain_bytes: u64,
}

/// The progress of one job.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<(String, Vec<Row>)>,
}

impl Progress {
    /// Says what the job does now, in words.
    pub fn phase(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(phase = text);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = text;
    }

    /// Adds a line; the meter is to be moved by the one who does the work.
    pub fn row(&self, label: impl Into<String>, total_bytes: Option<u64>) -> Arc<Meter> {
        let meter = Arc::new(Meter::default());
        let row = Row { label: label.into(), meter: Arc::clone(&meter), total_bytes };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.push(row);
        meter
    }

    /// What all of it cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let add = |cost: Cost, row: Row| {
            let (source, store) = row.meter.waited();
            Cost {
                copied_bytes: cost.copied_bytes.max(row.meter.copied_bytes()),
                source_waited: cost.source_waited.saturating_add(source),
                store_waited: cost.store_waited.saturating_add(store),
                plain_bytes: cost.plain_bytes.saturating_add(row.meter.plain_bytes()),
            }
        };
        self.look().1.into_iter().fold(Cost::default(), add)
    }

    /// The phase and the lines as they are now.
    #[must_use]
    pub fn look(&self) -> (String, Vec<Row>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
