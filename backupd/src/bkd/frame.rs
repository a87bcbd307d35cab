//! One frame: compress and seal, open and decompress.

use std::borrow::Cow;
use std::io::{self, Write as _};

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};
use sha2::{Digest as _, Sha256};

use super::header::{Compression, HEADER_LEN, Header, ObjectKey, take};
use crate::canonical::damaged;
use crate::error::{Class, Error, Result};

/// Bytes before a frame's payload.
pub const FRAME_HEAD_LEN: usize = 12;
/// Bytes of the tag behind a frame's payload.
pub const TAG_LEN: usize = 16;
/// The most plain bytes of an index frame. A frame has 24 bytes in it, so this is enough for 2 million frames.
pub const INDEX_BYTES_MAX: u32 = 64 << 20;

/// zstd compresses this much at a time.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RDB bytes.
    Data,
    /// The index, which is the last frame.
    Index,
    /// Key filters of data frames before it.
    Filter,
}

/// Filter frames are numbered from here, so that data frames and index have the numbers that they would have without.
pub const FILTER_NUMBERS: u64 = 1 << 63;

/// What stands before a frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes after opening and decompression.
    pub plain_bytes: u32,
    /// Bytes of the payload as stored, without the tag.
    pub stored_bytes: u32,
    /// What it holds.
    pub kind: Kind,
    /// Whether the payload is a zstd frame.
    pub compressed: bool,
}

impl FrameHead {
    /// An empty buffer for what the frame holds; nothing where that needs none.
    #[must_use]
    pub fn room(&self) -> Vec<u8> {
        let plain_len = if self.compressed { usize::try_from(self.plain_bytes).unwrap_or(0) } else { 0 };
        Vec::with_capacity(plain_len)
    }

    fn encode(self) -> [u8; FRAME_HEAD_LEN] {
        let [p0, p1, p2, p3] = self.plain_bytes.to_le_bytes();
        let [s0, s1, s2, s3] = self.stored_bytes.to_le_bytes();
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::Index => 1,
            Kind::Filter => 2,
        };
        [p0, p1, p2, p3, s0, s1, s2, s3, kind, u8::from(self.compressed), 0, 0]
    }

    /// Reads a head and checks its lengths against what a file with this header may hold, so that nothing is
    /// allocated on the word of a damaged file.
    ///
    /// # Errors
    /// `Verification`.
    pub fn decode(name: &str, header: &Header, number: u64, bytes: [u8; FRAME_HEAD_LEN]) -> Result<Self> {
        let fail = |why: &str| damaged(name, &format!("frame {number}: {why}"));
        let mut rest = bytes.as_slice();
        let plain_bytes = u32::from_le_bytes(take(name, &mut rest)?);
        let stored_bytes = u32::from_le_bytes(take(name, &mut rest)?);
        let (kind, compressed) = match take::<4>(name, &mut rest)? {
            [0, compressed @ (0 | 1), 0, 0] => (Kind::Data, compressed == 1),
            [1, compressed @ (0 | 1), 0, 0] => (Kind::Index, compressed == 1),
            [2, compressed @ (0 | 1), 0, 0] => (Kind::Filter, compressed == 1),
            _ => return Err(fail("its kind is not known")),
        };
        let plain_max = if kind == Kind::Index { INDEX_BYTES_MAX } else { header.frame_bytes };
        if plain_bytes == 0 || plain_bytes > plain_max {
            return Err(fail(&format!("a plain length of {plain_bytes} is not possible")));
        }
        let fits = if compressed { stored_bytes < plain_bytes } else { stored_bytes == plain_bytes };
        if !fits || stored_bytes == 0 {
            return Err(fail(&format!("a stored length of {stored_bytes} is not possible")));
        }
        Ok(Self { plain_bytes, stored_bytes, kind, compressed })
    }

    /// Bytes of payload and tag behind the head.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        usize::try_from(self.stored_bytes).unwrap_or(usize::MAX).saturating_add(TAG_LEN)
    }
}

/// What both directions share: the cipher, and what is bound into each tag.
#[derive(Clone)]
struct Binding {
    cipher: Option<Aes256Gcm>,
    header_digest: [u8; 32],
}

impl Binding {
    fn new(header_bytes: &[u8; HEADER_LEN], key: &ObjectKey) -> Self {
        let mut header_digest = [0; 32];
        header_digest.iter_mut().zip(header_bytes.iter().skip(HEADER_LEN - 32)).for_each(|(to, from)| *to = *from);
        let cipher = key.secret.as_ref().map(|secret| Aes256Gcm::new(&Key::<Aes256Gcm>::from(**secret)));
        Self { cipher, header_digest }
    }

