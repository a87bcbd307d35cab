//! Runs a program and measures it from outside.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::shapes::Shape;

/// How often the memory of a program is looked at. What it held at most since its start is what the system tells,
/// so only growth in its last moment is missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a program took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    pub(crate) seconds: f64,
    pub(crate) peak_mib: f64,
}

/// Runs a program to its end; it must succeed.
pub(crate) fn run(command: &mut Command) -> Result<Taken, Failure> {
    watch(command.stdin(Stdio::null()), |_| Ok(()))
}

/// Runs a program whose standard input is an RDB that is made meanwhile.
pub(crate) fn run_on(command: &mut Command, shape: Shape, size: u64) -> Result<Taken, Failure> {
    watch(command.stdin(Stdio::piped()), |child| {
        let mut input = child.stdin.take().ok_or("the program has no standard input")?;
        shape.write(size, &mut input)?;
        Ok(input.flush()?)
    })
}

fn watch(command: &mut Command, feed: impl FnOnce(&mut Child) -> Result<(), Failure>) -> Result<Taken, Failure> {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let (status, done) = (format!("/proc/{}/status", child.id()), AtomicBool::new(false));
    let (ended, peak_mib) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0.0_f64;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(fs::read_to_string(&status).ok().and_then(|text| high_water_mib(&text)).unwrap_or(0.0));
                thread::sleep(LOOK_EVERY);
            }
            peak
        });
        let ended = feed(&mut child).and_then(|()| Ok(child.wait()?));
        let seconds = started.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        (ended.map(|status| (status, seconds)), watcher.join().unwrap_or(f64::NAN))
    });
    let (status, seconds) = ended?;
    if status.success() { Ok(Taken { seconds, peak_mib }) } else { Err(format!("{command:?}: {status}").into()) }
}

fn high_water_mib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
