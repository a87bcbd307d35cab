//! Occurrences of windows: what is due becomes a job, what passed is told.

use std::collections::HashMap;

use policies::job::{Event, Kind, wait};
use policies::window::decide::{NOBODY_RAN, Next, Question, decide};
use policies::window::{Occurrence, Window};

use crate::catalog::{Catalog, Code, Decision, Limits, NewEvent, NewJob, NewSchedule, Outcome, ScheduleRow, Why};
use crate::config::{Cluster, Config};
use crate::error::{Class, Result};
use crate::jobs::{about, submit};

/// How many decisions about one cluster a pass makes.
const ROUNDS_MAX: usize = 20;

/// How many clusters are noted in one transaction: a fleet that is new would wait for the disk as often as it has clusters.
const NOTED_AT_ONCE: usize = 100;

/// Looks at every cluster of the configuration that was not removed.
pub(super) async fn pass(catalog: &Catalog, config: &Config, now_ms: u64) -> Result<()> {
    let mut known: HashMap<String, ScheduleRow> =
        catalog.schedules().await?.into_iter().map(|row| (row.cluster.clone(), row)).collect();
    let mut looked_at = Vec::new();
    let mut noted = Vec::new();
    for cluster in config.clusters() {
        let row = known.get(&cluster.name);
        if row.is_some_and(|row| row.removed_ms.is_some()) {
            continue;
        }
        let window = cluster.automation.window_of(&cluster.name);
        let text = window.as_ref().map(|(window, _)| window.to_string()).unwrap_or_default();
        if row.is_none_or(|row| row.window_text != text || row.repository != cluster.repository) {
            noted.push(new_schedule(cluster, window.as_ref(), text, now_ms));
        }
        looked_at.extend(window.map(|(window, _)| (cluster, window)));
    }
    for some in noted.chunks(NOTED_AT_ONCE) {
        let rows = catalog.put_schedules(some, now_ms).await?;
        known.extend(rows.into_iter().map(|row| (row.cluster.clone(), row)));
    }
    for (cluster, window) in looked_at {
        if let Some(row) = known.remove(&cluster.name).filter(|row| row.removed_ms.is_none()) {
            settle(catalog, config, cluster, &window, row, now_ms).await?;
        }
    }
    Ok(())
}

fn new_schedule<'a>(
    cluster: &'a Cluster,
    window: Option<&(Window, bool)>,
    text: String,
    now_ms: u64,
) -> NewSchedule<'a> {
    let is_chosen = window.is_some_and(|(_, is_chosen)| *is_chosen);
    let how = match (text.as_str(), is_chosen) {
        ("", _) => "without automated backups".to_owned(),
        (text, true) => format!("with the window {text}, which was chosen for it"),
        (text, false) => format!("with the window {text}"),
    };
    let event = NewEvent::new(Code::ClusterRegistered, format!("cluster {} is backed up {how}", cluster.name));
    NewSchedule {
        cluster: &cluster.name,
        repository: &cluster.repository,
        window: text,
        is_chosen,
        expected_interval_s: window.and_then(|(window, _)| window.longest_interval_ms(now_ms)).unwrap_or(0) / 1000,
        event: event.of(&cluster.name),
    }
}

async fn settle(
    catalog: &Catalog,
    config: &Config,
    cluster: &Cluster,
    window: &Window,
    row: ScheduleRow,
    now_ms: u64,
) -> Result<()> {
    let mut settled_ms = row.settled_ms.and_then(|ms| u64::try_from(ms).ok());
    // only a clock that was put back meets what has fired already
    let fired_ms = match settled_ms {
        Some(settled_ms) if settled_ms > now_ms => {
            let since_ms = window.containing(now_ms).map_or(now_ms, |open| open.start_ms);
            catalog.fired_since(&cluster.name, since_ms).await?
        }
        _ => Vec::new(),
    };
    for _ in 0..ROUNDS_MAX {
        let question = Question {
            cluster: &cluster.name,
            window,
            missed: cluster.automation.missed,
            since_ms: row.since_ms,
            settled_ms,
            fired_ms: &fired_ms,
            now_ms,
        };
        let decision = decide(&question);
        for occurrence in &decision.skipped {
            missed(catalog, cluster, *occurrence, now_ms).await?;
            settled_ms = Some(occurrence.start_ms);
        }
        match decision.next {
            Next::Again => {}
            Next::Start { occurrence, caught_up, start_by_ms } => {
                let mut job = submit::job(config, Kind::Backup, &cluster.name, "", now_ms)?;
                job.start_by_ms = start_by_ms;
                return fire(catalog, cluster, occurrence, caught_up, job, now_ms).await;
            }
            Next::Wait { .. } | Next::Never => return Ok(()),
        }
    }
    Ok(())
}

