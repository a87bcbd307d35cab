//! `backupd check …`

use std::fmt::Write as _;

use clap::Args as ClapArgs;
use policies::replica::{PrimaryUse, Wishes};
use serde::Serialize;

use super::note::noted;
use super::output::Output;
use super::reach::{Context, RepositoryArgs, SourceArgs};
use super::snapshot::Primary;
use crate::catalog::Catalog;
use crate::error::{Class, Error, Result};
use crate::repository::probe::{Mode, Probe, probe};
use crate::snapshot::check::{self, Report, Severity};
use crate::snapshot::record;

/// What to check.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// A cluster of the configuration [default: all of them, unless --source is given].
    #[arg(value_name = "CLUSTER", conflicts_with = "source")]
    cluster_name: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Use this node (its id, or host:port) for its shard.
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// When a primary may serve.
    #[arg(long, value_enum)]
    primary: Option<Primary>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Reports {
    ok: bool,
    clusters: Vec<Report>,
    /// Repositories that were named without a cluster.
    repositories: Vec<Probe>,
}

/// Runs a check. The first line of the result is for monitoring; the exit code is that of the first error found.
///
/// # Errors
/// Every class; see [`Class`].
pub async fn run(args: Args, context: &Context, output: Output) -> Result<()> {
    if args.cluster_name.is_none() && !args.source.is_given() && args.repository.is_given() {
        return repository(&args.repository, context, output).await;
    }
    let names: Vec<Option<String>> = match (&args.cluster_name, args.source.is_given()) {
        (Some(name), _) => vec![Some(name.clone())],
        (None, true) => vec![None],
        (None, false) => context.load()?.clusters().map(|cluster| Some(cluster.name.clone())).collect(),
    };
    if names.is_empty() {
        return Err(Error::new(Class::Usage, "there is nothing to check: the configuration has no cluster")
            .hint("name one in a section [clusters.NAME], or give --source URL and --repository URL"));
    }
    let mut clusters = Vec::new();
    for name in names {
        let reached = args.source.reach(context, name.as_deref(), &args.repository)?;
        let primary_use = args.primary.map_or(reached.primary_use, PrimaryUse::from);
        let wishes = Wishes { primary_use, node: args.node.clone(), zone: reached.zone };
        let (store, keys) = (reached.repository.store().await, &reached.repository.keys);
        let cluster = name.unwrap_or_else(|| "default".to_owned());
        let report = Box::pin(check::check(&cluster, &reached.source, &wishes, store, keys)).await;
        // a check does not need the catalog, and must also work where that cannot be written
        let url = reached.repository.url.to_string();
        let note = async |catalog: &Catalog| record::checked(catalog, &url, &report).await;
        noted(reached.catalog.as_ref(), "what the nodes can do", note).await;
        clusters.push(report);
    }
    let reports = Reports { ok: clusters.iter().all(|report| report.ok), clusters, repositories: Vec::new() };
    output.result(&reports, text)?;
    let failed = reports.clusters.iter().flat_map(|report| report.findings.iter().map(move |it| (report, it)));
    match failed.into_iter().find(|(_, finding)| finding.severity == Severity::Error) {
        None => Ok(()),
        Some((report, finding)) => {
            let message = format!("a backup of {} would fail now: {}", report.cluster, finding.message);
            let error = Error::new(finding.of, message);
            Err(match &finding.hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
    }
}

/// Probes a repository alone.
async fn repository(args: &RepositoryArgs, context: &Context, output: Output) -> Result<()> {
    let probe = probe(args.reach(context)?.store().await?).await?;
    let reports = Reports { ok: probe.ok, clusters: Vec::new(), repositories: vec![probe] };
    output.result(&reports, text)?;
    let findings = reports.repositories.iter().flat_map(Probe::findings);
    findings.into_iter().find(|(grave, _)| *grave).map_or(Ok(()), |(_, error)| Err(error))
}

fn probe_text(probe: &Probe) -> String {
    let state = if probe.ok { "ok" } else { "FAILED" };
    let mode = match probe.mode {
        Mode::ReadWrite => "everything works",
        Mode::AppendOnly => "append-only: nothing can be deleted",
        Mode::ReadOnly => "read-only: snapshots can be restored, not made",
        Mode::None => "it cannot be used",
    };
    let there = if probe.repository_id.is_some() { "a repository" } else { "no repository yet" };
    let mut text = format!("{state}: {}: {there}; {mode}", probe.url);
    for (what, permission) in &probe.permissions {
        let said = if permission.allowed { "yes" } else { "no" };
        // writing to a String cannot fail
        let _infallible = write!(text, "\n  {what}: {said}");
    }
    let known = |value: Option<bool>| value.map_or("unknown", |yes| if yes { "yes" } else { "no" });
    for (what, value) in [
        ("conditional writes", known(probe.features.conditional_writes)),
        ("digests of writes", known(Some(probe.features.digests))),
        ("checksums of parts", known(probe.features.checksums)),
        ("versioning", known(probe.features.versioning)),
        ("object lock", known(probe.features.object_lock)),
    ] {
        let _infallible = write!(text, "\n  {what}: {value}");
    }
    for (grave, error) in probe.findings() {
        let kind = if grave { "error" } else { "warning" };
        let hint = error.advice().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let _infallible = write!(text, "\n  {kind}: {}{hint}", error.message());
    }
    text
}

fn text(reports: &Reports) -> String {
    let probes = reports.repositories.iter().map(probe_text);
    let lines = reports.clusters.iter().map(|report| {
        let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        let warnings = report.findings.len() - errors;
        let state = if report.ok { "ok" } else { "FAILED" };
        let nodes: Vec<String> =
            report.shards.iter().map(|shard| format!("{} {}", shard.role, shard.address)).collect();
        let mut text = format!(
            "{state}: {}: {} shards from {}; {errors} errors, {warnings} warnings",
            report.cluster,
            report.shards.len(),
            if nodes.is_empty() { "no node".to_owned() } else { nodes.join(", ") }
        );
        for finding in &report.findings {
            let kind = if finding.severity == Severity::Error { "error" } else { "warning" };
            let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            // writing to a String cannot fail
            let _infallible = write!(text, "\n  {kind}: {}{hint}", finding.message);
        }
        text
    });
    probes.chain(lines).collect::<Vec<_>>().join("\n")
}
