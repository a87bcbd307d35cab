//! The smallest pieces of an RDB: lengths, heads of strings, numbers.
//!
//! Every function here takes the bytes at hand and answers with what it read and how many bytes that took,
//! or with `None` when the bytes end inside it. Nothing here allocates.

use crate::error::Defect;

/// What was read and how many bytes it took; `None` when the bytes ended first.
pub(crate) type Parsed<T> = Result<Option<(T, usize)>, Defect>;

/// The most bytes one atom takes: an old sorted-set score, one byte of length and up to 252 of text.
pub(crate) const ATOM_MAX: usize = 253;

/// The head of a string: how its bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StringHead {
    /// This many bytes follow as they are.
    Plain(u64),
    /// The string is the decimal form of a number kept in 8, 16 or 32 bits; nothing follows.
    Int {
        /// The number.
        value: i32,
        /// How many bytes the file spends on it: 1, 2 or 4.
        width: u8,
    },
    /// Bytes compressed with LZF follow.
    Lzf {
        /// How many bytes follow.
        compressed: u64,
        /// How many bytes they unpack to.
        length: u64,
    },
}

impl StringHead {
    /// Length of the string itself, in bytes.
    #[must_use]
    pub fn length(self) -> u64 {
        match self {
            Self::Plain(length) | Self::Lzf { length, .. } => length,
            Self::Int { value, .. } => decimal_length(value),
        }
    }

    /// How many bytes follow the head in the file.
    #[must_use]
    pub const fn body_length(self) -> u64 {
        match self {
            Self::Plain(length) => length,
            Self::Int { .. } => 0,
            Self::Lzf { compressed, .. } => compressed,
        }
    }
}

fn decimal_length(value: i32) -> u64 {
    let digits = u64::from(value.unsigned_abs().checked_ilog10().unwrap_or(0)) + 1;
    digits + u64::from(value < 0)
}

/// A length or a number (`rdbLoadLen` in the server's `rdb.c`); the special string encodings are refused.
#[inline]
pub(crate) fn length(bytes: &[u8]) -> Parsed<u64> {
    match bytes {
        [] => Ok(None),
        [first @ 0..=0x3f, ..] => Ok(Some((u64::from(*first), 1))),
        [first @ 0x40..=0x7f, rest @ ..] => {
            Ok(rest.first().map(|second| (u64::from(u16::from_be_bytes([first & 0x3f, *second])), 2)))
        }
        [first, rest @ ..] => long_length(*first, rest),
    }
}

/// A length below 16,384, as nearly all are, that is at hand; anything else is for [`length`] to judge.
#[inline]
pub(crate) fn short_length(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes {
        [first @ 0..=0x3f, ..] => Some((usize::from(*first), 1)),
        [first @ 0x40..=0x7f, second, ..] => Some((usize::from(u16::from_be_bytes([first & 0x3f, *second])), 2)),
        _ => None,
    }
}

/// What follows a string of such a length that is kept as it is; `None` where it is another, or not at hand.
#[inline]
pub(crate) fn after_short_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, used) = short_length(bytes)?;
    bytes.get(used + length..)
}

/// What follows a score in binary form; `None` where it is none, or not at hand.
#[inline]
pub(crate) fn after_binary_score(bytes: &[u8]) -> Option<&[u8]> {
    let (score, rest) = bytes.split_first_chunk()?;
    (!f64::from_le_bytes(*score).is_nan()).then_some(rest)
}

fn long_length(first: u8, rest: &[u8]) -> Parsed<u64> {
    match first {
        0x80 => Ok(rest.first_chunk().map(|bytes| (u64::from(u32::from_be_bytes(*bytes)), 5))),
        0x81 => Ok(rest.first_chunk().map(|bytes| (u64::from_be_bytes(*bytes), 9))),
        0xc0.. => {
            Err(Defect::malformed(format!("a string encoding (0x{first:02x}) stands where a number is required")))
        }
        _ => Err(Defect::malformed(format!("0x{first:02x} is not the first byte of any length"))),
    }
}

/// The head of a string (`rdbGenericLoadStringObject` in the server's `rdb.c`).
#[inline]
pub(crate) fn string_head(bytes: &[u8]) -> Parsed<StringHead> {
    match bytes {
        [first @ 0xc0..=0xff, rest @ ..] => encoded_head(*first, rest),
        _ => Ok(length(bytes)?.map(|(length, used)| (StringHead::Plain(length), used))),
    }
}

fn encoded_head(first: u8, rest: &[u8]) -> Parsed<StringHead> {
    let int = |value: i32, width: u8| (StringHead::Int { value, width }, usize::from(width) + 1);
    match first {
        0xc0 => Ok(rest.first().map(|byte| int(i32::from(i8::from_le_bytes([*byte])), 1))),
        0xc1 => Ok(rest.first_chunk().map(|bytes| int(i32::from(i16::from_le_bytes(*bytes)), 2))),
        0xc2 => Ok(rest.first_chunk().map(|bytes| int(i32::from_le_bytes(*bytes), 4))),
        0xc3 => lzf_head(rest),
        _ => Err(Defect::malformed(format!("unknown string encoding 0x{first:02x}"))),
    }
}

fn lzf_head(bytes: &[u8]) -> Parsed<StringHead> {
    let Some((compressed, used)) = length(bytes)? else { return Ok(None) };
    let rest = bytes.get(used..).unwrap_or_default();
    let Some((unpacked, more)) = length(rest)? else { return Ok(None) };
    if compressed == 0 {
        return Err(Defect::malformed("a compressed string of no bytes"));
    }
    Ok(Some((StringHead::Lzf { compressed, length: unpacked }, 1 + used + more)))
}

