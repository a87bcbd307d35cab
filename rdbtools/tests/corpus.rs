//! Files that other people's servers and tools wrote, and files that a reader must refuse.
//!
//! The folder is named by `RDB_CORPUS_DIR`; it holds `rdb/` and `rdb-malformed/`, each with an `INDEX.tsv`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panic"
)]

#[path = "support/events.rs"]
mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rdbtools::decode::{Decoder, Part, Values};
use rdbtools::deep::{Deep, DeepSink};
use rdbtools::scan::{CrcState, Scanner};
use rdbtools::split::{SplitError, SplitOptions, Splitter};
use rdbtools::structure::Role;
use rdbtools::{ErrorKind, Key, ModuleId, RdbVersion, Report, ReportSink, ScanError, Sink};
use serde_json::Value;

/// The folder, or `None` with a word on stderr (not captured) that the test did not run.
fn corpus(test: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("RDB_CORPUS_DIR").map(PathBuf::from);
    if dir.is_none() {
        // written to the stream itself: what `eprintln!` prints is not shown when a test passes
        let word = format!("NOT RUN: {test}: set RDB_CORPUS_DIR to the folder of RDB files\n");
        std::io::stderr().write_all(word.as_bytes()).unwrap();
    }
    dir
}

/// The rows of an index, each by the names of its columns.
fn index(folder: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(folder.join("INDEX.tsv")).expect("the corpus has an index");
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let row = |line: &str| columns.iter().map(ToString::to_string).zip(line.split('\t').map(str::to_owned)).collect();
    lines.map(row).collect()
}

fn counts(json: &str) -> BTreeMap<String, u64> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn verify(bytes: &[u8]) -> Result<Report, ScanError> {
    let mut scanner = Scanner::new(ReportSink::new(true));
    let used = scanner.feed(bytes)?;
    let (summary, sink) = scanner.finish()?;
    if used < bytes.len() {
        let (offset, message) = (used as u64, "trailing bytes".to_owned());
        return Err(ScanError { offset, kind: ErrorKind::Malformed, message });
    }
    let (report, slots) = ReportSink::into_report(&summary, sink);
    let slots = slots.unwrap();
    assert_eq!(slots.iter().map(|(_, keys, _)| keys).sum::<u64>(), report.keys);
    Ok(report)
}

