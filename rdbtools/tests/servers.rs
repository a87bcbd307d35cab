//! Outputs of a split, loaded by a real server and compared key by key with the server that wrote the input.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panic")]

#[path = "support/server.rs"]
mod server;
#[path = "support/words.rs"]
mod words;

use std::fs;
use std::path::Path;

use policies::shards;
use policies::slot::{SlotSet, key_slot};
use rdbtools::split::{SplitOptions, Splitter};
use rdbtools::{RdbVersion, Report, ReportSink, Scanner, Sink};
use server::{Engine, Reply, Server};
use words::{FUNCTION, noise, words};

/// Keys of every type and size that 7.0 writes, with names and values of all kinds.
fn fill(server: &mut Server) {
    let mut commands: Vec<Vec<Vec<u8>>> = Vec::new();
    for n in 0..3000 {
        commands.push(words(&format!("SET user:{n} value-{n}")));
        commands.push(words(&format!("SET {n} {}", i64::from(n) * 7919 - 5_000_000)));
        commands.push(words(&format!("SET {{tag{}}}:{n} x PX {}", n % 97, 3_600_000 + n)));
        commands.push(words(&format!("RPUSH list:{} {n} element-{n}", n % 50)));
        commands.push(words(&format!("HSET hash:{} field:{n} {n}", n % 70)));
        commands.push(words(&format!("HSET bighash field:{n} {}", "v".repeat(usize::try_from(n % 100).unwrap() + 1))));
        commands.push(words(&format!("SADD set:{} {n}", n % 30)));
        commands.push(words(&format!("SADD bigset member:{n}")));
        commands.push(words(&format!("ZADD zset:{} {}.25 member:{n}", n % 40, n * 3)));
        commands.push(words(&format!("ZADD bigzset {n} member:{n}")));
        commands.push(words(&format!("XADD stream:{} {}-1 field {n} other value", n % 5, n + 1)));
        commands.push(words(&format!("RPUSH biglist {}", "e".repeat(usize::try_from(n % 300).unwrap() + 1))));
    }
    for n in 0..5 {
        commands.push(words(&format!("XGROUP CREATE stream:{n} group 0")));
        commands.push(words(&format!("XREADGROUP GROUP group consumer-{n} COUNT 20 STREAMS stream:{n} >")));
        commands.push(words(&format!("XACK stream:{n} group 1-1 6-1")));
        commands.push(words(&format!("PEXPIREAT stream:{n} {}", 4_102_444_800_000_i64 + n)));
    }
    commands.push(vec![b"SET".to_vec(), b"binary\0\r\n\xff{".to_vec(), (0..=255).collect()]);
    commands.push(vec![b"SET".to_vec(), b"compressed".to_vec(), b"abcdef".repeat(100_000)]);
    commands.push(vec![b"SET".to_vec(), b"k".repeat(5000), b"a compressed name".to_vec()]);
    commands.push(vec![b"SET".to_vec(), b"large".to_vec(), noise(3_000_000)]);
    commands.push(vec![b"RPUSH".to_vec(), b"largelist".to_vec(), noise(200_000), b"small".to_vec(), noise(9000)]);
    commands.push(words("SET empty "));
    commands.push(words("PFADD hll a b c d e f"));
    commands.push(words("SETBIT bits 100000 1"));
    commands.push(words("GEOADD geo 13.361389 38.115556 Palermo"));
    commands.push(vec![b"FUNCTION".to_vec(), b"LOAD".to_vec(), FUNCTION.into()]);
    server.must(&commands);
}

