//! Restores that were cut: what they leave is known for what it is, and the same command gets through.

use std::time::Duration;

use crate::fixture::{Launched, Repo};
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::server::{Options, Server};
use crate::redis_server::wait_until;

const LIMIT: Duration = Duration::from_secs(120);

fn keys(server: &Server) -> u64 {
    nodes::command(&["DBSIZE"]).query(&mut server.connect()).unwrap()
}

#[test]
fn nodes_that_were_left_half_full_are_refused_until_told_otherwise() {
    let source = Server::standalone();
    Keyspace::new(94, 30_000).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let target = Cluster::start(2, 0);
    let address = target.shards[0].primary.address();
    let words = ["restore", "one", "--nodes", &address];
    let primaries: Vec<&Server> = target.servers().collect();
    let cut = |more: &[&str]| {
        let mut restore = repo.cli.spawn(&repo.args(&[&words[..], more].concat()));
        wait_until("a part of the keys is there", || {
            primaries.iter().any(|server| keys(server) > 500) || !restore.running.is_alive()
        });
        restore.running.kill();
        restore.wait(LIMIT);
        // what was sent is still being worked on
        let mut last = u64::MAX;
        wait_until("the nodes are at rest", || {
            let now: u64 = primaries.iter().map(|server| keys(server)).sum();
            std::mem::replace(&mut last, now) == now
        });
    };
    cut(&[]);
    repo.run(&words).exits(18).says("did not end").says("--resume").says("--replace");
    cut(&["--replace"]);
    let outcome = repo.json(&[&words[..], &["--resume"]].concat());
    assert_eq!(outcome["keys"], outcome["verified"]["keys"]);
    compare(&source.nodes(), &target.nodes()).assert_equal();
    // a whole cluster is a stranger's: nothing empties it
    for flag in ["--resume", "--replace"] {
        repo.run(&[&words[..], &[flag]].concat()).exits(18).says("not empty");
    }
    compare(&source.nodes(), &target.nodes()).assert_equal();
}

