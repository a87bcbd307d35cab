//! Shows the progress of a job while it runs: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Interval;
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
    let watcher = if std::io::stderr().is_terminal() {
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
    let mut last = String::new();
    let mut ticks = tokio::time::interval(LINES_EVERY);
    while ticked(&mut ticks, done).await {
        let (phase, rows) = progress.look();
        let line = std::iter::once(phase).chain(rows.iter().map(describe)).collect::<Vec<_>>().join(" | ");
        if line != last {
            output.progress(&line);
            last = line;
        }
    }
}

/// Waits for the next tick; false when the job is done.
async fn ticked(ticks: &mut Interval, done: &CancellationToken) -> bool {
    tokio::select! {
        _ = ticks.tick() => !done.is_cancelled(),
        () = done.cancelled() => false,
    }
}

fn describe(row: &Row) -> String {
    let of = row.total_bytes.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
    format!("{}: {}{of}, {} keys", row.label, bytes(row.meter.plain_bytes()), row.meter.keys())
}

async fn bars(progress: &Progress, done: &CancellationToken) {
    let screen = MultiProgress::new();
    let phase = screen.add(ProgressBar::new_spinner());
    let style = "{prefix:30} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
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
