//! Lets the catalog follow a repository, and tells what was found.

use super::reach;
use crate::catalog::{Catalog, Code, NewEvent};
use crate::config::Config;
use crate::error::Result;
use crate::snapshot::follow::{self, Followed};
use crate::snapshot::grants;

/// How many snapshots an event names.
const NAMES_SHOWN: usize = 20;

/// What the repository `name` holds and the catalog does not know, as when the worker that published it could not note it, is added; what
/// vanished is noted, and so are grants. Gives how many snapshots that were.
///
/// # Errors
/// What the catalog or the repository says; what was noted until then is right.
pub async fn follow(catalog: &Catalog, config: &Config, name: &str) -> Result<usize> {
    let Some((repository, _)) = reach::begun(config, name).await? else { return Ok(0) };
    let mut drift = 0_usize;
    for cluster in follow::clusters(catalog, &repository).await? {
        let Followed { found, vanished } = follow::follow(catalog, &repository, &cluster).await?;
        drift = drift.saturating_add(found.len()).saturating_add(vanished.len());
        let told = [
            (found, Code::SnapshotFound, "are in it and were not in the catalog"),
            (
                vanished,
                Code::SnapshotVanished,
                "are not in it any more, and nobody who shares the catalog deleted them",
            ),
        ];
        for (names, code, what) in told.into_iter().filter(|(names, ..)| !names.is_empty()) {
            let message = format!("repository {name}: {} snapshots {what}: {}", names.len(), shown(&names));
            catalog.add_event(&NewEvent::new(code, message).of(&cluster), catalog.now_unix_ms().await?).await?;
        }
    }
    if let Err(error) = grants::follow(catalog, &repository).await {
        tracing::warn!(repository = name, error = %error, "what is granted in it could not be followed");
    }
    Ok(drift)
}

fn shown(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
