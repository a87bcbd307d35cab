//! Packed encodings: what was written is walked, whatever the cuts, and what is broken is refused.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail by panic")]

#[path = "support/pack.rs"]
mod pack;

use pack::{Packed, element, intset, listpack, ziplist, zipmap};
use proptest::prelude::*;
use rdbtools::packed::{self, Element, Kind, PackedError, Walk};

const KINDS: [Kind; 4] = [Kind::Listpack, Kind::Ziplist, Kind::Intset, Kind::Zipmap];

/// Walks a value cut at `cuts`, over and over, and answers with its elements.
fn walk(kind: Kind, value: &[u8], cuts: &[usize]) -> Result<Vec<Packed>, PackedError> {
    let mut seen = Vec::new();
    let mut text: Option<(Vec<u8>, u64)> = None;
    let mut walk = Walk::new(kind, value.len() as u64);
    let mut rest = value;
    for cut in cuts.iter().cycle() {
        let (piece, after) = rest.split_at((*cut).max(1).min(rest.len()));
        rest = after;
        walk.push(piece, |element| match element {
            Element::Integer(number) => seen.push(Packed::Integer(number)),
            Element::Begin(length) => assert!(text.replace((Vec::new(), length)).is_none()),
            Element::Piece(bytes) => text.as_mut().unwrap().0.extend(bytes),
            Element::End => {
                let (text, length) = text.take().unwrap();
                assert_eq!(text.len() as u64, length);
                seen.push(Packed::Text(text));
            }
        })?;
        if rest.is_empty() {
            break;
        }
    }
    Ok(seen)
}

fn refused(kind: Kind, value: &[u8]) -> PackedError {
    walk(kind, value, &[usize::MAX]).expect_err("it is broken")
}

#[test]
fn a_wrong_header_length_link_count_or_end_is_refused() {
    let sound = [Packed::text("ab"), Packed::Integer(300), Packed::text("c")];
    for (kind, value) in [(Kind::Listpack, listpack(&sound)), (Kind::Ziplist, ziplist(&sound))] {
        assert_eq!(walk(kind, &value, &[1]).unwrap(), sound);
        let count_at = if kind == Kind::Listpack { 4 } else { 8 };
        let mut unknown = value.clone();
        unknown[count_at..count_at + 2].copy_from_slice(&[255, 255]);
        assert_eq!(walk(kind, &unknown, &[1]).unwrap(), sound, "65535 elements: too many to say");
        for (place, byte) in [(0, value[0] + 1), (count_at, 4), (value.len() - 1, 0)] {
            let mut broken = value.clone();
            broken[place] = byte;
            refused(kind, &broken);
        }
        for end in 0..value.len() {
            refused(kind, &value[..end]);
        }
        refused(kind, &[&value[..], &[0xff]].concat());
        // an end mark in the middle
        let mut early = value.clone();
        early[count_at + 2] = 0xff;
        refused(kind, &early);
    }
    let mut tail = ziplist(&sound);
    tail[4] -= 1;
    assert!(refused(Kind::Ziplist, &tail).message.contains("last element"));
    let mut link = ziplist(&sound);
    link[14] = 3;
    assert_eq!(refused(Kind::Ziplist, &link).offset, 14);
    let mut back = listpack(&sound);
    back[9] = 2;
    assert_eq!(refused(Kind::Listpack, &back).offset, 9);
    for byte in [0xf5, 0xfe] {
        let mut encoding = listpack(&sound);
        encoding[6] = byte;
        assert_eq!(refused(Kind::Listpack, &encoding).offset, 6);
    }
    let mut encoding = ziplist(&sound);
    encoding[11] = 0xc1;
    assert_eq!(refused(Kind::Ziplist, &encoding).offset, 10);
    let mut claim = listpack(&[Packed::text("ab")]);
    claim[6] = 0x85;
    assert_eq!(refused(Kind::Listpack, &claim).offset, 6);
}

#[test]
fn intsets_ascend_in_one_width() {
    assert!(walk(Kind::Intset, &intset(&[]), &[3]).unwrap().is_empty());
    refused(Kind::Intset, &intset(&[1, 3, 2]));
    refused(Kind::Intset, &intset(&[1, 1]));
    let mut width = intset(&[1, 2]);
    width[0] = 3;
    refused(Kind::Intset, &width);
    let mut count = intset(&[1, 2]);
    count[4] = 3;
    refused(Kind::Intset, &count);
    refused(Kind::Intset, b"");
    refused(Kind::Intset, &[2, 0, 0, 0, 255, 255, 255, 255]);
}

#[test]
fn zipmaps_count_their_pairs() {
    let pairs = [(b"a".to_vec(), vec![7; 300]), (Vec::new(), b"b".to_vec())];
    let value = zipmap(&pairs, 2);
    assert_eq!(walk(Kind::Zipmap, &value, &[1]).unwrap().len(), 4);
    for byte in [1, 3, 255] {
        let mut count = value.clone();
        count[0] = byte;
        refused(Kind::Zipmap, &count);
    }
    let mut unknown = value.clone();
    unknown[0] = 254;
    assert!(walk(Kind::Zipmap, &unknown, &[5]).is_ok());
    for end in 0..value.len() {
        refused(Kind::Zipmap, &value[..end]);
    }
}

