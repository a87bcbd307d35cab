//! A keyspace with every type and encoding that an engine has, and what it looks like from outside.

use std::collections::BTreeMap;

use rdbtools::{Key, Scanner, Sink};

use crate::engines::Engine;
use crate::server::{Reply, Server};
use crate::words::{FUNCTION, noise, words};

type Words = Vec<Vec<u8>>;

pub(crate) const DATABASES: [u64; 2] = [0, 3];
/// Years from now, in ms since 1970.
const FUTURE_MS: u64 = 4_102_444_800_000;

/// Fills a server.
pub(crate) fn fill(engine: Engine, server: &mut Server) {
    for db in DATABASES {
        server.must(&[words(&format!("SELECT {db}"))]);
        server.must(&strings());
        server.must(&collections());
        server.must(&streams());
        // an error where the engine lacks the command, and then all list nodes are packed
        server.all(&[words("DEBUG QUICKLIST-PACKED-THRESHOLD 1000b")]);
        server.must(&[[b"RPUSH".to_vec(), b"list:plain".to_vec(), b"e".repeat(3000), noise(20_000), b"7".to_vec()]]);
        server.all(&[words("DEBUG QUICKLIST-PACKED-THRESHOLD 0b")]);
        if engine.has_field_ttls() {
            server.must(&expiring_hashes());
        }
    }
    if engine.has_functions() {
        server.must(&[["FUNCTION", "LOAD", FUNCTION]]);
    }
}

fn strings() -> Vec<Words> {
    let mut commands = vec![
        vec![b"SET".to_vec(), b"binary\0\r\n\xff{".to_vec(), (0..=255).collect()],
        vec![b"SET".to_vec(), b"compressed".to_vec(), b"abcdef".repeat(30_000)],
        vec![b"SET".to_vec(), b"k".repeat(5000), b"a compressed name".to_vec()],
        vec![b"SET".to_vec(), b"large".to_vec(), noise(1_000_000)],
        words("SET empty "),
        words("PFADD hll a b c d e f"),
        words("SETBIT bits 100000 1"),
        words("GEOADD geo 13.361389 38.115556 Palermo"),
    ];
    for n in 0..300_i64 {
        commands.push(words(&format!("SET user:{n} value-{n}")));
        commands.push(words(&format!("SET {n} {}", n * 7919 - 500_000)));
        commands.push(words(&format!("SET volatile:{n} x PX {}", 360_000_000 + n)));
    }
    commands
}

/// Lists, sets, sorted sets and hashes: packed, hashed, with numbers of every size and values of every length.
fn collections() -> Vec<Words> {
    let mut commands = Vec::new();
    let numbers = [0, 1, 12, 13, 127, -1, -128, 300, -4096, 4095, 32767, 8_388_607, -8_388_609, i32::MAX.into()];
    for number in numbers.into_iter().chain([i64::from(i32::MIN) - 1, i64::MAX, i64::MIN]) {
        commands.push(words(&format!("RPUSH list:numbers {number}")));
        commands.push(words(&format!("SADD set:numbers {number}")));
        commands.push(words(&format!("SADD set:mixed {number} text{number}")));
        commands.push(words(&format!("HSET hash:numbers {number} {number}")));
        commands.push(words(&format!("ZADD zset:numbers {number} {number}")));
    }
    for length in [0, 1, 63, 64, 253, 254, 4095, 4096, 16383, 16384] {
        let text = "t".repeat(length);
        commands.push(words(&format!("RPUSH list:lengths {text}")));
        commands.push(words(&format!("HSET hash:lengths {length} {text}")));
        commands.push(words(&format!("SADD set:lengths {text}")));
        commands.push(words(&format!("ZADD zset:lengths {length} {text}")));
    }
    for score in ["inf", "-inf", "0.1", "0.30000000000000004", "1e300", "-1e-300", "3", "-0", "1.7976931348623157e308"]
    {
        commands.push(words(&format!("ZADD zset:scores {score} m{score}")));
    }
    for n in 0..2000 {
        commands.push(words(&format!("RPUSH list:{} {n} element-{n}", n % 20)));
        commands.push(words(&format!("RPUSH list:big {}", "e".repeat(n % 300 + 1))));
        commands.push(words(&format!("HSET hash:{} field:{n} {n}", n % 70)));
        commands.push(words(&format!("HSET hash:big field:{n} {}", "v".repeat(n % 100 + 1))));
        commands.push(words(&format!("SADD set:{} {n}", n % 30)));
        commands.push(words(&format!("SADD set:words:{} w{n}", n % 30)));
        commands.push(words(&format!("SADD set:big member:{n}")));
        commands.push(words(&format!("ZADD zset:{} {}.25 member:{n}", n % 40, n * 3)));
        commands.push(words(&format!("ZADD zset:big {n} member:{n}")));
    }
    commands.push(words(&format!("PEXPIREAT hash:1 {FUTURE_MS}")));
    commands.push(words(&format!("PEXPIREAT list:1 {}", FUTURE_MS + 1)));
    commands
}

