//! What must hold inside values: files that break one rule each, and the command on keys that occur twice.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panic"
)]

#[path = "support/pack.rs"]
mod pack;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pack::{Packed, intset, listpack, ziplist, zipmap};
use proptest::prelude::*;
use rdbtools::decode::{Decoder, Part, Values};
use rdbtools::deep::{Deep, DeepSink};
use rdbtools::structure::Role;
use rdbtools::write::{self, put_length, put_string};
use rdbtools::{ErrorKind, RdbVersion, ScanError, Scanner, Sink};

/// A file of version 12 with one key `k` of this type and value.
fn file(code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = RdbVersion::redis(12).header();
    out.push(code);
    put_string(&mut out, b"k");
    out.extend(value);
    write::finish(&mut out, RdbVersion::redis(12));
    out
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, bytes);
    out
}

fn verify(bytes: &[u8], cut: usize) -> Result<Deep, ScanError> {
    let mut scanner = Scanner::new(Decoder::new(DeepSink::new(())));
    for piece in bytes.chunks(cut) {
        scanner.feed(piece)?;
    }
    Ok(scanner.finish()?.1.into_values().found())
}

fn sound(code: u8, value: &[u8]) -> Deep {
    let bytes = file(code, value);
    let found = verify(&bytes, usize::MAX).unwrap_or_else(|error| panic!("type {code}: {error}"));
    assert_eq!(verify(&bytes, 1), Ok(found));
    found
}

fn refused(code: u8, value: &[u8], word: &str) {
    let bytes = file(code, value);
    let error = verify(&bytes, usize::MAX).expect_err(word);
    assert!(error.kind == ErrorKind::Malformed && error.message.contains(word), "type {code}: {error}, not {word}");
    assert!(error.offset >= 9 && error.offset < bytes.len() as u64 - 9, "{error}");
    assert_eq!(verify(&bytes, 1), Err(error));
}

fn words(words: &[&str]) -> Vec<Packed> {
    let parsed = |word: &&str| word.parse().map_or_else(|_| Packed::text(word), Packed::Integer);
    words.iter().map(parsed).collect()
}

fn packed(list: &[&str]) -> Vec<u8> {
    string(&listpack(&words(list)))
}

/// Plain strings behind their number.
fn strings(per: usize, list: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    put_length(&mut out, (list.len() / per) as u64);
    list.iter().for_each(|word| put_string(&mut out, word.as_bytes()));
    out
}

#[test]
fn members_and_fields_do_not_occur_twice() {
    assert_eq!(sound(2, &strings(1, &["a", "b"])).elements, 2);
    refused(2, &strings(1, &["a", "b", "a"]), "member occurs twice");
    assert_eq!(sound(4, &strings(2, &["a", "b", "b", "b"])).elements, 2);
    refused(4, &strings(2, &["a", "b", "a", "c"]), "field occurs twice");
    sound(1, &strings(1, &["a", "a"]));
    sound(20, &packed(&["a", "1", "b"]));
    refused(20, &packed(&["a", "1", "a"]), "member occurs twice");
    refused(20, &packed(&["1", "a", "1"]), "member occurs twice");
    // the number and its text are one member
    refused(20, &string(&listpack(&[Packed::Integer(1), Packed::text("1")])), "member occurs twice");
    sound(16, &packed(&["a", "a", "b", "a"]));
    refused(16, &packed(&["a", "1", "a", "2"]), "field occurs twice");
    refused(13, &string(&ziplist(&words(&["a", "1", "a", "2"]))), "field occurs twice");
    refused(9, &string(&zipmap(&[(b"a".to_vec(), b"b".to_vec()), (b"a".to_vec(), b"c".to_vec())], 0)), "field occurs");
    refused(17, &packed(&["a", "1", "a", "2"]), "member occurs twice");
    sound(18, &[&[1, 2][..], &packed(&["a", "a"])].concat());
}

