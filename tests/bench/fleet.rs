//! How a catalog with a fleet in it answers: `cargo bench -p backupd --bench fleet` prints the table of `backupd/docs/daemon.md`.
//!
//! `FLEET_CLUSTERS` is the larger number of clusters (10000), each with 100 snapshots; the smaller fleet is a tenth. The catalog is made by
//! SQL, the scheduler pass and its memory are those of a real `backupd serve --roles scheduler`.
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

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use backupd::catalog::{Catalog, Location, Postgres as Remote, SnapshotFilter, SnapshotRow};
use harness::cli::Cli;
use harness::postgres::Postgres;
use harness::process::wait_for;
use harness::s3::block_on;
use harness::server::Port;
use policies::retention::{self, Cluster, Policy, Snapshot, Source, Terms};

/// Snapshots of each cluster.
const SNAPSHOTS: u64 = 100;
/// How often a query is made; the median counts.
const RUNS: usize = 101;
/// The passes of the scheduler of which the median counts.
const PASSES: std::ops::RangeInclusive<u32> = 5..=25;
/// How often the metrics are read, about as often as a pass begins: each reading counts the million snapshots.
const SCRAPE_EVERY: Duration = Duration::from_millis(800);
/// A day in ms.
const DAY_MS: u64 = 86_400_000;

fn main() {
    let most: u64 = std::env::var("FLEET_CLUSTERS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    println!(
        "| catalog | clusters | snapshots | first pass | pass | answer with all metrics | list a cluster's snapshots | retention plan of a cluster | memory of the scheduler |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for clusters in [most / 10, most] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.sqlite");
        let section = format!("path = \"{}\"", path.display());
        measure("SQLite", &Location::from(path), &section, clusters, folder.path());
        let postgres = Postgres::start();
        let url = postgres.url(&postgres.database());
        let location = Location::Postgres(Remote::new(&url, None).unwrap());
        measure("PostgreSQL", &location, &format!("url = \"{url}\""), clusters, folder.path());
    }
}

