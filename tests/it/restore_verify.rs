//! What was loaded is read back and compared with the snapshot.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture::{Launched, Repo};
use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::server::{Engine, Options, Server};

#[test]
fn every_shard_is_read_back_and_equal() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(71, 2000).load(&cluster.nodes());
    let repo = Repo::folder();
    let made = repo.create(&cluster.url(), "one");
    let dir = repo.path("launched");
    let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--shards", "2", "--replicas", "1"];
    let outcome = repo.json(&words);
    let _launched = Launched { dir };
    let keys: u64 = made["shards"].as_array().unwrap().iter().map(|shard| shard["rdb"]["keys"].as_u64().unwrap()).sum();
    assert_eq!(outcome["verified"], serde_json::json!({ "nodes": 2, "keys": keys }));
    let roles: Vec<&str> = outcome["nodes"].as_array().unwrap().iter().map(|n| n["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["primary", "primary", "replica", "replica"]);

    let target = Server::standalone();
    let outcome = repo.json(&["restore", "one", "--shards", "1", "--nodes", &target.address(), "--no-verify"]);
    assert_eq!(outcome["verified"], serde_json::Value::Null);
    compare(&cluster.nodes(), &target.nodes()).assert_equal();
}

/// A stranger who changes a value while the node is read back is noticed, though the number of keys is right.
#[test]
fn a_changed_value_is_found_and_its_node_named() {
    let source = Server::standalone();
    Keyspace::new(72, 500).load(&source.nodes());
    source.run(&["SET", "changed", "one"]);
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    // the node waits before it sends its data, so there is time for the stranger
    let target = Server::start(&Options::new().line("repl-diskless-sync-delay 2"));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut link = target.connect();
            while !ended.load(Ordering::Relaxed) {
                let set: Option<String> = nodes::command(&["SET", "changed", "two", "XX"]).query(&mut link).unwrap();
                if set.is_some() {
                    break;
                }
            }
        });
        let outcome = repo.run(&["restore", "one", "--nodes", &target.address(), "--method", "restore"]);
        ended.store(true, Ordering::Relaxed);
        outcome.exits(17).says("shard 0").says(&target.address()).says("other contents of string keys");
    });
    // without the stranger the same restore succeeds
    repo.json(&["restore", "one", "--nodes", &target.address(), "--method", "restore", "--replace"]);
    compare(&source.nodes(), &target.nodes()).assert_equal();
}

/// A node that evicts what expires, and lets nobody change that.
#[test]
fn what_a_node_evicts_is_missed() {
    let source = Server::standalone();
    for index in 0..300 {
        source.run(&["SET", &format!("key:{index}"), &"x".repeat(20_000), "PXAT", &FAR.to_string()]);
    }
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let lines = ["maxmemory 4mb", "maxmemory-policy volatile-random", "user default on nopass ~* &* +@all -config|set"];
    let target = Server::start(&lines.iter().fold(Options::new(), |options, line| options.line(*line)));
    let outcome = repo.run(&["restore", "one", "--nodes", &target.address(), "--ignore-memory", "--method", "restore"]);
    outcome.exits(17).says(&target.address()).says("evicted").says("maxmemory");
}

/// Expiries, those of fields too, become what was asked for; they are compared so, and what ends meanwhile is no
/// difference.
#[test]
fn expiries_of_keys_and_fields_are_kept_moved_or_dropped() {
    for engine in [Engine::Extra("redis-8"), Engine::Extra("valkey-9")] {
        if engine.is_recorded_as_unavailable() {
            println!("{engine:?} is recorded as unavailable here: not run");
            continue;
        }
        let source = Server::start(&Options::new().engine(engine.clone()));
        for index in 0..150 {
            let key = format!("hash:{index}");
            source.run(&["HSET", &key, "a", "1", "b", &"x".repeat(index), "c", "3"]);
            source.run(&["HPEXPIRE", &key, &(40 + 500 * index).to_string(), "FIELDS", "1", "a"]);
            source.run(&["HPEXPIREAT", &key, &FAR.to_string(), "FIELDS", "1", "b"]);
            source.run(&["SET", &format!("string:{index}"), "x", "PX", &(40 + 300 * index).to_string()]);
        }
        source.run(&["SET", "far", "x", "PXAT", &FAR.to_string()]);
        let repo = Repo::folder();
        repo.create(&source.url(), "one");
        let program = engine.program().display().to_string();
        for ttl in ["keep", "drop", "shift"] {
            let (target, _launched) = repo.launch("one", &["--engine", &program, "--ttl", ttl, "--mode", "standalone"]);
            let mut link = nodes::connect(&target[0].url);
            let mut times: Vec<i64> = vec![nodes::command(&["PEXPIRETIME", "far"]).query(&mut link).unwrap()];
            // one hash in a listpack, and one that is none
            for key in ["hash:3", "hash:149"] {
                let command = nodes::command(&["HPEXPIRETIME", key, "FIELDS", "1", "b"]);
                times.push(command.query::<Vec<i64>>(&mut link).unwrap()[0]);
            }
            let right = |at: &i64| match ttl {
                "keep" => *at == FAR,
                "drop" => *at == -1,
                _ => (FAR + 1..FAR + 3_600_000).contains(at),
            };
            assert!(times.iter().all(right), "{engine:?} --ttl {ttl}: {times:?}");
        }
    }
}

/// 2100-01-01 in milliseconds.
const FAR: i64 = 4_102_444_800_000;
