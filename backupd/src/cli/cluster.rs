//! `backupd cluster …`

use std::collections::BTreeMap;

use clap::Subcommand;
use policies::job::State;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ledger::who;
use super::output::{Output, table};
use super::reach::Context;
use crate::catalog::{Catalog, ClusterRow, Code, JobFilter, JobRow, NewEvent, ScheduleRow, time_text};
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::jobs::submit;

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

/// A cluster, from all that is known.
#[derive(Debug, Serialize)]
struct View {
    name: String,
    status: &'static str,
    configured: bool,
    repository: String,
    window: String,
    window_chosen: bool,
    mode: String,
    engine: String,
    engine_version: String,
    expected_interval_s: u64,
    last_success_ms: Option<i64>,
    last_verified_ms: Option<i64>,
    last_outcome: String,
    removed_ms: Option<i64>,
}

/// Runs a cluster command.
///
/// # Errors
/// `NotFound`; for a removal also what its job failed of; what the catalog says.
pub async fn run(command: Command, context: &Context, output: Output, cancel: CancellationToken) -> Result<()> {
    let config = context.load()?;
    let catalog = Catalog::open(&config.catalog).await?;
    match command {
        Command::List => {
            let views: Vec<View> = views(&config, &catalog).await?.into_values().collect();
            output.result(&json!({"clusters": views}), |_| list_text(&views))
        }
        Command::Show { name } => {
            let view = views(&config, &catalog).await?.remove(&name).ok_or_else(|| {
                Error::new(Class::NotFound, format!("there is no cluster `{name}`"))
                    .hint("`backupd cluster list` shows what there is")
            })?;
            let jobs = catalog.jobs(&JobFilter { cluster: Some(name), only_open: true }).await?;
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
    if !catalog.register_again(name, &event, now_ms).await? {
        return Err(Error::new(Class::Refused, format!("the cluster {name} was not removed"))
            .hint("what is in the configuration is registered by the next pass of a scheduler"));
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

async fn views(config: &Config, catalog: &Catalog) -> Result<BTreeMap<String, View>> {
    let seen: BTreeMap<String, ClusterRow> =
        catalog.clusters().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    let schedules: BTreeMap<String, ScheduleRow> =
        catalog.schedules().await?.into_iter().map(|row| (row.cluster.clone(), row)).collect();
    let names = config.clusters().map(|cluster| &cluster.name).chain(seen.keys()).chain(schedules.keys());
    let views = names.map(|name| (name.clone(), view(name, config, seen.get(name), schedules.get(name))));
    Ok(views.collect())
}

fn view(name: &str, config: &Config, seen: Option<&ClusterRow>, schedule: Option<&ScheduleRow>) -> View {
    let configured = config.cluster(name).ok();
    let removed_ms = schedule.and_then(|row| row.removed_ms);
    let status = match (removed_ms, configured) {
        (Some(_), _) => "removed",
        (None, Some(_)) => "registered",
        (None, None) => "unknown",
    };
    let text = |pick: fn(&ClusterRow) -> &String| seen.map(|row| pick(row).clone()).unwrap_or_default();
    View {
        name: name.to_owned(),
        status,
        configured: configured.is_some(),
        repository: configured
            .map(|cluster| cluster.repository.clone())
            .or_else(|| seen.map(|row| row.repository_url.clone()))
            .unwrap_or_default(),
        window: schedule.map(|row| row.window_text.clone()).unwrap_or_default(),
        window_chosen: schedule.is_some_and(|row| row.window_chosen != 0),
        mode: text(|row| &row.mode),
        engine: text(|row| &row.engine),
        engine_version: text(|row| &row.engine_version),
        expected_interval_s: schedule.map_or(0, |row| row.expected_interval_s),
        last_success_ms: schedule.and_then(|row| row.last_success_ms),
        last_verified_ms: schedule.and_then(|row| row.last_verified_ms),
        last_outcome: schedule.map(|row| row.last_outcome.clone()).unwrap_or_default(),
        removed_ms,
    }
}

fn at(ms: Option<i64>) -> String {
    ms.and_then(|ms| u64::try_from(ms).ok()).map(time_text).unwrap_or_default()
}

fn list_text(views: &[View]) -> String {
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

fn show_text(view: &View, jobs: &[JobRow]) -> String {
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
