//! Files of real servers, converted and loaded by real servers of other versions and engines.
//!
//! The engines of CI are converted to each other in every run. All that `tests/setup.sh engines` installs:
//! `cargo test -p rdbtools --test convert -- --ignored --nocapture`, which prints the table of the documentation.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panic")]

#[path = "support/engines.rs"]
mod engines;
#[path = "support/keyspace.rs"]
mod keyspace;
#[path = "support/server.rs"]
mod server;
#[path = "support/words.rs"]
mod words;

use std::fs;
use std::io::Write;
use std::path::Path;

use engines::{ENGINES, Engine};
use keyspace::{Content, assert_same, attributes, content, fill};
use rdbtools::convert::{ConvertError, ConvertOptions, Converted, Converter, Loss, LossKind, Target};
use rdbtools::write::{self, put_length, put_string};
use rdbtools::{RdbVersion, ReportSink, Scanner};
use server::{Reply, Server};

fn save(server: &mut Server, dir: &Path) -> Vec<u8> {
    server.must(&[["SAVE"]]);
    fs::read(dir.join("dump.rdb")).unwrap()
}

fn convert(rdb: &[u8], target: Target, drop: &[LossKind]) -> Result<Converted<Vec<u8>>, ConvertError> {
    let options = ConvertOptions { drop: drop.to_vec(), ..ConvertOptions::new(target) };
    let mut converter = Converter::new(Vec::new(), options);
    for piece in rdb.chunks(10_007) {
        assert_eq!(converter.feed(piece)?, piece.len());
    }
    converter.finish()
}

/// What is known to be lost between two engines that hold the keyspace of the tests.
fn expected_losses(source: Engine, target: Engine) -> Vec<LossKind> {
    let mut kinds = Vec::new();
    let before_7_2 = [Target::Redis62, Target::Redis70];
    if source.has_field_ttls() && !target.has_field_ttls() {
        kinds.push(LossKind::FieldTtls);
    }
    if source.has_functions() && !target.has_functions() {
        kinds.push(LossKind::Functions);
    }
    if source.target != Target::Redis62 && target.target == Target::Redis62 {
        kinds.push(LossKind::StreamCounters);
    }
    if !before_7_2.contains(&source.target) && before_7_2.contains(&target.target) {
        kinds.push(LossKind::ConsumerActivity);
    }
    kinds
}

fn kinds(losses: &[Loss]) -> Vec<LossKind> {
    losses.iter().map(|loss| loss.kind).collect()
}

/// The keyspace is worth nothing if the file lacks an encoding that the engine writes.
fn assert_types(engine: Engine, rdb: &[u8]) {
    let mut scanner = Scanner::new(ReportSink::new(false));
    scanner.feed(rdb).unwrap();
    let (summary, sink) = scanner.finish().unwrap();
    assert_eq!(summary.version, engine.target.version());
    let found: Vec<String> = ReportSink::into_report(&summary, sink).0.types.into_keys().collect();
    let mut expected = vec!["hash", "set", "set_intset", "string", "zset_2"];
    expected.extend(match engine.target {
        Target::Redis62 => &["hash_ziplist", "list_quicklist", "stream_listpacks", "zset_ziplist"][..],
        Target::Redis70 => &["hash_listpack", "list_quicklist_2", "stream_listpacks_2", "zset_listpack"],
        _ => &["hash_listpack", "list_quicklist_2", "set_listpack", "stream_listpacks_3", "zset_listpack"],
    });
    expected.extend(match engine.target {
        Target::Redis74 | Target::Redis80 => &["hash_listpack_ex", "hash_metadata"][..],
        Target::Valkey9 => &["hash_2(valkey)"],
        _ => &[],
    });
    expected.sort_unstable();
    assert_eq!(found, expected, "{}", engine.name);
}

struct Source {
    engine: Engine,
    rdb: Vec<u8>,
    content: Content,
}

