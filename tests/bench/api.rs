//! How the API answers with many snapshots in the catalog, alone and beside clients that only take room:
//! `cargo bench -p backupd --bench api` prints the table of `backupd/docs/api.md`.
//!
//! `API_SNAPSHOTS` is how many snapshots there are (100000, of three shards each, of a thousandth as many clusters), `API_SECONDS` how long each
//! request is made (10). Eight clients ask, each by one connection; lists are walked page by page.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a benchmark ends at the first thing that is not as it should be, and says so"
)]

#[path = "../it/harness.rs"]
mod harness;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use backupd::catalog::{Catalog, Location, Postgres as Remote};
use backupd::repository::Repository;
use backupd::store::LocalStore;
use harness::cli::{Cli, Spawned};
use harness::postgres::Postgres;
use harness::process::wait_for;
use harness::s3::block_on;
use harness::server::Port;

/// Those who ask.
const CLIENTS: u64 = 8;
/// Connections that send nothing.
const IDLE: usize = 1000;
/// Connections that send a body of a megabyte, one byte a second.
const SLOW: usize = 200;

fn main() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (snapshots, seconds) = (number("API_SNAPSHOTS", 100_000_u64), number("API_SECONDS", 10_u64));
    println!("| catalog | request | alone: requests/s | p50 | p99 | beside the crowd: requests/s | p50 | p99 |");
    println!("|---|---|---|---|---|---|---|---|");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let section = format!("path = \"{}\"", path.display());
    measure("SQLite", &Location::from(path), &section, snapshots, seconds, folder.path());
    let postgres = Postgres::start();
    let url = postgres.url(&postgres.database());
    let location = Location::Postgres(Remote::new(&url, None).unwrap());
    measure("PostgreSQL", &location, &format!("url = \"{url}\""), snapshots, seconds, folder.path());
}

fn measure(name: &str, location: &Location, section: &str, snapshots: u64, seconds: u64, folder: &Path) {
    block_on(seed(location, snapshots, folder));
    let daemon = Daemon::start(section, clusters(snapshots), folder);
    let alone = KINDS.map(|kind| daemon.ask(kind, snapshots, seconds));
    let peak_alone = daemon.peak_mib();
    for (kind, alone) in KINDS.into_iter().zip(alone) {
        let crowd = Crowd::gather(daemon.port.number);
        let beside = daemon.ask(kind, snapshots, seconds);
        let refused = crowd.disperse();
        println!("| {name} | {} | {alone} | {beside} |", kind.name());
        eprintln!("bodies that were too large and were refused meanwhile: {refused}");
    }
    println!(
        "most memory of the daemon, {name}: {peak_alone:.0} MiB alone, {:.0} MiB with the crowd",
        daemon.peak_mib()
    );
}

/// How many clusters there are.
fn clusters(snapshots: u64) -> u64 {
    (snapshots / 1000).max(1)
}

