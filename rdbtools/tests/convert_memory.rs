//! Values of any size pass through a conversion in bounded memory. The only test in its process: all allocations count.

#![expect(clippy::unwrap_used, reason = "tests fail by panic")]

use std::io::{self, Write};

use peak_alloc::PeakAlloc;
use rdbtools::convert::{ConvertOptions, Converter, LossKind, Target};
use rdbtools::write::{put_length, put_string, put_string_head};
use rdbtools::{RdbVersion, StringHead};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Length of one huge value.
const HUGE: u64 = 96 << 20;
/// What a conversion may hold, its buffers included.
const HELD_MAX: usize = 8 << 20;
const FIELDS: u64 = 400_000;

/// Counts what is written.
#[derive(Default)]
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Converts a file of one key whose value is made piece by piece: a beginning, then a piece as often as said.
fn convert(version: RdbVersion, target: Target, code: u8, begin: &[u8], piece: &[u8], times: u64) -> u64 {
    let options = ConvertOptions { drop: LossKind::REFUSED.to_vec(), ..ConvertOptions::new(target) };
    let mut converter = Converter::new(Count::default(), options);
    let mut head = version.header();
    head.push(code);
    put_string(&mut head, b"key");
    converter.feed(&head).unwrap();
    converter.feed(begin).unwrap();
    let many = piece.repeat(100);
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    for _ in 0..times / 100 {
        converter.feed(&many).unwrap();
        converter.take_losses();
    }
    let held = ALLOCATED.peak_usage().saturating_sub(before);
    assert!(held <= HELD_MAX, "{held} bytes for type {code} to {target}");
    // the end, and a checksum that says that there is none
    converter.feed(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let converted = converter.finish().unwrap();
    assert_eq!(converted.keys, 1);
    converted.writer.0
}

#[test]
fn huge_values_pass() {
    let (redis, valkey) = (RdbVersion::redis(12), RdbVersion::valkey(80));
    let block = [b'x'; 1 << 16];
    let blocks = HUGE / block.len() as u64 / 100 * 100;
    let length = blocks * block.len() as u64;

    // one item of a list, as it is and compressed: it becomes a ziplist
    let mut begin = vec![1, 1];
    put_length(&mut begin, length);
    assert!(convert(redis, Target::Redis62, 18, &begin, &block, blocks) > length);
    // "x", then references of 264 bytes to the byte before
    let references = 400_000;
    let mut begin = vec![1, 1];
    let (compressed, unpacked) = (2 + references * 3, 1 + references * 264);
    put_string_head(&mut begin, StringHead::Lzf { compressed, length: unpacked });
    begin.extend([0, b'x']);
    assert!(convert(redis, Target::Redis62, 18, &begin, &[0xe0, 255, 0], references) > unpacked);

    // hashes whose fields expire, in every direction
    let mut field = Vec::new();
    put_length(&mut field, 1);
    [&b"field"[..], &[b'v'; 200]].iter().for_each(|text| put_string(&mut field, text));
    let mut begin = 4_102_444_800_000_u64.to_le_bytes().to_vec();
    put_length(&mut begin, FIELDS);
    for target in [Target::Redis72, Target::Valkey8, Target::Valkey9] {
        assert!(convert(redis, target, 24, &begin, &field, FIELDS) > FIELDS * 200);
    }
    let mut field = Vec::new();
    [&b"field"[..], &[b'v'; 200]].iter().for_each(|text| put_string(&mut field, text));
    field.extend(4_102_444_800_000_u64.to_le_bytes());
    let mut begin = Vec::new();
    put_length(&mut begin, FIELDS);
    for target in [Target::Redis70, Target::Redis80] {
        assert!(convert(valkey, target, 22, &begin, &field, FIELDS) > FIELDS * 200);
    }
}
