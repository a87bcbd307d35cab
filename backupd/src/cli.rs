//! The command line: what may be typed, and which function answers it. Exit codes are those of
//! [`crate::error::Class`]; `-o json` prints one document on standard output and errors as JSON on standard error.

pub mod catalog;
pub mod check;
pub mod cluster;
pub mod config;
pub mod copy;
pub mod event;
pub mod export;
pub mod gc;
pub mod grant;
pub mod job;
pub mod key;
pub mod keys;
pub mod ledger;
mod note;
pub mod output;
pub mod reach;
pub mod restore;
pub mod retention;
pub mod serve;
pub mod snapshot;
pub mod verify;
mod view;
pub mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use output::Output;

/// Snapshots of Redis and Valkey: captured from a replica, encrypted, verified, restorable into any number of shards.
#[derive(Debug, Parser)]
#[command(name = "backupd", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file [default: $BACKUPD_CONFIG, ./backupd.toml, /etc/backupd/backupd.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// More of what happens on standard error: -v steps, -vv details.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// Threads for work that blocks. Each shard of a capture holds two for its whole duration (scanner, local
/// writer) and needs one more from time to time, so this must stay above twice `policies::shards::SHARDS_MAX`.
const BLOCKING_THREADS_MAX: usize = 4096;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: backups in their windows, retention, verification.
    Serve(serve::Args),
    /// Make, list, show, verify, keep and delete snapshots.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Restore a snapshot, or RDB files of other tools, into a new cluster.
    Restore(Box<restore::Args>),
    /// Say whether a backup would work now, and name what is missing; one line and an exit code for monitoring.
    Check(Box<check::Args>),
    /// Make, list, rotate and remove master keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Say which automated snapshots are kept and why, mark the others, and remove them after a grace period.
    #[command(subcommand)]
    Retention(retention::Command),
    /// Let other accounts read snapshots, see who may, and take it back.
    #[command(subcommand)]
    Grant(grant::Command),
    /// Find and remove what no snapshot needs.
    #[command(subcommand)]
    Gc(gc::Command),
    /// Compare the catalog with the repositories, or make it again from them.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// List, show, remove clusters, and take them up again.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// List, show and cancel jobs of the daemon.
    #[command(subcommand)]
    Job(job::Command),
    /// What happened, and who did what.
    #[command(subcommand)]
    Event(event::Command),
    /// The configuration.
    #[command(subcommand)]
    Config(config::Command),
}

/// Parses, runs, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.output);
    init_logs(&cli);
    keep_memory_private();
    match run(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.class().exit_code())
        }
    }
}

/// A command line that does not parse: help and version are no errors; with `-o json` the rest is JSON too.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args().any(|arg| arg == "-ojson" || arg == "--output=json")
        || std::env::args()
            .zip(std::env::args().skip(1))
            .any(|(flag, value)| matches!(flag.as_str(), "-o" | "--output") && value == "json");
    if error.use_stderr() && wants_json {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let error = Error::new(Class::Usage, first).hint("`backupd help` lists commands and flags");
        Output::new(Format::Json).error(&error);
        return ExitCode::from(Class::Usage.exit_code());
    }
    Output::new(Format::Table).clap(error);
    if error.use_stderr() { ExitCode::from(Class::Usage.exit_code()) } else { ExitCode::SUCCESS }
}

fn init_logs(cli: &Cli) {
    let serve = if let Command::Serve(args) = &cli.command { Some(args.log_format) } else { None };
    let default = match (cli.verbose, serve) {
        (0, None) => "warn",
        (0, Some(_)) | (1, _) => "backupd=info,warn",
        _ => "backupd=debug,info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("BACKUPD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // a second subscriber can exist only in tests, which then keep theirs
    let _already_set = match serve {
        Some(serve::LogFormat::Json) => logs.json().try_init(),
        _ => logs.try_init(),
    };
}

/// Keys are in memory, so no core dump is written, and no other process of the user may look into this one. Programs that are
/// started from here are not concerned.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(error = %error, "a crash of this program could leave keys in a core dump");
    }
}

fn run(cli: Cli, output: Output) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|error| Error::new(Class::Unforeseen, format!("threads cannot be started: {error}")))?;
    let cancel = CancellationToken::new();
    runtime.block_on(async {
        tokio::spawn(cancel_on_signal(cancel.clone()));
        let reach = reach::Context { config: cli.config };
        match cli.command {
            Command::Snapshot(command) => Box::pin(snapshot::run(command, &reach, output, cancel)).await,
            Command::Restore(args) => Box::pin(restore::run(*args, &reach, output, cancel)).await,
            Command::Key(command) => Box::pin(key::run(command, &reach, output)).await,
            Command::Serve(args) => Box::pin(serve::run(args, &reach, cancel)).await,
            Command::Cluster(command) => Box::pin(cluster::run(command, &reach, output, cancel)).await,
            Command::Job(command) => Box::pin(job::run(command, &reach, output)).await,
            Command::Event(command) => Box::pin(event::run(command, &reach, output)).await,
            Command::Config(command) => config::run(&command, output),
            Command::Catalog(command) => Box::pin(catalog::run(command, &reach, output)).await,
            Command::Retention(command) => Box::pin(retention::run(command, &reach, output)).await,
            Command::Grant(command) => Box::pin(grant::run(command, &reach, output)).await,
            Command::Gc(command) => Box::pin(gc::run(command, &reach, output)).await,
            Command::Check(args) => Box::pin(check::run(*args, &reach, output)).await,
        }
    })
}

/// The first interrupt or termination lets running work clean up; the second ends the process at once.
async fn cancel_on_signal(cancel: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be handled: an interrupt ends the program without cleaning up");
        return;
    };
    for _ in 0..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if cancel.is_cancelled() {
            Output::exit_now();
        }
        cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
