//! `backupd snapshot copy …`

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::keys::ToKeyArgs;
use super::note::noted;
use super::output::{Output, bytes};
use super::reach::{Context, Reached, RepositoryArgs};
use super::watch::watched;
use crate::catalog::Catalog;
use crate::error::{Class, Error, Result};
use crate::progress::Progress;
use crate::repository::{Keys, Repository};
use crate::service::view::SnapshotView;
use crate::snapshot::copy::{self, Copied, Moved, Options, Transfer};
use crate::snapshot::record;
use crate::snapshot::verify::{Examination, examine};
use crate::store::COPY_BYTES_MAX;

/// What is copied, and where to.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The name of the snapshot.
    snapshot: String,
    /// The repository to copy into: its name in the configuration, a URL as for --repository, or the path of a folder. It is made
    /// when there is none.
    #[arg(long, value_name = "REPOSITORY")]
    to: String,
    /// The name of the copy [default: that of the snapshot].
    #[arg(long = "name", value_name = "NAME")]
    new_name: Option<String>,
    #[command(flatten)]
    to_keys: ToKeyArgs,
    /// The destination is without encryption; only a snapshot that is not encrypted can go there.
    #[arg(long, conflicts_with_all = ["to_key_file", "to_kms_key"])]
    to_no_encryption: bool,
    /// Who moves the bytes: the provider's server where one credential sees both sides, or this program.
    #[arg(long, value_enum, default_value_t = Transfer::Auto)]
    transfer: Transfer,
    /// The largest object that one request copies within a provider; larger ones go in parts.
    #[arg(long, value_name = "BYTES", default_value_t = COPY_BYTES_MAX, hide = true)]
    copy_object_max: u64,
    /// Read the whole copy afterwards, as `snapshot verify` does.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct View {
    #[serde(flatten)]
    snapshot: SnapshotView,
    from: String,
    to: String,
    #[serde(flatten)]
    moved: Moved,
    verified: bool,
}

/// Copies a snapshot.
///
/// # Errors
/// As [`copy::copy`]; see [`Class`].
pub async fn run(args: CopyArgs, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    let from = args.repository.reach(context)?;
    let target_args = RepositoryArgs::named(target(&args.to)?, args.to_keys.into(), args.to_no_encryption);
    let mut to = target_args.reach(context)?;
    if matches!(to.keys, Keys::Unsaid) {
        to.keys = from.keys.clone();
    }
    let (source, store) = tokio::try_join!(from.repository(), to.store())?;
    let options = Options {
        new_name: args.new_name.unwrap_or_else(|| args.snapshot.clone()),
        name: args.snapshot,
        keys: from.keys,
        to_keys: to.keys.clone(),
        source_kind: "manual".to_owned(),
        transfer: args.transfer,
        single_bytes_max: args.copy_object_max,
    };
    let progress = Arc::new(Progress::default());
    let job = copy::copy(&source, Arc::clone(&store), options, &progress, &cancel);
    let copied = watched(&progress, output, Box::pin(job)).await?;
    let note = async |catalog: &Catalog| record::record_copy(catalog, store, &copied.manifest).await;
    noted(to.catalog.as_ref(), "the copy", note).await;
    if args.verify {
        verified(&to, &copied, &progress, output, &cancel).await?;
    }
    let view = View {
        snapshot: SnapshotView::from(&copied.manifest),
        from: copied.from,
        to: copied.to,
        moved: copied.moved,
        verified: args.verify,
    };
    output.result(&view, text)
}

async fn verified(
    to: &Reached,
    copied: &Copied,
    progress: &Arc<Progress>,
    output: Output,
    cancel: &CancellationToken,
) -> Result<()> {
    let repository: Repository = to.repository().await?;
    let (name, look) = (&copied.manifest.name, Examination::default());
    let job = examine(&repository, name, &to.keys, &look, progress, cancel);
    let done = watched(progress, output, Box::pin(job)).await;
    done.map(drop).map_err(|error| error.at("the copy is there, and was not verified"))
}

/// A folder may be named by its path.
fn target(text: &str) -> Result<String> {
    if text.contains("://") || !text.contains('/') {
        return Ok(text.to_owned());
    }
    let absolute = std::path::absolute(Path::new(text)).map_err(|error| {
        Error::new(Class::Usage, format!("{text}: it is neither a repository nor a folder: {error}"))
    })?;
    Ok(crate::store::RepositoryUrl::Folder(absolute).to_string())
}

fn text(view: &View) -> String {
    let Moved { streamed_bytes, server_bytes, reused_bytes } = view.moved;
    let ways = [(streamed_bytes, "through here"), (server_bytes, "by the server"), (reused_bytes, "there already")];
    let ways: Vec<String> =
        ways.iter().filter(|(count, _)| *count > 0).map(|(count, way)| format!("{} {way}", bytes(*count))).collect();
    let verified = if view.verified { "; read again and whole" } else { "" };
    let ways = if ways.is_empty() { "nothing was left to copy".to_owned() } else { ways.join(", ") };
    format!("{}\n\ncopied to {}: {ways}{verified}", view.snapshot.text(), view.to)
}
