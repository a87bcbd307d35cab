//! `backupd cluster …`

use clap::Subcommand;
use policies::job::State;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ledger::who;
use super::output::{Output, table};
use super::reach::Context;
use crate::catalog::{Catalog, Code, JobFilter, JobRow, NewEvent, time_text};
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::jobs::{said, submit};
use crate::service::clusters::{self, ClusterView};

/// Clusters: those of the configuration, and those that snapshots are known of.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List clusters with their windows and how their last backup ended.
    List,
    /// Show one cluster.
    Show {
        /// Its name.
        name: String,
    },
    /// Take a cluster up again that was removed: its window counts from now on, and what was made of it before stays.
    Register {
        /// Its name, which is in the configuration.
        name: String,
    },
    /// Remove a cluster: nothing is scheduled for it any more, its automated snapshots expire, manual and final ones stay.
    Remove {
        /// Its name.
        name: String,
        /// Take a last snapshot of this name first; the cluster is removed only when that is available and verified.
        #[arg(long, value_name = "NAME")]
        final_snapshot: Option<String>,
        /// Do not wait for the daemon to have done it.
        #[arg(long)]
        no_wait: bool,
    },
}

/// How often it is looked whether the daemon has done it.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// Runs a cluster command.
///
/// # Errors
/// `NotFound`; for a removal also what its job failed of; what the catalog says.
pub async fn run(command: Command, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    let config = context.load()?;
    let catalog = Catalog::open(&config.catalog).await?;
    match command {
        Command::List => {
            let views: Vec<ClusterView> = clusters::all(&config, &catalog).await?.into_values().collect();
            output.result(&json!({"clusters": views}), |_| list_text(&views))
        }
        Command::Show { name } => {
            let view = clusters::one(&config, &catalog, &name).await?;
            let jobs =
                catalog.jobs(&JobFilter { cluster: Some(name), only_open: true, ..JobFilter::default() }).await?;
            let document = json!({"cluster": view, "open_jobs": jobs});
            output.result(&document, |_| show_text(&view, &jobs))
        }
        Command::Register { name } => register(&config, &catalog, &name, output).await,
        Command::Remove { name, final_snapshot, no_wait } => {
            let who = who();
            let id = submit::removal(&catalog, &config, &name, final_snapshot.as_deref(), &who).await?;
            if no_wait {
                return output.result(&json!({"job_id": id, "cluster": name}), |_| format!("job {id} removes {name}"));
            }
            let row = ended(&catalog, &id, &cancel).await?;
            let document =
                json!({"cluster": name, "status": "removed", "final_snapshot": final_snapshot, "job_id": id});
            output.result(&document, |_| format!("cluster {name} is removed ({})", row.reason))
        }
    }
}

async fn register(config: &Config, catalog: &Catalog, name: &str, output: Output) -> Result<()> {
    config.cluster(name)?;
    let now_ms = catalog.now_unix_ms().await?;
    let event = NewEvent::new(Code::ClusterRegistered, format!("cluster {name} is backed up again")).of(name);
    let not_removed = || {
        Error::new(Class::Refused, format!("the cluster {name} was not removed"))
            .hint("what is in the configuration is registered by the next pass of a scheduler")
    };
    if catalog.schedule(name).await?.is_none_or(|row| row.removed_ms.is_none()) {
        return Err(not_removed());
    }
    said::removal(config, catalog, name, None).await?;
    if !catalog.register_again(name, &event, now_ms).await? {
        return Err(not_removed());
    }
    catalog.audit(&who(), "cluster.register", name, "after it was removed", now_ms).await?;
    let document = json!({"cluster": name, "status": "registered"});
    output.result(&document, |_| format!("cluster {name} is registered again"))
}

/// Waits until the daemon has done a job.
///
/// # Errors
/// What it failed of; `Refused` when it was canceled.
pub(super) async fn ended(catalog: &Catalog, id: &str, cancel: &CancellationToken) -> Result<JobRow> {
    loop {
        let row = catalog.job(id).await?;
        match row.state() {
            State::Succeeded => return Ok(row),
            State::Canceled => return Err(Error::new(Class::Refused, format!("job {id}: {}", row.reason))),
            State::Failed => {
                let class = Class::of(&row.class).unwrap_or(Class::Unforeseen);
                return Err(Error::new(class, format!("job {id}: {}", row.reason)).retryable(false));
            }
            State::Queued | State::Running => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = cancel.cancelled() => {
                return Err(Error::new(Class::Unforeseen, format!("interrupted; job {id} goes on"))
                    .hint(format!("`backupd job cancel {id}` ends it")));
            }
        }
    }
}

fn at(ms: Option<i64>) -> String {
    ms.and_then(|ms| u64::try_from(ms).ok()).map(time_text).unwrap_or_default()
}

fn list_text(views: &[ClusterView]) -> String {
    let rows = views.iter().map(|view| {
        let chosen = if view.window_chosen { " (chosen)" } else { "" };
        vec![
            view.name.clone(),
            view.status.to_owned(),
            format!("{}{chosen}", view.window),
            view.repository.clone(),
            at(view.last_success_ms),
            view.last_outcome.clone(),
        ]
    });
    table(&["cluster", "status", "window", "repository", "last success", "last backup"], rows)
}

fn show_text(view: &ClusterView, jobs: &[JobRow]) -> String {
    let line = |label: &str, text: String| format!("{label}: {text}");
    let mut lines = vec![
        format!("cluster {} is {}", view.name, view.status),
        line("repository", view.repository.clone()),
        line("window", view.window.clone()),
        line("engine", format!("{} {} {}", view.engine, view.engine_version, view.mode)),
        line("last success", at(view.last_success_ms)),
        line("last verified", at(view.last_verified_ms)),
        line("last backup", view.last_outcome.clone()),
    ];
    lines.extend(jobs.iter().map(|job| line("job", format!("{} {} is {}", job.job_id, job.kind, job.state))));
    lines.join("\n")
}
