//! A seeded data set with every type and encoding that Redis 7.0 writes.
//!
//! Key number `i` is the same in every run with the same seed, whatever the number of keys. Expiries are absolute and
//! far away, so nothing goes while a test runs and nothing depends on the time of day.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use redis::{Cmd, Pipeline};

use super::nodes::{self, Links, Node};

/// First expiry: 2100-01-01 in milliseconds.
const EXPIRY_BASE: u64 = 4_102_444_800_000;
/// Expiries are spread over this many milliseconds, about 31 years.
const EXPIRY_SPREAD: u64 = 1_000_000_000_000;
/// Commands in one pipeline.
const PIPELINE: usize = 500;
/// Elements added by one command to a big value.
const CHUNK: u64 = 500;
/// Elements of the medium values, past every listpack limit.
const MEDIUM: u64 = 1500;

/// The function library that [`Keyspace::load`] leaves on every primary.
const LIBRARY: &str =
    "#!lua name=harness\nredis.register_function('harness_echo', function(keys, args) return args[1] end)\n";

/// What to load.
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    /// Decides every key and value.
    pub(crate) seed: u64,
    /// How many keys, besides the two big ones.
    pub(crate) keys: u64,
    /// Elements of the one big list and of the one big hash; 0 for neither.
    pub(crate) big: u64,
    /// Whether everything of 7.0 is there: a function library, and how many entries the groups of streams have read.
    pub(crate) modern: bool,
}

impl Keyspace {
    /// `keys` keys, big values of 5000 elements, one function library.
    pub(crate) fn new(seed: u64, keys: u64) -> Self {
        Self { seed, keys, big: 5000, modern: true }
    }

    /// The same for servers older than 7.0, when `old`.
    pub(crate) fn for_old(self, old: bool) -> Self {
        Self { modern: !old, ..self }
    }

    /// Writes all of it to the owners of the keys.
    pub(crate) fn load(&self, nodes: &[Node]) {
        let router = Links::open(nodes);
        thread::scope(|scope| {
            let senders: Vec<SyncSender<Pipeline>> = nodes
                .iter()
                .map(|node| {
                    let (sender, receiver) = sync_channel(4);
                    scope.spawn(move || send_all(node, &receiver));
                    sender
                })
                .collect();
            let pipes = vec![Pipeline::new(); nodes.len()];
            let mut loader = Loader { router, senders, pipes, modern: self.modern };
            (0..self.keys).for_each(|index| loader.add_key(self.seed, index));
            if self.big > 0 {
                loader.add_list(b"big:list", self.big, &mut Random::new(self.seed));
                loader.add_hash(b"big:hash", self.big, &mut Random::new(self.seed));
            }
            loader.flush();
        });
        if self.modern {
            for node in nodes {
                let mut link = nodes::connect(&node.url);
                nodes::command(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]).query::<()>(&mut link).unwrap();
            }
        }
    }
}

fn send_all(node: &Node, pipes: &Receiver<Pipeline>) {
    let mut link = nodes::connect(&node.url);
    for pipe in pipes {
        // asking for the values makes an error of any command an error of the load
        pipe.query::<Vec<redis::Value>>(&mut link).unwrap_or_else(|error| panic!("load of {}: {error}", node.url));
    }
}

/// The name of key `index`: mostly readable, one in seven with a hash tag shared by others, one in thirty-one binary.
pub(crate) fn key_name(kind: &str, index: u64) -> Vec<u8> {
    let mut name = Vec::new();
    if index.is_multiple_of(31) {
        name.extend_from_slice(b"\x00\xff\r\n\"");
        name.extend_from_slice(&index.to_le_bytes());
    } else if index.is_multiple_of(7) {
        name.extend_from_slice(format!("{{tag:{}}}:", index / 70).as_bytes());
    }
    name.extend_from_slice(format!("{kind}:{index}").as_bytes());
    name
}

struct Loader {
    router: Links,
    senders: Vec<SyncSender<Pipeline>>,
    pipes: Vec<Pipeline>,
    modern: bool,
}

impl Loader {
    fn add(&mut self, key: &[u8], command: Cmd) {
        let owner = self.router.owner(key);
        self.pipes[owner].add_command(command);
        if self.pipes[owner].len() >= PIPELINE {
            self.senders[owner].send(std::mem::take(&mut self.pipes[owner])).unwrap();
        }
    }

    fn flush(&mut self) {
        for (pipe, sender) in self.pipes.iter_mut().zip(&self.senders) {
            if !pipe.is_empty() {
                sender.send(std::mem::take(pipe)).unwrap();
            }
        }
    }