/// Snapshots of three shards, a thousandth as many clusters, all in a repository that there is.
async fn seed(location: &Location, snapshots: u64, folder: &Path) {
    let store = LocalStore::new(&folder.join("repository"));
    let repository = Repository::open_or_create(std::sync::Arc::new(store)).await.unwrap().id().to_owned();
    let catalog = Catalog::open(location).await.unwrap();
    let now_ms = catalog.now_unix_ms().await.unwrap();
    catalog.close().await;
    let (clusters, last) = (clusters(snapshots), snapshots - 1);
    let numbers = match location {
        Location::Sqlite(_) => {
            format!("WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {last}) ")
        }
        Location::Postgres(_) => format!("WITH n(n) AS (SELECT generate_series(0, CAST({last} AS BIGINT))) "),
    };
    let url = match location {
        Location::Sqlite(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(_) => location.to_string(),
    };
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let snapshot = format!(
        "INSERT INTO snapshots (repository_id, snapshot_id, name, cluster, source, mode, engine, engine_version, method,
             begun_ms, ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags)
         {numbers}SELECT '{repository}', 's' || CAST(n AS TEXT), 'automatic.' || CAST(n AS TEXT),
             'c' || CAST(n % {clusters} AS TEXT), 'automated', 'cluster', 'redis', '7.0.15', 'stream',
             {now_ms} - 1000000000 + n * 10, {now_ms} - 999000000 + n * 10, 3, 'aes-256-gcm', '[\"k-1\"]', 1000000, 1000000000,
             500000000, '{{\"team\":\"shop\"}}' FROM n"
    );
    sqlx::query(sqlx::AssertSqlSafe(snapshot)).execute(&pool).await.unwrap();
    for (index, slots) in ["0-5460", "5461-10922", "10923-16383"].iter().enumerate() {
        let shard = format!(
            "INSERT INTO shards (repository_id, snapshot_id, shard_index, slots, node_id, node_address, node_role, replid,
                 repl_offset, taken_ms, file, keys, plain_bytes, stored_bytes)
             SELECT repository_id, snapshot_id, {index}, '{slots}', 'node', '10.0.0.1:6379', 'replica', 'r', 1, begun_ms,
                 'shard-000{index}-1.bkd', 333333, 333333333, 166666666 FROM snapshots"
        );
        sqlx::query(sqlx::AssertSqlSafe(shard)).execute(&pool).await.unwrap();
    }
    sqlx::query("ANALYZE").execute(&pool).await.unwrap();
    pool.close().await;
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Rest,
    Describe,
    ByName,
    ByGroup,
}

const KINDS: [Kind; 4] = [Kind::Rest, Kind::Describe, Kind::ByName, Kind::ByGroup];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Rest => "`GET /v1/snapshots`, pages of 100",
            Self::Describe => "`DescribeSnapshots`, pages of 50 with node groups",
            Self::ByName => "`DescribeSnapshots` of one name",
            Self::ByGroup => "`DescribeSnapshots` of one group, pages of 50",
        }
    }

    /// The request for what comes after `next`, the place that the answer before told of.
    fn request(self, number: u64, snapshots: u64, next: Option<&str>) -> String {
        let marker = |word: &str| next.map(|next| format!("&{word}={next}")).unwrap_or_default();
        let form = |more: &str| {
            let body = format!("Action=DescribeSnapshots&Version=2015-02-02&{more}");
            let kind = "Content-Type: application/x-www-form-urlencoded";
            format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        match self {
            Self::Rest => {
                format!("GET /v1/snapshots?limit=100{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", marker("cursor"))
            }
            Self::Describe => form(&format!("MaxRecords=50&ShowNodeGroupConfig=true{}", marker("Marker"))),
            Self::ByName => form(&format!("SnapshotName=automatic.{}", number * 7919 % snapshots)),
            Self::ByGroup => form(&format!("ReplicationGroupId=c{}", number * 7919 % clusters(snapshots))),
        }
    }

    fn next(self, body: &str) -> Option<&str> {
        let (before, after) = match self {
            Self::Rest => ("\"next_cursor\":\"", "\""),
            Self::Describe => ("<Marker>", "</Marker>"),
            // each is asked for another
            Self::ByName | Self::ByGroup => return None,
        };
        body.split_once(before)?.1.split_once(after).map(|found| found.0)
    }
}

struct Daemon {
    running: Spawned,
    port: Port,
}

impl Daemon {
    fn start(section: &str, clusters: u64, folder: &Path) -> Self {
        let port = Port::reserve();
        let file = folder.join("backupd.toml");
        let text = format!(
            "[catalog]\n{section}\n[daemon]\nlisten = \"\"\n[api]\nlisten = \"127.0.0.1:{}\"\nrequests_per_second = 1000000\n\
             [repositories.main]\nurl = \"file://{}\"\nno_encryption = true\n",
            port.number,
            folder.join("repository").display()
        );
        let cluster = |n| {
            format!(
                "[clusters.c{n}]\nsources = [\"redis://127.0.0.1:1\"]\nrepository = \"main\"\nsnapshot_retention_limit = 0\n"
            )
        };
        let text = text + &(0..clusters).map(cluster).collect::<String>();
        std::fs::write(&file, text).unwrap();
        let running = Cli::new().spawn(&["--config", file.to_str().unwrap(), "serve", "--roles", "api"]);
        wait_for("the API", Duration::from_secs(60), || {
            TcpStream::connect(("127.0.0.1", port.number)).map(drop).map_err(|error| error.to_string())
        });
        Self { running, port }
    }