/// Compares a key on two servers: expiry, and the value by its dump. Where a dump may differ in order alone,
/// which is so for hash tables, the server's own digest of the value decides.
fn compare(source: &mut Server, target: &mut Server, keys: &[Vec<u8>]) {
    for some in keys.chunks(500) {
        let ask = |word: &'static [u8]| some.iter().map(|key| [word, key.as_slice()]).collect::<Vec<_>>();
        assert_eq!(source.all(&ask(b"PEXPIRETIME")), target.all(&ask(b"PEXPIRETIME")));
        assert!(source.all(&ask(b"DUMP")).iter().all(|dump| matches!(dump, Reply::Bytes(_))));
        let dumps = source.all(&ask(b"DUMP")).into_iter().zip(target.all(&ask(b"DUMP")));
        for (key, _) in some.iter().zip(dumps).filter(|(_, (a, b))| a != b) {
            let shown = key.escape_ascii();
            let encoding = source.one(&[b"OBJECT".as_slice(), b"ENCODING", key]);
            assert_eq!(encoding.bytes(), b"hashtable", "{shown} differs");
            let digest = [b"DEBUG".as_slice(), b"DIGEST-VALUE", key];
            assert_eq!(source.one(&digest), target.one(&digest), "{shown} differs");
        }
    }
}

fn save(server: &mut Server, dir: &Path) -> Vec<u8> {
    server.must(&[["SAVE"]]);
    fs::read(dir.join("dump.rdb")).unwrap()
}

fn split(inputs: &[Vec<u8>], targets: &[SlotSet], options: &SplitOptions, piece: usize) -> (Vec<Report>, Vec<Vec<u8>>) {
    let outputs = targets.iter().map(|_| Vec::new()).collect();
    let mut splitter = Splitter::new(targets.to_vec(), outputs, options.clone()).unwrap();
    let mut reports = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        splitter.begin_input(&format!("input {index}")).unwrap();
        for piece in input.chunks(piece) {
            assert_eq!(splitter.feed(piece).unwrap(), piece.len());
        }
        reports.push(splitter.end_input().unwrap());
    }
    let outputs = splitter.finish().unwrap();
    for output in &outputs {
        let mut scanner = Scanner::new(ReportSink::new(false));
        assert_eq!(scanner.feed(&output.writer).unwrap(), output.writer.len());
        let (summary, sink) = scanner.finish().unwrap();
        let report = ReportSink::into_report(&summary, sink).0;
        assert_eq!((report.keys, report.expires, report.bytes), (output.keys, output.expires, output.bytes));
        assert_eq!(report.databases, output.databases);
    }
    (reports, outputs.into_iter().map(|output| output.writer).collect())
}

fn load(rdb: &[u8]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("dump.rdb"), rdb).unwrap();
    let server = Server::start(dir.path());
    (dir, server)
}

#[test]
fn shards_of_a_split_hold_every_key_as_it_was_and_merge_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = Server::start(dir.path());
    fill(&mut source);
    let rdb = save(&mut source, dir.path());
    let keys = source.keys();
    let options = SplitOptions { now_unix_ms: 1_700_000_000_000, ..SplitOptions::new(RdbVersion::redis(10)) };

    let targets = shards::equal(5).unwrap();
    let (reports, outputs) = split(std::slice::from_ref(&rdb), &targets, &options, 10_000);
    assert_eq!(reports[0].keys, keys.len() as u64);
    assert_eq!(reports[0].functions, 1);
    let mut seen = 0;
    for (slots, output) in targets.iter().zip(&outputs) {
        let (_dir, mut target) = load(output);
        let here: Vec<Vec<u8>> = keys.iter().filter(|key| slots.contains(key_slot(key))).cloned().collect();
        assert_eq!(target.keys(), here);
        compare(&mut source, &mut target, &here);
        assert_eq!(target.one(&["FCALL", "f", "0"]), Reply::Int(42));
        seen += here.len();
    }
    assert_eq!(seen, keys.len());

    // the shards in another order, put together again
    let inputs: Vec<Vec<u8>> = outputs.into_iter().rev().collect();
    let whole = SplitOptions { cluster: false, ..options };
    let (_, merged) = split(&inputs, &[SlotSet::full()], &whole, 1 << 20);
    let (_dir, mut target) = load(&merged[0]);
    assert_eq!(target.keys(), keys);
    compare(&mut source, &mut target, &keys);
    assert_eq!(target.one(&["FUNCTION", "LIST"]).list().len(), 1);
}

