//! `backupd job …`

use clap::Subcommand;
use serde_json::json;

use super::output::{Output, bytes, table};
use super::reach::Context;
use crate::catalog::{Catalog, Code, JobFilter, JobRow, NewEvent, StepRow, time_text};
use crate::error::Result;
use crate::jobs;

/// Jobs of the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List jobs, newest first; at most a thousand.
    List {
        /// Only of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// Only those that have not ended.
        #[arg(long)]
        open: bool,
    },
    /// Show a job and its steps.
    Show {
        /// Its id.
        id: String,
    },
    /// End a job: one that waits at once, one that runs within seconds. What cannot be undone is not begun to be undone.
    Cancel {
        /// Its id.
        id: String,
    },
}

/// Runs a job command.
///
/// # Errors
/// `NotFound`, `Refused` when a job cannot be canceled any more, and what the catalog says.
pub async fn run(command: Command, context: &Context, output: Output) -> Result<()> {
    let catalog = Catalog::open(&context.load()?.catalog).await?;
    match command {
        Command::List { cluster, open } => {
            let rows = catalog.jobs(&JobFilter { cluster, only_open: open, ..JobFilter::default() }).await?;
            output.result(&json!({"jobs": rows}), |_| list_text(&rows))
        }
        Command::Show { id } => {
            let (row, steps) = (catalog.job(&id).await?, catalog.job_steps(&id).await?);
            output.result(&json!({"job": row, "steps": steps}), |_| show_text(&row, &steps))
        }
        Command::Cancel { id } => {
            let row = catalog.job(&id).await?;
            let message = "it was canceled on the command line";
            let event: NewEvent = jobs::about(&row, Code::JobCanceled, message);
            let row = catalog.cancel_job(&id, event, catalog.now_unix_ms().await?).await?;
            output.result(&json!({"job": row}), |_| match row.state().is_final() {
                true => format!("job {id} is canceled"),
                false => format!("job {id} is told to stop; `backupd job show {id}` says when it has"),
            })
        }
    }
}

fn list_text(rows: &[JobRow]) -> String {
    let rows = rows.iter().map(|row| {
        vec![
            row.job_id.clone(),
            row.kind.clone(),
            row.cluster.clone(),
            row.snapshot_name.clone(),
            row.state.clone(),
            row.step.clone(),
            progress(row),
            row.reason.clone(),
        ]
    });
    table(&["job", "kind", "cluster", "snapshot", "state", "step", "progress", "reason"], rows)
}

fn progress(row: &JobRow) -> String {
    match (row.done_bytes, row.total_bytes) {
        (0, _) => String::new(),
        (done, 0) => bytes(done),
        (done, total) => format!("{} of {}", bytes(done), bytes(total)),
    }
}

fn show_text(row: &JobRow, steps: &[StepRow]) -> String {
    let steps = steps.iter().map(|step| {
        vec![
            time_text(step.at_ms),
            step.event.clone(),
            step.state.clone(),
            step.fencing.to_string(),
            step.worker.clone(),
            step.reason.clone(),
        ]
    });
    let table = table(&["at", "event", "state", "number", "worker", "reason"], steps);
    format!("{} {} of {}: {} {}\n{table}", row.kind, row.snapshot_name, row.cluster, row.state, row.reason)
}
