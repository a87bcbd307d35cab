//! What captures may cost their source: the spill, budgets, limits, rates. Nothing here depends on how fast the machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fixture::Repo;
use crate::harness::cli::Spawned;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::faults::{Faulty, Operation, Script};
use crate::harness::keyspace::{Keyspace, Random};
use crate::harness::nodes;
use crate::harness::server::{Options, Server};
use crate::redis_server::{fill, server, wait_until};

/// When a job that should end is taken for hanging.
const PATIENCE: Duration = Duration::from_secs(300);

impl Repo {
    /// With a configuration that has this section `[capture]`.
    fn with_capture(mut self, lines: &str) -> Self {
        let config = self.path("backupd.toml");
        std::fs::write(&config, format!("[capture]\n{lines}\n")).unwrap();
        self.cli = self.cli.env("BACKUPD_CONFIG", config);
        self
    }
}

/// Carries out nothing from the first part of an upload on, until `released`.
fn stalls_until(released: &Arc<AtomicBool>) -> impl Script + 'static {
    let released = Arc::clone(released);
    move |operation| {
        if let Operation::Part(_) = operation {
            // no other request is looked at meanwhile
            while !released.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        None
    }
}

fn create_through(repo: &Repo, server: &Server, proxy: &Faulty) -> Spawned {
    let words = repo.args(&["snapshot", "create", "--source", &server.url(), "--name", "one"]);
    repo.cli.spawn(&repo.through(words, &proxy.endpoint))
}

fn is_saving(server: &Server) -> bool {
    server.info("rdb_bgsave_in_progress").as_deref() == Some("1")
}

/// How many children the server has made.
fn forks(server: &Server) -> u64 {
    server.info("total_forks").unwrap().parse().unwrap()
}

/// The server has made one more child than these, and it is gone.
fn wait_child_gone(server: &Server, before: u64) {
    wait_until("the server's child is gone", || forks(server) > before && !is_saving(server));
}

/// Far more bytes that do not compress than queues, sockets and parts hold.
fn large(lines: &[&str]) -> Server {
    let server = server(lines);
    let mut random = Random::new(61);
    let block: Vec<u8> = (0..1 << 20).map(|_| random.byte()).collect();
    let mut link = server.connect();
    for index in 0..72_usize {
        // every value is another rotation of the block
        let value = [&block[index * 9000..], &block[..index * 9000]].concat();
        redis::cmd("SET").arg(index).arg(value).exec(&mut link).unwrap();
    }
    server
}

#[test]
fn a_store_that_stands_still_holds_no_child_and_the_capture_succeeds() {
    let server = large(&["repl-timeout 5"]);
    let repo = Repo::bucket("spill");
    let released = Arc::new(AtomicBool::new(false));
    let proxy = Faulty::start(&repo.bucket.as_ref().unwrap().endpoint, stalls_until(&released));
    let before = forks(&server);
    let job = create_through(&repo, &server, &proxy);
    // the store takes nothing before the child has ended, nor for longer than the server would wait for a reader
    wait_child_gone(&server, before);
    std::thread::sleep(Duration::from_secs(7));
    released.store(true, Ordering::Relaxed);
    let outcome = job.wait(PATIENCE).ok().says("went through the spill");
    assert_eq!(outcome.json()["shards"][0]["attempt"], 1);
    repo.json(&["snapshot", "verify", "one"]);
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&server.nodes(), &nodes).assert_equal();
}

#[test]
fn a_server_that_writes_its_file_first_waits_for_nobody() {
    let server = large(&["repl-timeout 5", "repl-diskless-sync yes", "save 3600 1000000"]);
    // what waits in a spill would hide who waits
    let repo = Repo::bucket("disk").with_capture("spill_max = \"0\"");
    let released = Arc::new(AtomicBool::new(false));
    let proxy = Faulty::start(&repo.bucket.as_ref().unwrap().endpoint, stalls_until(&released));
    let words = ["snapshot", "create", "--source", &server.url(), "--name", "one", "--method", "stream-disk"];
    let start = |more: &[&str]| repo.cli.spawn(&repo.through(repo.args(&[&words, more].concat()), &proxy.endpoint));
    let before = forks(&server);
    start(&[]).wait(PATIENCE).exits(18).says("MISCONF").says("--primary fallback");
    assert_eq!(forks(&server), before, "a primary whose writes could stop was asked");
    let job = start(&["--primary", "fallback"]);
    wait_child_gone(&server, before);
    std::thread::sleep(Duration::from_secs(7));
    released.store(true, Ordering::Relaxed);
    let made = job.wait(PATIENCE).ok().json();
    assert_eq!((&made["shards"][0]["attempt"], &made["method"]), (&1.into(), &"stream-disk".into()));
    repo.json(&["snapshot", "verify", "one"]);
    let (nodes, _launched) = repo.launch("one", &["--shards", "1"]);
    compare(&server.nodes(), &nodes).assert_equal();
}

