//! Writes a snapshot as plain RDB files to a place of the configuration, as a job.

use std::sync::Arc;

use policies::job::Step;
use rdbtools::convert::LossKind;
use rdbtools::select::Selection;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::work::Held;
use super::{about, reach};
use crate::catalog::{Code, NewEvent};
use crate::clock;
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::nodes::Unfinished;
use crate::restore::input::Input;
use crate::restore::{self, Names, Options, Shape, Target, Ttl};
use crate::store::{ObjectSettings, RepositoryUrl};

/// The longest folder or prefix that may be asked for, bytes.
const PREFIX_BYTES_MAX: usize = 256;

/// What was asked for besides the snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// The name of a section `[exports.NAME]`.
    pub to: String,
    /// Below it; the name of the snapshot when empty, the place itself when it is `/`.
    pub prefix: String,
    /// The name that the files begin with; that of the snapshot when empty.
    pub name: String,
    /// How many files; as many as the snapshot has shards when not said.
    pub shards: Option<usize>,
    /// The engine that is to read them, when it is another than that of the snapshot.
    pub engine: Option<String>,
    /// What may be left out where that engine cannot hold it.
    pub drop: Vec<String>,
}

impl Parameters {
    /// Where the files go.
    ///
    /// # Errors
    /// `NotFound` for a place that the configuration does not name, `Usage` for a prefix that would leave it.
    pub fn url(&self, config: &Config, snapshot: &str) -> Result<RepositoryUrl> {
        let section = config.export(&self.to)?;
        if self.prefix == "/" {
            return Ok(section.url.clone());
        }
        let below = if self.prefix.is_empty() { snapshot } else { self.prefix.trim_matches('/') };
        let is_good = |part: &str| policies::names::check("folder", part).is_ok();
        if below.len() > PREFIX_BYTES_MAX || !below.split('/').all(is_good) {
            return Err(Error::new(Class::Usage, format!("the prefix `{below}` is refused"))
                .hint("its parts begin with a letter or digit and have letters, digits, `.`, `_` and `-`"));
        }
        Ok(section.url.below(below))
    }

    /// What may be left out.
    ///
    /// # Errors
    /// `Usage` for a word that is none of them.
    pub fn losses(&self) -> Result<Vec<LossKind>> {
        losses(&self.drop)
    }

    fn convert_to(&self) -> Result<Option<rdbtools::convert::Target>> {
        let wrong = |error: rdbtools::convert::UnknownTarget| Error::new(Class::Usage, error.to_string());
        self.engine.as_deref().map(|name| name.parse().map_err(wrong)).transpose()
    }

    /// Whether all of it means something.
    ///
    /// # Errors
    /// As its parts.
    pub fn check(&self, config: &Config, snapshot: &str) -> Result<()> {
        self.url(config, snapshot)?;
        self.losses()?;
        self.convert_to()?;
        if !self.name.is_empty() {
            policies::names::check("file", &self.name).map_err(|error| Error::new(Class::Usage, error.to_string()))?;
        }
        Ok(())
    }
}

/// Kinds of losses by their names.
pub(super) fn losses(words: &[String]) -> Result<Vec<LossKind>> {
    let kind = |word: &String| LossKind::REFUSED.into_iter().find(|kind| kind.name() == word);
    let wrong = |word: &String| {
        let known = LossKind::REFUSED.map(LossKind::name).join(", ");
        Error::new(Class::Usage, format!("`{word}` is nothing that can be left out")).hint(format!("one of {known}"))
    };
    words.iter().map(|word| kind(word).ok_or_else(|| wrong(word))).collect()
}

pub(super) async fn run(held: &mut Held) -> Result<Vec<NewEvent>> {
    let parameters: Parameters = super::parameters(&held.row)?;
    let name = held.row.snapshot_name.clone();
    let (repository, keys) = reach::repository(&held.config, &held.row.repository).await?;
    let url = parameters.url(&held.config, &name)?;
    let was_begun = held.row.attempts > 1;
    held.begin(Step::Export, "").await?;
    // the same for every attempt, so that what one before this has written has the same bytes
    let begun_ms = held.row.started_ms.and_then(|ms| u64::try_from(ms).ok());
    let now_unix_ms = begun_ms.unwrap_or_else(|| clock::unix_ms(clock::now()));
    let opened = Box::new(repository.open_snapshot(&name, &keys).await?);
    let options = Options {
        input: Input::Snapshot { repository, opened },
        shape: parameters.shards.map_or(Shape::AsBefore, Shape::Shards),
        mode: None,
        target: Target::files(&url, None, ObjectSettings::default()).await?,
        ttl: Ttl::Keep,
        db: None,
        verify: false,
        unfinished: if was_begun { Unfinished::Replace } else { Unfinished::Refuse },
        now_unix_ms,
        ignore_memory: false,
        select: Selection::default(),
        names: Names::Export(if parameters.name.is_empty() { name.clone() } else { parameters.name.clone() }),
        drop: parameters.losses()?,
        convert_to: parameters.convert_to()?,
        filled: None,
    };
    let plan = restore::plan(&options).await?;
    let outcome = restore::run(options, plan, Arc::clone(&held.progress), held.cancel.clone()).await?;
    held.begin(Step::Record, "").await?;
    let files: Vec<_> = outcome.nodes.iter().map(|node| json!({"file": node.file, "keys": node.keys})).collect();
    held.note(&json!({"to": url.to_string(), "files": files, "keys": outcome.keys, "encrypted": false})).await?;
    let message = format!("snapshot {name} was exported to {url}, in the clear");
    Ok(vec![about(&held.row, Code::SnapshotExported, message)])
}
