//! Facts: what became known of a snapshot after its manifest was written, as `fact-<kind>-<id>.json` beside it.
//!
//! A fact is never changed; a newer one of the same kind, by the time it tells, takes its place. Where the writer had the key,
//! the fact has a MAC.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Keys, Place, Repository, SMALL_BYTES_MAX, new_snapshot_id};
use crate::canonical::{self, Proof, damaged};
use crate::clock;
use crate::crypt::DataKey;
use crate::error::{Class, Result};

/// What a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its objects are being removed: written before the first of them goes.
    Tombstone,
    /// Whether it may be deleted: `{"kept":true|false}`.
    Kept,
    /// Somebody read or started all of it.
    Verified,
    /// There is a copy in another repository (`to`), or this is one (`from`).
    Copied,
    /// From when on retention may remove it: `{"expires_unix_ms":n}`, or `null` when something keeps it again.
    Expires,
    /// Tags were given or taken away since: `{"tags":{"name":"value" or null}}`, one after the other.
    Tags,
    /// Another account may read it, or may no longer: `{"grant":…,"key_id":…,"revoked":true|false}`.
    Granted,
}

impl Kind {
    /// As in object names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::Kept => "kept",
            Self::Verified => "verified",
            Self::Copied => "copied",
            Self::Expires => "expires",
            Self::Tags => "tags",
            Self::Granted => "granted",
        }
    }
}

/// A fact object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// 1.
    pub format: u32,
    /// What it is about.
    pub kind: Kind,
    /// Its own id, which begins with the time.
    pub fact_id: String,
    /// The snapshot that it is about.
    pub snapshot_id: String,
    /// When it was written, RFC 3339.
    pub at: String,
    /// Program and version that wrote it.
    pub tool: String,
    /// What it says, by kind.
    pub says: Map<String, Value>,
}

/// Tags that are given, and those that are taken away, without a value.
pub type TagChanges = BTreeMap<String, Option<String>>;

impl Fact {
    /// What it says of tags; nothing when it is about something else.
    #[must_use]
    pub fn tags(&self) -> TagChanges {
        let said = self.says.get("tags").filter(|_| self.kind == Kind::Tags);
        said.and_then(|tags| serde_json::from_value(tags.clone()).ok()).unwrap_or_default()
    }

    /// Where it is.
    #[must_use]
    pub fn key(&self, place: &Place) -> String {
        place.key(&format!("fact-{}-{}.json", self.kind.as_str(), self.fact_id))
    }
}

impl Repository {
    /// Writes a fact; with a MAC where there is a key.
    ///
    /// # Errors
    /// What the store says.
    pub async fn note(
        &self,
        place: &Place,
        kind: Kind,
        says: Map<String, Value>,
        data_key: Option<&DataKey>,
    ) -> Result<Fact> {
        let now = clock::now();
        let fact = Fact {
            format: 1,
            kind,
            fact_id: new_snapshot_id(now)?,
            snapshot_id: place.snapshot_id.clone(),
            at: clock::text(now),
            tool: concat!("backupd ", env!("CARGO_PKG_VERSION")).to_owned(),
            says,
        };
        let file = match data_key {
            Some(key) => canonical::seal(&fact, Proof::Mac(&*key.fact_key()?))?,
            None => canonical::seal(&fact, Proof::Digest)?,
        };
        self.create_document(&fact.key(place), file).await?;
        Ok(fact)
    }

    /// The facts about a snapshot, oldest first. With a key those that have a MAC are proven; a fact that is damaged,
    /// forged or of a kind that this program does not know is left out, with a warning.
    ///
    /// # Errors
    /// What the store says.
    pub async fn facts(&self, place: &Place, data_key: Option<&DataKey>) -> Result<Vec<Fact>> {
        self.facts_below(place, "fact-", data_key, true).await
    }

    /// The facts of one kind alone; the others are not read.
    ///
    /// # Errors
    /// As [`Self::facts`].
    pub async fn facts_of(&self, kind: Kind, place: &Place, data_key: Option<&DataKey>) -> Result<Vec<Fact>> {
        self.facts_below(place, &format!("fact-{}-", kind.as_str()), data_key, true).await
    }

