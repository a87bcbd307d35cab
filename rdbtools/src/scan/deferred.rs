//! Compressed strings that are looked into later, so that another thread can do it.

use crate::lzf;
use crate::sink::Sink;

use super::{Cursor, Scanner};

/// A compressed string that passed without being looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    at: usize,
    compressed: usize,
    length: u64,
}

impl Compressed {
    /// Whether it unpacks to the length that it declares; `input` is what was fed when it passed.
    #[must_use]
    pub fn is_sound(self, input: &[u8]) -> bool {
        let bytes = input.get(self.at..).and_then(|rest| rest.get(..self.compressed));
        bytes.is_some_and(|bytes| lzf::Walk::new(bytes.len() as u64, self.length).pass(bytes).is_ok())
    }
}

/// The strings of the input that was fed last.
#[derive(Debug, Default)]
pub(super) struct Deferral {
    /// Offset of the first byte that was fed.
    start: u64,
    strings: Vec<Compressed>,
}

impl Deferral {
    pub(super) fn begin(&mut self, start: u64) {
        self.start = start;
        self.strings.clear();
    }
}

impl<S: Sink> Scanner<S> {
    /// Lets compressed strings of values pass without looking into them, where a piece of input has them whole. What
    /// [`Self::compressed`] answers is to be looked into by the caller; as long as that was not done nobody knows
    /// whether the RDB is sound. It has no effect where the sink wants the structure of values.
    ///
    /// When one of the strings turns out unsound, which defect is the first, and what was before it, is told by
    /// another scan without this.
    #[must_use]
    pub fn deferring_compressed(mut self) -> Self {
        self.deferral = (!S::STRUCTURE).then(Deferral::default);
        self
    }

    /// The strings that passed unseen in what was fed last, in order.
    #[must_use]
    pub fn compressed(&self) -> &[Compressed] {
        self.deferral.as_ref().map_or(&[], |deferral| &deferral.strings)
    }

    /// Passes a compressed string that is at hand, where it is looked into later.
    pub(super) fn defer(&mut self, cursor: &mut Cursor<'_>, compressed: u64, length: u64) -> bool {
        let Some(deferral) = &mut self.deferral else { return false };
        let here = self.base + cursor.position() as u64 - deferral.start;
        let at_hand = usize::try_from(compressed).ok().filter(|compressed| *compressed <= cursor.rest.len());
        let (Some(compressed), Ok(at)) = (at_hand, usize::try_from(here)) else { return false };
        deferral.strings.push(Compressed { at, compressed, length });
        cursor.skip(compressed);
        true
    }
}
