//! The `backupd` program, run as a user runs it.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{self, Running};

/// When a command that should end is taken for hanging.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// How the program is called.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    pub(crate) program: PathBuf,
    envs: Vec<(OsString, OsString)>,
    limit: Duration,
    shows: bool,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The command, for messages.
    pub(crate) command: String,
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// How long it ran.
    pub(crate) took: Duration,
}

impl Cli {
    /// The program of this build, or `$BACKUPD_BIN`.
    ///
    /// Variables that would change what it does (`BACKUPD_CONFIG`, `AWS_…`) are not passed on from this process.
    pub(crate) fn new() -> Self {
        let built = || match option_env!("CARGO_BIN_EXE_backupd") {
            Some(path) => PathBuf::from(path),
            // an example is built into a folder beside the programs
            None => std::env::current_exe().unwrap().with_file_name("../backupd"),
        };
        let program = std::env::var_os("BACKUPD_BIN").map_or_else(built, PathBuf::from);
        assert!(program.is_file(), "{} is missing: cargo build --bin backupd", program.display());
        Self { program, envs: Vec::new(), limit: RUN_LIMIT, shows: false }
    }

    /// The other programs of this build: `rdbtools`.
    pub(crate) fn sibling(name: &str) -> Self {
        let mut cli = Self::new();
        cli.program.set_file_name(name);
        assert!(cli.program.is_file(), "{} is missing: cargo build --workspace", cli.program.display());
        cli
    }

    /// With one more variable.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// With more variables, as [`super::s3::Bucket::envs`] gives them.
    pub(crate) fn envs<'a>(self, envs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        envs.into_iter().fold(self, |cli, (name, value)| cli.env(name, value))
    }

    /// With another limit of time.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Shows standard error as it comes instead of capturing it.
    pub(crate) fn showing_progress(mut self) -> Self {
        self.shows = true;
        self
    }

    /// Starts it without waiting.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, args: &[S]) -> Spawned {
        let mut command = process::command(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_") || name == "BACKUPD_CONFIG") {
                command.env_remove(&name);
            }
        }
        command.args(args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if self.shows { Stdio::inherit() } else { Stdio::piped() });
        let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned()).collect();
        Spawned::new(command, format!("backupd {}", words.join(" ")))
    }

    /// Runs it to its end, whatever that is; panics when it does not end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Outcome {
        self.spawn(args).wait(self.limit)
    }

    /// Runs it, wants success, and gives its standard output as JSON.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, args: &[S]) -> Value {
        self.run(args).ok().json()
    }
}

/// A started program.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Kill it, signal it, or wait with [`Self::wait`].
    pub(crate) running: Running,
    command: String,
    outputs: [JoinHandle<String>; 2],
    started: Instant,
}

impl Spawned {
    fn new(command: Command, text: String) -> Self {
        let started = Instant::now();
        let mut running = process::spawn(command);
        let outputs = [reader(running.child.stdout.take()), reader(running.child.stderr.take())];
        Self { running, command: text, outputs, started }
    }

    /// Waits for the end; panics with what was printed when it does not come within `limit`.
    pub(crate) fn wait(mut self, limit: Duration) -> Outcome {
        let status = self.running.wait_until(self.started + limit);
        let took = self.started.elapsed();
        self.running.kill();
        let [stdout, stderr] = self.outputs.map(|output| output.join().unwrap());
        let Some(status) = status else {
            panic!("{}: still running after {limit:?}\n{stderr}\n{stdout}", self.command)
        };
        Outcome { command: self.command, code: status.code(), stdout, stderr, took }
    }
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe never stops the program.
fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Outcome {
    /// Panics unless it succeeded.
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Panics unless it ended with `code`.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert!(self.code == Some(code), "wanted exit code {code} of\n{self}");
        self
    }

    /// Panics unless its standard error contains `text`.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "wanted `{text}` on standard error of\n{self}");
        self
    }

    /// Its standard output as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}):\n{self}"))
    }

    /// The error document that a command with `-o json` leaves as the last line of standard error.
    pub(crate) fn error_json(&self) -> Value {
        let line = self.stderr.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON error ({error}):\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}\nexit code {:?} after {:?}", self.command, self.code, self.took)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}