#[test]
fn elements_come_in_pairs_and_triplets() {
    for (code, count, ok) in [(16, 3, 4), (17, 3, 4), (25, 4, 3)] {
        let prefix = if code == 25 { vec![0; 8] } else { Vec::new() };
        let value = |count: usize| {
            let all = if code == 25 { ["f", "v", "0", "g", "w", "0"] } else { ["a", "1", "b", "2", "c", "3"] };
            [&prefix[..], &packed(&all[..count])].concat()
        };
        sound(code, &value(ok));
        refused(code, &value(count), "no multiple of");
    }
    refused(12, &string(&ziplist(&words(&["a", "1", "b"]))), "no multiple of 2");
}

#[test]
fn scores_are_numbers_and_ascend_where_they_are_packed() {
    sound(17, &packed(&["a", "-1", "b", "-1", "c", "2.5", "d", "inf"]));
    refused(17, &packed(&["a", "2", "b", "1"]), "do not ascend");
    refused(12, &string(&ziplist(&words(&["a", "2.5", "b", "2"]))), "do not ascend");
    refused(17, &packed(&["a", "nan"]), "not a number");
    refused(17, &packed(&["a", "one"]), "not a number");
    refused(17, &packed(&["a", &"1".repeat(200)]), "text of 200 bytes");
    // the plain types have no order
    let plain = |scores: [f64; 2]| {
        let mut out = vec![2];
        for (member, score) in [b"a", b"b"].iter().zip(scores) {
            put_string(&mut out, *member);
            out.extend(score.to_le_bytes());
        }
        out
    };
    sound(5, &plain([2.0, 1.0]));
    refused(5, &plain([2.0, f64::NAN]), "not a number");
    sound(3, b"\x02\x01a\x032.5\x01b\xff");
    refused(3, b"\x01\x01a\x03two", "not a number");
}

#[test]
fn expiries_of_fields_come_first_and_ascend() {
    let value = |list: &[&str]| [&[0; 8][..], &packed(list)].concat();
    sound(25, &value(&["a", "1", "100", "b", "2", "100", "c", "3", "0", "d", "4", "0"]));
    refused(25, &value(&["a", "1", "100", "b", "2", "99"]), "do not ascend");
    refused(25, &value(&["a", "1", "0", "b", "2", "100"]), "do not ascend");
    refused(25, &value(&["a", "1", "-5"]), "no time");
    refused(25, &value(&["a", "1", "soon"]), "number is required");
    refused(25, &value(&["a", "1", "0", "a", "2", "0"]), "field occurs twice");
    // counted from the least one, beyond what a server accepts
    let least = 0xffff_ffff_fffeu64.to_le_bytes();
    sound(24, &[&least[..], &[1, 2, 1, b'f', 1, b'v']].concat());
    refused(24, &[&least[..], &[1, 4, 1, b'f', 1, b'v']].concat(), "beyond");
}

#[test]
fn empty_collections_are_counted_and_intsets_ascend() {
    for (code, value) in [
        (1, vec![0]),
        (16, packed(&[])),
        (10, string(&ziplist(&[]))),
        (18, [&[1, 2][..], &packed(&[])].concat()),
        (14, vec![0]),
    ] {
        assert_eq!(sound(code, &value), Deep { empty: 1, ..Deep::default() }, "type {code}");
    }
    assert_eq!(sound(11, &string(&intset(&[-5, 7, 70_000]))).elements, 3);
    refused(11, &string(&intset(&[7, -5])), "do not ascend");
    refused(10, &string(b""), "no bytes");
    refused(18, &[&[1, 2][..], &string(b"")].concat(), "no bytes");
    // a node that is one item may be empty
    sound(18, &[&[1, 1][..], &string(b"")].concat());
}

