//! How fast RDBs are checked, inspected and split, beside `redis-check-rdb` and memcpy, and how much memory it takes.
//!
//! `cargo bench -p rdbtools --bench throughput` prints the tables of `docs/performance.md`. Words behind `--` pick
//! some of it: shapes (`small`, `mixed`, `large`), and parts (`programs`, `library`, `contents`, `memory`). `BENCH_MB` is
//! the size of each shape (1000), `BENCH_GB` that of the long inputs of `memory` (20), `BENCH_RUNS` the runs whose median
//! counts (5), `BENCH_DIR` a folder in memory (/dev/shm). With `BENCH_WRITE=DIR` the shapes are written there and nothing
//! is measured.

#[path = "throughput/child.rs"]
mod child;
#[path = "throughput/shapes.rs"]
mod shapes;

use std::fs::{self, File};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use child::{Taken, run, run_on};
use rdbtools::content::{ContentRules, ContentSink};
use rdbtools::decode::Decoder;
use rdbtools::info::InfoSink;
use rdbtools::{ReportSink, Scanner, Sink};
use shapes::Shape;

pub(crate) type Failure = Box<dyn std::error::Error>;

const TOOL: &str = env!("CARGO_BIN_EXE_rdbtools");

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    // of shapes and of parts, those that are named, or all
    let picked = |names: &[&str], name: &str| {
        let named = |name: &str| words.iter().any(|word| word == name);
        named(name) || !names.iter().any(|name| named(name))
    };
    let shape_names = shapes::ALL.map(Shape::name);
    let shapes = shapes::ALL.into_iter().filter(|shape| picked(&shape_names, shape.name()));
    let parts = ["programs", "library", "contents", "memory"];
    let megabytes = number("BENCH_MB", 1000) * 1_000_000;
    if let Some(dir) = std::env::var_os("BENCH_WRITE") {
        return shapes.into_iter().try_for_each(|shape| {
            let mut file = File::create(Path::new(&dir).join(format!("{}.rdb", shape.name())))?;
            Ok(shape.write(megabytes, &mut file)?)
        });
    }
    let root = std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let dir = tempfile::tempdir_in(root)?;
    for shape in shapes {
        let file = dir.path().join("shape.rdb");
        if ["programs", "library", "contents"].iter().any(|part| picked(&parts, part)) {
            shape.write(megabytes, &mut File::create(&file)?)?;
            out(&format!("\n{}: {megabytes} bytes, medians", shape.name()))?;
        }
        if picked(&parts, "programs") {
            programs(&file)?;
        }
        if picked(&parts, "library") {
            library(&file)?;
        }
        if picked(&parts, "contents") {
            contents(&file)?;
        }
        if picked(&parts, "memory") {
            let size = number("BENCH_GB", 20) * 1_000_000_000;
            memory(&format!("{}, {size} bytes", shape.name()), shape, size)?;
        }
    }
    if picked(&parts, "memory") {
        memory("one value of 4 GiB", Shape::Giant, 4 << 30)?;
    }
    Ok(())
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The programs, on a file in memory.
fn programs(file: &Path) -> Result<(), Failure> {
    let megabytes = fs::metadata(file)?.len() as f64 / 1e6;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let check = median(|| run(Command::new("redis-check-rdb").arg(file)))?;
    let row = |name: &str, bytes: f64, taken: Taken, yardstick: f64, of: &str| {
        let rate = bytes / taken.seconds;
        out(&format!("  {name:<34}{rate:>8.0} MB/s {:>7.2} x {of:<16}{:>6.1} MiB", rate / yardstick, taken.peak_mib))
    };
    let rate = megabytes / check.seconds;
    row("redis-check-rdb", megabytes, check, rate, "redis-check-rdb")?;
    let verify = median(|| run(Command::new(TOOL).arg("verify").arg(file)))?;
    row("rdbtools verify", megabytes, verify, rate, "redis-check-rdb")?;
    let two = median(|| run(Command::new(TOOL).arg("verify").args([file, file])))?;
    row("rdbtools verify, two files", 2.0 * megabytes, two, rate, "redis-check-rdb")?;
    let info = median(|| run(Command::new(TOOL).arg("info").arg(file)))?;
    row("rdbtools info", megabytes, info, megabytes / verify.seconds, "verify")?;
    let split = |files: &[&Path], rules: &[&str]| {
        median(|| {
            let target = tempfile::tempdir_in(folder)?;
            let mut command = Command::new(TOOL);
            command.arg("split").args(files).args(["--shards", "5", "--out"]).arg(target.path());
            run(command.args(rules))
        })
    };
    row("rdbtools split --shards 5", megabytes, split(&[file], &[])?, rate, "redis-check-rdb")?;
    let checked = split(&[file], &["--on-duplicate", "fail"])?;
    row("the same, every key compared first", megabytes, checked, rate, "redis-check-rdb")
}

