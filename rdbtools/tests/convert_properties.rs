//! Arbitrary values in every encoding, converted for every engine; arbitrary cuts; arbitrary damage.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panic")]

#[path = "support/decoded.rs"]
mod decoded;
#[path = "support/pack.rs"]
mod pack;

use std::collections::BTreeSet;

use decoded::decode;
use pack::{Packed, element, listpack, ziplist};
use proptest::prelude::*;
use proptest::sample::Index;
use rdbtools::convert::{ConvertError, ConvertOptions, Converted, Converter, LossKind, Target};
use rdbtools::write::{self, put_length, put_string, put_string_head};
use rdbtools::{RdbVersion, Scanner, StringHead};

/// A value: its type byte and its bytes.
#[derive(Debug, Clone)]
struct Value(u8, Vec<u8>);

fn text(element: &Packed) -> Vec<u8> {
    match element {
        Packed::Integer(number) => number.to_string().into_bytes(),
        Packed::Text(text) => text.clone(),
    }
}

/// Elements of which no two are the same text.
fn distinct(length: usize) -> impl Strategy<Value = Vec<Packed>> {
    proptest::collection::vec(element(), 1..length).prop_map(|elements| {
        let mut seen = BTreeSet::new();
        elements.into_iter().filter(|element| seen.insert(text(element))).collect()
    })
}

/// Writes a string as it is, or compressed without any gain.
fn put(out: &mut Vec<u8>, bytes: &[u8], compressed: bool) {
    if !compressed || bytes.is_empty() {
        return put_string(out, bytes);
    }
    let packed: Vec<u8> = bytes
        .chunks(32)
        .flat_map(|run| std::iter::once(u8::try_from(run.len() - 1).unwrap()).chain(run.iter().copied()))
        .collect();
    put_string_head(out, StringHead::Lzf { compressed: packed.len() as u64, length: bytes.len() as u64 });
    out.extend(packed);
}

fn packed(code: u8, bytes: &[u8], compressed: bool) -> Value {
    let mut out = Vec::new();
    put(&mut out, bytes, compressed);
    Value(code, out)
}

fn collections() -> impl Strategy<Value = Value> {
    let lists = proptest::collection::vec((any::<bool>(), distinct(12), any::<bool>()), 1..6).prop_map(|nodes| {
        let mut out = Vec::new();
        put_length(&mut out, nodes.len() as u64);
        for (plain, elements, compressed) in nodes {
            put_length(&mut out, if plain { 1 } else { 2 });
            let bytes = if plain { text(&elements[0]) } else { listpack(&elements) };
            put(&mut out, &bytes, compressed);
        }
        Value(18, out)
    });
    let sets = (distinct(20), any::<bool>()).prop_map(|(members, lzf)| packed(20, &listpack(&members), lzf));
    let score = prop_oneof![
        any::<i64>().prop_map(Packed::Integer),
        any::<f64>()
            .prop_filter("a score", |score| !score.is_nan())
            .prop_map(|score| Packed::text(&format!("{score:?}"))),
    ];
    let zsets =
        (distinct(20), proptest::collection::vec(score, 20), any::<bool>()).prop_map(|(members, scores, lzf)| {
            let pairs: Vec<Packed> = members.into_iter().zip(scores).flat_map(|(a, b)| [a, b]).collect();
            packed(17, &listpack(&pairs), lzf)
        });
    let hashes = (distinct(20), proptest::collection::vec(element(), 20), any::<bool>(), any::<bool>());
    let hashes = hashes.prop_map(|(fields, values, lzf, old)| {
        let pairs: Vec<Packed> = fields.into_iter().zip(values).flat_map(|(a, b)| [a, b]).collect();
        if old { packed(13, &ziplist(&pairs), lzf) } else { packed(16, &listpack(&pairs), lzf) }
    });
    prop_oneof![lists, sets, zsets, hashes]
}

/// A hash whose fields may expire, in the form of one of the types of Redis, or (22) of Valkey.
fn expiring(codes: &'static [u8]) -> impl Strategy<Value = Value> {
    let expiries = proptest::collection::vec(proptest::option::of(1..1u64 << 48), 20);
    let values = proptest::collection::vec(element(), 20);
    (proptest::sample::select(codes), distinct(20), values, expiries, any::<bool>()).prop_map(
        |(code, fields, values, expiries, lzf)| {
            let fields = fields.into_iter().zip(values).zip(expiries).map(|((field, value), at)| (field, value, at));
            let fields: Vec<(Packed, Packed, Option<u64>)> = fields.collect();
            Value(code, put_expiring(code, &fields, lzf))
        },
    )
}

