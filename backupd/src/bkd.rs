//! The `.bkd` file: one shard's RDB, in compressed and sealed frames.
//!
//! ```text
//! header (128 bytes) │ frame 0 │ frame 1 │ … │ index frame │ footer (16 bytes)
//! ```
//!
//! `docs/format.md` is the specification to the byte; this module is its only reader and writer.
//! Reordered, repeated, cut, spliced or exchanged frames are noticed, because each frame's tag binds the
//! header, the frame's number and its head; a file without its index frame is not whole.

pub mod filter;
pub mod frame;
pub mod header;
pub mod index;
pub mod parts;

pub use frame::{FILTER_NUMBERS, FRAME_HEAD_LEN, FrameHead, Kind, Opener, Sealer, TAG_LEN};
pub use header::{Cipher, Compression, HEADER_LEN, Header, ObjectKey};
pub use index::{Entries, FOOTER_LEN, FilterEntry, FrameEntry, Index, SlotEntry, Span};

/// Bytes of plain data in a frame, unless the last one: 1 MiB. Small enough that a few in flight cost little
/// memory, large enough that compression and sealing lose nothing to their fixed costs.
pub const FRAME_BYTES: u32 = 1 << 20;

/// The largest frame size that a reader accepts in a header.
pub const FRAME_BYTES_MAX: u32 = 16 << 20;
