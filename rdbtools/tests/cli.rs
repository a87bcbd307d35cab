//! The command, run as a user runs it.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panic")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rdbtools::{RdbVersion, write};
use serde_json::Value;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rdbtools")).args(args).output().unwrap()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn error_of(output: &Output) -> (i32, String) {
    let error = &json(&output.stderr)["error"];
    assert!(error["message"].is_string() && error["retryable"].is_boolean(), "{error}");
    assert_eq!(error["code"].as_i64(), output.status.code().map(i64::from));
    (output.status.code().unwrap(), error["class"].as_str().unwrap().to_owned())
}

/// An RDB of version 10 with strings in the given databases, one of them expired long ago.
fn rdb(dir: &Path, name: &str, keys: &[(u64, &str)]) -> PathBuf {
    let mut out = RdbVersion::redis(10).header();
    write::put_aux(&mut out, b"redis-ver", b"7.0.15");
    write::put_aux(&mut out, b"repl-offset", b"14");
    write::put_function(&mut out, b"#!lua name=mylib\nredis.register_function('f', g)");
    for (db, key) in keys {
        write::put_select_db(&mut out, *db);
        if *key == "old" {
            out.extend([252, 1, 0, 0, 0, 0, 0, 0, 0]);
        }
        out.push(0);
        write::put_string(&mut out, key.as_bytes());
        write::put_string(&mut out, b"value");
    }
    write::finish(&mut out, RdbVersion::redis(10));
    let path = dir.join(name);
    fs::write(&path, out).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn verify_reports_what_a_file_holds() {
    let dir = tempfile::tempdir().unwrap();
    let file = rdb(dir.path(), "a.rdb", &[(0, "foo"), (0, "old"), (2, "bar")]);
    let output = run(&["verify", text(&file), "-o", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output.stdout);
    let length = fs::metadata(&file).unwrap().len();
    for (field, value) in [
        ("file", Value::from(text(&file))),
        ("valid", true.into()),
        ("rdb_version", 10.into()),
        ("magic", "REDIS".into()),
        ("bytes", length.into()),
        ("crc", "ok".into()),
        ("keys", 3.into()),
        ("expires", 1.into()),
        ("databases", serde_json::json!({"0": {"keys": 2, "expires": 1}, "2": {"keys": 1, "expires": 0}})),
        ("types", serde_json::json!({"string": 3})),
        ("functions", 1.into()),
        ("modules", serde_json::json!([])),
        ("error", Value::Null),
    ] {
        assert_eq!(report[field], value, "{field}");
    }
    let table = run(&["verify", text(&file)]);
    assert!(String::from_utf8(table.stdout).unwrap().contains("3 keys, 1 with expiry, checksum ok"));
}

#[test]
fn verify_of_many_files_checks_all() {
    let dir = tempfile::tempdir().unwrap();
    let good = rdb(dir.path(), "good.rdb", &[(0, "foo")]);
    let cut = dir.path().join("cut.rdb");
    let bytes = fs::read(&good).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 9]).unwrap();
    let trailing = dir.path().join("trailing.rdb");
    fs::write(&trailing, [&bytes[..], b"\n"].concat()).unwrap();
    let newer = dir.path().join("newer.rdb");
    fs::write(&newer, [b"REDIS0099", &bytes[9..]].concat()).unwrap();
    let missing = dir.path().join("missing.rdb");
    let files = [&good, &cut, &trailing, &newer, &missing, &good];
    let args: Vec<&str> = ["verify", "-o", "json"].into_iter().chain(files.iter().map(|file| text(file))).collect();
    let output = run(&args);
    assert_eq!(output.status.code(), Some(17), "that of the first file that is not sound");
    let reports = json(&output.stdout);
    let kinds: Vec<_> = reports.as_array().unwrap().iter().map(|report| report["error"]["kind"].as_str()).collect();
    let expected = [None, Some("truncated"), Some("malformed"), Some("unsupported"), Some("not_found"), None];
    assert_eq!(kinds, expected);
    assert_eq!(reports[1]["error"]["offset"], (bytes.len() - 9) as u64);
    assert_eq!(reports[1]["keys"], 1);
    assert_eq!(reports[2]["error"]["offset"], bytes.len() as u64);
    assert!(reports.as_array().unwrap().iter().zip(files).all(|(report, file)| report["file"] == text(file)));
}