    fn ask(&self, kind: Kind, snapshots: u64, seconds: u64) -> Figures {
        let port = self.port.number;
        let until = Instant::now() + Duration::from_secs(seconds);
        let clients = (0..CLIENTS).map(|client| thread::spawn(move || walk(port, kind, client, snapshots, until)));
        let mut times: Vec<Duration> =
            clients.collect::<Vec<_>>().into_iter().flat_map(|client| client.join().unwrap()).collect();
        times.sort();
        Figures { per_second: times.len() as f64 / seconds as f64, times }
    }

    fn peak_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.running.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.running.running.kill();
    }
}

/// One client: how long each of its requests took.
fn walk(port: u16, kind: Kind, client: u64, snapshots: u64, until: Instant) -> Vec<Duration> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    stream.get_ref().set_nodelay(true).unwrap();
    let (mut times, mut next) = (Vec::new(), None::<String>);
    while Instant::now() < until {
        let number = client + CLIENTS * times.len() as u64;
        let request = kind.request(number, snapshots, next.as_deref());
        let began = Instant::now();
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let body = answer(&mut stream);
        times.push(began.elapsed());
        next = kind.next(&body).map(str::to_owned);
    }
    times
}

/// The body of an answer, which is a good one.
fn answer(stream: &mut BufReader<TcpStream>) -> String {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the connection ended: {head}");
        if line == "\r\n" {
            break;
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = text.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && length > 0, "{head}{body}");
    body
}

struct Figures {
    per_second: f64,
    times: Vec<Duration>,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent: usize| self.times[(self.times.len() * percent / 100).min(self.times.len() - 1)];
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(f, "{:.0} | {:.1} ms | {:.1} ms", self.per_second, ms(at(50)), ms(at(99)))
    }
}

/// Clients that take room: idle ones, slow ones, and one that sends bodies that are too large, one after another.
struct Crowd {
    stop: std::sync::Arc<AtomicBool>,
    _idle: Vec<TcpStream>,
    slow: thread::JoinHandle<()>,
    large: thread::JoinHandle<u64>,
}

impl Crowd {
    fn gather(port: u16) -> Self {
        let connect = move || TcpStream::connect(("127.0.0.1", port)).unwrap();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let head = |bytes: u64| {
            format!(
                "POST /v1/snapshots HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
            )
        };
        let (slow_stops, large_stops) = (std::sync::Arc::clone(&stop), std::sync::Arc::clone(&stop));
        let mut slow: Vec<TcpStream> = (0..SLOW).map(|_| connect()).collect();
        let (slow_head, large_head) = (head(1 << 20), head(1 << 30));
        for stream in &mut slow {
            stream.write_all(slow_head.as_bytes()).unwrap();
        }
        let slow = thread::spawn(move || {
            while !slow_stops.load(Ordering::Relaxed) {
                // who was cut off comes again
                for stream in slow.iter_mut().filter_map(|stream| stream.write_all(b"x").err().map(|_| stream)) {
                    *stream = connect();
                    let _refused = stream.write_all(slow_head.as_bytes());
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        let large = thread::spawn(move || {
            let mut refused = 0;
            while !large_stops.load(Ordering::Relaxed) {
                let mut stream = connect();
                let _closed = stream.write_all(large_head.as_bytes());
                let _closed = stream.write_all(&[b'x'; 64 << 10]);
                let mut answer = [0; 12];
                let _reset = stream.read_exact(&mut answer);
                refused += u64::from(answer.ends_with(b"413"));
                thread::sleep(Duration::from_millis(10));
            }
            refused
        });
        Self { stop, _idle: (0..IDLE).map(|_| connect()).collect(), slow, large }
    }

    /// How many bodies were refused.
    fn disperse(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.slow.join().unwrap();
        self.large.join().unwrap()
    }
}