async fn fire(
    catalog: &Catalog,
    cluster: &Cluster,
    occurrence: Occurrence,
    caught_up: bool,
    mut job: NewJob,
    now_ms: u64,
) -> Result<()> {
    let name = automated_name(&cluster.name, occurrence.start_ms);
    job.snapshot_name.clone_from(&name);
    "automated".clone_into(&mut job.source);
    let (outcome, code, reason) = if caught_up {
        (Outcome::CaughtUp, Code::WindowCaughtUp, "the last window was missed, and is made up for")
    } else {
        (Outcome::Fired, Code::WindowFired, "its window is open")
    };
    let message = format!("backup {name} of cluster {}: {reason}", cluster.name);
    let event = NewEvent {
        code,
        cluster: cluster.name.clone(),
        snapshot_name: name.clone(),
        job_id: job.job_id.clone(),
        message,
    };
    let occurrence_ms = occurrence.start_ms;
    let decision = Decision { cluster: &cluster.name, occurrence_ms, outcome, reason, job: Some(&job), event };
    catalog.decide_window(&decision, now_ms).await.map(drop)
}

async fn missed(catalog: &Catalog, cluster: &Cluster, occurrence: Occurrence, now_ms: u64) -> Result<()> {
    let at = crate::catalog::time_text(occurrence.start_ms);
    let message = format!("the window of cluster {} at {at} passed without a backup: {NOBODY_RAN}", cluster.name);
    let decision = Decision {
        cluster: &cluster.name,
        occurrence_ms: occurrence.start_ms,
        outcome: Outcome::Missed,
        reason: NOBODY_RAN,
        job: None,
        event: NewEvent::new(Code::WindowMissed, message).of(&cluster.name),
    };
    catalog.decide_window(&decision, now_ms).await.map(drop)
}

/// `automatic.<cluster>-YYYY-MM-DD-hh-mm`, as ElastiCache names them; the time is the beginning of the window.
fn automated_name(cluster: &str, start_ms: u64) -> String {
    let time = crate::catalog::time_text(start_ms);
    let minute: String = time.chars().take(16).map(|c| if matches!(c, 'T' | ':') { '-' } else { c }).collect();
    let prefix = "automatic.";
    let room = policies::names::NAME_LEN_MAX.saturating_sub(prefix.len() + minute.len() + 1);
    let cluster: String = cluster.chars().take(room).collect();
    format!("{prefix}{cluster}-{minute}")
}

/// Jobs that could not begin in their time, with what they wait for now that it is over.
pub(super) async fn late(catalog: &Catalog, config: &Config, now_ms: u64) -> Result<()> {
    let limits = Limits::from(&config.daemon);
    for row in catalog.late_jobs(now_ms).await? {
        let reason = wait(&catalog.beside_job(&row, limits).await?).to_string();
        let why = Why { class: Class::Busy.code().to_owned(), reason };
        let events = |_: &policies::job::Transition| {
            let message = format!("backup {} could not begin in its window: {}", row.snapshot_name, why.reason);
            vec![about(&row, Code::WindowMissed, message)]
        };
        match catalog.end_job(&row, Event::Late, &why, events, now_ms).await {
            Ok(_) => {}
            // a worker took it after all, or another scheduler said so first
            Err(error) if !error.is_retryable() => tracing::debug!(job = row.job_id, error = %error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automated_snapshots_are_named_as_elasticache_names_them() {
        assert_eq!(automated_name("orders", 1_764_039_600_000), "automatic.orders-2025-11-25-03-00");
        let long = automated_name(&"c".repeat(128), 0);
        assert!(long.len() == policies::names::NAME_LEN_MAX && long.ends_with("-1970-01-01-00-00"), "{long}");
    }
}
