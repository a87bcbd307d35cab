//! What differs between two keyspaces: by content, key by key, never by counts.
//!
//! Every key of the left side is compared with the right side: type, value, absolute expiry in milliseconds. Then
//! every key of the right side is looked for on the left. On the way, each key must be in a slot of the node that
//! lists it. Keys are read in batches with `SCAN`, both sides are asked for one batch at a time, and long lists and
//! sorted sets by page, so memory does not grow with the number of keys.

use std::collections::HashSet;
use std::fmt;
use std::sync::Mutex;
use std::thread;

use policies::slot;
use redis::{Cmd, Value};

use super::content;
use super::nodes::{self, Links, Node};

/// Keys looked at together.
const BATCH: usize = 500;
/// Differences described in a report; all are counted.
const DESCRIBED: usize = 20;

/// The outcome of a comparison.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Keys found equal.
    pub(crate) equal: u64,
    /// Keys with an expiry among them.
    pub(crate) with_expiry: u64,
    /// Keys left out by the `except` of the caller.
    pub(crate) excepted: u64,
    /// Keys of the left that the right lacks.
    pub(crate) missing: u64,
    /// Keys of the right that the left lacks.
    pub(crate) extra: u64,
    /// Keys of another type, value or expiry, and function libraries that differ.
    pub(crate) different: u64,
    /// Keys on a node that does not own their slot.
    pub(crate) misplaced: u64,
    /// The first differences.
    pub(crate) described: Vec<String>,
}

impl Report {
    /// Whether nothing differs.
    pub(crate) fn is_equal(&self) -> bool {
        self.missing + self.extra + self.different + self.misplaced == 0
    }

    /// Panics with the differences, or if nothing at all was compared.
    pub(crate) fn assert_equal(&self) {
        assert!(self.is_equal(), "{self}");
        assert!(self.equal > 0, "no key was compared: {self}");
    }

    fn describe(&mut self, what: &str, key: &[u8], detail: &str) {
        if self.described.len() < DESCRIBED {
            self.described.push(format!("{what} {}{detail}", key.escape_ascii()));
        }
    }

    fn add(&mut self, other: Self) {
        self.equal += other.equal;
        self.with_expiry += other.with_expiry;
        self.excepted += other.excepted;
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.misplaced += other.misplaced;
        self.described.extend(other.described);
        self.described.truncate(DESCRIBED);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys equal ({} of them with an expiry), {} left out, {} missing, {} extra, {} different, {} misplaced",
            self.equal, self.with_expiry, self.excepted, self.missing, self.extra, self.different, self.misplaced
        )?;
        self.described.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Compares all keys and the function libraries of two keyspaces.
pub(crate) fn compare(left: &[Node], right: &[Node]) -> Report {
    compare_except(left, right, &|_| false)
}

/// Compares two keyspaces except the keys for which `except` holds: those known to be written in the meantime.
pub(crate) fn compare_except(left: &[Node], right: &[Node], except: &(dyn Fn(&[u8]) -> bool + Sync)) -> Report {
    let total = Mutex::new(Report::default());
    thread::scope(|scope| {
        for index in 0..left.len() {
            let total = &total;
            scope.spawn(move || {
                let mut side = Comparison {
                    left: Links::open(left),
                    right: Links::open(right),
                    except,
                    report: Report::default(),
                };
                side.compare_node(&left[index], index);
                total.lock().unwrap().add(side.report);
            });
        }
        for node in right {
            let total = &total;
            scope.spawn(move || {
                let mut report = Report::default();
                find_extra(node, left, except, &mut report);
                total.lock().unwrap().add(report);
            });
        }
    });
    let mut report = total.into_inner().unwrap();
    compare_functions(left, right, &mut report);
    report
}

struct Comparison<'a> {
    left: Links,
    right: Links,
    except: &'a (dyn Fn(&[u8]) -> bool + Sync),
    report: Report,
}

/// Type, expiry and value of a key.
type Facts = [Value; 2];

