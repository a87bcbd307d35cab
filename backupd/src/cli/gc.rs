//! `backupd gc …`

use std::time::Duration;

use clap::Subcommand;

use super::output::{Output, bytes, table};
use super::reach::{Context, RepositoryArgs};
use crate::error::Result;
use crate::repository::Repository;
use crate::repository::gc::{GUARD, Plan};

/// Garbage: what no manifest names, claims and leases that ran out, uploads that were never finished.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what would be removed, what is kept and why, and what is not ours.
    Plan(Args),
    /// Remove it.
    Apply(Args),
}

/// Where, and how old.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only what is at least this old, such as `36h` or `7d`; jobs that are alive are safe at any age [default: 24h].
    #[arg(long, value_name = "AGE", value_parser = crate::quantity::duration)]
    older_than: Option<Duration>,
}

/// Runs a gc command.
///
/// # Errors
/// What the store says, `Verification` for a young claim that cannot be read, `Config` when clocks disagree.
pub async fn run(command: Command, context: &Context, output: Output) -> Result<()> {
    let (args, apply) = match command {
        Command::Plan(args) => (args, false),
        Command::Apply(args) => (args, true),
    };
    let repository = Repository::open(args.repository.reach(context)?.store().await?).await?;
    let guard = args.older_than.unwrap_or(GUARD);
    let plan = if apply { repository.apply_gc(guard).await? } else { repository.plan_gc(guard).await? };
    output.result(&plan, text)
}

fn text(plan: &Plan) -> String {
    let hours = |seconds: u64| format!("{}.{} h", seconds / 3600, seconds % 3600 / 360);
    let removes = plan.removes.iter().map(|garbage| {
        vec![garbage.key.clone(), bytes(garbage.size_bytes), hours(garbage.age_s), garbage.reason.to_owned()]
    });
    let keeps = plan.keeps.iter().map(|kept| vec![kept.key.clone(), kept.reason.to_owned()]);
    let mut text = String::new();
    if !plan.removes.is_empty() {
        text += &table(&["garbage", "size", "age", ""], removes);
        text += "\n\n";
    }
    if !plan.keeps.is_empty() {
        text += &table(&["kept", ""], keeps);
        text += "\n\n";
    }
    if !plan.unknown.is_empty() {
        text += &table(&["not ours, left alone"], plan.unknown.iter().map(|key| vec![key.clone()]));
        text += "\n\n";
    }
    let done = if plan.applied { "removed" } else { "to remove" };
    text + &format!("{} objects and uploads {done}, {} of objects", plan.removes.len(), bytes(plan.bytes))
}