    /// Half of the keys are strings; the rest is spread over the other types.
    fn add_key(&mut self, seed: u64, index: u64) {
        let random = &mut Random::new(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = ["string", "hash", "list", "set", "zset", "stream"][random.choose(&[50, 14, 11, 11, 11, 3])];
        let key = key_name(kind, index);
        let count = if random.below(5000) == 0 { MEDIUM } else { 1 + random.below(8) };
        match kind {
            "string" => self.add(&key, cmd("SET", &key, &[&string_value(random)])),
            "hash" => self.add_hash(&key, count, random),
            "list" => self.add_list(&key, count, random),
            "set" => self.add_set(&key, count, random),
            "zset" => self.add_zset(&key, count, random),
            _ => self.add_stream(&key, count, random),
        }
        if random.below(5) == 0 {
            let at = EXPIRY_BASE + random.below(EXPIRY_SPREAD);
            self.add(&key, cmd("PEXPIREAT", &key, &[at.to_string().as_bytes()]));
        }
    }

    fn add_list(&mut self, key: &[u8], count: u64, random: &mut Random) {
        chunks(count, |numbers| {
            let mut command = cmd("RPUSH", key, &[]);
            numbers.for_each(|_| _ = command.arg(string_value(random)));
            self.add(key, command);
        });
    }

    /// Few short fields stay a listpack; one long value makes it a hash table.
    fn add_hash(&mut self, key: &[u8], count: u64, random: &mut Random) {
        let long = random.below(4) == 0;
        chunks(count, |numbers| {
            let mut command = cmd("HSET", key, &[]);
            for number in numbers {
                let length = if long { 80 } else { 12 };
                command.arg(format!("field-{number}")).arg(random.text(length));
            }
            self.add(key, command);
        });
    }

    /// Numbers make an intset, short words a listpack (a hash table before 7.2), long ones a hash table.
    fn add_set(&mut self, key: &[u8], count: u64, random: &mut Random) {
        let kind = random.below(3);
        chunks(count, |numbers| {
            let mut command = cmd("SADD", key, &[]);
            for number in numbers {
                let member = match kind {
                    0 => {
                        random.next().cast_signed().wrapping_shr(u32::from(random.byte() % 60)).to_string().into_bytes()
                    }
                    1 => format!("member-{number}").into_bytes(),
                    _ => random.text(70),
                };
                command.arg(member);
            }
            self.add(key, command);
        });
    }

    fn add_zset(&mut self, key: &[u8], count: u64, random: &mut Random) {
        let length = if random.below(4) == 0 { 80 } else { 10 };
        chunks(count, |numbers| {
            let mut command = cmd("ZADD", key, &[]);
            for number in numbers {
                let score = match random.below(8) {
                    0 => "inf".to_owned(),
                    1 => "-inf".to_owned(),
                    2 => format!("{:e}", random.fraction() * 1e-300),
                    3 => (random.fraction() - 0.5).to_string(),
                    _ => number.to_string(),
                };
                let mut member = random.text(length);
                member.extend_from_slice(number.to_string().as_bytes());
                command.arg(score).arg(member);
            }
            self.add(key, command);
        });
    }

    /// Entries of two shapes, one deleted; every other stream has groups.
    fn add_stream(&mut self, key: &[u8], count: u64, random: &mut Random) {
        let mut ids = Vec::new();
        for number in 1..=count {
            let id = format!("{}-{}", 1_700_000_000_000 + number, random.below(3));
            let (name, value) = (if random.below(4) == 0 { "other" } else { "field" }, random.text(20));
            let text = number.to_string();
            let fields = [id.as_bytes(), name.as_bytes(), &value, b"n", text.as_bytes()];
            self.add(key, cmd("XADD", key, &fields));
            if number == 2 && count > 3 {
                self.add(key, cmd("XDEL", key, &[id.as_bytes()]));
            } else {
                ids.push(id);
            }
        }
        if random.below(2) == 0 {
            self.add_groups(key, &ids);
        }
    }

    /// A group with pending and acknowledged entries and a consumer without any, and a group that has read nothing.
    fn add_groups(&mut self, key: &[u8], ids: &[String]) {
        for group in ["readers", "idle"] {
            self.add(key, group_command("CREATE", key, &[group, "0"]));
        }
        // Redis 8.0 does not tell its replicas of a consumer whose first read found nothing, so all are made by name.
        for consumer in ["lazy", "alice", "bob"] {
            self.add(key, group_command("CREATECONSUMER", key, &["readers", consumer]));
        }
        for (consumer, entries) in [("alice", "2"), ("bob", "3")] {
            let mut read = Cmd::new();
            read.arg(&["XREADGROUP", "GROUP", "readers", consumer, "COUNT", entries, "STREAMS"]).arg(key).arg(">");
            self.add(key, read);
        }
        // Redis 7.0 does not tell its replicas how many entries a group has read, unless by this command; said
        // explicitly, it can be compared between a primary and what was captured from its replica.
        let read = ids.len().min(5);
        if self.modern {
            self.add(key, group_command("SETID", key, &["readers", &ids[read - 1], "ENTRIESREAD", &read.to_string()]));
        }
        self.add(key, cmd("XACK", key, &[b"readers", ids[0].as_bytes()]));
    }
}

/// Calls `each` with the numbers below `count`, a limited number at a time.
fn chunks(count: u64, mut each: impl FnMut(std::ops::Range<u64>)) {
    for first in (0..count).step_by(usize::try_from(CHUNK).unwrap()) {
        each(first..count.min(first + CHUNK));
    }
}

fn cmd(name: &str, key: &[u8], arguments: &[&[u8]]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key).arg(arguments);
    command
}

fn group_command(verb: &str, key: &[u8], arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd("XGROUP");
    command.arg(verb).arg(key).arg(arguments);
    command
}

/// A number, a short text, a long text that LZF shrinks, or bytes that it cannot.
fn string_value(random: &mut Random) -> Vec<u8> {
    match random.below(10) {
        0 => random.byte().to_string().into_bytes(),
        1 => random.next().cast_signed().to_string().into_bytes(),
        2 => i32::MIN.to_string().into_bytes(),
        3..=6 => random.text(20),
        7 | 8 => random.text(30).repeat(4),
        _ => {
            let length = 40 + random.below(120);
            (0..length).map(|_| random.byte()).collect()
        }
    }
}

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `limit`; even enough for test data.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// In `0..1`.
    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / 4_294_967_296.0
    }

    /// An index of `weights`, which are out of 100.
    fn choose(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        unreachable!("the rest is below the sum of the weights")
    }

    /// `length` letters.
    fn text(&mut self, length: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(length + 8);
        while text.len() < length {
            text.extend(self.next().to_le_bytes().map(|byte| b'a' + byte % 26));
        }
        text.truncate(length);
        text
    }
}
