//! `backupd.toml`: which clusters there are, which repositories, and where the catalog is.
//!
//! Everything that the commands do also works without it; then it names nothing and the defaults hold.
//! `file` holds the keys as they are written, this module what they mean once every name, URL and path is checked.

pub mod api;
pub mod automation;
mod capture;
pub mod copies;
pub mod daemon;
mod defined;
mod file;
mod sealing;
mod sections;
pub mod target;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use policies::cost::Money;
use policies::replica::{Method, PrimaryUse};

use self::api::Api;
use self::automation::Automation;
pub use self::capture::Capture;
use self::copies::Copies;
pub use self::daemon::{Daemon, Hook, HookTarget};
pub use self::file::DEFAULT_TOML;
use self::file::Text;
pub use self::sealing::Encryption;
use self::sections::{catalog, cluster, price, repository};
use self::target::{Export, Target};
use crate::catalog::Location;
use crate::error::{Class, Error, Result};
use crate::redis::{SourceUrl, Tls};
pub use crate::secret::{self, Password};
use crate::store::RepositoryUrl;

/// Where it is looked for when neither flag nor variable names it, in this order.
pub const SEARCHED: [&str; 2] = ["./backupd.toml", "/etc/backupd/backupd.toml"];

/// The variable that names it when the flag does not.
pub const VARIABLE: &str = "BACKUPD_CONFIG";

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from; `None` when there is none and the defaults hold.
    pub file: Option<PathBuf>,
    /// Where the catalog is.
    pub catalog: Location,
    /// What captures may cost.
    pub capture: Capture,
    /// How the daemon runs.
    pub daemon: Daemon,
    /// Where the API is served, and who may use it.
    pub api: Api,
    /// Who is told of events.
    pub hooks: Vec<Hook>,
    targets: BTreeMap<String, Target>,
    exports: BTreeMap<String, Export>,
    repositories: BTreeMap<String, Repository>,
    clusters: BTreeMap<String, Cluster>,
    /// Tags of clusters that were made through the API and have no nodes yet.
    tags_to_come: BTreeMap<String, BTreeMap<String, String>>,
    /// What a gigabyte costs that is stored for a month.
    pub price_per_gb_month: Option<Money>,
    /// Whether the oldest snapshot of each cluster costs nothing.
    pub first_snapshot_free: bool,
}

/// `[repositories.NAME]`
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub url: RepositoryUrl,
    /// How its snapshots are encrypted.
    pub encryption: Encryption,
}

/// `[clusters.NAME]`
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Where to begin; at least one, none with a password.
    pub sources: Vec<SourceUrl>,
    /// The ACL user.
    pub username: Option<String>,
    /// Where the password is.
    pub password: Option<Password>,
    /// How servers that speak TLS are recognised, and how we are.
    pub tls: Tls,
    /// The primary to take from a Sentinel that watches several.
    pub sentinel_master: Option<String>,
    /// The name of the repository for its snapshots, which exists.
    pub repository: String,
    /// How its snapshots there are encrypted, when otherwise than the repository says.
    pub encryption: Option<Encryption>,
    /// What its snapshots are tagged with.
    pub tags: BTreeMap<String, String>,
    /// When a primary may serve a capture.
    pub primary_use: PrimaryUse,
    /// The zone whose nodes come first among those that are level.
    pub zone: Option<String>,
    /// How its shards are read.
    pub method: Method,
    /// Its automated backups.
    pub automation: Automation,
    /// Where its snapshots are copied to.
    pub copies: Vec<Copies>,
    /// Where the RDB files of its nodes are to be read from here, by the id or `host:port` of the node.
    pub data_dirs: BTreeMap<String, PathBuf>,
    /// Where nodes are reached that announce another address: from the announced `host:port` or `host` to the other.
    pub addresses: BTreeMap<String, String>,
}

