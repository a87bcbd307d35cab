//! `merge`, keys that occur more than once, and the plan of a `nodes.conf`, run as a user runs them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rdbtools::{Key, RdbVersion, Scanner, Sink, write};
use serde_json::{Value, json};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rdbtools")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// A file of version 10 with strings: database, key, value.
fn rdb(dir: &Path, name: &str, keys: &[(u64, &str, &str)]) -> PathBuf {
    let mut out = RdbVersion::redis(10).header();
    for (db, key, value) in keys {
        write::put_select_db(&mut out, *db);
        out.push(0);
        write::put_string(&mut out, key.as_bytes());
        write::put_string(&mut out, value.as_bytes());
    }
    write::finish(&mut out, RdbVersion::redis(10));
    let path = dir.join(name);
    fs::write(&path, out).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Database, key, and value as it stands in the file, sorted.
#[derive(Default)]
struct Keys(Vec<(u64, String, String)>);

impl Sink for Keys {
    fn key(&mut self, key: &Key<'_>) {
        self.0.push((key.db, String::from_utf8(key.name.to_vec()).unwrap(), String::new()));
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.last_mut().unwrap().2 += std::str::from_utf8(bytes).unwrap().trim_start_matches(char::is_control);
    }
}

fn keys(bytes: &[u8]) -> Vec<(u64, String, String)> {
    let mut scanner = Scanner::new(Keys::default());
    assert_eq!(scanner.feed(bytes).unwrap(), bytes.len());
    let mut keys = scanner.finish().unwrap().1.0;
    keys.sort();
    keys
}

fn owned(keys: &[(u64, &str, &str)]) -> Vec<(u64, String, String)> {
    keys.iter().map(|(db, key, value)| (*db, (*key).to_owned(), (*value).to_owned())).collect()
}

/// The message of a refusal.
fn refused(args: &[&str]) -> String {
    let output = run(&[args, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(18), "{}", String::from_utf8_lossy(&output.stderr));
    let error = &parsed(&output.stderr)["error"];
    assert!(error["class"] == "refused" && error["hint"].is_string());
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_merge_keeps_all_databases_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = rdb(dir.path(), "a.rdb", &[(0, "foo", "1"), (3, "foo", "2")]);
    let b = rdb(dir.path(), "b.rdb", &[(0, "bar", "3"), (4, "foo", "4")]);
    let out = dir.path().join("out.rdb");
    let output = run(&["merge", text(&a), text(&b), "--out", text(&out), "-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let done = parsed(&output.stdout);
    let expected = owned(&[(0, "bar", "3"), (0, "foo", "1"), (3, "foo", "2"), (4, "foo", "4")]);
    assert_eq!(keys(&fs::read(&out).unwrap()), expected);
    assert_eq!((&done["outputs"][0]["keys"], &done["outputs"][0]["file"]), (&4.into(), &text(&out).into()));
    // all have keys in the slot of foo, so they were compared
    assert_eq!((&done["check"]["keys_compared"], &done["check"]["duplicate_keys"]), (&true.into(), &0.into()));
    assert_eq!(done["check"]["shared_slots"], "12182");
    assert!(done["check"]["seconds"].is_f64());
    assert!(refused(&["merge", text(&a), "--out", text(&out)]).contains("exists"));
    assert_eq!(keys(&fs::read(&out).unwrap()), expected);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "temporary files are left");
}

#[test]
fn one_output_may_be_the_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let a = rdb(dir.path(), "a.rdb", &[(0, "foo", "1")]);
    for args in [&["merge", text(&a), "--out", "-"][..], &["split", text(&a), "--shards", "1", "--out", "-"]] {
        let output = run(&[args, &["-o", "json"]].concat());
        assert!(output.status.success());
        assert_eq!(keys(&output.stdout), owned(&[(0, "foo", "1")]));
        assert_eq!(parsed(&output.stderr)["outputs"][0]["bytes"], output.stdout.len());
    }
    let two = run(&["split", text(&a), "--shards", "2", "--out", "-"]);
    assert_eq!(two.status.code(), Some(2));
    assert!(two.stdout.is_empty());
}

#[test]
fn a_key_in_two_files_is_refused_with_both_places() {
    let dir = tempfile::tempdir().unwrap();
    let a = rdb(dir.path(), "a.rdb", &[(0, "foo", "1"), (0, "twice", "2"), (0, "again", "")]);
    let b = rdb(dir.path(), "b.rdb", &[(0, "twice", "3"), (0, "again", "")]);
    let out = dir.path().join("out");
    for command in [&["merge"][..], &["split", "--shards", "3"]] {
        let message = refused(&[command, &[text(&a), text(&b), "--out", text(&out)]].concat());
        // header 9, database 2, then foo in 7 bytes, database 2; in the other header and database alone
        let places =
            format!("key \"twice\" of database 0 is in {} at byte 20 and in {} at byte 11", text(&a), text(&b));
        assert!(message.starts_with(&places) && message.contains("1 more keys"), "{message}");
        assert!(!out.exists() || fs::read_dir(&out).unwrap().count() == 0);
    }
    // the same name in another database is another key
    let c = rdb(dir.path(), "c.rdb", &[(1, "foo", "1")]);
    assert!(run(&["merge", text(&a), text(&c), "--out", "-"]).status.success());
}

#[test]
fn a_rule_says_which_of_two_keys_stays() {
    let dir = tempfile::tempdir().unwrap();
    // {x} is slot 16287; the second file holds most keys of it
    let a = rdb(dir.path(), "a.rdb", &[(0, "{x}both", "a"), (0, "foo", "a")]);
    let b = rdb(dir.path(), "b.rdb", &[(0, "{x}1", "b"), (0, "{x}both", "b"), (0, "{x}2", "b")]);
    let stays = |args: &[&str]| {
        let out = dir.path().join("out.rdb");
        let output = run(&[&["merge", text(&a), text(&b), "--out", text(&out), "-o", "json"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let done = parsed(&output.stdout);
        assert_eq!((&done["check"]["duplicate_keys"], &done["check"]["left_out"]), (&1.into(), &1.into()));
        assert_eq!(done["notes"].as_array().unwrap().len(), 1);
        let merged = keys(&fs::read(&out).unwrap());
        fs::remove_file(&out).unwrap();
        assert_eq!(merged.len(), 4);
        merged.into_iter().find(|key| key.1 == "{x}both").unwrap().2
    };
    assert_eq!(stays(&["--on-duplicate", "first"]), "a");
    assert_eq!(stays(&["--on-duplicate", "last"]), "b");
    assert_eq!(stays(&["--on-duplicate", "owner"]), "b");
    assert_eq!(stays(&["--on-duplicate", "owner", "--source-slots", "0-16383;"]), "a");
    let undecided =
        ["merge", text(&a), text(&b), "--out", "-", "--on-duplicate", "owner", "--source-slots", "0-99;100"];
    assert!(refused(&undecided).contains("{x}both"));
}

#[test]
fn a_key_twice_in_one_file_is_noticed_when_keys_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let a = rdb(dir.path(), "a.rdb", &[(0, "foo", "1"), (0, "foo", "2")]);
    let b = rdb(dir.path(), "b.rdb", &[(0, "bar", "3")]);
    let a = text(&a);
    assert!(refused(&["merge", a, "--out", "-", "--on-duplicate", "fail"]).contains("foo"));
    let last = run(&["merge", a, "--out", "-", "--on-duplicate", "last"]);
    assert_eq!(keys(&last.stdout), owned(&[(0, "foo", "2")]));
    // files that share no slot are not compared unless that is asked for
    let output = run(&["merge", a, text(&b), "--out", "-", "-o", "json"]);
    let check = &parsed(&output.stderr)["check"];
    assert_eq!((&check["keys_compared"], &check["shared_slots"]), (&false.into(), &"".into()));
    assert_eq!(parsed(&run(&["merge", a, "--out", "-", "-o", "json"]).stderr)["check"], json!(null));
}

#[test]
fn what_can_be_read_once_only_is_not_compared() {
    let dir = tempfile::tempdir().unwrap();
    let a = rdb(dir.path(), "a.rdb", &[(0, "foo", "1")]);
    assert!(refused(&["merge", text(&a), "-", "--out", "-"]).starts_with("-: it can be read once only"));
}

#[test]
fn a_shard_is_made_for_each_primary_of_a_nodes_conf() {
    let dir = tempfile::tempdir().unwrap();
    let a = rdb(dir.path(), "a.rdb", &[(0, "foo", "1"), (0, "bar", "2")]);
    let conf = dir.path().join("nodes.conf");
    let node = |id: &str, role: &str, slots: &str| format!("{id} 127.0.0.1:1@2 {role} - 0 0 1 connected {slots}\n");
    let nodes = node("b", "master", "6000-16383") + &node("c", "slave", "") + &node("a", "myself,master", "0-5999");
    fs::write(&conf, nodes.clone() + "vars currentEpoch 6 lastVoteEpoch 0\n").unwrap();
    let out = dir.path().join("out");
    let split = ["split", text(&a), "--nodes-conf", text(&conf), "--out", text(&out), "-o", "json"];
    let done = parsed(&run(&split).stdout);
    let slots: Vec<&str> = done["outputs"].as_array().unwrap().iter().map(|o| o["slots"].as_str().unwrap()).collect();
    assert_eq!(slots, ["0-5999", "6000-16383"]);
    assert_eq!(keys(&fs::read(out.join("shard-0000.rdb")).unwrap()), owned(&[(0, "bar", "2")]));
    fs::remove_dir_all(&out).unwrap();
    for bad in [node("a", "master", "0-5999"), nodes + "what is this\n"] {
        fs::write(&conf, bad).unwrap();
        assert_eq!(run(&split).status.code(), Some(2));
        assert!(!out.exists());
    }
}
