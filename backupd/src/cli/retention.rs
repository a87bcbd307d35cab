//! `backupd retention …`

use std::collections::BTreeMap;

use clap::Subcommand;
use policies::retention::{Cluster, GRACE_MS, LIMIT_DAYS_MAX, Policy, SHARE_MAX_PERCENT};

use super::ledger::Ledger;
use super::output::{Output, table};
use super::reach::{Context, RepositoryArgs};
use crate::catalog::{Catalog, Location, ScheduleRow};
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::jobs::reach;
use crate::repository::Repository;
use crate::repository::retention::{Plan, Question};
use crate::service::retention::{Placed, Report};

/// Which automated snapshots are kept, with a reason for each, and which go.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what becomes of each snapshot, and why. Nothing is changed.
    Plan(Args),
    /// Mark what nothing keeps any more, and remove what has been marked for long enough.
    Apply(Args),
}

/// Where, and by which rules. Without rules those of the configuration hold.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only of this cluster.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    rules: Rules,
    /// How long a snapshot stays marked before it goes [default: 24h].
    #[arg(long, value_name = "DURATION", value_parser = policies::duration::parse)]
    grace: Option<u64>,
    /// Refuse to mark more than this share of a cluster's automated snapshots at once; three may always go.
    #[arg(long, value_name = "PERCENT", default_value_t = SHARE_MAX_PERCENT, value_parser = clap::value_parser!(u64).range(0..=100))]
    max_share: u64,
}

/// Rules in place of those of the configuration.
#[derive(Debug, clap::Args)]
struct Rules {
    /// Keep what is younger than so many days.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(LIMIT_DAYS_MAX)))]
    keep_days: u32,
    /// Keep so many of the newest.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_last: u32,
    /// Keep the newest of each of so many hours (UTC) that have one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_hourly: u32,
    /// The same with days.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_daily: u32,
    /// The same with weeks, from Monday.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_weekly: u32,
    /// The same with months.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_monthly: u32,
    /// The same with years.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_yearly: u32,
}

impl Rules {
    fn policy(&self) -> Policy {
        Policy {
            limit_days: self.keep_days,
            keep_last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
        }
    }
}

/// Runs a retention command.
///
/// # Errors
/// `Refused` when a plan is refused, `Config` when clocks disagree, and what the store says.
pub async fn run(command: Command, context: &Context, output: Output) -> Result<()> {
    let (args, apply) = match command {
        Command::Plan(args) => (args, false),
        Command::Apply(args) => (args, true),
    };
    let (flags, config) = (args.rules.policy(), context.load()?);
    let mut report = Report { applied: apply, ..Report::default() };
    let mut failed = None;
    for (name, reached) in args.repository.reach_all(context)? {
        let removed = if flags.is_empty() { schedules(reached.catalog.as_ref()).await } else { Vec::new() };
        let (known, others) = known(&config, &removed, name.as_deref(), &flags)?;
        let question = Question {
            cluster: args.cluster.as_deref(),
            known: &known,
            others,
            grace_ms: args.grace.unwrap_or(GRACE_MS),
            share_max_percent: args.max_share,
        };
        let repository = match reached.repository().await {
            // one of the configuration that nothing was ever written to
            Err(error) if error.class() == Class::NotFound && name.is_some() => continue,
            other => other?,
        };
        let plan = if apply {
            let mut plan = repository.plan_to_apply(question).await?;
            let ledger = Ledger::strict(reached.catalog.as_ref()).await?;
            failed = carry_out(&repository, &mut plan, &ledger).await.err();
            plan
        } else {
            repository.plan_retention(question).await?
        };
        report.add(&repository.store().url(), plan);
        if failed.is_some() {
            break;
        }
    }
    output.result(&report, text)?;
    if let Some(error) = failed {
        return Err(error);
    }
    match report.refused.first() {
        None => Ok(()),
        Some(refused) => {
            let what = format!("the retention plan of {} is refused: {}", refused.cluster, refused.reason);
            Err(Error::new(Class::Refused, what)
                .hint("change the rules; --max-share allows more to go at once, and `backupd retention plan` shows what would"))
        }
    }
}

