//! A writer of arbitrary RDBs.

use proptest::prelude::*;
use rdbtools::RdbVersion;
use rdbtools::write::{self, put_length, put_string};

/// A piece of an RDB that stands between header and end.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    SelectDb(u64),
    ResizeDb(u64, u64),
    Aux(Vec<u8>, Vec<u8>),
    Function(Vec<u8>),
    Key { expiry: Option<i64>, idle: Option<u64>, frequency: Option<u8>, name: Text, value: Value },
}

/// A string in one of its encodings.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Plain(Vec<u8>),
    Int(i32),
    /// Compressed: this byte, that many times.
    Run(u8, u16),
}

/// A value of one of the kinds of layouts.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    One(Text),
    Many(u8, Vec<Text>),
    Pairs(Vec<(Text, Text)>),
    Scores(Vec<(Text, f64)>),
    TextScores(Vec<(Text, String)>),
    Quicklist(Vec<(bool, Text)>),
    Module(u64, Vec<(u8, Text)>),
    Stream { nodes: Vec<Text>, groups: Vec<Group> },
}

/// A consumer group: name, ids of pending entries, consumers with their own.
type Group = (Text, Vec<u64>, Vec<(Text, Vec<u64>)>);

pub(crate) fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Text::Plain),
        1 => proptest::collection::vec(any::<u8>(), 60..6000).prop_map(Text::Plain),
        1 => any::<i32>().prop_map(Text::Int),
        1 => (-200i32..200).prop_map(Text::Int),
        1 => (any::<u8>(), 10u16..5000).prop_map(|(byte, count)| Text::Run(byte, count)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let many = |range| proptest::collection::vec(text(), range);
    let numbers = || proptest::collection::vec(any::<u64>(), 0..5);
    let consumers = proptest::collection::vec((text(), numbers()), 0..3);
    prop_oneof![
        text().prop_map(Value::One),
        (prop_oneof![Just(1u8), Just(2), Just(14)], many(0..20)).prop_map(|(code, items)| Value::Many(code, items)),
        proptest::collection::vec((text(), text()), 0..10).prop_map(Value::Pairs),
        proptest::collection::vec((text(), -1e9..1e9f64), 0..10).prop_map(Value::Scores),
        proptest::collection::vec((text(), "-?[0-9]{1,15}"), 0..10).prop_map(Value::TextScores),
        proptest::collection::vec((any::<bool>(), text()), 0..10).prop_map(Value::Quicklist),
        (any::<u64>(), proptest::collection::vec((1u8..6, text()), 0..6))
            .prop_map(|(id, parts)| Value::Module(id, parts)),
        (many(0..3), proptest::collection::vec((text(), numbers(), consumers), 0..3))
            .prop_map(|(nodes, groups)| Value::Stream { nodes, groups }),
    ]
}

pub(crate) fn part() -> impl Strategy<Value = Part> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..50);
    let attributes = (any::<Option<i64>>(), any::<Option<u64>>(), any::<Option<u8>>());
    let key = (attributes, text(), value());
    prop_oneof![
        1 => (0u64..20).prop_map(Part::SelectDb),
        1 => any::<(u64, u64)>().prop_map(|(keys, expires)| Part::ResizeDb(keys, expires)),
        1 => (bytes(), bytes()).prop_map(|(name, value)| Part::Aux(name, value)),
        1 => bytes().prop_map(Part::Function),
        12 => key.prop_map(|((expiry, idle, frequency), name, value)| Part::Key { expiry, idle, frequency, name, value }),
    ]
}

impl Text {
    pub(crate) fn plain(&self) -> Vec<u8> {
        match self {
            Self::Plain(bytes) => bytes.clone(),
            Self::Int(value) => value.to_string().into_bytes(),
            Self::Run(byte, count) => vec![*byte; usize::from(*count)],
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(bytes) => put_string(out, bytes),
            Self::Int(value) => {
                out.push(0xc2);
                out.extend(value.to_le_bytes());
            }
            Self::Run(byte, count) => {
                // the byte, then references of up to 264 bytes to the byte before
                let mut packed = vec![1, *byte, *byte];
                let mut left = usize::from(*count) - 2;
                while left >= 9 {
                    let length = left.min(264);
                    packed.extend([0xe0, u8::try_from(length - 9).unwrap(), 0]);
                    left -= length;
                }
                for _ in 0..left {
                    packed.extend([0, *byte]);
                }
                out.push(0xc3);
                put_length(out, packed.len() as u64);
                put_length(out, (*count).into());
                out.extend(packed);
            }
        }
    }
}

