//! Where a restore goes: files, a new local cluster, or running nodes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use policies::slot::SlotSet;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::split::{self, Made, unwritable};
use super::{Options, Outcome, Target};
use crate::error::{Class, Error, Result};
use crate::progress::Progress;

/// A node that serves, or a file that was written.
#[derive(Debug, Clone, Serialize)]
pub struct NodeReport {
    /// Its host; empty for a file.
    pub host: String,
    /// Its port; 0 for a file.
    pub port: u16,
    /// `primary` or `replica`.
    pub role: String,
    /// Its slots; `null` without cluster mode.
    pub slots: Option<SlotSet>,
    /// Its keys.
    pub keys: u64,
    /// The file, for `--out`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

pub(super) async fn run(
    options: Options,
    plan: Plan,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    match &options.target {
        Target::Out(dir) => {
            prepare_empty(dir)?;
            progress.phase("splitting");
            let made = split::run(&options, &plan, dir, progress, cancel).await?;
            out(dir, &plan, &made)?;
            let nodes =
                plan.shards.iter().zip(&made).map(|(shard, made)| file_report(shard.slots.clone(), made)).collect();
            Ok(outcome(plan, nodes, &made))
        }
        Target::Launch { .. } | Target::Nodes(_) => Err(Error::new(Class::Unforeseen, "not yet")),
    }
}

fn outcome(plan: Plan, nodes: Vec<NodeReport>, made: &[Made]) -> Outcome {
    let keys = made.iter().map(|made| made.keys).sum();
    let expired = made.iter().map(|made| made.expired).sum();
    Outcome { plan, nodes, keys, expired }
}

fn file_report(slots: Option<SlotSet>, made: &Made) -> NodeReport {
    NodeReport {
        host: String::new(),
        port: 0,
        role: "primary".to_owned(),
        slots,
        keys: made.keys,
        file: Some(made.path.display().to_string()),
    }
}

/// Makes the folder, which must be absent or empty.
///
/// # Errors
/// `Refused` when it holds anything.
pub fn prepare_empty(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))?;
    let mut entries = std::fs::read_dir(dir).map_err(|error| unwritable(dir, &error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::new(Class::Refused, format!("{}: the folder is not empty", dir.display()))
            .hint("a restore never mixes with what is there: give an empty or a new folder")),
    }
}

/// What stands beside the RDB files of `--out`.
fn out(dir: &Path, plan: &Plan, made: &[Made]) -> Result<()> {
    let write = |name: &str, text: String| {
        let path: PathBuf = dir.join(name);
        std::fs::write(&path, text).map_err(|error| unwritable(&path, &error))
    };
    let mut readme = String::from("RDB files made by `backupd restore --out`, one per shard.\n\n");
    for (shard, made) in plan.shards.iter().zip(made) {
        let slots = shard.slots.as_ref().map_or_else(|| "all keys".to_owned(), |slots| format!("slots {slots}"));
        let (file, keys, bytes) = (split::file_name(shard.index), made.keys, made.bytes);
        // writing to a String cannot fail
        let _infallible = writeln!(readme, "{file}: {slots}, {keys} keys, {bytes} bytes");
    }
    write("README.txt", readme)
}
