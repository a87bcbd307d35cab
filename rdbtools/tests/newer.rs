//! What Redis 8.8 and 8.10 added: streams with entries that were given back, arrays, templates of hashes. There is no
//! such server here; the files are made as its source and its tests say (`docs/versions.md`).

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rdbtools::convert::{ConvertError, ConvertOptions, Converted, Converter, Target};
use rdbtools::decode::Decoder;
use rdbtools::deep::{Deep, DeepSink};
use rdbtools::split::{SplitError, SplitOptions, Splitter};
use rdbtools::write::{self, put_length, put_string};
use rdbtools::{ErrorKind, RdbVersion, ReportSink, ScanError, Scanner, Sink};
use serde_json::{Value, json};

/// A file of a version with this between header and end.
fn file(version: u16, body: &[u8]) -> Vec<u8> {
    let version = RdbVersion::redis(version);
    let mut out = version.header();
    out.extend(body);
    write::finish(&mut out, version);
    out
}

fn key(code: u8, name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![code];
    put_string(&mut out, name.as_bytes());
    out.extend(value);
    out
}

fn template(id: u64, fields: &[&str]) -> Vec<u8> {
    let mut out = vec![242];
    put_length(&mut out, id);
    put_length(&mut out, fields.len() as u64);
    fields.iter().for_each(|field| put_string(&mut out, field.as_bytes()));
    out
}

/// The listpack that a test of Redis has for a hash of template 5 with the values 1 and 2, and the other encoding.
const TEMPLATED_LISTPACK: &[u8] = b"\x0d\x0d\0\0\0\x03\0\x05\x01\x01\x01\x02\x01\xff";
const TEMPLATED: &[u8] = b"\x05\xc0\x01\xc0\x02";

fn array() -> Vec<u8> {
    let mut out = vec![5, 1];
    put_length(&mut out, 1 << 40);
    for (index, element) in
        [&b"\x01\xf9\xff\xff\xff\xff\xff\xff\xff"[..], b"\x03\x03abc", b"\x00\x09a string!"].iter().enumerate()
    {
        put_length(&mut out, index as u64 * 100);
        out.extend(*element);
    }
    for (index, number) in [(1u64 << 33, 2.0f64), ((1 << 33) + 1, -0.5)] {
        put_length(&mut out, index);
        out.push(2);
        out.extend(number.to_le_bytes());
    }
    out
}

/// A stream of one entry, and a group with the pending entries 1-0 and 2-0, of which nobody has those of `nacked`.
fn stream(consumer: &[u64], nacked: &[u64]) -> Vec<u8> {
    let id = |ms: u64| [ms.to_be_bytes(), 0u64.to_be_bytes()].concat();
    let mut out = vec![1];
    put_string(&mut out, &id(1));
    // one entry, none deleted, one shared field "f"; flags, ms, seq, value "v", number of elements
    let listpack = b"\x1d\0\0\0\x0a\0\x01\x01\0\x01\x01\x01\x81f\x02\0\x01\x02\x01\0\x01\0\x01\x81v\x02\x04\x01\xff";
    put_string(&mut out, listpack);
    // length, last id, first id, greatest deleted id, entries added
    out.extend([1, 2, 0, 1, 0, 2, 0, 2]);
    out.push(1);
    put_string(&mut out, b"g");
    out.extend([2, 0, 2, 2]);
    for ms in [1, 2] {
        out.extend(id(ms));
        out.extend([0; 8]);
        out.push(1);
    }
    out.push(1);
    put_string(&mut out, b"c");
    out.extend([0; 16]);
    for ids in [consumer, nacked] {
        put_length(&mut out, ids.len() as u64);
        ids.iter().for_each(|ms| out.extend(id(*ms)));
    }
    // limits, producers, counters of idempotence
    out.extend([50, 60, 1]);
    put_string(&mut out, b"producer");
    out.push(1);
    put_string(&mut out, b"iid");
    out.extend([1, 0, 7, 3]);
    out
}

