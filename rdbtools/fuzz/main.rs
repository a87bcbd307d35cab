//! Fuzzes the library: mutates inputs it knows, or takes one from the standard input, as AFL++ gives it.
//!
//! ```text
//! cargo run --release -p rdbtools --example fuzz -- scanner --seconds 1200
//! cargo afl build --release -p rdbtools --example fuzz
//! ```
//!
//! `docs/fuzzing.md` says how the two are run and what they found.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a finding is a panic")]

#[path = "../tests/support/arbitrary.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod arbitrary;
#[path = "../tests/support/events.rs"]
mod events;
mod mutate;
#[path = "../tests/support/pack.rs"]
mod pack;
mod seeds;
mod targets;

use std::io::{self, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::{Random, mutated};
use peak_alloc::PeakAlloc;
use targets::{TARGETS, Target, named};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// After how many executions the clock is looked at.
const LOOK_EVERY: u64 = 64;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str =
    "usage: fuzz TARGET [--seconds N] [--seed N] [--findings DIR] | TARGET --stdin | TARGET --seeds DIR";

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let target = args.first().and_then(|name| named(name)).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("{USAGE}\ntargets: {}", names.join(", "))
    })?;
    let option = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1);
    if args.iter().any(|arg| arg == "--stdin") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes)?;
        (target.run)(&bytes);
        return Ok(());
    }
    if let Some(dir) = option("--seeds") {
        for (index, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(Path::new(dir).join(format!("seed-{index:04}")), seed)?;
        }
        return Ok(());
    }
    let number = |name: &str, default: u64| option(name).map_or(Ok(default), |value| value.parse());
    let limit = Duration::from_secs(number("--seconds", 60)?);
    fuzz(target, limit, number("--seed", 1)?, Path::new(option("--findings").map_or(".", String::as_str)))
}

/// The time that this process spent on a processor, so that a fuzzer of low priority beside other work is not given
/// less to do; where the system does not tell it, the time that passed.
fn spent(since: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanoseconds.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

fn fuzz(target: &Target, limit: Duration, seed: u64, findings: &Path) -> Result<(), Failure> {
    let seeds = (target.seeds)();
    let mut random = Random::new(seed);
    let (mut runs, mut found, mut slowest, mut most) = (0u64, 0u64, Duration::ZERO, 0);
    let started = Instant::now();
    while !runs.is_multiple_of(LOOK_EVERY) || spent(started) < limit {
        let bytes = mutated(&seeds, &mut random);
        let (begun, held) = (Instant::now(), MEMORY.current_usage());
        MEMORY.reset_peak_usage();
        if panic::catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
            found += 1;
            std::fs::write(findings.join(format!("{}-{seed}-{runs}", target.name)), &bytes)?;
        }
        slowest = slowest.max(begun.elapsed());
        most = most.max(MEMORY.peak_usage().saturating_sub(held));
        runs += 1;
    }
    let seconds = spent(started).as_secs();
    writeln!(
        io::stdout(),
        "{}: {runs} executions in {seconds} s of processor time, {found} findings, slowest {slowest:?}, most memory {most} bytes",
        target.name
    )?;
    if found == 0 { Ok(()) } else { Err(format!("inputs of the findings are in {}", findings.display()).into()) }
}
