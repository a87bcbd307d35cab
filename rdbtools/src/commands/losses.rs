//! What no command makes again.

/// What was left out, and how often.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) modules: u64,
    pub(super) module_data: u64,
    pub(super) metadata: u64,
    pub(super) attributes: u64,
    pub(super) idempotence: u64,
    pub(super) pending: u64,
    pub(super) pending_unknown: u64,
    pub(super) nacked: u64,
}

impl Losses {
    /// A line for each kind that occurred.
    pub(super) fn told(&self) -> Vec<String> {
        let losses = [
            (self.modules, "keys of modules were left out"),
            (self.module_data, "records of modules that belong to no key were left out"),
            (self.metadata, "keys were written without what modules noted of them"),
            (self.attributes, "keys were written without their idle time or access frequency"),
            (self.pending, "pending entries were left out because the entry itself is gone"),
            (
                self.pending_unknown,
                "pending entries belong to streams too long to know whether the entry is still there: a server leaves \
                 out those whose entry is gone",
            ),
            (self.nacked, "pending entries that consumers gave back were left out"),
            (self.idempotence, "streams were written without their ids of idempotent production"),
        ];
        let losses = losses.into_iter().filter(|(count, _)| *count > 0);
        losses.map(|(count, what)| format!("{count} {what}")).collect()
    }
}
