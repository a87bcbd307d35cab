//! Packed encodings: small collections that an RDB keeps as one string.
//!
//! | module | what it is | where it is found |
//! |---|---|---|
//! | `listpack` | elements forwards and backwards, numbers packed | everything small since Redis 7.0, nodes of streams |
//! | `ziplist` | the same, older | everything small before Redis 7.0 |
//! | `intset` | numbers of one width, ascending | sets of numbers |
//! | `zipmap` | fields and values | small hashes before Redis 2.6 |
//!
//! A [`Walk`] is pushed the bytes, in any pieces, and tells the elements; it holds 16 bytes of a value and no
//! more. It checks everything the format says: the lengths in the header, the number of elements, the links
//! from each element to the one before it, that every element lies inside the string and that the end mark is
//! its last byte. That is at least what the servers check with `sanitize-dump-payload yes`.
//!
//! ```
//! use rdbtools::packed::{self, Element, Kind};
//!
//! let listpack = b"\x0c\0\0\0\x02\0\x81a\x02\x07\x01\xff";
//! let mut seen = Vec::new();
//! packed::walk(Kind::Listpack, listpack, |element| match element {
//!     Element::Integer(number) => seen.push(number.to_string()),
//!     Element::Begin(_) => seen.push(String::new()),
//!     Element::Piece(bytes) => seen.last_mut().unwrap().push_str(std::str::from_utf8(bytes).unwrap()),
//!     Element::End => {}
//! })?;
//! assert_eq!(seen, ["a", "7"]);
//! # Ok::<(), packed::PackedError>(())
//! ```

mod intset;
mod listpack;
mod ziplist;
mod zipmap;

use std::borrow::Cow;
use std::fmt;

use intset::Intset;
use listpack::Listpack;
use ziplist::Ziplist;
use zipmap::Zipmap;

/// The most bytes that are read at once: the link, head and number of a ziplist's element take 14.
const ATOM_MAX: usize = 16;

/// Which packed encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `listpack.c`.
    Listpack,
    /// `ziplist.c`.
    Ziplist,
    /// `intset.c`.
    Intset,
    /// `zipmap.c`.
    Zipmap,
}

impl Kind {
    /// `listpack`, `ziplist`, `intset` or `zipmap`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listpack => "listpack",
            Self::Ziplist => "ziplist",
            Self::Intset => "intset",
            Self::Zipmap => "zipmap",
        }
    }
}

/// What a walk tells: a number, or a string as its beginning, pieces and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element<'a> {
    /// An element that is a number.
    Integer(i64),
    /// An element that is a string of this many bytes.
    Begin(u64),
    /// Bytes of the string; the borders of pieces mean nothing.
    Piece(&'a [u8]),
    /// The string ended.
    End,
}

/// What is wrong with a packed value, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedError {
    /// The encoding that was expected.
    pub kind: Kind,
    /// Byte offset from the start of the packed value.
    pub offset: u64,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for PackedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, byte {}: {}", self.kind.name(), self.offset, self.message)
    }
}

impl std::error::Error for PackedError {}

/// What a format found in the bytes that were read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Something that is no element.
    Read,
    Integer(i64),
    /// A string of this many bytes follows.
    String(u64),
    /// Bytes follow that mean nothing.
    Skip(u64),
    /// The end mark.
    End,
}

/// What is wrong, in words.
type Flaw = Cow<'static, str>;

/// What was found and how many bytes it took; `None` when the bytes ended first.
type Stepped = Result<Option<(Step, usize)>, Flaw>;

/// One format: reads what stands at `at` of a value of `length` bytes. It changes only when it answers with
/// what it found.
trait Format {
    fn step(&mut self, bytes: &[u8], at: u64, length: u64) -> Stepped;

    /// A short element that is at hand as a whole with what belongs to it, and how many bytes that is. Everything else,
    /// what is wrong too, is left to the steps.
    #[inline]
    fn at_hand<'a>(&mut self, bytes: &'a [u8]) -> Option<(AtHand<'a>, usize)> {
        let _ = bytes;
        None
    }
}