fn verify(bytes: &[u8], cut: usize) -> Result<Deep, ScanError> {
    let mut report = Scanner::new(ReportSink::new(true));
    let framing = bytes.chunks(cut).try_for_each(|piece| report.feed(piece).map(|_| ()));
    let mut scanner = Scanner::new(Decoder::new(DeepSink::new(())));
    for piece in bytes.chunks(cut) {
        scanner.feed(piece)?;
    }
    let found = scanner.finish()?.1.into_values().found();
    framing.unwrap();
    report.outcome().unwrap();
    Ok(found)
}

fn sound(version: u16, body: &[u8]) -> Deep {
    let bytes = file(version, body);
    let found = verify(&bytes, usize::MAX).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(verify(&bytes, 1), Ok(found));
    found
}

fn refused(version: u16, body: &[u8], kind: ErrorKind, word: &str) {
    let bytes = file(version, body);
    let error = verify(&bytes, usize::MAX).expect_err(word);
    assert!(error.kind == kind && error.message.contains(word), "{error}, not {word}");
    assert_eq!(verify(&bytes, 1).map_err(|error| error.message), Err(error.message));
}

#[test]
fn values_of_8_8_and_8_10_are_checked() {
    assert_eq!(sound(14, &key(28, "a", &array())).elements, 5);
    assert_eq!(sound(14, &key(27, "s", &stream(&[1], &[2]))).elements, 1);
    assert_eq!(sound(14, &key(27, "s", &stream(&[2, 1], &[]))).elements, 1);
    for word in ["not with its group", "none of its consumers", "twice, or with two"] {
        let (consumer, nacked): (&[u64], &[u64]) = match word {
            "not with its group" => (&[1], &[3]),
            "none of its consumers" => (&[1], &[]),
            _ => (&[1, 2], &[2]),
        };
        refused(14, &key(27, "s", &stream(consumer, nacked)), ErrorKind::Malformed, word);
    }
    refused(14, &key(28, "a", b"\x01\x02\x00\x00\x01a"), ErrorKind::Malformed, "place for insertion");
    refused(14, &key(28, "a", b"\x01\x00\x00\x04\x01a"), ErrorKind::Malformed, "kind of an array's element");
}

#[test]
fn hashes_refer_to_templates() {
    let fields = template(5, &["b", "aa"]);
    let both = [&fields[..], &key(30, "l", TEMPLATED_LISTPACK), &key(32, "h", TEMPLATED)].concat();
    assert_eq!(sound(15, &both).elements, 4);
    let malformed = |body: &[&[u8]], word: &str| refused(15, &body.concat(), ErrorKind::Malformed, word);
    malformed(&[&fields, &fields], "occurs twice");
    malformed(&[&template(5, &[])], "no fields");
    malformed(&[&template(5, &["aa", "b"]), &key(32, "h", TEMPLATED)], "do not ascend");
    malformed(&[&template(5, &["b", "b"]), &key(32, "h", TEMPLATED)], "do not ascend");
    malformed(&[&template(4, &["b", "aa"]), &key(32, "h", TEMPLATED)], "template 5, which there is not");
    malformed(&[&template(4, &["b", "aa"]), &key(30, "l", TEMPLATED_LISTPACK)], "template 5, which there is not");
    malformed(&[&template(5, &["b"]), &key(30, "l", TEMPLATED_LISTPACK)], "more values");
    malformed(&[&template(5, &["b", "c", "aa"]), &key(30, "l", TEMPLATED_LISTPACK)], "fewer values");
    // before 8.10 the opcode is nothing
    refused(14, &fields, ErrorKind::Unsupported, "242 is no value type or opcode");
    // forms of a single dumped value, which no file has
    refused(15, &key(29, "d", b""), ErrorKind::Unsupported, "29 is no value type");
}

