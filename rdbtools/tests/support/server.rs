//! A real server in a folder of its own, and the few words of its protocol that the tests speak.

#![allow(dead_code, reason = "some tests start Debian's server, others name the program")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to load its file and answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    stream: BufReader<TcpStream>,
}

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    Error(String),
    Int(i64),
    Bytes(Vec<u8>),
    Nil,
    List(Vec<Reply>),
}

impl Reply {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
            other => panic!("{other:?} is not a string"),
        }
    }

    pub(crate) fn list(&self) -> &[Reply] {
        match self {
            Self::List(list) => list,
            other => panic!("{other:?} is not a list"),
        }
    }
}

/// Which server, and how it runs.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    program: PathBuf,
    cluster: bool,
}

impl Engine {
    /// The `redis-server` of the system.
    pub(crate) fn system() -> Self {
        Self { program: PathBuf::from("redis-server"), cluster: false }
    }

    /// One of the servers that `tests/setup.sh` unpacks, as `redis-8`, in cluster mode. `None` where set-up has
    /// recorded that it cannot be had on this machine; one that is merely missing fails.
    pub(crate) fn cluster(name: &str) -> Option<Self> {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers");
        let dir = std::env::var_os("BACKUPD_SERVERS_DIR").map_or_else(default, PathBuf::from);
        let program = dir.join(name).join("usr/bin").join(name.split('-').next().unwrap().to_owned() + "-server");
        if !program.is_file() && dir.join(format!("not-installed-{name}")).is_file() {
            return None;
        }
        assert!(program.is_file(), "{} is missing: run tests/setup.sh tests", program.display());
        Some(Self { program, cluster: true })
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts Debian's `redis-server`, whose folder is `dir` and that loads `dir/dump.rdb` if there is one.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_engine(&Engine::system(), dir)
    }

    /// Starts a server of an engine. One in cluster mode takes the slots of the keys that it loads.
    pub(crate) fn start_engine(engine: &Engine, dir: &Path) -> Self {
        let bus = free_port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-require-full-coverage", "no"];
        let alone = ["--enable-debug-command", "yes"];
        Self::start_program(&engine.program, if engine.cluster { &cluster } else { &alone }, dir)
    }

    /// Starts another program, with more arguments.
    pub(crate) fn start_program(program: &Path, arguments: &[&str], dir: &Path) -> Self {
        // another process may take the port between the two steps; then the server ends and another is tried
        for _ in 0..5 {
            let port = free_port();
            let child = Command::new(program)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(arguments)
                .args(["--daemonize", "no", "--dir"])
                .arg(dir)
                .stdout(std::fs::File::create(dir.join("server.log")).unwrap())
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}: run tests/setup.sh tests", program.display()));
            if let Some(server) = Self::connect(child, port) {
                return server;
            }
        }
        let log = std::fs::read_to_string(dir.join("server.log")).unwrap();
        panic!("the server did not start:\n{log}");
    }

    /// Waits until a server in cluster mode serves its slots.
    pub(crate) fn wait_for_cluster(&mut self) {
        let started = Instant::now();
        while !self.one(&["CLUSTER", "INFO"]).bytes().starts_with(b"cluster_state:ok") {
            assert!(started.elapsed() < START_LIMIT, "the cluster does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn connect(mut child: Child, port: u16) -> Option<Self> {
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                let mut server = Self { child, stream: BufReader::new(stream) };
                while matches!(server.one(&["PING"]), Reply::Error(error) if error.starts_with("LOADING")) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.stream.get_ref().peer_addr().unwrap().port()
    }

    /// Sends commands and answers with their replies, in order.
    pub(crate) fn all<C: AsRef<[A]>, A: AsRef<[u8]>>(&mut self, commands: &[C]) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(commands.len());
        // few enough at a time that neither side waits for the other to read
        for some in commands.chunks(100) {
            let mut out = Vec::new();
            for command in some {
                let words = command.as_ref();
                out.extend(format!("*{}\r\n", words.len()).bytes());
                for word in words {
                    out.extend(format!("${}\r\n", word.as_ref().len()).bytes());
                    out.extend(word.as_ref());
                    out.extend(b"\r\n");
                }
            }
            self.stream.get_mut().write_all(&out).unwrap();
            replies.extend(some.iter().map(|_| self.reply()));
        }
        replies
    }

    /// Sends one command.
    pub(crate) fn one<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Reply {
        self.all(&[command]).remove(0)
    }

    /// Sends commands of which none may fail.
    pub(crate) fn must<C: AsRef<[A]>, A: AsRef<[u8]>>(&mut self, commands: &[C]) -> Vec<Reply> {
        let replies = self.all(commands);
        for reply in &replies {
            assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        }
        replies
    }

    fn reply(&mut self) -> Reply {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (kind, rest) = text.split_at(1);
        let length = || rest.parse::<i64>().unwrap();
        match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Int(length()),
            "$" if length() < 0 => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; usize::try_from(length()).unwrap() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Reply::Bytes(bytes)
            }
            "*" => Reply::List((0..length()).map(|_| self.reply()).collect()),
            _ => panic!("the server said {text:?}"),
        }
    }

    /// All keys of the current database, sorted.
    pub(crate) fn keys(&mut self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.one(&["KEYS", "*"]).list().iter().map(|key| key.bytes().to_vec()).collect();
        keys.sort();
        keys
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
