//! How long a snapshot takes beside `redis-cli --rdb`, and how much memory a snapshot and a restore take at most.
//!
//! `cargo bench -p backupd --bench whole_way` prints the tables of `backupd/docs/performance.md`. `BENCH_MB` is the RDB
//! of one shard (1000), `BENCH_RUNS` the runs whose median counts (5), `BENCH_DIR` a folder for everything that is
//! written (the system's folder for temporary files). An argument picks one table: `time`, `memory`, `restore`, `stages`,
//! `levels`, `upload`, `sizes` or `effect`. `BENCH_SHAPES` picks shapes of the table `restore` (`small,mixed`).
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

mod capture;
#[path = "../it/harness.rs"]
mod harness;
mod levels;
mod meter;
mod restore;
#[path = "../../rdbtools/benches/throughput/shapes.rs"]
#[expect(dead_code, reason = "one of its shapes is not measured here")]
mod shapes;
mod upload;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::cli::Cli;
use harness::{nodes, process};
use meter::{Cost, measure};
use serde_json::Value;

/// Shards of the cluster whose memory is measured, all captured at the same time.
const SHARDS: usize = 3;
/// The one large value.
const LARGE_VALUE_BYTES: usize = 400_000_000;
/// One of the keys that every shard of [`SHARDS`] could own; the server says which does.
const LARGE_KEY: &str = "one-large-value";

struct Asked {
    shard_bytes: usize,
    runs: usize,
    dir: PathBuf,
}

fn main() {
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let root = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new().prefix("backupd-bench-").tempdir_in(root).unwrap();
    let asked = Asked {
        shard_bytes: number("BENCH_MB", 1000) * 1_000_000,
        runs: number("BENCH_RUNS", 5),
        dir: dir.path().to_owned(),
    };
    let picked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_asked = |table: &str| picked.is_empty() || picked.iter().any(|word| word == table);
    if is_asked("time") {
        time(&asked);
    }
    if is_asked("memory") {
        memory(&asked);
    }
    if is_asked("restore") {
        restore::restore(&asked);
    }
    if is_asked("stages") {
        capture::stages(&asked);
    }
    if is_asked("levels") {
        levels::levels(&asked);
    }
    if is_asked("upload") {
        upload::upload(&asked);
    }
    if is_asked("sizes") {
        capture::sizes(&asked);
    }
    if is_asked("effect") {
        capture::effect(&asked);
    }
}

/// A running source, loaded from a generated RDB by the program itself.
struct Source {
    dir: PathBuf,
    restored: Value,
    load: Cost,
}

impl Source {
    fn launch(asked: &Asked, shape: shapes::Shape, shards: usize) -> Self {
        let file = asked.dir.join("source.rdb");
        let size = (asked.shard_bytes * shards) as u64;
        shape.write(size, &mut std::fs::File::create(&file).unwrap()).unwrap();
        let source = Self::launch_from(&asked.dir.join("source"), &["--rdb", file.to_str().unwrap()], shards);
        std::fs::remove_file(&file).unwrap();
        source
    }

    fn launch_from(dir: &Path, input: &[&str], shards: usize) -> Self {
        let (folder, count) = (dir.display().to_string(), shards.to_string());
        let words = [&["restore"], input, &["--launch", &folder, "--shards", &count, "-o", "json"]].concat();
        let (load, stdout) = backupd(&words);
        let source = Self { dir: dir.to_owned(), restored: serde_json::from_str(&stdout).unwrap(), load };
        for url in source.urls() {
            let mut link = nodes::connect(&url);
            // the five seconds that a server waits for more replicas are nobody's work
            nodes::command(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).exec(&mut link).unwrap();
        }
        source
    }

    fn urls(&self) -> Vec<String> {
        let url = |node: &Value| format!("redis://{}:{}", node["host"].as_str().unwrap(), node["port"]);
        self.restored["nodes"].as_array().unwrap().iter().map(url).collect()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let status = process::command(self.dir.join("stop.sh")).stdout(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("{}/stop.sh failed: servers may be left running", self.dir.display());
        }
        let _gone_with_the_rest = std::fs::remove_dir_all(&self.dir);
    }
}

fn backupd(words: &[&str]) -> (Cost, String) {
    measure(&Cli::new().program, words, 0)
}

impl Asked {
    /// The flags that name the repository and its key, which is made when it is not there yet.
    fn place(&self) -> [String; 4] {
        let key = self.dir.join("bench.key").display().to_string();
        if !Path::new(&key).exists() {
            backupd(&["key", "generate", &key]);
        }
        let url = format!("file://{}", self.repository().display());
        ["--repository".to_owned(), url, "--key-file".to_owned(), key]
    }

    fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }
}

/// Makes a snapshot into an empty repository.
fn snapshot(asked: &Asked, source: &Source, name: &str) -> (Cost, Value) {
    let _absent_is_fine = std::fs::remove_dir_all(asked.repository());
    let place = asked.place();
    let url = &source.urls()[0];
    let mut words = vec!["snapshot", "create", "--source", url, "--name", name, "-o", "json"];
    words.extend(place.iter().map(String::as_str));
    let (cost, stdout) = backupd(&words);
    (cost, serde_json::from_str(&stdout).unwrap())
}

