//! Retention of a repository: looks at its snapshots, lets `policies::retention` judge, marks and removes.
//!
//! A mark is a fact `expires` that tells from when on the snapshot may go; a newer one with `null` takes it back. A removal goes the way of
//! `snapshot delete`, with its tombstone and its look for leases, after the mark was read again.

use std::collections::BTreeMap;

use chrono::DateTime;
use policies::retention::{Cluster, Judged, Reason, Snapshot, Source, Terms, Verdict, check_clocks, plan};
use serde::Serialize;
use serde_json::{Map, Value};

use super::fact::Kind;
use super::listing::{Entry, Status};
use super::{Place, Repository, side_by_side};
use crate::clock;
use crate::error::{Class, Error, Result};

/// What is judged, and on which terms.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Only this cluster; `None`: all that have snapshots.
    pub cluster: Option<&'a str>,
    /// What is known of a cluster, by its name.
    pub known: &'a BTreeMap<String, Cluster<'a>>,
    /// What is known of every other.
    pub others: Cluster<'a>,
    /// How long a snapshot stays marked before it goes, ms.
    pub grace_ms: u64,
    /// The share of a cluster's automated snapshots that a plan may mark, percent.
    pub share_max_percent: u64,
}

/// The plan for one repository.
#[derive(Debug, Default)]
pub struct Plan {
    /// All snapshots of clusters whose plan was not refused, by cluster, then oldest first.
    pub lines: Vec<Line>,
    /// Clusters whose plan was refused, and why.
    pub refused: Vec<(String, String)>,
}

/// One snapshot in a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// Its id.
    pub snapshot_id: String,
    /// `automated`, `manual`, `final`; `null` when its manifest cannot be read.
    pub source: Option<String>,
    /// When its capture began, RFC 3339.
    pub created_at: Option<String>,
    /// Whether the last verification found it whole.
    pub verified: bool,
    /// What becomes of it.
    pub verdict: &'static str,
    /// When it may go: of what is marked.
    pub expires_at: Option<String>,
    /// Why it is kept.
    pub reasons: Vec<Reason>,
    /// Why what was decided could not be done now; the next run tries again.
    pub problem: Option<String>,
    #[serde(skip)]
    step: Verdict,
}

impl Repository {
    /// Judges the snapshots. Nothing is written.
    ///
    /// # Errors
    /// What the store says.
    pub async fn plan_retention(&self, question: Question<'_>) -> Result<Plan> {
        let mut clusters: BTreeMap<String, Vec<(Entry, Snapshot)>> = BTreeMap::new();
        let entries = self.snapshots(question.cluster).await?;
        let present = entries.into_iter().filter(|entry| matches!(entry.status, Status::Available | Status::Broken));
        let looks = side_by_side(present, |entry| {
            let repository = self.clone();
            async move { repository.look(&entry).await.map(|snapshot| (entry, snapshot)) }
        });
        for (entry, snapshot) in looks.await? {
            clusters.entry(entry.place.cluster.clone()).or_default().push((entry, snapshot));
        }
        let now_ms = clock::unix_ms(clock::now());
        let terms = Terms { now_ms, grace_ms: question.grace_ms, share_max_percent: question.share_max_percent };
        let mut found = Plan::default();
        for (cluster, looked) in clusters {
            let (entries, snapshots): (Vec<Entry>, Vec<Snapshot>) = looked.into_iter().unzip();
            let known = question.known.get(&cluster).copied().unwrap_or(question.others);
            match plan(&snapshots, known, terms) {
                Ok(judged) => found.lines.extend(
                    entries
                        .iter()
                        .zip(&snapshots)
                        .zip(judged)
                        .map(|((entry, snapshot), judged)| line(entry, snapshot, judged)),
                ),
                Err(refusal) => found.refused.push((cluster, refusal.to_string())),
            }
        }
        Ok(found)
    }

    /// Judges the snapshots for [`Self::carry_out`]: nothing is judged while ages cannot be trusted.
    ///
    /// # Errors
    /// `Config` when the clocks of this machine and of the store disagree, and what the store says.
    pub async fn plan_to_apply(&self, question: Question<'_>) -> Result<Plan> {
        let (now_ms, store_ms) = self.clocks().await?;
        check_clocks(now_ms, store_ms).map_err(|refusal| {
            Error::new(Class::Config, format!("{}: {refusal}", self.store.url()))
                .hint("ages cannot be trusted, so nothing was marked or removed: set the clock")
        })?;
        self.plan_retention(question).await
    }