#[test]
fn a_full_spill_and_a_store_that_stands_still_end_the_capture_and_free_the_child() {
    let server = large(&[]);
    for (max, shown) in [("0", "of 0 MiB"), ("8MiB", "of 8 MiB")] {
        let repo = Repo::bucket("full").with_capture(&format!("spill_max = \"{max}\"\nspill_wait = \"2s\""));
        let released = Arc::new(AtomicBool::new(false));
        let proxy = Faulty::start(&repo.bucket.as_ref().unwrap().endpoint, stalls_until(&released));
        let before = forks(&server);
        let job = create_through(&repo, &server, &proxy);
        wait_child_gone(&server, before);
        released.store(true, Ordering::Relaxed);
        let outcome =
            job.wait(PATIENCE).exits(16).says("the store took nothing for 2 s, and the spill is full").says(shown);
        assert_eq!(outcome.error_json()["error"]["retryable"], true);
        assert!(repo.list().iter().all(|(_, status)| status != "available"));
        assert_eq!(repo.bucket.as_ref().unwrap().unfinished_uploads(), [""; 0]);
    }
}

#[test]
fn a_spill_folder_that_is_missing_is_told_before_anything_is_asked_of_the_source() {
    let server = server(&[]);
    let repo = Repo::folder().with_capture("spill_dir = \"/nowhere/at/all\"");
    let words = ["snapshot", "create", "--source", &server.url(), "--name", "one"];
    repo.run(&words).exits(19).says("/nowhere/at/all").says("spill_dir");
    assert!(!repo.root().exists());
}