#[test]
fn what_cannot_be_carried_is_refused() {
    // whoever does not know templates never sees a value without its own
    struct Untaught;
    impl Sink for Untaught {}
    let templated = file(15, &[template(5, &["b", "aa"]), key(32, "h", TEMPLATED)].concat());
    assert_eq!(Scanner::new(Untaught).feed(&templated).unwrap_err().kind, ErrorKind::Unsupported);
    for target in Target::all() {
        let converted = convert(&file(14, &key(28, "a", &array())), target);
        assert!(matches!(converted, Err(ConvertError::Refused { .. })), "{target}");
        // a stream is: what was given back gets a consumer
        let converted = convert(&file(14, &key(27, "s", &stream(&[1], &[2]))), target).unwrap();
        assert_eq!((converted.keys, converted.rewritten), (1, 1), "{target}");
    }
}

fn convert(bytes: &[u8], target: Target) -> Result<Converted<Vec<u8>>, ConvertError> {
    let mut converter = Converter::new(Vec::new(), ConvertOptions::new(target));
    let fed = converter.feed(bytes);
    fed.and_then(|_| converter.finish())
}

/// Splits the inputs in pieces of `cut` bytes; the outputs and the notes.
fn split(inputs: &[&[u8]], shards: usize, cut: usize) -> Result<(Vec<Vec<u8>>, Vec<String>), SplitError> {
    let targets = policies::shards::equal(shards).unwrap();
    let outputs = vec![Vec::new(); targets.len()];
    let mut splitter = Splitter::new(targets, outputs, SplitOptions::new(RdbVersion::redis(15)))?;
    for input in inputs {
        splitter.begin_input("input")?;
        input.chunks(cut).try_for_each(|piece| splitter.feed(piece).map(|_| ()))?;
        splitter.end_input()?;
    }
    let notes = splitter.notes();
    Ok((splitter.finish()?.into_iter().map(|output| output.writer).collect(), notes))
}

