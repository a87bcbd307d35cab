//! Shows the progress of a job while it runs: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use super::output::{Output, bytes};
use crate::progress::{Progress, Row};

/// How often bars move.
const BARS_EVERY: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const LINES_EVERY: Duration = Duration::from_secs(5);

/// Runs `job` and shows `progress` meanwhile.
pub async fn watched<T>(progress: &Arc<Progress>, output: Output, job: impl Future<Output = T>) -> T {
    let (shown, done) = (Arc::clone(progress), CancellationToken::new());
    let seen = done.clone();
    let watcher = if std::io::stderr().is_terminal() && !output.is_json() {
        tokio::spawn(async move { bars(&shown, &seen).await })
    } else {
        tokio::spawn(async move { lines(&shown, output, &seen).await })
    };
    let outcome = job.await;
    done.cancel();
    // the bars are gone from the screen before the result is printed; what became of them changes no result
    let _shown = watcher.await;
    outcome
}

async fn lines(progress: &Progress, output: Output, done: &CancellationToken) {
    let mut last = None;
    let mut begun: Vec<Instant> = Vec::new();
    let mut ticks = tokio::time::interval(LINES_EVERY);
    while ticked(&mut ticks, done).await {
        let (phase, rows) = progress.look();
        let now = Instant::now();
        begun.resize(rows.len().max(begun.len()), now);
        let rows = rows.iter().zip(&begun).map(|(row, begun)| Shown::of(row, now.duration_since(*begun))).collect();
        let look = Look { phase, rows };
        if last.as_ref() != Some(&look) {
            output.progress_of("progress", &look, Look::line);
            last = Some(look);
        }
    }
}

/// What is told of a job, as a line for people or as a JSON document on a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Look {
    phase: String,
    rows: Vec<Shown>,
}

/// One row of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Shown {
    label: String,
    keys: u64,
    bytes: u64,
    total_bytes: Option<u64>,
    /// Since the row appeared.
    bytes_per_second: u64,
    /// By that rate.
    seconds_left: Option<u64>,
}

impl Shown {
    fn of(row: &Row, since: Duration) -> Self {
        let bytes = row.meter.plain_bytes();
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let bytes_per_second = bytes.saturating_mul(1000).checked_div(ms).unwrap_or(0);
        let left = row.total_bytes.map(|total| total.saturating_sub(bytes));
        Self {
            label: row.label.clone(),
            keys: row.meter.keys(),
            bytes,
            total_bytes: row.total_bytes,
            bytes_per_second,
            seconds_left: left.and_then(|left| left.checked_div(bytes_per_second)),
        }
    }

    fn text(&self) -> String {
        let of = self.total_bytes.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
        let rate = match self.bytes_per_second {
            0 => String::new(),
            rate => format!(", {}/s", bytes(rate)),
        };
        let left = self.seconds_left.filter(|left| *left > 0).map(|left| format!(", {left} s left"));
        format!("{}: {}{of}, {} keys{rate}{}", self.label, bytes(self.bytes), self.keys, left.unwrap_or_default())
    }
}

impl Look {
    fn line(&self) -> String {
        std::iter::once(self.phase.clone()).chain(self.rows.iter().map(Shown::text)).collect::<Vec<_>>().join(" | ")
    }
}

/// Waits for the next tick; false when the job is done.
async fn ticked(ticks: &mut Interval, done: &CancellationToken) -> bool {
    tokio::select! {
        _ = ticks.tick() => !done.is_cancelled(),
        () = done.cancelled() => false,
    }
}

async fn bars(progress: &Progress, done: &CancellationToken) {
    let screen = MultiProgress::new();
    let phase = screen.add(ProgressBar::new_spinner());
    let style = "{prefix:30} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";
    let open = "{prefix:30} {spinner} {binary_bytes} {binary_bytes_per_sec} {msg}";
    let mut shown: Vec<ProgressBar> = Vec::new();
    let mut ticks = tokio::time::interval(BARS_EVERY);
    while ticked(&mut ticks, done).await {
        let (text, rows) = progress.look();
        phase.set_message(text);
        phase.tick();
        for (index, row) in rows.iter().enumerate() {
            if shown.len() <= index {
                let bar = ProgressBar::new(row.total_bytes.unwrap_or(0));
                let template = if row.total_bytes.is_some() { style } else { open };
                // the templates are constants; without a style the bar is only plainer
                let bar = match ProgressStyle::with_template(template) {
                    Ok(style) => bar.with_style(style),
                    Err(_) => bar,
                };
                shown.push(screen.add(bar.with_prefix(row.label.clone())));
            }
            if let Some(bar) = shown.get(index) {
                bar.set_position(row.meter.plain_bytes());
                bar.set_message(format!("{} keys", row.meter.keys()));
            }
        }
    }
    if let Err(error) = screen.clear() {
        tracing::debug!(error = %error, "the bars could not be cleared");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pipeline::Meter;

    #[test]
    fn rate_and_time_left_follow_from_what_has_passed() {
        let meter = Arc::new(Meter::default());
        meter.passed(50 << 20, 7);
        let row = Row { label: "shard 0".into(), meter, total_bytes: Some(100 << 20) };
        let shown = Shown::of(&row, Duration::from_secs(5));
        assert_eq!((shown.bytes_per_second, shown.seconds_left), (10 << 20, Some(5)));
        assert_eq!(shown.text(), "shard 0: 50.00 MiB of 100.00 MiB, 7 keys, 10.00 MiB/s, 5 s left");
        let begun = Shown::of(&row, Duration::ZERO);
        assert_eq!((begun.bytes_per_second, begun.seconds_left), (0, None));
    }
}
