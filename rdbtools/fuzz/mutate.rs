//! Damages inputs: bits, bytes, lengths, runs, and whole entries put together from two files.

use rdbtools::{Key, Scanner, Sink};

/// Bytes that mean something in an RDB: types, opcodes, forms of lengths and strings, marks of modules.
const TELLING: [u8; 36] = [
    0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 25, 26, 0x40, 0x80, 0x81, 0xc0,
    0xc1, 0xc2, 0xc3, 243, 247, 250, 254, 255,
];
/// The most that an input grows to.
const LEN_MAX: usize = 64 << 10;

/// Numbers that are the same for the same seed (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which must not be 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % limit
    }

    pub(crate) fn byte(&mut self) -> u8 {
        (self.next() >> 32).to_le_bytes()[0]
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len().max(1)))
    }
}

/// An input made from one seed or two.
pub(crate) fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(seeds).cloned().unwrap_or_default();
    if random.below(4) == 0
        && let Some(other) = random.pick(seeds)
    {
        bytes = spliced(&bytes, other, random);
    }
    for _ in 0..random.below(6) {
        damage(&mut bytes, random);
    }
    // without a checksum the damage before it must be found by itself
    if random.below(8) > 0
        && let Some(checksum) = bytes.last_chunk_mut::<8>()
    {
        *checksum = [0; 8];
    }
    bytes.truncate(LEN_MAX);
    bytes
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len().max(1));
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match random.below(8) {
        0 => change(bytes, at, |byte| byte ^ 1),
        1 => {
            let bit = 1 << random.below(8);
            change(bytes, at, |byte| byte ^ bit);
        }
        2 => {
            let telling = random.pick(&TELLING).copied().unwrap_or(0);
            change(bytes, at, |_| telling);
        }
        3 => {
            let value = random.byte();
            change(bytes, at, |_| value);
        }
        4 => drop(bytes.drain(at.min(end)..end)),
        5 => {
            let run: Vec<u8> = bytes.iter().skip(at).take(end - at.min(end)).copied().collect();
            bytes.splice(at.min(bytes.len())..at.min(bytes.len()), run);
        }
        6 => {
            let telling = random.pick(&TELLING).copied();
            bytes.splice(at.min(bytes.len())..at.min(bytes.len()), telling);
        }
        _ => {
            // a length that claims what is not there
            let huge = [0x81, random.byte(), 0, 0, random.byte(), 0, 0, 0, random.byte()];
            let long = [0x80, random.byte(), random.byte(), 0, random.byte()];
            let claim: &[u8] = if random.below(2) == 0 { &huge } else { &long };
            bytes.splice(at.min(bytes.len())..end, claim.iter().copied());
        }
    }
}

fn change(bytes: &mut [u8], at: usize, change: impl Fn(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte);
    }
}

/// The start of one file up to one of its entries, then another from one of its entries on.
fn spliced(first: &[u8], second: &[u8], random: &mut Random) -> Vec<u8> {
    let (end, start) = (border(first, random), border(second, random));
    let start = second.get(start..).unwrap_or_default();
    [first.get(..end).unwrap_or_default(), start].concat()
}

fn border(bytes: &[u8], random: &mut Random) -> usize {
    let mut scanner = Scanner::new(Borders(Vec::new()));
    let _ = scanner.feed(bytes);
    let Borders(places) = scanner.into_sink();
    let place = random.pick(&places).copied();
    place.and_then(|place| usize::try_from(place).ok()).unwrap_or_else(|| random.below(bytes.len().max(1)))
}

/// Where entries begin.
struct Borders(Vec<u64>);

impl Sink for Borders {
    fn key(&mut self, key: &Key<'_>) {
        self.0.push(key.offset);
    }
}