#[test]
fn a_claim_of_gigabytes_is_refused_at_once() {
    let mut value = listpack(&[Packed::Text(vec![b'x'; 5000])]);
    value[7..11].copy_from_slice(&[255, 255, 255, 127]);
    assert_eq!(refused(Kind::Listpack, &value).offset, 6);
}

/// A compressed value may unpack to more than it declares, which shows only at its end.
#[test]
fn what_is_wrong_comes_before_bytes_beyond_the_end() {
    let sound = listpack(&[Packed::text("ab"), Packed::Integer(7)]);
    let mut broken = sound.clone();
    broken[9] = 9;
    for (value, word) in [(&sound, "more bytes"), (&broken, "back length")] {
        for cut in [usize::MAX, 1, 5] {
            let (mut walk, mut elements) = (Walk::new(Kind::Listpack, value.len() as u64), 0);
            let bytes = [&value[..], b"beyond"].concat();
            let walked = bytes.chunks(cut).try_for_each(|piece| {
                walk.push(piece, |element| elements += u64::from(!matches!(element, Element::Piece(_))))
            });
            assert!(walked.unwrap_err().message.contains(word));
            assert_eq!(elements, if word == "more bytes" { 3 } else { 2 });
        }
    }
}

#[test]
fn walks_of_many_elements_say_nothing_of_their_number() {
    let many = vec![Packed::Integer(5); 70_000];
    assert_eq!(walk(Kind::Listpack, &listpack(&many), &[4096]).unwrap(), many);
    assert_eq!(walk(Kind::Ziplist, &ziplist(&many), &[4096]).unwrap(), many);
}

/// One value of each kind of the same content, as far as the kind can hold it.
fn values(elements: &[Packed]) -> Vec<(Kind, Vec<u8>, Vec<Packed>)> {
    let mut numbers: Vec<i64> =
        elements.iter().filter_map(|e| if let Packed::Integer(n) = e { Some(*n) } else { None }).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let texts = elements.iter().filter_map(|e| if let Packed::Text(text) = e { Some(text.clone()) } else { None });
    let texts: Vec<Vec<u8>> = texts.collect();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let told = |pairs: &[(Vec<u8>, Vec<u8>)]| {
        pairs.iter().flat_map(|(a, b)| [Packed::Text(a.clone()), Packed::Text(b.clone())]).collect()
    };
    vec![
        (Kind::Listpack, listpack(elements), elements.to_vec()),
        (Kind::Ziplist, ziplist(elements), elements.to_vec()),
        (Kind::Intset, intset(&numbers), numbers.into_iter().map(Packed::Integer).collect()),
        (Kind::Zipmap, zipmap(&pairs, 3), told(&pairs)),
    ]
}

proptest! {
    #[test]
    fn what_was_packed_is_walked(
        elements in proptest::collection::vec(element(), 0..40),
        cuts in proptest::collection::vec(1usize..100, 1..6),
    ) {
        for (kind, value, expected) in values(&elements) {
            for cuts in [&[usize::MAX][..], &[1], &cuts] {
                let seen = walk(kind, &value, cuts);
                prop_assert_eq!(seen.as_ref(), Ok(&expected), "{:?}", kind);
            }
        }
    }

    #[test]
    fn damage_is_refused_or_read_the_same_at_any_cuts(
        elements in proptest::collection::vec(element(), 0..12),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in proptest::option::of(any::<prop::sample::Index>()),
        cuts in proptest::collection::vec(1usize..50, 1..6),
    ) {
        for (kind, mut value, _) in values(&elements) {
            for (place, byte) in &damage {
                let place = place.index(value.len());
                value[place] = *byte;
            }
            if let Some(end) = &end {
                value.truncate(end.index(value.len()));
            }
            let whole = walk(kind, &value, &[usize::MAX]);
            prop_assert_eq!(&walk(kind, &value, &[1]), &whole);
            prop_assert_eq!(&walk(kind, &value, &cuts), &whole);
        }
    }

    #[test]
    fn any_bytes_are_answered(value in proptest::collection::vec(any::<u8>(), 0..300), honest in any::<bool>()) {
        for kind in KINDS {
            let mut value = value.clone();
            if honest && let Some(total) = value.first_chunk_mut::<4>() {
                *total = 0u32.to_le_bytes();
                let length = u32::try_from(value.len()).unwrap().to_le_bytes();
                value[..4].copy_from_slice(&length);
            }
            let whole = packed::walk(kind, &value, |_| {});
            if let Err(error) = &whole {
                prop_assert!(error.offset <= value.len() as u64);
            }
            prop_assert_eq!(walk(kind, &value, &[1]).map(|_| ()), whole);
        }
    }
}