impl Comparison<'_> {
    fn compare_node(&mut self, node: &Node, index: usize) {
        let mut cursor = 0;
        loop {
            let keys;
            (cursor, keys) = scan(self.left.get(index), cursor);
            let keys = self.wanted(node, keys);
            let facts = [facts(&mut self.left, &keys), facts(&mut self.right, &keys)];
            self.compare_batch(&keys, facts);
            if cursor == 0 {
                break;
            }
        }
    }

    fn wanted(&mut self, node: &Node, mut keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        keys.retain(|key| {
            if (self.except)(key) {
                self.report.excepted += 1;
                return false;
            }
            let is_owner = node.slots.contains(slot::key_slot(key));
            if !is_owner {
                self.report.misplaced += 1;
                self.report.describe("misplaced", key, &format!(": on {}", node.url));
            }
            is_owner
        });
        keys
    }

    fn compare_batch(&mut self, keys: &[Vec<u8>], [left, right]: [Vec<Facts>; 2]) {
        let mut alike = Vec::new();
        for (key, (left, right)) in keys.iter().zip(left.into_iter().zip(right)) {
            if left[0] == Value::SimpleString("none".to_owned()) {
                // gone since SCAN listed it; the caller excepts what is written meanwhile
                self.differs(key, "is gone from the left side while comparing");
            } else if right[0] == Value::SimpleString("none".to_owned()) {
                self.report.missing += 1;
                self.report.describe("missing", key, "");
            } else if left[0] != right[0] {
                self.differs(key, &format!("type {:?} became {:?}", left[0], right[0]));
            } else if !is_alike(&left[1], &right[1]) {
                self.differs(key, &format!("expiry {:?} became {:?}", left[1], right[1]));
            } else {
                self.report.with_expiry += u64::from(left[1] != Value::Int(-1));
                alike.push((key.as_slice(), String::from_utf8_lossy(content::bytes(&left[0])).into_owned()));
            }
        }
        self.compare_values(alike);
    }

    fn compare_values(&mut self, mut keys: Vec<(&[u8], String)>) {
        let mut page = 0;
        while !keys.is_empty() {
            let asked: Vec<Asked<'_>> = keys.iter().map(|(key, kind)| Asked { key, kind }).collect();
            let question = |asked: &Asked<'_>| content::question(asked.key, asked.kind, page);
            let answers = [self.left.ask(&asked, question), self.right.ask(&asked, question)];
            let [left, right] = answers.map(Vec::into_iter);
            let mut more = Vec::new();
            for ((key, kind), (left, right)) in keys.into_iter().zip(left.zip(right)) {
                self.compare_value(key, kind, left, right, &mut more);
            }
            keys = more;
            page += 1;
        }
    }

    fn compare_value<'k>(
        &mut self,
        key: &'k [u8],
        kind: String,
        left: Value,
        right: Value,
        more: &mut Vec<(&'k [u8], String)>,
    ) {
        let failed = [&left, &right].into_iter().any(|value| matches!(value, Value::ServerError(_) | Value::Nil));
        let has_more = content::has_more(&kind, &left);
        // a stream's answer has parts that are never alike; any other answer mostly is alike as it came
        let same = left == right && kind != "stream";
        let [left, right] = [left, right].map(|value| if same { value } else { content::canonical(&kind, value) });
        if failed || left != right {
            self.differs(key, &format!("{kind}: {}", content::first_difference(&left, &right)));
        } else if has_more {
            more.push((key, kind));
        } else {
            self.report.equal += 1;
        }
    }

    fn differs(&mut self, key: &[u8], detail: &str) {
        self.report.different += 1;
        self.report.describe("different", key, &format!(": {detail}"));
    }
}

struct Asked<'a> {
    key: &'a [u8],
    kind: &'a str,
}

impl AsRef<[u8]> for Asked<'_> {
    fn as_ref(&self) -> &[u8] {
        self.key
    }
}

/// Type and absolute expiry of each key. Before Redis 7.0 there is no `PEXPIRETIME`: then only whether it expires.
fn facts(links: &mut Links, keys: &[Vec<u8>]) -> Vec<Facts> {
    let [kinds, mut expiries] = ["TYPE", "PEXPIRETIME"].map(|name| links.ask(keys, |key| keyed(name, key)));
    if expiries.iter().any(is_unknown_command) {
        // an answer that is no number stays as it is, and is told below
        let expires = |value: Value| if matches!(value, Value::Int(0..)) { Value::Int(1) } else { value };
        expiries = links.ask(keys, |key| keyed("PTTL", key)).into_iter().map(expires).collect();
    }
    let error = expiries.iter().find(|value| !matches!(value, Value::Int(_)));
    assert!(error.is_none(), "PEXPIRETIME or PTTL: {error:?}");
    kinds.into_iter().zip(expiries).map(<[Value; 2]>::from).collect()
}

fn is_unknown_command(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.details().is_some_and(|text| text.contains("unknown command")))
}

/// Whether two expiries say the same; of a server before 7.0 it is only known whether there is one.
fn is_alike(left: &Value, right: &Value) -> bool {
    let is_only_known = [left, right].contains(&&Value::Int(1));
    left == right || (is_only_known && ![left, right].contains(&&Value::Int(-1)))
}

fn keyed(name: &str, key: &[u8]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

/// One step of `SCAN`; a key that the step gives twice is kept once.
fn scan(link: &mut redis::Connection, cursor: u64) -> (u64, Vec<Vec<u8>>) {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("COUNT").arg(BATCH);
    let (next, keys): (u64, Vec<Vec<u8>>) = command.query(link).unwrap();
    let mut seen = HashSet::new();
    (next, keys.into_iter().filter(|key| seen.insert(key.clone())).collect())
}

fn find_extra(node: &Node, left: &[Node], except: &(dyn Fn(&[u8]) -> bool + Sync), report: &mut Report) {
    let (mut link, mut left) = (nodes::connect(&node.url), Links::open(left));
    let mut cursor = 0;
    loop {
        let mut keys;
        (cursor, keys) = scan(&mut link, cursor);
        keys.retain(|key| !except(key));
        let found = left.ask(&keys, |key| keyed("EXISTS", key));
        for (key, found) in keys.iter().zip(found) {
            if found != Value::Int(1) {
                report.extra += 1;
                report.describe("extra", key, &format!(": only on {}", node.url));
            }
            if !node.slots.contains(slot::key_slot(key)) {
                report.misplaced += 1;
                report.describe("misplaced", key, &format!(": on {}", node.url));
            }
        }
        if cursor == 0 {
            break;
        }
    }
}

/// All primaries of both sides must have the same function libraries.
fn compare_functions(left: &[Node], right: &[Node], report: &mut Report) {
    let mut first: Option<(String, Vec<Value>)> = None;
    for node in left.iter().chain(right) {
        let reply = nodes::command(&["FUNCTION", "LIST", "WITHCODE"]).query::<Value>(&mut nodes::connect(&node.url));
        let Value::Array(mut libraries) = reply.unwrap_or(Value::Nil) else { continue };
        libraries.sort_unstable_by_key(|library| format!("{library:?}"));
        match &first {
            None => first = Some((node.url.clone(), libraries)),
            Some((url, expected)) if *expected != libraries => {
                report.different += 1;
                report.describe("different", b"function libraries", &format!(": {url} and {}", node.url));
            }
            Some(_) => {}
        }
    }
}
