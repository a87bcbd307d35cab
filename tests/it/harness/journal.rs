//! A client that appends numbers to lists and logs which were acknowledged, whatever happens to the cluster, and the
//! bounds of what a snapshot may hold of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use policies::slot;
use redis::{Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind};

use super::nodes;

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(1);
/// How long an answer is waited for: a node that is paused must not hold all others.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How often a write is sent on to where the cluster says.
const REDIRECTIONS: usize = 4;

/// The list that the numbers of `tag` are in.
pub(crate) fn key(tag: &str) -> String {
    format!("journal:{{{tag}}}")
}

/// Which numbers of each list were tried and, of those, acknowledged.
pub(crate) type Log = HashMap<String, Vec<bool>>;

/// The running client; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Journal {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Begins to write to the lists of `tags` in the cluster of which `servers` (`host:port`) are nodes.
    pub(crate) fn start(tags: &[String], servers: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let log: Arc<Mutex<Log>> = Arc::new(Mutex::new(tags.iter().map(|tag| (tag.clone(), Vec::new())).collect()));
        let (flag, shared, tags) = (Arc::clone(&stop), Arc::clone(&log), tags.to_vec());
        let thread = thread::spawn(move || {
            let mut router = Router { servers, owners: HashMap::new(), links: HashMap::new() };
            for tag in tags.iter().cycle().take_while(|_| !flag.load(Ordering::Relaxed)) {
                let number = {
                    let mut log = shared.lock().unwrap();
                    let list = log.get_mut(tag).unwrap();
                    list.push(false);
                    list.len() - 1
                };
                // a number is never sent twice: what was not acknowledged may be there all the same
                if router.append(tag, number) {
                    shared.lock().unwrap().get_mut(tag).unwrap()[number] = true;
                }
                thread::sleep(PAUSE);
            }
        });
        Self { stop, log, thread: Some(thread) }
    }

    /// What was logged so far.
    pub(crate) fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Stops it.
    pub(crate) fn stop(mut self) -> Log {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.log()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Router {
    servers: Vec<String>,
    owners: HashMap<u16, String>,
    links: HashMap<String, Connection>,
}

impl Router {
    /// Whether the number was acknowledged.
    fn append(&mut self, tag: &str, number: usize) -> bool {
        let slot = slot::key_slot(key(tag).as_bytes());
        let (mut at, mut asking) = (self.owners.get(&slot).or(self.servers.first()).cloned().unwrap(), false);
        for _ in 0..REDIRECTIONS {
            match self.send(&at, asking, tag, number) {
                Ok(()) => {
                    if !asking {
                        self.owners.insert(slot, at);
                    }
                    return true;
                }
                Err(error) => match redirection(&error) {
                    Some((to, ask)) => (at, asking) = (to, ask),
                    None => {
                        // whether it was carried out is not known, so this number is not tried again
                        self.links.remove(&at);
                        self.owners.remove(&slot);
                        self.servers.rotate_left(1);
                        return false;
                    }
                },
            }
        }
        false
    }

    fn send(&mut self, at: &str, asking: bool, tag: &str, number: usize) -> RedisResult<()> {
        if !self.links.contains_key(at) {
            let link = redis::Client::open(format!("redis://{at}"))?.get_connection_with_timeout(ANSWER_LIMIT)?;
            link.set_read_timeout(Some(ANSWER_LIMIT))?;
            link.set_write_timeout(Some(ANSWER_LIMIT))?;
            self.links.insert(at.to_owned(), link);
        }
        let link = self.links.get_mut(at).unwrap();
        if asking {
            nodes::command(&["ASKING"]).exec(link)?;
        }
        nodes::command(&["RPUSH", &key(tag), &number.to_string()]).exec(link)
    }
}

/// Where the cluster sends us, and whether only for this once.
fn redirection(error: &RedisError) -> Option<(String, bool)> {
    let ask = match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => false,
        ErrorKind::Server(ServerErrorKind::Ask) => true,
        _ => return None,
    };
    let (to, _slot) = error.redirect_node()?;
    Some((to.to_owned(), ask))
}

/// The numbers in the lists of `tags` on `nodes`.
pub(crate) fn read(tags: &[String], nodes: &[nodes::Node]) -> HashMap<String, Vec<usize>> {
    let mut links = nodes::Links::open(nodes);
    let keys: Vec<String> = tags.iter().map(|tag| key(tag)).collect();
    let lists = links.ask(&keys, |key| nodes::command(&["LRANGE", key, "0", "-1"]));
    let numbers = |value: redis::Value| -> Vec<usize> { redis::from_redis_value(value).unwrap() };
    tags.iter().cloned().zip(lists.into_iter().map(numbers)).collect()
}

/// What is wrong with what a snapshot holds of a list.
///
/// Everything that is there was tried, once, in its order. Everything acknowledged up to the last that is there is
/// there too, and everything acknowledged among the first `floor` numbers, but for what the cluster itself lost in a
/// failover: that is not in `live`, what it holds afterwards.
pub(crate) fn wrong(held: &[usize], log: &[bool], floor: usize, live: &[usize]) -> Option<String> {
    if let Some(pair) = held.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Some(format!("{} stands before {}", pair[0], pair[1]));
    }
    if let Some(last) = held.last().filter(|last| **last >= log.len()) {
        return Some(format!("{last} was never written"));
    }
    let bound = held.last().map_or(0, |last| last + 1).max(floor);
    let missing = (0..bound)
        .find(|number| log[*number] && held.binary_search(number).is_err() && live.binary_search(number).is_ok());
    missing.map(|number| format!("{number} was acknowledged, is in the cluster, and is missing before {bound}"))
}
