//! LZF, the compression of strings in RDB files.
//!
//! A control byte below 32 is followed by that many bytes and one more, as they are. Any other control byte
//! is a back reference: its upper three bits are the length (7: one more byte of length follows), its lower
//! five bits and the next byte the distance. So whether a compressed string is sound can be told from its
//! control bytes alone, without unpacking it (format of liblzf, `lzf_d.c`).

mod chain;
mod unpack;

use crate::error::Defect;

use chain::Chain;

pub(crate) use unpack::Unpack;

/// The first control byte of a back reference.
const REFERENCE: u8 = 32;
/// The first control byte of a back reference with one more byte of length.
const LONG: u8 = 7 << 5;

/// What the next byte of a compressed string is.
#[derive(Debug, Clone, Copy, Default)]
enum Next {
    #[default]
    Control,
    Literal(u8),
    MoreLength {
        high: u8,
    },
    Distance {
        high: u8,
        length: u16,
    },
}

/// Walks a compressed string as its bytes arrive and tells whether it is sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    left: u64,
    produced: u64,
    declared: u64,
    next: Next,
}

impl Walk {
    /// A string of `compressed` bytes that declares to unpack to `declared` bytes.
    pub(crate) fn new(compressed: u64, declared: u64) -> Self {
        Self { left: compressed, produced: 0, declared, next: Next::Control }
    }

    /// How many bytes of the string have not passed yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Walks bytes of the string; never more than [`Self::left`] may be given.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<(), Defect> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        let mut rest = bytes;
        if matches!(self.next, Next::Control) {
            rest = self.pass_whole_parts(rest)?;
        }
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match self.next {
                Next::Control if byte < REFERENCE => {
                    let run = usize::from(byte) + 1;
                    self.produced += run as u64;
                    match rest.split_at_checked(run) {
                        Some((_, after)) => rest = after,
                        // the count fits a byte: it is below the run, which is at most 32
                        None => {
                            self.next = Next::Literal(u8::try_from(run - rest.len()).unwrap_or(u8::MAX));
                            rest = &[];
                        }
                    }
                }
                Next::Control if byte >= LONG => self.next = Next::MoreLength { high: byte & 0x1f },
                Next::Control => {
                    self.next = Next::Distance { high: byte & 0x1f, length: u16::from(byte >> 5) + 2 };
                }
                Next::Literal(left) => self.next = if left > 1 { Next::Literal(left - 1) } else { Next::Control },
                Next::MoreLength { high } => self.next = Next::Distance { high, length: u16::from(byte) + 9 },
                Next::Distance { high, length } => self.reference(u16::from_be_bytes([high, byte]), length)?,
            }
        }
        if self.left == 0 { end(self.next, self.produced, self.declared) } else { Ok(()) }
    }

    /// Walks the parts that are whole, all but the last few. Answers with what is left.
    #[inline]
    fn pass_whole_parts<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Defect> {
        let parts = Chain::walk(bytes);
        if !parts.is_sound(self.produced) {
            return Err(before_start());
        }
        self.produced += parts.produced.unsigned_abs();
        Ok(bytes.get(parts.at..).unwrap_or_default())
    }

    fn reference(&mut self, distance: u16, length: u16) -> Result<(), Defect> {
        if u64::from(distance) + 1 > self.produced {
            return Err(before_start());
        }
        self.produced += u64::from(length);
        self.next = Next::Control;
        Ok(())
    }
}

/// Whether a compressed string may end here.
fn end(next: Next, produced: u64, declared: u64) -> Result<(), Defect> {
    if !matches!(next, Next::Control) {
        return Err(Defect::malformed("a compressed string ends inside one of its parts"));
    }
    if produced != declared {
        return Err(Defect::malformed(format!(
            "a compressed string unpacks to {produced} bytes and declares {declared}"
        )));
    }
    Ok(())
}

#[cold]
fn before_start() -> Defect {
    Defect::malformed("a compressed string refers to bytes before its start")
}

/// Appends `length` bytes that stand `distance` before the end, which they may overlap, but not before `start`.
fn copy_back(out: &mut Vec<u8>, distance: usize, length: usize, start: usize) {
    // a walk has shown that every reference lies inside what was produced
    let from = out.len().saturating_sub(distance).max(start);
    if distance >= length && from + length <= out.len() {
        out.extend_from_within(from..from + length);
        return;
    }
    for index in from..from + length {
        let byte = out.get(index).copied().unwrap_or(0);
        out.push(byte);
    }
}

