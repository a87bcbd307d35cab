//! `[capture]`: what captures may cost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::budget::Budget;
use policies::waves::Limits;
use toml::Spanned;

use super::file::{self, Text};
use crate::error::Result;
use crate::quantity;

/// `[capture]`
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// Where frames wait that the store does not take.
    pub spill_folder: PathBuf,
    /// How much may wait there, bytes; 0: nothing.
    pub spill_bytes_max: u64,
    /// How long the store may take nothing once that is full.
    pub spill_wait: Duration,
    /// What one capture may cost its server.
    pub budget: Budget,
    /// How many captures may run at the same time.
    pub limits: Limits,
    /// Bytes a second that are read from sources.
    pub source_rate_max: Option<u64>,
    /// Bytes a second that are written to stores.
    pub store_rate_max: Option<u64>,
}

impl Capture {
    /// The same, with what `section` of the file says. 0 takes a limit away.
    pub(super) fn with(self, text: Text<'_>, folder: &Path, section: &file::Capture) -> Result<Self> {
        let size = |it: &Option<Spanned<String>>| read(text, it.as_ref(), quantity::bytes);
        let time = |it: &Option<Spanned<String>>| read(text, it.as_ref(), quantity::duration);
        let limit = |said: Option<u64>, before: Option<u64>| said.or(before).filter(|limit| *limit > 0);
        let count = |said: Option<usize>, before: Option<usize>| said.or(before).filter(|limit| *limit > 0);
        let (budget, limits) = (self.budget, self.limits);
        Ok(Self {
            spill_folder: section.spill_dir.as_ref().map_or(self.spill_folder, |path| folder.join(path)),
            spill_bytes_max: size(&section.spill_max)?.unwrap_or(self.spill_bytes_max),
            spill_wait: time(&section.spill_wait)?.unwrap_or(self.spill_wait),
            budget: Budget {
                copied_bytes_max: limit(size(&section.copied_max)?, budget.copied_bytes_max),
                memory_bytes_max: limit(size(&section.memory_max)?, budget.memory_bytes_max),
                memory_percent_max: limit(section.memory_percent_max, budget.memory_percent_max),
                // none at all is a limit that makes sense
                evictions_max: section.evictions_max.or(budget.evictions_max),
                seconds_max: limit(time(&section.time_max)?.map(|time| time.as_secs()), budget.seconds_max),
            },
            limits: Limits {
                per_host_max: count(section.per_host_max, limits.per_host_max),
                per_cluster_max: count(section.per_cluster_max, limits.per_cluster_max),
            },
            source_rate_max: limit(size(&section.source_rate_max)?, self.source_rate_max),
            store_rate_max: limit(size(&section.store_rate_max)?, self.store_rate_max),
        })
    }
}

fn read<T>(
    text: Text<'_>,
    written: Option<&Spanned<String>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>> {
    let read = |written: &Spanned<String>| {
        parse(written.get_ref())
            .map_err(|why| text.error(written.span().start, &format!("`{}`: {why}", written.get_ref())))
    };
    written.map(read).transpose()
}
