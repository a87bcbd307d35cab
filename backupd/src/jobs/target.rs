//! Where a restore goes: nodes are taken from a pool, ports are found for new servers, or a program is asked for addresses.
//!
//! What was taken for a job is written down before it is used, so no two jobs take one node, and another attempt finds it again.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::catalog::Catalog;
use crate::config::secret;
use crate::config::target::{Target as Section, TargetKind};
use crate::error::{Class, Error, Result};
use crate::launch::{self, Access};
use crate::nodes::{self, Method};
use crate::redis::{SourceOptions, SourceUrl};
use crate::restore::Target;

/// How long a program may take to give addresses.
const COMMAND_WAIT: Duration = Duration::from_secs(600);

/// The longest answer of a program, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a restore needs.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Primaries.
    pub shards: usize,
    /// Replicas of each.
    pub replicas: usize,
    /// Whether they are in cluster mode; `None`: either will do.
    pub cluster: Option<bool>,
}

/// A target, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The section of the configuration.
    pub section: &'a Section,
    /// How many nodes.
    pub need: Need,
    /// What the new cluster is called.
    pub name: &'a str,
    /// The engine of the snapshot.
    pub engine: &'a str,
}

/// Who takes nodes: a job, in the catalog.
#[derive(Debug, Clone, Copy)]
struct Taker<'a> {
    catalog: &'a Catalog,
    job_id: &'a str,
    now_ms: u64,
}

impl Taker<'_> {
    async fn take(&self, address: &str) -> Result<bool> {
        self.catalog.take_node(address, self.job_id, self.now_ms).await
    }
}

/// Where a restore would go now, for a plan: nothing is taken, and no program is asked.
///
/// # Errors
/// As [`take`].
pub async fn imagine(wanted: Wanted<'_>) -> Result<Target> {
    match &wanted.section.kind {
        TargetKind::Launch { .. } => launch(None, wanted, None).await,
        TargetKind::Nodes(pool) => {
            let seeds = from_pool(None, wanted, pool).await?;
            let options = Box::new(options(wanted.section, seeds)?);
            Ok(Target::Nodes { options, scratch: None, method: Method::Auto })
        }
        // what its nodes will be is not known: the shares of the shards are those of files
        TargetKind::Command(_) => Ok(Target::Out(std::env::temp_dir().join(format!("backupd-plan-{}", wanted.name)))),
    }
}

/// Takes nodes or ports for a job; those that it has taken before, if there are any.
///
/// # Errors
/// `Refused` when there are not enough; `SourceUnavailable` and `SourceAuth` for nodes that cannot be looked at; what the program says.
pub async fn take(catalog: &Catalog, job_id: &str, wanted: Wanted<'_>) -> Result<Target> {
    let before = catalog.nodes_taken(job_id).await?;
    let taker = Taker { catalog, job_id, now_ms: catalog.now_unix_ms().await? };
    if wanted.need.replicas > 0 && !matches!(wanted.section.kind, TargetKind::Launch { .. }) {
        return Err(Error::new(Class::Usage, format!("the target {} gives no replicas", wanted.section.name))
            .hint("replicas are for targets that start servers here; add them to the new cluster afterwards"));
    }
    let seeds = match &wanted.section.kind {
        TargetKind::Launch { .. } => {
            let ports = before.iter().filter_map(|address| address.rsplit(':').next()?.parse().ok()).min();
            return launch(Some(taker), wanted, ports).await;
        }
        _ if !before.is_empty() => before.iter().map(|address| url(wanted.section, address)).collect::<Result<_>>()?,
        TargetKind::Nodes(pool) => from_pool(Some(taker), wanted, pool).await?,
        TargetKind::Command(words) => {
            let mut seeds = Vec::new();
            for address in ask(words, wanted).await? {
                let seed = url(wanted.section, &address)?;
                if !taker.take(&seed.address.to_string()).await? {
                    let what =
                        format!("{address}, which the program of {} gave, is being restored to", wanted.section.name);
                    return Err(Error::new(Class::Busy, what));
                }
                seeds.push(seed);
            }
            seeds
        }
    };
    let options = Box::new(options(wanted.section, seeds)?);
    Ok(Target::Nodes { options, scratch: None, method: Method::Auto })
}

/// A node that was taken before, or that a program named.
fn url(section: &Section, address: &str) -> Result<SourceUrl> {
    let scheme = if section.tls == crate::redis::Tls::default() { "redis" } else { "rediss" };
    if address.contains("://") { address.parse() } else { format!("{scheme}://{address}").parse() }
}

/// How nodes of a target are entered.
///
/// # Errors
/// `Config` when their password cannot be read.
pub(super) fn options(section: &Section, seeds: Vec<SourceUrl>) -> Result<SourceOptions> {
    let mut options = SourceOptions::new(seeds);
    options.username.clone_from(&section.username);
    options.password = secret::read(section.password.as_ref())?;
    options.tls = section.tls.clone();
    Ok(options)
}

