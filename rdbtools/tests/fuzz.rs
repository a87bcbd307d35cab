//! The short form of fuzzing: the same mutations every time, and the inputs that once broke a promise.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panic")]

#[path = "support/arbitrary.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod arbitrary;
#[path = "support/events.rs"]
mod events;
#[path = "../fuzz/mutate.rs"]
mod mutate;
#[path = "support/pack.rs"]
mod pack;
#[path = "../fuzz/seeds.rs"]
mod seeds;
#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

use mutate::{Random, mutated};
use peak_alloc::PeakAlloc;
use targets::{TARGETS, named};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs for each target.
const RUNS: usize = 2000;
/// What a target may hold at once, however the input lies about lengths: events and copies of an input of 64 KiB,
/// and buffers, which do not depend on it.
const MEMORY_MAX: usize = 24 << 20;

/// One test, so that what is allocated is the target's alone.
#[test]
fn no_mutation_breaks_a_promise_or_takes_more_memory_than_it_may() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        let mut random = Random::new(42);
        for _ in 0..RUNS {
            let bytes = mutated(&seeds, &mut random);
            let held = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            (target.run)(&bytes);
            let used = MEMORY.peak_usage().saturating_sub(held);
            assert!(used <= MEMORY_MAX, "{}: {used} bytes for an input of {}", target.name, bytes.len());
        }
    }
    // there is no folder while nothing was found
    for folder in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions")).into_iter().flatten() {
        let folder = folder.unwrap();
        let target = named(folder.file_name().to_str().unwrap()).unwrap_or_else(|| panic!("{folder:?}"));
        for file in fs::read_dir(folder.path()).unwrap() {
            (target.run)(&fs::read(file.unwrap().path()).unwrap());
        }
    }
}
