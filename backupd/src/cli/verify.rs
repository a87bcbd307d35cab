//! `backupd snapshot verify …`

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{Output, bytes};
use super::reach::{Context, RepositoryArgs};
use super::watch::watched;
use crate::error::Result;
use crate::progress::Progress;
use crate::snapshot::verify::{Verdict, examine};

/// What is verified.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Its name.
    name: String,
    /// Do not note the verdict in the repository.
    #[arg(long)]
    no_record: bool,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// Verifies a snapshot.
///
/// # Errors
/// As [`examine`].
pub async fn run(args: VerifyArgs, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    let reached = args.repository.reach(context)?;
    let repository = reached.repository().await?;
    let progress = Arc::new(Progress::default());
    let job = examine(&repository, &args.name, &reached.keys, !args.no_record, &progress, &cancel);
    let Verdict { manifest, recorded_at } = watched(&progress, output, job).await?;
    let document = json!({
        "name": manifest.name, "cluster": manifest.cluster, "status": "available", "verified": true,
        "shards": manifest.shards.len(), "keys": manifest.keys(),
        "plain_bytes": manifest.plain_bytes(), "stored_bytes": manifest.stored_bytes(),
        "recorded_at": recorded_at,
    });
    output.result(&document, |_| {
        format!(
            "snapshot {} is whole: {} shards, {} keys, {} of RDB in {} read and checked",
            manifest.name,
            manifest.shards.len(),
            manifest.keys(),
            bytes(manifest.plain_bytes()),
            bytes(manifest.stored_bytes())
        )
    })
}