/// Codes above 100 are those of Valkey, plus 100.
fn put_expiring(code: u8, fields: &[(Packed, Packed, Option<u64>)], lzf: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let least = fields.iter().filter_map(|(.., at)| *at).min().unwrap_or(0);
    if matches!(code, 24 | 25) {
        out.extend(least.to_le_bytes());
    }
    if matches!(code, 23 | 25) {
        let at = |at: &Option<u64>| Packed::Integer(i64::try_from(at.unwrap_or(0)).unwrap());
        let triples = fields.iter().flat_map(|(field, value, expiry)| [field.clone(), value.clone(), at(expiry)]);
        put(&mut out, &listpack(&triples.collect::<Vec<_>>()), lzf);
        return out;
    }
    put_length(&mut out, fields.len() as u64);
    for (field, value, expiry) in fields {
        match code {
            24 => put_length(&mut out, expiry.map_or(0, |at| at - least + 1)),
            22 => put_length(&mut out, expiry.unwrap_or(0)),
            _ => {}
        }
        put(&mut out, &text(field), lzf);
        put(&mut out, &text(value), false);
        if code == 122 {
            out.extend(expiry.map_or(-1, |at| i64::try_from(at).unwrap()).to_le_bytes());
        }
    }
    out
}

/// Pending entries, and consumers of whom each has some of them.
type Group = (u64, Vec<u64>, Vec<(u64, u64, Vec<u64>)>);

fn streams(codes: &'static [u8]) -> impl Strategy<Value = Value> {
    let ids = || proptest::collection::vec(any::<u64>(), 0..5);
    let consumers = proptest::collection::vec((any::<u64>(), any::<u64>(), ids()), 0..4);
    let groups = proptest::collection::vec((any::<u64>(), ids(), consumers), 0..4);
    let nodes = proptest::collection::vec((1u64..40, proptest::collection::vec(element(), 1..20), any::<bool>()), 0..4);
    (proptest::sample::select(codes), nodes, groups, any::<[u64; 6]>())
        .prop_map(|(code, nodes, groups, numbers)| Value(code, put_stream(code, &nodes, &groups, numbers)))
}

fn put_stream(code: u8, nodes: &[(u64, Vec<Packed>, bool)], groups: &[Group], numbers: [u64; 6]) -> Vec<u8> {
    let mut out = Vec::new();
    put_length(&mut out, nodes.len() as u64);
    let mut entries = 0;
    for (index, (step, values, lzf)) in nodes.iter().enumerate() {
        put_string(&mut out, &[(index as u64 + 1).to_be_bytes(), [0; 8]].concat());
        entries += values.len() as u64;
        // entries, deleted ones, number of shared fields, the field, end; flags (2: the shared fields), id, value, size
        let number = |number: u64| Packed::Integer(i64::try_from(number).unwrap());
        let mut node = vec![number(values.len() as u64), number(0), number(1), Packed::text("field"), number(0)];
        for (index, value) in values.iter().enumerate() {
            node.extend([number(2), number(0), number(index as u64 * step), value.clone(), number(4)]);
        }
        put(&mut out, &listpack(&node), *lzf);
    }
    [entries, numbers[0], numbers[1]].iter().for_each(|number| put_length(&mut out, *number));
    if code > 15 {
        [1, 0, numbers[2], numbers[3] % 2, numbers[4]].iter().for_each(|number| put_length(&mut out, *number));
    }
    put_length(&mut out, groups.len() as u64);
    for (index, (read, pending, consumers)) in groups.iter().enumerate() {
        put_string(&mut out, format!("group{index}").as_bytes());
        [numbers[0], index as u64].iter().for_each(|number| put_length(&mut out, *number));
        if code > 15 {
            put_length(&mut out, *read);
        }
        put_length(&mut out, pending.len() as u64);
        for id in pending {
            out.extend(id.to_be_bytes().repeat(3));
            put_length(&mut out, id % 1000);
        }
        put_length(&mut out, consumers.len() as u64);
        for (index, (seen, active, owned)) in consumers.iter().enumerate() {
            put_string(&mut out, format!("consumer{index}").as_bytes());
            out.extend(seen.to_le_bytes());
            if code > 19 {
                out.extend(active.to_le_bytes());
            }
            put_length(&mut out, owned.len() as u64);
            owned.iter().for_each(|id| out.extend(id.to_be_bytes().repeat(2)));
        }
        if code == 27 {
            // all pending entries have a consumer
            put_length(&mut out, 0);
        }
    }
    if code > 21 {
        [100, 100, 1].iter().for_each(|number| put_length(&mut out, *number));
        put_string(&mut out, b"producer");
        put_length(&mut out, 1);
        put_string(&mut out, b"id");
        [1, 0, numbers[5], 0].iter().for_each(|number| put_length(&mut out, *number));
    }
    out
}

