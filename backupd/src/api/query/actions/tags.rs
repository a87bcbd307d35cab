//! `ListTagsForResource`, `AddTagsToResource`, `RemoveTagsFromResource`.
//!
//! A snapshot has the tags that it was made with, a cluster those of the configuration; what was changed since is in the catalog. Nodes bear the
//! tags of their cluster.

use std::collections::BTreeMap;

use policies::access::Action;

use super::super::call::Call;
use super::super::check::{self, Resource};
use super::super::error::{Code, Fault};
use super::super::shapes::Tag;
use super::super::xml::Writer;
use crate::error::Result as OurResult;

/// Changes to tags: `None` takes one away.
type Changes = BTreeMap<String, Option<String>>;

/// A thing that has tags.
struct Tagged {
    /// As the catalog calls it.
    kind: &'static str,
    resource: String,
    tags: BTreeMap<String, String>,
}

pub(super) async fn list(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let tagged = tagged(call, Action::ReadClusters, Action::ReadSnapshots).await?;
    write(&tagged.tags, out);
    Ok(())
}

pub(super) async fn add(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let given = check::tags(call.form)?;
    let given =
        given.ok_or_else(|| Fault::new(Code::MissingParameter, "The request must contain the parameter Tags."))?;
    let tagged = tagged(call, Action::Tag, Action::Tag).await?;
    change(call, tagged, given.into_iter().map(|Tag { key, value }| (key, Some(value))).collect(), out).await
}

pub(super) async fn remove(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let keys = call.form.texts("TagKeys", "member")?;
    if keys.is_empty() {
        return Err(Fault::new(Code::MissingParameter, "The request must contain the parameter TagKeys."));
    }
    let tagged = tagged(call, Action::Tag, Action::Tag).await?;
    if let Some(absent) = keys.iter().find(|key| !tagged.tags.contains_key(*key)) {
        return Err(Fault::new(Code::TagNotFound, format!("The tag {absent} was not found on the resource.")));
    }
    change(call, tagged, keys.into_iter().map(|key| (key, None)).collect(), out).await
}

async fn change(call: &Call<'_>, mut tagged: Tagged, changes: Changes, out: &mut Writer) -> Result<(), Fault> {
    apply(&mut tagged.tags, &changes);
    check::check_tag_count(tagged.tags.len())?;
    call.query.services.catalog.change_tags(tagged.kind, &tagged.resource, &changes).await?;
    write(&tagged.tags, out);
    Ok(())
}

async fn tagged(call: &Call<'_>, of_cluster: Action, of_snapshot: Action) -> Result<Tagged, Fault> {
    let known = match check::resource(call.form.required("ResourceName")?)? {
        Resource::Snapshot(name) => {
            let found = call.snapshot(&name, of_snapshot).await?;
            let resource = found.snapshot.snapshot_id.clone();
            let changes = call.query.services.catalog.tag_changes("snapshot", &resource).await?;
            let mut tags = found.tags();
            apply(&mut tags, &changes);
            return Ok(Tagged { kind: "snapshot", resource, tags });
        }
        Resource::Group(id) => call.group(&id, of_cluster).await?,
        Resource::Cluster(id) => call.node(&id, of_cluster).await?.known,
    };
    Ok(Tagged { kind: "group", tags: call.group_tags(&known.name).await?, resource: known.name })
}

fn apply(tags: &mut BTreeMap<String, String>, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => tags.insert(key.clone(), value.clone()),
            None => tags.remove(key),
        };
    }
}

fn write(tags: &BTreeMap<String, String>, out: &mut Writer) {
    let tags: Vec<Tag> = tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect();
    out.list("TagList", "Tag", &tags, |out, tag| tag.write(out));
}

impl Call<'_> {
    /// The tags of a cluster as they are now.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn group_tags(&self, cluster: &str) -> OurResult<BTreeMap<String, String>> {
        let mut tags = self.query.services.cluster_tags(cluster);
        apply(&mut tags, &self.query.services.catalog.tag_changes("group", cluster).await?);
        Ok(tags)
    }
}
