//! Exports: plain RDB files that other tools read, also older ones, and that are restored here again.

use serde_json::Value;

use crate::fixture::{Launched, Repo, files_below};
use crate::harness::cluster::Cluster;
use crate::harness::compare::{compare, compare_except};
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes;
use crate::harness::s3::block_on;
use crate::harness::server::{Engine, Options, Server};

#[test]
fn an_export_for_an_older_engine_is_loaded_by_it_and_restored_here() {
    let engine = Engine::Extra("redis-8");
    let source = match engine.is_recorded_as_unavailable() {
        true => Server::standalone(),
        false => Server::start(&Options::new().engine(engine)),
    };
    Keyspace::new(96, 500).load(&source.nodes());
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let out = repo.path("out").display().to_string();
    let words = ["snapshot", "export", "one", "--to", &out, "--for", "redis-6.2"];
    let refused = repo.run(&words);
    // Redis 6.2 has no functions
    let exported = match refused.code {
        Some(0) => refused.json(),
        _ => {
            refused.exits(18).says("--drop functions");
            assert!(files_below(&repo.path("out")).is_empty(), "nothing is left of what was refused");
            repo.json(&[&words[..], &["--drop", "functions"]].concat())
        }
    };
    assert_eq!((&exported["rdb_version"], &exported["encrypted"]), (&"REDIS0009".into(), &false.into()), "{exported}");
    assert!(exported["warning"].as_str().unwrap().contains("not encrypted"), "{exported}");
    let file = repo.path("out").join("one-0001.rdb");
    assert!(std::fs::read(&file).unwrap().starts_with(b"REDIS0009"));
    repo.run(&words).exits(18);
    let older = Engine::Extra("redis-6.2");
    if !older.is_recorded_as_unavailable() {
        let program = older.program().display().to_string();
        let dir = repo.path("older");
        let words = [
            "restore",
            "--rdb",
            file.to_str().unwrap(),
            "--launch",
            dir.to_str().unwrap(),
            "--engine",
            &program,
            "-o",
            "json",
        ];
        let restored = repo.cli.json(&words);
        let _launched = Launched { dir };
        let url = format!("redis://127.0.0.1:{}", restored["nodes"][0]["port"]);
        let is_stream = |key: &[u8]| String::from_utf8_lossy(key).contains("stream:");
        compare_except(&source.nodes(), &nodes::discover(&url), &is_stream).assert_equal();
        // the older server does not say all that the newer says of a stream
        let mut links = [source.connect(), redis::Client::open(url.as_str()).unwrap().get_connection().unwrap()];
        let streams: Vec<String> = redis::cmd("KEYS").arg("*stream:*").query(&mut links[0]).unwrap();
        assert!(!streams.is_empty());
        for key in &streams {
            let [left, right] = links
                .each_mut()
                .map(|link| redis::cmd("XRANGE").arg(key).arg("-").arg("+").query::<redis::Value>(link).unwrap());
            assert_eq!(left, right, "{key}");
        }
    }
}

#[test]
fn an_export_into_a_bucket_has_the_permissions_and_the_encryption_that_were_asked_for() {
    let cluster = Cluster::start(3, 0);
    Keyspace::new(97, 200).load(&cluster.nodes());
    let repo = Repo::bucket("export");
    repo.create(&cluster.url(), "one");
    let bucket = repo.bucket.as_ref().unwrap();
    let other = bucket.client_as("AK2", "SK2");
    let read = |key: &str| block_on(other.get_object().bucket(&bucket.name).key(key).send()).is_ok();
    let export = |prefix: &str, more: &[&str]| -> Value {
        let to = bucket.url(prefix);
        repo.json(&[&["snapshot", "export", "one", "--to", &to, "--shards", "2"], more].concat())
    };
    let plain = export("plain", &[]);
    assert_eq!(plain["files"].as_array().unwrap().len(), 2);
    export("shared", &["--acl", "authenticated-read"]);
    assert!(!read("plain/one-0001.rdb") && read("shared/one-0001.rdb") && read("shared/one-0002.rdb"));
    export("sealed", &["--sse", "aws:kms", "--sse-kms-key-id", "testkey-1"]);
    let head = block_on(bucket.client().head_object().bucket(&bucket.name).key("sealed/one-0001.rdb").send()).unwrap();
    assert_eq!(head.server_side_encryption().map(|sse| sse.as_str()), Some("aws:kms"));
    // what is there is never written over, and what was exported is restored as foreign files
    let to = bucket.url("sealed");
    repo.run(&["snapshot", "export", "one", "--to", &to, "--shards", "2"]).exits(18);
    let dir = repo.path("restored");
    let files = ["sealed/one-0001.rdb", "sealed/one-0002.rdb"].map(|file| bucket.url(file));
    let words =
        ["restore", "--rdb", &files[0], &files[1], "--launch", dir.to_str().unwrap(), "--shards", "3", "-o", "json"];
    let restored = repo.cli.json(&words);
    let _launched = Launched { dir };
    let url = format!("redis://127.0.0.1:{}", restored["nodes"][0]["port"]);
    compare(&cluster.nodes(), &nodes::discover(&url)).assert_equal();
    let folder = repo.path("folder").display().to_string();
    repo.run(&["snapshot", "export", "one", "--to", &folder, "--sse", "AES256"]).exits(2);
}
