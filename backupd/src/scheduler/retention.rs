//! Retention of a repository: what nothing keeps any more is marked, and goes when it was marked for long enough.

use std::time::Duration;

use policies::retention::{Cluster, GRACE_MS, SHARE_MAX_PERCENT};
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use crate::catalog::{Code, NewEvent};
use crate::config::Config;
use crate::error::Result;
use crate::jobs::reach;
use crate::repository::Repository;
use crate::repository::retention::{Line, Plan, Question};

/// How long the snapshot that is being removed when the daemon ends may take, so that what became of it is told.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Judges the snapshots of repository `name` and does what was judged, until `stop`. Of clusters that neither the configuration
/// nor the catalog knows nothing is touched, and of those whose automated snapshots are switched off neither.
pub(super) async fn apply(scheduler: &Scheduler, config: &Config, name: &str, stop: &CancellationToken) -> Result<()> {
    let planned = tokio::select! {
        planned = plan(scheduler, config, name) => planned?,
        () = stop.cancelled() => return Ok(()),
    };
    let Some((repository, plan)) = planned else { return Ok(()) };
    for (cluster, reason) in plan.refused {
        let event = NewEvent::new(Code::RetentionRefused, format!("repository {name}: {reason}")).of(&cluster);
        scheduler.catalog.add_event(&event, scheduler.catalog.now_unix_ms().await?).await?;
        scheduler.telemetry.retention_refused("plan");
    }
    for mut line in plan.lines.into_iter().filter(|line| !matches!(line.verdict, "keep" | "wait")) {
        if stop.is_cancelled() {
            return Ok(());
        }
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_WAIT).await;
        };
        tokio::select! {
            done = carry_out(scheduler, &repository, &mut line) => done?,
            () = late => return Ok(()),
        }
    }
    Ok(())
}

/// `None` when nothing was ever written to the repository.
async fn plan(scheduler: &Scheduler, config: &Config, name: &str) -> Result<Option<(Repository, Plan)>> {
    let Some((repository, _)) = reach::begun(config, name).await? else { return Ok(None) };
    let schedules = scheduler.catalog.schedules().await?;
    let question = Question {
        cluster: None,
        known: &reach::retained(config, &schedules, name),
        others: Cluster::Unknown,
        grace_ms: GRACE_MS,
        share_max_percent: SHARE_MAX_PERCENT,
    };
    let plan = repository.plan_to_apply(question).await?;
    Ok(Some((repository, plan)))
}

/// Does what was judged of one snapshot, between its audit line and its event: no removal begins without the one, and whatever comes
/// after it, the other tells how it ended.
async fn carry_out(scheduler: &Scheduler, repository: &Repository, line: &mut Line) -> Result<()> {
    let catalog = &scheduler.catalog;
    if line.verdict == "remove" {
        let why = "retention: nothing keeps it, and the time after its mark is over";
        let now_ms = catalog.now_unix_ms().await?;
        catalog.audit(&scheduler.name, "snapshot.delete", &line.name, why, now_ms).await?;
    }
    let done = repository.carry_out(line).await;
    if let Err(error) = &done {
        line.problem = Some(error.message().to_owned());
    }
    tell(scheduler, repository, line).await?;
    done
}

/// Writes what became of one snapshot.
async fn tell(scheduler: &Scheduler, repository: &Repository, line: &Line) -> Result<()> {
    let now_ms = scheduler.catalog.now_unix_ms().await?;
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
