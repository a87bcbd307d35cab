//! `Event`.

use super::time;
use crate::api::query::xml::Writer;

/// One line of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// To whom it happened.
    pub source: String,
    /// `cache-cluster` or `replication-group`.
    pub source_type: &'static str,
    /// What, in words.
    pub message: String,
    /// When, ms since 1970.
    pub at_ms: u64,
}

impl Event {
    /// Writes its members.
    pub fn write(&self, writer: &mut Writer) {
        writer.text("SourceIdentifier", &self.source);
        writer.text("SourceType", self.source_type);
        writer.text("Message", &self.message);
        writer.text("Date", &time(self.at_ms));
    }
}
