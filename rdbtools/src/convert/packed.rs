//! Packed values written as plain ones, or as the packed values of older servers.

use std::collections::HashSet;

use crate::atom::StringHead;
use crate::decode::FIELD_EXPIRY_MAX;
use crate::packed::{self, Element, Kind, PackedError};
use crate::templates::{Fields, Templates};
use crate::write;

use super::plan::Held;

/// Why a packed value cannot be written otherwise.
#[derive(Debug)]
pub(super) enum Flaw {
    Packed(PackedError),
    Other(String),
}

impl From<PackedError> for Flaw {
    fn from(error: PackedError) -> Self {
        Self::Packed(error)
    }
}

/// What a packed value alone does not say.
pub(super) struct Around<'a> {
    /// By how many ms expiries of fields move, where they do.
    pub(super) shift: i64,
    pub(super) templates: &'a Templates,
}

/// Writes a whole listpack as what it is held for; how many expiries of fields were left out.
pub(super) fn put(held: Held, listpack: &[u8], around: &Around<'_>, out: &mut Vec<u8>) -> Result<u64, Flaw> {
    match held {
        Held::Hash => put_tuples(listpack, 2, out, put_plain),
        Held::Set => put_tuples(listpack, 1, out, put_plain),
        Held::Zset => put_tuples(listpack, 2, out, put_scored),
        Held::ExpiringHash { keep: true } => put_tuples(listpack, 3, out, put_expiring),
        Held::ExpiringHash { keep: false } => {
            let mut lost = 0;
            put_tuples(listpack, 3, out, |index, element, out| {
                if index < 2 {
                    return put_plain(index, element, out);
                }
                lost += u64::from(expiry(&element)?.is_some());
                Ok(())
            })?;
            return Ok(lost);
        }
        Held::MovedHash => {
            let mut pair = Vec::new();
            put_tuples(listpack, 3, out, |place, element, out| {
                if place < 2 {
                    return put_plain(place, element, &mut pair);
                }
                let at = expiry(&element)?.map(|at| moved(at.cast_unsigned(), around.shift));
                write::put_length(out, at.map_or(0, |at| at + 1));
                out.append(&mut pair);
                Ok(())
            })
        }
        Held::TemplatedHash => put_templated(listpack, around.templates, out),
        Held::Node => put_node(listpack, out),
    }?;
    Ok(0)
}

/// An element of a listpack, whole.
enum Whole<'a> {
    Integer(i64),
    Text(&'a [u8]),
}

impl Whole<'_> {
    fn text(&self) -> Vec<u8> {
        match self {
            Self::Integer(number) => number.to_string().into_bytes(),
            Self::Text(text) => text.to_vec(),
        }
    }
}

/// Tells every element of a listpack with its number.
fn walk(listpack: &[u8], mut tell: impl FnMut(u64, Whole<'_>) -> Result<(), Flaw>) -> Result<u64, Flaw> {
    let (mut count, mut result, mut text) = (0, Ok(()), Vec::new());
    let mut next = |whole: Whole<'_>| {
        if result.is_ok() {
            result = tell(count, whole);
        }
        count += 1;
    };
    packed::walk(Kind::Listpack, listpack, |element| match element {
        Element::Integer(number) => next(Whole::Integer(number)),
        Element::Begin(_) => text.clear(),
        Element::Piece(bytes) => text.extend_from_slice(bytes),
        Element::End => next(Whole::Text(&text)),
    })?;
    result.map(|()| count)
}

/// The first element of a listpack of `length` bytes of which the first ones are given, if it is a number and not
/// below 0.
pub(super) fn first_number(start: &[u8], length: u64) -> Option<u64> {
    let mut first = None;
    let start = start.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(start);
    // what is wrong further on is not asked here
    let _ = packed::Walk::new(Kind::Listpack, length).push(start, |element| {
        first.get_or_insert(match element {
            Element::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        });
    });
    first.flatten()
}