/// Streams with groups, consumers that have and have not read, pending entries, deletions.
fn streams() -> Vec<Words> {
    let mut commands = Vec::new();
    for n in 1..=600 {
        commands.push(words(&format!("XADD stream:{} {n}-1 field {n} other value", n % 3)));
        commands.push(words(&format!("XADD stream:big {n}-{n} a b c {}", "x".repeat(n % 200))));
    }
    for stream in ["stream:0", "stream:1", "stream:big"] {
        for (group, from) in [("group", "0"), ("late", "$"), ("middle", "300-0")] {
            commands.push(words(&format!("XGROUP CREATE {stream} {group} {from}")));
        }
        commands.push(words(&format!("XREADGROUP GROUP group reader COUNT 20 STREAMS {stream} >")));
        commands.push(words(&format!("XREADGROUP GROUP group other COUNT 7 STREAMS {stream} >")));
        commands.push(words(&format!("XREADGROUP GROUP middle reader COUNT 3 NOACK STREAMS {stream} >")));
        commands.push(words(&format!("XGROUP CREATECONSUMER {stream} group idle")));
    }
    commands.push(words("XACK stream:0 group 3-1 6-1"));
    commands.push(words("XCLAIM stream:0 group third 0 9-1 12-1 RETRYCOUNT 5"));
    commands.push(words("XDEL stream:1 4-1 100-1 598-1"));
    commands.push(words("XTRIM stream:big MAXLEN 400"));
    commands.push(words("XGROUP CREATE stream:empty group $ MKSTREAM"));
    commands.push(words("XADD stream:emptied 5-5 a b"));
    commands.push(words("XDEL stream:emptied 5-5"));
    commands.push(words(&format!("PEXPIREAT stream:0 {FUTURE_MS}")));
    commands
}

fn expiring_hashes() -> Vec<Words> {
    let mut commands = Vec::new();
    for n in 0..1000 {
        commands.push(words(&format!("HSET expiring:big field:{n} {}", "v".repeat(n % 90))));
        commands.push(words(&format!("HSET expiring:{} field:{n} {n}", n % 50)));
    }
    for n in (0..1000).step_by(2) {
        commands.push(words(&format!("HPEXPIREAT expiring:big {} FIELDS 1 field:{n}", FUTURE_MS + n)));
        commands.push(words(&format!("HPEXPIREAT expiring:{} {} FIELDS 1 field:{n}", n % 50, FUTURE_MS + n)));
    }
    commands.push(words("HSET expiring:binary a b c d"));
    commands.push(vec![b"HSET".to_vec(), b"expiring:binary".to_vec(), (0..=255).collect(), noise(5000)]);
    commands.push(words(&format!("HPEXPIREAT expiring:binary {FUTURE_MS} FIELDS 1 c")));
    commands.push(words("HSET expiring:persisted a b"));
    commands.push(words(&format!("HPEXPIREAT expiring:persisted {FUTURE_MS} FIELDS 1 a")));
    commands.push(words("HPERSIST expiring:persisted FIELDS 1 a"));
    commands
}

/// What the answer to `XINFO STREAM … FULL` says, its parts by name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Facts {
    Named(BTreeMap<String, Facts>),
    Several(Vec<Facts>),
    Plain(Reply),
}

impl Facts {
    fn new(reply: &Reply) -> Self {
        let pairs = reply.list().chunks(2).map(|pair| {
            let name = String::from_utf8(pair[0].bytes().to_vec()).unwrap();
            let facts = match name.as_str() {
                "groups" | "consumers" => Self::Several(pair[1].list().iter().map(Self::new).collect()),
                _ => Self::Plain(pair[1].clone()),
            };
            (name, facts)
        });
        // how many nodes the server's index has is its own affair, and how it computes the lag has changed
        Self::Named(pairs.filter(|(name, _)| !name.starts_with("radix-tree") && name != "lag").collect())
    }

    /// Fails where the two differ in something that both know.
    fn assert_agree(&self, other: &Self, place: &str) {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => {
                for (name, facts) in a {
                    if let Some(other) = b.get(name) {
                        facts.assert_agree(other, &format!("{place} {name}"));
                    }
                }
            }
            (Self::Several(a), Self::Several(b)) => {
                assert_eq!(a.len(), b.len(), "{place}");
                a.iter().zip(b).for_each(|(a, b)| a.assert_agree(b, place));
            }
            (a, b) => assert_eq!(a, b, "{place}"),
        }
    }
}

