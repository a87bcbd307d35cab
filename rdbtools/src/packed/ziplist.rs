//! Ziplists (`ziplist.c` of every Redis up to 6.2; later ones still read them).
//!
//! Total bytes (4), offset of the last element (4), number of elements (2, 65535: too many to say), elements,
//! 0xff. An element is the length of the element before it, its encoding, its data.

use super::{Format, Step, Stepped, half, signed, word};

const HEADER_LEN: usize = 10;
const COUNT_UNKNOWN: u16 = u16::MAX;
const END: u8 = 0xff;
/// The length of the element before stands in the four bytes behind this one.
const LONG_LINK: u8 = 0xfe;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Header,
    Element,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ziplist {
    next: Next,
    count: u64,
    declared: u16,
    /// Where the last element begins, as the header says.
    tail: u64,
    /// Where the element before begins, and how long it is.
    last: Option<(u64, u64)>,
}

impl Format for Ziplist {
    #[inline]
    fn step(&mut self, bytes: &[u8], at: u64, length: u64) -> Stepped {
        match self.next {
            Next::Element => self.element(bytes, at),
            Next::Header => self.header(bytes, length),
        }
    }
}

impl Ziplist {
    fn header(&mut self, bytes: &[u8], length: u64) -> Stepped {
        let (Some(total), Some(tail), Some(declared)) = (word(bytes, 0), word(bytes, 4), half(bytes, 8)) else {
            return Ok(None);
        };
        if u64::from(total) != length {
            return Err(format!("its header says {total} bytes, it has {length}").into());
        }
        self.declared = declared;
        self.tail = tail.into();
        self.next = Next::Element;
        Ok(Some((Step::Read, HEADER_LEN)))
    }

    #[inline]
    fn element(&mut self, bytes: &[u8], at: u64) -> Stepped {
        let (before, link) = match bytes {
            [] => return Ok(None),
            [END, ..] => return self.end(at),
            [LONG_LINK, ..] => match word(bytes, 1) {
                Some(before) => (u64::from(before), 5),
                None => return Ok(None),
            },
            [before, ..] => (u64::from(*before), 1),
        };
        let expected = self.last.map_or(0, |(_, length)| length);
        if before != expected {
            return Err(format!("an element says that the one before it has {before} bytes, it has {expected}").into());
        }
        let Some((step, head)) = encoding(bytes.get(link..).unwrap_or_default())? else { return Ok(None) };
        let used = link + head;
        let body = if let Step::String(length) = step { length } else { 0 };
        self.last = Some((at, used as u64 + body));
        self.count += 1;
        Ok(Some((step, used)))
    }

    fn end(&self, at: u64) -> Stepped {
        let (declared, count) = (self.declared, self.count);
        if declared != COUNT_UNKNOWN && u64::from(declared) != count {
            return Err(format!("its header says {declared} elements, it has {count}").into());
        }
        // that of an empty one points at the end mark
        let tail = self.last.map_or(at, |(start, _)| start);
        if self.tail != tail {
            return Err(
                format!("its header says that the last element begins at {}, it does at {tail}", self.tail).into()
            );
        }
        Ok(Some((Step::End, 1)))
    }
}

/// The encoding of an element, with its number if it is one.
#[inline]
fn encoding(bytes: &[u8]) -> Stepped {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let number = |width: usize| signed(bytes, 1, width).map(|number| (Step::Integer(number), 1 + width));
    Ok(match first {
        0..=0x3f => Some((Step::String(first.into()), 1)),
        0x40..=0x7f => {
            let low = bytes.get(1);
            low.map(|low| (Step::String(u16::from_be_bytes([first & 0x3f, *low]).into()), 2))
        }
        // big-endian, unlike everything else
        0x80..=0xbf => word(bytes, 1).map(|length| (Step::String(length.swap_bytes().into()), 5)),
        0xc0 => number(2),
        0xd0 => number(4),
        0xe0 => number(8),
        0xf0 => number(3),
        0xfe => number(1),
        0xf1..=0xfd => Some((Step::Integer(i64::from(first & 0x0f) - 1), 1)),
        _ => return Err(format!("0x{first:02x} is no encoding of an element").into()),
    })
}
