//! The content of one key, in a form that two servers with the same data give alike.
//!
//! What depends on the history of a server and not on its data is taken out: the order of hash fields and set
//! members, the radix tree figures of a stream, and when a consumer was last seen. The last is left out because a
//! replica does not have it from its primary: it notes its own time when it replays the command.

use redis::{Cmd, Value};

/// Elements of a list, sorted set or stream asked for at a time.
const PAGE: i64 = 2000;

/// Fields of `XINFO STREAM … FULL` that are not data.
const NOT_DATA: [&str; 4] = ["radix-tree-keys", "radix-tree-nodes", "seen-time", "active-time"];

/// What to ask for the content of `key` of `kind`, page `page`; `None` when there is nothing more to ask by page.
pub(crate) fn question(key: &[u8], kind: &str, page: i64) -> Cmd {
    let command = |name: &str, arguments: &[&str]| {
        let mut command = redis::cmd(name);
        command.arg(key).arg(arguments);
        command
    };
    let (first, last) = ((page * PAGE).to_string(), (page * PAGE + PAGE - 1).to_string());
    match kind {
        "string" => command("GET", &[]),
        "list" => command("LRANGE", &[&first, &last]),
        "zset" => command("ZRANGE", &[&first, &last, "WITHSCORES"]),
        "hash" => command("HGETALL", &[]),
        "set" => command("SMEMBERS", &[]),
        "stream" => {
            let mut command = redis::cmd("XINFO");
            command.arg("STREAM").arg(key).arg(&["FULL", "COUNT", "0"]);
            command
        }
        other => panic!("no comparison for type {other} of key {}", key.escape_ascii()),
    }
}

/// Whether `answer` to a question about `kind` may have a page after it.
pub(crate) fn has_more(kind: &str, answer: &Value) -> bool {
    let full = match kind {
        "list" => PAGE,
        "zset" => 2 * PAGE,
        _ => return false,
    };
    matches!(answer, Value::Array(items) if i64::try_from(items.len()).unwrap() >= full)
}

/// A member and its score as a number.
fn scored(pair: &[Value]) -> [Value; 2] {
    let score: f64 = std::str::from_utf8(bytes(&pair[1])).unwrap().parse().unwrap();
    [pair[0].clone(), Value::BulkString(format!("{score:?}").into_bytes())]
}

/// `answer` without order and history.
pub(crate) fn canonical(kind: &str, answer: Value) -> Value {
    match (kind, answer) {
        ("hash", Value::Array(items)) => {
            let mut pairs: Vec<Vec<Value>> = items.chunks(2).map(<[Value]>::to_vec).collect();
            pairs.sort_unstable_by(|a, b| bytes(&a[0]).cmp(bytes(&b[0])));
            Value::Array(pairs.into_iter().flatten().collect())
        }
        ("set", Value::Array(mut items)) => {
            items.sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
            Value::Array(items)
        }
        // engines write the same score in different texts; read back, the shortest and the longest are the same number
        ("zset", Value::Array(items)) => Value::Array(items.chunks(2).flat_map(scored).collect()),
        ("stream", answer) => stream(answer),
        (_, answer) => answer,
    }
}

/// In the answer about a stream the lists of pairs are the ones that begin with the name of a field; entries and
/// their own fields are kept as they are.
fn stream(answer: Value) -> Value {
    let Value::Array(items) = answer else { return answer };
    let mut kept = Vec::with_capacity(items.len());
    let mut items = items.into_iter();
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        let text = bytes(&name).to_vec();
        if NOT_DATA.iter().any(|field| field.as_bytes() == text) {
            continue;
        }
        kept.push(name);
        kept.push(match (text.as_slice(), value) {
            (b"groups" | b"consumers", Value::Array(list)) => Value::Array(list.into_iter().map(stream).collect()),
            (_, value) => value,
        });
    }
    Value::Array(kept)
}

/// The bytes of a string answer; nothing for any other.
pub(crate) fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.as_bytes(),
        _ => &[],
    }
}

/// Where two answers first differ, both sides shown.
pub(crate) fn first_difference(left: &Value, right: &Value) -> String {
    if let (Value::Array(left), Value::Array(right)) = (left, right) {
        let differing = left.iter().zip(right).enumerate().find(|(_, (left, right))| left != right);
        return match differing {
            Some((0, (left, right))) => first_difference(left, right),
            // in an answer of names and values the name says more than the position
            Some((at, (one, other))) => format!("after {}: {}", shown(&left[at - 1]), first_difference(one, other)),
            None => format!("{} elements became {}", left.len(), right.len()),
        };
    }
    format!("{} became {}", shown(left), shown(right))
}

/// A short text of a value for a report.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::BulkString(bytes) => bytes.escape_ascii().to_string(),
        other => format!("{other:?}"),
    };
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}… ({} characters)", text.split_at(end).0, text.len()),
        None => text,
    }
}