/// A consumer: name, pending entries.
type Consumer = (&'static str, Vec<u64>);

/// A stream: nodes (id, listpack), length, last id, groups (name, pending, consumers with their pending).
struct StreamFile {
    nodes: Vec<(u64, Vec<Packed>)>,
    length: u64,
    last: u64,
    groups: Vec<(&'static str, Vec<u64>, Vec<Consumer>)>,
}

impl StreamFile {
    fn value(&self) -> Vec<u8> {
        let id = |number: u64| [number.to_be_bytes(), 0u64.to_be_bytes()].concat();
        let mut out = Vec::new();
        put_length(&mut out, self.nodes.len() as u64);
        for (number, elements) in &self.nodes {
            put_string(&mut out, &id(*number));
            put_string(&mut out, &listpack(elements));
        }
        for number in [self.length, self.last, 0] {
            put_length(&mut out, number);
        }
        put_length(&mut out, self.groups.len() as u64);
        for (name, pending, consumers) in &self.groups {
            put_string(&mut out, name.as_bytes());
            out.extend([5, 0]);
            put_length(&mut out, pending.len() as u64);
            for number in pending {
                out.extend(id(*number));
                out.extend([0; 8]);
                out.push(1);
            }
            put_length(&mut out, consumers.len() as u64);
            for (name, pending) in consumers {
                put_string(&mut out, name.as_bytes());
                out.extend([0; 8]);
                put_length(&mut out, pending.len() as u64);
                pending.iter().for_each(|number| out.extend(id(*number)));
            }
        }
        out
    }
}

/// A node with two entries of the shared field and a deleted one with a field of its own.
fn node() -> Vec<Packed> {
    let head = ["2", "1", "1", "field", "0"];
    let entries = ["2", "0", "0", "v1", "4", "1", "3", "0", "1", "own", "x", "6", "2", "5", "0", "v2", "4"];
    words(&[&head[..], &entries].concat())
}

fn stream() -> StreamFile {
    let groups = vec![("g", vec![10, 15], vec![("c", vec![15]), ("d", vec![10])]), ("h", vec![], vec![])];
    StreamFile { nodes: vec![(10, node()), (20, node())], length: 4, last: 25, groups }
}

#[test]
fn streams_belong_together() {
    assert_eq!(sound(15, &stream().value()), Deep { elements: 4, ..Deep::default() });
    let odd = StreamFile { length: 5, ..stream() };
    assert_eq!(sound(15, &odd.value()).lengths_wrong, 1);
    let broken = |change: fn(&mut StreamFile), word: &str| {
        let mut stream = stream();
        change(&mut stream);
        refused(15, &stream.value(), word);
    };
    broken(|stream| stream.nodes[1].0 = 9, "nodes of a stream do not ascend");
    broken(|stream| stream.nodes[1].0 = 15, "nodes of a stream do not ascend");
    broken(|stream| stream.last = 24, "last id");
    broken(|stream| stream.nodes.clear(), "no entry");
    broken(|stream| stream.groups[1].0 = "g", "group occurs twice");
    broken(|stream| stream.groups[0].2[1].0 = "c", "consumer occurs twice");
    broken(|stream| stream.groups[0].1.push(10), "group twice");
    broken(|stream| stream.groups[0].1.push(11), "none of its consumers");
    broken(|stream| stream.groups[0].2[0].1.push(12), "not with its group");
    broken(|stream| stream.groups[0].2[0].1.push(10), "twice, or with two");
    let element = |at: usize, with: &'static str, word: &str| {
        let mut stream = stream();
        stream.nodes[0].1[at] = words(&[with]).remove(0);
        refused(15, &stream.value(), word);
    };
    element(0, "3", "lacks 1 live");
    element(1, "0", "more deleted");
    element(0, "-1", "negative");
    element(0, "many", "number is required");
    element(4, "1", "head of a stream's node ends");
    element(5, "4", "no flags");
    element(6, "4", "do not ascend");
    element(9, "5", "counts 5 elements wrongly");
    element(13, "2", "wrongly");
    let mut short = stream();
    short.nodes[0].1.pop();
    refused(15, &short.value(), "ends inside");
    let mut long = stream();
    long.nodes[0].1.extend(words(&["2", "9", "0", "v", "4"]));
    refused(15, &long.value(), "more live");
    let empty = StreamFile { nodes: vec![(10, words(&["0", "0", "0", "0"]))], length: 0, last: 0, groups: vec![] };
    refused(15, &empty.value(), "holds no entry");
}

/// Texts of a value with what they are.
#[derive(Default)]
struct Texts(Vec<(Role, Vec<u8>)>);

impl Sink for Texts {}

impl Values for Texts {
    fn part(&mut self, _offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        match part {
            Part::Begin { role, .. } => self.0.push((role, Vec::new())),
            Part::Piece(bytes) => self.0.last_mut().unwrap().1.extend(bytes),
            _ => {}
        }
        Ok(())
    }
}

fn text(element: &Packed) -> Vec<u8> {
    match element {
        Packed::Integer(number) => number.to_string().into_bytes(),
        Packed::Text(text) => text.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lists_and_hashes_decode_to_what_was_packed(
        elements in proptest::collection::vec(pack::element(), 0..30),
        cut in 1usize..5000,
    ) {
        let even = &elements[..elements.len() / 2 * 2];
        for (code, value, elements, roles) in [
            (10, string(&ziplist(&elements)), &elements[..], [Role::Item, Role::Item]),
            (18, [&[1, 2][..], &string(&listpack(&elements))].concat(), &elements[..], [Role::Item, Role::Item]),
            (13, string(&ziplist(even)), even, [Role::Field, Role::FieldValue]),
            (16, string(&listpack(even)), even, [Role::Field, Role::FieldValue]),
        ] {
            let bytes = file(code, &value);
            let mut scanner = Scanner::new(Decoder::new(Texts::default()));
            for piece in bytes.chunks(cut) {
                scanner.feed(piece).unwrap();
            }
            let texts = scanner.finish().unwrap().1.into_values().0;
            let expected: Vec<_> = roles.into_iter().cycle().zip(elements.iter().map(text)).collect();
            prop_assert_eq!(texts, expected);
        }
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rdbtools")).args(args).output().unwrap()
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// A file with keys in databases; answers with where the entry of each begins.
fn keys(path: &Path, keys: &[(u64, &str)]) -> Vec<usize> {
    let mut out = RdbVersion::redis(11).header();
    let mut places = Vec::new();
    for (db, key) in keys {
        write::put_select_db(&mut out, *db);
        places.push(out.len());
        out.push(0);
        put_string(&mut out, key.as_bytes());
        put_string(&mut out, b"value");
    }
    write::finish(&mut out, RdbVersion::redis(11));
    fs::write(path, out).unwrap();
    places
}

#[test]
fn keys_that_occur_twice_are_named_with_both_places() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("twice.rdb");
    let path_text = path.to_str().unwrap();
    let places = keys(&path, &[(0, "a"), (1, "a"), (0, "b\n"), (1, "c"), (0, "b\n"), (0, "a")]);
    assert_eq!(run(&["verify", path_text]).status.code(), Some(0), "framing alone does not show it");
    let output = run(&["verify", "--deep", path_text, "-o", "json"]);
    assert_eq!(output.status.code(), Some(17));
    let report = json(&output.stdout);
    let (first, second) = (places[2], places[4]);
    assert_eq!(report["valid"], false);
    assert_eq!(report["error"]["offset"], second);
    assert_eq!(report["error"]["kind"], "malformed");
    let message = format!(
        "key \"b\\n\" of database 0 occurs twice, at byte {first} and at byte {second}; 1 other keys occur twice too"
    );
    assert_eq!(report["error"]["message"], message);

    let mut child = Command::new(env!("CARGO_BIN_EXE_rdbtools"))
        .args(["verify", "--deep", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(&path).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(17));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("a key occurs twice, at byte {first} and at byte {second}")), "{text}");
}

#[test]
fn a_sound_file_is_told_with_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sound.rdb");
    let path = path.to_str().unwrap();
    fs::write(path, file(16, &packed(&["f", "v"]))).unwrap();
    let report = json(&run(&["verify", "--deep", path, "-o", "json"]).stdout);
    assert_eq!(report["valid"], true);
    let deep = serde_json::json!({"elements": 1, "empty": 0, "not_compared": 0, "lengths_wrong": 0});
    assert_eq!((&report["deep"], &report["keys"]), (&deep, &1.into()));
    fs::write(path, file(16, &packed(&[]))).unwrap();
    let output = run(&["verify", "--deep", path]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("note: 1 keys hold an empty collection"));
    fs::write(path, file(16, &packed(&["f"]))).unwrap();
    assert_eq!(run(&["verify", path]).status.code(), Some(0));
    assert_eq!(run(&["verify", "--deep", path]).status.code(), Some(17));
}