/// Names and values, in the order of the names.
fn values(files: &[Vec<u8>]) -> Vec<(String, Value)> {
    let dir = tempfile::tempdir().unwrap();
    let of = |bytes: &Vec<u8>| {
        assert!(verify(bytes, usize::MAX).is_ok());
        let output = dump(dir.path(), bytes, &["--format", "json"]);
        let items: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        items.into_iter().filter_map(|item| Some((item.get("key")?.as_str()?.to_owned(), item.get("value")?.clone())))
    };
    let mut all: Vec<_> = files.iter().flat_map(of).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Hashes of template 5, in both encodings, and others between them.
fn templated(fields: [&str; 2], names: [&str; 4]) -> Vec<u8> {
    let [a, b, c, d] = names;
    let mut plain = vec![1];
    put_string(&mut plain, b"field");
    put_string(&mut plain, b"value");
    let body = [
        template(5, &fields),
        key(30, a, TEMPLATED_LISTPACK),
        key(4, b, &plain),
        key(32, c, TEMPLATED),
        key(30, d, TEMPLATED_LISTPACK),
    ];
    file(15, &body.concat())
}

#[test]
fn templates_go_to_every_output() {
    let input = templated(["b", "aa"], ["l", "p", "h", "m"]);
    let expected = values(std::slice::from_ref(&input));
    assert_eq!(expected.len(), 4);
    let (outputs, notes) = split(&[&input], 3, usize::MAX).unwrap();
    assert_eq!((values(&outputs), notes.len()), (expected.clone(), 0));
    assert_eq!(split(&[&input], 3, 1).unwrap().0, outputs);
    let fields = template(5, &["b", "aa"]);
    assert!(outputs.iter().all(|output| output.windows(fields.len()).filter(|window| *window == fields).count() == 1));
    // together again: what is the same occurs once
    let parts: Vec<&[u8]> = outputs.iter().map(Vec::as_slice).collect();
    let (merged, notes) = split(&parts, 1, usize::MAX).unwrap();
    assert_eq!((values(&merged), notes.len()), (expected, 0));
    assert_eq!(merged[0].windows(fields.len()).filter(|window| *window == fields).count(), 1);
}

#[test]
fn hashes_get_their_fields_where_templates_of_inputs_differ() {
    let first = templated(["b", "aa"], ["l", "p", "h", "m"]);
    let second = templated(["x", "yyy"], ["l2", "p2", "h2", "m2"]);
    let third = templated(["b", "aa"], ["l3", "p3", "h3", "m3"]);
    let inputs = [first, second, third];
    let parts: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    for (shards, cut) in [(1, usize::MAX), (1, 1), (3, 7)] {
        let (outputs, notes) = split(&parts, shards, cut).unwrap();
        assert_eq!(values(&outputs), values(&inputs));
        let told = "3 hashes were written with their fields, because templates of inputs differ";
        assert_eq!(notes, [told]);
    }
}

#[test]
fn conversions_give_hashes_their_fields() {
    let input = templated(["b", "aa"], ["l", "p", "h", "m"]);
    let expected = values(std::slice::from_ref(&input));
    for target in Target::all() {
        let converted = convert(&input, target).unwrap();
        assert_eq!((converted.rewritten, converted.losses.len()), (3, 0), "{target}");
        assert_eq!(values(&[converted.writer]), expected, "{target}");
    }
    for (body, word) in [
        ([template(5, &["b"]), key(30, "l", TEMPLATED_LISTPACK)], "more values than its template has fields"),
        ([template(5, &["b", "c", "aa"]), key(30, "l", TEMPLATED_LISTPACK)], "fewer values than its template"),
        ([template(4, &["b", "aa"]), key(30, "l", TEMPLATED_LISTPACK)], "template 5, which there is not"),
        ([template(4, &["b", "aa"]), key(32, "l", TEMPLATED)], "template 5, which there is not"),
    ] {
        let Err(ConvertError::Scan(error)) = convert(&file(15, &body.concat()), Target::Redis80) else {
            panic!("converted, though it has {word}")
        };
        assert!(error.message.contains(word), "{error}");
    }
}

fn dump(dir: &Path, bytes: &[u8], arguments: &[&str]) -> Output {
    let path = dir.join("file.rdb");
    fs::write(&path, bytes).unwrap();
    Command::new(env!("CARGO_BIN_EXE_rdbtools")).arg("dump").arg(path).args(arguments).output().unwrap()
}

#[test]
fn dumps_hold_them() {
    let dir = tempfile::tempdir().unwrap();
    let body = [
        template(5, &["b", "aa"]),
        key(30, "l", TEMPLATED_LISTPACK),
        key(32, "h", TEMPLATED),
        key(27, "s", &stream(&[1], &[2])),
    ];
    let output = dump(dir.path(), &file(15, &body.concat()), &["--format", "resp"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("note: 1 pending entries that consumers gave back were left out"), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    for name in ["l", "h"] {
        let command = format!("*6\r\n$4\r\nHSET\r\n$1\r\n{name}\r\n$1\r\nb\r\n$1\r\n1\r\n$2\r\naa\r\n$1\r\n2\r\n");
        assert!(text.contains(&command), "{text}");
    }
    let array = [&body.concat()[..], &key(28, "a", &array())].concat();
    let output = dump(dir.path(), &file(15, &array), &["--format", "json"]);
    let items: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let values: Vec<&Value> = items.iter().map(|item| &item["value"]).collect();
    let hash = json!([{"field": "b", "value": "1"}, {"field": "aa", "value": "2"}]);
    assert_eq!((values[0], values[1]), (&hash, &hash));
    let group = &values[2]["groups"][0];
    assert_eq!((&group["nacked"], &group["consumers"][0]["pending"]), (&json!(["2-0"]), &json!(["1-0"])));
    let producers = json!([{"name": "producer", "ids": [{"id": "iid", "entry": "1-0"}]}]);
    let idempotence = json!({"duration_s": 50, "limit": 60, "producers": producers, "added": 7, "duplicates": 3});
    assert_eq!(values[2]["idempotence"], idempotence);
    let elements = json!([
        {"index": 0, "value": "-7"},
        {"index": 100, "value": "abc"},
        {"index": 200, "value": "a string!"},
        {"index": 1u64 << 33, "value": "2.0"},
        {"index": (1u64 << 33) + 1, "value": "-0.5"},
    ]);
    assert_eq!(values[3], &json!({"insert_index": 1u64 << 40, "elements": elements}));
    let refused = dump(dir.path(), &file(15, &array), &["--format", "resp"]);
    assert_eq!(refused.status.code(), Some(18));
}
