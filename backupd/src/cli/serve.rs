//! `backupd serve`

use clap::{Args as ClapArgs, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::reach::Context;
use crate::error::Result;
use crate::serve::{self, Roles};

/// How the daemon runs.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What this daemon does: serve the API, decide what is due, do it.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "api,scheduler,worker", value_name = "ROLES")]
    roles: Vec<Role>,
    /// The form of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The API, where the configuration says so.
    Api,
    /// Windows, retention, verification.
    Scheduler,
    /// Jobs.
    Worker,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON document a line.
    Json,
}

/// Serves until a signal ends it.
///
/// # Errors
/// As [`serve::serve`].
pub async fn run(args: Args, context: &Context, stop: CancellationToken) -> Result<()> {
    let has = |role| args.roles.contains(&role);
    let roles = Roles { api: has(Role::Api), scheduler: has(Role::Scheduler), worker: has(Role::Worker) };
    Box::pin(serve::serve(context.config.clone(), roles, stop)).await
}