impl Config {
    /// Reads the configuration of this process: the file of the flag `--config`, else of `$BACKUPD_CONFIG`, else the first of
    /// [`SEARCHED`] that is there, else the defaults.
    ///
    /// # Errors
    /// `Config`: a file that was named or is there cannot be read, or something in it is wrong (with its line).
    pub fn load(flag: Option<&Path>) -> Result<Self> {
        Self::load_from(flag, std::env::var_os(VARIABLE).as_deref(), &SEARCHED.map(Path::new))
    }

    fn load_from(flag: Option<&Path>, variable: Option<&OsStr>, searched: &[&Path]) -> Result<Self> {
        let variable = variable.filter(|value| !value.is_empty()).map(Path::new);
        if let Some((path, by)) = flag.map(|path| (path, "--config")).or(variable.map(|path| (path, VARIABLE))) {
            let absent = || unreadable(path, &format!("it does not exist, and {by} names it"));
            return Self::parse(path, &read(path)?.ok_or_else(absent)?);
        }
        for path in searched {
            if let Some(text) = read(path)? {
                return Self::parse(path, &text);
            }
        }
        Self::defaults()
    }

    /// What holds without a file.
    fn defaults() -> Result<Self> {
        let folder = Path::new("/");
        let text = Text { path: Path::new("default.toml"), text: DEFAULT_TOML };
        let file = text.parse()?;
        Ok(Self {
            file: None,
            catalog: folder.join(file.catalog.path.unwrap_or_default()).into(),
            capture: Capture::default().with(text, folder, &file.capture)?,
            daemon: file.daemon.read(text, None)?,
            api: file.api.read(text, folder, None)?,
            hooks: Vec::new(),
            targets: BTreeMap::new(),
            exports: BTreeMap::new(),
            repositories: BTreeMap::new(),
            clusters: BTreeMap::new(),
            tags_to_come: BTreeMap::new(),
            price_per_gb_month: None,
            first_snapshot_free: false,
        })
    }