fn measure(name: &str, location: &Location, section: &str, clusters: u64, folder: &Path) {
    block_on(async { seed(location, clusters).await });
    let (list, plan) = block_on(async { queries(location, clusters).await });
    let Scheduling { first, pass, scrape, mib } = daemon(section, clusters, folder);
    println!(
        "| {name} | {clusters} | {} | {:.2} s | {:.1} ms | {:.0} ms | {:.2} ms | {:.2} ms | {mib:.0} MiB |",
        clusters * SNAPSHOTS,
        first.as_secs_f64(),
        ms(pass),
        ms(scrape),
        ms(list),
        ms(plan)
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Clusters `c0`, `c1`, … with a snapshot a day.
async fn seed(location: &Location, clusters: u64) {
    let catalog = Catalog::open(location).await.unwrap();
    let now_ms = catalog.now_unix_ms().await.unwrap();
    catalog.close().await;
    let numbers = |count: u64| match location {
        Location::Sqlite(_) => {
            format!("WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {}) ", count - 1)
        }
        Location::Postgres(_) => format!("WITH n(n) AS (SELECT generate_series(0, CAST({} AS BIGINT))) ", count - 1),
    };
    let url = match location {
        Location::Sqlite(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(_) => location.to_string(),
    };
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let cluster = format!("'c' || CAST(n % {clusters} AS TEXT)");
    let insert = format!(
        "INSERT INTO snapshots (repository_id, snapshot_id, name, cluster, source, mode, engine, engine_version, method,
             begun_ms, ended_ms, skew_ms, cipher, key_ids, keys, plain_bytes, stored_bytes, tags)
         {}SELECT 'r', 's' || CAST(n AS TEXT), 'automatic.' || CAST(n AS TEXT), {cluster}, 'automated', 'cluster', 'redis', '7.0.15',
             'stream', {now_ms} - (n / {clusters}) * {DAY_MS}, {now_ms} - (n / {clusters}) * {DAY_MS} + 60000, 3, 'aes-256-gcm', 'k',
             1000000, 1000000000, 500000000, '{{}}' FROM n",
        numbers(clusters * SNAPSHOTS)
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    // what a server does by itself, sooner or later, after so much was inserted
    let tidied = match location {
        Location::Sqlite(_) => "ANALYZE",
        Location::Postgres(_) => "VACUUM (ANALYZE)",
    };
    sqlx::query(tidied).execute(&pool).await.unwrap();
    if let Location::Postgres(_) = location {
        sqlx::query("CHECKPOINT").execute(&pool).await.unwrap();
    }
    pool.close().await;
}

async fn queries(location: &Location, clusters: u64) -> (Duration, Duration) {
    let catalog = Catalog::open(location).await.unwrap();
    let (mut lists, mut plans) = (Vec::new(), Vec::new());
    for run in 0..RUNS as u64 {
        let cluster = format!("c{}", run * 7919 % clusters);
        let began = Instant::now();
        let rows =
            catalog.snapshots(&SnapshotFilter { cluster: Some(cluster), ..SnapshotFilter::default() }).await.unwrap();
        lists.push(began.elapsed());
        assert_eq!(rows.len() as u64, SNAPSHOTS);
        plan(&rows);
        plans.push(began.elapsed());
    }
    catalog.close().await;
    (median(&mut lists), median(&mut plans))
}

fn plan(rows: &[SnapshotRow]) {
    let snapshot = |row: &SnapshotRow| Snapshot {
        id: row.snapshot_id.clone(),
        source: Some(Source::Automated),
        taken_ms: row.begun_ms,
        available: true,
        verified: false,
        kept: false,
        leased: false,
        granted: false,
        locked: false,
        expires_ms: None,
    };
    let snapshots: Vec<Snapshot> = rows.iter().map(snapshot).collect();
    let policy = Policy { limit_days: 35, weekly: 10, monthly: 12, ..Policy::default() };
    let terms = Terms { now_ms: rows[0].begun_ms + DAY_MS, grace_ms: DAY_MS, share_max_percent: 100 };
    let judged = retention::plan(&snapshots, Cluster::Registered(&policy), terms).unwrap();
    assert_eq!(judged.len(), rows.len());
}

/// What a real scheduler over the whole fleet takes.
struct Scheduling {
    /// The pass that takes all clusters into the catalog.
    first: Duration,
    /// The median pass when all are known.
    pass: Duration,
    /// The median answer of `/metrics`.
    scrape: Duration,
    /// Its peak memory.
    mib: f64,
}

fn daemon(section: &str, clusters: u64, folder: &Path) -> Scheduling {
    let port = Port::reserve();
    let file = folder.join("backupd.toml");
    let head = format!(
        "[catalog]\n{section}\n[daemon]\nlisten = \"127.0.0.1:{}\"\n[repositories.main]\nurl = \"file://{}\"\nno_encryption = true\n",
        port.number,
        folder.join("repository").display()
    );
    let sections = (0..clusters)
        .map(|n| format!("[clusters.c{n}]\nsources = [\"redis://10.0.0.1:6379\"]\nrepository = \"main\"\n"));
    std::fs::write(&file, head + &sections.collect::<String>()).unwrap();
    let mut running = Cli::new().spawn(&["--config", file.to_str().unwrap(), "serve", "--roles", "scheduler"]);
    let mut scrapes = Vec::new();
    let mut passed = |wanted: f64| {
        wait_for("passes", Duration::from_secs(900), || {
            std::thread::sleep(SCRAPE_EVERY);
            let began = Instant::now();
            let text = metrics(port.number)?;
            scrapes.push(began.elapsed());
            let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            let count = value("backupd_scheduler_passes_total").unwrap_or(0.0);
            if count < wanted {
                return Err(count.to_string());
            }
            Ok(Duration::from_secs_f64(value("backupd_scheduler_pass_seconds").unwrap()))
        })
    };
    let first = passed(1.0);
    let mut passes: Vec<Duration> = PASSES.map(|number| passed(f64::from(number))).collect();
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.running.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    running.running.kill();
    Scheduling { first, pass: median(&mut passes), scrape: median(&mut scrapes), mib: kib / 1024.0 }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn metrics(port: u16) -> Result<String, String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}