impl Source {
    fn new(engine: Engine) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut server = engine.start(dir.path())?;
        fill(engine, &mut server);
        let rdb = save(&mut server, dir.path());
        assert_types(engine, &rdb);
        Some(Self { engine, rdb, content: content(engine, &mut server) })
    }

    /// Converts the file for another engine, which loads it; what was left out, or `None` where the engine cannot be
    /// had.
    fn prove(&self, target: Engine) -> Option<Vec<LossKind>> {
        let expected = expected_losses(self.engine, target);
        let refused: Vec<LossKind> = expected.iter().copied().filter(|kind| kind.is_refused()).collect();
        match convert(&self.rdb, target.target, &[]) {
            Err(ConvertError::Refused { losses, .. }) => assert_eq!(kinds(&losses), refused),
            other => assert!(other.is_ok() && refused.is_empty(), "{other:?}"),
        }
        let converted = convert(&self.rdb, target.target, &refused).unwrap();
        assert_eq!(kinds(&converted.losses), expected);
        assert_eq!(converted.keys, self.content.len() as u64);

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dump.rdb"), &converted.writer).unwrap();
        let mut server = target.start(dir.path())?;
        // saved before anybody asks, because asking for a key changes its frequency
        let saved = save(&mut server, dir.path());
        assert_eq!(attributes(&saved), attributes(&self.rdb));
        assert_same(&self.content, &content(target, &mut server), target.has_field_ttls());
        if self.engine.has_functions() && target.has_functions() {
            assert_eq!(server.one(&["FCALL", "f", "0"]), Reply::Int(42));
        }
        Some(expected)
    }
}

/// Every engine to every engine: a table with a row for each source, and what was left out.
fn prove_all(engines: &[Engine]) -> String {
    let names: Vec<String> = engines.iter().map(|engine| engine.name.to_owned()).collect();
    let rules = vec!["---".to_owned(); engines.len() + 1];
    let mut rows = vec![[vec!["from, to".to_owned()], names].concat(), rules];
    for source in engines {
        let Some(filled) = Source::new(*source) else { continue };
        let cells = engines.iter().map(|target| match filled.prove(*target) {
            None => "not here".to_owned(),
            Some(lost) if lost.is_empty() => "all".to_owned(),
            Some(lost) => format!("without {}", lost.into_iter().map(LossKind::name).collect::<Vec<_>>().join(", ")),
        });
        let first = format!("{}: {} keys", source.name, filled.content.len());
        rows.push(std::iter::once(first).chain(cells).collect());
    }
    rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect()
}