/// The library on one core, its input in memory.
fn library(file: &Path) -> Result<(), Failure> {
    let bytes = fs::read(file)?;
    // written once, so that no run pays for new pages
    let mut copy = bytes.clone();
    let memcpy = seconds(|| {
        copy.copy_from_slice(&bytes);
        black_box(copy.last());
        Ok(())
    })?;
    drop(copy);
    let row = |name: &str, seconds: f64| {
        let rate = bytes.len() as f64 / 1e6 / seconds;
        out(&format!("  {name:<34}{rate:>8.0} MB/s {:>7.3} x memcpy", memcpy / seconds))
    };
    row("memcpy", memcpy)?;
    row("checksum alone", seconds(|| crc(&bytes))?)?;
    let bare = without_checksum(&bytes);
    row("scanner, no checksum", seconds(|| scan(&bare, || ()))?)?;
    drop(bare);
    row("scanner", seconds(|| scan(&bytes, || ()))?)?;
    row("scanner, counts", seconds(|| scan(&bytes, || ReportSink::new(false)))?)?;
    row("scanner, counts per slot", seconds(|| scan(&bytes, || ReportSink::new(true)))?)?;
    row("scanner, info", seconds(|| scan(&bytes, || InfoSink::new(10, 0)))?)
}

/// What a restore compares, its input in memory: processor time of the one thread, which other work on the machine hardly
/// changes.
fn contents(file: &Path) -> Result<(), Failure> {
    let bytes = fs::read(file)?;
    let scanner = on_processor(|| scan(&bytes, || ()))?;
    let rules = ContentRules::new(0);
    let digest = on_processor(|| scan(&bytes, || Decoder::new(ContentSink::new(rules.clone()))))?;
    let gigabytes = bytes.len() as f64 / 1e9;
    for (name, seconds) in [("scanner, CPU time", scanner), ("digest of contents, CPU time", digest)] {
        let (rate, cost, ratio) = (gigabytes * 1e3 / seconds, seconds / gigabytes, scanner / seconds);
        out(&format!("  {name:<34}{rate:>8.0} MB/s {ratio:>7.3} x scanner {cost:>6.2} s/GB"))?;
    }
    Ok(())
}

/// The median of the seconds that this thread is on a processor for `work` (`/proc/thread-self/schedstat`).
fn on_processor(mut work: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let now = || -> Result<f64, Failure> {
        let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(stat.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
    };
    let taken = median(|| {
        let started = now()?;
        work()?;
        Ok(Taken { seconds: now()? - started, peak_mib: 0.0 })
    })?;
    Ok(taken.seconds)
}

/// Peak memory on long inputs, which come through a pipe while they are made.
fn memory(name: &str, shape: Shape, size: u64) -> Result<(), Failure> {
    out(&format!("\n{name}: through a pipe, once"))?;
    // five shards go to the disk: they are as large as the input
    let disk = tempfile::tempdir()?;
    let shards = disk.path().join("shards");
    let shards = shards.to_string_lossy();
    let commands = [
        &["verify", "-"][..],
        &["verify", "--deep", "-"],
        &["info", "-"],
        &["split", "-", "--shards", "1", "--out", "-"],
        &["split", "-", "--shards", "5", "--out", &shards],
        &["merge", "-", "--out", "-"],
        &["convert", "-", "--to", "redis-6.2", "--out", "-"],
        &["dump", "-", "--format", "json"],
        &["dump", "-", "--format", "resp"],
        &["dump", "-", "--format", "plain"],
    ];
    for args in commands {
        // plain text is refused there: it holds values whole
        if matches!(shape, Shape::Giant) && args.contains(&"plain") {
            continue;
        }
        let taken = run_on(Command::new(TOOL).args(args).stderr(std::process::Stdio::null()), shape, size)?;
        let rate = size as f64 / 1e6 / taken.seconds;
        let shown = args.join(" ").replace(&*shards, "DIR");
        out(&format!("  rdbtools {shown:<42}{rate:>6.0} MB/s{:>8.1} MiB", taken.peak_mib))?;
        if Path::new(&*shards).exists() {
            fs::remove_dir_all(&*shards)?;
        }
    }
    Ok(())
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

fn scan<S: Sink>(bytes: &[u8], sink: impl Fn() -> S) -> Result<(), Failure> {
    let mut scanner = Scanner::new(sink());
    scanner.feed(bytes)?;
    black_box(scanner.finish()?.0);
    Ok(())
}

/// The median of the seconds that `work` takes.
fn seconds(mut work: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let taken = median(|| {
        let started = Instant::now();
        work()?;
        Ok(Taken { seconds: started.elapsed().as_secs_f64(), peak_mib: 0.0 })
    })?;
    Ok(taken.seconds)
}

/// The run with the median time; the most memory of all. A run before them does not count: it pays for memory that
/// the machine, where it is virtual, never gave out before.
fn median(mut work: impl FnMut() -> Result<Taken, Failure>) -> Result<Taken, Failure> {
    work()?;
    let mut runs = (0..number("BENCH_RUNS", 5).max(1)).map(|_| work()).collect::<Result<Vec<_>, _>>()?;
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let peak_mib = runs.iter().map(|taken| taken.peak_mib).fold(0.0, f64::max);
    Ok(Taken { peak_mib, ..runs.get(runs.len() / 2).copied().unwrap_or_default() })
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn out(line: &str) -> Result<(), Failure> {
    println!("{line}");
    Ok(())
}