/// A whole element.
#[derive(Debug, Clone, Copy)]
enum AtHand<'a> {
    Integer(i64),
    Text(&'a [u8]),
}

#[derive(Debug, Clone)]
enum State {
    Listpack(Listpack),
    Ziplist(Ziplist),
    Intset(Intset),
    Zipmap(Zipmap),
}

/// Walks a packed value as its bytes arrive.
#[derive(Debug, Clone)]
pub struct Walk {
    state: State,
    length: u64,
    /// Bytes that were walked, those that are carried not among them.
    at: u64,
    carry: [u8; ATOM_MAX],
    carried: usize,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    String { left: u64 },
    Skip { left: u64 },
    Ended,
}

impl Walk {
    /// A walk at the start of a value of `length` bytes.
    #[must_use]
    pub fn new(kind: Kind, length: u64) -> Self {
        let state = match kind {
            Kind::Listpack => State::Listpack(Listpack::default()),
            Kind::Ziplist => State::Ziplist(Ziplist::default()),
            Kind::Intset => State::Intset(Intset::default()),
            Kind::Zipmap => State::Zipmap(Zipmap::default()),
        };
        Self { state, length, at: 0, carry: [0; ATOM_MAX], carried: 0, body: Body::None }
    }

    /// The encoding that is walked.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.state {
            State::Listpack(_) => Kind::Listpack,
            State::Ziplist(_) => Kind::Ziplist,
            State::Intset(_) => Kind::Intset,
            State::Zipmap(_) => Kind::Zipmap,
        }
    }

    /// Walks bytes of the value and tells its elements. When as many bytes have passed as the value has, it has
    /// been checked to its end.
    ///
    /// # Errors
    /// The first flaw. A walk that has failed is of no more use.
    pub fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(Element<'_>)) -> Result<(), PackedError> {
        let before = self.at + self.carried as u64;
        let room = usize::try_from(self.length - before).unwrap_or(usize::MAX);
        // bytes beyond the end are an error, but what is wrong before it comes first, however the bytes are cut
        let (bytes, beyond) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        let given = before + bytes.len() as u64;
        match &mut self.state {
            // one copy of the machine for each, so that the format is known in it
            State::Listpack(format) => {
                let mut format = std::mem::take(format);
                let result = self.run(&mut format, bytes, &mut tell);
                self.state = State::Listpack(format);
                result
            }
            State::Ziplist(format) => {
                let mut format = std::mem::take(format);
                let result = self.run(&mut format, bytes, &mut tell);
                self.state = State::Ziplist(format);
                result
            }
            State::Intset(format) => {
                let mut format = std::mem::take(format);
                let result = self.run(&mut format, bytes, &mut tell);
                self.state = State::Intset(format);
                result
            }
            State::Zipmap(format) => {
                let mut format = std::mem::take(format);
                let result = self.run(&mut format, bytes, &mut tell);
                self.state = State::Zipmap(format);
                result
            }
        }?;
        if given == self.length && self.body != Body::Ended {
            return Err(self.flaw(self.length, "the value ends before its end mark".into()));
        }
        if !beyond.is_empty() {
            return Err(self.flaw(self.length, "more bytes are given than the value has".into()));
        }
        Ok(())
    }

    fn run(
        &mut self,
        format: &mut impl Format,
        mut rest: &[u8],
        tell: &mut impl FnMut(Element<'_>),
    ) -> Result<(), PackedError> {
        loop {
            if self.body != Body::None && !self.pass_body(&mut rest, tell) {
                return Ok(());
            }
            if self.carried == 0 {
                self.pass_at_hand(format, &mut rest, tell);
            }
            let start = self.at;
            let Some(step) = self.read(format, &mut rest)? else { return Ok(()) };
            self.begin(step, start, tell)?;
        }
    }

    #[inline]
    fn pass_at_hand(&mut self, format: &mut impl Format, rest: &mut &[u8], tell: &mut impl FnMut(Element<'_>)) {
        while let Some((element, used)) = format.at_hand(rest) {
            match element {
                AtHand::Integer(number) => tell(Element::Integer(number)),
                AtHand::Text(text) => {
                    tell(Element::Begin(text.len() as u64));
                    if !text.is_empty() {
                        tell(Element::Piece(text));
                    }
                    tell(Element::End);
                }
            }
            self.at += used as u64;
            *rest = rest.get(used..).unwrap_or_default();
        }
    }

    /// Passes what follows the last step; whether the next step can be read.
    fn pass_body(&mut self, rest: &mut &[u8], tell: &mut impl FnMut(Element<'_>)) -> bool {
        let (Body::String { left } | Body::Skip { left }) = self.body else { return self.body == Body::None };
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let (passed, after) = rest.split_at_checked(count).unwrap_or_default();
        *rest = after;
        let left = left - passed.len() as u64;
        self.at += passed.len() as u64;
        if matches!(self.body, Body::Skip { .. }) {
            self.body = if left > 0 { Body::Skip { left } } else { Body::None };
            return left == 0;
        }
        if !passed.is_empty() {
            tell(Element::Piece(passed));
        }
        if left > 0 {
            self.body = Body::String { left };
            return false;
        }
        tell(Element::End);
        self.body = Body::None;
        true
    }

    /// Reads one step; `None` when the bytes end inside it, and then they are carried.
    fn read(&mut self, format: &mut impl Format, rest: &mut &[u8]) -> Result<Option<Step>, PackedError> {
        if self.carried == 0 {
            match format.step(rest, self.at, self.length) {
                Ok(Some((step, used))) => {
                    *rest = rest.get(used..).unwrap_or_default();
                    self.at += used as u64;
                    return Ok(Some(step));
                }
                Ok(None) => {}
                Err(flaw) => return Err(self.flaw(self.at, flaw)),
            }
        }
        // byte by byte, so that the carry never holds more than the step needs
        while let Some((byte, after)) = rest.split_first() {
            let Some(place) = self.carry.get_mut(self.carried) else { break };
            *place = *byte;
            self.carried += 1;
            *rest = after;
            let carry = self.carry;
            let (bytes, _) = carry.split_at_checked(self.carried).unwrap_or_default();
            match format.step(bytes, self.at, self.length) {
                Ok(Some((step, _))) => {
                    self.at += self.carried as u64;
                    self.carried = 0;
                    return Ok(Some(step));
                }
                Ok(None) => {}
                Err(flaw) => return Err(self.flaw(self.at, flaw)),
            }
        }
        Ok(None)
    }

    fn begin(&mut self, step: Step, start: u64, tell: &mut impl FnMut(Element<'_>)) -> Result<(), PackedError> {
        let left = self.length - self.at;
        match step {
            Step::Read => {}
            Step::Integer(number) => tell(Element::Integer(number)),
            Step::String(length) | Step::Skip(length) if length > left => {
                let message = format!("an element claims {length} bytes where {left} are left");
                return Err(self.flaw(start, message.into()));
            }
            Step::String(length) => {
                tell(Element::Begin(length));
                self.body = Body::String { left: length };
            }
            Step::Skip(length) => self.body = Body::Skip { left: length },
            Step::End if left > 0 => {
                let message = format!("the end mark stands {left} bytes before the end of the value");
                return Err(self.flaw(start, message.into()));
            }
            Step::End => self.body = Body::Ended,
        }
        Ok(())
    }

    #[cold]
    fn flaw(&self, offset: u64, flaw: Flaw) -> PackedError {
        PackedError { kind: self.kind(), offset, message: flaw.into_owned() }
    }
}

/// Walks a whole value that is in memory.
///
/// # Errors
/// The first flaw; a value of no bytes is one too.
pub fn walk(kind: Kind, value: &[u8], tell: impl FnMut(Element<'_>)) -> Result<(), PackedError> {
    Walk::new(kind, value.len() as u64).push(value, tell)
}

/// The little-endian number of `width` bytes (at most 8) at `at`, its sign extended.
fn signed(bytes: &[u8], at: usize, width: usize) -> Option<i64> {
    let bytes = bytes.get(at..at + width)?;
    let mut wide = [if bytes.last()? & 0x80 == 0 { 0 } else { 0xff }; 8];
    wide.get_mut(..width)?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

/// The little-endian number of four bytes at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The little-endian number of two bytes at `at`.
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}
