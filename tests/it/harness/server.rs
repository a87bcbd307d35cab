//! One Redis or Valkey server on a free port of 127.0.0.1, in a folder of its own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::nodes::{self, Node};
use super::process::{self, Running};
use policies::slot::SlotSet;

/// Longest wait for a server to answer, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How many ports are tried before giving up.
const START_ATTEMPTS: usize = 5;
/// Ports of servers; each server's cluster bus has its port plus [`BUS_OFFSET`]. Both lie below the ports that the
/// system gives to outgoing connections (from 32768), so none of these can take one away.
const PORTS: std::ops::Range<u16> = 11_000..20_000;
const BUS_OFFSET: u16 = 10_000;

/// Which server program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Debian's redis-server (7.0), or `$BACKUPD_REDIS_SERVER`.
    Redis,
    /// One that `tests/setup.sh tests` unpacks: `redis-8`, `valkey-9`.
    Extra(&'static str),
    /// A program at a path.
    Path(PathBuf),
}

/// Engines that `tests/setup.sh tests` unpacks beside Debian's.
const EXTRAS: [&str; 2] = ["redis-8", "valkey-9"];

/// And one that is older than what most tests rely on.
const OLDEST: &str = "redis-6.2";

/// Those that only the full forms of some tests run on, which `tests/setup.sh engines` unpacks.
const REST: [&str; 5] = ["redis-7.2", "redis-7.4", "redis-8.2", "valkey-8.0", "valkey-8.1"];

impl Engine {
    /// Every engine that the tests run on, less those that set-up has recorded as unavailable, which are named on
    /// standard output.
    pub(crate) fn all() -> Vec<Self> {
        Self::available(std::iter::once(Self::Redis).chain(EXTRAS.map(Self::Extra)))
    }

    /// As [`Self::all`], and Redis 6.2, which has neither functions nor much else of 7.0.
    pub(crate) fn with_oldest() -> Vec<Self> {
        Self::available([Self::Extra(OLDEST), Self::Redis].into_iter().chain(EXTRAS.map(Self::Extra)))
    }

    /// As [`Self::with_oldest`], and every other engine that can be had.
    pub(crate) fn every() -> Vec<Self> {
        let mut every = Self::with_oldest();
        every.extend(Self::available(REST.map(Self::Extra).into_iter()));
        every
    }

    /// Whether it is older than 7.0.
    pub(crate) fn is_oldest(&self) -> bool {
        *self == Self::Extra(OLDEST)
    }

    /// Whether fields of a hash may have a time of their own: since Redis 7.4 and Valkey 9.
    pub(crate) fn has_field_times(&self) -> bool {
        matches!(self, Self::Extra("redis-7.4" | "redis-8" | "redis-8.2" | "valkey-9"))
    }

    fn available(all: impl Iterator<Item = Self>) -> Vec<Self> {
        let (missing, there): (Vec<_>, Vec<_>) = all.partition(Self::is_recorded_as_unavailable);
        missing.iter().for_each(|engine| println!("{engine:?} is recorded as unavailable here: not run"));
        there
    }

    /// The path of the program. Panics with the install command when it is missing.
    pub(crate) fn program(&self) -> PathBuf {
        let found = match self {
            Self::Redis => {
                std::env::var_os("BACKUPD_REDIS_SERVER").map(PathBuf::from).or_else(|| on_path("redis-server"))
            }
            Self::Extra(name) => Some(extra_program(name)),
            Self::Path(path) => Some(path.clone()),
        };
        match found {
            Some(path) if path.is_file() => path,
            _ => panic!("{self:?} is not installed: run tests/setup.sh tests"),
        }
    }

    /// Whether set-up has recorded that this engine cannot be had on this machine: the one case in which a test of
    /// it may say so and return. An engine that is merely missing is a failure.
    pub(crate) fn is_recorded_as_unavailable(&self) -> bool {
        match self {
            Self::Extra(name) => servers_dir().join(format!("not-installed-{name}")).is_file(),
            _ => false,
        }
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

pub(crate) fn servers_dir() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers");
    std::env::var_os("BACKUPD_SERVERS_DIR").map_or_else(default, PathBuf::from)
}

fn extra_program(name: &str) -> PathBuf {
    let program = if name.starts_with("valkey") { "valkey-server" } else { "redis-server" };
    servers_dir().join(name).join("usr/bin").join(program)
}

/// How a server is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    engine: Engine,
    cluster: bool,
    sentinel: bool,
    password: Option<String>,
    /// PEM files: authority, certificate, key.
    tls: Option<[PathBuf; 3]>,
    lines: Vec<String>,
    /// Its system refuses it any child.
    childless: bool,
}

