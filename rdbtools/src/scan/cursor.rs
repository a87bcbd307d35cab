//! Where a scan stands in the piece of input that it walks.

/// A place in a piece of input.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    whole: &'a [u8],
    pub(super) rest: &'a [u8],
    /// What was left when bytes were told last.
    pub(super) told: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(whole: &'a [u8]) -> Self {
        Self { whole, rest: whole, told: whole }
    }

    #[inline]
    pub(super) fn position(&self) -> usize {
        self.whole.len() - self.rest.len()
    }

    pub(super) fn passed(&self) -> &'a [u8] {
        self.whole.split_at_checked(self.position()).map_or(&[], |(passed, _)| passed)
    }

    /// Skips bytes that are there.
    #[inline]
    pub(super) fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// Takes up to `count` bytes, as many as are there.
    #[inline]
    pub(super) fn take(&mut self, count: u64) -> &'a [u8] {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                taken
            }
            None => self.take_all(),
        }
    }

    /// Takes everything before `rest`, which is an end of what is left.
    #[inline]
    pub(super) fn pass_to(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let taken = self.rest.split_at_checked(self.rest.len() - rest.len());
        self.rest = rest;
        taken.map_or(&[], |(taken, _)| taken)
    }

    #[inline]
    pub(super) fn take_all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}
