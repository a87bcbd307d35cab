//! Restores into other engines than the one that wrote the data.

use crate::fixture::Repo;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::server::{Engine, Options, Server};

#[test]
fn every_engine_gets_the_keys_of_every_other() {
    for source in Engine::all() {
        let server = Server::start(&Options::new().engine(source.clone()));
        Keyspace::new(61, 1500).load(&server.nodes());
        let repo = Repo::folder();
        repo.create(&server.url(), "one");
        let older = Some(Engine::Extra("valkey-8.1")).filter(|engine| !engine.is_recorded_as_unavailable());
        for target in Engine::all().into_iter().chain(older) {
            let program = target.program();
            let (nodes, _launched) =
                repo.launch("one", &["--shards", "2", "--drop", "functions", "--engine", program.to_str().unwrap()]);
            let report = compare(&server.nodes(), &nodes);
            assert!(report.is_equal(), "{source:?} to {target:?}: {report}");
        }
    }
}

#[test]
fn what_an_engine_cannot_hold_is_refused_unless_it_is_named() {
    let engine = Engine::Extra("valkey-9");
    if engine.is_recorded_as_unavailable() {
        return println!("valkey-9 is recorded as unavailable here: not run");
    }
    let server = Server::start(&Options::new().engine(engine));
    server.run(&["HSET", "hash", "field", "value", "other", "value"]);
    server.run(&["HPEXPIREAT", "hash", "4102444800123", "FIELDS", "1", "field"]);
    server.run(&["SET", "string", "value"]);
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    // Redis 7.0 knows no expiry of fields
    let older = Engine::Redis.program().display().to_string();
    let dir = repo.path("refused");
    let words = ["restore", "one", "--launch", dir.to_str().unwrap(), "--engine", &older];
    let plan = repo.json(&[&words[..], &["--plan", "--drop", "field-ttls"]].concat());
    assert_eq!(plan["converted_to"], serde_json::json!(["redis-7.0"]));
    assert_eq!(plan["losses"], serde_json::json!([{ "kind": "field-ttls", "places": 1 }]));
    repo.run(&[&words[..], &["--plan"]].concat()).exits(18).says("field-ttls of 1 keys").says("--drop field-ttls");
    repo.run(&words).exits(18).says("--drop field-ttls");
    assert!(crate::fixture::files_below(&dir).is_empty(), "nothing is left of it");
    repo.run(&[&words[..], &["--drop", "everything"]].concat()).exits(2).says("field-ttls");

    let outcome = repo.json(&[&words[..], &["--drop", "field-ttls"]].concat());
    let _launched = crate::fixture::Launched { dir };
    assert_eq!((&outcome["losses"][0]["kind"], &outcome["losses"][0]["items"]), (&"field-ttls".into(), &1.into()));
    let target = nodes::discover(&format!("redis://127.0.0.1:{}", outcome["nodes"][0]["port"]));
    let all: Vec<String> = redis::cmd("HGETALL").arg("hash").query(&mut nodes::connect(&target[0].url)).unwrap();
    assert_eq!(all.len(), 4, "the fields stay");
}

#[test]
fn running_nodes_of_an_older_engine_get_what_they_can_read() {
    let engine = Engine::Extra("redis-8");
    if engine.is_recorded_as_unavailable() {
        return println!("redis-8 is recorded as unavailable here: not run");
    }
    let server = Server::start(&Options::new().engine(engine));
    Keyspace::new(62, 1000).load(&server.nodes());
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let target = Server::standalone();
    repo.run(&["restore", "one", "--nodes", &target.address()]).ok();
    compare(&server.nodes(), &target.nodes()).assert_equal();
}