/// One shard: wall time and CPU of a snapshot beside the tool that people use today.
fn time(asked: &Asked) {
    let source = Source::launch(asked, shapes::Shape::Mixed, 1);
    let mut link = nodes::connect(&source.urls()[0]);
    let port = source.restored["nodes"][0]["port"].to_string();
    let file = asked.dir.join("peer.rdb").display().to_string();
    // with /dev/null it reads all, then complains that a device cannot be flushed, and ends with 1
    let rdb = |target: &str| format!("exec redis-cli -p {port} --rdb {target}");
    let sealed = format!(
        "redis-cli -p {port} --rdb - | zstd -q -1 -T0 | openssl enc -aes-256-ctr -K {} -iv {} > {file}",
        "0".repeat(64),
        "0".repeat(32)
    );
    let mut peers = [
        ("redis-cli --rdb /dev/null", rdb("/dev/null"), 1, Vec::new()),
        ("redis-cli --rdb FILE", rdb(&file), 0, Vec::new()),
        ("… - | zstd -1 -T0 | openssl", sealed, 0, Vec::new()),
    ];
    let (mut ours, mut bytes) = (Vec::new(), (0, 0));
    for run in 0..asked.runs {
        for (_, script, code, costs) in &mut peers {
            settle(&mut link);
            let _absent_is_fine = std::fs::remove_file(&file);
            costs.push(measure("sh", &["-c", script], *code).0);
        }
        settle(&mut link);
        let (cost, made) = snapshot(asked, &source, &format!("run-{run}"));
        let object = &made["shards"][0]["object"];
        bytes = (object["plain_bytes"].as_u64().unwrap(), object["stored_bytes"].as_u64().unwrap());
        ours.push(cost);
    }
    println!("\none shard of {:.0} MB of RDB, stored in {:.0} MB, {} runs", mb(bytes.0), mb(bytes.1), asked.runs);
    println!("redis {}, repl-diskless-sync-delay 0", nodes::info(&mut link, "redis_version").unwrap());
    println!("{:<28}{:>10}{:>10}{:>10}{:>10}{:>12}", "", "median s", "min s", "max s", "CPU s", "peak MiB");
    let row = |name: &str, costs: &[Cost]| {
        let wall = Cost::sorted(costs, |cost| cost.wall_s);
        let (cpu, peak) = (Cost::median(costs, |cost| cost.cpu_s), Cost::sorted(costs, |cost| cost.peak_mib));
        let (median, most) = (Cost::median(costs, |cost| cost.wall_s), peak[peak.len() - 1]);
        println!("{name:<28}{median:>10.2}{:>10.2}{:>10.2}{cpu:>10.2}{most:>12.0}", wall[0], wall[wall.len() - 1]);
        median
    };
    let theirs: Vec<f64> = peers.iter().map(|(name, _, _, costs)| row(name, costs)).collect();
    let own = row("backupd snapshot create", &ours);
    let [device, plain, pipeline] = [0, 1, 2].map(|index| own / theirs[index]);
    println!("ratio to /dev/null {device:.2}, to FILE {plain:.2}, to the pipeline {pipeline:.2}");
}

/// Waits until the server has no child, so that a run never waits for the one before it.
fn settle(link: &mut redis::Connection) {
    process::wait_for("the server's child to end", std::time::Duration::from_secs(60), || {
        match nodes::info(link, "rdb_bgsave_in_progress").as_deref() {
            Some("0") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Three shards together: the peak memory of every step, without and with one large value.
fn memory(asked: &Asked) {
    let source = Source::launch(asked, shapes::Shape::Mixed, SHARDS);
    println!("\npeak memory, {SHARDS} shards of {:.0} MB of RDB each", mb(asked.shard_bytes as u64));
    println!("{:<56}{:>12}{:>10}{:>10}", "", "peak MiB", "wall s", "CPU s");
    print_cost("restore --rdb FILE --launch", &source.load);
    let (cost, _) = snapshot(asked, &source, "plain");
    print_cost("snapshot create", &cost);
    restore_out(asked, "plain", "restore --out --shards 5");

    put_large_value(&source);
    let (cost, _) = snapshot(asked, &source, "large");
    print_cost("snapshot create, one value of 400 MB in it", &cost);
    drop(source);
    restore_out(asked, "large", "restore --out --shards 5, one value of 400 MB in it");
    let place = asked.place();
    let input: Vec<&str> = ["large"].into_iter().chain(place.iter().map(String::as_str)).collect();
    let again = Source::launch_from(&asked.dir.join("again"), &input, SHARDS + 2);
    print_cost("restore --launch --shards 5, one value of 400 MB in it", &again.load);
}

fn restore_out(asked: &Asked, name: &str, label: &str) {
    let (out, place) = (asked.dir.join("out"), asked.place());
    let mut words = vec!["restore", name, "--shards", "5", "--out", out.to_str().unwrap()];
    words.extend(place.iter().map(String::as_str));
    print_cost(label, &backupd(&words).0);
    std::fs::remove_dir_all(&out).unwrap();
}

fn put_large_value(source: &Source) {
    let mut random = harness::keyspace::Random::new(7);
    let value: Vec<u8> = (0..LARGE_VALUE_BYTES).map(|_| random.byte()).collect();
    let url = source.urls()[0].clone();
    let owner = nodes::discover(&url)
        .into_iter()
        .find(|node| node.slots.contains(policies::slot::key_slot(LARGE_KEY.as_bytes())))
        .unwrap();
    redis::cmd("SET").arg(LARGE_KEY).arg(value).exec(&mut nodes::connect(&owner.url)).unwrap();
}

fn print_cost(label: &str, cost: &Cost) {
    println!("{label:<56}{:>12.0}{:>10.1}{:>10.1}", cost.peak_mib, cost.wall_s, cost.cpu_s);
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
