//! A PostgreSQL server of its own for a test, on a free port, without a password, gone with the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{self, Running, wait_for};
use super::server::Port;

/// Longest wait for the server to answer, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A server that runs, or is stopped for a while.
#[derive(Debug)]
pub(crate) struct Postgres {
    folder: TempDir,
    port: Port,
    running: Option<Running>,
    databases: AtomicU32,
}

/// Debian's newest version. Panics with the install command when it is missing.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin").join(name)).collect();
    found.sort();
    found.into_iter().rfind(|path| path.is_file()).expect("PostgreSQL is not installed: run tests/setup.sh tests")
}

/// Root may not run it: then the user `postgres` of Debian's package does.
fn as_postgres(mut command: Command, program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").map(|it| std::os::unix::fs::MetadataExt::uid(&it)).unwrap() == 0;
    if is_root {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg("--").arg(program).stdin(Stdio::null()).current_dir("/");
    command
}

impl Postgres {
    /// Makes and starts one.
    pub(crate) fn start() -> Self {
        // below /tmp, since the user `postgres` must reach it
        let folder = tempfile::Builder::new().prefix("backupd-pg-").tempdir_in("/tmp").unwrap();
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), everyone).unwrap();
        let mut init = as_postgres(Command::new("setpriv"), &program("initdb"));
        init.arg("-D").arg(folder.path().join("data"));
        init.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        let made = init.output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = Self { folder, port: Port::reserve(), running: None, databases: AtomicU32::new(0) };
        postgres.resume();
        postgres
    }

    /// Starts it again.
    pub(crate) fn resume(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--pdeathsig", "KILL"]);
        let mut command = as_postgres(setpriv, &program("postgres"));
        command.arg("-D").arg(self.folder.path().join("data"));
        command.arg("-p").arg(self.port.number.to_string()).arg("-k").arg(self.folder.path());
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", "max_connections=60"] {
            command.arg("-c").arg(setting);
        }
        command.arg("-c").arg("shared_buffers=32MB").stdout(log.try_clone().unwrap()).stderr(log);
        self.running = Some(process::spawn(command));
        wait_for("PostgreSQL", START_LIMIT, || self.psql("postgres", "SELECT 1").map(drop));
    }

    /// Ends it at once, as a crash does; `resume` starts it again with its data.
    pub(crate) fn stop(&mut self) {
        drop(self.running.take());
        // the children of the server that was killed end by themselves, and the next start wants them gone
        let lock = self.folder.path().join("data/postmaster.pid");
        let _already_gone = std::fs::remove_file(lock);
    }

    /// Cuts all connections that there are to `database`.
    pub(crate) fn cut(&self, database: &str) {
        let query = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        );
        self.psql("postgres", &query).unwrap();
    }

    /// A new database: its name.
    pub(crate) fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.psql("postgres", &format!("CREATE DATABASE {name}")).unwrap();
        name
    }

    /// The URL of a database, for `[catalog]`.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port.number)
    }

    /// What a query prints, one row a line.
    pub(crate) fn psql(&self, database: &str, query: &str) -> Result<String, String> {
        let mut command = Command::new(program("psql"));
        command.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-c", query]);
        let done = command.arg("-p").arg(self.port.number.to_string()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
}