/// A file alone is looked into on two threads, one of several on one: both must say the same of any damage.
#[test]
fn unsound_compressed_values_are_told_the_same_way_alone_and_among_others() {
    let dir = tempfile::tempdir().unwrap();
    let key = |out: &mut Vec<u8>, number: usize, compressed: &[u8]| {
        out.push(0);
        write::put_string(out, format!("key:{number}").as_bytes());
        out.push(0xc3);
        write::put_length(out, compressed.len() as u64);
        write::put_length(out, 1 + 264 * (compressed.len() as u64 / 3));
        out.extend_from_slice(compressed);
    };
    let value = [&b"\0a"[..], &b"\xe0\xff\0".repeat(300)].concat();
    let mut unsound = value.clone();
    unsound[500] = 0x1f;
    for bad in [0, 1, 400, 1199, usize::MAX] {
        let mut out = RdbVersion::redis(10).header();
        (0..1200).for_each(|number| key(&mut out, number, if number == bad { &unsound } else { &value }));
        write::finish(&mut out, RdbVersion::redis(10));
        let file = dir.path().join(format!("{bad}.rdb"));
        fs::write(&file, out).unwrap();
        let alone = run(&["verify", text(&file), "-o", "json"]);
        let both = run(&["verify", text(&file), text(&file), "-o", "json"]);
        assert_eq!(alone.status.code(), both.status.code());
        assert_eq!(alone.status.code(), Some(if bad == usize::MAX { 0 } else { 17 }));
        let alone = json(&alone.stdout);
        assert_eq!(alone, json(&both.stdout)[1]);
        assert_eq!(alone["keys"], bad.saturating_add(1).min(1200));
    }
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let good = rdb(dir.path(), "good.rdb", &[(0, "foo"), (3, "bar")]);
    let newer = dir.path().join("newer.rdb");
    fs::write(&newer, b"REDIS0099").unwrap();
    let empty = dir.path().join("empty.rdb");
    fs::write(&empty, b"").unwrap();
    let full = text(dir.path());
    let fresh = dir.path().join("fresh");
    let fresh = text(&fresh);
    assert_eq!(run(&["verify", text(&newer), "-o", "json"]).status.code(), Some(20));
    assert_eq!(run(&["verify", text(&empty), "-o", "json"]).status.code(), Some(17));
    let missing = dir.path().join("missing");
    for (args, code, class) in [
        (&["verify", text(&missing)][..], 10, "not_found"),
        (&["info", text(&missing)], 10, "not_found"),
        (&["verify"], 2, "usage"),
        (&["split", text(&good), "--out", fresh], 2, "usage"),
        (&["split", text(&good), "--out", fresh, "--slots", "0-5;7-16383"], 2, "usage"),
        (&["split", text(&good), "--out", fresh, "--shards", "0"], 2, "usage"),
        (&["split", text(&good), "--out", full, "--shards", "2"], 18, "refused"),
        (&["split", text(&good), "--out", fresh, "--shards", "2"], 18, "refused"),
        (&["split", text(&missing), "--out", fresh, "--shards", "2"], 10, "not_found"),
        (&["split", text(&newer), "--out", fresh, "--shards", "2"], 20, "version"),
        (&["split", text(&empty), "--out", fresh, "--shards", "2"], 17, "verification"),
    ] {
        let output = run(&[args, &["-o", "json"]].concat());
        assert_eq!(error_of(&output), (code, class.to_owned()), "{args:?}");
        assert!(output.stdout.is_empty());
        let left = fs::read_dir(fresh).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{args:?} left files behind");
    }
}