impl Options {
    /// Redis 7.0, standalone, no password, no persistence, diskless replication without delay.
    pub(crate) fn new() -> Self {
        Self {
            engine: Engine::Redis,
            cluster: false,
            sentinel: false,
            password: None,
            tls: None,
            lines: Vec::new(),
            childless: false,
        }
    }

    /// Another program.
    pub(crate) fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Cluster mode (without slots; see [`super::cluster::Cluster`]).
    pub(crate) fn cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    /// A Sentinel: what it watches is said by lines.
    pub(crate) fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// `requirepass` and `masterauth`.
    pub(crate) fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Also listens with TLS, with these PEM files: authority of the clients, certificate, key. Replication and cluster use it.
    pub(crate) fn tls(mut self, files: [PathBuf; 3]) -> Self {
        self.tls = Some(files);
        self
    }

    /// A further line of the configuration file; it wins over the harness's own.
    pub(crate) fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Its system lets it start its threads and no process more, as one without memory does. Of Redis 7.0, and by root: it is another user's.
    pub(crate) fn childless(mut self) -> Self {
        self.childless = true;
        self
    }

    fn command(&self, dir: &Path, port: u16) -> Command {
        let mut command = process::command(if self.childless { "setpriv".into() } else { self.engine.program() });
        if self.childless {
            // the limit counts all threads of a user, so it gets one of its own; the server has five
            let user = 100_000 + u32::from(port);
            std::os::unix::fs::chown(dir, Some(user), Some(user)).unwrap();
            let words = format!("--reuid={user} --regid={user} --clear-groups prlimit --nproc=5");
            command.args(words.split(' ')).arg(self.engine.program());
        }
        command
    }

    fn config(&self, port: u16, tls_port: Option<u16>, dir: &Path) -> String {
        let mut lines = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.display()),
            format!("logfile {}", dir.join("log").display()),
        ];
        if self.sentinel {
            lines.extend(self.lines.iter().cloned());
            return lines.join("\n") + "\n";
        }
        lines.extend([
            "save \"\"".to_owned(),
            "appendonly no".to_owned(),
            "repl-diskless-sync yes".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
        ]);
        if !self.engine.is_oldest() {
            lines.push("enable-debug-command local".to_owned());
        }
        if self.cluster {
            lines.push("cluster-enabled yes".to_owned());
            // a busy machine must not cause failovers
            lines.push("cluster-node-timeout 15000".to_owned());
        }
        if let Some(password) = &self.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("masterauth {password}"));
        }
        if let (Some([authority, certificate, key]), Some(port)) = (&self.tls, tls_port) {
            lines.push(format!("tls-port {port}\ntls-replication yes\ntls-cluster yes"));
            lines.push(format!("tls-ca-cert-file {}", authority.display()));
            lines.push(format!("tls-cert-file {}\ntls-key-file {}", certificate.display(), key.display()));
        }
        lines.extend(self.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}

/// A port nobody else of these tests has: an open, locked file says so as long as the value lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

impl Port {
    /// Every test is a process of its own, so the reservation is a lock on a file.
    pub(crate) fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let dir = std::env::temp_dir().join("backupd-test-ports");
        fs::create_dir_all(&dir).unwrap();
        let count = PORTS.end - PORTS.start;
        let first = u16::try_from(std::process::id() * 37 % u32::from(count)).unwrap();
        for _ in 0..count {
            let number = PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
            let lock = File::create(dir.join(number.to_string())).unwrap();
            let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if lock.try_lock().is_ok() && is_free(number) && is_free(number + BUS_OFFSET) {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port in {PORTS:?}");
    }
}

/// A running server. It is killed and its folder removed when this is dropped; when the test has failed, the end of
/// its log is printed first.
#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    port: Port,
    tls_port: Option<Port>,
    options: Options,
    dir: TempDir,
}

impl Server {
    /// A standalone Redis 7.0.
    pub(crate) fn standalone() -> Self {
        Self::start(&Options::new())
    }