/// Writes how many tuples there are, then each element as `put` does, told its place in the tuple.
fn put_tuples(
    listpack: &[u8],
    length: u64,
    out: &mut Vec<u8>,
    mut put: impl FnMut(u64, Whole<'_>, &mut Vec<u8>) -> Result<(), Flaw>,
) -> Result<(), Flaw> {
    let count = walk(listpack, |_, _| Ok(()))?;
    if count % length != 0 {
        return Err(Flaw::Other(format!("{count} elements are no whole number of {length}s")));
    }
    write::put_length(out, count / length);
    let mut firsts = HashSet::new();
    walk(listpack, |number, element| {
        let place = number % length;
        if place == 0 && !firsts.insert(element.text()) {
            // a server that unpacks it stops here
            return Err(Flaw::Other(format!("\"{}\" occurs twice", element.text().escape_ascii())));
        }
        put(place, element, out)
    })?;
    Ok(())
}

/// Writes the values of a listpack, each behind its field of the template whose id stands first.
fn put_templated(listpack: &[u8], templates: &Templates, out: &mut Vec<u8>) -> Result<(), Flaw> {
    let mut fields: Fields = [].into();
    let count = walk(listpack, |number, element| {
        if number == 0 {
            let id = if let Whole::Integer(id) = element { u64::try_from(id).ok() } else { None };
            let id = id.ok_or_else(|| Flaw::Other("a hash does not say which template it refers to".to_owned()))?;
            fields = templates.of_hash(id).map_err(|defect| Flaw::Other(defect.message.to_string()))?;
            write::put_length(out, fields.len() as u64);
            return Ok(());
        }
        let place = usize::try_from(number - 1).unwrap_or(usize::MAX);
        let Some(field) = fields.get(place) else {
            return Err(Flaw::Other("a hash has more values than its template has fields".to_owned()));
        };
        write::put_string(out, field);
        put_plain(number, element, out)
    })?;
    if count == fields.len() as u64 + 1 {
        return Ok(());
    }
    Err(Flaw::Other("a hash has fewer values than its template has fields".to_owned()))
}

fn put_plain(_place: u64, element: Whole<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
    match element {
        Whole::Integer(number) => put_integer(out, number),
        Whole::Text(text) => write::put_string(out, text),
    }
    Ok(())
}

/// Writes a string that is a number as `rdbEncodeInteger` in the server's `rdb.c` does.
fn put_integer(out: &mut Vec<u8>, number: i64) {
    let width = if i8::try_from(number).is_ok() {
        1
    } else if i16::try_from(number).is_ok() {
        2
    } else {
        4
    };
    match i32::try_from(number) {
        Ok(value) => write::put_string_head(out, StringHead::Int { value, width }),
        Err(_) => write::put_string(out, number.to_string().as_bytes()),
    }
}

fn put_scored(place: u64, element: Whole<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
    if place == 0 {
        return put_plain(place, element, out);
    }
    let text = element.text();
    let score = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<f64>().ok());
    let Some(score) = score.filter(|score| !score.is_nan()) else {
        return Err(Flaw::Other(format!("\"{}\" is no score", text.escape_ascii())));
    };
    out.extend(score.to_le_bytes());
    Ok(())
}

fn expiry(element: &Whole<'_>) -> Result<Option<i64>, Flaw> {
    match element {
        Whole::Integer(0) => Ok(None),
        Whole::Integer(at @ 1..) => Ok(Some(*at)),
        _ => Err(Flaw::Other(format!("\"{}\" is no expiry of a field", element.text().escape_ascii()))),
    }
}

/// An expiry of a field that is moved, within what servers accept.
pub(super) fn moved(at: u64, shift: i64) -> u64 {
    at.saturating_add_signed(shift).clamp(1, FIELD_EXPIRY_MAX)
}

fn put_expiring(place: u64, element: Whole<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
    if place < 2 {
        return put_plain(place, element, out);
    }
    out.extend(expiry(&element)?.unwrap_or(super::NO_EXPIRY).to_le_bytes());
    Ok(())
}

fn put_node(listpack: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
    let mut ziplist = Ziplist::new();
    walk(listpack, |_, element| {
        ziplist.push(&element);
        Ok(())
    })?;
    let bytes = ziplist.finish().ok_or_else(|| Flaw::Other("a ziplist of it would have 4 GiB or more".to_owned()))?;
    write::put_string(out, &bytes);
    Ok(())
}