impl Value {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::One(_) => 0,
            Self::Many(code, _) => *code,
            Self::Pairs(_) => 4,
            Self::Scores(_) => 5,
            Self::TextScores(_) => 3,
            Self::Quicklist(_) => 18,
            Self::Module(..) => 7,
            Self::Stream { .. } => 21,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let count = |out: &mut Vec<u8>, count: usize| put_length(out, count as u64);
        match self {
            Self::One(text) => text.put(out),
            Self::Many(_, items) => {
                count(out, items.len());
                items.iter().for_each(|item| item.put(out));
            }
            Self::Pairs(pairs) => {
                count(out, pairs.len());
                pairs.iter().flat_map(|(a, b)| [a, b]).for_each(|text| text.put(out));
            }
            Self::Scores(scores) => {
                count(out, scores.len());
                for (text, score) in scores {
                    text.put(out);
                    out.extend(score.to_le_bytes());
                }
            }
            Self::TextScores(scores) => {
                count(out, scores.len());
                for (text, score) in scores {
                    text.put(out);
                    out.push(u8::try_from(score.len()).unwrap());
                    out.extend(score.bytes());
                }
            }
            Self::Quicklist(nodes) => {
                count(out, nodes.len());
                for (packed, text) in nodes {
                    put_length(out, 1 + u64::from(*packed));
                    text.put(out);
                }
            }
            Self::Module(id, parts) => put_module(out, *id, parts),
            Self::Stream { nodes, groups } => put_stream(out, nodes, groups),
        }
    }
}

fn put_module(out: &mut Vec<u8>, id: u64, parts: &[(u8, Text)]) {
    put_length(out, id);
    for (mark, text) in parts {
        out.push(*mark);
        match mark {
            1 | 2 => put_length(out, id.rotate_left(7)),
            3 => out.extend([1, 2, 3, 4]),
            4 => out.extend([1, 2, 3, 4, 5, 6, 7, 8]),
            _ => text.put(out),
        }
    }
    out.push(0);
}

fn put_stream(out: &mut Vec<u8>, nodes: &[Text], groups: &[Group]) {
    put_length(out, nodes.len() as u64);
    for node in nodes {
        put_string(out, &[7; 16]);
        node.put(out);
    }
    for number in 0..8 {
        put_length(out, number * 1000);
    }
    put_length(out, groups.len() as u64);
    for (name, pending, consumers) in groups {
        name.put(out);
        (0..3).for_each(|number| put_length(out, u64::MAX - number));
        put_length(out, pending.len() as u64);
        for id in pending {
            out.extend(id.to_be_bytes().repeat(3));
            put_length(out, id % 100);
        }
        put_length(out, consumers.len() as u64);
        for (name, pending) in consumers {
            name.put(out);
            out.extend([9; 16]);
            put_length(out, pending.len() as u64);
            pending.iter().for_each(|id| out.extend(id.to_be_bytes().repeat(2)));
        }
    }
}

/// A whole RDB of version 11.
pub(crate) fn rdb(parts: &[Part]) -> Vec<u8> {
    let version = RdbVersion::redis(11);
    let mut out = version.header();
    for part in parts {
        match part {
            Part::SelectDb(db) => write::put_select_db(&mut out, *db),
            Part::ResizeDb(keys, expires) => {
                out.push(251);
                put_length(&mut out, *keys);
                put_length(&mut out, *expires);
            }
            Part::Aux(name, value) => write::put_aux(&mut out, name, value),
            Part::Function(source) => write::put_function(&mut out, source),
            Part::Key { expiry, idle, frequency, name, value } => {
                if let Some(at) = expiry {
                    out.push(252);
                    out.extend(at.to_le_bytes());
                }
                if let Some(idle) = idle {
                    out.push(248);
                    put_length(&mut out, *idle);
                }
                out.extend(frequency.iter().flat_map(|frequency| [249, *frequency]));
                out.push(value.code());
                name.put(&mut out);
                value.put(&mut out);
            }
        }
    }
    write::finish(&mut out, version);
    out
}

/// The value of a key as it stands in an RDB.
pub(crate) fn raw(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}
