//! The whole way once, on real servers: a cluster under load, its snapshot, a new cluster of another size, and every
//! key compared. `tests/demo.sh` builds and runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a demonstration ends at the first thing that is not as it should be, and says so"
)]

#[path = "../it/harness.rs"]
mod harness;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use harness::cli::Cli;
use harness::cluster::Cluster;
use harness::compare::{Report, compare_except};
use harness::keyspace::Keyspace;
use harness::nodes::{self, Node};
use harness::s3::Bucket;
use harness::writer::{self, Writer};
use serde_json::Value;

/// Shards of the cluster that is snapshotted, and of the one it is restored into.
const SHARDS: usize = 3;
const NEW_SHARDS: usize = 5;
/// Elements of the one big list and of the one big hash, in a run with all keys.
const BIG: u64 = 200_000;
/// Keys that the background writer starts with.
const LIVE_KEYS: u64 = 10_000;
/// When a command is taken for hanging.
const COMMAND_LIMIT: Duration = Duration::from_secs(3600);

/// The arguments.
struct Asked {
    dir: PathBuf,
    keys: u64,
    s3: bool,
    keep: bool,
}

fn arguments() -> Asked {
    let mut asked = Asked { dir: PathBuf::from("target/demo"), keys: 1_000_000, s3: false, keep: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} wants a value"));
        match word.as_str() {
            "--dir" => asked.dir = PathBuf::from(value()),
            "--keys" => asked.keys = value().parse().expect("--keys wants a number"),
            "--s3" => asked.s3 = true,
            "--keep" => asked.keep = true,
            other => panic!("unknown argument {other}"),
        }
    }
    asked
}

/// Says what comes next and how long the last thing took.
struct Story {
    step: u32,
}

impl Story {
    fn step<T>(&mut self, what: &str, act: impl FnOnce() -> T) -> T {
        self.step += 1;
        println!("\n{}. {what}", self.step);
        let started = Instant::now();
        let result = act();
        println!("   {:.1} s", started.elapsed().as_secs_f64());
        result
    }
}

/// Runs the script that stops the restored cluster, however the demo ends.
struct StopAtEnd(PathBuf);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        if self.0.is_file() {
            let _ = Command::new(&self.0).status();
        }
    }
}

/// Where the snapshot goes, and how the program is called for that.
struct Place {
    cli: Cli,
    repository: String,
    key_file: String,
}

impl Place {
    fn choose(asked: &Asked) -> Self {
        let key_file = asked.dir.join("demo.key").display().to_string();
        let cli = Cli::new().limit(COMMAND_LIMIT).showing_progress();
        if asked.s3 {
            let bucket = Bucket::create("demo");
            Self { cli: cli.envs(bucket.envs()), repository: bucket.url("demo"), key_file }
        } else {
            let folder = std::path::absolute(asked.dir.join("repository")).unwrap();
            Self { cli, repository: format!("file://{}", folder.display()), key_file }
        }
    }

    /// Runs `backupd WORDS… --repository … --key-file … -o json` and shows the command.
    fn run(&self, words: &[&str]) -> Value {
        let place = ["--repository", &self.repository, "--key-file", &self.key_file, "-o", "json"];
        let all = [words, &place].concat();
        println!("   $ backupd {}", all.join(" "));
        self.cli.json(&all)
    }
}

fn main() -> ExitCode {
    let asked = arguments();
    std::fs::create_dir_all(&asked.dir).unwrap();
    let mut story = Story { step: 0 };
    let place = Place::choose(&asked);
    place.cli.run(&["key", "generate", &place.key_file]).ok();

    let (cluster, live) = build_source(&mut story, asked.keys);
    let snapshot = story.step("a snapshot while the client keeps writing", || {
        let before = live.sent();
        let snapshot = place.run(&["snapshot", "create", "--source", &cluster.url(), "--name", "demo"]);
        println!("   the client has written {} times in the meantime", live.sent() - before);
        snapshot
    });
    live.stop();
    print_snapshot(&snapshot);

    let list = story.step("what the repository holds", || place.run(&["snapshot", "list"]));
    assert!(list["snapshots"][0]["name"] == "demo", "the snapshot is not listed: {list}");
    println!("   {}", line_of(&list["snapshots"][0], &["name", "status", "cluster", "keys"]));
    let verdict = story.step("verify: every stored byte is read, decrypted and checked", || {
        place.run(&["snapshot", "verify", "demo"])
    });
    println!("   {}", line_of(&verdict, &["name", "status", "valid", "keys"]));

    let new_dir = asked.dir.join("restored");
    let guard = (!asked.keep).then(|| StopAtEnd(new_dir.join("stop.sh")));
    let restored = story.step(&format!("restore into a new cluster of {NEW_SHARDS} shards"), || {
        let (dir, shards) = (new_dir.display().to_string(), NEW_SHARDS.to_string());
        place.run(&["restore", "demo", "--launch", &dir, "--shards", &shards])
    });
    let target = target_nodes(&restored);
    let all_keys = |of: &Value| of.as_array().unwrap().iter().map(|part| number(part, "keys")).sum::<u64>();
    assert_eq!(all_keys(&restored["nodes"]), all_keys(&snapshot["shards"]), "keys were lost or made up on the way");
    let report = story.step("compare every key that the client was not writing: value, type, expiry", || {
        compare_except(&cluster.nodes(), &target, &writer::wrote)
    });
    println!("   {report}");
    if asked.keep {
        println!("\nleft for a look: {}, stopped by {}/stop.sh", target[0].url, new_dir.display());
    }
    drop(guard);
    conclude(&report, asked.keys)
}

