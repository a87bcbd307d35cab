//! Retention of a repository: what nothing keeps any more is marked, and goes when it was marked for long enough.

use std::collections::BTreeMap;

use policies::retention::{Cluster, GRACE_MS, SHARE_MAX_PERCENT};

use super::Scheduler;
use crate::catalog::{Code, NewEvent};
use crate::config::Config;
use crate::error::{Class, Result};
use crate::jobs::reach;
use crate::repository::Repository;
use crate::repository::retention::{Line, Question};

/// Judges the snapshots of repository `name` and does what was judged. Of clusters that neither the configuration nor the
/// catalog knows nothing is touched, and of those whose automated snapshots are switched off neither.
pub(super) async fn apply(scheduler: &Scheduler, config: &Config, name: &str, now_ms: u64) -> Result<()> {
    let repository = match reach::repository(config, name).await {
        Ok((repository, _)) => repository,
        Err(error) if error.class() == Class::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let here = config.clusters().filter(|cluster| cluster.repository == name && cluster.automation.on);
    let mut known: BTreeMap<String, Cluster<'_>> =
        here.map(|cluster| (cluster.name.clone(), Cluster::Registered(&cluster.automation.policy))).collect();
    let schedules = scheduler.catalog.schedules().await?;
    let removed = schedules.into_iter().filter(|row| row.removed_ms.is_some());
    known.extend(removed.map(|row| (row.cluster, Cluster::Removed)));
    let question = Question {
        cluster: None,
        known: &known,
        others: Cluster::Unknown,
        grace_ms: GRACE_MS,
        share_max_percent: SHARE_MAX_PERCENT,
    };
    let mut plan = repository.plan_to_apply(question).await?;
    // the audit lines first: no removal is begun without one
    for line in plan.lines.iter().filter(|line| line.verdict == "remove") {
        let why = "retention: nothing keeps it, and the time after its mark is over";
        scheduler.catalog.audit(&scheduler.name, "snapshot.delete", &line.name, why, now_ms).await?;
    }
    repository.carry_out(&mut plan).await?;
    for line in plan.lines.iter().filter(|line| !matches!(line.verdict, "keep" | "wait")) {
        tell(scheduler, &repository, line, now_ms).await?;
    }
    for (cluster, reason) in plan.refused {
        let event = NewEvent::new(Code::RetentionRefused, format!("repository {name}: {reason}")).of(&cluster);
        scheduler.catalog.add_event(&event, now_ms).await?;
        scheduler.telemetry.retention_refused("plan");
    }
    Ok(())
}

/// Writes what became of one snapshot.
async fn tell(scheduler: &Scheduler, repository: &Repository, line: &Line, now_ms: u64) -> Result<()> {
    let (code, what) = match (&line.problem, line.verdict) {
        (Some(problem), "remove") => (Code::DeleteFailed, format!("could not be removed now: {problem}")),
        (Some(problem), verdict) => (Code::RetentionApplied, format!("{verdict}: not now: {problem}")),
        (None, "remove") => {
            scheduler.telemetry.retention_deleted();
            scheduler.catalog.mark_snapshot_removed(repository.id(), &line.snapshot_id, now_ms).await?;
            (Code::SnapshotDeleted, "nothing kept it any more, and it was marked for long enough".to_owned())
        }
        (None, "mark") => {
            let when = line.expires_at.as_deref().unwrap_or_default();
            (Code::RetentionApplied, format!("nothing keeps it any more: it is marked to go at {when}"))
        }
        (None, _) => (Code::RetentionApplied, "something keeps it again: its mark is taken back".to_owned()),
    };
    let mut event = NewEvent::new(code, format!("snapshot {}: {what}", line.name)).of(&line.cluster);
    event.snapshot_name.clone_from(&line.name);
    scheduler.catalog.add_event(&event, now_ms).await
}
