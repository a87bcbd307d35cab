//! `copies` of a cluster: the repositories that its snapshots are copied into, and how long they stay there.

use policies::retention::Policy;
use serde::Deserialize;
use toml::Spanned;

use super::file::Text;
use crate::error::Result;

/// Copies of a cluster's snapshots in another repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The name of the repository, which exists and is not the cluster's own.
    pub to: String,
    /// Whether manual and final snapshots are copied, too.
    pub manual: bool,
    /// Which automated snapshots are kept there.
    pub retention: Policy,
}

/// One of them as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) to: Spanned<String>,
    #[serde(default)]
    manual: bool,
    retention: Option<Policy>,
}

/// What `copies` of a cluster mean whose own snapshots are kept by `own` in `repository`.
///
/// # Errors
/// `Config`, with the line.
pub(super) fn read(text: Text<'_>, sections: &[Section], repository: &str, own: Policy) -> Result<Vec<Copies>> {
    let mut copies: Vec<Copies> = Vec::new();
    for section in sections {
        let to = section.to.get_ref();
        let wrong = |reason: &str| Err(text.error(section.to.span().start, reason));
        if to == repository {
            return wrong("the snapshots of the cluster go there already: name another repository");
        }
        if copies.iter().any(|other| &other.to == to) {
            return wrong("this repository is named twice");
        }
        let retention = section.retention.unwrap_or(own);
        if retention.is_empty() {
            return wrong("nothing would be kept there: give `retention`");
        }
        copies.push(Copies { to: to.clone(), manual: section.manual, retention });
    }
    Ok(copies)
}