#[test]
fn every_sound_file_is_read_as_its_index_says() {
    let Some(dir) = corpus("every_sound_file_is_read_as_its_index_says") else { return };
    let folder = dir.join("rdb");
    let rows = index(&folder);
    assert_eq!(rows.len(), 205);
    for row in rows {
        let file = &row["file"];
        let bytes = fs::read(folder.join(file)).unwrap();
        let report = verify(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(report.keys.to_string(), row["keys_total"], "{file}");
        assert_eq!(report.bytes, bytes.len() as u64, "{file}");
        let version =
            format!("{}{:0width$}", report.magic.name(), report.rdb_version, width = 9 - report.magic.name().len());
        assert_eq!(version, row["rdb_version"], "{file}");
        let per_db = |count: fn(&rdbtools::DbCounts) -> u64| -> BTreeMap<String, u64> {
            let counted = report.databases.iter().map(|(db, counts)| (db.to_string(), count(counts)));
            counted.filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(per_db(|db| db.keys), counts(&row["keys_per_db"]), "{file}");
        assert_eq!(per_db(|db| db.expires), counts(&row["expires_per_db"]), "{file}");
        assert_eq!(report.types, counts(&row["types"]), "{file}");
        let crc = match report.crc {
            CrcState::Ok => "ok",
            CrcState::Disabled => "disabled(0)",
            CrcState::Absent => "n/a",
        };
        assert_eq!(crc, row["crc"], "{file}");
        let opcodes = counts(&row["opcodes"]);
        let functions = ["FUNCTION2", "FUNCTION_PRE_GA"].iter().filter_map(|opcode| opcodes.get(*opcode)).sum::<u64>();
        assert_eq!(report.functions, functions, "{file}");
        let features = counts(&row["features"]);
        let modules: BTreeSet<String> = features
            .keys()
            .filter_map(|feature| feature.strip_prefix("module:").or_else(|| feature.strip_prefix("moduleaux:")))
            .map(|module| module.split('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(report.modules, modules, "{file}");
    }
}

#[test]
fn every_file_with_broken_framing_is_refused() {
    let Some(dir) = corpus("every_file_with_broken_framing_is_refused") else { return };
    let folder = dir.join("rdb-malformed");
    let rows = index(&folder);
    assert!(rows.len() > 70);
    for row in rows.iter().filter(|row| row["detectable_at"] == "framing") {
        let file = &row["file"];
        let bytes = fs::read(folder.join(file)).unwrap();
        let error = verify(&bytes).expect_err(file);
        // a closer check stops at the same place, or before it at something inside a value
        if row["error_class"] != "trailing_data" {
            assert!(verify_deep(&bytes, usize::MAX).expect_err(file).offset <= error.offset, "{file}");
        }
        let kinds: &[ErrorKind] = match row["error_class"].as_str() {
            "bad_magic" => &[ErrorKind::NotRdb],
            "checksum_mismatch" => &[ErrorKind::Checksum],
            // where bytes are missing inside a value, what follows is read as something else
            "truncated" => &[ErrorKind::Truncated, ErrorKind::Malformed, ErrorKind::Unsupported],
            "unknown_type" | "unknown_opcode" | "unsupported_type" | "unsupported_version" => &[ErrorKind::Unsupported],
            "bad_length_encoding" | "bad_string_encoding" | "lzf_corrupt" | "trailing_data" => &[ErrorKind::Malformed],
            "module_corrupt" | "quicklist_corrupt" | "stream_corrupt" => &[ErrorKind::Malformed],
            _ => &[ErrorKind::Truncated, ErrorKind::Malformed, ErrorKind::Unsupported, ErrorKind::Checksum],
        };
        assert!(kinds.contains(&error.kind), "{file} ({}): {error}", row["error_class"]);
    }
}

/// Keys with their places, in the order of the file.
#[derive(Default)]
struct Places(Vec<((u64, Vec<u8>), u64)>);

impl Sink for Places {
    fn key(&mut self, key: &Key<'_>) {
        self.0.push(((key.db, key.name.to_vec()), key.offset));
    }
}

/// Checks a file as `verify --deep` does, fed in pieces of `cut` bytes.
fn verify_deep(bytes: &[u8], cut: usize) -> Result<Deep, ScanError> {
    let mut scanner = Scanner::new(Decoder::new(DeepSink::new(Places::default())));
    for piece in bytes.chunks(cut) {
        scanner.feed(piece)?;
    }
    let mut sink = scanner.finish()?.1.into_values();
    let mut keys = std::mem::take(&mut sink.keys_mut().0);
    keys.sort_unstable();
    let twice = keys.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1).min();
    let error = |offset| ScanError { offset, kind: ErrorKind::Malformed, message: "a key occurs twice".to_owned() };
    twice.map_or(Ok(sink.found()), |offset| Err(error(offset)))
}

/// Files that a tool merged without asking whether a key occurs twice: `redis-check-rdb` does not notice, and no
/// server loads them. See `docs/deep.md`.
const WITH_DUPLICATES: [&str; 7] = [
    "redis-rdb-cli.12-28b31a61.rdb",
    "redis-rdb-cli.34-803568d4.rdb",
    "redis-rdb-cli.34-d3ed825b.rdb",
    "redis-rdb-cli.89-8dd64509.rdb",
    "redis-rdb-cli.all-35ec63d0.rdb",
    "redis-rdb-cli.dump-221eca4c.rdb",
    "redis-rdb-cli.string-6da904a6.rdb",
];

#[test]
fn every_sound_file_is_sound_inside() {
    let Some(dir) = corpus("every_sound_file_is_sound_inside") else { return };
    let (mut refused, mut odd) = (Vec::new(), BTreeMap::new());
    for row in index(&dir.join("rdb")) {
        let file = &row["file"];
        let bytes = fs::read(dir.join("rdb").join(file)).unwrap();
        let found = verify_deep(&bytes, usize::MAX);
        assert_eq!(verify_deep(&bytes, 7), found, "{file}");
        match found {
            Err(error) => {
                assert_eq!(error.message, "a key occurs twice", "{file}: {error}");
                refused.push(file.clone());
            }
            Ok(Deep { empty: 0, not_compared: 0, lengths_wrong: 0, .. }) => {}
            Ok(found) => {
                odd.insert(file.clone(), (found.empty, found.not_compared, found.lengths_wrong));
            }
        }
    }
    refused.sort();
    assert_eq!(refused, WITH_DUPLICATES);
    // empty collections, which servers skip, and streams that servers of version 5 miscounted
    let expected = [
        ("HDT3213-rdb.stream_listpacks_1-6a5e8ae8.rdb", (0, 0, 1)),
        ("redis-redis.corrupt_empty_keys-6932df46.rdb", (8, 0, 0)),
        ("redis-redis.corrupt_empty_keys-c4f17cd3.rdb", (6, 0, 0)),
        ("redis-replicator.listpack-bug-3ede3b16.rdb", (0, 0, 1)),
    ];
    assert_eq!(odd, expected.map(|(file, found)| (file.to_owned(), found)).into());
}

#[test]
fn every_file_with_a_broken_inside_is_refused() {
    let Some(dir) = corpus("every_file_with_a_broken_inside_is_refused") else { return };
    let folder = dir.join("rdb-malformed");
    let mut refused = 0;
    for row in index(&folder).iter().filter(|row| row["detectable_at"] != "framing") {
        let file = &row["file"];
        let bytes = fs::read(folder.join(file)).unwrap();
        let error = verify_deep(&bytes, usize::MAX).expect_err(file);
        assert_eq!(verify_deep(&bytes, 1), Err(error.clone()), "{file}");
        assert_eq!(error.kind, ErrorKind::Malformed, "{file}: {error}");
        let word = match row["error_class"].as_str() {
            "bad_score" => "score is not a number",
            "duplicate_key" => "key occurs twice",
            "intset_corrupt" => "intset: ",
            "listpack_corrupt" if file.contains("triplets") => "no multiple of 3",
            "listpack_corrupt" => "listpack: ",
            "ziplist_corrupt" => "ziplist: ",
            "zipmap_corrupt" => "zipmap: ",
            other => panic!("{file}: {other} is not expected inside a value"),
        };
        assert!(error.message.contains(word), "{file}: {error}");
        // the scanner that made the index tells where it stopped, which is behind the value
        let stopped: u64 = row["offset_where_own_scanner_stopped"].parse().unwrap();
        assert!(error.offset <= stopped && stopped < error.offset + 90, "{file}: {error}, not {stopped}");
        refused += 1;
    }
    assert_eq!(refused, 16);
}

/// Keys as the index of keys gives them.
#[derive(Default)]
struct Keys {
    seen: Vec<Value>,
    at: u64,
}

impl Sink for Keys {
    fn key(&mut self, key: &Key<'_>) {
        self.at = key.offset;
        self.seen.push(serde_json::json!({
            "db": key.db,
            "type": key.value_type.code(),
            "key_b64": base64(key.name),
            "expire_ms": key.expires_at_ms,
            "idle": key.idle_s,
            "freq": key.frequency,
            "entry_start": key.offset,
        }));
    }

    fn key_end(&mut self, bytes: u64) {
        let end = self.at + bytes;
        self.seen.last_mut().unwrap()["entry_end"] = end.into();
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[test]
fn every_key_is_told_with_its_place_and_attributes() {
    let Some(dir) = corpus("every_key_is_told_with_its_place_and_attributes") else { return };
    let text = fs::read_to_string(dir.join("rdb/KEYS.jsonl")).unwrap();
    let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let mut key: Value = serde_json::from_str(line).unwrap();
        let fields = key.as_object_mut().unwrap();
        let Some(Value::String(file)) = fields.remove("file") else { panic!("{line}") };
        fields.remove("elements");
        files.entry(file).or_default().push(key);
    }
    assert!(files.len() > 150);
    for (file, keys) in files {
        let mut scanner = Scanner::new(Keys::default());
        scanner.feed(&fs::read(dir.join("rdb").join(&file)).unwrap()).unwrap();
        let seen = scanner.finish().unwrap().1.seen;
        assert_eq!(seen.len(), keys.len(), "{file}");
        for (seen, key) in seen.iter().zip(&keys) {
            assert_eq!(seen, key, "{file}");
        }
    }
}

/// Elements of each value: items, members, fields; of a stream its length; a string or a module's value counts as one.
#[derive(Default)]
struct Elements {
    counts: Vec<u64>,
    skip: bool,
}

impl Sink for Elements {
    fn key(&mut self, key: &Key<'_>) {
        self.counts.push(u64::from(matches!(key.value_type.code(), 0 | 7)));
        self.skip = matches!(key.value_type.code(), 15 | 19 | 21 | 26);
    }
}

impl Values for Elements {
    fn part(&mut self, _offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        let element = matches!(part, Part::Begin { role: Role::Item | Role::Member | Role::Field, .. });
        *self.counts.last_mut().unwrap() += match part {
            Part::Stream(facts) => facts.length,
            _ => u64::from(element && !self.skip),
        };
        Ok(())
    }
}

#[test]
fn every_value_decodes_to_as_many_elements_as_its_index_says() {
    let Some(dir) = corpus("every_value_decodes_to_as_many_elements_as_its_index_says") else { return };
    let text = fs::read_to_string(dir.join("rdb/KEYS.jsonl")).unwrap();
    let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let key: Value = serde_json::from_str(line).unwrap();
        files.entry(key["file"].as_str().unwrap().to_owned()).or_default().push(key);
    }
    for row in index(&dir.join("rdb")) {
        let file = &row["file"];
        let bytes = fs::read(dir.join("rdb").join(file)).unwrap();
        let mut counts = Vec::new();
        for cut in [usize::MAX, 1, 1000] {
            let mut scanner = Scanner::new(Decoder::new(Elements::default()));
            for piece in bytes.chunks(cut) {
                scanner.feed(piece).unwrap_or_else(|error| panic!("{file}: {error}"));
            }
            let seen = scanner.finish().unwrap().1.into_values().counts;
            assert!(counts.is_empty() || counts == seen, "{file}");
            counts = seen;
        }
        let Some(keys) = files.get(file) else { continue };
        for (key, count) in keys.iter().zip(counts) {
            assert_eq!(key["elements"].as_u64(), Some(count), "{file}: {key}");
        }
    }
}

#[test]
fn cuts_change_nothing() {
    let Some(dir) = corpus("cuts_change_nothing") else { return };
    let mut files = 0;
    for folder in ["rdb", "rdb-malformed"] {
        for row in index(&dir.join(folder)) {
            let bytes = fs::read(dir.join(folder).join(&row["file"])).unwrap();
            let (whole, outcome) = events::scan(&bytes, &[usize::MAX]);
            for cuts in [&[1][..], &[2, 3, 5, 7, 11, 13, 64, 1000], &[253, 1, 17, 4096]] {
                let (pieces, other) = events::scan(&bytes, cuts);
                assert_eq!(other, outcome, "{}", row["file"]);
                if outcome.is_ok() {
                    assert_eq!(pieces, whole, "{}", row["file"]);
                }
            }
            files += 1;
        }
    }
    assert!(files > 280, "{files}");
}

/// A sound file, split and merged again, holds the same keys with the same values.
#[test]
fn every_sound_file_survives_a_split_and_a_merge() {
    let Some(dir) = corpus("every_sound_file_survives_a_split_and_a_merge") else { return };
    let mut split = 0;
    for row in index(&dir.join("rdb")) {
        let bytes = fs::read(dir.join("rdb").join(&row["file"])).unwrap();
        let mut scanner = Scanner::new(Entries::default());
        scanner.feed(&bytes).unwrap();
        let (summary, before) = scanner.finish().unwrap();
        // functions of a release candidate cannot be carried, and that is said
        let refused = row["opcodes"].contains("FUNCTION_PRE_GA");
        let databases = counts(&row["keys_per_db"]);
        let shards = if databases.keys().all(|db| db == "0") { 4 } else { 1 };
        let first = split_once(&[bytes], shards, summary.version);
        assert_eq!(first.is_err(), refused, "{}", row["file"]);
        let Ok(outputs) = first else { continue };
        let merged = split_once(&outputs, 1, summary.version).unwrap();
        let mut scanner = Scanner::new(Entries::default());
        scanner.feed(&merged[0]).unwrap();
        let after = scanner.finish().unwrap().1;
        assert_eq!(before.sorted(), after.sorted(), "{}", row["file"]);
        assert_eq!(before.modules, after.modules, "{}", row["file"]);
        split += 1;
    }
    assert!(split > 200, "{split}");
}

fn split_once(inputs: &[Vec<u8>], shards: usize, version: RdbVersion) -> Result<Vec<Vec<u8>>, SplitError> {
    let targets = policies::shards::equal(shards).unwrap();
    let options = SplitOptions { cluster: shards > 1, ..SplitOptions::new(version) };
    let mut splitter = Splitter::new(targets, vec![Vec::new(); shards], options)?;
    for input in inputs {
        splitter.begin_input("input")?;
        splitter.feed(input)?;
        splitter.end_input()?;
    }
    Ok(splitter.finish()?.into_iter().map(|output| output.writer).collect())
}

/// Keys with everything that belongs to them, and module data that belongs to no key.
#[derive(Default)]
struct Entries {
    keys: Vec<(String, Vec<u8>)>,
    modules: Vec<(ModuleId, u64, Vec<u8>)>,
    in_module: bool,
}

impl Entries {
    fn sorted(&self) -> Vec<(String, Vec<u8>)> {
        let mut keys = self.keys.clone();
        keys.sort();
        keys
    }
}

impl Sink for Entries {
    fn module_aux(&mut self, module: ModuleId, when: u64) {
        self.modules.push((module, when, Vec::new()));
        self.in_module = true;
    }

    fn module_aux_end(&mut self) {
        self.in_module = false;
    }

    fn key(&mut self, key: &Key<'_>) {
        self.keys.push((format!("{:?}", Key { offset: 0, ..*key }), Vec::new()));
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.in_module {
            self.modules.last_mut().unwrap().2.extend(bytes);
        } else {
            self.keys.last_mut().unwrap().1.extend(bytes);
        }
    }
}
