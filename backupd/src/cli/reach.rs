//! From flags (and the configuration) to what they reach: repositories, keys, sources.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use policies::replica::{Method, PrimaryUse};

use super::keys::KeyArgs;
use crate::catalog::Location;
use crate::config::{self, Config};
use crate::error::{Class, Error, Result};
use crate::jobs::reach;
use crate::redis::{AddressMap, SourceOptions, SourceUrl, Tls};
use crate::repository::{Keys, Repository};
use crate::secret::{self, Password};
use crate::store::{self, RepositoryUrl, Store};

/// The variable with the password of a source that is not in the configuration.
const SOURCE_PASSWORD_VARIABLE: &str = "BACKUPD_SOURCE_PASSWORD";

/// What all commands share.
#[derive(Debug)]
pub struct Context {
    /// `--config`.
    pub config: Option<PathBuf>,
}

impl Context {
    /// The configuration; the defaults when there is no file.
    ///
    /// # Errors
    /// `Config`, with the line.
    pub fn load(&self) -> Result<Config> {
        Config::load(self.config.as_deref())
    }
}

/// Where snapshots are and what opens them.
#[derive(Debug, Clone, Args)]
pub struct RepositoryArgs {
    /// The repository: file:///dir, s3://bucket/prefix?endpoint=URL&region=R&profile=P&style=path|virtual, or its name in the configuration.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    #[command(flatten)]
    keys: KeyArgs,
    /// The snapshot is not encrypted; this must be asked for by name.
    #[arg(long, conflicts_with_all = ["key_file", "kms_key"])]
    no_encryption: bool,
}

/// A repository that was named, and its keys.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Where it is.
    pub url: RepositoryUrl,
    /// What opens it.
    pub keys: Keys,
    /// The catalog of the configuration, when the repository is one of it.
    pub catalog: Option<Location>,
}

impl Reached {
    /// Opens the store.
    ///
    /// # Errors
    /// What the store says.
    pub async fn store(&self) -> Result<Arc<dyn Store>> {
        store::open(&self.url).await
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub async fn repository(&self) -> Result<Repository> {
        Repository::open(self.store().await?).await
    }
}

impl RepositoryArgs {
    /// The repository of this URL or name, opened with these keys; those of the configuration where none are named, but for
    /// `no_encryption`.
    #[must_use]
    pub fn named(repository: String, keys: KeyArgs, no_encryption: bool) -> Self {
        Self { repository: Some(repository), keys, no_encryption }
    }

    /// Whether it is named by its URL, so that no configuration is needed.
    #[must_use]
    pub fn is_url(&self) -> bool {
        self.repository.as_deref().is_some_and(|text| text.contains("://"))
    }

    /// Whether one is named.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.repository.is_some()
    }

    /// The repository and keys of these flags.
    ///
    /// # Errors
    /// `Usage` when no repository is named, `Key` when the key file cannot be used.
    pub fn reach(&self, context: &Context) -> Result<Reached> {
        match &self.repository {
            Some(url) if url.contains("://") => {
                Ok(Reached { url: url.parse()?, keys: self.keys(None)?, catalog: None })
            }
            Some(name) => self.configured(&context.load()?, name),
            None => {
                let config = context.load()?;
                let mut names = config.repositories().map(|repository| repository.name.clone());
                match (names.next(), names.next()) {
                    (Some(only), None) => self.configured(&config, &only),
                    (first, _) => {
                        let why = if first.is_some() {
                            "the configuration has several"
                        } else {
                            "the configuration has none"
                        };
                        Err(Error::new(Class::Usage, format!("no repository is named, and {why}"))
                            .hint("give --repository URL, or its name in the configuration"))
                    }
                }
            }
        }
    }

    /// The repository of these flags, or all of the configuration where none is named; each with its name there.
    ///
    /// # Errors
    /// As [`RepositoryArgs::reach`].
    pub fn reach_all(&self, context: &Context) -> Result<Vec<(Option<String>, Reached)>> {
        match &self.repository {
            Some(url) if url.contains("://") => Ok(vec![(None, self.reach(context)?)]),
            Some(name) => Ok(vec![(Some(name.clone()), self.reach(context)?)]),
            None => {
                let config = context.load()?;
                let names: Vec<String> = config.repositories().map(|repository| repository.name.clone()).collect();
                if names.is_empty() {
                    return self.reach(context).map(|reached| vec![(None, reached)]);
                }
                names.into_iter().map(|name| Ok((Some(name.clone()), self.configured(&config, &name)?))).collect()
            }
        }
    }

    /// A repository of the configuration; flags override its key.
    fn configured(&self, config: &Config, name: &str) -> Result<Reached> {
        let repository = config.repository(name)?;
        let (url, catalog) = (repository.url.clone(), Some(config.catalog.clone()));
        Ok(Reached { url, keys: self.keys(Some((config, repository)))?, catalog })
    }

    fn keys(&self, configured: Option<(&Config, &config::Repository)>) -> Result<Keys> {
        match (self.keys.read()?, self.no_encryption, configured) {
            (Some(keys), ..) => Ok(keys),
            (None, true, _) => Ok(Keys::NoEncryption),
            (None, false, Some((config, repository))) => reach::keys(config, repository),
            (None, false, None) => Ok(Keys::Unsaid),
        }
    }
}

