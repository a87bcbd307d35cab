//! `backupd key …`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::keys::{KeyArgs, ToKeyArgs};
use super::ledger::Ledger;
use super::output::{Output, table};
use super::reach::{Context, RepositoryArgs};
use crate::catalog::Location;
use crate::crypt::keyring::Keyring;
use crate::crypt::master::Master;
use crate::error::{Class, Error, Result};
use crate::repository::rewrap::{References, Rewrapped};
use crate::repository::{Keys, Repository};

/// Master keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key file with one new key. Without it snapshots cannot be read: keep copies in safe places.
    Generate {
        /// The file to make; it must not exist.
        file: PathBuf,
        /// Add a key pair, too: others can then wrap a snapshot for its public key.
        #[arg(long)]
        x25519: bool,
    },
    /// Print the public keys of a key file, to be given to those who grant a snapshot. They are no secret.
    Public {
        /// The key file.
        file: PathBuf,
        /// Add a new key pair first.
        #[arg(long)]
        new: bool,
    },
    /// List the keys of a key file, and with repositories which snapshots refer to each.
    List(Where),
    /// Add a new active key to the key file, and wrap all snapshots for it, or for the key of --to-kms-key or --to-key-file. Their
    /// data is not touched.
    Rotate {
        /// Keys and repositories.
        #[command(flatten)]
        place: Where,
        /// Make no new key; wrap for the active one what is not yet wrapped for it.
        #[arg(long, conflicts_with_all = ["to_kms_key", "to_key_file"])]
        resume: bool,
        /// The key that they are wrapped for, when it is not a new one of the key file. New snapshots go on being wrapped for the key
        /// that commands and configuration name.
        #[command(flatten)]
        to: ToKeyArgs,
        /// Only the snapshots of this cluster, when it has a key of its own.
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<String>,
    },
    /// Remove a key that no snapshot needs: first its wraps, then the key from the key file. A key of KMS itself is left as it is.
    Remove {
        /// The id of the key.
        id: String,
        /// Key file and repositories.
        #[command(flatten)]
        place: Where,
    },
}

/// Keys, and the repositories that they are for.
#[derive(Debug, Args)]
pub struct Where {
    #[command(flatten)]
    keys: KeyArgs,
    /// A repository whose snapshots they open, by URL or name; may be repeated [default: those of the configuration that have this key].
    #[arg(long = "repository", value_name = "URL")]
    repositories: Vec<String>,
}

impl Where {
    fn keys(&self) -> Result<Keys> {
        let none = || Error::new(Class::Usage, "no key is named").hint("give --key-file FILE, or --kms-key ARN");
        self.keys.read()?.ok_or_else(none)
    }

