//! Listpacks (`listpack.c` of Redis 5 and later, and `listpack.md` there).
//!
//! Total bytes (4), number of elements (2, 65535: too many to say), elements, 0xff. An element is its
//! encoding, its data, and its own length so far in groups of seven bits, to be read from behind.

use super::{AtHand, Flaw, Format, Step, Stepped, half, signed, word};

const HEADER_LEN: usize = 6;
const COUNT_UNKNOWN: u16 = u16::MAX;
/// The least length that takes 2, 3, 4, 5 bytes (`lpEncodeBacklen`; the bounds are the server's).
const BACK_LIMITS: [u64; 4] = [128, 16383, 2_097_151, 268_435_455];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Header,
    Element,
    /// The length of the element that has passed.
    Back(u64),
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listpack {
    next: Next,
    count: u64,
    declared: u16,
}

impl Format for Listpack {
    #[inline]
    fn step(&mut self, bytes: &[u8], _at: u64, length: u64) -> Stepped {
        match self.next {
            Next::Element => self.element(bytes),
            Next::Back(element) => self.back(bytes, element),
            Next::Header => self.header(bytes, length),
        }
    }

    #[inline]
    fn at_hand<'a>(&mut self, bytes: &'a [u8]) -> Option<(AtHand<'a>, usize)> {
        let (&first, after) = bytes.split_first()?;
        let (element, back) = match first {
            0..=0x7f => (AtHand::Integer(first.into()), after),
            0x80..=0xbf => {
                let (text, back) = after.split_at_checked(usize::from(first & 0x3f))?;
                (AtHand::Text(text), back)
            }
            _ => return None,
        };
        let length = bytes.len() - back.len();
        // at most 64 bytes, whose length takes one
        if self.next != Next::Element || usize::from(*back.first()?) != length {
            return None;
        }
        self.count += 1;
        Some((element, length + 1))
    }
}

impl Listpack {
    fn header(&mut self, bytes: &[u8], length: u64) -> Stepped {
        let (Some(total), Some(declared)) = (word(bytes, 0), half(bytes, 4)) else { return Ok(None) };
        if u64::from(total) != length {
            return Err(format!("its header says {total} bytes, it has {length}").into());
        }
        self.declared = declared;
        self.next = Next::Element;
        Ok(Some((Step::Read, HEADER_LEN)))
    }

    #[inline]
    fn element(&mut self, bytes: &[u8]) -> Stepped {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let second = bytes.get(1).copied();
        let string = |length: u32, head: u64| (Step::String(length.into()), head, head + u64::from(length));
        let number = |width: usize| {
            let length = width as u64 + 1;
            signed(bytes, 1, width).map(|number| (Step::Integer(number), length, length))
        };
        let found = match first {
            0..=0x7f => Some((Step::Integer(first.into()), 1, 1)),
            0x80..=0xbf => Some(string(u32::from(first & 0x3f), 1)),
            0xc0..=0xdf => second.map(|low| {
                let bits = i64::from(u16::from_be_bytes([first & 0x1f, low]));
                // 13 bits, the topmost of them the sign
                (Step::Integer(if bits < 1 << 12 { bits } else { bits - (1 << 13) }), 2, 2)
            }),
            0xe0..=0xef => second.map(|low| string(u16::from_be_bytes([first & 0x0f, low]).into(), 2)),
            0xf0 => word(bytes, 1).map(|length| string(length, 5)),
            0xf1 => number(2),
            0xf2 => number(3),
            0xf3 => number(4),
            0xf4 => number(8),
            0xff => return self.end(),
            _ => return Err(format!("0x{first:02x} is no encoding of an element").into()),
        };
        let Some((step, head, element)) = found else { return Ok(None) };
        self.next = Next::Back(element);
        self.count += 1;
        Ok(Some((step, usize::try_from(head).unwrap_or(usize::MAX))))
    }

    #[inline]
    fn back(&mut self, bytes: &[u8], element: u64) -> Stepped {
        let (expected, size) = back_length(element);
        let Some(found) = bytes.get(..size) else { return Ok(None) };
        if Some(found) != expected.get(..size) {
            return Err(wrong_back(element));
        }
        self.next = Next::Element;
        Ok(Some((Step::Read, size)))
    }

    fn end(&self) -> Stepped {
        if self.declared != COUNT_UNKNOWN && u64::from(self.declared) != self.count {
            let (declared, count) = (self.declared, self.count);
            return Err(format!("its header says {declared} elements, it has {count}").into());
        }
        Ok(Some((Step::End, 1)))
    }
}

#[cold]
fn wrong_back(element: u64) -> Flaw {
    format!("the back length of an element of {element} bytes is wrong").into()
}

/// How the length of an element is written behind it: bytes and how many of them count.
#[inline]
fn back_length(element: u64) -> ([u8; 5], usize) {
    let size = 1 + BACK_LIMITS.iter().filter(|limit| element >= **limit).count();
    let mut bytes = [0; 5];
    let mut left = element;
    for (index, byte) in bytes.iter_mut().take(size).enumerate().rev() {
        let mark = if index > 0 { 0x80 } else { 0 };
        *byte = u8::try_from(left & 0x7f).unwrap_or(0) | mark;
        left >>= 7;
    }
    (bytes, size)
}
