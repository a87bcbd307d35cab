//! Writes packed encodings as the servers do, or with one thing wrong.

#![allow(dead_code, reason = "each test uses its part of this")]

use proptest::prelude::*;

/// An element of a packed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packed {
    Integer(i64),
    Text(Vec<u8>),
}

impl Packed {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }
}

pub(crate) fn element() -> impl Strategy<Value = Packed> {
    let long = (any::<u8>(), 60usize..20_000).prop_map(|(byte, count)| Packed::Text(vec![byte; count]));
    prop_oneof![
        4 => (any::<i64>(), 0u32..64).prop_map(|(number, shift)| Packed::Integer(number >> shift)),
        4 => proptest::collection::vec(any::<u8>(), 0..70).prop_map(Packed::Text),
        1 => long,
    ]
}

fn le(number: i64, width: usize) -> Vec<u8> {
    number.to_le_bytes()[..width].to_vec()
}

fn fits(number: i64, bits: u32) -> bool {
    number >> (bits - 1) == 0 || number >> (bits - 1) == -1
}

pub(crate) fn listpack(elements: &[Packed]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        let mut entry = Vec::new();
        match element {
            Packed::Integer(number @ 0..=127) => entry.push(u8::try_from(*number).unwrap()),
            Packed::Integer(number) if fits(*number, 13) => {
                let bits = u16::try_from(number & 0x1fff).unwrap() | 0xc000;
                entry.extend(bits.to_be_bytes());
            }
            Packed::Integer(number) => {
                let (mark, width) = match number {
                    n if fits(*n, 16) => (0xf1, 2),
                    n if fits(*n, 24) => (0xf2, 3),
                    n if fits(*n, 32) => (0xf3, 4),
                    _ => (0xf4, 8),
                };
                entry.push(mark);
                entry.extend(le(*number, width));
            }
            Packed::Text(text) => {
                match text.len() {
                    0..=63 => entry.push(0x80 | u8::try_from(text.len()).unwrap()),
                    64..=4095 => entry.extend((0xe000 | u16::try_from(text.len()).unwrap()).to_be_bytes()),
                    _ => {
                        entry.push(0xf0);
                        entry.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
                    }
                }
                entry.extend(text);
            }
        }
        let length = entry.len();
        let size = 1 + [127, 16382, 2_097_150].iter().filter(|limit| length > **limit).count();
        for group in (0..size).rev() {
            let mark = if group + 1 == size { 0 } else { 128 };
            entry.push(u8::try_from(length >> (7 * group) & 127).unwrap() | mark);
        }
        body.extend(entry);
    }
    let mut out = u32::try_from(body.len() + 7).unwrap().to_le_bytes().to_vec();
    out.extend(u16::try_from(elements.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(body);
    out.push(0xff);
    out
}

pub(crate) fn ziplist(elements: &[Packed]) -> Vec<u8> {
    let mut out = vec![0; 10];
    let (mut tail, mut before) = (10, 0);
    for element in elements {
        tail = out.len();
        if before < 254 {
            out.push(u8::try_from(before).unwrap());
        } else {
            out.push(254);
            out.extend(u32::try_from(before).unwrap().to_le_bytes());
        }
        match element {
            Packed::Integer(number @ 0..=12) => out.push(0xf1 + u8::try_from(*number).unwrap()),
            Packed::Integer(number) => {
                let (mark, width) = match number {
                    n if fits(*n, 8) => (0xfe, 1),
                    n if fits(*n, 16) => (0xc0, 2),
                    n if fits(*n, 24) => (0xf0, 3),
                    n if fits(*n, 32) => (0xd0, 4),
                    _ => (0xe0, 8),
                };
                out.push(mark);
                out.extend(le(*number, width));
            }
            Packed::Text(text) => {
                match text.len() {
                    0..=63 => out.push(u8::try_from(text.len()).unwrap()),
                    64..=16383 => out.extend((0x4000 | u16::try_from(text.len()).unwrap()).to_be_bytes()),
                    _ => {
                        out.push(0x80);
                        out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    }
                }
                out.extend(text);
            }
        }
        before = out.len() - tail;
    }
    out.push(0xff);
    let total = u32::try_from(out.len()).unwrap().to_le_bytes();
    out[..4].copy_from_slice(&total);
    out[4..8].copy_from_slice(&u32::try_from(tail).unwrap().to_le_bytes());
    out[8..10].copy_from_slice(&u16::try_from(elements.len()).unwrap_or(u16::MAX).to_le_bytes());
    out
}

/// An intset of numbers, which must ascend to be sound.
pub(crate) fn intset(numbers: &[i64]) -> Vec<u8> {
    let width = [2usize, 4].into_iter().find(|width| {
        let bits = u32::try_from(width * 8).unwrap();
        numbers.iter().all(|number| fits(*number, bits))
    });
    let width = width.unwrap_or(8);
    let mut out = u32::try_from(width).unwrap().to_le_bytes().to_vec();
    out.extend(u32::try_from(numbers.len()).unwrap().to_le_bytes());
    out.extend(numbers.iter().flat_map(|number| le(*number, width)));
    out
}

/// A zipmap of pairs, with some free bytes behind each value.
pub(crate) fn zipmap(pairs: &[(Vec<u8>, Vec<u8>)], free: u8) -> Vec<u8> {
    let mut out = vec![u8::try_from(pairs.len()).unwrap_or(254).min(254)];
    let put = |out: &mut Vec<u8>, length: usize| match u8::try_from(length) {
        Ok(length @ 0..=253) => out.push(length),
        _ => {
            out.push(254);
            out.extend(u32::try_from(length).unwrap().to_le_bytes());
        }
    };
    for (field, value) in pairs {
        put(&mut out, field.len());
        out.extend(field);
        put(&mut out, value.len());
        out.push(free);
        out.extend(value);
        out.extend(vec![0xaa; usize::from(free)]);
    }
    out.push(0xff);
    out
}
