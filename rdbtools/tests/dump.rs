//! `rdbtools dump`: commands that make the same keys in real servers, JSON that holds everything, plain text.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panic")]

#[path = "support/engines.rs"]
mod engines;
#[expect(dead_code, reason = "attributes of keys are compared by other tests")]
#[path = "support/keyspace.rs"]
mod keyspace;
#[path = "support/server.rs"]
mod server;
#[path = "support/words.rs"]
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use engines::{ENGINES, Engine};
use keyspace::{Content, Facts, Value, assert_same, content, fill};
use rdbtools::write::{self, put_length, put_string};
use rdbtools::{Key, RdbVersion, Scanner, Sink};
use serde_json::{Value as Json, json};
use server::{Reply, Server};

fn dump(path: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rdbtools")).arg("dump").arg(path).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What commands cannot make is taken out of both: when consumers were seen, and pending entries that are gone.
fn comparable(content: Content) -> Content {
    let streams = content.into_iter().map(|(name, value)| match value {
        Value::Stream(entries, facts) => {
            let lossy = name.1 == b"stream:1" || name.1 == b"stream:big";
            (name, Value::Stream(entries, stripped(facts, lossy)))
        }
        value => (name, value),
    });
    streams.collect()
}

fn stripped(facts: Facts, lossy: bool) -> Facts {
    let is_kept = |name: &str| {
        let pending = matches!(name, "pel" | "pel-count" | "pending");
        !(matches!(name, "seen-time" | "active-time") || lossy && pending)
    };
    match facts {
        Facts::Named(parts) => {
            let kept = parts.into_iter().filter(|(name, _)| is_kept(name));
            Facts::Named(kept.map(|(name, facts)| (name, stripped(facts, lossy))).collect())
        }
        Facts::Several(parts) => Facts::Several(parts.into_iter().map(|facts| stripped(facts, lossy)).collect()),
        plain @ Facts::Plain(_) => plain,
    }
}

/// Pipes commands into a server, as `redis-cli --pipe` does.
fn pipe(server: &Server, commands: &[u8]) {
    let mut child = Command::new("redis-cli")
        .args(["-p", &server.port().to_string(), "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-cli: {error}: run tests/setup.sh"));
    child.stdin.take().unwrap().write_all(commands).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("errors: 0"), "{text}");
}

fn prove(engine: Engine) {
    let (dir, target_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(mut source) = engine.start(dir.path()) else { return };
    fill(engine, &mut source);
    // an element longer than what is held for a command
    source.must(&[["RPUSH", "list:huge", &"x".repeat(100_000), "y"], ["SADD", "set:huge", &"x".repeat(100_000), "y"]]);
    source.must(&[["HSET", "hash:huge", &"f".repeat(70_000), &"v".repeat(100_000)]]);
    source.must(&[["SAVE"]]);
    let output = dump(&dir.path().join("dump.rdb"), &["--format", "resp"]);
    assert_eq!(output.status.code(), Some(0), "{}: {}", engine.name, stderr(&output));
    // in each of two databases: one that was deleted and 27 that were trimmed away
    assert!(stderr(&output).contains("note: 56 pending entries were left out"), "{}", stderr(&output));
    let mut target = engine.start(target_dir.path()).unwrap();
    pipe(&target, &output.stdout);
    let (source, content) = (comparable(content(engine, &mut source)), comparable(content(engine, &mut target)));
    assert!(source.len() > 2000, "{}", source.len());
    assert_same(&source, &content, true);
    if engine.has_functions() {
        assert_eq!(target.one(&["FCALL", "f", "0"]), Reply::Int(42));
    }
}

#[test]
fn commands_make_the_same_keys_in_every_engine_of_ci() {
    ENGINES.into_iter().filter(|engine| engine.is_in_ci()).for_each(prove);
}

#[test]
#[ignore = "needs the engines that tests/setup.sh engines installs"]
fn commands_make_the_same_keys_in_every_engine() {
    ENGINES.into_iter().for_each(prove);
}

/// Text of a JSON string or of `{"base64": …}`.
fn bytes(json: &Json) -> Vec<u8> {
    use base64::Engine as _;
    match json {
        Json::String(text) => text.clone().into_bytes(),
        other => base64::engine::general_purpose::STANDARD.decode(other["base64"].as_str().unwrap()).unwrap(),
    }
}

/// What JSON says of a key, in the form of the server's answers.
fn value(key: &Json) -> Value {
    let list = || key["value"].as_array().unwrap().iter();
    match key["type"].as_str().unwrap() {
        "string" => Value::Text(bytes(&key["value"])),
        "list" => Value::List(list().map(|item| Reply::Bytes(bytes(item))).collect()),
        "set" => {
            let mut members: Vec<_> = list().map(bytes).collect();
            members.sort();
            Value::Set(members)
        }
        "zset" => {
            let score = |json: &Json| json.as_f64().unwrap_or_else(|| json.as_str().unwrap().parse().unwrap());
            let mut members: Vec<_> = list().map(|pair| (score(&pair["score"]), bytes(&pair["member"]))).collect();
            members.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap().then_with(|| a.1.cmp(&b.1)));
            Value::Zset(members.into_iter().map(|(score, member)| (member, score.to_bits())).collect())
        }
        "hash" => {
            let field = |pair: &Json| (bytes(&pair["field"]), (bytes(&pair["value"]), pair["expires_at_ms"].as_i64()));
            Value::Hash(list().map(field).collect())
        }
        other => panic!("{other}"),
    }
}