/// A whole RDB of Redis 8.8, or of Valkey 9.
fn rdb() -> impl Strategy<Value = Vec<u8>> {
    let redis = prop_oneof![3 => collections(), 2 => expiring(&[22, 23, 24, 25]), 2 => streams(&[15, 19, 21, 26, 27])];
    let valkey = prop_oneof![2 => collections(), 2 => expiring(&[122]), 1 => streams(&[15, 19, 21])];
    let file = |version: RdbVersion| {
        move |values: Vec<(Option<u32>, Value)>| {
            let mut out = version.header();
            write::put_select_db(&mut out, 0);
            for (index, (expiry, Value(code, bytes))) in values.into_iter().enumerate() {
                if let Some(at) = expiry {
                    out.push(252);
                    out.extend(u64::from(at).to_le_bytes());
                }
                out.push(code % 100);
                put_string(&mut out, format!("key{index}").as_bytes());
                out.extend(bytes);
            }
            write::finish(&mut out, version);
            out
        }
    };
    prop_oneof![
        2 => proptest::collection::vec((any::<Option<u32>>(), redis), 1..6).prop_map(file(RdbVersion::redis(14))),
        1 => proptest::collection::vec((any::<Option<u32>>(), valkey), 1..6).prop_map(file(RdbVersion::valkey(80))),
    ]
}

fn convert(rdb: &[u8], target: Target, drop: &[LossKind], piece: usize) -> Result<Converted<Vec<u8>>, ConvertError> {
    let options = ConvertOptions { drop: drop.to_vec(), ..ConvertOptions::new(target) };
    let mut converter = Converter::new(Vec::new(), options);
    for piece in rdb.chunks(piece) {
        converter.feed(piece)?;
    }
    converter.finish()
}

fn is_sound(rdb: &[u8]) -> bool {
    let mut scanner = Scanner::new(());
    scanner.feed(rdb).is_ok_and(|used| used == rdb.len()) && scanner.finish().is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_was_converted_holds_the_same(rdb in rdb(), piece in 1usize..4000) {
        for target in Target::all() {
            let converted = convert(&rdb, target, &LossKind::REFUSED, piece).unwrap();
            let (before, after) = (decode(&rdb, target).unwrap().0, decode(&converted.writer, target).unwrap().0);
            prop_assert_eq!(before.len(), after.len());
            for (before, after) in before.values().zip(after.values()) {
                prop_assert_eq!(&before.lines, &after.lines, "{}", target);
                prop_assert_eq!(before.expires_at_ms, after.expires_at_ms);
            }
            // nothing is left to do for the second time, and cuts change nothing
            let again = convert(&converted.writer, target, &[], usize::MAX).unwrap();
            prop_assert_eq!((again.rewritten, again.losses.len()), (0, 0));
            prop_assert_eq!(&again.writer, &converted.writer);
        }
    }

    #[test]
    fn damage_is_answered(
        rdb in rdb(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        piece in 1usize..4000,
    ) {
        let mut rdb = rdb;
        // no checksum: what is damaged has to be found in the values
        let end = rdb.len() - 8;
        rdb.truncate(end);
        for (place, byte) in &damage {
            let place = 9 + place.index(end - 9);
            rdb[place] = *byte;
        }
        rdb.extend([0; 8]);
        for target in Target::all() {
            if let Ok(converted) = convert(&rdb, target, &LossKind::REFUSED, piece) {
                prop_assert!(is_sound(&converted.writer));
            }
        }
    }
}
