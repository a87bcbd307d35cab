//! `backupd config …`

use clap::Subcommand;
use serde_json::json;

use super::output::Output;
use crate::config::DEFAULT_TOML;
use crate::error::Result;

/// The configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the defaults with every key explained: a beginning for a file of your own.
    Default,
}

/// Runs a config command.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(command: &Command, output: Output) -> Result<()> {
    match command {
        Command::Default => output.result(&json!({"toml": DEFAULT_TOML}), |_| DEFAULT_TOML.trim_end().to_owned()),
    }
}
