//! A client that keeps writing while something else happens, to keys known by their name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::Cmd;

use super::keyspace::Random;
use super::nodes::{Links, Node};

/// Every key of the writer begins with this, and no other key does.
pub(crate) const PREFIX: &[u8] = b"live:";
/// Commands per round, and the pause after each round: enough to be felt, not enough to fill the machine.
const ROUND: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Whether the writer may have changed `key`.
pub(crate) fn wrote(key: &[u8]) -> bool {
    key.starts_with(PREFIX)
}

/// A running writer; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Writes `keys` keys once and returns when they are there, then goes on changing, adding and removing them.
    pub(crate) fn start(nodes: &[Node], keys: u64) -> Self {
        let mut links = Links::open(nodes);
        let random = &mut Random::new(1);
        let all: Vec<u64> = (0..keys).collect();
        for numbers in all.chunks(1000) {
            write(&mut links, numbers, random);
        }
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(keys)));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let random = &mut Random::new(2);
            while !flag.load(Ordering::Relaxed) {
                let numbers: Vec<u64> = (0..ROUND).map(|_| random.below(keys * 2)).collect();
                write(&mut links, &numbers, random);
                count.fetch_add(ROUND.try_into().unwrap(), Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// How many commands it has had answered so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops it; how many commands it has had answered in all. Panics if one of them failed.
    pub(crate) fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.sent()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(links: &mut Links, numbers: &[u64], random: &mut Random) {
    let values: Vec<(Vec<u8>, u64, u64)> = numbers
        .iter()
        .map(|number| ([PREFIX, number.to_string().as_bytes()].concat(), *number, random.next()))
        .collect();
    let keys: Vec<&[u8]> = values.iter().map(|(key, _, _)| key.as_slice()).collect();
    let by_key: std::collections::HashMap<&[u8], (u64, u64)> =
        values.iter().map(|(key, number, word)| (key.as_slice(), (*number, *word))).collect();
    for answer in links.ask(&keys, |key| change(key, by_key[key])) {
        assert!(!matches!(answer, redis::Value::ServerError(_)), "writer: {answer:?}");
    }
}

/// The type of a key follows from its number, so that no command meets a wrong type.
fn change(key: &[u8], (number, word): (u64, u64)) -> Cmd {
    let value = format!("{word:016x}").repeat(4);
    let name = format!("{:x}", word % 256);
    let command = |verb, arguments: &[&str]| {
        let mut command = redis::cmd(verb);
        command.arg(key).arg(arguments);
        command
    };
    match (number % 4, word % 8) {
        (_, 0) => command("DEL", &[]),
        (_, 1) => command("EXPIRE", &["100000"]),
        (0, _) => command("SET", &[&value]),
        (1, _) => command("HSET", &[&name, &value]),
        (2, _) => command("RPUSH", &[&value]),
        _ => command("ZADD", &[&(word % 1000).to_string(), &name]),
    }
}