fn entries(stream: &Json) -> Vec<Reply> {
    let entry = |entry: &Json| {
        let pairs = entry["fields"].as_array().unwrap().iter();
        let fields = pairs.flat_map(|pair| [bytes(&pair[0]), bytes(&pair[1])]).map(Reply::Bytes).collect();
        Reply::List(vec![Reply::Bytes(entry["id"].as_str().unwrap().into()), Reply::List(fields)])
    };
    stream["entries"].as_array().unwrap().iter().map(entry).collect()
}

/// What both forms say of the groups of a stream.
fn groups_agree(stream: &Json, facts: &Facts) {
    let Facts::Named(facts) = facts else { panic!("{facts:?}") };
    let Facts::Several(groups) = &facts["groups"] else { panic!("{facts:?}") };
    let text = |facts: &BTreeMap<String, Facts>, name: &str| match &facts[name] {
        Facts::Plain(Reply::Bytes(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
        Facts::Plain(Reply::Int(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stream["length"].to_string(), text(facts, "length"));
    assert_eq!(stream["last_id"], text(facts, "last-generated-id"));
    assert_eq!(stream["groups"].as_array().unwrap().len(), groups.len());
    for (json, group) in stream["groups"].as_array().unwrap().iter().zip(groups) {
        let Facts::Named(group) = group else { panic!("{group:?}") };
        assert_eq!(json["name"], text(group, "name"));
        assert_eq!(json["last_id"], text(group, "last-delivered-id"));
        assert_eq!(json["pending"].as_array().unwrap().len().to_string(), text(group, "pel-count"));
        let Facts::Several(consumers) = &group["consumers"] else { panic!("{group:?}") };
        assert_eq!(json["consumers"].as_array().unwrap().len(), consumers.len());
        for (json, consumer) in json["consumers"].as_array().unwrap().iter().zip(consumers) {
            let Facts::Named(consumer) = consumer else { panic!("{consumer:?}") };
            assert_eq!(json["name"], text(consumer, "name"));
            assert_eq!(json["seen_at_ms"].to_string(), text(consumer, "seen-time"));
            assert_eq!(json["pending"].as_array().unwrap().len().to_string(), text(consumer, "pel-count"));
        }
    }
}

#[test]
fn json_holds_what_the_server_holds() {
    for engine in ENGINES.into_iter().filter(|engine| engine.is_in_ci()) {
        let dir = tempfile::tempdir().unwrap();
        let Some(mut source) = engine.start(dir.path()) else { continue };
        fill(engine, &mut source);
        source.must(&[["SAVE"]]);
        let output = dump(&dir.path().join("dump.rdb"), &["--format", "json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let items: Vec<Json> = serde_json::from_slice(&output.stdout).unwrap();
        let mut content = content(engine, &mut source);
        let mut functions = 0;
        for item in &items {
            functions += u64::from(item["function"].is_string());
            if item.get("key").is_none() {
                assert!(item.get("aux").is_some() || item.get("function").is_some(), "{item}");
                continue;
            }
            let name = (item["db"].as_u64().unwrap(), bytes(&item["key"]));
            let place = format!("{} {}", engine.name, name.1.escape_ascii());
            match content.remove(&name).unwrap_or_else(|| panic!("{place}")) {
                Value::Stream(expected, facts) => {
                    assert_eq!(entries(&item["value"]), expected, "{place}");
                    groups_agree(&item["value"], &facts);
                }
                expected => assert!(value(item) == expected, "{place}: {item}"),
            }
        }
        assert!(content.is_empty());
        assert_eq!(functions, u64::from(engine.has_functions()));
    }
}

/// A file of version 12: aux field, function, then keys (type, name, value).
fn file(dir: &Path, keys: &[(u8, &str, &[u8])]) -> std::path::PathBuf {
    let mut out = RdbVersion::redis(12).header();
    write::put_aux(&mut out, b"redis-ver", b"7.4.0");
    for (code, name, value) in keys {
        out.push(*code);
        put_string(&mut out, name.as_bytes());
        out.extend(*value);
    }
    write::finish(&mut out, RdbVersion::redis(12));
    let path = dir.join("file.rdb");
    fs::write(&path, out).unwrap();
    path
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, bytes);
    out
}

/// A module's value: `ReJSON-RL`, version 3, a number and a string.
fn module() -> Vec<u8> {
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let packed = "ReJSON-RL"
        .bytes()
        .fold(0u64, |id, letter| id << 6 | letters.bytes().position(|other| other == letter).unwrap() as u64);
    let mut out = Vec::new();
    put_length(&mut out, packed << 10 | 3);
    out.extend([2, 7, 5]);
    put_string(&mut out, b"{}");
    out.push(0);
    out
}

#[test]
fn what_modules_keep_is_refused_or_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), &[(0, "before", &string(b"1")), (7, "doc", &module()), (0, "after", &string(b"2"))]);
    let output = dump(&path, &["--format", "resp"]);
    assert_eq!(output.status.code(), Some(18));
    assert!(stderr(&output).contains("key \"doc\" belongs to the module ReJSON-RL"), "{}", stderr(&output));
    let output = dump(&path, &["--format", "resp", "--skip-modules"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "note: 1 keys of modules were left out\n");
    let expected = "*3\r\n$3\r\nSET\r\n$6\r\nbefore\r\n$1\r\n1\r\n*3\r\n$3\r\nSET\r\n$5\r\nafter\r\n$1\r\n2\r\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let items: Vec<Json> = serde_json::from_slice(&dump(&path, &["--format", "json"]).stdout).unwrap();
    let parts = json!([{"unsigned": 7}, {"string": "{}"}]);
    assert_eq!(items[2]["value"], json!({"module": "ReJSON-RL", "version": 3, "parts": parts}));
    assert_eq!(items[0], json!({"aux": {"name": "redis-ver", "value": "7.4.0"}}));
}

#[test]
fn a_defective_file_ends_with_its_exit_code_however_much_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), &[(0, "key", &string(b"value")), (1, "list", b"\x01\x01a")]);
    let bytes = fs::read(&path).unwrap();
    for format in ["json", "resp", "plain"] {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(dump(&path, &["--format", format]).status.code(), Some(0));
        for (broken, code) in [
            ([&bytes[..bytes.len() - 1], &[bytes[bytes.len() - 1] ^ 1]].concat(), 17),
            (bytes[..bytes.len() - 3].to_vec(), 17),
            ([&bytes[..], b"\n"].concat(), 17),
            (b"REDIS0099".to_vec(), 20),
            (Vec::new(), 17),
        ] {
            fs::write(&path, broken).unwrap();
            let output = dump(&path, &["--format", format]);
            assert_eq!(output.status.code(), Some(code), "{format}: {}", stderr(&output));
        }
    }
    assert_eq!(dump(&dir.path().join("missing"), &["--format", "json"]).status.code(), Some(10));
    assert_eq!(dump(&path, &[]).status.code(), Some(2));
}