#[test]
fn databases_are_kept_and_eviction_facts_carried() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = Server::start(dir.path());
    source.must(&[words("CONFIG SET maxmemory-policy allkeys-lfu"), words("CONFIG SET maxmemory 1gb")]);
    for db in [0, 3, 15] {
        let select = words(&format!("SELECT {db}"));
        let fill = (0..100).map(|n| words(&format!("SET db{db}:key{n} {db}")));
        source.must(&std::iter::once(select).chain(fill).collect::<Vec<_>>());
    }
    let rdb = save(&mut source, dir.path());
    let options = SplitOptions { cluster: false, ..SplitOptions::new(RdbVersion::redis(10)) };
    let (reports, outputs) = split(&[rdb], &[SlotSet::full()], &options, 333);
    assert_eq!(reports[0].databases.keys().copied().collect::<Vec<_>>(), [0, 3, 15]);
    let frequencies = outputs[0].windows(2).filter(|bytes| bytes[0] == 249).count();
    assert!(frequencies >= 300, "{frequencies}");
    let (_dir, mut target) = load(&outputs[0]);
    for db in [0, 3, 15] {
        target.must(&[words(&format!("SELECT {db}"))]);
        source.must(&[words(&format!("SELECT {db}"))]);
        let keys = target.keys();
        assert_eq!(keys.len(), 100);
        compare(&mut source, &mut target, &keys);
    }
}

/// Counts the hints of how many keys a slot holds.
struct SlotHints(u64);

impl Sink for SlotHints {
    fn slot_info(&mut self, _slot: u64, _keys: u64, _expires: u64) {
        self.0 += 1;
    }
}

fn slot_hints(rdb: &[u8]) -> (RdbVersion, u64) {
    let mut scanner = Scanner::new(SlotHints(0));
    scanner.feed(rdb).unwrap();
    let (summary, hints) = scanner.finish().unwrap();
    (summary.version, hints.0)
}

/// A server in cluster mode may hint at the sizes of its slots. The hints are dropped, and the same server loads the
/// outputs without them: every key, value, expiry of a key and of a field.
fn a_cluster_loads_what_was_split(name: &str, writes_hints: bool) {
    let Some(engine) = Engine::cluster(name) else {
        let word = format!("NOT RUN: {name} cannot be had on this machine\n");
        std::io::Write::write_all(&mut std::io::stderr(), word.as_bytes()).unwrap();
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut source = Server::start_engine(&engine, dir.path());
    source.must(&[words("CLUSTER ADDSLOTSRANGE 0 16383")]);
    source.wait_for_cluster();
    fill(&mut source);
    let expiries = (0..40).map(|n| words(&format!("HPEXPIREAT hash:{n} 4102444800{n:03} FIELDS 1 field:{n}")));
    source.must(&expiries.collect::<Vec<_>>());
    let rdb = save(&mut source, dir.path());
    let keys = source.keys();
    let (version, hints) = slot_hints(&rdb);
    assert_eq!(hints > 1000, writes_hints, "{hints}");

    let targets = shards::equal(3).unwrap();
    let options = SplitOptions::new(version);
    let (_, outputs) = split(&[rdb], &targets, &options, 1 << 20);
    let mut seen = 0;
    for (slots, output) in targets.iter().zip(&outputs) {
        assert_eq!(slot_hints(output), (version, 0));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dump.rdb"), output).unwrap();
        let mut target = Server::start_engine(&engine, dir.path());
        target.wait_for_cluster();
        let here: Vec<Vec<u8>> = keys.iter().filter(|key| slots.contains(key_slot(key))).cloned().collect();
        assert_eq!(target.keys(), here);
        compare(&mut source, &mut target, &here);
        for key in here.iter().filter(|key| key.starts_with(b"hash:")) {
            let number = key.strip_prefix(b"hash:").unwrap();
            let field = [b"field:".as_slice(), number].concat();
            let ask = [b"HPEXPIRETIME".as_slice(), key, b"FIELDS", b"1", &field];
            assert_eq!(source.one(&ask), target.one(&ask));
        }
        seen += here.len();
    }
    assert_eq!(seen, keys.len());
}

#[test]
fn a_cluster_of_redis_8_loads_what_was_split() {
    a_cluster_loads_what_was_split("redis-8", true);
}

#[test]
fn a_cluster_of_valkey_9_loads_what_was_split() {
    a_cluster_loads_what_was_split("valkey-9", false);
}
