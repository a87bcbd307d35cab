//! Where the keys of a server or a cluster are, and connections to there.

use std::time::Duration;

use policies::slot::{self, SlotSet};
use redis::{Cmd, Connection, RedisResult, Value};

/// Longest wait for one answer: a busy machine, a big value.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A node that owns slots: a primary of a cluster, or a standalone server as owner of all.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// `redis://…`; a path selects a database.
    pub(crate) url: String,
    /// Its slots.
    pub(crate) slots: SlotSet,
}

/// The primaries of the cluster that the server at `url` belongs to, or that server alone when it is standalone.
///
/// The password of `url`, if any, is used for all nodes.
pub(crate) fn discover(url: &str) -> Vec<Node> {
    let mut link = connect(url);
    if info(&mut link, "cluster_enabled").as_deref() != Some("1") {
        return vec![Node { url: url.to_owned(), slots: SlotSet::full() }];
    }
    let user = url.trim_start_matches("redis://").rsplit_once('@').map(|(user, _)| format!("{user}@"));
    let ranges: Vec<(u16, u16, (String, u16))> =
        command(&["CLUSTER", "SLOTS"]).query(&mut link).map(first_owners).unwrap();
    let mut nodes: Vec<Node> = Vec::new();
    for (first, last, (host, port)) in ranges {
        let url = format!("redis://{}{host}:{port}", user.as_deref().unwrap_or_default());
        let slots = SlotSet::range(first, last).unwrap();
        match nodes.iter_mut().find(|node| node.url == url) {
            Some(node) => node.slots = node.slots.union(&slots),
            None => nodes.push(Node { url, slots }),
        }
    }
    nodes
}

/// `CLUSTER SLOTS`: `[[first, last, [host, port, …], replica…], …]`.
fn first_owners(reply: Vec<Vec<Value>>) -> Vec<(u16, u16, (String, u16))> {
    let range = |fields: Vec<Value>| {
        let [first, last, Value::Array(owner), ..] = fields.as_slice() else { panic!("CLUSTER SLOTS: {fields:?}") };
        let number = |value: &Value| redis::from_redis_value_ref::<u16>(value).unwrap();
        let host = redis::from_redis_value_ref(&owner[0]).unwrap();
        (number(first), number(last), (host, number(&owner[1])))
    };
    reply.into_iter().map(range).collect()
}

/// A connection to each of some nodes, and the way from a key to its node.
pub(crate) struct Links {
    links: Vec<Connection>,
    owners: Vec<Option<usize>>,
}

impl Links {
    /// Connects to all `nodes`.
    pub(crate) fn open(nodes: &[Node]) -> Self {
        let owner = |slot| nodes.iter().position(|node| node.slots.contains(slot));
        let owners = (0..slot::SLOT_COUNT).map(owner).collect();
        Self { links: nodes.iter().map(|node| connect(&node.url)).collect(), owners }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// The connection to node `index`, in the order given to [`Self::open`].
    pub(crate) fn get(&mut self, index: usize) -> &mut Connection {
        &mut self.links[index]
    }

    /// The node that owns `key`.
    pub(crate) fn owner(&self, key: &[u8]) -> usize {
        let slot = slot::key_slot(key);
        self.owners[usize::from(slot)].unwrap_or_else(|| panic!("no node has slot {slot}"))
    }

    /// Runs `build(key)` for each key on the node that owns it, in as few round trips as there are nodes; answers in
    /// the order of the keys. An error of a command is its answer.
    pub(crate) fn ask<K: AsRef<[u8]>>(&mut self, keys: &[K], build: impl Fn(&K) -> Cmd) -> Vec<Value> {
        let mut pipes: Vec<(redis::Pipeline, Vec<usize>)> =
            self.links.iter().map(|_| (redis::Pipeline::new(), Vec::new())).collect();
        for (index, key) in keys.iter().enumerate() {
            let (pipe, places) = &mut pipes[self.owner(key.as_ref())];
            pipe.add_command(build(key));
            places.push(index);
        }
        let mut answers = vec![Value::Nil; keys.len()];
        for (link, (mut pipe, places)) in self.links.iter_mut().zip(pipes) {
            if places.is_empty() {
                continue;
            }
            let values: Vec<Value> = pipe.ignore_errors().query(link).unwrap();
            assert_eq!(values.len(), places.len(), "a pipeline lost an answer");
            for (place, value) in places.into_iter().zip(values) {
                answers[place] = value;
            }
        }
        answers
    }
}

/// Connects; panics when it cannot.
pub(crate) fn connect(url: &str) -> Connection {
    try_connect(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// Connects with limits on every wait.
pub(crate) fn try_connect(url: &str) -> RedisResult<Connection> {
    let link = redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(10))?;
    link.set_read_timeout(Some(ANSWER_LIMIT))?;
    link.set_write_timeout(Some(ANSWER_LIMIT))?;
    Ok(link)
}

/// A command of words.
pub(crate) fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(word);
    }
    command
}

/// A field of `INFO everything`.
pub(crate) fn info(link: &mut Connection, field: &str) -> Option<String> {
    field_of(&command(&["INFO", "everything"]).query::<String>(link).ok()?, field)
}

/// The value of `field:value` in a text of such lines.
pub(crate) fn field_of(text: &str, field: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}