/// Two numbers in a row.
pub(crate) fn two_lengths(bytes: &[u8]) -> Parsed<(u64, u64)> {
    let Some((first, used)) = length(bytes)? else { return Ok(None) };
    let Some((second, more)) = length(bytes.get(used..).unwrap_or_default())? else { return Ok(None) };
    Ok(Some(((first, second), used + more)))
}

/// Three numbers in a row.
pub(crate) fn three_lengths(bytes: &[u8]) -> Parsed<(u64, u64, u64)> {
    let Some(((first, second), used)) = two_lengths(bytes)? else { return Ok(None) };
    let Some((third, more)) = length(bytes.get(used..).unwrap_or_default())? else { return Ok(None) };
    Ok(Some(((first, second, third), used + more)))
}

/// An element of an array (`AR_RDB_TAG_*` in the server's `array.h`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ArrayValue {
    Integer(i64),
    Float(f64),
    String(StringHead),
}

/// The head of an array: how many elements, and where the next is inserted if there is such a place.
pub(crate) fn array_head(bytes: &[u8]) -> Parsed<(u64, Option<u64>)> {
    let Some(((count, has_place), used)) = two_lengths(bytes)? else { return Ok(None) };
    match has_place {
        0 => Ok(Some(((count, None), used))),
        1 => Ok(length(bytes.get(used..).unwrap_or_default())?.map(|(at, more)| ((count, Some(at)), used + more))),
        _ => Err(Defect::malformed(format!("{has_place} does not say whether an array has a place for insertion"))),
    }
}

/// The index of an element of an array, and the element or its head.
pub(crate) fn array_element(bytes: &[u8]) -> Parsed<(u64, ArrayValue)> {
    let Some(((index, tag), used)) = two_lengths(bytes)? else { return Ok(None) };
    let rest = bytes.get(used..).unwrap_or_default();
    let number = rest.first_chunk::<8>();
    let value = match tag {
        0 | 3 => string_head(rest)?.map(|(head, more)| (ArrayValue::String(head), more)),
        1 => number.map(|bytes| (ArrayValue::Integer(i64::from_le_bytes(*bytes)), 8)),
        2 => number.map(|bytes| (ArrayValue::Float(f64::from_le_bytes(*bytes)), 8)),
        _ => return Err(Defect::malformed(format!("{tag} is no kind of an array's element"))),
    };
    Ok(value.map(|(value, more)| ((index, value), used + more)))
}

/// A score in the old text form: a length, or 253 for NaN, 254 and 255 for the infinities.
pub(crate) fn text_score(bytes: &[u8]) -> Parsed<()> {
    match bytes {
        [] => Ok(None),
        [253, ..] => Err(Defect::malformed("a sorted-set score is not a number")),
        [254 | 255, ..] => Ok(Some(((), 1))),
        [length, rest @ ..] => Ok((rest.len() >= usize::from(*length)).then_some(((), usize::from(*length) + 1))),
    }
}

/// The number of a score in the old text form.
pub(crate) fn text_score_value(bytes: &[u8]) -> Parsed<f64> {
    let Some(((), used)) = text_score(bytes)? else { return Ok(None) };
    let score = match bytes {
        [254, ..] => f64::INFINITY,
        [255, ..] => f64::NEG_INFINITY,
        _ => score(bytes.get(1..used).unwrap_or_default())?,
    };
    Ok(Some((score, used)))
}

/// The number that the text of a score is.
pub(crate) fn score(text: &[u8]) -> Result<f64, Defect> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    match number {
        Some(number) if !number.is_nan() => Ok(number),
        _ => Err(Defect::malformed(format!("the sorted-set score \"{}\" is not a number", text.escape_ascii()))),
    }
}

/// A score in binary form: eight bytes, little-endian.
#[inline]
pub(crate) fn binary_score(bytes: &[u8]) -> Parsed<f64> {
    let Some(bytes) = bytes.first_chunk() else { return Ok(None) };
    let score = f64::from_le_bytes(*bytes);
    if score.is_nan() {
        return Err(Defect::malformed("a sorted-set score is not a number"));
    }
    Ok(Some((score, 8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_server() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x3f], 63),
            (&[0x40, 0x40], 64),
            (&[0x7f, 0xff], 16383),
            (&[0x80, 0, 0, 0x40, 0], 16384),
            (&[0x81, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
        ] {
            assert_eq!(length(bytes), Ok(Some((value, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(length(&bytes[..cut]), Ok(None));
            }
        }
        for first in [0x82, 0xbf, 0xc0, 0xff] {
            assert!(length(&[first, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        }
    }

    #[test]
    fn string_heads_are_those_of_the_server() {
        let int = |value, width| StringHead::Int { value, width };
        for (bytes, head) in [
            (&[0x05][..], StringHead::Plain(5)),
            (&[0xc0, 0xff], int(-1, 1)),
            (&[0xc1, 0x00, 0x80], int(-32768, 2)),
            (&[0xc2, 0xff, 0xff, 0xff, 0x7f], int(i32::MAX, 4)),
            (&[0xc3, 0x0a, 0x40, 0x64], StringHead::Lzf { compressed: 10, length: 100 }),
        ] {
            assert_eq!(string_head(bytes), Ok(Some((head, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(string_head(&bytes[..cut]), Ok(None));
            }
        }
        assert!(string_head(&[0xc4, 0]).is_err());
    }

    #[test]
    fn decimal_lengths_are_those_of_the_text() {
        for value in [0, 7, 10, 99, 100, -1, -10, 127, i32::MAX, i32::MIN] {
            assert_eq!(StringHead::Int { value, width: 4 }.length(), value.to_string().len() as u64);
        }
    }
}
