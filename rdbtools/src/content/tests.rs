use super::*;
use crate::Scanner;
use crate::decode::Decoder;
use crate::split::{SplitOptions, Splitter};
use crate::version::RdbVersion;
use policies::slot::key_slot;

fn contents(rules: &ContentRules, rdb: &[u8]) -> Vec<Content> {
    let mut all = Vec::new();
    for cut in [1, 7, 1000] {
        let mut scanner = Scanner::new(Decoder::new(ContentSink::new(rules.clone())));
        rdb.chunks(cut).for_each(|piece| assert_eq!(scanner.feed(piece).unwrap(), piece.len()));
        all.push(scanner.finish().unwrap().1.into_values().into_contents());
    }
    let last = all.pop().unwrap();
    for (other, content) in all.iter().flat_map(|other| other.iter().zip(&last)) {
        assert!(content.differences(other, 0).is_empty(), "cuts change nothing");
    }
    last
}

fn rdb(body: &[u8]) -> Vec<u8> {
    [b"REDIS0003\xfe\x00", body, b"\xff"].concat()
}

fn differences(one: &[u8], other: &[u8]) -> Vec<String> {
    let rules = ContentRules::new(0);
    let (one, other) = (contents(&rules, &rdb(one)), contents(&rules, &rdb(other)));
    one[0].differences(&other[0], 0).iter().map(ToString::to_string).collect()
}

#[test]
fn order_and_encoding_change_nothing_and_contents_do() {
    // the hash h of two fields, plain and in a listpack; a set in both orders
    let plain = b"\x04\x01h\x02\x01a\x011\x01b\x012".as_slice();
    let listpack = b"\x10\x01h\x11\x11\0\0\0\x04\0\x81b\x02\x02\x01\x81a\x02\x01\x01\xff".as_slice();
    assert_eq!(differences(plain, listpack), Vec::<String>::new());
    assert_eq!(differences(b"\x02\x01s\x02\x01a\x01b", b"\x02\x01s\x02\x01b\x01a"), Vec::<String>::new());
    let lists = [b"\x01\x01l\x02\x01a\x01b".as_slice(), b"\x01\x01l\x02\x01b\x01a", b"\x01\x01l\x01\x02ab"];
    for other in [lists[1], lists[2]] {
        assert_eq!(differences(lists[0], other), ["database 0: other contents of list keys"]);
    }
    let other_value = b"\x04\x01h\x02\x01a\x011\x01b\x013";
    assert_eq!(differences(plain, other_value), ["database 0: other contents of hash keys"]);
    assert_eq!(differences(plain, b""), ["database 0: 0 hash keys, and 1 were sent"]);
    // values exchanged between fields, and between keys
    assert_eq!(differences(plain, b"\x04\x01h\x02\x01a\x012\x01b\x011").len(), 1);
    assert_eq!(differences(b"\x00\x01a\x011\x00\x01b\x012", b"\x00\x01a\x012\x00\x01b\x011").len(), 1);
    // the border between a field and its value, and between a key and its text
    assert_eq!(differences(b"\x04\x01h\x01\x01a\x02bc", b"\x04\x01h\x01\x02ab\x01c").len(), 1);
    assert_eq!(differences(b"\x00\x01a\x02bc", b"\x00\x02ab\x01c").len(), 1);
    // scores exchanged between members
    let scores = |a: f64, b: f64| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        [b"\x05\x01z\x02\x01a".as_slice(), &a, b"\x01b", &b].concat()
    };
    assert_eq!(differences(&scores(1.0, 2.0), &scores(2.0, 1.0)), ["database 0: other contents of zset keys"]);
    assert_eq!(differences(&scores(0.0, 2.0), &scores(-0.0, 2.0)), Vec::<String>::new());
    // a key of another kind with the same elements
    assert_eq!(differences(b"\x02\x01k\x01\x01a", b"\x01\x01k\x01\x01a").len(), 2);
}

/// A listpack of numbers below 128 and strings of at most 63 bytes.
fn listpack(elements: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        let begin = body.len();
        match element {
            [number @ ..=0x7f] => body.push(*number),
            text => {
                body.push(0x80 | u8::try_from(text.len()).unwrap());
                body.extend_from_slice(text);
            }
        }
        body.push(u8::try_from(body.len() - begin).unwrap());
    }
    let length = u8::try_from(6 + body.len() + 1).unwrap();
    let count = u8::try_from(elements.len()).unwrap();
    [&[length, 0, 0, 0, count, 0], &*body, b"\xff"].concat()
}