    fn nonce(number: u64) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        [0, 0, 0, 0, a, b, c, d, e, f, g, h]
    }

    fn associated(&self, number: u64, head: [u8; FRAME_HEAD_LEN]) -> Vec<u8> {
        [self.header_digest.as_slice(), &number.to_be_bytes(), &head].concat()
    }

    /// Seals `payload` in place; returns the tag.
    fn seal(&self, number: u64, head: [u8; FRAME_HEAD_LEN], payload: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        let associated = self.associated(number, head);
        let Some(cipher) = &self.cipher else { return Ok(plain_tag(&associated, payload)) };
        cipher
            .encrypt_inout_detached(&Nonce::from(Self::nonce(number)), &associated, payload.into())
            .map(Into::into)
            .map_err(|_| Error::new(Class::Unforeseen, format!("frame {number} cannot be sealed")))
    }

    /// Opens `payload` in place; false when the tag does not fit.
    fn open(&self, number: u64, head: [u8; FRAME_HEAD_LEN], payload: &mut [u8], tag: [u8; TAG_LEN]) -> bool {
        let associated = self.associated(number, head);
        match &self.cipher {
            None => plain_tag(&associated, payload) == tag,
            Some(cipher) => cipher
                .decrypt_inout_detached(&Nonce::from(Self::nonce(number)), &associated, payload.into(), &Tag::from(tag))
                .is_ok(),
        }
    }
}

/// The tag of a frame that is not encrypted: the first half of SHA-256 over associated data and payload.
fn plain_tag(associated: &[u8], payload: &[u8]) -> [u8; TAG_LEN] {
    let digest: [u8; 32] = Sha256::new().chain_update(associated).chain_update(payload).finalize().into();
    let mut tag = [0; TAG_LEN];
    tag.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    tag
}

/// Makes frames. Cheap to clone; frames may be made in parallel and in any order.
#[derive(Clone)]
pub struct Sealer {
    binding: Binding,
    compression: Compression,
    level: i32,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({:?} {})", self.compression, self.level)
    }
}

impl Sealer {
    /// For the file of this header. `level` is the zstd level.
    #[must_use]
    pub fn new(header: &Header, header_bytes: &[u8; HEADER_LEN], key: &ObjectKey, level: i32) -> Self {
        Self { binding: Binding::new(header_bytes, key), compression: header.compression, level }
    }

    /// The stored form of frame `number`: head, payload, tag.
    ///
    /// # Errors
    /// Only when `plain` is empty or larger than 4 GiB, or the compressor fails.
    pub fn seal(&self, number: u64, kind: Kind, plain: &[u8]) -> Result<Vec<u8>> {
        let payload = self.compress(plain)?;
        let compressed = matches!(payload, Cow::Owned(_));
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len()).map_err(|_| Error::new(Class::Unforeseen, "a frame of more than 4 GiB"))
        };
        let head = FrameHead { plain_bytes: length(plain)?, stored_bytes: length(&payload)?, kind, compressed };
        let head_bytes = head.encode();
        let mut out = Vec::with_capacity(FRAME_HEAD_LEN + payload.len() + TAG_LEN);
        out.extend_from_slice(&head_bytes);
        out.extend_from_slice(&payload);
        let (_, sealed) = out.split_at_mut(FRAME_HEAD_LEN);
        let tag = self.binding.seal(number, head_bytes, sealed)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Compressed when that makes it smaller, else as it is.
    fn compress<'a>(&self, plain: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        if self.compression == Compression::None {
            return Ok(Cow::Borrowed(plain));
        }
        let packed =
            self.pack(plain).map_err(|error| Error::new(Class::Unforeseen, format!("zstd failed: {error}")))?;
        Ok(if packed.len() < plain.len() { Cow::Owned(packed) } else { Cow::Borrowed(plain) })
    }

    /// As one zstd frame. Between its blocks whoever waits for the core gets it (see `STEP_BYTES` of the pipeline).
    fn pack(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(plain.len()), self.level)?;
        encoder.set_pledged_src_size(u64::try_from(plain.len()).ok())?;
        for block in plain.chunks(ZSTD_BLOCK_BYTES) {
            encoder.write_all(block)?;
            std::thread::yield_now();
        }
        encoder.finish()
    }
}

/// Opens frames. Cheap to clone; frames may be opened in parallel.
#[derive(Clone)]
pub struct Opener {
    binding: Binding,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(…)")
    }
}

