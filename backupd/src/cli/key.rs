//! `backupd key …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ledger::Ledger;
use super::output::{Output, table};
use super::reach::{Context, RepositoryArgs};
use crate::catalog::Location;
use crate::config::Encryption;
use crate::crypt::keyring::{Keyring, MasterKey};
use crate::error::{Class, Error, Result};
use crate::repository::Repository;
use crate::repository::rewrap::References;

/// Master keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key file with one new key. Without it snapshots cannot be read: keep copies in safe places.
    Generate {
        /// The file to make; it must not exist.
        file: PathBuf,
    },
    /// List the keys of a key file, and with repositories which snapshots refer to each.
    List(Where),
    /// Add a new active key to the key file, and wrap all snapshots for it. Their data is not touched.
    Rotate {
        /// Key file and repositories.
        #[command(flatten)]
        place: Where,
        /// Make no new key; wrap for the active one what is not yet wrapped for it.
        #[arg(long)]
        resume: bool,
    },
    /// Remove a key that no snapshot needs: first its wraps, then the key.
    Remove {
        /// The id of the key.
        id: String,
        /// Key file and repositories.
        #[command(flatten)]
        place: Where,
    },
}

/// A key file and the repositories that it is for.
#[derive(Debug, Args)]
pub struct Where {
    /// The key file.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// A repository whose snapshots it opens, by URL or name; may be repeated [default: those of the configuration that have this key file].
    #[arg(long = "repository", value_name = "URL")]
    repositories: Vec<String>,
}

impl Where {
    async fn open(&self, context: &Context) -> Result<Vec<Repository>> {
        let mut names = self.repositories.clone();
        if names.is_empty() {
            let same = |path: &PathBuf| matches!((path.canonicalize(), self.key_file.canonicalize()), (Ok(a), Ok(b)) if a == b);
            let config = context.load()?;
            let configured = config
                .repositories()
                .filter(|repository| matches!(&repository.encryption, Encryption::KeyFile(path) if same(path)));
            names.extend(configured.map(|repository| repository.name.clone()));
        }
        let mut repositories = Vec::new();
        for name in names {
            let reached = RepositoryArgs::with_key_file(name, self.key_file.clone()).reach(context)?;
            repositories.push(reached.repository().await?);
        }
        Ok(repositories)
    }

    /// The catalog that tells what was done to the keys; none where all repositories are named by URLs.
    fn catalog(&self, context: &Context) -> Option<Location> {
        let only_urls = !self.repositories.is_empty() && self.repositories.iter().all(|name| name.contains("://"));
        if only_urls { None } else { configured(context) }
    }

    async fn open_some(&self, context: &Context) -> Result<Vec<Repository>> {
        let repositories = self.open(context).await?;
        if !repositories.is_empty() {
            return Ok(repositories);
        }
        Err(Error::new(Class::Usage, "no repository is named, and the configuration has none with this key file")
            .hint("give --repository URL for every repository that the key file is for"))
    }
}

/// The catalog of the configuration, where there is one.
fn configured(context: &Context) -> Option<Location> {
    context.load().ok().filter(|config| config.file.is_some()).map(|config| config.catalog)
}

/// Runs a key command.
///
/// # Errors
/// `Refused` when the file to make exists or a key is still needed, `Key` when the key file cannot be used or does not open a
/// snapshot, `Busy` while a snapshot is being made, and what stores say.
pub async fn run(command: Command, context: &Context, output: Output) -> Result<()> {
    match command {
        Command::Generate { file } => {
            let ledger = Ledger::lenient(configured(context).as_ref()).await;
            let subject = file.display().to_string();
            let ring = ledger.around("key.generate", &subject, "", async { Keyring::generate(&file) }).await?;
            let document = json!({"file": file.display().to_string(), "key_id": ring.active_id()});
            output.result(&document, |_| {
                format!(
                    "made {} with key {}\nkeep a copy where the snapshots are not: without it they cannot be read",
                    file.display(),
                    ring.active_id()
                )
            })
        }
        Command::List(place) => list(&place, context, output).await,
        Command::Rotate { place, resume } => rotate(&place, resume, context, output).await,
        Command::Remove { id, place } => remove(&id, &place, context, output).await,
    }
}

