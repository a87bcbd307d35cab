//! Unpacks compressed strings as their bytes arrive, and tells on the way whether they are sound.

use crate::error::Defect;

use super::{LONG, Next, REFERENCE, before_start, end};

/// How far back a reference reaches at most: its distance has 13 bits.
const WINDOW_LEN: usize = 8192;
/// How much is unpacked at once, give or take the last part.
const PIECE_LEN: usize = 16 << 10;
/// The most that one control byte produces.
const PART_LEN_MAX: usize = 264;
/// The most that a control byte below [`REFERENCE`] is followed by.
const LITERAL_LEN_MAX: usize = 32;
/// References are copied by so many bytes at once.
const STEP_LEN: usize = 16;

/// Where another part may begin.
const FULL_LEN: usize = WINDOW_LEN + PIECE_LEN;
/// Copies by fixed lengths may go beyond the part that they copy.
const BUFFER_LEN: usize = FULL_LEN + PART_LEN_MAX + LITERAL_LEN_MAX;

/// Unpacks a compressed string as its bytes arrive, in bounded memory. It finds the same flaws as a
/// [`Walk`](super::Walk).
#[derive(Debug, Default)]
pub(crate) struct Unpack {
    next: Next,
    /// Compressed bytes that have not passed yet.
    left: u64,
    declared: u64,
    /// What was produced and is no longer in the buffer.
    gone: u64,
    /// What references may reach, and what was not told yet.
    buffer: Vec<u8>,
    filled: usize,
    told: usize,
}

impl Unpack {
    /// Begins a string of `compressed` bytes that declares to unpack to `declared` bytes, in the same memory.
    pub(crate) fn restart(&mut self, compressed: u64, declared: u64) {
        self.buffer.resize(BUFFER_LEN, 0);
        self.next = Next::Control;
        self.left = compressed;
        self.declared = declared;
        self.gone = 0;
        self.filled = 0;
        self.told = 0;
    }

    /// How many bytes of the string have not passed yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Unpacks bytes of the string, never more than [`Self::left`], and answers with those for which there was no room
    /// until what was produced is asked for.
    ///
    /// # Errors
    /// When the string is not sound.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Defect> {
        self.make_room();
        let mut rest = bytes;
        loop {
            if matches!(self.next, Next::Control) {
                rest = self.whole_parts(rest)?;
            }
            if self.filled >= FULL_LEN {
                break;
            }
            let Some((&byte, after)) = rest.split_first() else { break };
            rest = self.byte(byte, after)?;
        }
        self.left = self.left.saturating_sub((bytes.len() - rest.len()) as u64);
        if self.left == 0 {
            end(self.next, self.gone + self.filled as u64, self.declared)?;
        }
        Ok(rest)
    }

    /// What was produced since this was asked last.
    pub(crate) fn take(&mut self) -> &[u8] {
        let fresh = self.buffer.get(self.told..self.filled).unwrap_or_default();
        self.told = self.filled;
        fresh
    }

    /// Appends what bytes of the string unpack to.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(crate) fn all(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Defect> {
        loop {
            bytes = self.push(bytes)?;
            out.extend_from_slice(self.take());
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Lets go what was taken, but for what references reach.
    fn make_room(&mut self) {
        if self.filled < FULL_LEN {
            return;
        }
        let old = self.told.min(self.filled - WINDOW_LEN);
        self.buffer.copy_within(old..self.filled, 0);
        self.gone += old as u64;
        self.filled -= old;
        self.told -= old;
    }

    /// Unpacks parts that are at hand as a whole, as long as there is room. Answers with what is left.
    fn whole_parts<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Defect> {
        let buffer = self.buffer.as_mut_slice();
        let (mut rest, mut to) = (bytes, self.filled);
        while to < FULL_LEN
            && let Some((&control, after)) = rest.split_first()
        {
            if control < REFERENCE {
                let run = usize::from(control) + 1;
                let Some(next) = after.get(run..) else { break };
                match (place(buffer, to), after.first_chunk::<LITERAL_LEN_MAX>()) {
                    // a length that is known is copied faster than one that is not
                    (Some(place), Some(ahead)) => *place = *ahead,
                    (Some(place), None) => place.iter_mut().zip(after).for_each(|(place, byte)| *place = *byte),
                    (None, _) => break,
                }
                to += run;
                rest = next;
                continue;
            }
            let Some((&[more, last], _)) = after.split_first_chunk() else { break };
            let (length, low, used) = match control {
                LONG.. => (usize::from(more) + 9, last, 2),
                _ => (usize::from(control >> 5) + 2, more, 1),
            };
            let distance = usize::from(u16::from_be_bytes([control & 0x1f, low])) + 1;
            let Some(from) = to.checked_sub(distance) else { return Err(before_start()) };
            // most are short and far
            if length <= STEP_LEN && distance >= STEP_LEN {
                buffer.copy_within(from..from + STEP_LEN, to);
            } else {
                repeat(buffer, from, to, length);
            }
            to += length;
            rest = after.get(used..).unwrap_or_default();
        }
        self.filled = to;
        Ok(rest)
    }

    /// Takes in a byte of a part that is not at hand as a whole, and what literal bytes follow it. Answers with what is
    /// left.
    fn byte<'a>(&mut self, byte: u8, after: &'a [u8]) -> Result<&'a [u8], Defect> {
        match self.next {
            Next::Control if byte < REFERENCE => self.next = Next::Literal(byte + 1),
            Next::Control if byte >= LONG => self.next = Next::MoreLength { high: byte & 0x1f },
            Next::Control => self.next = Next::Distance { high: byte & 0x1f, length: u16::from(byte >> 5) + 2 },
            Next::Literal(left) => {
                if let Some(place) = self.buffer.get_mut(self.filled) {
                    *place = byte;
                }
                self.filled += 1;
                self.next = if left > 1 { Next::Literal(left - 1) } else { Next::Control };
            }
            Next::MoreLength { high } => self.next = Next::Distance { high, length: u16::from(byte) + 9 },
            Next::Distance { high, length } => {
                let distance = usize::from(u16::from_be_bytes([high, byte])) + 1;
                let Some(from) = self.filled.checked_sub(distance) else { return Err(before_start()) };
                repeat(&mut self.buffer, from, self.filled, length.into());
                self.filled += usize::from(length);
                self.next = Next::Control;
            }
        }
        Ok(after)
    }
}

/// Where literal bytes go.
#[inline]
fn place(buffer: &mut [u8], at: usize) -> Option<&mut [u8; LITERAL_LEN_MAX]> {
    buffer.get_mut(at..)?.first_chunk_mut()
}

/// Copies `length` bytes from `from` to `to`, which stands behind it; they may overlap. What follows them, up to
/// [`STEP_LEN`] bytes, is overwritten.
#[inline]
fn repeat(buffer: &mut [u8], from: usize, to: usize, length: usize) {
    let (distance, mut done) = (to - from, 0);
    if distance >= STEP_LEN {
        while done < length {
            buffer.copy_within(from + done..from + done + STEP_LEN, to + done);
            done += STEP_LEN;
        }
        return;
    }
    // each copy doubles what the next can take
    while done < length {
        let count = (distance + done).min(length - done);
        buffer.copy_within(from..from + count, to + done);
        done += count;
    }
}