    async fn open(&self, context: &Context) -> Result<Vec<Repository>> {
        let mut names = self.repositories.clone();
        if names.is_empty() {
            let config = context.load()?;
            let configured = config.repositories().filter(|repository| {
                let mut clusters = config.clusters().filter(|cluster| cluster.repository == repository.name);
                self.keys.are(&repository.encryption)
                    || clusters.any(|cluster| cluster.encryption.as_ref().is_some_and(|key| self.keys.are(key)))
            });
            names.extend(configured.map(|repository| repository.name.clone()));
        }
        let mut repositories = Vec::new();
        for name in names {
            let reached = RepositoryArgs::named(name, self.keys.clone(), false).reach(context)?;
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
        Err(Error::new(Class::Usage, "no repository is named, and the configuration has none with this key")
            .hint("give --repository URL for every repository that the key is for"))
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
        Command::Generate { file, x25519 } => {
            let ledger = Ledger::lenient(configured(context).as_ref()).await;
            let subject = file.display().to_string();
            let made = async {
                let ring = Keyring::generate(&file)?;
                if x25519 { Keyring::add_pair(&file) } else { Ok(ring) }
            };
            let ring = ledger.around("key.generate", &subject, "", made).await?;
            let public = ring.pairs().last().map(|pair| pair.public.to_string());
            let document = json!({"file": subject, "key_id": ring.active_id(), "public_key": public});
            output.result(&document, |_| {
                let keep = "keep a copy where the snapshots are not: without it they cannot be read";
                let public = public.as_ref().map(|public| format!("\nits public key is {public}")).unwrap_or_default();
                format!("made {subject} with key {}\n{keep}{public}", ring.active_id())
            })
        }
        Command::Public { file, new } => public(&file, new, context, output).await,
        Command::List(place) => list(&place, context, output).await,
        Command::Rotate { place, resume, to, cluster } => {
            let to = KeyArgs::from(to).read()?;
            let how = match to {
                Some(to) => How::To(to),
                None if resume => How::Resume,
                None => How::New,
            };
            rotate(&place, how, cluster.as_deref(), context, output).await
        }
        Command::Remove { id, place } => remove(&id, &place, context, output).await,
    }
}

async fn public(file: &Path, new: bool, context: &Context, output: Output) -> Result<()> {
    let ring = if new {
        let ledger = Ledger::lenient(configured(context).as_ref()).await;
        let added = async { Keyring::add_pair(file) };
        ledger.around("key.generate", &file.display().to_string(), "x25519", added).await?
    } else {
        Keyring::read(file)?
    };
    if ring.pairs().is_empty() {
        let what = format!("{} has no key pair", file.display());
        return Err(Error::new(Class::NotFound, what).hint("--new adds one"));
    }
    let keys = ring.pairs().iter().map(
        |pair| json!({"id": pair.public.id, "created_at": pair.created_at, "public_key": pair.public.to_string()}),
    );
    let document = json!({"keys": keys.collect::<Vec<_>>()});
    output.result(&document, |_| ring.pairs().iter().map(|pair| pair.public.to_string()).collect::<Vec<_>>().join("\n"))
}

/// A key, as a listing tells of it.
struct Listed {
    id: String,
    created_at: Option<String>,
    active: bool,
}

async fn list(place: &Where, context: &Context, output: Output) -> Result<()> {
    let keys = place.keys()?;
    let active = keys.active().await?.map(|key| key.id().to_owned());
    let listed = keys.all().await?.into_iter().map(|key| Listed {
        id: key.id().to_owned(),
        active: active.as_deref() == Some(key.id()),
        created_at: key.created_at().map(str::to_owned),
    });
    let listed: Vec<Listed> = listed.collect();
    let repositories = place.open(context).await?;
    let mut references = References::new();
    for repository in &repositories {
        for (id, names) in repository.key_references().await? {
            references.entry(id).or_default().extend(names);
        }
    }
    let looked = !repositories.is_empty();
    let snapshots = |id: &str| references.get(id).cloned().unwrap_or_default();
    let key = |key: &Listed| {
        // null: nobody looked
        let names = looked.then(|| snapshots(&key.id));
        json!({"id": key.id, "created_at": key.created_at, "active": key.active, "snapshots": names})
    };
    let keys: Vec<Value> = listed.iter().map(key).collect();
    let unknown: References = references
        .iter()
        .filter(|(id, _)| listed.iter().all(|key| key.id != **id))
        .map(|(id, names)| (id.clone(), names.clone()))
        .collect();
    let urls: Vec<String> = repositories.iter().map(|repository| repository.store().url()).collect();
    let document = json!({"keys": keys, "repositories": urls, "not_in_file": unknown});
    output.result(&document, |_| {
        let count = |id: &str| if looked { snapshots(id).len().to_string() } else { "?".to_owned() };
        let row = |key: &Listed| {
            let active = if key.active { "active" } else { "" };
            let created = key.created_at.clone().unwrap_or_else(|| "-".to_owned());
            vec![key.id.clone(), created, active.to_owned(), count(&key.id)]
        };
        let strangers = unknown.keys().map(|id| vec![id.clone(), "-".to_owned(), "another key".to_owned(), count(id)]);
        table(&["key", "created", "", "snapshots"], listed.iter().map(row).chain(strangers))
    })
}

/// Which key snapshots are wrapped for.
enum How {
    /// A new one of the key file.
    New,
    /// The active one of the key file.
    Resume,
    /// The active one of these.
    To(Keys),
}

impl How {
    /// What opens the snapshots, and the key that they are wrapped for.
    async fn keys(&self, place: &Where) -> Result<(Keys, Option<Master>)> {
        let keys = match (self, &place.keys.key_file) {
            (Self::New, Some(path)) => Keys::Keyring(Keyring::add_active(path)?),
            _ => place.keys()?,
        };
        let to = match self {
            Self::To(to) => to.active().await?,
            Self::New | Self::Resume => keys.active().await?,
        };
        Ok((keys, to))
    }
}

async fn rotate(place: &Where, how: How, cluster: Option<&str>, context: &Context, output: Output) -> Result<()> {
    // whatever can be refused is refused before there is a new key
    let keys = place.keys()?;
    if matches!((&how, &keys), (How::New | How::Resume, Keys::Kms(_))) {
        let what = "KMS rotates the material of its keys by itself, and no snapshot is wrapped anew for that";
        return Err(Error::new(Class::Usage, what).hint("--to-kms-key ARN or --to-key-file FILE names another key"));
    }
    let repositories = place.open_some(context).await?;
    let ledger = Ledger::lenient(place.catalog(context).as_ref()).await;
    let details = if matches!(how, How::Resume) { "--resume" } else { "" };
    let rotated = async {
        let (keys, to) = how.keys(place).await?;
        let to = to.ok_or_else(|| Error::new(Class::Key, "there is no key to wrap for"))?;
        let mut done = Vec::new();
        for repository in &repositories {
            let rewrapped = Box::pin(repository.rewrap(&keys, &to, cluster)).await.map_err(|error| {
                let again = match how {
                    How::New | How::Resume => {
                        format!("the key {} is in the file: `backupd key rotate --resume`", to.id())
                    }
                    How::To(_) => "the same command".to_owned(),
                };
                error.hint(format!("{again} goes on"))
            })?;
            done.push(rewrapped);
        }
        Ok((to.id().to_owned(), done))
    };
    let (key_id, done) = ledger.around("key.rotate", &place.keys.to_string(), details, rotated).await?;
    let document = json!({"key_id": key_id, "new": matches!(how, How::New), "repositories": done});
    output.result(&document, |_| {
        let lines = done.iter().map(told).collect::<Vec<_>>().join("\n");
        match how {
            How::New | How::Resume => format!("the active key is {key_id}: keep a copy of the key file\n{lines}"),
            How::To(_) => {
                format!("the key is {key_id}: name it where new snapshots are made, and then run this again\n{lines}")
            }
        }
    })?;
    match done.iter().find_map(|rewrapped| rewrapped.failed.first()) {
        None => Ok(()),
        Some((name, why)) => {
            Err(Error::new(Class::Key, format!("snapshot {name} could not be wrapped for {key_id}: {why}"))
                .hint("the others are wrapped; -o json tells all that are not"))
        }
    }
}

/// What was done to one repository.
fn told(done: &Rewrapped) -> String {
    let count = done.wrapped.len();
    let wrapped = format!("{}: {count} of {} encrypted snapshots wrapped anew", done.url, done.snapshots);
    let not_given = done.not_given.iter().map(|(name, why)| {
        format!("the ACL of the new wrap of {name} does not say what was granted ({why}): the same with --resume tries again")
    });
    std::iter::once(wrapped).chain(not_given).collect::<Vec<_>>().join("\n")
}

async fn remove(id: &str, place: &Where, context: &Context, output: Output) -> Result<()> {
    let keys = place.keys()?;
    // wraps for a key that is not in the file, as one of KMS or of a file that is lost, go all the same
    let in_file = match &keys {
        Keys::Keyring(ring) if keys.all().await?.iter().any(|key| key.id() == id) || id.starts_with("k-") => {
            ring.check_removable(id)?;
            place.keys.key_file.as_deref()
        }
        _ if keys.all().await?.iter().any(|key| key.id() == id) => {
            let what = format!("{id} is the key that was given");
            return Err(Error::new(Class::Refused, what).hint("give the key that is to open the snapshots instead"));
        }
        _ => None,
    };
    let repositories = place.open_some(context).await?;
    for repository in &repositories {
        repository.check_unneeded(&keys, id).await?;
    }
    let ledger = Ledger::strict(place.catalog(context).as_ref()).await?;
    let removed = async {
        let mut wraps = 0;
        for repository in &repositories {
            wraps += repository.remove_wraps(&keys, id).await?;
        }
        if let Some(path) = in_file {
            Keyring::remove(path, id)?;
        }
        Ok(wraps)
    };
    let details = format!("from {}", place.keys);
    let wraps = ledger.around("key.remove", id, &details, removed).await?;
    let urls: Vec<String> = repositories.iter().map(|repository| repository.store().url()).collect();
    let document = json!({"key_id": id, "removed": true, "wraps": wraps, "repositories": urls});
    output.result(&document, |_| format!("removed key {id} and {wraps} wraps; looked at {}", urls.join(", ")))
}