/// A file of Redis 8.8, of which no server is here: the stream `s` with one entry that the group `g` has given back, and
/// one that its consumer `given-back` has.
fn stream_with_an_entry_given_back() -> Vec<u8> {
    let version = RdbVersion::redis(14);
    let mut out = version.header();
    out.push(27);
    put_string(&mut out, b"s");
    put_length(&mut out, 1);
    put_string(&mut out, &[1_u64.to_be_bytes(), 0_u64.to_be_bytes()].concat());
    // two entries, none deleted, the shared field "f"; ids 1-0 and 1-1, values "a" and "b"
    let elements: &[&[u8]] = &[&[2, 1], &[0, 1], &[1, 1], b"\x81f\x02", &[0, 1]];
    let entries: &[&[u8]] =
        &[&[2, 1], &[0, 1], &[0, 1], b"\x81a\x02", &[4, 1], &[2, 1], &[0, 1], &[1, 1], b"\x81b\x02", &[4, 1]];
    let body = [elements.concat(), entries.concat()].concat();
    let mut node = u32::try_from(body.len() + 7).unwrap().to_le_bytes().to_vec();
    node.extend([15, 0]);
    node.extend(body);
    node.push(0xff);
    put_string(&mut out, &node);
    // length, last id, first id, greatest deleted id, entries added; one group
    [2, 1, 1, 1, 0, 0, 0, 2, 1].iter().for_each(|number| put_length(&mut out, *number));
    put_string(&mut out, b"g");
    [1, 1, 2, 2].iter().for_each(|number| put_length(&mut out, *number));
    for seq in [0_u64, 1] {
        out.extend([1_u64.to_be_bytes(), seq.to_be_bytes(), 1000_u64.to_le_bytes()].concat());
        put_length(&mut out, 7);
    }
    put_length(&mut out, 1);
    put_string(&mut out, b"given-back");
    out.extend([1000_u64.to_le_bytes(), 1000_u64.to_le_bytes()].concat());
    put_length(&mut out, 1);
    out.extend([1_u64.to_be_bytes(), 0_u64.to_be_bytes()].concat());
    put_length(&mut out, 1);
    out.extend([1_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat());
    [100, 100, 0, 0, 0].iter().for_each(|number| put_length(&mut out, *number));
    write::finish(&mut out, version);
    out
}

#[test]
fn entries_that_were_given_back_stay_pending() {
    let rdb = stream_with_an_entry_given_back();
    for engine in ENGINES.into_iter().filter(|engine| engine.is_in_ci()) {
        let converted = convert(&rdb, engine.target, &[]).unwrap();
        assert!(kinds(&converted.losses).contains(&LossKind::GivenBack));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dump.rdb"), &converted.writer).unwrap();
        let Some(mut server) = engine.start(dir.path()) else { continue };
        let pending = server.one(&["XPENDING", "s", "g", "-", "+", "10"]);
        let pending: Vec<(&[u8], &[u8], &Reply)> = pending
            .list()
            .iter()
            .map(|entry| (entry.list()[0].bytes(), entry.list()[1].bytes(), &entry.list()[3]))
            .collect();
        let seven = Reply::Int(7);
        assert_eq!(pending, [(&b"1-0"[..], &b"given-back"[..], &seven), (&b"1-1"[..], &b"given-back+"[..], &seven)]);
        // somebody else can have it
        let claimed = server.one(&["XAUTOCLAIM", "s", "g", "other", "0", "1-1"]);
        assert_eq!(claimed.list()[1].list().len(), 1, "{claimed:?}");
    }
}

#[test]
fn hashes_of_templates_are_loaded_with_their_fields() {
    let version = RdbVersion::redis(15);
    let mut rdb = version.header();
    write::put_hash_template(&mut rdb, 300, &[b"b".to_vec(), b"aa".to_vec()]);
    // a listpack with the id of the template and two values, and the same as strings
    let listpack = b"\x10\0\0\0\x03\0\xc1\x2c\x02\x01\x01\x82vv\x03\xff";
    rdb.extend([30, 1, b'l', u8::try_from(listpack.len()).unwrap()]);
    rdb.extend(listpack);
    rdb.extend([32, 1, b'h']);
    put_length(&mut rdb, 300);
    put_string(&mut rdb, b"1");
    put_string(&mut rdb, b"vv");
    write::finish(&mut rdb, version);
    for engine in ENGINES.into_iter().filter(|engine| engine.is_in_ci()) {
        let converted = convert(&rdb, engine.target, &[]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dump.rdb"), &converted.writer).unwrap();
        let Some(mut server) = engine.start(dir.path()) else { continue };
        for name in ["l", "h"] {
            assert_eq!(server.one(&["HLEN", name]), Reply::Int(2), "{}", engine.name);
            let values = server.one(&["HMGET", name, "b", "aa"]);
            let values: Vec<&[u8]> = values.list().iter().map(Reply::bytes).collect();
            assert_eq!(values, [&b"1"[..], b"vv"], "{}", engine.name);
        }
    }
}

#[test]
fn engines_of_ci_load_what_was_converted_for_them() {
    let engines: Vec<Engine> = ENGINES.into_iter().filter(|engine| engine.is_in_ci()).collect();
    prove_all(&engines);
}

#[test]
#[ignore = "needs the engines of tests/setup.sh engines"]
fn all_engines_load_what_was_converted_for_them() {
    std::io::stdout().write_all(prove_all(&ENGINES).as_bytes()).unwrap();
}
