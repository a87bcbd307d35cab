//! What a long job tells whoever watches it. Jobs write, watchers poll; neither waits for the other.

use std::sync::{Arc, Mutex, PoisonError};

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

    /// The phase and the lines as they are now.
    #[must_use]
    pub fn look(&self) -> (String, Vec<Row>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