#[test]
fn strings_that_are_not_text_or_too_long_are_base64() {
    let dir = tempfile::tempdir().unwrap();
    let long = "t".repeat((1 << 20) + 1);
    let limit = "t".repeat(1 << 20);
    let values =
        [string(b"\xff\0\""), string("grün \"1\"\n".as_bytes()), string(long.as_bytes()), string(limit.as_bytes())];
    let keys: Vec<_> = ["a", "b", "c", "d"].into_iter().zip(&values).map(|(key, value)| (0, key, &value[..])).collect();
    let path = file(dir.path(), &keys);
    let output = dump(&path, &["--format", "json"]);
    let items: Vec<Json> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(items[1]["value"], json!({"base64": "/wAi"}));
    assert_eq!(items[2]["value"], "grün \"1\"\n");
    assert!(items[3]["value"]["base64"].is_string() && bytes(&items[3]["value"]) == long.as_bytes());
    assert_eq!(items[4]["value"], limit);
    // one object per line
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), items.len() + 2);
    assert_eq!(
        dump(&file(dir.path(), &[]), &["--format", "json"]).stdout,
        b"[\n{\"aux\":{\"name\":\"redis-ver\",\"value\":\"7.4.0\"}}\n]\n"
    );
}

#[test]
fn plain_text_has_a_line_per_value_and_says_what_it_cannot_show() {
    let dir = tempfile::tempdir().unwrap();
    let zset = [&[1][..], &string(b"m"), &2.5f64.to_le_bytes()].concat();
    let keys: [(u8, &str, &[u8]); 5] = [
        (0, "text", &string(b"value")),
        (1, "list", b"\x02\x01a\x01b"),
        (2, "set", b"\x01\x01m"),
        (4, "hash", b"\x01\x01f\x01v"),
        (5, "zset", &zset),
    ];
    let output = dump(&file(dir.path(), &keys), &["--format", "plain"]);
    let expected = "aux redis-ver -> 7.4.0\ndb=0 text -> value\ndb=0 list[0] -> a\ndb=0 list[1] -> b\n\
                    db=0 set { m }\ndb=0 hash . f -> v\ndb=0 zset[0] -> {m, score=2.5}\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let path = file(dir.path(), &[(0, "text", &string(b"value")), (7, "doc", &module())]);
    let output = dump(&path, &["--format", "plain"]);
    assert_eq!(output.status.code(), Some(18));
    assert!(stderr(&output).contains("plain text cannot show key \"doc\", a module_2"), "{}", stderr(&output));
    // what the crate would hold whole, whether it is there or claimed to be
    let claimed = [&b"\x81"[..], &(1_u64 << 40).to_be_bytes(), b"\x01a"].concat();
    for (value_type, value) in [(0, string(&vec![b'v'; 4 << 20])), (1, claimed)] {
        let path = file(dir.path(), &[(0, "text", &string(&vec![b'v'; 4 << 19])), (value_type, "large", &value)]);
        let output = dump(&path, &["--format", "plain"]);
        assert_eq!(output.status.code(), Some(18));
        let words = "key \"large\", whose value would take more than 4 MiB";
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        assert!(output.stdout.len() < 5 << 20);
    }
}

