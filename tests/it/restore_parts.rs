//! A restore of some keys reads only the frames that can hold them.

use std::path::Path;

use policies::shards;
use policies::slot::{SlotSet, key_slot};
use serde_json::Value;

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::compare::{compare, compare_except};
use crate::harness::nodes;
use crate::harness::server::{Engine, Options, Server};

/// So many keys of 1000 bytes.
fn fill(link: &mut redis::Connection, keys: impl Iterator<Item = String>) {
    let mut pipe = redis::pipe();
    for (number, key) in keys.enumerate() {
        pipe.set(key, format!("{number:08}").repeat(125)).ignore();
    }
    pipe.exec(link).unwrap();
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// A server with 20 MB in no order of slots, a value of 3 MB, a database beside, and functions.
fn unordered() -> Server {
    let server = Server::start(&Options::new().line("rdbcompression no"));
    fill(&mut server.connect(), (0..20_000).map(|number| format!("key:{number}")));
    server.run(&["SET", "large", &"0123456789".repeat(300_000)]);
    server.run(&["PEXPIREAT", "key:77", "4102444800123"]);
    server.run(&["SET", "a*b", "an odd name"]);
    let library = "#!lua name=mylib\nredis.register_function('f', function() return 1 end)";
    server.run(&["FUNCTION", "LOAD", library]);
    fill(&mut nodes::connect(&format!("{}/3", server.url())), (0..2000).map(|number| format!("key:{number}")));
    server
}

#[test]
fn keys_of_a_server_are_found_by_filters_with_all_that_belongs_to_them() {
    let source = unordered();
    let repo = Repo::folder();
    let made = repo.create(&source.url(), "one");
    repo.run(&["snapshot", "verify", "one"]).ok();
    let wanted = ["--filter", "key:77", "--filter", "large", "--filter", r"a\*b"];
    let plan = repo.json(&[&["restore", "one", "--out", "/nowhere", "--plan"], &wanted[..]].concat());
    let input = &plan["inputs"][0];
    // the head, the end, five frames of the large value, one or two for each other key, and a few by chance
    assert!((7..=15).contains(&number(input, "read_frames")) && number(input, "frames") > 24, "{input}");
    assert!(number(input, "read_bytes") < number(&made["shards"][0]["object"], "stored_bytes") * 2 / 3, "{input}");
    let (target, _launched) = repo.launch("one", &wanted);
    let is_left_out = |key: &[u8]| ![&b"key:77"[..], b"large", b"a*b"].contains(&key);
    compare_except(&source.nodes(), &target, &is_left_out).assert_equal();
    let mut zero = nodes::connect(&target[0].url);
    let mut three = nodes::connect(&format!("{}/3", target[0].url));
    let count = |link: &mut redis::Connection| nodes::command(&["DBSIZE"]).query::<u64>(link).unwrap();
    assert_eq!((count(&mut zero), count(&mut three)), (3, 1));
    let value: String = nodes::command(&["GET", "key:77"]).query(&mut three).unwrap();
    assert_eq!(value, "00000077".repeat(125));
    // a pattern that fits many names reads everything, and says so
    let plan = repo.json(&["restore", "one", "--out", "/nowhere", "--plan", "--filter", "key:7*"]);
    assert_eq!(plan["inputs"][0]["read_frames"], plan["inputs"][0]["frames"]);
    assert!(plan["notes"].to_string().contains("read whole"), "{}", plan["notes"]);
    // a key that there is not
    let out = repo.path("nothing");
    let words = ["restore", "one", "--out", out.to_str().unwrap(), "--filter", "no such key"];
    repo.run(&words).exits(10).says("no key of the input is selected");
}

/// Restores one key into a folder of its own; the exit code.
fn restore_one(repo: &Repo, out: &Path) -> i32 {
    let _absent_is_fine = std::fs::remove_dir_all(out);
    repo.run(&["restore", "one", "--out", out.to_str().unwrap(), "--filter", "key:500"]).code.unwrap()
}

#[test]
fn damage_is_noticed_in_what_is_read_and_is_no_hindrance_elsewhere() {
    let source = unordered();
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let mut objects = repo.snapshot_files().into_iter();
    let (path, content) = objects.find(|(path, _)| path.extension().is_some_and(|end| end == "bkd")).unwrap();
    let out = repo.path("out");
    assert_eq!(restore_one(&repo, &out), 0);
    let whole = std::fs::read(out.join("shard-0000.rdb")).unwrap();
    let (mut noticed, mut passed) = (0, 0);
    for place in (0..12).map(|part| content.len() * part / 12 + 50).chain([content.len() - 60, content.len() - 5]) {
        let mut changed = content.clone();
        changed[place] ^= 4;
        std::fs::write(&path, &changed).unwrap();
        match restore_one(&repo, &out) {
            0 => {
                passed += 1;
                let again = std::fs::read(out.join("shard-0000.rdb")).unwrap();
                assert_eq!(again.len(), whole.len(), "byte {place}");
            }
            17 => noticed += 1,
            other => panic!("byte {place}: exit code {other}"),
        }
        let all = repo.path("all");
        repo.run(&["restore", "one", "--out", all.to_str().unwrap()]).exits(17);
    }
    // the header, the index and its footer are always read
    assert!(noticed >= 3 && passed > 5, "{noticed} noticed, {passed} passed");
}

#[test]
fn engines_that_write_slot_by_slot_need_no_filter() {
    let engine = Engine::Extra("redis-8");
    if engine.is_recorded_as_unavailable() {
        return println!("redis-8 is recorded as unavailable here: not run");
    }
    let options = Options::new().engine(engine.clone()).line("rdbcompression no");
    let source = Cluster::start_with(&options, shards::equal(2).unwrap(), 0);
    for shard in &source.shards {
        let keys = (0..16_000).map(|number| format!("key:{number}"));
        fill(&mut shard.primary.connect(), keys.filter(|key| shard.slots.contains(key_slot(key.as_bytes()))));
    }
    let repo = Repo::folder();
    repo.create(&source.url(), "one");
    let plan = |more: &[&str]| repo.json(&[&["restore", "one", "--out", "/nowhere", "--plan"], more].concat());
    let slot = key_slot(b"key:77");
    let (own, other) = if source.shards[0].slots.contains(slot) { (0, 1) } else { (1, 0) };
    let one_key = plan(&["--filter", "key:77"]);
    assert_eq!(one_key["inputs"][other]["read_bytes"], 0);
    let input = &one_key["inputs"][own];
    assert!(number(input, "read_frames") <= 4 && number(input, "frames") >= 8, "{input}");
    let (low, high) = (slot.saturating_sub(100), (slot + 100).min(16_383));
    let range = format!("{low}-{high}");
    let words = ["--slot-range", &range, "--engine", engine.program().to_str().unwrap()].map(ToOwned::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let input = &plan(&words[..2])["inputs"][own];
    assert!(number(input, "read_frames") <= 5, "{input}");
    let (target, _launched) = repo.launch("one", &words);
    let slots = SlotSet::range(low, high).unwrap();
    compare_except(&source.nodes(), &target, &|key| !slots.contains(key_slot(key))).assert_equal();
    let (all, _launched) = repo.launch("one", &words[2..]);
    compare(&source.nodes(), &all).assert_equal();
}
