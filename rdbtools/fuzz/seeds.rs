//! Inputs to begin with: RDBs of our own writer, files of `RDB_CORPUS_DIR` where it is set, compressed strings.

use std::fs;
use std::path::PathBuf;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rdbtools::{RdbVersion, write};

use super::arbitrary::{part, rdb};
use super::mutate::Random;
use super::pack;

/// How many seeds our own writer makes.
const MADE: usize = 64;
/// The largest file of the corpus that is taken.
const FILE_LEN_MAX: u64 = 8 << 10;

/// Whole RDBs.
pub(crate) fn rdbs() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let parts = proptest::collection::vec(part(), 0..10);
    let made = (0..MADE).filter_map(|_| parts.new_tree(&mut runner).ok()).map(|tree| rdb(&tree.current()));
    made.chain([templated()]).chain(corpus()).collect()
}

/// Templates of hashes, and a hash of each encoding that refers to one (Redis 8.10).
fn templated() -> Vec<u8> {
    let version = RdbVersion::redis(15);
    let mut out = version.header();
    write::put_hash_template(&mut out, 5, &[b"b".to_vec(), b"aa".to_vec()]);
    write::put_hash_template(&mut out, 6, &[b"f".to_vec()]);
    out.extend(
        b"\x1e\x01l\x0d\x0d\0\0\0\x03\0\x05\x01\x01\x01\x02\x01\xff\x20\x01h\x05\xc0\x01\xc0\x02\x20\x01g\x06\x01v",
    );
    write::finish(&mut out, version);
    out
}

fn corpus() -> Vec<Vec<u8>> {
    let Some(dir) = std::env::var_os("RDB_CORPUS_DIR").map(PathBuf::from) else { return Vec::new() };
    let entries = ["rdb", "rdb-malformed"].iter().filter_map(|folder| fs::read_dir(dir.join(folder)).ok());
    let mut paths: Vec<PathBuf> = entries.flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "rdb"));
    // the order of a folder is not the same everywhere
    paths.sort();
    paths.retain(|path| fs::metadata(path).is_ok_and(|facts| facts.len() <= FILE_LEN_MAX));
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// Sound packed values, each behind the number of its encoding.
pub(crate) fn packed() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let elements = proptest::collection::vec(pack::element(), 0..12);
    let made = (0..MADE).filter_map(|_| elements.new_tree(&mut runner).ok()).map(|tree| tree.current());
    let encoded = made.enumerate().flat_map(|(index, elements)| {
        let number = i64::try_from(index).unwrap_or(0) << (index % 40);
        let pairs: Vec<_> = (0..index % 5).map(|pair| (vec![b'f'; pair], vec![b'v'; index * 9])).collect();
        [
            [&[0][..], &pack::listpack(&elements)].concat(),
            [&[1][..], &pack::ziplist(&elements)].concat(),
            [&[2][..], &pack::intset(&[-number - 1, number, number + 7])].concat(),
            [&[3][..], &pack::zipmap(&pairs, 2)].concat(),
        ]
    });
    encoded.collect()
}

/// Whole RDBs whose values are packed, and all others.
pub(crate) fn deep() -> Vec<Vec<u8>> {
    let file = |code: u8, value: &[u8]| {
        let version = RdbVersion::redis(12);
        let mut out = version.header();
        out.extend([code, 1, b'k']);
        // the expiry in front of packed fields, how a quicklist's node is kept
        match code {
            25 => out.extend([0; 8]),
            18 => out.extend([1, 2]),
            _ => {}
        }
        write::put_string(&mut out, value);
        write::finish(&mut out, version);
        out
    };
    let of = |kind: u8| match kind {
        0 => &[16u8, 17, 18, 20, 25][..],
        1 => &[10, 12, 13],
        2 => &[11],
        _ => &[9],
    };
    let files = packed().into_iter().flat_map(|seed| {
        let (kind, value) = seed.split_first().map_or((0, &[][..]), |(kind, value)| (*kind, value));
        of(kind).iter().map(|code| file(*code, value)).collect::<Vec<_>>()
    });
    files.chain(rdbs()).collect()
}

/// Sound compressed strings, each behind the length that it unpacks to.
pub(crate) fn compressed() -> Vec<Vec<u8>> {
    let mut random = Random::new(1);
    (0..MADE).map(|_| one_compressed(&mut random)).collect()
}

fn one_compressed(random: &mut Random) -> Vec<u8> {
    let (mut packed, mut produced) = (Vec::new(), 0);
    for _ in 0..1 + random.below(30) {
        let distance = u16::try_from(random.below(produced.clamp(1, 1 << 13))).unwrap_or(0);
        let [high, low] = distance.to_be_bytes();
        match random.below(3) {
            1 if produced > 0 => {
                let length = random.below(6) + 1;
                packed.extend([u8::try_from(length << 5).unwrap_or(0) | high, low]);
                produced += length + 2;
            }
            2 if produced > 0 => {
                let more = random.byte();
                packed.extend([7 << 5 | high, more, low]);
                produced += usize::from(more) + 9;
            }
            _ => {
                let run = random.below(32) + 1;
                packed.extend(u8::try_from(run - 1));
                packed.extend((0..run).map(|_| random.byte()));
                produced += run;
            }
        }
    }
    let declared = u16::try_from(produced).unwrap_or(u16::MAX);
    [&declared.to_le_bytes()[..], &packed].concat()
}