#[derive(Default)]
struct Keys(Vec<(u64, Vec<u8>)>);

impl Sink for Keys {
    fn key(&mut self, key: &Key<'_>) {
        self.0.push((key.db, key.name.to_vec()));
    }
}

/// Every file of the corpus: JSON names every key, RESP ends well or refuses what no command makes.
#[test]
fn every_file_of_the_corpus_is_dumped() {
    let Some(corpus) = std::env::var_os("RDB_CORPUS_DIR") else {
        let word = b"NOT RUN: every_file_of_the_corpus_is_dumped: set RDB_CORPUS_DIR to the folder of RDB files\n";
        std::io::stderr().write_all(word).unwrap();
        return;
    };
    let mut files = 0;
    for entry in fs::read_dir(Path::new(&corpus).join("rdb")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rdb") {
            continue;
        }
        files += 1;
        let place = path.display();
        let mut scanner = Scanner::new(Keys::default());
        scanner.feed(&fs::read(&path).unwrap()).unwrap();
        let keys = scanner.finish().unwrap().1.0;
        let output = dump(&path, &["--format", "json"]);
        let refused = stderr(&output).contains("in a form that no released server loads");
        assert_eq!(output.status.code(), Some(if refused { 18 } else { 0 }), "{place}: {}", stderr(&output));
        if !refused {
            let items: Vec<Json> =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{place}: {error}"));
            let named = items.iter().filter(|item| item.get("key").is_some());
            let named: Vec<_> = named.map(|item| (item["db"].as_u64().unwrap(), bytes(&item["key"]))).collect();
            assert_eq!(named, keys, "{place}");
        }
        let output = dump(&path, &["--format", "resp", "--skip-modules"]);
        assert_eq!(output.status.code(), Some(if refused { 18 } else { 0 }), "{place}: {}", stderr(&output));
        let output = dump(&path, &["--format", "plain"]);
        assert!(matches!(output.status.code(), Some(0 | 18)), "{place}: {}", stderr(&output));
    }
    assert_eq!(files, 205);
}
