//! `convert`, run as a user runs it: what is refused, left out, carried and told.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panic")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rdbtools::write::{self, put_length, put_string};
use rdbtools::{ModuleId, RdbVersion};
use serde_json::{Value, json};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rdbtools")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn file(dir: &Path, name: &str, version: RdbVersion, body: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut out = version.header();
    body(&mut out);
    write::finish(&mut out, version);
    let path = dir.join(name);
    fs::write(&path, out).unwrap();
    path
}

fn put_string_key(out: &mut Vec<u8>, name: &str) {
    out.push(0);
    put_string(out, name.as_bytes());
    put_string(out, b"value");
}

/// Hashes of Redis 7.4, each with two fields, of which one expires.
fn put_expiring(out: &mut Vec<u8>, count: usize) {
    for index in 0..count {
        out.push(24);
        put_string(out, format!("hash{index}").as_bytes());
        out.extend(4_102_444_800_000_u64.to_le_bytes());
        put_length(out, 2);
        for (expiry, field) in [(1, "a"), (0, "b")] {
            put_length(out, expiry);
            put_string(out, field.as_bytes());
            put_string(out, b"value");
        }
    }
}

fn put_module(out: &mut Vec<u8>) {
    out.push(7);
    put_string(out, b"document");
    put_length(out, 0x1234_5678_9abc_d003);
    out.push(5);
    put_string(out, b"part of a module's value");
    out.push(0);
}

/// Runs `convert` with JSON, into a file that must not be there when it fails.
fn convert(input: &Path, to: &str, out: &Path, more: &[&str]) -> (i32, Value) {
    let args = ["convert", text(input), "--to", to, "--out", text(out), "-o", "json"];
    let output = run(&[&args[..], more].concat());
    let code = output.status.code().unwrap();
    assert_eq!(out.exists(), code == 0);
    assert!(!out.with_extension("rdb.partial").exists());
    (code, parsed(if code == 0 { &output.stdout } else { &output.stderr }))
}

#[test]
fn field_expiries_are_refused_key_by_key_or_left_out_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "in.rdb", RdbVersion::redis(12), |out| put_expiring(out, 25));
    let (out, list) = (dir.path().join("out.rdb"), dir.path().join("losses.jsonl"));

    let (code, document) = convert(&input, "valkey-8", &out, &["--losses", text(&list)]);
    let error = &document["error"];
    assert_eq!((code, &error["class"]), (18, &"refused".into()));
    assert!(error["hint"].as_str().unwrap().contains("--drop field-ttls"), "{error}");
    let loss = &error["losses"][0];
    assert_eq!((&loss["kind"], &loss["items"], &loss["places"]), (&"field-ttls".into(), &25.into(), &25.into()));
    assert_eq!(loss["shown"].as_array().unwrap().len(), 20);
    // the list has all of them
    let lines = fs::read_to_string(&list).unwrap();
    assert_eq!(lines.lines().count(), 25);
    let last = parsed(lines.lines().last().unwrap().as_bytes());
    assert_eq!(last, json!({"kind": "field-ttls", "db": 0, "name": "hash24", "items": 1}));

    let (code, done) = convert(&input, "valkey-8", &out, &["--drop", "field-ttls"]);
    assert_eq!(code, 0);
    assert_eq!((&done["to"], &done["output"]["version"]), (&"valkey-8".into(), &"REDIS0011".into()));
    assert_eq!((&done["output"]["keys"], &done["output"]["rewritten"]), (&25.into(), &25.into()));
    assert_eq!((&done["losses"][0]["items"], &done["input"]["keys"]), (&25.into(), &25.into()));
    let report = parsed(&run(&["verify", "--deep", text(&out), "-o", "json"]).stdout);
    assert_eq!((&report["valid"], &report["types"]), (&true.into(), &json!({"hash": 25})));
    assert_eq!(report["aux"]["valkey-ver"], "8.0.0");

    let carried = dir.path().join("carried.rdb");
    let (code, done) = convert(&input, "valkey-9", &carried, &[]);
    assert_eq!((code, &done["losses"]), (0, &json!([])));
    let report = parsed(&run(&["verify", "--deep", text(&carried), "-o", "json"]).stdout);
    assert_eq!((&report["magic"], &report["types"]), (&"VALKEY".into(), &json!({"hash_2(valkey)": 25})));
}