async fn list(place: &Where, context: &Context, output: Output) -> Result<()> {
    let ring = Keyring::read(&place.key_file)?;
    let repositories = place.open(context).await?;
    let mut references = References::new();
    for repository in &repositories {
        for (id, names) in repository.key_references().await? {
            references.entry(id).or_default().extend(names);
        }
    }
    let looked = !repositories.is_empty();
    let snapshots = |id: &str| references.get(id).cloned().unwrap_or_default();
    let key = |key: &MasterKey| {
        // null: nobody looked
        let names = looked.then(|| snapshots(&key.id));
        let active = key.id == ring.active_id();
        json!({"id": key.id, "created_at": key.created_at, "active": active, "snapshots": names})
    };
    let keys: Vec<Value> = ring.keys().iter().map(key).collect();
    let unknown: References = references
        .iter()
        .filter(|(id, _)| ring.find(id).is_none())
        .map(|(id, names)| (id.clone(), names.clone()))
        .collect();
    let urls: Vec<String> = repositories.iter().map(|repository| repository.store().url()).collect();
    let document = json!({"keys": keys, "repositories": urls, "not_in_file": unknown});
    output.result(&document, |_| {
        let count = |id: &str| if looked { snapshots(id).len().to_string() } else { "?".to_owned() };
        let row = |key: &MasterKey| {
            let active = if key.id == ring.active_id() { "active" } else { "" };
            vec![key.id.clone(), key.created_at.clone(), active.to_owned(), count(&key.id)]
        };
        let strangers =
            unknown.keys().map(|id| vec![id.clone(), "-".to_owned(), "not in the file".to_owned(), count(id)]);
        table(&["key", "created", "", "snapshots"], ring.keys().iter().map(row).chain(strangers))
    })
}

async fn rotate(place: &Where, resume: bool, context: &Context, output: Output) -> Result<()> {
    // whatever can be refused is refused before there is a new key
    Keyring::read(&place.key_file)?;
    let repositories = place.open_some(context).await?;
    let ledger = Ledger::lenient(place.catalog(context).as_ref()).await;
    let (subject, details) = (place.key_file.display().to_string(), if resume { "--resume" } else { "" });
    let rotated = async {
        let ring = if resume { Keyring::read(&place.key_file)? } else { Keyring::add_active(&place.key_file)? };
        let mut done = Vec::new();
        for repository in &repositories {
            let rewrapped = repository.rewrap(&ring).await.map_err(|error| {
                error
                    .hint(format!("the key {} is in the file: `backupd key rotate --resume` goes on", ring.active_id()))
            })?;
            done.push(rewrapped);
        }
        Ok((ring, done))
    };
    let (ring, done) = ledger.around("key.rotate", &subject, details, rotated).await?;
    let document = json!({"key_id": ring.active_id(), "new": !resume, "repositories": done});
    output.result(&document, |_| {
        let lines = done.iter().map(|rewrapped| {
            format!(
                "{}: {} of {} encrypted snapshots wrapped anew",
                rewrapped.url,
                rewrapped.wrapped.len(),
                rewrapped.snapshots
            )
        });
        format!(
            "the active key is {}: keep a copy of the key file\n{}",
            ring.active_id(),
            lines.collect::<Vec<_>>().join("\n")
        )
    })?;
    match done.iter().find_map(|rewrapped| rewrapped.failed.first()) {
        None => Ok(()),
        Some((name, why)) => {
            Err(Error::new(Class::Key, format!("snapshot {name} could not be wrapped for {}: {why}", ring.active_id()))
                .hint("the others are wrapped; -o json tells all that are not"))
        }
    }
}

async fn remove(id: &str, place: &Where, context: &Context, output: Output) -> Result<()> {
    let ring = Keyring::read(&place.key_file)?;
    ring.check_removable(id)?;
    let repositories = place.open_some(context).await?;
    for repository in &repositories {
        repository.check_unneeded(&ring, id).await?;
    }
    let ledger = Ledger::strict(place.catalog(context).as_ref()).await?;
    let removed = async {
        let mut wraps = 0;
        for repository in &repositories {
            wraps += repository.remove_wraps(&ring, id).await?;
        }
        Keyring::remove(&place.key_file, id).map(|_| wraps)
    };
    let details = format!("from {}", place.key_file.display());
    let wraps = ledger.around("key.remove", id, &details, removed).await?;
    let urls: Vec<String> = repositories.iter().map(|repository| repository.store().url()).collect();
    let document = json!({"key_id": id, "removed": true, "wraps": wraps, "repositories": urls});
    output.result(&document, |_| format!("removed key {id} and {wraps} wraps; looked at {}", urls.join(", ")))
}
