//! What must work on every engine, and what only some of them have.

use serde_json::Value;

use crate::fixture::{Launched, Repo};
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::server::{Engine, Options, Server};
use crate::redis_server::{ask, options, wait_until};

/// Snapshots `source` and restores it into servers of the same engine.
fn there_and_back(repo: &Repo, engine: &Engine, source: &str, shards: &str) -> (Value, Vec<nodes::Node>, Launched) {
    let made = repo.create(source, "one");
    let program = engine.program();
    let (nodes, launched) = repo.launch("one", &["--shards", shards, "--engine", program.to_str().unwrap()]);
    (made, nodes, launched)
}

fn a_replicated_server(engine: &Engine) {
    let start = || Server::start(&Options::new().engine(engine.clone()));
    let (primary, replica) = (start(), start());
    Keyspace::new(41, 2000).for_old(engine.is_oldest()).load(&primary.nodes());
    replica.replicate(&primary);
    replica.wait_caught_up(&primary);
    let repo = Repo::folder();
    let (made, nodes, _launched) = there_and_back(&repo, engine, &primary.url(), "2");
    assert_eq!(made["shards"][0]["node"]["role"], "replica", "{engine:?}");
    compare(&primary.nodes(), &nodes).assert_equal();
}

fn a_cluster(engine: &Engine) {
    let slots = policies::shards::equal(2).unwrap();
    let cluster = Cluster::start_with(&Options::new().engine(engine.clone()), slots, 1);
    Keyspace::new(42, 2000).for_old(engine.is_oldest()).load(&cluster.nodes());
    cluster.wait_replicas();
    let repo = Repo::folder();
    let (made, nodes, _launched) = there_and_back(&repo, engine, &cluster.url(), "3");
    assert_eq!((made["mode"].as_str(), made["shards"].as_array().unwrap().len()), (Some("cluster"), 2));
    assert_eq!(nodes.len(), 3, "{engine:?}");
    compare(&cluster.nodes(), &nodes).assert_equal();
}

/// Hash fields with a time of their own came with Redis 7.4 and Valkey 9. Valkey 9 hangs up on a client that has not
/// announced a version that can read them.
fn hash_fields_that_expire(engine: &Engine) {
    let server = Server::start(&Options::new().engine(engine.clone()));
    let at = "4102444800123";
    for key in ["small", "{small}large"] {
        for index in 0..if key == "small" { 3 } else { 2000 } {
            server.run(&["HSET", key, &format!("field-{index}"), "value"]);
        }
        server.run(&["HPEXPIREAT", key, at, "FIELDS", "2", "field-0", "field-2"]);
    }
    let repo = Repo::folder();
    let (_, nodes, _launched) = there_and_back(&repo, engine, &server.url(), "1");
    let mut link = nodes::connect(&nodes[0].url);
    for key in ["small", "{small}large"] {
        let words = ["HPEXPIRETIME", key, "FIELDS", "3", "field-0", "field-1", "field-2"];
        let times: Vec<i64> = nodes::command(&words).query(&mut link).unwrap();
        assert_eq!(times, [at.parse().unwrap(), -1, at.parse().unwrap()], "{engine:?} {key}");
    }
    compare(&server.nodes(), &nodes).assert_equal();
}

/// By `BGSAVE` of a replica.
fn a_save(engine: &Engine) {
    let start = || Server::start(&Options::new().engine(engine.clone()));
    let (primary, replica) = (start(), start());
    Keyspace::new(44, 1000).for_old(engine.is_oldest()).load(&primary.nodes());
    replica.replicate(&primary);
    replica.wait_caught_up(&primary);
    let repo = Repo::folder();
    let words = ["snapshot", "create", "--source", &primary.url(), "--name", "one", "--method", "bgsave"];
    let made = repo.json(&words);
    assert_eq!(
        (made["method"].as_str(), made["shards"][0]["node"]["role"].as_str()),
        (Some("bgsave"), Some("replica"))
    );
    let (nodes, _launched) = repo.launch("one", &["--shards", "2", "--engine", engine.program().to_str().unwrap()]);
    compare(&primary.nodes(), &nodes).assert_equal();
}

#[test]
fn a_replicated_server_is_captured_and_restored_into_itself() {
    Engine::with_oldest().iter().for_each(a_replicated_server);
}

#[test]
fn a_cluster_is_captured_and_restored_into_itself() {
    Engine::with_oldest().iter().for_each(a_cluster);
}

#[test]
fn hash_fields_that_expire_are_captured_and_restored() {
    Engine::all().iter().filter(|engine| engine.has_field_times()).for_each(hash_fields_that_expire);
}

#[test]
fn a_save_of_the_oldest_and_the_newest_is_captured_and_restored() {
    Engine::with_oldest().iter().filter(|engine| **engine != Engine::Redis).for_each(a_save);
}

#[test]
#[ignore = "minutes, and engines that only `tests/setup.sh engines` installs: see docs/capture.md"]
fn every_engine_is_captured_and_restored_in_every_way() {
    for engine in Engine::every() {
        a_replicated_server(&engine);
        a_cluster(&engine);
        a_save(&engine);
        if engine.has_field_times() {
            hash_fields_that_expire(&engine);
        }
        println!(
            "{engine:?}: primary and replica, cluster, save; hash fields with a time: {}",
            engine.has_field_times()
        );
    }
}

#[test]
fn an_atomic_migration_of_slots_is_seen_and_waited_for() {
    let engine = Engine::Extra("valkey-9");
    if engine.is_recorded_as_unavailable() {
        return println!("valkey-9 is recorded as unavailable here: not run");
    }
    let slots = policies::shards::equal(2).unwrap();
    let cluster = Cluster::start_with(&Options::new().engine(engine), slots, 0);
    Keyspace::new(43, 1000).load(&cluster.nodes());
    let (source, target) = (&cluster.shards[0].primary, &cluster.shards[1].primary);
    // slow enough to be seen: a key of every slot, and a pause after each
    source.run(&["CONFIG", "SET", "rdb-key-save-delay", "20000"]);
    let id = ask(target, &["CLUSTER", "MYID"]);
    source.run(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "4000", "NODE", &id]);
    let unsettled = || {
        let found = crate::harness::s3::block_on(backupd::redis::discover(&options(&[&target.url()])));
        found.unwrap().unsettled()
    };
    let what = unsettled().expect("the migration is seen");
    assert!(what.contains("migration of 0-4000"), "{what}");
    let view = ask(source, &["CLUSTER", "NODES"]);
    assert!(!view.contains('['), "no marker tells of it: {view}");

    let repo = Repo::folder();
    let words = ["snapshot", "create", "--source", &cluster.url(), "--name", "early", "--settle-wait", "1s"];
    repo.run(&words).exits(18).says("migration of 0-4000");
    source.run(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
    let made = repo.create(&cluster.url(), "one");
    wait_until("the migration is over", || unsettled().is_none());
    assert_eq!(made["shards"][0]["slots"], "0-4000,8192-16383", "{made}");
    let program = Engine::Extra("valkey-9").program();
    let (nodes, _launched) = repo.launch("one", &["--shards", "2", "--engine", program.to_str().unwrap()]);
    compare(&nodes::discover(&cluster.url()), &nodes).assert_equal();
}