/// A stream of one entry with the fields of its node.
fn stream(fields: [&[u8]; 2], id: u8, values: [&[u8]; 2]) -> Vec<u8> {
    let pack = listpack(&[
        b"\x01",
        b"\0",
        b"\x02",
        fields[0],
        fields[1],
        b"\0",
        b"\x02",
        b"\0",
        &[id],
        values[0],
        values[1],
        b"\x05",
    ]);
    let length = u8::try_from(pack.len()).unwrap();
    // one node whose first id is 0-0, one entry, the last id, no groups
    [b"\x0f\x01s\x01\x10".as_slice(), &[0; 16], &[length], &pack, &[1, 0, id, 0]].concat()
}

#[test]
fn every_part_of_a_stream_entry_counts() {
    let one = stream([b"one", b"two"], 7, [b"first", b"second"]);
    assert_eq!(differences(&one, &one), Vec::<String>::new());
    for other in [
        stream([b"one", b"three"], 7, [b"first", b"second"]),
        stream([b"two", b"one"], 7, [b"first", b"second"]),
        stream([b"one", b"two"], 7, [b"second", b"first"]),
        stream([b"one", b"two"], 7, [b"firsts", b"econd"]),
        stream([b"one", b"two"], 8, [b"first", b"second"]),
    ] {
        assert_eq!(differences(&one, &other), ["database 0: other contents of stream keys"]);
    }
}

#[test]
fn every_number_of_a_module_counts_and_of_which_kind_it_is() {
    let value = |parts: &[u8]| [b"\x07\x01m\x81\x11\x22\x33\x44\x55\x66\x77\x00".as_slice(), parts, b"\0"].concat();
    let one = value(b"\x02\x05\x05\x01a");
    assert_eq!(differences(&one, &one), Vec::<String>::new());
    for other in [b"\x02\x06\x05\x01a", b"\x01\x05\x05\x01a", b"\x02\x05\x05\x01b"] {
        assert_eq!(differences(&one, &value(other)), ["database 0: other contents of module keys"]);
    }
}

#[test]
fn the_place_of_an_element_in_an_array_counts() {
    // one element, no place for insertion, its index, how it is kept, and the element
    let array = |index: u8| [b"\x1c\x01a\x01\0".as_slice(), &[index], b"\0\x01x"].concat();
    assert_eq!(differences(&array(3), &array(3)), Vec::<String>::new());
    assert_eq!(differences(&array(3), &array(4)).len(), 1);
}

#[test]
fn an_expiry_counts_and_what_has_ended_is_not_compared() {
    let key = |at: i64| [b"\xfc".as_slice(), &at.to_le_bytes(), b"\x00\x01a\x01b"].concat();
    let rules = ContentRules::new(1_000_000);
    let of = |at: i64| contents(&rules, &rdb(&key(at))).remove(0);
    let day = 86_400_000;
    assert_eq!(of(day).differences(&of(day + 1), 1_000_000).len(), 1);
    assert!(of(day).differences(&of(day), 1_000_000).is_empty());
    // it may be gone by then
    let none = contents(&rules, &rdb(b"")).remove(0);
    assert_eq!(of(day).differences(&none, 1_000_000).len(), 1);
    assert!(of(1_030_000).differences(&none, 1_000_000).is_empty());
    assert!(of(day).differences(&none, 2 * 86_400_000).is_empty());

    let shifted = ContentRules { ttl: Ttl::Shift(77), ..rules.clone() };
    let moved = contents(&shifted, &rdb(&key(day))).remove(0);
    assert!(moved.differences(&of(day + 77), 0).is_empty());
    let dropped = ContentRules { ttl: Ttl::Drop, ..rules };
    let kept = contents(&dropped, &rdb(&key(5))).remove(0);
    assert!(kept.differences(&contents(&dropped.read_back(), &rdb(b"\x00\x01a\x01b"))[0], 0).is_empty());
}