    /// Where a snapshot is, for a note about it: proven where there is a key for the note's MAC.
    ///
    /// # Errors
    /// `NotFound`, `Key`, `Verification`; what the store says.
    pub async fn place_of(&self, name: &str, keys: &Keys) -> Result<(Place, Option<DataKey>)> {
        if keys.are_given() {
            let opened = self.open_snapshot(name, keys).await?;
            return Ok((opened.place, opened.data_key));
        }
        Ok((self.find(name).await?.0, None))
    }

    /// Notes that a snapshot is kept, or not any more. A kept one is not deleted, and never expires.
    ///
    /// # Errors
    /// `Busy` or `NotFound` when it is being removed or was, and what the store says.
    pub async fn keep(&self, place: &Place, kept: bool, data_key: Option<&DataKey>) -> Result<Fact> {
        let says = std::iter::once(("kept".to_owned(), kept.into())).collect();
        let fact = self.note(place, Kind::Kept, says, data_key).await?;
        // a removal writes its tombstone before it looks for this note, so that one of the two sees the other
        self.check_no_removal(place).await?;
        self.check_published(place).await?;
        Ok(fact)
    }

    /// Notes that tags of a snapshot were given, or taken away where there is no value.
    ///
    /// # Errors
    /// `Busy` or `NotFound` when it is being removed or was, and what the store says.
    pub async fn tag(&self, place: &Place, changes: &TagChanges, data_key: Option<&DataKey>) -> Result<Fact> {
        let says = std::iter::once(("tags".to_owned(), serde_json::json!(changes))).collect();
        let fact = self.note(place, Kind::Tags, says, data_key).await?;
        self.check_no_removal(place).await?;
        self.check_published(place).await?;
        Ok(fact)
    }

    /// Whether a snapshot is kept; no key is needed.
    ///
    /// # Errors
    /// `Verification` when a fact about it cannot be read, since it may say so, unless `broken` is set; what the store says.
    pub async fn is_kept(&self, place: &Place, broken: bool) -> Result<bool> {
        let facts = self
            .facts_below(place, "fact-kept-", None, broken)
            .await
            .map_err(|error| error.hint("it may say that the snapshot is kept; --broken deletes it all the same"))?;
        Ok(facts.last().is_some_and(|fact| fact.says.get("kept") == Some(&Value::Bool(true))))
    }

    /// The facts whose file names begin with `prefix`, oldest first. `lenient`: those that cannot be read are left out.
    pub(super) async fn facts_below(
        &self,
        place: &Place,
        prefix: &str,
        data_key: Option<&DataKey>,
        lenient: bool,
    ) -> Result<Vec<Fact>> {
        let mut facts = Vec::new();
        for key in self.keys_below(&place.key(prefix)).await? {
            match self.fact(place, &key, data_key).await {
                Ok(fact) => facts.push(fact),
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) if error.class() == Class::Verification && lenient => {
                    tracing::warn!(key, error = %error, "a fact is left out");
                }
                Err(error) => return Err(error),
            }
        }
        facts.sort_by(|a, b| (&a.at, &a.fact_id).cmp(&(&b.at, &b.fact_id)));
        Ok(facts)
    }

    async fn fact(&self, place: &Place, key: &str, data_key: Option<&DataKey>) -> Result<Fact> {
        let object = canonical::parse(key, &self.store.read(key, SMALL_BYTES_MAX).await?)?;
        let fact: Fact = match data_key {
            Some(data_key) if object.contains_key("mac") => {
                canonical::open(key, object, Proof::Mac(&*data_key.fact_key()?))?
            }
            _ => canonical::open(key, object, Proof::Digest)?,
        };
        if fact.key(place) != key || fact.snapshot_id != place.snapshot_id {
            return Err(damaged(key, "it is a fact of something else"));
        }
        Ok(fact)
    }

    /// All keys that begin with `prefix`, ascending.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn keys_below(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.entries(prefix).await?.into_iter().map(|object| object.key).collect())
    }
}