    /// Does what was judged of one snapshot: marks it, takes its mark back, or removes it. What only this snapshot is refused for,
    /// now, is a problem of its line.
    ///
    /// # Errors
    /// What else the store says, which would say it of the next one, too. The next run goes on.
    pub async fn carry_out(&self, line: &mut Line) -> Result<()> {
        let place = Place { cluster: line.cluster.clone(), snapshot_id: line.snapshot_id.clone() };
        let done = match line.step {
            Verdict::Keep | Verdict::Wait { .. } => Ok(()),
            Verdict::Mark { expires_ms } => self.mark(&place, Some(expires_ms)).await,
            Verdict::Unmark => self.mark(&place, None).await,
            Verdict::Remove => self.delete_expired(&place).await.map(drop),
        };
        match done {
            // somebody reads it or asked for it to be kept since we looked, another run was faster, or the store has it locked
            Err(error)
                if matches!(error.class(), Class::Busy | Class::Refused | Class::NotFound | Class::StoreAuth) =>
            {
                line.problem = Some(error.message().to_owned());
                Ok(())
            }
            done => done,
        }
    }

    async fn mark(&self, place: &Place, expires_ms: Option<u64>) -> Result<()> {
        let says = std::iter::once(("expires_unix_ms".to_owned(), Value::from(expires_ms)));
        self.note(place, Kind::Expires, says.collect::<Map<_, _>>(), None).await.map(drop)
    }

    /// From when on a marked snapshot may go, ms since 1970.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn expires_ms(&self, place: &Place) -> Result<Option<u64>> {
        let marks = self.facts_below(place, "fact-expires-", None, true).await?;
        Ok(marks.last().and_then(|mark| mark.says.get("expires_unix_ms").and_then(Value::as_u64)))
    }

    /// What is known of a snapshot beside its manifest.
    async fn look(&self, entry: &Entry) -> Result<Snapshot> {
        let place = &entry.place;
        let folder = place.key("");
        let keys = self.keys_below(&folder).await?;
        let has = |prefix: &str| {
            keys.iter().any(|key| key.strip_prefix(&folder).is_some_and(|file| file.starts_with(prefix)))
        };
        let verdict = match has("fact-verified-") {
            true => self.facts_below(place, "fact-verified-", None, true).await?.pop(),
            false => None,
        };
        let verified = verdict.and_then(|fact| fact.says.get("ok").and_then(Value::as_bool));
        // a note that cannot be read may say so
        let unless_unreadable = |said: Result<bool>| match said {
            Err(error) if matches!(error.class(), Class::Verification | Class::Version) => Ok(true),
            said => said,
        };
        let kept = has("fact-kept-") && unless_unreadable(self.is_kept(place, false).await)?;
        let granted =
            has("fact-granted-") && unless_unreadable(self.granted_ids(place).await.map(|ids| !ids.is_empty()))?;
        let claimed = entry.manifest.as_ref();
        let taken_at = claimed.and_then(|manifest| DateTime::parse_from_rfc3339(&manifest.begun_at).ok());
        let source: Option<Source> =
            claimed.and_then(|manifest| serde_json::from_value(manifest.source.clone().into()).ok());
        Ok(Snapshot {
            id: place.snapshot_id.clone(),
            source,
            taken_ms: taken_at.map_or(u64::MAX, |time| clock::unix_ms(time.into())),
            // a time that cannot be read is no age, and what was found damaged cannot be restored
            available: entry.status == Status::Available && taken_at.is_some() && verified != Some(false),
            verified: verified == Some(true),
            kept,
            leased: has("lease-") && !self.live_leases(place).await?.is_empty(),
            granted,
            // nothing else ever goes by retention
            locked: source == Some(Source::Automated) && self.is_locked(place).await?,
            expires_ms: if has("fact-expires-") { self.expires_ms(place).await? } else { None },
        })
    }
}

fn line(entry: &Entry, snapshot: &Snapshot, judged: Judged) -> Line {
    let (verdict, expires_ms) = match judged.verdict {
        Verdict::Keep => ("keep", None),
        Verdict::Unmark => ("unmark", None),
        Verdict::Mark { expires_ms } => ("mark", Some(expires_ms)),
        Verdict::Wait { expires_ms } => ("wait", Some(expires_ms)),
        Verdict::Remove => ("remove", snapshot.expires_ms),
    };
    let time = |ms: u64| i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).map(clock::text);
    Line {
        name: entry.name.clone(),
        cluster: entry.place.cluster.clone(),
        snapshot_id: entry.place.snapshot_id.clone(),
        source: entry.manifest.as_ref().map(|manifest| manifest.source.clone()),
        created_at: entry.manifest.as_ref().map(|manifest| manifest.begun_at.clone()),
        verified: snapshot.verified,
        verdict,
        expires_at: expires_ms.and_then(time),
        reasons: judged.reasons,
        problem: None,
        step: judged.verdict,
    }
}