/// A slow capture that is ended by its budget with exit code 18 and `words`, while `meanwhile` runs again and again.
fn is_ended(server: &Server, budget: &str, words: &str, mut meanwhile: impl FnMut(&mut redis::Connection)) {
    let repo = Repo::folder().with_capture(budget);
    let (url, before) = (server.url(), forks(server));
    let mut job = repo.cli.spawn(&repo.args(&["snapshot", "create", "--source", &url, "--name", "one"]));
    let mut link = server.connect();
    let begun = Instant::now();
    while job.running.is_alive() && begun.elapsed() < PATIENCE {
        meanwhile(&mut link);
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcome = job.wait(PATIENCE).exits(18).says("ended to spare the server").says(words);
    assert!(!outcome.stderr.contains("is retaken"), "a budget is no fault of a node: {outcome}");
    wait_child_gone(server, before);
    assert!(repo.list().iter().all(|(_, status)| status != "available"));
}

#[test]
fn a_capture_that_costs_its_server_too_much_is_ended_with_the_numbers() {
    // 20000 keys of 4 KB, one a millisecond: 20 s, in which everything can happen
    let server = server(&["rdb-key-save-delay 1000", "maxmemory-policy allkeys-random"]);
    let fill = "for i = 1, 20000 do redis.call('SET', i, string.rep(tostring(i), 800)) end";
    server.run(&["EVAL", fill, "0"]);
    is_ended(&server, "time_max = \"1s\"", "longer than the 1 s of time_max", |_| ());
    is_ended(&server, "memory_max = \"1MiB\"", "more than the 1 MiB of memory_max", |_| ());
    is_ended(&server, "copied_max = \"4MiB\"", "more than the 4 MiB of copied_max", |link| {
        let rewrite = "for i = 1, 2000 do local k = math.random(20000); redis.call('SETRANGE', k, 0, 'changed') end";
        nodes::command(&["EVAL", rewrite, "0"]).exec(link).unwrap();
    });
    // a few keys each time: some go after the first look, whenever that is
    is_ended(&server, "evictions_max = 0", "more than the 0 of evictions_max", |link| {
        let used: u64 = server.info("used_memory").unwrap().parse().unwrap();
        let most = (used - (64 << 10)).to_string();
        nodes::command(&["CONFIG", "SET", "maxmemory", &most]).exec(link).unwrap();
        let _evicts = nodes::command(&["SET", "one", "more"]).query::<redis::Value>(link);
    });
}

/// A server that answers `PSYNC` only when it begins, which is never.
#[test]
fn the_wait_for_a_child_ends_when_the_job_is_interrupted_and_by_its_budget() {
    let server = server(&["repl-diskless-sync-delay 1000"]);
    server.run(&["SET", "a", "1"]);
    let (url, is_asked) =
        (server.url(), || server.info("slave0").is_some() || server.info("connected_slaves") != Some("0".into()));
    let repo = Repo::folder();
    let words = repo.args(&["snapshot", "create", "--source", &url, "--name", "one"]);
    let job = repo.cli.spawn(&words);
    wait_until("it waits for the child", is_asked);
    job.running.signal("INT");
    job.wait(Duration::from_secs(60)).exits(1).says("interrupted");
    let repo = Repo::folder().with_capture("time_max = \"1s\"");
    repo.run(&["snapshot", "create", "--source", &url, "--name", "one"]).exits(18).says("time_max");
}

#[test]
fn shards_that_may_not_run_together_are_taken_in_turns() {
    let slots = policies::shards::equal(3).unwrap();
    let cluster = Cluster::start_with(&Options::new().line("rdb-key-save-delay 500"), slots, 0);
    Keyspace::new(62, 1500).load(&cluster.nodes());
    for limit in ["per_host_max = 1", "per_cluster_max = 2"] {
        let repo = Repo::folder().with_capture(limit);
        let made = repo.create(&cluster.url(), "one");
        let time = |index: usize, field: &str| made["shards"][index][field].as_str().unwrap().to_owned();
        assert!(time(2, "taken_at") >= time(0, "stored_at"), "{limit}: {made}");
        let second_waits = time(1, "taken_at") >= time(0, "stored_at");
        assert_eq!(second_waits, limit.contains("host"), "{limit}: {made}");
        let (nodes, _launched) = repo.launch("one", &["--shards", "2"]);
        compare(&cluster.nodes(), &nodes).assert_equal();
    }
}

#[test]
fn jobs_that_share_a_catalog_take_turns_at_a_node() {
    let server = server(&["rdb-key-save-delay 1000"]);
    fill(&server, 2000);
    let repo = Repo::folder();
    let config = format!(
        "[catalog]\npath = \"catalog.sqlite\"\n[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n\
         [clusters.orders]\nsources = [\"{}\"]\nrepository = \"main\"\n",
        repo.url,
        server.url()
    );
    let file = repo.path("backupd.toml");
    std::fs::write(&file, config).unwrap();
    let words = ["snapshot", "create", "orders", "-o", "json", "--config", file.to_str().unwrap(), "--name"];
    let before = forks(&server);
    let first = repo.cli.spawn(&[&words[..], &["first"]].concat());
    wait_until("the first runs", || forks(&server) > before);
    let impatient = repo.cli.run(&[&words[..], &["impatient", "--settle-wait", "0s"]].concat());
    let second = repo.cli.spawn(&[&words[..], &["second"]].concat());
    impatient.exits(11).says("captures of node").says("snapshot first");
    let [first, second] = [first, second].map(|job| job.wait(PATIENCE).ok().json());
    let time = |made: &serde_json::Value, field: &str| made["shards"][0][field].as_str().unwrap().to_owned();
    assert!(time(&second, "taken_at") >= time(&first, "stored_at"), "{first} {second}");
}

#[test]
fn no_more_bytes_go_by_than_are_allowed() {
    let server = server(&[]);
    fill(&server, 40_000);
    for rate in ["source_rate_max", "store_rate_max"] {
        let repo = Repo::folder().with_capture(&format!("{rate} = \"1MiB\""));
        let outcome = repo.run(&["snapshot", "create", "--source", &server.url(), "--name", "one"]).ok();
        let object = &outcome.json()["shards"][0]["object"];
        let bytes = object[if rate.starts_with("source") { "plain_bytes" } else { "stored_bytes" }].as_u64().unwrap();
        // the last bytes that were granted need not have passed
        let seconds = (bytes >> 20).saturating_sub(1);
        assert!(seconds >= 1 && outcome.took >= Duration::from_secs(seconds), "{bytes} bytes: {outcome}");
    }
}

/// How long the server's child lives in a capture that `job` makes.
fn lifetime(server: &Server, job: impl FnOnce() -> Spawned) -> (Duration, Spawned) {
    let mut link = server.connect();
    let mut saving = || nodes::info(&mut link, "rdb_bgsave_in_progress").as_deref() == Some("1");
    let job = job();
    let wait = |what: bool, saving: &mut dyn FnMut() -> bool| {
        let begun = Instant::now();
        while saving() != what {
            assert!(begun.elapsed() < PATIENCE, "the child did not come or go");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait(true, &mut saving);
    let born = Instant::now();
    wait(false, &mut saving);
    (born.elapsed(), job)
}

#[test]
#[ignore = "minutes: the full form, see docs/capture.md"]
fn a_store_that_stands_still_for_ninety_seconds_costs_the_server_nothing() {
    let server = server(&["repl-timeout 60"]);
    fill(&server, 4_000_000);
    let mut times = Vec::new();
    for stall in [Duration::ZERO, Duration::from_secs(90)] {
        let repo = Repo::bucket("ninety");
        let released = Arc::new(AtomicBool::new(stall.is_zero()));
        let proxy = Faulty::start(&repo.bucket.as_ref().unwrap().endpoint, stalls_until(&released));
        let begun = Instant::now();
        let (lived, job) = lifetime(&server, || create_through(&repo, &server, &proxy));
        std::thread::sleep(stall.saturating_sub(begun.elapsed()));
        released.store(true, Ordering::Relaxed);
        let outcome = job.wait(PATIENCE).ok();
        repo.json(&["snapshot", "verify", "one"]);
        let object = &outcome.json()["shards"][0]["object"];
        let bytes = |field: &str| object[field].as_u64().unwrap() / 1_000_000;
        println!(
            "store stalled for {} s: {} MB of RDB, {} MB stored, the child lived {:.2} s, the whole job took {:.1} s",
            stall.as_secs(),
            bytes("plain_bytes"),
            bytes("stored_bytes"),
            lived.as_secs_f64(),
            outcome.took.as_secs_f64()
        );
        times.push(lived.as_secs_f64());
    }
    println!("ratio of the child's lifetimes: {:.2}", times[1] / times[0]);
}