    /// Reads the text of the file `path`.
    ///
    /// # Errors
    /// `Config` with line and column.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let text = Text { path, text };
        let file = text.parse()?;
        let mut config = Self { file: Some(path.to_owned()), ..Self::defaults()? };
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(location) = catalog(text, folder, &file.catalog)? {
            config.catalog = location;
        }
        config.capture = config.capture.with(text, folder, &file.capture)?;
        config.daemon = file.daemon.read(text, Some(&config.daemon))?;
        config.api = file.api.read(text, folder, Some(&config.api))?;
        for (name, section) in &file.hooks {
            config.hooks.push(section.read(text, folder, name)?);
        }
        for (name, section) in &file.targets {
            config.targets.insert(name.get_ref().clone(), section.read(text, folder, name)?);
        }
        for (name, section) in &file.exports {
            config.exports.insert(name.get_ref().clone(), section.read(text, name)?);
        }
        for (name, section) in &file.repositories {
            let repository = repository(text, folder, name, section)?;
            config.repositories.insert(repository.name.clone(), repository);
        }
        for (name, section) in &file.clusters {
            let cluster = cluster(text, folder, name, section)?;
            if !config.repositories.contains_key(&cluster.repository) {
                let reason = format!("there is no section [repositories.{}]", cluster.repository);
                return Err(text.error(section.repository.span().start, &reason));
            }
            if let Some(copies) = section.copies.iter().find(|it| !config.repositories.contains_key(it.to.get_ref())) {
                let reason = format!("there is no section [repositories.{}]", copies.to.get_ref());
                return Err(text.error(copies.to.span().start, &reason));
            }
            config.clusters.insert(cluster.name.clone(), cluster);
        }
        config.price_per_gb_month = price(text, &file.cost)?;
        config.first_snapshot_free = file.cost.first_snapshot_free;
        Ok(config)
    }

    /// All repositories, by name.
    pub fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.repositories.values()
    }

    /// All clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters.values()
    }

    /// The repository of a name.
    ///
    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn repository(&self, name: &str) -> Result<&Repository> {
        self.repositories.get(name).ok_or_else(|| self.unknown("repository", name, self.repositories.keys()))
    }

    /// The cluster of a name.
    ///
    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn cluster(&self, name: &str) -> Result<&Cluster> {
        self.clusters.get(name).ok_or_else(|| self.unknown("cluster", name, self.clusters.keys()))
    }

    /// The tags of a cluster, which its snapshots bear too; none of one that is not known.
    #[must_use]
    pub fn cluster_tags(&self, name: &str) -> BTreeMap<String, String> {
        let of_cluster = self.clusters.get(name).map(|cluster| &cluster.tags);
        of_cluster.or_else(|| self.tags_to_come.get(name)).cloned().unwrap_or_default()
    }

    /// Where restores of the API may go to, by name.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    /// Where exports of the API may go to, by name.
    pub fn exports(&self) -> impl Iterator<Item = &Export> {
        self.exports.values()
    }

    /// The target of a name.
    ///
    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn target(&self, name: &str) -> Result<&Target> {
        self.targets.get(name).ok_or_else(|| self.unknown("target", name, self.targets.keys()))
    }

    /// The place for exports of a name.
    ///
    /// # Errors
    /// `NotFound`, with the names that there are.
    pub fn export(&self, name: &str) -> Result<&Export> {
        self.exports.get(name).ok_or_else(|| self.unknown("export", name, self.exports.keys()))
    }

    /// What is different from another configuration, in words and without secrets, which it does not hold.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut add = |is_different: bool, what: &str| {
            if is_different {
                found.push(what.to_owned());
            }
        };
        add(self.catalog != before.catalog, "[catalog] is another, which holds after a restart");
        add(
            self.daemon != before.daemon,
            "[daemon] changed (where it listens and how many jobs it runs hold after a restart)",
        );
        add(self.hooks != before.hooks, "[hooks] changed");
        add(
            format!("{:?}", self.capture) != format!("{:?}", before.capture),
            "[capture] changed, which holds after a restart",
        );
        let cost = |config: &Self| (config.price_per_gb_month, config.first_snapshot_free);
        add(cost(self) != cost(before), "[cost] changed");
        add(self.api != before.api, "[api] changed (where it listens and its limits hold after a restart)");
        found.extend(compared("target", &self.targets, &before.targets));
        found.extend(compared("export", &self.exports, &before.exports));
        found.extend(compared("repository", &self.repositories, &before.repositories));
        found.extend(compared("cluster", &self.clusters, &before.clusters));
        found
    }

    fn unknown<'a>(&self, what: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
        let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
        let hint = match &self.file {
            None => format!("no configuration was found: looked for --config, ${VARIABLE}, {}", SEARCHED.join(", ")),
            Some(file) if known.is_empty() => format!("{} has none", file.display()),
            Some(file) => format!("{} has: {known}", file.display()),
        };
        Error::new(Class::NotFound, format!("there is no {what} `{name}` in the configuration")).hint(hint)
    }
}

/// Names that came, went, or mean something else. What is written of a section is what it means, so texts are compared.
fn compared<T: std::fmt::Debug>(what: &str, now: &BTreeMap<String, T>, before: &BTreeMap<String, T>) -> Vec<String> {
    let text = |section: &T| format!("{section:?}");
    let names = |of: &BTreeMap<String, T>, pick: &dyn Fn(&String) -> bool| {
        of.keys().filter(|name| pick(name)).cloned().collect::<Vec<_>>().join(", ")
    };
    let lists = [
        ("new", names(now, &|name| !before.contains_key(name))),
        ("gone", names(before, &|name| !now.contains_key(name))),
        (
            "changed",
            names(now, &|name| {
                before.get(name).is_some_and(|old| now.get(name).is_some_and(|new| text(new) != text(old)))
            }),
        ),
    ];
    lists
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(how, names)| format!("{how} {what}: {names}"))
        .collect()
}

fn unreadable(path: &Path, reason: &str) -> Error {
    Error::new(Class::Config, format!("configuration {} cannot be read: {reason}", path.display()))
}

/// The text of a file, or `None` when there is no such file.
fn read(path: &Path) -> Result<Option<String>> {
    let failed = |e: std::io::Error| unreadable(path, &e.to_string());
    let file = match File::open(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(unreadable(path, &format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
