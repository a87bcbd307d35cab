//! The engine that is to run: which it is, and whether it can load the files.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use policies::engine::{Engine, RdbFormat};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::{Class, Error, Result};

/// How long an engine may take to tell its version.
const VERSION_WAIT: Duration = Duration::from_secs(20);

/// The server program of an engine where none is named: it is looked for on the path.
#[must_use]
pub fn default_program(is_valkey: bool) -> PathBuf {
    PathBuf::from(if is_valkey { "valkey-server" } else { "redis-server" })
}

/// Runs `ENGINE --version`.
///
/// # Errors
/// `Config` when it cannot be run, or does not answer as a Redis or Valkey server does.
pub async fn probe_engine(path: &Path) -> Result<Engine> {
    let shown = path.display();
    let config = |what: String| {
        Error::new(Class::Config, format!("engine {shown}: {what}"))
            .hint("install one (apt-get install redis-server, or valkey-server), or name another with --engine PATH")
    };
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(VERSION_WAIT, command.output());
    let output = output.await.map_err(|_| config("it does not tell its version in time".to_owned()))?;
    let output = output.map_err(|error| config(format!("cannot be run: {error}")))?;
    // `Redis server v=7.0.15 sha=…`, `Valkey server v=8.1.1 sha=…`
    let text = String::from_utf8_lossy(&output.stdout);
    let name = text.split(" server v=").next().filter(|name| !name.is_empty() && name.len() < 40);
    let version = text.split(" server v=").nth(1).and_then(|rest| rest.split_ascii_whitespace().next());
    name.zip(version)
        .and_then(|(name, version)| Engine::new(name, version))
        .ok_or_else(|| config("its --version is not that of a Redis or Valkey server".to_owned()))
}

/// The format of the RDB file at `path`.
///
/// # Errors
/// `Verification` when it is not an RDB, `NotFound` when it cannot be read.
pub async fn rdb_format(path: &Path) -> Result<RdbFormat> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| Error::new(Class::NotFound, format!("{shown}: {error}"));
    let mut header = [0; 9];
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    match file.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => header = [0; 9],
        Err(error) => return Err(unreadable(error)),
    }
    RdbFormat::from_header(header)
        .ok_or_else(|| Error::new(Class::Verification, format!("{shown}: not an RDB file, byte offset 0")))
}

/// Checks that `engine` loads files of `format`.
///
/// # Errors
/// `Version`, naming both.
pub fn check_format(engine: &Engine, format: RdbFormat) -> Result<()> {
    if engine.loads(format) {
        return Ok(());
    }
    Err(Error::new(Class::Version, format!("{engine} cannot load {format}"))
        .hint("give an engine at least as new as the source's with --engine PATH"))
}