/// A value, in an order of its own where the engine's order means nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(Vec<u8>),
    List(Vec<Reply>),
    Set(Vec<Vec<u8>>),
    Zset(Vec<(Vec<u8>, u64)>),
    /// Value and expiry of each field.
    Hash(BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>),
    Stream(Vec<Reply>, Facts),
}

/// Keys by database and name.
pub(crate) type Content = BTreeMap<Name, Value>;

/// Everything a server holds, asked key by key.
pub(crate) fn content(engine: Engine, server: &mut Server) -> Content {
    let mut content = Content::new();
    for db in DATABASES {
        server.must(&[words(&format!("SELECT {db}"))]);
        for key in server.keys() {
            let value = value(engine, server, &key);
            content.insert((db, key), value);
        }
    }
    content
}

fn value(engine: Engine, server: &mut Server, key: &[u8]) -> Value {
    let mut ask = |line: &str| {
        let mut words = words(line);
        words.insert(line.starts_with("XINFO").into(), Vec::new());
        let at = if line.starts_with("XINFO") { 2 } else { 1 };
        words.retain(|word| !word.is_empty());
        words.insert(at, key.to_vec());
        server.one(&words)
    };
    let list = |reply: Reply| reply.list().to_vec();
    let bytes = |reply: &Reply| reply.bytes().to_vec();
    match ask("TYPE").bytes() {
        b"string" => Value::Text(bytes(&ask("GET"))),
        b"list" => Value::List(list(ask("LRANGE 0 -1"))),
        b"set" => {
            let mut members: Vec<_> = list(ask("SMEMBERS")).iter().map(bytes).collect();
            members.sort();
            Value::Set(members)
        }
        b"zset" => {
            let score = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<f64>().unwrap().to_bits();
            let flat = list(ask("ZRANGE 0 -1 WITHSCORES"));
            Value::Zset(flat.chunks(2).map(|pair| (bytes(&pair[0]), score(pair[1].bytes()))).collect())
        }
        b"hash" => {
            let flat = list(ask("HGETALL"));
            let fields: Vec<(Vec<u8>, Vec<u8>)> =
                flat.chunks(2).map(|pair| (bytes(&pair[0]), bytes(&pair[1]))).collect();
            let expiries = expiries(engine, server, key, &fields);
            let both = fields.into_iter().zip(expiries);
            Value::Hash(both.map(|((field, value), expiry)| (field, (value, expiry))).collect())
        }
        b"stream" => Value::Stream(list(ask("XRANGE - +")), Facts::new(&ask("XINFO STREAM FULL COUNT 0"))),
        other => panic!("{}", other.escape_ascii()),
    }
}

fn expiries(engine: Engine, server: &mut Server, key: &[u8], fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<Option<i64>> {
    if !engine.has_field_ttls() {
        return vec![None; fields.len()];
    }
    let mut command = words(&format!("HPEXPIRETIME K FIELDS {}", fields.len()));
    command[1] = key.to_vec();
    command.extend(fields.iter().map(|(field, _)| field.clone()));
    let reply = server.one(&command);
    let expiry = |reply: &Reply| match reply {
        Reply::Int(-1) => None,
        Reply::Int(at) => Some(*at),
        other => panic!("{other:?}"),
    };
    reply.list().iter().map(expiry).collect()
}

/// Fails where two servers hold different keys or values. Where `field_ttls` is not set, those of `source` are
/// expected to be gone.
pub(crate) fn assert_same(source: &Content, target: &Content, field_ttls: bool) {
    let names = |content: &Content| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(source), names(target));
    for (key, value) in source {
        let place = format!("database {}, key {}", key.0, key.1.escape_ascii());
        match (value, &target[key]) {
            (Value::Hash(fields), other) if !field_ttls => {
                let without = fields.iter().map(|(field, (value, _))| (field.clone(), (value.clone(), None)));
                assert_eq!(&Value::Hash(without.collect()), other, "{place}");
            }
            (Value::Stream(entries, facts), Value::Stream(other, others)) => {
                assert_eq!(entries, other, "{place}");
                facts.assert_agree(others, &place);
            }
            (value, other) => assert!(value == other, "{place} differs"),
        }
    }
}

/// Database and name.
type Name = (u64, Vec<u8>);

/// Expiry and frequency of every key of a file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Attributes(BTreeMap<Name, (Option<i64>, Option<u8>)>);

impl Sink for Attributes {
    fn key(&mut self, key: &Key<'_>) {
        let attributes = (key.expires_at_ms, key.frequency);
        assert!(self.0.insert((key.db, key.name.to_vec()), attributes).is_none(), "a key twice");
    }
}

pub(crate) fn attributes(rdb: &[u8]) -> Attributes {
    let mut scanner = Scanner::new(Attributes::default());
    assert_eq!(scanner.feed(rdb).unwrap(), rdb.len());
    scanner.finish().unwrap().1
}
