//! `ListTagsForResource`, `AddTagsToResource`, `RemoveTagsFromResource`.
//!
//! A snapshot has the tags that it was made with, a cluster those of the configuration; what is changed here is written into their repository.
//! Nodes bear the tags of their cluster.

use std::collections::BTreeMap;

use policies::access::Action;

use super::super::call::Call;
use super::super::check::{self, Resource};
use super::super::error::{Code, Fault};
use super::super::known::Known;
use super::super::shapes::Tag;
use super::super::xml::Writer;
use crate::catalog::{DefinitionRow, changed_tags};
use crate::jobs::said;
use crate::service::snapshots::Found;

/// Changes to tags: `None` takes one away.
type Changes = BTreeMap<String, Option<String>>;

/// A thing that has tags, and the tags.
struct Tagged {
    thing: Thing,
    tags: BTreeMap<String, String>,
}

enum Thing {
    Snapshot(Box<Found>),
    Group(Box<Known>),
}

pub(super) async fn list(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    write(&of(call, call.form.required("ResourceName")?).await?, out);
    Ok(())
}

/// The tags of what an ARN names.
///
/// # Errors
/// `InvalidARN`, `AccessDenied`, that there is no such thing, `InvalidSnapshotState` for a snapshot that is being made.
pub async fn of(call: &Call<'_>, arn: &str) -> Result<BTreeMap<String, String>, Fault> {
    Ok(tagged(call, arn, Action::ReadClusters, Action::ReadSnapshots).await?.tags)
}

pub(super) async fn add(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let given = check::tags(call.form)?;
    let given =
        given.ok_or_else(|| Fault::new(Code::MissingParameter, "The request must contain the parameter Tags."))?;
    let tagged = tagged(call, call.form.required("ResourceName")?, Action::Tag, Action::Tag).await?;
    change(call, tagged, given.into_iter().map(|Tag { key, value }| (key, Some(value))).collect(), out).await
}

pub(super) async fn remove(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let keys = call.form.texts("TagKeys", "member")?;
    if keys.is_empty() {
        return Err(Fault::new(Code::MissingParameter, "The request must contain the parameter TagKeys."));
    }
    let tagged = tagged(call, call.form.required("ResourceName")?, Action::Tag, Action::Tag).await?;
    if let Some(absent) = keys.iter().find(|key| !tagged.tags.contains_key(*key)) {
        return Err(Fault::new(Code::TagNotFound, format!("The tag {absent} was not found on the resource.")));
    }
    change(call, tagged, keys.into_iter().map(|key| (key, None)).collect(), out).await
}

async fn change(call: &Call<'_>, mut tagged: Tagged, changes: Changes, out: &mut Writer) -> Result<(), Fault> {
    changed_tags(&mut tagged.tags, &changes);
    check::check_tag_count(tagged.tags.len())?;
    match &tagged.thing {
        Thing::Snapshot(found) => {
            let place = (found.repository.as_str(), found.snapshot.name.as_str());
            said::of_snapshot(&call.config, &call.query.services.catalog, place, &changes).await?;
        }
        Thing::Group(known) => {
            let change = |before: Option<DefinitionRow>| {
                let row = before.unwrap_or_else(|| DefinitionRow::new(&known.name, call.now_ms));
                let mut all = row.tag_changes();
                all.extend(changes.clone());
                Ok(Some(DefinitionRow { tags: serde_json::json!(all).to_string(), ..row }))
            };
            call.say((known.repository(), &known.name), change).await?;
        }
    }
    write(&tagged.tags, out);
    Ok(())
}

async fn tagged(call: &Call<'_>, arn: &str, of_cluster: Action, of_snapshot: Action) -> Result<Tagged, Fault> {
    let known = match check::resource(arn)? {
        Resource::Snapshot(name) => {
            let found = Box::new(call.snapshot(&name, of_snapshot).await?);
            return Ok(Tagged { tags: found.tags(), thing: Thing::Snapshot(found) });
        }
        Resource::Group(id) => call.group(&id, of_cluster).await?,
        Resource::Cluster(id) => call.node(&id, of_cluster).await?.known,
    };
    let tags = call.query.services.cluster_tags(&known.name);
    Ok(Tagged { thing: Thing::Group(Box::new(known)), tags })
}

fn write(tags: &BTreeMap<String, String>, out: &mut Writer) {
    let tags: Vec<Tag> = tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect();
    out.list("TagList", "Tag", &tags, |out, tag| tag.write(out));
}