/// What is snapshotted, when it is not a cluster of the configuration.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// A server of the source: `redis[s]://[user[:password]@]host:port` or `unix:///path`; any living one is enough.
    #[arg(long, value_name = "URL", num_args = 1..)]
    source: Vec<SourceUrl>,
    /// The ACL user of the source.
    #[arg(long, value_name = "USER")]
    source_username: Option<String>,
    /// A file that holds the password of the source [else: the variable BACKUPD_SOURCE_PASSWORD].
    #[arg(long, value_name = "FILE")]
    source_password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that signed those of the source [default: those of the system].
    #[arg(long, value_name = "FILE")]
    source_ca: Option<PathBuf>,
    /// Our certificate for the source (PEM).
    #[arg(long, value_name = "FILE", requires = "source_key")]
    source_cert: Option<PathBuf>,
    /// The key of our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "source_cert")]
    source_key: Option<PathBuf>,
    /// The primary to take from a Sentinel that watches several.
    #[arg(long, value_name = "NAME")]
    sentinel_master: Option<String>,
    /// The name in the certificates of the source [default: each server's host].
    #[arg(long, value_name = "NAME")]
    source_server_name: Option<String>,
    /// Where a node of the source is reached that announces another address, as host:port or host; may be repeated.
    #[arg(long, value_name = "ANNOUNCED=REACHED", value_parser = parse_pair)]
    source_address: Vec<(String, String)>,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "an address is ANNOUNCED=REACHED".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// A source with the repository for its snapshots.
#[derive(Debug)]
pub struct ReachedSource {
    /// How the source is reached.
    pub source: SourceOptions,
    /// Where its snapshots go.
    pub repository: Reached,
    /// Tags that its snapshots get.
    pub tags: BTreeMap<String, String>,
    /// When a primary may serve.
    pub primary_use: PrimaryUse,
    /// The zone whose nodes come first.
    pub zone: Option<String>,
    /// How its shards are read.
    pub method: Method,
    /// Where the RDB files of its nodes are to be read, by node.
    pub data_dirs: BTreeMap<String, PathBuf>,
    /// The catalog in which they are noted; ad-hoc snapshots are in none.
    pub catalog: Option<Location>,
}

impl SourceArgs {
    /// The source and repository of these flags, or of the cluster `name` of the configuration.
    ///
    /// # Errors
    /// `NotFound` when there is no such cluster, and as [`RepositoryArgs::reach`].
    pub fn reach(&self, context: &Context, name: Option<&str>, repository: &RepositoryArgs) -> Result<ReachedSource> {
        let password = self.source_password_file.clone().map(Password::File);
        let Some(name) = name else {
            let mut source = SourceOptions::new(self.source.clone());
            source.password = match &password {
                Some(_) => secret::read(password.as_ref())?,
                None => secret::of_variable(SOURCE_PASSWORD_VARIABLE)?,
            };
            source.password_file.clone_from(&self.source_password_file);
            return Ok(ReachedSource {
                source: self.overriding(source)?,
                repository: repository.reach(context)?,
                tags: BTreeMap::new(),
                primary_use: PrimaryUse::default(),
                zone: None,
                method: Method::default(),
                data_dirs: BTreeMap::new(),
                catalog: None,
            });
        };
        let config = context.load()?;
        let cluster = config.cluster(name)?;
        let repository = match &repository.repository {
            Some(_) => repository.reach(context)?,
            None => repository.configured(&config, &cluster.repository)?,
        };
        let source = self.overriding(reach::options(cluster, password.as_ref().or(cluster.password.as_ref()))?)?;
        Ok(ReachedSource {
            source,
            repository,
            tags: cluster.tags.clone(),
            primary_use: cluster.primary_use,
            zone: cluster.zone.clone(),
            catalog: Some(config.catalog.clone()),
            method: cluster.method,
            data_dirs: cluster.data_dirs.clone(),
        })
    }

    /// Whether `--source` was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !self.source.is_empty()
    }

    /// The same source, as far as no flag says otherwise.
    fn overriding(&self, mut source: SourceOptions) -> Result<SourceOptions> {
        if !self.source_address.is_empty() {
            let pairs = self.source_address.iter().cloned();
            source.addresses = AddressMap::new(pairs).map_err(|why| Error::new(Class::Usage, why))?;
        }
        source.sentinel_master = self.sentinel_master.clone().or(source.sentinel_master);
        source.username = self.source_username.clone().or(source.username);
        let identity = self.source_cert.clone().zip(self.source_key.clone());
        source.tls = Tls {
            ca: self.source_ca.clone().or(source.tls.ca),
            identity: identity.or(source.tls.identity),
            server_name: self.source_server_name.clone().or(source.tls.server_name),
        };
        if source.tls != Tls::default() && !source.seeds.iter().any(|seed| seed.tls) {
            return Err(Error::new(Class::Usage, "files for TLS were given, but no source speaks it")
                .hint("write the source as rediss://host:port"));
        }
        Ok(source)
    }
}
