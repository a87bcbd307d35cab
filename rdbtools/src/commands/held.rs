//! What must be held before it can be written.

use crate::error::{ErrorKind, ScanError};

/// The most memory that is spent on what commands or objects need before it can be written, in bytes.
pub const HELD_MAX: usize = 16 << 20;

/// Strings that are needed again or before they can be written, up to [`HELD_MAX`] bytes together.
#[derive(Debug, Default)]
pub struct Held {
    /// They themselves, the last of which is perhaps not complete.
    pub strings: Vec<Vec<u8>>,
    length: usize,
}

impl Held {
    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.strings.clear();
        self.length = 0;
    }

    /// Begins another string, of `length` bytes.
    ///
    /// # Errors
    /// When there is no room for it; `offset` is where it stands.
    pub fn begin(&mut self, offset: u64, length: u64) -> Result<(), ScanError> {
        let room = HELD_MAX.saturating_sub(self.length) as u64;
        if length > room {
            let message = format!("a member or names of fields of more than {HELD_MAX} bytes cannot be held");
            return Err(ScanError { offset, kind: ErrorKind::Unsupported, message });
        }
        // what counts is what arrives, not what is claimed; the number of strings counts too
        self.length += size_of::<Vec<u8>>();
        self.strings.push(Vec::new());
        Ok(())
    }

    /// Takes in more bytes of the last string.
    pub fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if let Some(last) = self.strings.last_mut() {
            last.extend_from_slice(bytes);
        }
    }
}