#[test]
fn a_folder_that_was_left_half_full_is_taken_again_when_told() {
    let source = Server::standalone();
    Keyspace::new(95, 20_000).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let dir = repo.path("launched");
    let launched = Launched { dir: dir.clone() };
    let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--shards", "3", "--replicas", "1"];
    let mut restore = repo.cli.spawn(&repo.args(&words));
    wait_until("servers are started", || dir.join("stop.sh").exists());
    repo.run(&[&words[..], &["--replace"]].concat()).exits(11).says("another restore");
    restore.running.kill();
    restore.wait(LIMIT);
    repo.run(&words).exits(18).says("did not end").says("--replace");
    let outcome = repo.json(&[&words[..], &["--replace"]].concat());
    assert_eq!(outcome["nodes"].as_array().unwrap().len(), 6);
    assert!(!dir.join("restore-unfinished").exists());
    let target = nodes::discover(&format!("redis://127.0.0.1:{}", outcome["nodes"][0]["port"]));
    compare(&source.nodes(), &target).assert_equal();
    drop(launched);

    let out = repo.path("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("precious"), "x").unwrap();
    let words = ["restore", "one", "--out", out.to_str().unwrap(), "--replace"];
    repo.run(&words).exits(18).says("precious");
    assert!(out.join("precious").exists());
}

/// A server that loads slowly what it is given, and what the file is made of.
fn slow_to_load(repo: &Repo) -> (Server, Server) {
    let (source, lines) = (Server::standalone(), ["key-load-delay 300", "loading-process-events-interval-bytes 1024"]);
    Keyspace::new(96, 10_000).load(&source.nodes());
    repo.create(&source.url(), "one");
    (source, Server::start(&lines.iter().fold(Options::new(), |options, line| options.line(*line))))
}

fn is_loading(server: &Server) -> bool {
    server.info("loading").as_deref() == Some("1")
}

fn setting(target: &Server, name: &str) -> String {
    let [_, value]: [String; 2] = nodes::command(&["CONFIG", "GET", name]).query(&mut target.connect()).unwrap();
    value
}

#[test]
fn a_node_that_loads_our_file_when_we_die_is_never_taken_for_a_restored_one() {
    let repo = Repo::folder();
    let (source, target) = slow_to_load(&repo);
    let address = target.address();
    let words = ["restore", "one", "--nodes", &address];
    let mut restore = repo.cli.spawn(&repo.args(&words));
    wait_until("it loads", || is_loading(&target) || !restore.running.is_alive());
    restore.running.kill();
    restore.wait(LIMIT);
    // what it has received it loads; where that is not all, it goes back to the mark alone
    wait_until("it has loaded", || !is_loading(&target));
    assert_eq!(setting(&target, "repl-diskless-load"), "swapdb");
    repo.run(&words).exits(18).says("did not end").says("--resume");
    // nor when somebody frees it by hand
    target.run(&["REPLICAOF", "NO", "ONE"]);
    repo.run(&words).exits(18).says("did not end");
    target.run(&["CONFIG", "SET", "key-load-delay", "0"]);
    repo.json(&[&words[..], &["--replace"]].concat());
    compare(&source.nodes(), &target.nodes()).assert_equal();
    assert_eq!(setting(&target, "repl-diskless-load"), "disabled");
}

#[test]
fn a_node_follows_nobody_and_knows_no_password_of_ours_when_a_restore_is_interrupted() {
    let repo = Repo::folder();
    let (_source, target) = slow_to_load(&repo);
    let address = target.address();
    let words = ["restore", "one", "--nodes", &address];
    let restore = repo.cli.spawn(&repo.args(&words));
    wait_until("it loads", || is_loading(&target));
    restore.running.signal("INT");
    restore.wait(LIMIT).exits(1).says("interrupted").says("--resume");
    assert_eq!(target.info("role").as_deref(), Some("master"));
    assert_eq!([setting(&target, "masterauth"), setting(&target, "repl-diskless-load")], ["", "disabled"]);
    repo.run(&words).exits(18).says("did not end");
}

/// What was shifted by a restore that was cut is shifted by as much when it goes on, and what is there stays.
#[test]
fn a_restore_that_shifts_expiries_goes_on_with_what_it_has_sent() {
    const FAR: u64 = 4_102_444_800_000;
    let source = Server::standalone();
    let script = "for i = 1, 20000 do redis.call('SET', 'key:' .. i, redis.sha1hex(i), 'PXAT', ARGV[1]) end";
    source.run(&["EVAL", script, "0", &FAR.to_string()]);
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let target = Cluster::start(2, 0);
    let address = target.shards[0].primary.address();
    let words = ["restore", "one", "--nodes", &address, "--ttl", "shift"];
    let is_sent = |server: &Server| {
        let mark: Vec<String> = nodes::command(&["KEYS", "backupd:*"]).query(&mut server.connect()).unwrap();
        let text = mark
            .first()
            .and_then(|key| nodes::command(&["GET", key]).query::<Option<String>>(&mut server.connect()).ok()?);
        text.is_some_and(|text| text.contains("\"is_sent\":true"))
    };
    // the second node writes nothing for now
    target.shards[1].primary.run(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    let mut job = repo.cli.spawn(&repo.args(&words));
    wait_until("the first node has its keys", || is_sent(&target.shards[0].primary) || !job.running.is_alive());
    job.running.kill();
    job.wait(LIMIT);
    target.shards[1].primary.run(&["CLIENT", "UNPAUSE"]);
    let restored = |server: &Server| server.info("cmdstat_restore").unwrap().split(',').next().unwrap().to_owned();
    let before = restored(&target.shards[0].primary);
    repo.json(&[&words[..], &["--resume"]].concat());
    assert_eq!(restored(&target.shards[0].primary), before, "it was sent again");
    let mut found = std::collections::BTreeSet::new();
    for node in target.nodes() {
        let mut link = nodes::connect(&node.url);
        let keys: Vec<String> = nodes::command(&["KEYS", "*"]).query(&mut link).unwrap();
        for key in keys.iter().take(50) {
            found.insert(nodes::command(&["PEXPIRETIME", key]).query::<u64>(&mut link).unwrap());
        }
    }
    assert!(found.len() == 1 && found.first().is_some_and(|at| *at > FAR), "{found:?}");
}

/// Processes that run in a folder below this one.
fn started_from(dir: &std::path::Path) -> usize {
    let place = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.unwrap().path().join("cwd")).ok();
    std::fs::read_dir("/proc").unwrap().filter_map(place).filter(|place| place.starts_with(dir)).count()
}

/// Servers load what is split while it is split: when an input turns out bad, none of them is left.
#[test]
fn nothing_is_left_of_servers_that_load_when_the_end_of_an_input_is_bad() {
    let source = Cluster::start(2, 0);
    Keyspace::new(98, 20_000).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let is_last = |path: &std::path::Path| path.file_name().is_some_and(|name| name == "shard-0001-1.bkd");
    let (object, whole) = repo.snapshot_files().into_iter().find(|(path, _)| is_last(path)).unwrap();
    let mut damaged = whole.clone();
    // the footer is read last
    damaged[whole.len() - 1] ^= 1;
    let dir = repo.path("launched");
    let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--shards", "3"];
    let launched = Launched { dir: dir.clone() };
    repo.json(&words);
    assert!(started_from(&dir) >= 3);
    drop(launched);
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&object, &damaged).unwrap();
    repo.run(&words).exits(17).says("shard-0001-1.bkd");
    wait_until("the servers are gone", || started_from(&dir) == 0);
    assert!(!dir.exists() || std::fs::read_dir(&dir).unwrap().next().is_none(), "the folder is not as it was");
}

#[test]
fn a_server_that_ends_while_it_is_given_its_file_is_told_with_its_log() {
    use std::os::unix::fs::PermissionsExt as _;
    let source = Server::standalone();
    Keyspace::new(99, 2000).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let (dir, engine) = (repo.path("launched"), repo.path("redis-server"));
    let program = crate::redis_server::program();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {} --version\necho no room here; exit 3\n",
        program.display()
    );
    std::fs::write(&engine, script).unwrap();
    std::fs::set_permissions(&engine, std::fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["restore", "one", "--launch", dir.to_str().unwrap()];
    let failed = repo.run(&[&words[..], &["--engine", engine.to_str().unwrap()]].concat());
    failed.exits(1).says("the server ended").says("no room here");
    let _launched = Launched { dir: dir.clone() };
    repo.run(&words).exits(18).says("did not end");
    repo.json(&[&words[..], &["--replace"]].concat());
}
