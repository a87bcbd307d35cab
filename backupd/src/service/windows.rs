//! When automated backups will start.

use policies::window::Window;
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use crate::catalog::time_text;
use crate::error::{Class, Error, Result};

/// The most occurrences of one answer.
pub const COUNT_MAX: usize = 100;

/// What comes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    /// The cluster.
    pub cluster: String,
    /// The window; `null` when automated backups are off.
    pub window: Option<String>,
    /// Whether it was chosen for the cluster.
    pub chosen: bool,
    /// What comes next, in order.
    pub occurrences: Vec<Coming>,
}

/// One occurrence.
#[derive(Debug, Serialize, ToSchema)]
pub struct Coming {
    /// When the window opens, RFC 3339.
    pub opens_at: String,
    /// When it closes.
    pub closes_at: String,
    /// When the backup starts in it, if nothing holds it up.
    pub starts_at: String,
}

impl Services {
    /// What comes of the window of a cluster, or of another one that it could have.
    ///
    /// # Errors
    /// `NotFound`; `Usage` for a window that is none.
    pub async fn windows(&self, cluster: &str, other: Option<&str>, count: usize) -> Result<Preview> {
        let config = self.config();
        let section = config.cluster(cluster)?;
        let window = match other {
            Some(text) => {
                let wrong = |error: policies::window::WindowError| Error::new(Class::Usage, error.to_string());
                Some((text.parse::<Window>().map_err(wrong)?, false))
            }
            None => section.automation.window_of(cluster),
        };
        let mut preview = Preview { cluster: cluster.to_owned(), window: None, chosen: false, occurrences: Vec::new() };
        let Some((window, chosen)) = window else { return Ok(preview) };
        (preview.window, preview.chosen) = (Some(window.to_string()), chosen);
        let mut from_ms = self.catalog.now_unix_ms().await?;
        while preview.occurrences.len() < count.min(COUNT_MAX) {
            let Some(next) = window.at_or_after(from_ms) else { break };
            preview.occurrences.push(Coming {
                opens_at: time_text(next.start_ms),
                closes_at: time_text(next.end_ms),
                starts_at: time_text(next.start_for(cluster)),
            });
            from_ms = next.start_ms.saturating_add(1);
        }
        Ok(preview)
    }
}
