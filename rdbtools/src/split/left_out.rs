//! Keys that are left out because others of the same name stay.

use std::{fmt, io};

use crate::duplicates::Place;

/// Places in order, from wherever they are kept.
pub(super) type Places = Box<dyn Iterator<Item = io::Result<Place>> + Send>;

/// The keys that are left out because others of the same name stay.
#[derive(Default)]
pub(super) struct LeftOut {
    places: Option<Places>,
    /// The next of them.
    pub(super) next: Option<Place>,
    /// Why they could not be read on.
    pub(super) failed: Option<io::Error>,
    /// How many were left out.
    pub(super) count: u64,
}

impl fmt::Debug for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeftOut").field("next", &self.next).field("count", &self.count).finish_non_exhaustive()
    }
}

impl LeftOut {
    /// Leaves these out.
    pub(super) fn begin(&mut self, places: Places) -> io::Result<()> {
        self.places = Some(places);
        self.advance()
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = self.places.as_mut().and_then(Iterator::next).transpose()?;
        Ok(())
    }

    /// Whether the key at this place is left out.
    #[inline]
    pub(super) fn holds(&mut self, input: u32, offset: u64) -> bool {
        let held = self.next == Some(Place { input, offset });
        if held {
            self.count += 1;
            self.failed = self.advance().err();
        }
        held
    }
}
