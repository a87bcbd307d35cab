//! `backupd catalog …`

use clap::Subcommand;
use serde_json::json;

use super::output::{Output, table};
use super::reach::Context;
use crate::catalog::Catalog;
use crate::error::{Class, Error, Result};
use crate::repository::Repository;
use crate::snapshot::rebuild::{self, Differences};
use crate::store;

/// The catalog: an index of the repositories of the configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the catalog say what the repositories hold. Nothing in them is changed.
    Rebuild,
    /// Compare the catalog with the repositories; exit code 17 when they differ.
    Check,
}

/// Runs a catalog command on every repository of the configuration.
///
/// # Errors
/// `Config` when there is no repository, `Verification` when a check finds differences, and what stores and catalog say.
pub async fn run(command: Command, context: &Context, output: Output) -> Result<()> {
    let config = context.load()?;
    let is_check = matches!(command, Command::Check);
    let catalog = Catalog::open(&config.catalog).await?;
    let mut found = Vec::new();
    for configured in config.repositories() {
        let opened = Repository::open(store::open(&configured.url).await?).await;
        let differences = match (opened, is_check) {
            (Ok(repository), true) => rebuild::check(&catalog, &repository, &configured.name).await?,
            (Ok(repository), false) => rebuild::rebuild(&catalog, &repository, &configured.name).await?,
            // one that nothing was ever written to
            (Err(error), _) if error.class() == Class::NotFound => {
                tracing::warn!(repository = configured.name, error = %error, "it is left out");
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        found.push(differences);
    }
    catalog.close().await;
    if config.repositories().next().is_none() {
        return Err(Error::new(Class::Config, "the configuration has no repository").hint("see [repositories]"));
    }
    let document = json!({"catalog": config.catalog.to_string(), "rebuilt": !is_check, "repositories": found});
    output.result(&document, |_| text(&found, is_check))?;
    if is_check && found.iter().any(|differences| !differences.is_empty()) {
        return Err(Error::new(Class::Verification, "the catalog does not say what the repositories hold")
            .hint("`backupd catalog rebuild` makes it again"));
    }
    Ok(())
}

fn text(found: &[Differences], is_check: bool) -> String {
    let rows = found.iter().map(|differences| {
        let names = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(" ") };
        vec![
            differences.url.clone(),
            differences.snapshots.to_string(),
            names(&differences.missing),
            names(&differences.stale),
            names(&differences.different),
            names(&differences.clusters),
            names(&differences.grants),
            names(&differences.broken),
        ]
    });
    let (missing, stale, different) =
        if is_check { ("missing", "stale", "different") } else { ("added", "removed", "changed") };
    table(&["repository", "snapshots", missing, stale, different, "said of clusters", "grants", "broken"], rows)
}
