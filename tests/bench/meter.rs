//! What a process costs: wall time, CPU time and peak memory, read from `/proc` (proc(5)).

use std::ffi::OsStr;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often the peak of the memory is read. It only grows, so no peak before the last look is missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Clock ticks a second in `/proc/PID/stat` (`USER_HZ`, 100 on every Linux that runs these servers).
const TICKS_A_SECOND: f64 = 100.0;

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    /// User and system time of all its threads, and of the processes that it waited for.
    pub(crate) cpu_s: f64,
    /// The most memory that it had resident (`VmHWM`).
    pub(crate) peak_mib: f64,
}

impl Cost {
    /// One figure of all runs, ascending.
    pub(crate) fn sorted(costs: &[Self], figure: impl Fn(&Self) -> f64) -> Vec<f64> {
        let mut figures: Vec<f64> = costs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    /// The median of one figure.
    pub(crate) fn median(costs: &[Self], figure: impl Fn(&Self) -> f64) -> f64 {
        Self::sorted(costs, figure)[costs.len() / 2]
    }
}

/// The median time of so many runs of `work`, in seconds.
pub(crate) fn median_s(runs: usize, work: &mut dyn FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Runs a program to its end and says what it cost and what it printed; it must end with the exit code `wanted`.
pub(crate) fn measure<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S], wanted: i32) -> (Cost, String) {
    let started = Instant::now();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let proc = format!("/proc/{}", child.id());
    let mut peak_kib = 0;
    let cpu_s = loop {
        peak_kib = peak_kib.max(resident_peak_kib(&proc));
        // an ended process keeps its times until somebody waits for it
        let (state, cpu_s) = state_and_cpu(&proc);
        if state == "Z" {
            break cpu_s;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let wall_s = started.elapsed().as_secs_f64();
    let status = child.wait().unwrap();
    assert!(status.code() == Some(wanted), "{command:?}: {status}");
    (Cost { wall_s, cpu_s, peak_mib: peak_kib as f64 / 1024.0 }, reader.join().unwrap().unwrap())
}

fn resident_peak_kib(proc: &str) -> u64 {
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn state_and_cpu(proc: &str) -> (String, f64) {
    let stat = std::fs::read_to_string(format!("{proc}/stat")).unwrap();
    // behind the name, which may hold anything: state is the first field, user and system time the 12th and 13th, those of
    // children the two behind
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11..15].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    (fields[0].to_owned(), ticks / TICKS_A_SECOND)
}
