//! A stable number from names: the same in every process, on every machine, in every version of this program.

/// A number below `limit` that `parts` alone decide, evenly spread; 0 when `limit` is 0. FNV-1a with 64 bits, finished by the
/// mixer of MurmurHash3 so that texts which differ in one character lie far apart.
pub(super) fn spread(parts: &[&[u8]], limit: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)).checked_rem(limit).unwrap_or(0)
}