/// Starts and fills the source, and starts the client that keeps writing to it.
fn build_source(story: &mut Story, keys: u64) -> (Cluster, Writer) {
    let cluster =
        story.step(&format!("a cluster of {SHARDS} primaries and {SHARDS} replicas"), || Cluster::start(SHARDS, 1));
    let first = &cluster.shards[0].primary;
    println!("   redis {} at {}", first.info("redis_version").unwrap(), first.address());
    let keyspace = Keyspace { big: (keys / 5).min(BIG), ..Keyspace::new(20_261_123, keys) };
    story.step(&format!("load {keys} keys of every type, with a list and a hash of {} elements", keyspace.big), || {
        keyspace.load(&cluster.nodes());
        cluster.wait_replicas();
    });
    for shard in &cluster.shards {
        let [keys, memory] = ["db0", "used_memory_human"].map(|field| shard.primary.info(field).unwrap_or_default());
        println!("   slots {}: {keys}, {memory}", shard.slots);
    }
    let live = story.step(&format!("a client starts to write to {LIVE_KEYS} further keys, and goes on"), || {
        Writer::start(&cluster.nodes(), LIVE_KEYS)
    });
    (cluster, live)
}

/// The nodes that the restore has started, asked of themselves and not taken from its report; the report must agree.
fn target_nodes(restored: &Value) -> Vec<Node> {
    let first = &restored["nodes"][0];
    let url = format!("redis://{}:{}", first["host"].as_str().unwrap_or("127.0.0.1"), first["port"]);
    let target = nodes::discover(&url);
    assert_eq!(target.len(), NEW_SHARDS, "the new cluster has another number of shards");
    for node in restored["nodes"].as_array().unwrap() {
        println!("   {}", line_of(node, &["host", "port", "role", "slots", "keys"]));
    }
    target
}

/// Sizes and times of the snapshot, per shard and together.
fn print_snapshot(snapshot: &Value) {
    let empty = Vec::new();
    let shards = snapshot["shards"].as_array().unwrap_or(&empty);
    let (mut plain, mut stored) = (0, 0);
    for shard in shards {
        let [shard_plain, shard_stored] = ["plain_bytes", "stored_bytes"].map(|name| number(shard, name));
        println!(
            "   shard {}: {} keys, {:.1} MB of RDB in {:.1} MB, from {}",
            line_of(shard, &["index", "slots"]),
            number(shard, "keys"),
            megabytes(shard_plain),
            megabytes(shard_stored),
            line_of(&shard["node"], &["role", "address"]),
        );
        plain += shard_plain;
        stored += shard_stored;
    }
    println!(
        "   together: {:.1} MB of RDB stored in {:.1} MB, ratio {:.2}; {} ms between the shards' points in time",
        megabytes(plain),
        megabytes(stored),
        megabytes(plain) / megabytes(stored),
        snapshot["skew_ms"]
    );
}

fn conclude(report: &Report, keys: u64) -> ExitCode {
    // each key of the load and the two big ones
    let all_there = report.equal == keys + 2;
    if report.is_equal() && all_there {
        println!("\nnothing differs: {} keys are the same in both clusters", report.equal);
        ExitCode::SUCCESS
    } else {
        println!("\nthe clusters differ ({} of {} keys are equal)", report.equal, keys + 2);
        ExitCode::FAILURE
    }
}

/// A number of `object`, or of an object directly inside it.
fn number(object: &Value, name: &str) -> u64 {
    let inner = || object.as_object()?.values().find_map(|value| value.get(name)?.as_u64());
    object[name].as_u64().or_else(inner).unwrap_or_else(|| panic!("no number `{name}` in {object}"))
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

/// The fields of `object` that are there, in one line.
fn line_of(object: &Value, names: &[&str]) -> String {
    let shown = |name: &&str| match object.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if *name == "keys" => Some(format!("{number} keys")),
        Value::Null => None,
        other => Some(other.to_string()),
    };
    names.iter().filter_map(shown).collect::<Vec<_>>().join("  ")
}
