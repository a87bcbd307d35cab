//! Inputs to begin with: RDBs of our own writer, files of `RDB_CORPUS_DIR` where it is set, compressed strings.

use std::fs;
use std::path::PathBuf;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::arbitrary::{part, rdb};
use super::mutate::Random;

/// How many seeds our own writer makes.
const MADE: usize = 64;
/// The largest file of the corpus that is taken.
const FILE_LEN_MAX: u64 = 8 << 10;

/// Whole RDBs.
pub(crate) fn rdbs() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let parts = proptest::collection::vec(part(), 0..10);
    let made = (0..MADE).filter_map(|_| parts.new_tree(&mut runner).ok()).map(|tree| rdb(&tree.current()));
    made.chain(corpus()).collect()
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
