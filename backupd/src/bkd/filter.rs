//! Which keys a data frame may hold: one Bloom filter for each frame, many of them in one filter frame.

use xxhash_rust::xxh3::xxh3_64;

use crate::canonical::damaged;
use crate::error::Result;

use super::header::take;

/// Bits of a filter for each key. With [`PROBES`] of them set a key that is not there is taken for one that may be in
/// eight of a thousand cases.
const BITS_PER_KEY: usize = 10;
/// Bits that are set for each key.
const PROBES: u64 = 7;

/// What a filter knows of a key's name: XXH3 with 64 bits and seed 0.
#[must_use]
pub fn digest(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// The bits of one key in a filter of so many bytes.
fn bits(digest: u64, filter_len: usize) -> impl Iterator<Item = (usize, u8)> {
    let (first, step) = (digest & 0xffff_ffff, digest >> 32);
    let count = (filter_len as u64).saturating_mul(8).max(1);
    (0..PROBES).map(move |probe| {
        // 35 bits at most, so nothing overflows
        let bit = (first + probe * step) % count;
        (usize::try_from(bit / 8).unwrap_or(usize::MAX), 1 << (bit % 8))
    })
}

/// Filters that are collected until they fill a filter frame.
#[derive(Debug, Default)]
pub struct Filters {
    bytes: Vec<u8>,
    frames: u32,
    tells: bool,
}

impl Filters {
    /// Plain bytes of the filter frame so far.
    #[must_use]
    pub fn plain_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a data frame has a filter in it: else it tells nothing.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.tells
    }

    /// Data frames that it has an entry for.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The filter of the next data frame, of at most `bytes_max`, which holds keys of these digests; none at all makes an
    /// entry without a filter.
    pub fn push(&mut self, digests: &[u64], bytes_max: usize) {
        let length = (digests.len() * BITS_PER_KEY).div_ceil(8).min(bytes_max);
        self.frames = self.frames.saturating_add(1);
        self.tells |= length > 0;
        self.bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        let (_, filter) = self.bytes.split_at_mut(start);
        for (byte, bit) in digests.iter().flat_map(|digest| bits(*digest, length)) {
            if let Some(byte) = filter.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    /// The plain bytes of the filter frame.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The filter of one data frame; `None` where there is none, and every key may be there.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a>(Option<&'a [u8]>);

impl Filter<'_> {
    /// Whether the frame may hold a key of this digest. `false` is certain.
    #[must_use]
    pub fn may_hold(&self, digest: u64) -> bool {
        let is_set = |filter: &[u8], (byte, bit): (usize, u8)| filter.get(byte).is_some_and(|byte| byte & bit != 0);
        self.0.is_none_or(|filter| bits(digest, filter.len()).all(|bit| is_set(filter, bit)))
    }
}

/// Takes the plain bytes of a filter frame apart: one filter for each of `frames` data frames.
///
/// # Errors
/// `Verification`.
pub fn decode<'a>(name: &str, bytes: &'a [u8], frames: u32) -> Result<Vec<Filter<'a>>> {
    let mut rest = bytes;
    let mut filters = Vec::new();
    for _ in 0..frames {
        let length = usize::try_from(u32::from_le_bytes(take(name, &mut rest)?)).unwrap_or(usize::MAX);
        let (filter, after) =
            rest.split_at_checked(length).ok_or_else(|| damaged(name, "a key filter in it ends too early"))?;
        filters.push(Filter(Some(filter).filter(|filter| !filter.is_empty())));
        rest = after;
    }
    if rest.is_empty() { Ok(filters) } else { Err(damaged(name, "bytes follow the key filters in it")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(range: std::ops::Range<u32>) -> Vec<u64> {
        range.map(|number| digest(format!("key:{number}").as_bytes())).collect()
    }

    #[test]
    fn a_filter_knows_every_key_of_its_frame_and_few_others() {
        for count in [1, 2, 50, 10_000] {
            let mut filters = Filters::default();
            filters.push(&digests(0..count), usize::MAX);
            filters.push(&[], usize::MAX);
            assert_eq!((filters.frames(), filters.tells()), (2, true));
            let bytes = filters.into_bytes();
            let decoded = decode("x", &bytes, 2).unwrap();
            assert!(digests(0..count).into_iter().all(|key| decoded[0].may_hold(key)), "{count}");
            let wrong = digests(1_000_000..1_100_000).into_iter().filter(|key| decoded[0].may_hold(*key)).count();
            // the stated rate is that of frames with many keys
            let expected = if count == 10_000 { 500..=1000 } else { 0..=6000 };
            assert!(expected.contains(&wrong), "{wrong} of 100000 for {count} keys");
            assert!(digests(0..9).into_iter().all(|key| decoded[1].may_hold(key)), "no filter excludes nothing");
        }
    }

    #[test]
    fn the_bits_are_those_of_the_document() {
        // the key `a` in the filter of one key, which has two bytes
        let mut filters = Filters::default();
        filters.push(&[digest(b"a")], usize::MAX);
        assert_eq!(digest(b"a"), 0xe6c6_32b6_1e96_4e1f);
        assert_eq!(hex::encode(filters.into_bytes()), "02000000aaa8");
    }

    #[test]
    fn filters_cannot_claim_more_than_they_hold() {
        let mut filters = Filters::default();
        filters.push(&digests(0..100), usize::MAX);
        filters.push(&digests(0..3), 2);
        let bytes = filters.into_bytes();
        assert!(decode("x", &bytes, 2).is_ok());
        assert!(decode("x", &bytes, 1).is_err() && decode("x", &bytes, 3).is_err());
        for length in 0..bytes.len() {
            assert!(decode("x", &bytes[..length], 2).is_err(), "{length}");
        }
    }
}