/// Appends the unpacked form of `compressed` to `out`.
///
/// The memory taken is bounded by what the compressed bytes really produce, at most 88 times their number,
/// whatever `declared` says.
///
/// # Errors
/// When the compressed bytes are not sound or do not produce exactly `declared` bytes.
pub(crate) fn unpack(compressed: &[u8], declared: u64, out: &mut Vec<u8>) -> Result<(), Defect> {
    Walk::new(compressed.len() as u64, declared).pass(compressed)?;
    let start = out.len();
    let mut rest = compressed.iter().copied();
    while let Some(control) = rest.next() {
        if control < REFERENCE {
            out.extend(rest.by_ref().take(usize::from(control) + 1));
            continue;
        }
        let more = if control >= LONG { rest.next().unwrap_or(0) } else { 0 };
        let length = usize::from(control >> 5) + usize::from(more) + 2;
        let distance = usize::from(u16::from_be_bytes([control & 0x1f, rest.next().unwrap_or(0)])) + 1;
        copy_back(out, distance, length, start);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packer good enough for tests: literal runs, and references to runs of one byte.
    fn pack(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut rest = plain;
        while let Some(&first) = rest.first() {
            let run = rest.iter().take_while(|&&byte| byte == first).count().min(264);
            if run >= 5 {
                packed.extend([0, first]);
                let length = run - 3;
                if length < 7 {
                    packed.extend([u8::try_from(length << 5).unwrap(), 0]);
                } else {
                    packed.extend([0xe0, u8::try_from(length - 7).unwrap(), 0]);
                }
                rest = &rest[run..];
            } else {
                let run = rest.len().min(7);
                packed.push(u8::try_from(run - 1).unwrap());
                packed.extend(&rest[..run]);
                rest = &rest[run..];
            }
        }
        packed
    }

    /// What a string unpacks to that comes in pieces.
    fn in_pieces(unpacker: &mut Unpack, packed: &[u8], declared: u64, cut: usize) -> Result<Vec<u8>, Defect> {
        let mut plain = Vec::new();
        unpacker.restart(packed.len() as u64, declared);
        for mut piece in packed.chunks(cut) {
            while !piece.is_empty() {
                piece = unpacker.push(piece)?;
                plain.extend_from_slice(unpacker.take());
            }
        }
        assert_eq!(unpacker.left(), 0);
        Ok(plain)
    }

    #[test]
    fn unsound_strings_are_refused() {
        let refused = |bytes: &[u8], declared: u64| unpack(bytes, declared, &mut Vec::new()).is_err();
        assert!(!refused(&[1, b'a', b'b', 0x20, 1], 5));
        assert!(refused(&[1, b'a', b'b', 0x20, 1], 6), "wrong length");
        assert!(refused(&[1, b'a', b'b', 0x20, 2], 5), "reference before the start");
        assert!(refused(&[5, b'a', b'b'], 6), "literal run beyond the end");
        assert!(refused(&[0, b'a', 0xe0], 10), "ends inside a reference");
    }

    proptest! {
        #[test]
        fn what_was_packed_unpacks(runs in proptest::collection::vec((any::<u8>(), 1usize..4000), 1..20), cut in 1usize..9) {
            let plain: Vec<u8> = runs.iter().flat_map(|&(byte, count)| std::iter::repeat_n(byte, count)).collect();
            let packed = pack(&plain);
            let mut out = b"before".to_vec();
            unpack(&packed, plain.len() as u64, &mut out).unwrap();
            prop_assert_eq!(&out[6..], &plain[..]);
            let mut walk = Walk::new(packed.len() as u64, plain.len() as u64);
            for piece in packed.chunks(cut) {
                walk.pass(piece).unwrap();
            }
            prop_assert_eq!(walk.left(), 0);
            let mut unpacker = Unpack::default();
            for cut in [cut, cut + 1] {
                prop_assert_eq!(&in_pieces(&mut unpacker, &packed, plain.len() as u64, cut), &Ok(plain.clone()));
            }
        }

        #[test]
        fn references_of_any_distance_unpack_at_any_cuts(
            parts in proptest::collection::vec((any::<bool>(), any::<[u8; 32]>(), prop_oneof![any::<u16>(), 0u16..20], 3usize..265), 1..400),
            cut in 1usize..3000,
        ) {
            let (mut packed, mut plain) = (vec![1, b'a', b'b'], b"ab".to_vec());
            for (literal, bytes, distance, length) in parts {
                if literal {
                    packed.push(31);
                    packed.extend(bytes);
                    plain.extend(bytes);
                    continue;
                }
                let distance = usize::from(distance % 8192).min(plain.len() - 1);
                let [high, low] = u16::try_from(distance).unwrap().to_be_bytes();
                match u8::try_from(length - 2).unwrap_or(255) {
                    short @ 1..=6 if length < 9 => packed.extend([short << 5 | high, low]),
                    _ => packed.extend([0xe0 | high, u8::try_from(length.max(9) - 9).unwrap(), low]),
                }
                let from = plain.len() - 1 - distance;
                (from..from + length).for_each(|index| plain.push(plain[index]));
            }
            let mut whole = Vec::new();
            unpack(&packed, plain.len() as u64, &mut whole).unwrap();
            let mut unpacker = Unpack::default();
            for cut in [cut, usize::MAX] {
                prop_assert_eq!(&in_pieces(&mut unpacker, &packed, plain.len() as u64, cut), &Ok(plain.clone()));
            }
            prop_assert_eq!(&whole, &plain);
        }

        #[test]
        fn any_bytes_are_walked_as_they_unpack(bytes in proptest::collection::vec(any::<u8>(), 1..200), declared in 0u64..2000) {
            let mut out = Vec::new();
            let whole = unpack(&bytes, declared, &mut out);
            let mut walk = Walk::new(bytes.len() as u64, declared);
            let piecewise = bytes.chunks(1).try_for_each(|byte| walk.pass(byte));
            prop_assert_eq!(&whole, &piecewise);
            for cut in [1, 7, usize::MAX] {
                let pieces = in_pieces(&mut Unpack::default(), &bytes, declared, cut);
                prop_assert_eq!(&pieces, &whole.clone().map(|()| out.clone()));
            }
            prop_assert!(whole.is_err() || out.len() as u64 == declared);
        }
    }
}