    /// Starts a server and waits until it answers.
    pub(crate) fn start(options: &Options) -> Self {
        let mut complaint = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = Port::reserve();
            let tls_port = options.tls.as_ref().map(|_| Port::reserve());
            let tls_number = tls_port.as_ref().map(|port| port.number);
            let dir = tempfile::Builder::new().prefix("backupd-server-").tempdir().unwrap();
            let running = Self::launch(options, port.number, tls_number, dir.path());
            let mut server = Self { running, port, tls_port, options: options.clone(), dir };
            match server.wait_ready() {
                Ok(()) => return server,
                Err(text) => complaint = text,
            }
        }
        panic!("{:?} did not start: {complaint}", options.engine);
    }

    fn launch(options: &Options, port: u16, tls_port: Option<u16>, dir: &Path) -> Running {
        fs::write(dir.join("server.conf"), options.config(port, tls_port, dir)).unwrap();
        let mut command = options.command(dir, port);
        command.arg(dir.join("server.conf")).args(options.sentinel.then_some("--sentinel")).current_dir(dir);
        let console = File::create(dir.join("console")).unwrap();
        command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        process::spawn_group(command)
    }

    /// Waits for an answer to PING; an error when the process ended before.
    fn wait_ready(&mut self) -> Result<(), String> {
        process::wait_for("server start", START_LIMIT, || {
            if !self.running.is_alive() {
                return Ok(Err(self.log_tail()));
            }
            match nodes::try_connect(&self.url()).and_then(|mut link| redis::cmd("PING").query::<String>(&mut link)) {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// The port with TLS, if it has one.
    pub(crate) fn tls_port(&self) -> Option<u16> {
        self.tls_port.as_ref().map(|port| port.number)
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// `redis://[:password@]127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        let user = self.options.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{user}{}", self.address())
    }

    /// Its folder: configuration, log, RDB and `nodes.conf` files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> redis::Connection {
        nodes::connect(&self.url())
    }

    /// Runs one command given as words: `server.run(&["SET", "a", "1"])`.
    pub(crate) fn run(&self, words: &[&str]) -> redis::Value {
        nodes::command(words).query(&mut self.connect()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// A field of `INFO`.
    pub(crate) fn info(&self, field: &str) -> Option<String> {
        nodes::info(&mut self.connect(), field)
    }

    /// This server as the owner of all slots.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        vec![Node { url: self.url(), slots: SlotSet::full() }]
    }

    /// Makes it a replica of `primary` (not in cluster mode) and waits until it has its data.
    pub(crate) fn replicate(&self, primary: &Self) {
        self.run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
        self.wait_link();
    }

    /// Waits until the link of this replica to its primary is up.
    pub(crate) fn wait_link(&self) {
        process::wait_for("replication", START_LIMIT, || match self.info("master_link_status") {
            Some(status) if status == "up" => Ok(()),
            other => Err(format!("{}: master_link_status is {other:?}", self.address())),
        });
    }

    /// Waits until this replica has read all that `primary` has written so far.
    pub(crate) fn wait_caught_up(&self, primary: &Self) {
        let offset = |server: &Self, field| server.info(field).and_then(|text| text.parse::<u64>().ok());
        let target = offset(primary, "master_repl_offset").unwrap();
        process::wait_for("replication", START_LIMIT, || match offset(self, "slave_repl_offset") {
            Some(reached) if reached >= target => Ok(()),
            other => Err(format!("{}: at {other:?}, wants {target}", self.address())),
        });
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.running.kill();
    }

    /// Stops the process where it stands (`SIGSTOP`); [`Self::resume`] lets it go on.
    pub(crate) fn pause(&self) {
        self.running.signal("STOP");
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        self.running.signal("CONT");
    }

    /// Starts it again on the same port and folder, after [`Self::kill`] or while it runs.
    pub(crate) fn restart(&mut self) {
        self.running.kill();
        self.running = Self::launch(&self.options, self.port(), self.tls_port(), self.dir.path());
        self.wait_ready().unwrap_or_else(|log| panic!("{} did not start again: {log}", self.address()));
    }

    /// Kills it and starts it again, and returns while it may still be loading its data.
    pub(crate) fn restart_loading(&mut self) {
        self.running.kill();
        self.running = Self::launch(&self.options, self.port(), self.tls_port(), self.dir.path());
        process::wait_for("server start", START_LIMIT, || match self.try_info("loading") {
            Some(_) => Ok(()),
            None => Err("it does not answer".to_owned()),
        });
    }

    fn try_info(&self, field: &str) -> Option<String> {
        nodes::info(&mut nodes::try_connect(&self.url()).ok()?, field)
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let all = text("console") + &text("log");
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.address(), self.log_tail());
        }
    }
}