/// Total bytes (4), offset of the last element (4), count (2).
const ZIPLIST_HEADER_LEN: usize = 10;
const ZIPLIST_END: u8 = 0xff;
/// What does not fit into one byte is written in five.
const PREVIOUS_LIMIT: usize = 254;

/// Writes a ziplist (`ziplist.c` of Redis up to 6.2).
struct Ziplist {
    bytes: Vec<u8>,
    tail: usize,
    count: usize,
}

impl Ziplist {
    fn new() -> Self {
        Self { bytes: vec![0; ZIPLIST_HEADER_LEN], tail: ZIPLIST_HEADER_LEN, count: 0 }
    }

    fn push(&mut self, element: &Whole<'_>) {
        let previous = if self.count == 0 { 0 } else { self.bytes.len() - self.tail };
        self.tail = self.bytes.len();
        self.count += 1;
        match u8::try_from(previous) {
            Ok(short) if previous < PREVIOUS_LIMIT => self.bytes.push(short),
            _ => {
                self.bytes.push(0xfe);
                // one that does not fit makes the whole too long, and that is refused at the end
                self.bytes.extend(u32::try_from(previous).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        match element {
            Whole::Integer(number) => self.push_integer(*number),
            Whole::Text(text) => {
                put_ziplist_length(&mut self.bytes, text.len() as u64);
                self.bytes.extend_from_slice(text);
            }
        }
    }

    fn push_integer(&mut self, number: i64) {
        let fits = |bits: u32| number >> (bits - 1) == 0 || number >> (bits - 1) == -1;
        let (mark, width) = match number {
            0..=12 => (0xf1 + number.to_le_bytes().first().copied().unwrap_or(0), 0),
            _ if fits(8) => (0xfe, 1),
            _ if fits(16) => (0xc0, 2),
            _ if fits(24) => (0xf0, 3),
            _ if fits(32) => (0xd0, 4),
            _ => (0xe0, 8),
        };
        self.bytes.push(mark);
        self.bytes.extend(number.to_le_bytes().iter().take(width));
    }

    /// The ziplist; `None` where it is too long for one.
    fn finish(self) -> Option<Vec<u8>> {
        let Self { mut bytes, tail, count } = self;
        bytes.push(ZIPLIST_END);
        let header = ziplist_header(bytes.len() as u64, tail as u64, count as u64)?;
        bytes.get_mut(..ZIPLIST_HEADER_LEN)?.copy_from_slice(&header);
        Some(bytes)
    }
}

fn ziplist_header(total: u64, tail: u64, count: u64) -> Option<[u8; ZIPLIST_HEADER_LEN]> {
    let mut header = [0; ZIPLIST_HEADER_LEN];
    let (first, rest) = header.split_at_mut(size_of::<u32>());
    let (second, third) = rest.split_at_mut(size_of::<u32>());
    first.copy_from_slice(&u32::try_from(total).ok()?.to_le_bytes());
    second.copy_from_slice(&u32::try_from(tail).ok()?.to_le_bytes());
    third.copy_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    Some(header)
}

/// The head of a string in a ziplist.
fn put_ziplist_length(out: &mut Vec<u8>, length: u64) {
    let bytes = length.to_be_bytes();
    match length {
        0..=0x3f => out.extend(bytes.last()),
        0x40..=0x3fff => out.extend((length | 0x4000).to_be_bytes().last_chunk::<2>().copied().unwrap_or_default()),
        _ => {
            out.push(0x80);
            out.extend(bytes.last_chunk::<4>().copied().unwrap_or_default());
        }
    }
}

/// Writes a ziplist of one string up to where its bytes stand; the bytes and [`put_element_end`] must follow. Whether
/// that is possible.
pub(super) fn put_element_start(out: &mut Vec<u8>, length: u64) -> bool {
    let mut head = vec![0];
    put_ziplist_length(&mut head, length);
    let total = (ZIPLIST_HEADER_LEN + head.len()) as u64 + length + 1;
    let Some(header) = ziplist_header(total, ZIPLIST_HEADER_LEN as u64, 1) else { return false };
    write::put_length(out, total);
    out.extend(header);
    out.extend(head);
    true
}

pub(super) fn put_element_end(out: &mut Vec<u8>) {
    out.push(ZIPLIST_END);
}
