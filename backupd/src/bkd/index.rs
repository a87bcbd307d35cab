//! The index frame and the footer: where frames are, which slots they hold, and what the whole amounts to.

use serde::{Deserialize, Serialize};

use super::header::take;
use crate::canonical::damaged;
use crate::error::Result;

/// Bytes of the footer.
pub const FOOTER_LEN: usize = 16;

const FOOTER_MAGIC: &[u8; 8] = b"BKDEND\x00\x01";
const VERSION: u32 = 1;
const FRAME_ENTRY_LEN: usize = 12;
const SLOT_ENTRY_LEN: usize = 18;
/// Slot bounds of a frame whose slots are not known.
pub const SLOT_UNKNOWN: u16 = u16::MAX;

/// One data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// Plain bytes.
    pub plain_bytes: u32,
    /// Stored bytes of the whole frame: head, payload and tag.
    pub stored_bytes: u32,
    /// Lowest slot of its keys, or [`SLOT_UNKNOWN`].
    pub slot_first: u16,
    /// Highest slot of its keys, or [`SLOT_UNKNOWN`].
    pub slot_last: u16,
}

/// What one slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotEntry {
    /// The slot.
    pub slot: u16,
    /// Its keys.
    pub keys: u64,
    /// RDB bytes of their entries.
    pub bytes: u64,
}

/// The content of the index frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// SHA-256 of the RDB.
    pub plain_sha256: [u8; 32],
    /// The data frames in order.
    pub frames: Vec<FrameEntry>,
    /// The slots that hold keys, ascending.
    pub slots: Vec<SlotEntry>,
}

impl Index {
    /// Bytes of the RDB.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.plain_bytes)).sum()
    }

    /// The plain bytes of the index frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(52 + self.frames.len() * FRAME_ENTRY_LEN + self.slots.len() * SLOT_ENTRY_LEN);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.plain_sha256);
        out.extend_from_slice(&(self.frames.len() as u64).to_le_bytes());
        for frame in &self.frames {
            out.extend_from_slice(&frame.plain_bytes.to_le_bytes());
            out.extend_from_slice(&frame.stored_bytes.to_le_bytes());
            out.extend_from_slice(&frame.slot_first.to_le_bytes());
            out.extend_from_slice(&frame.slot_last.to_le_bytes());
        }
        out.extend_from_slice(&(self.slots.len() as u64).to_le_bytes());
        for slot in &self.slots {
            out.extend_from_slice(&slot.slot.to_le_bytes());
            out.extend_from_slice(&slot.keys.to_le_bytes());
            out.extend_from_slice(&slot.bytes.to_le_bytes());
        }
        out
    }

    /// Reads the plain bytes of an index frame.
    ///
    /// # Errors
    /// `Verification`.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        if u32::from_le_bytes(take(name, &mut rest)?) != VERSION {
            return Err(damaged(name, "the version of its index is not known"));
        }
        let plain_sha256 = take(name, &mut rest)?;
        let frames = count(name, &mut rest, FRAME_ENTRY_LEN)?;
        let frames = (0..frames).map(|_| Self::frame(name, &mut rest)).collect::<Result<_>>()?;
        let slots = count(name, &mut rest, SLOT_ENTRY_LEN)?;
        let slots = (0..slots).map(|_| Self::slot(name, &mut rest)).collect::<Result<_>>()?;
        if rest.is_empty() {
            Ok(Self { plain_sha256, frames, slots })
        } else {
            Err(damaged(name, "its index has bytes behind its end"))
        }
    }

    fn frame(name: &str, rest: &mut &[u8]) -> Result<FrameEntry> {
        Ok(FrameEntry {
            plain_bytes: u32::from_le_bytes(take(name, rest)?),
            stored_bytes: u32::from_le_bytes(take(name, rest)?),
            slot_first: u16::from_le_bytes(take(name, rest)?),
            slot_last: u16::from_le_bytes(take(name, rest)?),
        })
    }

    fn slot(name: &str, rest: &mut &[u8]) -> Result<SlotEntry> {
        Ok(SlotEntry {
            slot: u16::from_le_bytes(take(name, rest)?),
            keys: u64::from_le_bytes(take(name, rest)?),
            bytes: u64::from_le_bytes(take(name, rest)?),
        })
    }
}

/// A count of entries that the remaining bytes can really hold.
fn count(name: &str, rest: &mut &[u8], entry_len: usize) -> Result<u64> {
    let count = u64::from_le_bytes(take(name, rest)?);
    let room = (rest.len() / entry_len) as u64;
    if count <= room { Ok(count) } else { Err(damaged(name, &format!("its index claims {count} entries"))) }
}

/// The last 16 bytes of a file: where the index frame begins.
#[must_use]
pub fn encode_footer(index_offset: u64) -> [u8; FOOTER_LEN] {
    let mut footer = [0; FOOTER_LEN];
    footer.iter_mut().zip(index_offset.to_le_bytes().iter().chain(FOOTER_MAGIC)).for_each(|(to, from)| *to = *from);
    footer
}

/// Reads a footer; the offset of the index frame.
///
/// # Errors
/// `Verification`.
pub fn decode_footer(name: &str, footer: [u8; FOOTER_LEN]) -> Result<u64> {
    let mut rest = footer.as_slice();
    let offset = u64::from_le_bytes(take(name, &mut rest)?);
    if rest == FOOTER_MAGIC { Ok(offset) } else { Err(damaged(name, "its footer is missing: the file is cut")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_round_trips_and_cannot_claim_more_than_it_holds() {
        let frame = FrameEntry { plain_bytes: 9, stored_bytes: 30, slot_first: 1, slot_last: 2 };
        let slot = SlotEntry { slot: 16383, keys: 1, bytes: 9 };
        let index = Index { plain_sha256: [3; 32], frames: vec![frame, frame], slots: vec![slot] };
        let bytes = index.encode();
        assert_eq!(Index::decode("x", &bytes).unwrap(), index);
        for length in 0..bytes.len() {
            assert!(Index::decode("x", &bytes[..length]).is_err());
        }
        let mut claims = bytes;
        claims[36..44].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Index::decode("x", &claims).is_err());
    }
}
