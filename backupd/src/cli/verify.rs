//! `backupd snapshot verify …`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::note::noted;
use super::output::{Output, bytes};
use super::reach::{Context, RepositoryArgs};
use super::watch::watched;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::progress::Progress;
use crate::snapshot::verify::{Examination, Verdict, examine, is_verdict};
use crate::snapshot::{boot, record};

/// What is verified.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Its name.
    name: String,
    /// Also load every shard into a real server, and compare what it holds with the file, key by key.
    #[arg(long)]
    boot: bool,
    /// The server program [default: redis-server or valkey-server, as the snapshot's engine].
    #[arg(long, value_name = "PATH", requires = "boot")]
    engine: Option<PathBuf>,
    /// Where the shards' RDB files are put for it, in the clear; twice the largest shard must fit [default: $TMPDIR].
    #[arg(long, value_name = "DIR", requires = "boot")]
    scratch: Option<PathBuf>,
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
    let boot = args.boot.then_some(boot::Options { engine: args.engine, scratch: args.scratch });
    let examination = Examination { boot, record: !args.no_record };
    let job = examine(&repository, &args.name, &reached.keys, &examination, &progress, &cancel);
    let examined = watched(&progress, output, Box::pin(job)).await;
    if !args.no_record && is_verdict(&examined) {
        let note = async |catalog: &Catalog| record::verdict(catalog, &repository, &args.name).await.map(drop);
        noted(reached.catalog.as_ref(), "the verdict", note).await;
    }
    let Verdict { manifest, booted, recorded_at } = examined?;
    let document = json!({
        "name": manifest.name, "cluster": manifest.cluster, "status": "available", "verified": true,
        "shards": manifest.shards.len(), "keys": manifest.keys(),
        "plain_bytes": manifest.plain_bytes(), "stored_bytes": manifest.stored_bytes(),
        "recorded_at": recorded_at, "booted": booted,
    });
    let loaded = booted.map(|booted| format!("; {} loaded every shard and holds the same", booted.engine));
    output.result(&document, |_| {
        format!(
            "snapshot {} is whole: {} shards, {} keys, {} of RDB in {} read and checked{}",
            manifest.name,
            manifest.shards.len(),
            manifest.keys(),
            bytes(manifest.plain_bytes()),
            bytes(manifest.stored_bytes()),
            loaded.unwrap_or_default()
        )
    })
}