impl Opener {
    /// For the file of this header.
    #[must_use]
    pub fn new(header_bytes: &[u8; HEADER_LEN], key: &ObjectKey) -> Self {
        Self { binding: Binding::new(header_bytes, key) }
    }

    /// The plain bytes of frame `number`, whose payload and tag are `body`. What was compressed is put into `room`, which
    /// needs the capacity for it: so it is the caller's thread that allocates, and memory does not grow with the number of
    /// threads that open frames.
    ///
    /// # Errors
    /// `Verification` when the tag does not fit or the payload does not decompress to its stated length.
    pub fn open(
        &self,
        name: &str,
        number: u64,
        head: FrameHead,
        mut body: Vec<u8>,
        mut room: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let fail = |why: &str| damaged(name, &format!("frame {number}: {why}"));
        let payload_len = body.len().checked_sub(TAG_LEN).ok_or_else(|| fail("it is cut"))?;
        let (payload, tag) = body.split_at_mut(payload_len);
        let tag = <[u8; TAG_LEN]>::try_from(&*tag).map_err(|_| fail("it is cut"))?;
        if !self.binding.open(number, head.encode(), payload, tag) {
            return Err(fail("its tag does not fit (changed, moved or from another file)"));
        }
        body.truncate(payload_len);
        let plain_len = usize::try_from(head.plain_bytes).unwrap_or(usize::MAX);
        if !head.compressed {
            return Ok(body);
        }
        room.clear();
        let opened = zstd::bulk::Decompressor::new().and_then(|mut zstd| zstd.decompress_to_buffer(&body, &mut room));
        opened.map_err(|error| fail(&format!("zstd: {error}")))?;
        if room.len() == plain_len { Ok(room) } else { Err(fail("it does not decompress to its stated length")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cipher, FRAME_BYTES};
    use super::*;
    use crate::crypt::DataKey;

    fn parts(cipher: Cipher) -> (Header, Sealer, Opener) {
        let data = DataKey::random().unwrap();
        let header = Header::new(cipher, Compression::Zstd, "s", 0, 1).unwrap();
        let key = header.object_key(Some(&data)).unwrap();
        let bytes = header.encode(&key);
        (header.clone(), Sealer::new(&header, &bytes, &key, 1), Opener::new(&bytes, &key))
    }

    fn read(header: &Header, opener: &Opener, number: u64, stored: &[u8]) -> Result<Vec<u8>> {
        let (head, body) = stored.split_first_chunk().ok_or_else(|| damaged("x", "cut"))?;
        let head = FrameHead::decode("x", header, number, *head)?;
        if body.len() != head.body_bytes() {
            return Err(damaged("x", "cut"));
        }
        opener.open("x", number, head, body.to_vec(), head.room())
    }

    #[test]
    fn frames_round_trip_and_any_flip_move_or_cut_is_noticed() {
        for cipher in [Cipher::None, Cipher::Aes256Gcm] {
            let (header, sealer, opener) = parts(cipher);
            for plain in [b"a".repeat(300), crate::crypt::random::<200>().unwrap().to_vec()] {
                let stored = sealer.seal(5, Kind::Data, &plain).unwrap();
                assert_eq!(read(&header, &opener, 5, &stored).unwrap(), plain);
                assert!(read(&header, &opener, 6, &stored).is_err(), "moved");
                for bit in 0..stored.len() * 8 {
                    let mut changed = stored.clone();
                    changed[bit / 8] ^= 1 << (bit % 8);
                    assert!(read(&header, &opener, 5, &changed).is_err(), "bit {bit}");
                }
                for length in 0..stored.len() {
                    assert!(read(&header, &opener, 5, &stored[..length]).is_err(), "cut to {length}");
                }
            }
        }
    }

    #[test]
    fn a_frame_of_another_file_is_refused() {
        let (_, sealer, _) = parts(Cipher::None);
        let (header, _, opener) = parts(Cipher::None);
        let stored = sealer.seal(0, Kind::Data, b"hello").unwrap();
        assert!(read(&header, &opener, 0, &stored).is_err());
    }

    #[test]
    fn a_head_cannot_ask_for_more_than_the_header_allows() {
        let (header, ..) = parts(Cipher::None);
        let head = FrameHead { plain_bytes: FRAME_BYTES + 1, stored_bytes: 9, kind: Kind::Data, compressed: true };
        assert!(FrameHead::decode("x", &header, 0, head.encode()).is_err());
    }
}
