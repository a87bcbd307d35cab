//! Real servers for the tests of `backupd::redis` and `backupd::launch`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backupd::redis::{SourceOptions, SourceUrl};

/// How long a server may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One `redis-server`, ended when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server with these settings and waits until it answers.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(dir.path());
        command.args(["--logfile", "log", "--repl-diskless-sync-delay", "0", "--repl-diskless-load", "disabled"]);
        command.args(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("redis-server is needed: apt-get install redis-server redis-tools");
        let server = Self { child, port, dir };
        wait_until("the server answers", || {
            server.cli(&["PING"]).is_some_and(|reply| reply.contains("PONG") || reply.contains("NOAUTH"))
        });
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The output of `redis-cli`, or `None` when it failed.
    pub(crate) fn cli(&self, words: &[&str]) -> Option<String> {
        cli(self.port, words)
    }

    /// The same, for commands that must succeed.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let reply = self.cli(words).unwrap_or_else(|| panic!("{words:?} failed"));
        assert!(!reply.starts_with("ERR"), "{words:?}: {reply}");
        reply
    }

    /// Makes it a replica of `primary` and waits for the link.
    pub(crate) fn follow(&self, primary: &Self) {
        self.run(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        wait_until("the link is up", || self.run(&["INFO", "replication"]).contains("master_link_status:up"));
    }

    /// `count` strings of about 100 bytes that do not compress well.
    pub(crate) fn fill(&self, count: u64) {
        let script = "for i = 1, ARGV[1] do local v = {} for j = 1, 5 do v[j] = redis.sha1hex(i * 5 + j):sub(1, 20) end \
                      redis.call('SET', 'key:' .. i, table.concat(v)) end";
        self.run(&["EVAL", script, "0", &count.to_string()]);
    }

    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn cli(port: u16, words: &[&str]) -> Option<String> {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .stderr(Stdio::null())
        .output()
        .expect("redis-cli is needed: apt-get install redis-tools");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// A port nobody listens on at this moment, below the range that the kernel gives to connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 8000).unwrap();
    loop {
        let step = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 11_000 + (start + step) % 8000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Options for these sources, with short deadlines.
pub(crate) fn options(urls: &[&str]) -> SourceOptions {
    let seeds: Vec<SourceUrl> = urls.iter().map(|url| url.parse().unwrap()).collect();
    SourceOptions { connect_timeout: Duration::from_secs(3), ..SourceOptions::new(seeds) }
}

/// `count` primaries with equal shares of the slots, joined into one cluster.
pub(crate) fn cluster(count: usize) -> Vec<Server> {
    let servers: Vec<Server> =
        (0..count).map(|_| Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "3000"])).collect();
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    let mut words = vec!["--cluster", "create"];
    words.extend(addresses.iter().map(String::as_str));
    words.push("--cluster-yes");
    let output = Command::new("redis-cli").args(&words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    wait_until("the cluster is ok", || {
        servers.iter().all(|server| server.run(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
    servers
}

/// An RDB file of the server's data, in `dir`.
pub(crate) fn save_rdb(server: &Server, dir: &Path, name: &str) -> PathBuf {
    server.run(&["SAVE"]);
    let path = dir.join(name);
    std::fs::copy(server.dir.path().join("dump.rdb"), &path).unwrap();
    path
}
