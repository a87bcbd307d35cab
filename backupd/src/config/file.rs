//! The configuration as it is written: every key that there can be, and where each stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policies::replica::{Method, PrimaryUse};
use policies::retention::Policy;
use policies::window::decide::Missed;
use serde::Deserialize;
use toml::Spanned;

use super::api::ApiSection;
use super::daemon::{DaemonSection, HookSection};
use super::target::{ExportSection, TargetSection};
use crate::error::{Class, Error, Result};

/// The defaults, with all keys explained: the reference of the configuration.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) catalog: Catalog,
    #[serde(default)]
    pub(super) capture: Capture,
    #[serde(default)]
    pub(super) daemon: DaemonSection,
    #[serde(default)]
    pub(super) api: ApiSection,
    #[serde(default)]
    pub(super) targets: BTreeMap<Spanned<String>, TargetSection>,
    #[serde(default)]
    pub(super) exports: BTreeMap<Spanned<String>, ExportSection>,
    #[serde(default)]
    pub(super) hooks: BTreeMap<Spanned<String>, HookSection>,
    #[serde(default)]
    pub(super) repositories: BTreeMap<Spanned<String>, Repository>,
    #[serde(default)]
    pub(super) clusters: BTreeMap<Spanned<String>, Cluster>,
    #[serde(default)]
    pub(super) cost: Cost,
}

/// `[catalog]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalog {
    pub(super) path: Option<PathBuf>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<PathBuf>>,
    pub(super) password_env: Option<String>,
}

/// `[capture]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    pub(super) spill_dir: Option<PathBuf>,
    pub(super) spill_max: Option<Spanned<String>>,
    pub(super) spill_wait: Option<Spanned<String>>,
    pub(super) memory_percent_max: Option<u64>,
    pub(super) copied_max: Option<Spanned<String>>,
    pub(super) memory_max: Option<Spanned<String>>,
    pub(super) evictions_max: Option<u64>,
    pub(super) time_max: Option<Spanned<String>>,
    pub(super) per_host_max: Option<usize>,
    pub(super) per_cluster_max: Option<usize>,
    pub(super) source_rate_max: Option<Spanned<String>>,
    pub(super) store_rate_max: Option<Spanned<String>>,
}

/// `[repositories.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Repository {
    pub(super) url: Spanned<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) kms_key: Option<Spanned<String>>,
    pub(super) kms_endpoint: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) no_encryption: bool,
}

/// `[clusters.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) sources: Spanned<Vec<Spanned<String>>>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) password_env: Option<String>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_server_name: Option<String>,
    pub(super) sentinel_master: Option<String>,
    pub(super) repository: Spanned<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) kms_key: Option<Spanned<String>>,
    pub(super) kms_endpoint: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) primary: PrimaryUse,
    pub(super) zone: Option<String>,
    pub(super) window: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) missed: Missed,
    pub(super) snapshot_retention_limit: Option<Spanned<u32>>,
    pub(super) retention: Option<Policy>,
    pub(super) verify: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) method: Method,
    #[serde(default)]
    pub(super) copies: Vec<super::copies::Section>,
    #[serde(default)]
    pub(super) data_dirs: BTreeMap<String, PathBuf>,
    #[serde(default)]
    pub(super) addresses: BTreeMap<String, Spanned<String>>,
}

/// `[cost]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cost {
    pub(super) price_per_gb_month: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) first_snapshot_free: bool,
}

/// A text with the name of its file, for errors that tell the line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Text<'_> {
    /// Reads the text into its keys.
    ///
    /// # Errors
    /// `Config` with line, column and what is wrong there.
    pub(super) fn parse(self) -> Result<File> {
        toml::from_str(self.text).map_err(|e| self.error(e.span().map_or(0, |span| span.start), e.message()))
    }

    /// A `Config` error at a byte offset of the text.
    pub(super) fn error(self, offset: usize, reason: &str) -> Error {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count().saturating_add(1);
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()).saturating_add(1);
        // Some reasons have several lines.
        let reason = reason.trim().replace('\n', " ");
        Error::new(Class::Config, format!("{}:{line}:{column}: {reason}", self.path.display()))
    }
}
