//! Automated backups of a cluster: when, how long its snapshots are kept, how often they are verified.

use policies::retention::{LIMIT_DAYS_MAX, Policy};
use policies::window::Window;
use policies::window::decide::Missed;

use super::file::{Cluster, Text};
use crate::error::{Error, Result};

/// `snapshot_retention_limit` where neither it nor `retention` is given, days.
pub const LIMIT_DAYS: u32 = 7;

const DAY_MS: u64 = 86_400_000;

/// The automated backups of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Automation {
    /// Whether there are any: `snapshot_retention_limit = 0` switches them off.
    pub on: bool,
    /// When they start; `None`: one is chosen, see [`Window::chosen_for`].
    pub window: Option<Window>,
    /// What becomes of a window in which none could start.
    pub missed: Missed,
    /// Which automated snapshots are kept.
    pub policy: Policy,
    /// How often the newest snapshot is verified.
    pub verify: Option<Verify>,
}

/// Verification by schedule: `boot weekly`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// A server is started with the snapshot; otherwise it is only read.
    pub boot: bool,
    /// How long after a verification the next is due, ms: a day, 7 or 30.
    pub every_ms: u64,
}

impl Automation {
    /// What a section of the file says of it.
    ///
    /// # Errors
    /// `Config`, with the line.
    pub(super) fn checked(text: Text<'_>, section: &Cluster) -> Result<Self> {
        let window = section.window.as_ref().map(|window| {
            let at = |error: policies::window::WindowError| text.error(window.span().start, &error.to_string());
            window.get_ref().parse::<Window>().map_err(at)
        });
        let limit = section.snapshot_retention_limit.as_ref();
        if let Some(days) = limit.filter(|days| *days.get_ref() > LIMIT_DAYS_MAX) {
            let reason = format!(
                "snapshot_retention_limit is {} days and can be at most {LIMIT_DAYS_MAX}; `retention` keeps for longer",
                days.get_ref()
            );
            return Err(text.error(days.span().start, &reason));
        }
        let limit_days = match (limit, section.retention) {
            (Some(days), _) => *days.get_ref(),
            (None, Some(_)) => 0,
            (None, None) => LIMIT_DAYS,
        };
        let policy = Policy { limit_days, ..section.retention.unwrap_or_default() };
        let verify = section.verify.as_ref().map(|verify| {
            let wrong = |reason: String| -> Error { text.error(verify.span().start, &reason) };
            Verify::parse(verify.get_ref()).map_err(wrong)
        });
        Ok(Self {
            on: limit.is_none_or(|days| *days.get_ref() > 0) && !policy.is_empty(),
            window: window.transpose()?,
            missed: section.missed,
            policy,
            verify: verify.transpose()?,
        })
    }
}

impl Automation {
    /// The window that holds for `cluster`, and whether it was chosen; none when automated backups are off.
    #[must_use]
    pub fn window_of(&self, cluster: &str) -> Option<(Window, bool)> {
        let chosen = || (Window::chosen_for(cluster), true);
        self.on.then(|| self.window.clone().map_or_else(chosen, |window| (window, false)))
    }
}

impl Verify {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no schedule of verification: write `read` or `boot`, then `daily`, `weekly` or `monthly`"
            )
        };
        let (how, often) = text.split_once(' ').ok_or_else(wrong)?;
        let boot = match how {
            "boot" => true,
            "read" => false,
            _ => return Err(wrong()),
        };
        let days = match often {
            "daily" => 1,
            "weekly" => 7,
            "monthly" => 30,
            _ => return Err(wrong()),
        };
        Ok(Self { boot, every_ms: days * DAY_MS })
    }
}