#[test]
fn split_writes_a_file_per_shard() {
    let dir = tempfile::tempdir().unwrap();
    let a = rdb(dir.path(), "a.rdb", &[(0, "foo"), (0, "old")]);
    let b = rdb(dir.path(), "b.rdb", &[(0, "bar"), (0, "hello")]);
    let out = dir.path().join("out");
    let slots = "0-10000;10001-16383";
    let output = run(&["split", text(&a), text(&b), "--slots", slots, "--out", text(&out), "-o", "json"]);
    let done = json(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(done["inputs"].as_array().unwrap().len(), 2);
    let files = [out.join("shard-0000.rdb"), out.join("shard-0001.rdb")];
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    let mut keys = 0;
    for (index, file) in files.iter().enumerate() {
        let report = json(&run(&["verify", text(file), "-o", "json"]).stdout);
        assert_eq!((&report["valid"], &report["functions"]), (&true.into(), &1.into()));
        assert_eq!(report["aux"]["redis-ver"], "7.0.15");
        assert!(report["aux"].get("repl-offset").is_none(), "a position is that of the input alone");
        for field in ["keys", "expires", "bytes"] {
            assert_eq!(done["outputs"][index][field], report[field], "{field}");
        }
        keys += report["keys"].as_u64().unwrap();
    }
    assert_eq!(keys, 4);
    let expired: u64 = (0..2).map(|index| done["outputs"][index]["expired"].as_u64().unwrap()).sum();
    assert_eq!(expired, 1);
}

#[test]
fn one_shard_keeps_all_databases_and_one_database_can_be_picked() {
    let dir = tempfile::tempdir().unwrap();
    let file = rdb(dir.path(), "a.rdb", &[(0, "foo"), (3, "bar"), (3, "hello")]);
    let whole = dir.path().join("whole");
    assert!(run(&["split", text(&file), "--shards", "1", "--out", text(&whole)]).status.success());
    let report = json(&run(&["verify", "-o", "json", text(&whole.join("shard-0000.rdb"))]).stdout);
    assert_eq!(report["databases"]["3"]["keys"], 2);
    let picked = dir.path().join("picked");
    let output = run(&["split", text(&file), "--shards", "2", "--db", "3", "--out", text(&picked), "-o", "json"]);
    let done = json(&output.stdout);
    assert_eq!(done["notes"], serde_json::json!(["1 keys of other databases were left out"]));
    let keys = |index: usize| done["outputs"][index]["keys"].as_u64().unwrap();
    assert_eq!(keys(0) + keys(1), 2);
}

#[test]
fn the_standard_input_is_a_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = rdb(dir.path(), "a.rdb", &[(0, "foo")]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_rdbtools"))
        .args(["info", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(&file).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let info = json(&output.stdout);
    assert_eq!(info["largest"][0], serde_json::json!({"key": "foo", "db": 0, "type": "string", "bytes": 11}));
    assert_eq!(info["bytes_per_type"]["string"], 11);
    assert_eq!(info["libraries"], serde_json::json!(["mylib"]));
    assert_eq!(info["function_names"], serde_json::json!({"mylib": ["f"]}));
    assert_eq!(info["aux"]["redis-ver"], "7.0.15");
    let used: Vec<_> = info["slots"].as_array().unwrap().iter().filter(|range| range["keys"] == 1).collect();
    assert_eq!(used.len(), 1);
    assert_eq!((&used[0]["first"], &used[0]["last"]), (&11264.into(), &12287.into()));
}

#[test]
fn info_tells_the_engine_the_expiries_and_the_types_of_modules() {
    let dir = tempfile::tempdir().unwrap();
    let saved: i64 = 1_700_000_000;
    let mut out = RdbVersion::redis(10).header();
    write::put_aux(&mut out, b"redis-ver", b"7.0.15");
    write::put_aux(&mut out, b"ctime", saved.to_string().as_bytes());
    for (name, seconds) in [("a", -5), ("b", 0), ("c", 1), ("d", 3600), ("e", 90_000), ("f", 10_000_000)] {
        out.push(252);
        out.extend(((saved + seconds) * 1000).to_le_bytes());
        out.push(0);
        write::put_string(&mut out, name.as_bytes());
        write::put_string(&mut out, name.repeat(10).as_bytes());
    }
    // a value of the module type ReJSON-RL with encoding version 3
    out.push(7);
    write::put_string(&mut out, b"json");
    write::put_length(&mut out, 5_035_677_737_576_115_203);
    out.push(0);
    write::finish(&mut out, RdbVersion::redis(10));
    let file = dir.path().join("a.rdb");
    fs::write(&file, out).unwrap();
    let info = json(&run(&["info", text(&file), "--top", "2", "-o", "json"]).stdout);
    assert_eq!(info["engine"], serde_json::json!({"guess": "Redis 7.0.15", "reason": "the aux field redis-ver"}));
    assert_eq!(
        (&info["expiry"]["relative_to"], &info["expiry"]["at_unix_ms"]),
        (&"ctime".into(), &(saved * 1000).into())
    );
    let steps: Vec<(Option<u64>, u64)> = info["expiry"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["up_to_s"].as_u64(), step["keys"].as_u64().unwrap()))
        .collect();
    let expected =
        [(Some(0), 2), (Some(3600), 2), (Some(86_400), 0), (Some(604_800), 1), (Some(2_592_000), 0), (None, 1)];
    assert_eq!(steps, expected);
    assert_eq!(info["largest"].as_array().unwrap().len(), 2);
    assert_eq!(info["modules"].as_array().unwrap().len(), 1);
    assert_eq!(info["module_types"][0]["encoding_version"], 3);
    let table = String::from_utf8(run(&["info", text(&file)]).stdout).unwrap();
    for shown in ["written by Redis 7.0.15", "within 1 h", "expired", "ENCODING VERSION"] {
        assert!(table.contains(shown), "{table}");
    }
}