/// What is known of the clusters of one repository: rules of flags hold for all of them, else only those of the configuration are known.
fn known<'a>(
    config: &'a Config,
    schedules: &[ScheduleRow],
    repository: Option<&str>,
    flags: &'a Policy,
) -> Result<(BTreeMap<String, Cluster<'a>>, Cluster<'a>)> {
    if !flags.is_empty() {
        return Ok((BTreeMap::new(), Cluster::Registered(flags)));
    }
    let Some(repository) = repository else {
        return Err(Error::new(Class::Refused, "no rule says what is kept, so everything would expire").hint(
            "give rules such as --keep-last 3 --keep-daily 7, or the name of a repository of the configuration",
        ));
    };
    Ok((reach::retained(config, schedules, repository), Cluster::Unknown))
}

/// What the catalog knows of clusters. Without it none is known to be removed, so that less goes.
async fn schedules(location: Option<&Location>) -> Vec<ScheduleRow> {
    let Some(location) = location else { return Vec::new() };
    let read = async {
        let catalog = Catalog::open(location).await?;
        let rows = catalog.schedules().await?;
        catalog.close().await;
        Ok::<_, Error>(rows)
    };
    read.await.unwrap_or_else(|error| {
        tracing::warn!(error = %error, "which clusters were removed is not known without the catalog");
        Vec::new()
    })
}

/// Does what was judged of each snapshot, with an audit line before each removal.
///
/// # Errors
/// What the store says; what was not reached has a problem then.
async fn carry_out(repository: &Repository, plan: &mut Plan, ledger: &Ledger) -> Result<()> {
    let mut done = Ok(());
    for line in plan.lines.iter_mut().filter(|line| !matches!(line.verdict, "keep" | "wait")) {
        if done.is_err() {
            line.problem = Some("it was not reached".to_owned());
            continue;
        }
        let (name, removes) = (line.name.clone(), line.verdict == "remove");
        done = match removes {
            true => ledger.around("snapshot.delete", &name, "retention", repository.carry_out(line)).await,
            false => repository.carry_out(line).await,
        };
        match &done {
            Err(error) => line.problem = Some(error.message().to_owned()),
            Ok(()) if removes && line.problem.is_none() => ledger.removed(repository.id(), &line.snapshot_id).await,
            Ok(()) => {}
        }
    }
    done
}

fn text(report: &Report) -> String {
    let rows = report.snapshots.iter().map(|Placed { line, .. }| {
        let reasons: Vec<&str> = line.reasons.iter().map(|reason| reason.text.as_str()).collect();
        let why = match (&line.problem, &line.expires_at) {
            (Some(problem), _) => format!("not now: {problem}"),
            (None, Some(expires_at)) => format!("nothing keeps it; goes after {expires_at}"),
            (None, None) => reasons.join(", "),
        };
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            line.cluster.clone(),
            line.name.clone(),
            or_dash(&line.source),
            or_dash(&line.created_at),
            line.verdict.to_owned(),
            why,
        ]
    });
    let count = |verdict: &str| report.snapshots.iter().filter(|placed| placed.line.verdict == verdict).count();
    let refused = report.refused.iter().map(|refused| format!("{}: refused: {}\n", refused.cluster, refused.reason));
    let done = if report.applied { "done" } else { "planned" };
    format!(
        "{}\n\n{}{done}: {} kept, {} marked, {} waiting, {} removed",
        table(&["cluster", "snapshot", "source", "created", "verdict", "why"], rows),
        refused.collect::<String>(),
        count("keep") + count("unmark"),
        count("mark"),
        count("wait"),
        count("remove"),
    )
}