#[test]
fn modules_functions_and_metadata_are_refused_left_out_or_kept() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "in.rdb", RdbVersion::redis(13), |out| {
        write::put_aux(out, b"redis-ver", b"8.6.0");
        write::put_aux(out, b"repl-offset", b"14");
        write::put_function(out, b"#!lua name=mylib\nreturn 1");
        write::put_module_aux(out, ModuleId(0x1234_5678_9abc_d003), 1);
        out.push(0);
        put_module(out);
        // metadata: one class, named by four bytes, with no parts
        out.extend([243, 1, 1, 2, 3, 4, 0]);
        put_string_key(out, "described");
        put_string_key(out, "plain");
    });
    let out = dir.path().join("out.rdb");
    let (code, document) = convert(&input, "redis-6.2", &out, &[]);
    assert_eq!(code, 18);
    let losses = document["error"]["losses"].as_array().unwrap();
    let kinds: Vec<(&str, u64)> =
        losses.iter().map(|loss| (loss["kind"].as_str().unwrap(), loss["items"].as_u64().unwrap())).collect();
    assert_eq!(kinds, [("modules", 2), ("functions", 1), ("key-metadata", 1)]);
    // allowing some of it is not enough, and what is allowed is not named again
    let (code, document) = convert(&input, "redis-6.2", &out, &["--drop", "modules,functions"]);
    assert_eq!((code, document["error"]["losses"].as_array().unwrap().len()), (18, 1));

    let (code, done) = convert(&input, "redis-6.2", &out, &["--drop", "modules,functions,key-metadata"]);
    assert_eq!((code, &done["output"]["keys"]), (0, &2.into()));
    let report = parsed(&run(&["verify", text(&out), "-o", "json"]).stdout);
    assert_eq!((&report["rdb_version"], &report["functions"], &report["modules"]), (&9.into(), &0.into(), &json!([])));
    assert_eq!(report["aux"]["redis-ver"], "6.2.0");
    assert!(report["aux"].get("repl-offset").is_none(), "a position is that of the input alone");

    let kept = dir.path().join("kept.rdb");
    let (code, done) = convert(&input, "redis-8.0", &kept, &["--keep-modules", "--drop", "key-metadata"]);
    assert_eq!((code, &done["output"]["keys"]), (0, &3.into()));
    let report = parsed(&run(&["verify", text(&kept), "-o", "json"]).stdout);
    assert_eq!((&report["functions"], &report["types"]["module_2"]), (&1.into(), &1.into()));
}

#[test]
fn an_import_of_slots_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "in.rdb", RdbVersion::valkey(80), |out| {
        out.push(243);
        put_string(out, &[b'a'; 40]);
        [1, 0, 16383].iter().for_each(|number| put_length(out, *number));
        put_string_key(out, "key");
    });
    for to in ["valkey-9", "redis-8.0"] {
        let (code, done) = convert(&input, to, &dir.path().join(format!("{to}.rdb")), &[]);
        assert_eq!((code, &done["losses"][0]["kind"]), (0, &"slot-imports".into()));
    }
}

#[test]
fn the_standard_streams_are_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "in.rdb", RdbVersion::redis(12), |out| put_expiring(out, 3));
    let mut child = Command::new(env!("CARGO_BIN_EXE_rdbtools"))
        .args(["convert", "-", "--to", "redis-7.2", "--drop", "field-ttls", "--out", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(&input).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let done = parsed(&output.stderr);
    assert_eq!(done["output"]["bytes"], output.stdout.len());
    assert!(output.stdout.starts_with(b"REDIS0011"));
    let file = dir.path().join("out.rdb");
    fs::write(&file, &output.stdout).unwrap();
    assert!(run(&["verify", text(&file)]).status.success());
}

#[test]
fn what_cannot_be_converted_has_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let input = file(dir.path(), "in.rdb", RdbVersion::redis(10), |out| put_string_key(out, "key"));
    let out = dir.path().join("out.rdb");
    // cut short, newer, and sound outside but not inside: a listpack of three elements for a hash
    let cut = dir.path().join("cut.rdb");
    let bytes = fs::read(&input).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 9]).unwrap();
    assert_eq!(convert(&cut, "redis-6.2", &out, &[]).0, 17);
    let newer = dir.path().join("newer.rdb");
    fs::write(&newer, b"REDIS9999\xff").unwrap();
    assert_eq!(convert(&newer, "redis-6.2", &out, &[]).0, 20);
    let odd = file(dir.path(), "odd.rdb", RdbVersion::redis(10), |out| {
        out.push(16);
        put_string(out, b"hash");
        put_string(out, b"\x0d\0\0\0\x03\0\x01\x01\x02\x01\x03\x01\xff");
    });
    let (code, document) = convert(&odd, "redis-6.2", &out, &[]);
    assert_eq!(code, 17);
    assert!(document["error"]["message"].as_str().unwrap().contains("the value of key \"hash\""), "{document}");
    // a file that is there stays as it is
    fs::write(&out, b"mine").unwrap();
    let output = run(&["convert", text(&input), "--to", "redis-6.2", "--out", text(&out)]);
    assert_eq!((output.status.code(), fs::read(&out).unwrap()), (Some(18), b"mine".to_vec()));
    assert_eq!(run(&["convert", text(&input), "--to", "redis-5.0", "--out", "x"]).status.code(), Some(2));
    assert_eq!(run(&["convert", "missing.rdb", "--to", "redis-6.2", "--out", "x"]).status.code(), Some(10));
}
