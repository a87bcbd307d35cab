//! `[targets.NAME]` and `[exports.NAME]`: where the daemon may restore to and export to when the API asks for it. What is not named
//! here cannot be reached through the API.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::Password;
use super::file::Text;
use crate::error::{Error, Result};
use crate::redis::{SourceUrl, Tls};
use crate::store::{BucketUrl, RepositoryUrl};

/// Where new clusters come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
    /// The ACL user of its nodes.
    pub username: Option<String>,
    /// Where the password of its nodes is; new servers get it.
    pub password: Option<Password>,
    /// How nodes that speak TLS are recognised.
    pub tls: Tls,
}

/// What a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetKind {
    /// Running nodes; those that are empty are taken.
    Nodes(Vec<SourceUrl>),
    /// Servers are started on this machine.
    Launch {
        /// Each new cluster gets a folder in it.
        folder: PathBuf,
        /// The first and the last port.
        ports: (u16, u16),
        /// The server program; found by the engine's name without it.
        engine: Option<PathBuf>,
    },
    /// A program that gets what is wanted as JSON on its standard input and prints addresses.
    Command(Vec<String>),
}

/// Where files may be exported to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// A bucket with a prefix, or a folder.
    pub url: RepositoryUrl,
}

impl TargetKind {
    /// Whether its nodes may speak TLS; what a program returns is not known before.
    #[must_use]
    pub fn may_speak_tls(&self) -> bool {
        match self {
            Self::Nodes(nodes) => nodes.iter().any(|node| node.tls),
            Self::Launch { .. } => false,
            Self::Command(_) => true,
        }
    }
}

impl Export {
    /// Whether it is this bucket, as a whole.
    #[must_use]
    pub fn is_bucket(&self, bucket: &str) -> bool {
        matches!(&self.url, RepositoryUrl::Bucket(url) if url.bucket == bucket && url.prefix.is_empty())
    }

    /// The URL of an object, when it is in this place.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<String> {
        let RepositoryUrl::Bucket(url) = &self.url else { return None };
        let below = if url.prefix.is_empty() { Some(key) } else { key.strip_prefix(&url.prefix)?.strip_prefix('/') };
        below.filter(|below| url.bucket == bucket && !below.is_empty())?;
        Some(RepositoryUrl::Bucket(BucketUrl { prefix: key.to_owned(), ..url.clone() }).to_string())
    }
}

/// `[targets.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetSection {
    nodes: Option<Vec<Spanned<String>>>,
    launch: Option<PathBuf>,
    ports: Option<Spanned<String>>,
    engine: Option<PathBuf>,
    command: Option<Vec<String>>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_server_name: Option<String>,
}

/// `[exports.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportSection {
    url: Spanned<String>,
}

impl TargetSection {
    pub(super) fn read(&self, text: Text<'_>, folder: &Path, name: &Spanned<String>) -> Result<Target> {
        let wrong = |reason: &str| text.error(name.span().start, &format!("[targets.{}] {reason}", name.get_ref()));
        let checked = super::sections::checked_name(text, "target", name)?;
        let kind = match (&self.nodes, &self.launch, &self.command) {
            (Some(nodes), None, None) if !nodes.is_empty() => {
                TargetKind::Nodes(nodes.iter().map(|node| address(text, node)).collect::<Result<_>>()?)
            }
            (None, Some(base), None) => TargetKind::Launch {
                folder: folder.join(base),
                ports: self.ports(text, wrong)?,
                engine: self.engine.as_ref().map(|path| folder.join(path)),
            },
            (None, None, Some(command)) if !command.is_empty() => TargetKind::Command(command.clone()),
            _ => return Err(wrong("needs one of nodes, launch with ports, and command")),
        };
        let password = match (&self.password_file, &self.password_env) {
            (Some(_), Some(_)) => return Err(wrong("has both password_file and password_env")),
            (Some(path), None) => Some(Password::File(folder.join(path))),
            (None, Some(variable)) => Some(Password::Variable(variable.clone())),
            (None, None) => None,
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path));
        let identity = path(&self.tls_cert).zip(path(&self.tls_key));
        let tls = Tls { ca: path(&self.tls_ca), identity, server_name: self.tls_server_name.clone() };
        Ok(Target { name: checked, kind, username: self.username.clone(), password, tls })
    }

    fn ports(&self, text: Text<'_>, wrong: impl Fn(&str) -> Error) -> Result<(u16, u16)> {
        let ports = self.ports.as_ref().ok_or_else(|| wrong("has no ports, such as \"7000-7099\""))?;
        let range = ports.get_ref().split_once('-').and_then(|(first, last)| {
            let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first > 0 && first <= last).then_some((first, last))
        });
        range.ok_or_else(|| text.error(ports.span().start, "it is no range of ports, such as 7000-7099"))
    }
}

/// An address, as `host:port` or a URL without a password.
fn address(text: Text<'_>, node: &Spanned<String>) -> Result<SourceUrl> {
    let at = |reason: &str| text.error(node.span().start, reason);
    let written = node.get_ref();
    let url = if written.contains("://") { written.clone() } else { format!("redis://{written}") };
    let url: SourceUrl = url.parse().map_err(|error: Error| at(error.message()))?;
    if url.password.is_some() {
        return Err(at("a node holds a password").hint("put it into a file and name that as password_file"));
    }
    Ok(url)
}

impl ExportSection {
    pub(super) fn read(&self, text: Text<'_>, name: &Spanned<String>) -> Result<Export> {
        let checked = super::sections::checked_name(text, "export", name)?;
        let url = self.url.get_ref().parse().map_err(|e: Error| text.error(self.url.span().start, e.message()))?;
        Ok(Export { name: checked, url })
    }
}
