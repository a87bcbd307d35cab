//! How fast RDBs are scanned, checked, inspected and split, beside `redis-check-rdb` and memcpy.
//!
//! `cargo bench -p rdbtools` prints the table of `docs/performance.md`. `BENCH_MB` is the size of each
//! shape (1000), `BENCH_RUNS` the runs whose median counts (5), `BENCH_DIR` a folder in memory (/dev/shm).
//! With `BENCH_WRITE=DIR` the shapes are written there and nothing is measured.

#[path = "throughput/shapes.rs"]
mod shapes;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rdbtools::info::InfoSink;
use rdbtools::{ReportSink, Scanner, Sink};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (megabytes, runs) = (number("BENCH_MB", 1000), number("BENCH_RUNS", 5));
    if let Some(dir) = std::env::var_os("BENCH_WRITE") {
        for shape in shapes::ALL {
            fs::write(Path::new(&dir).join(format!("{shape:?}.rdb")), shape.generate(megabytes * 1_000_000))?;
        }
        return Ok(());
    }
    let root = std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let dir = tempfile::tempdir_in(root)?;
    out(&format!("{:<28}{:>14}{:>14}{:>14}", "MB/s of RDB, median", "small", "mixed", "large"))?;
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    for shape in shapes::ALL {
        let file = dir.path().join("shape.rdb");
        fs::write(&file, shape.generate(megabytes * 1_000_000))?;
        let measured = measure(&file, runs)?;
        for (index, (name, rate)) in measured.into_iter().enumerate() {
            match rows.get_mut(index) {
                Some((_, rates)) => rates.push(rate),
                None => rows.push((name, vec![rate])),
            }
        }
        fs::remove_file(&file)?;
    }
    for (name, rates) in rows {
        let rates: String = rates.iter().map(|rate| format!("{rate:>14.0}")).collect();
        out(&format!("{name:<28}{rates}"))?;
    }
    Ok(())
}

/// Rates in MB/s of everything that is measured, on one file.
fn measure(file: &Path, runs: usize) -> Result<Vec<(String, f64)>, Failure> {
    let bytes = fs::read(file)?;
    let mut copy = vec![0; bytes.len()];
    let rate = |seconds: f64| bytes.len() as f64 / 1e6 / seconds;
    let mut measured = Vec::new();
    let mut add = |name: &str, seconds: Result<f64, Failure>| -> Result<(), Failure> {
        measured.push((name.to_owned(), rate(seconds?)));
        Ok(())
    };
    let memcpy = || {
        copy.copy_from_slice(&bytes);
        black_box(copy.last());
        Ok(())
    };
    add("memcpy", median(runs, memcpy))?;
    add("crc alone", median(runs, || crc(&bytes)))?;
    let bare = without_checksum(&bytes);
    add("scanner alone, no crc", median(runs, || scan(&bare, ())))?;
    drop(bare);
    add("scanner alone", median(runs, || scan(&bytes, ())))?;
    add("scanner, report", median(runs, || scan(&bytes, ReportSink::new(false))))?;
    add("scanner, report, slots", median(runs, || scan(&bytes, ReportSink::new(true))))?;
    add("scanner, info", median(runs, || scan(&bytes, InfoSink::new(10, 0))))?;
    add("redis-check-rdb", median(runs, || run(Command::new("redis-check-rdb").arg(file))))?;
    let tool = env!("CARGO_BIN_EXE_rdbtools");
    add("rdbtools verify", median(runs, || run(Command::new(tool).arg("verify").arg(file))))?;
    add("rdbtools info", median(runs, || run(Command::new(tool).arg("info").arg(file))))?;
    let split = || {
        let target = tempfile::tempdir_in(file.parent().unwrap_or(Path::new("/")))?;
        run(Command::new(tool).arg("split").arg(file).args(["--shards", "5", "--out"]).arg(target.path()))
    };
    add("rdbtools split --shards 5", median(runs, split))?;
    Ok(measured)
}

/// The same bytes under a version that has no checksum, so that the scanner computes none.
fn without_checksum(bytes: &[u8]) -> Vec<u8> {
    let body = bytes.get(9..bytes.len() - 8).unwrap_or_default();
    [b"REDIS0004", body].concat()
}

fn crc(bytes: &[u8]) -> Result<(), Failure> {
    let mut crc = rdbtools::crc64::Crc64::new();
    bytes.chunks(128 << 10).for_each(|chunk| crc.update(chunk));
    black_box(crc.value());
    Ok(())
}

fn scan<S: Sink>(bytes: &[u8], sink: S) -> Result<(), Failure> {
    let mut scanner = Scanner::new(sink);
    scanner.feed(bytes)?;
    black_box(scanner.finish()?.0);
    Ok(())
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The median of the seconds that `work` takes.
fn median(runs: usize, mut work: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let started = Instant::now();
        work()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN))
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn out(line: &str) -> Result<(), Failure> {
    println!("{line}");
    Ok(())
}
