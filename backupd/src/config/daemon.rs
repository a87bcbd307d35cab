//! `[daemon]` and `[hooks.NAME]`: how the daemon runs, and who is told of events.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::file::Text;
use crate::catalog::Limits;
use crate::error::Result;
use crate::secret::Password;

/// The shortest lease: below it a busy machine would lose jobs that it works on.
const LEASE_MIN: Duration = Duration::from_secs(2);

/// How the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Where health and metrics are answered; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// How long a worker holds a job without a word.
    pub lease: Duration,
    /// Jobs of this process at the same time.
    pub jobs: usize,
    /// Jobs of one repository at the same time, over all daemons.
    pub jobs_per_repository: u32,
    /// Jobs whose source is on one host at the same time, over all daemons.
    pub jobs_per_host: u32,
    /// How long a job may take before it is ended as failed; `None` without end.
    pub job_time_max: Option<Duration>,
    /// How long running jobs may go on when the daemon ends.
    pub stop_wait: Duration,
    /// How long events and ended jobs are kept.
    pub events_for: Duration,
}

/// Who is told of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Codes of events, or beginnings of them with `*`; all when empty.
    pub events: Vec<String>,
    /// How it is told.
    pub target: HookTarget,
}

/// How a hook is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookTarget {
    /// By an HTTP POST, signed with a secret.
    Url {
        /// Where.
        url: String,
        /// What it is signed with.
        secret: Password,
    },
    /// By a program and its arguments.
    Command(Vec<String>),
}

impl From<&Daemon> for Limits {
    fn from(daemon: &Daemon) -> Self {
        Self { repository: daemon.jobs_per_repository, host: daemon.jobs_per_host }
    }
}

impl Hook {
    /// Whether it wants to be told of this code.
    #[must_use]
    pub fn wants(&self, code: &str) -> bool {
        let is = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => code.starts_with(beginning),
            None => pattern == code,
        };
        self.events.is_empty() || self.events.iter().any(is)
    }
}

/// `[daemon]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DaemonSection {
    listen: Option<Spanned<String>>,
    lease: Option<Spanned<String>>,
    jobs: Option<Spanned<u32>>,
    jobs_per_repository: Option<Spanned<u32>>,
    jobs_per_host: Option<Spanned<u32>>,
    job_time_max: Option<Spanned<String>>,
    stop_wait: Option<Spanned<String>>,
    events_for: Option<Spanned<String>>,
}

/// `[hooks.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HookSection {
    url: Option<Spanned<String>>,
    secret_file: Option<PathBuf>,
    secret_env: Option<String>,
    command: Option<Vec<String>>,
    #[serde(default)]
    events: Vec<String>,
}

impl DaemonSection {
    /// What it means; keys that are missing are those of `defaults`.
    pub(super) fn read(&self, text: Text<'_>, defaults: Option<&Daemon>) -> Result<Daemon> {
        let duration = |value: &Option<Spanned<String>>, default: Option<Duration>| match value {
            None => Ok(default.unwrap_or_default()),
            Some(value) => policies::duration::parse(value.get_ref())
                .map(Duration::from_millis)
                .map_err(|reason| text.error(value.span().start, &reason)),
        };
        let count = |value: &Option<Spanned<u32>>, default: Option<u32>| match value {
            None => Ok(default.unwrap_or(1)),
            Some(value) if *value.get_ref() == 0 => Err(text.error(value.span().start, "it must be at least 1")),
            Some(value) => Ok(*value.get_ref()),
        };
        let jobs = defaults.and_then(|it| u32::try_from(it.jobs).ok());
        let daemon = Daemon {
            listen: match &self.listen {
                None => defaults.and_then(|it| it.listen),
                Some(listen) => address(text, listen)?,
            },
            lease: duration(&self.lease, defaults.map(|it| it.lease))?,
            jobs: usize::try_from(count(&self.jobs, jobs)?).unwrap_or(1),
            jobs_per_repository: count(&self.jobs_per_repository, defaults.map(|it| it.jobs_per_repository))?,
            jobs_per_host: count(&self.jobs_per_host, defaults.map(|it| it.jobs_per_host))?,
            job_time_max: Some(duration(&self.job_time_max, defaults.and_then(|it| it.job_time_max))?)
                .filter(|time| !time.is_zero()),
            stop_wait: duration(&self.stop_wait, defaults.map(|it| it.stop_wait))?,
            events_for: duration(&self.events_for, defaults.map(|it| it.events_for))?,
        };
        match &self.lease {
            Some(lease) if daemon.lease < LEASE_MIN => Err(text.error(lease.span().start, "a lease is at least 2s")),
            _ => Ok(daemon),
        }
    }
}

/// An empty text is nowhere. An address that other machines reach is refused.
fn address(text: Text<'_>, listen: &Spanned<String>) -> Result<Option<SocketAddr>> {
    let wrong = |reason: &str| text.error(listen.span().start, reason);
    if listen.get_ref().is_empty() {
        return Ok(None);
    }
    let address: SocketAddr =
        listen.get_ref().parse().map_err(|_| wrong("it is no address: write it as 127.0.0.1:8470"))?;
    if !address.ip().is_loopback() {
        return Err(wrong("it can be reached from other machines, and nothing here asks who they are")
            .hint("listen at 127.0.0.1, and put a proxy with authentication before it"));
    }
    Ok(Some(address))
}

impl HookSection {
    pub(super) fn read(&self, text: Text<'_>, folder: &Path, name: &Spanned<String>) -> Result<Hook> {
        let wrong = |reason: &str| Err(text.error(name.span().start, &format!("[hooks.{}] {reason}", name.get_ref())));
        let secret = match (&self.secret_file, &self.secret_env) {
            (Some(_), Some(_)) => return wrong("has both secret_file and secret_env"),
            (Some(path), None) => Some(Password::File(folder.join(path))),
            (None, Some(variable)) => Some(Password::Variable(variable.clone())),
            (None, None) => None,
        };
        let target = match (&self.url, &self.command, secret) {
            (Some(url), None, Some(secret)) => {
                let scheme = url::Url::parse(url.get_ref()).map(|url| url.scheme().to_owned()).unwrap_or_default();
                if !matches!(scheme.as_str(), "http" | "https") {
                    return Err(text.error(url.span().start, "it is no http:// or https:// URL"));
                }
                HookTarget::Url { url: url.get_ref().clone(), secret }
            }
            (Some(_), None, None) => return wrong("has a url and no secret_file: what it gets is signed"),
            (None, Some(command), None) if !command.is_empty() => HookTarget::Command(command.clone()),
            _ => return wrong("needs either url with secret_file, or command"),
        };
        Ok(Hook { name: name.get_ref().clone(), events: self.events.clone(), target })
    }
}