#[test]
fn a_field_that_expires_belongs_to_its_key() {
    let day: u64 = 86_400_000;
    let hash = |name: &[u8], at: u64, value: &[u8]| {
        [b"\x16\x01", name, b"\x01\x81", &at.to_be_bytes(), b"\x01a\x01", value].concat()
    };
    let sent = [hash(b"h", day, b"1"), hash(b"i", day + 1, b"2")].concat();
    assert_eq!(differences(&sent, &[hash(b"i", day + 1, b"2"), hash(b"h", day, b"1")].concat()), Vec::<String>::new());
    for other in [
        [hash(b"i", day, b"1"), hash(b"h", day + 1, b"2")].concat(),
        [hash(b"h", day + 1, b"1"), hash(b"i", day, b"2")].concat(),
        [hash(b"h", day, b"2"), hash(b"i", day + 1, b"1")].concat(),
    ] {
        assert_eq!(differences(&sent, &other), ["database 0: other contents of hash keys"]);
    }
}

#[test]
fn keys_belong_to_the_shard_of_their_slot_and_others_are_named() {
    let slots = SlotSet::range(0, key_slot(b"a")).unwrap();
    let body = b"\x00\x01a\x01x\x00\x01c\x01x\x00\x01b\x01x";
    let rules = ContentRules { shards: vec![slots.clone(), slots.complement()], ..ContentRules::new(0) };
    let split = contents(&rules, &rdb(body));
    let keys: u64 = split.iter().flat_map(|content| content.keys().into_values()).sum();
    assert_eq!((split.len(), keys), (2, 3));
    let only = ContentRules { shards: vec![slots.clone()], ..ContentRules::new(0) };
    let mut scanner = Scanner::new(Decoder::new(ContentSink::new(only)));
    scanner.feed(&rdb(body)).unwrap();
    let sink = scanner.finish().unwrap().1.into_values();
    let outside: Vec<&[u8]> =
        [b"a", b"c", b"b"].into_iter().map(|name| &name[..]).filter(|name| !slots.contains(key_slot(name))).collect();
    assert_eq!(sink.misplaced(), outside.first().map(|name| (outside.len() as u64, *name)));
}

/// What the release candidates of Redis 7.4 wrote of hashes whose fields expire: types that have no place for a move.
#[test]
fn contents_are_those_of_a_split_whatever_becomes_of_expiries_also_of_encodings_before_their_release() {
    let at: u64 = 86_400_000;
    let plain = [b"\x16\x01h\x01\x81".as_slice(), &at.to_be_bytes(), b"\x01a\x011"].concat();
    let mut pack = [b"\x81a\x02\x01\x01\xf4".as_slice(), &at.to_le_bytes(), b"\x09\xff"].concat();
    let length = u8::try_from(pack.len() + 6).unwrap();
    pack = [&[length, 0, 0, 0, 3, 0], &pack[..]].concat();
    let packed = [b"\x17\x01h".as_slice(), &[length], &pack].concat();
    for (body, ttl) in
        [&plain, &packed].into_iter().flat_map(|it| [Ttl::Keep, Ttl::Drop, Ttl::Shift(77)].map(|ttl| (it, ttl)))
    {
        let rules = ContentRules { ttl, ..ContentRules::new(0) };
        let mut splitter = Splitter::new(
            vec![SlotSet::full()],
            vec![Vec::new()],
            SplitOptions { ttl, ..SplitOptions::new(RdbVersion::redis(3)) },
        )
        .unwrap();
        splitter.begin_input("one").unwrap();
        splitter.feed(&rdb(body)).unwrap();
        splitter.end_input().unwrap();
        let made = splitter.finish().unwrap().remove(0).writer;
        let found = contents(&rules.read_back(), &made).remove(0);
        let differences = contents(&rules, &rdb(body))[0].differences(&found, 0);
        assert!(
            differences.is_empty(),
            "{ttl:?} {}: {:?}",
            body.escape_ascii(),
            differences.iter().map(ToString::to_string).collect::<Vec<_>>()
        );
        let expiring =
            [b"\x04\x01h\x01\x01a\x011".as_slice()].map(|body| contents(&rules.read_back(), &rdb(body)).remove(0));
        assert_eq!(expiring[0].differences(&found, 0).is_empty(), ttl == Ttl::Drop, "{ttl:?}");
    }
}