async fn from_pool(taker: Option<Taker<'_>>, wanted: Wanted<'_>, pool: &[SourceUrl]) -> Result<Vec<SourceUrl>> {
    let (mut found, mut passed) = (Vec::new(), Vec::new());
    for node in pool {
        if found.len() == wanted.need.shards {
            break;
        }
        let looked = match nodes::look(&options(wanted.section, vec![node.clone()])?).await {
            Ok(looked) => looked,
            Err(error) => Err(error.message().to_owned()),
        };
        let why = match (looked, wanted.need.cluster) {
            (Err(why), _) => why,
            (Ok(true), Some(false)) => "is in cluster mode".to_owned(),
            (Ok(false), Some(true)) => "is not in cluster mode".to_owned(),
            (Ok(_), _) => {
                let is_ours = match taker {
                    Some(taker) => taker.take(&node.address.to_string()).await?,
                    None => true,
                };
                if is_ours {
                    found.push(node.clone());
                    continue;
                }
                "is being restored to".to_owned()
            }
        };
        passed.push(format!("{} {why}", node.address));
    }
    if found.len() < wanted.need.shards {
        let what = format!(
            "the target {} has {} free nodes and {} are needed: {}",
            wanted.section.name,
            found.len(),
            wanted.need.shards,
            if passed.is_empty() { "there are no more".to_owned() } else { passed.join("; ") }
        );
        return Err(Error::new(Class::Refused, what).hint("a free node is empty and belongs to no cluster: add some"));
    }
    Ok(found)
}

async fn launch(taker: Option<Taker<'_>>, wanted: Wanted<'_>, before: Option<u16>) -> Result<Target> {
    let TargetKind::Launch { folder, ports: (first, last), engine } = &wanted.section.kind else {
        return Err(Error::new(Class::Unforeseen, "the target starts no servers"));
    };
    let count = wanted.need.shards.saturating_mul(wanted.need.replicas.saturating_add(1));
    let with_bus = wanted.need.cluster.unwrap_or(wanted.need.shards > 1);
    let span = u16::try_from(count).unwrap_or(u16::MAX);
    let mut start = before;
    let mut candidate = *first;
    while start.is_none() && candidate.checked_add(span).is_some_and(|end| end - 1 <= *last) {
        if launch::are_free(candidate, count, with_bus) {
            let mut taken = 0;
            for port in candidate..candidate + span {
                taken += match taker {
                    Some(taker) => usize::from(taker.take(&format!("127.0.0.1:{port}")).await?),
                    None => 1,
                };
            }
            start = (taken == count).then_some(candidate);
        }
        candidate += 1;
    }
    let port = start.ok_or_else(|| {
        let what =
            format!("the target {} has no {count} free ports in a row from {first} to {last}", wanted.section.name);
        Error::new(Class::Refused, what).hint("stop clusters that are not needed any more, or give it more ports")
    })?;
    let access = Access { password: secret::read(wanted.section.password.as_ref())?, tls: None };
    Ok(Target::Launch {
        dir: folder.join(wanted.name),
        replicas: wanted.need.replicas,
        port: Some(port),
        engine: engine.clone(),
        access,
    })
}

/// Asks a program for addresses: it gets what is wanted as JSON and prints a JSON list of `host:port`.
async fn ask(words: &[String], wanted: Wanted<'_>) -> Result<Vec<String>> {
    let refused =
        |why: String| Error::new(Class::Refused, format!("the program of the target {}: {why}", wanted.section.name));
    let (program, arguments) = words.split_first().ok_or_else(|| refused("it has no name".to_owned()))?;
    let question = json!({
        "name": wanted.name, "shards": wanted.need.shards, "cluster": wanted.need.cluster, "engine": wanted.engine,
    });
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| refused(format!("{program} cannot be started: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // a program that does not read its input may still know what to do
        let _not_read = input.write_all(question.to_string().as_bytes()).await;
    }
    let output = tokio::time::timeout(COMMAND_WAIT, child.wait_with_output())
        .await
        .map_err(|_| refused(format!("{program} gave nothing within {} s", COMMAND_WAIT.as_secs())))?
        .map_err(|error| refused(format!("{program}: {error}")))?;
    if !output.status.success() {
        return Err(refused(format!("{program} ended with {}", output.status)));
    }
    if output.stdout.len() > ANSWER_BYTES_MAX {
        return Err(refused("it printed too much".to_owned()));
    }
    serde_json::from_slice::<Vec<String>>(&output.stdout)
        .map_err(|error| refused(format!("it printed no JSON list of host:port: {error}")))
}
