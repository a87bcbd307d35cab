//! The index frame and the footer: where frames are, which slots they hold, and what the whole amounts to.

use serde::{Deserialize, Serialize};

use super::header::take;
use crate::canonical::damaged;
use crate::error::{Class, Error, Result};

/// Bytes of the footer.
pub const FOOTER_LEN: usize = 16;

const FOOTER_MAGIC: &[u8; 8] = b"BKDEND\x00\x01";
/// An index that does not tell where entries begin, or one that does.
const VERSION_PLAIN: u32 = 1;
const VERSION_WITH_ENTRIES: u32 = 2;
const FRAME_ENTRY_LEN: usize = 12;
const SLOT_ENTRY_LEN: usize = 18;
const SPAN_LEN: usize = 12;
const FILTER_ENTRY_LEN: usize = 16;
/// Slot bounds of a frame whose slots are not known.
pub const SLOT_UNKNOWN: u16 = u16::MAX;
/// A place in a frame that there is not.
const NOWHERE: u32 = u32::MAX;

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

/// Where the entries of keys begin and end in a data frame, in bytes from its begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Where the first entry begins that begins here.
    pub first_begin: Option<u32>,
    /// Where the last entry ends that ends here.
    pub last_end: Option<u32>,
    /// The database of the first entry that begins here.
    pub db: u32,
}

/// A filter frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterEntry {
    /// Data frames that stand before it in the file.
    pub after: u64,
    /// Data frames that it has filters for: those that follow the ones of the filter frame before it.
    pub frames: u32,
    /// Stored bytes of the whole frame.
    pub stored_bytes: u32,
}

/// What is needed to read some data frames without the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Where the last entry of a key ends in the RDB.
    pub end: u64,
    /// One for each data frame.
    pub spans: Vec<Span>,
    /// The filter frames in order.
    pub filters: Vec<FilterEntry>,
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
    /// Where entries begin; `None` in files of older programs, and where frames cannot be read alone.
    pub entries: Option<Entries>,
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
        let version = if self.entries.is_some() { VERSION_WITH_ENTRIES } else { VERSION_PLAIN };
        out.extend_from_slice(&version.to_le_bytes());
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
        if let Some(entries) = &self.entries {
            entries.encode(&mut out);
        }
        out
    }

    /// Reads the plain bytes of an index frame.
    ///
    /// # Errors
    /// `Verification`; `Version` when it is newer than this program.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let version = u32::from_le_bytes(take(name, &mut rest)?);
        if !(VERSION_PLAIN..=VERSION_WITH_ENTRIES).contains(&version) {
            return Err(Error::new(Class::Version, format!("{name}: version {version} of its index is not known"))
                .hint("a newer backupd wrote it: use that version"));
        }
        let plain_sha256 = take(name, &mut rest)?;
        let frames = count(name, &mut rest, FRAME_ENTRY_LEN)?;
        let frames = (0..frames).map(|_| Self::frame(name, &mut rest)).collect::<Result<Vec<_>>>()?;
        let slots = count(name, &mut rest, SLOT_ENTRY_LEN)?;
        let slots = (0..slots).map(|_| Self::slot(name, &mut rest)).collect::<Result<_>>()?;
        let entries =
            if version == VERSION_WITH_ENTRIES { Some(Entries::decode(name, &mut rest, frames.len())?) } else { None };
        if rest.is_empty() {
            Ok(Self { plain_sha256, frames, slots, entries })
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

impl Entries {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.end.to_le_bytes());
        for span in &self.spans {
            out.extend_from_slice(&span.first_begin.unwrap_or(NOWHERE).to_le_bytes());
            out.extend_from_slice(&span.last_end.unwrap_or(NOWHERE).to_le_bytes());
            out.extend_from_slice(&span.db.to_le_bytes());
        }
        out.extend_from_slice(&(self.filters.len() as u64).to_le_bytes());
        for filter in &self.filters {
            out.extend_from_slice(&filter.after.to_le_bytes());
            out.extend_from_slice(&filter.frames.to_le_bytes());
            out.extend_from_slice(&filter.stored_bytes.to_le_bytes());
        }
    }

    fn decode(name: &str, rest: &mut &[u8], frames: usize) -> Result<Self> {
        let end = u64::from_le_bytes(take(name, rest)?);
        if rest.len() / SPAN_LEN < frames {
            return Err(damaged(name, "its index ends too early"));
        }
        let place = |bytes| Some(u32::from_le_bytes(bytes)).filter(|place| *place != NOWHERE);
        let mut span = || {
            let (first_begin, last_end) = (place(take(name, rest)?), place(take(name, rest)?));
            Ok(Span { first_begin, last_end, db: u32::from_le_bytes(take(name, rest)?) })
        };
        let spans = (0..frames).map(|_| span()).collect::<Result<_>>()?;
        let filters = count(name, rest, FILTER_ENTRY_LEN)?;
        let mut filter = || {
            Ok(FilterEntry {
                after: u64::from_le_bytes(take(name, rest)?),
                frames: u32::from_le_bytes(take(name, rest)?),
                stored_bytes: u32::from_le_bytes(take(name, rest)?),
            })
        };
        let filters = (0..filters).map(|_| filter()).collect::<Result<_>>()?;
        Ok(Self { end, spans, filters })
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
        let entries = Entries {
            end: 17,
            spans: vec![
                Span { first_begin: Some(3), last_end: None, db: 7 },
                Span { last_end: Some(8), ..Span::default() },
            ],
            filters: vec![FilterEntry { after: 2, frames: 1, stored_bytes: 40 }],
        };
        for entries in [None, Some(entries)] {
            let index = Index { plain_sha256: [3; 32], frames: vec![frame, frame], slots: vec![slot], entries };
            let bytes = index.encode();
            assert_eq!(Index::decode("x", &bytes).unwrap(), index);
            for length in 0..bytes.len() {
                assert!(Index::decode("x", &bytes[..length]).is_err());
            }
            assert!(Index::decode("x", &[&bytes[..], b"more"].concat()).is_err());
            let mut claims = bytes.clone();
            claims[36..44].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(Index::decode("x", &claims).is_err());
            let mut newer = bytes;
            newer[0] = 3;
            assert_eq!(Index::decode("x", &newer).unwrap_err().class(), Class::Version);
        }
    }
}
