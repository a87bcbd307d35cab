//! Restores into running nodes on a bad day: the error names the shard and what to do, and the same restore succeeds once
//! the cause is gone.

use std::time::Duration;

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::server::{Options, Server};
use crate::redis_server::wait_until;

const LIMIT: Duration = Duration::from_secs(180);

fn keys(server: &Server) -> u64 {
    nodes::command(&["DBSIZE"]).query(&mut server.connect()).unwrap()
}

/// A snapshot with so many keys, and what it was made of.
fn snapshot(keys: u64) -> (Server, Repo) {
    let source = Server::standalone();
    Keyspace::new(97, keys).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    (source, repo)
}

/// The same restore again, with what its error told to give, and all of it is there.
fn again(repo: &Repo, words: &[&str], more: &[&str], source: &Server, target: &Cluster) {
    wait_until("the cluster is whole", || {
        let says_ok = |server: &Server| {
            let info = nodes::command(&["CLUSTER", "INFO"]).query::<String>(&mut server.connect());
            info.is_ok_and(|text| text.contains("cluster_state:ok"))
        };
        target.servers().all(says_ok)
    });
    repo.json(&[words, more].concat());
    compare(&source.nodes(), &target.nodes()).assert_equal();
}

#[test]
fn a_node_that_dies_in_the_middle_is_named_and_the_others_need_not_be_sent_again() {
    let (source, repo) = snapshot(30_000);
    let mut target = Cluster::start(2, 0);
    let address = target.shards[0].primary.address();
    let words = ["restore", "one", "--nodes", &address];
    let mut job = repo.cli.spawn(&repo.args(&words));
    wait_until("a part of its keys is there", || keys(&target.shards[1].primary) > 500 || !job.running.is_alive());
    target.shards[1].primary.kill();
    job.wait(LIMIT).exits(15).says("shard 1").says(&target.shards[1].primary.address()).says("--resume");
    target.shards[1].primary.restart();
    repo.run(&words).exits(18).says("did not end");
    again(&repo, &words, &["--resume"], &source, &target);
}

#[test]
fn a_node_that_is_full_evicts_nothing_is_named_and_has_room_the_next_time() {
    let (source, repo) = (Server::standalone(), Repo::folder());
    // no value is larger than the room that is left
    let fill = "for i = 1, 6000 do redis.call('SET', 'key:' .. i, string.rep(tostring(i), 200)) end";
    source.run(&["EVAL", fill, "0"]);
    repo.create(&source.url(), "one");
    for policy in ["noeviction", "allkeys-random", "volatile-ttl"] {
        let target = Cluster::start(2, 0);
        let node = &target.shards[1].primary;
        let used: u64 = node.info("used_memory").unwrap().parse().unwrap();
        node.run(&["CONFIG", "SET", "maxmemory-policy", policy]);
        node.run(&["CONFIG", "SET", "maxmemory", &(used + (200 << 10)).to_string()]);
        let address = target.shards[0].primary.address();
        let words = ["restore", "one", "--nodes", &address, "--ignore-memory"];
        // nothing is evicted, the mark neither, until all of it is there
        repo.run(&words).exits(18).says("shard 1").says(&node.address()).says("raise its maxmemory").says("--resume");
        assert_eq!(node.info("evicted_keys").as_deref(), Some("0"));
        let room = (used + (64 << 20)).to_string();
        node.run(&["CONFIG", "SET", "maxmemory", &room]);
        again(&repo, &words, &["--resume"], &source, &target);
        assert_eq!(node.info("maxmemory_policy").as_deref(), Some(policy));
    }
}

#[test]
fn a_node_that_would_evict_the_mark_and_lets_nobody_change_that_is_refused() {
    let (_source, repo) = snapshot(500);
    let lines = ["maxmemory 1gb", "maxmemory-policy allkeys-lru", "user default on nopass ~* &* +@all -config|set"];
    let target = Server::start(&lines.iter().fold(Options::new(), |options, line| options.line(*line)));
    let address = target.address();
    let words = ["restore", "one", "--nodes", &address, "--method", "restore"];
    repo.run(&words).exits(18).says(&address).says("allkeys-lru").says("maxmemory-policy");
    assert_eq!(keys(&target), 1, "the mark alone");
}

#[test]
fn a_wrong_password_a_cluster_with_a_hole_and_a_missing_key_touch_nothing() {
    let (source, repo) = snapshot(500);
    let options = Options::new().password("right");
    let target = Cluster::start_with(&options, policies::shards::equal(2).unwrap(), 0);
    let address = target.shards[0].primary.address();
    let (file, words) = (repo.path("password"), ["restore", "one", "--nodes", &address, "--target-password-file"]);
    let words = [&words[..], &[file.to_str().unwrap()]].concat();
    std::fs::write(&file, "wrong").unwrap();
    repo.run(&words).exits(13).says(&address).says("--target-password-file");
    std::fs::write(&file, "right").unwrap();

    let hole = &target.shards[1].primary;
    hole.run(&["CLUSTER", "DELSLOTS", "16383"]);
    repo.run(&words).exits(18).says("16383");
    hole.run(&["CLUSTER", "ADDSLOTS", "16383"]);

    let (key_file, aside) = (repo.path("keys.json"), repo.path("aside.json"));
    std::fs::rename(&key_file, &aside).unwrap();
    repo.cli.run(&["key", "generate", key_file.to_str().unwrap()]).ok();
    repo.run(&words).exits(12).says("key");
    std::fs::rename(&aside, &key_file).unwrap();
    assert_eq!(target.servers().map(keys).sum::<u64>(), 0);
    again(&repo, &words, &[], &source, &target);
}

#[test]
fn an_object_that_is_missing_or_damaged_is_named_before_any_node_is_touched() {
    let (source, target) = (Cluster::start(2, 0), Cluster::start(2, 0));
    Keyspace::new(98, 1000).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let is_second = |path: &std::path::Path| path.file_name().is_some_and(|name| name == "shard-0001-1.bkd");
    let (object, whole) = repo.snapshot_files().into_iter().find(|(path, _)| is_second(path)).unwrap();
    let address = target.shards[0].primary.address();
    let words = ["restore", "one", "--nodes", &address];
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::remove_file(&object).unwrap();
    repo.run(&words).exits(17).says("shard-0001-1.bkd").says("missing");
    std::fs::write(&object, damaged).unwrap();
    repo.run(&words).exits(17).says("shard-0001-1.bkd");
    assert_eq!(target.servers().map(keys).sum::<u64>(), 0);
    std::fs::write(&object, &whole).unwrap();
    repo.json(&words);
    compare(&source.nodes(), &target.nodes()).assert_equal();
}
