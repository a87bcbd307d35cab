//! `CreateReplicationGroup` and `CreateCacheCluster`: a snapshot, or RDB files in a bucket, are restored into nodes of a target of the
//! configuration.

use std::collections::BTreeMap;

use policies::access::Action;
use policies::job::Kind;
use policies::slot::SlotSet;

use super::super::call::Call;
use super::super::check;
use super::super::error::{Code, Fault};
use super::super::form::Form;
use super::super::known::Node;
use super::super::shapes::Tag;
use super::super::xml::Writer;
use super::groups::Wanted;
use crate::catalog::{DefinitionRow, NewJob};
use crate::error::{Class, Error};
use crate::jobs::submit;

/// The longest id of a group, and of a node.
const ID_LEN_MAX: usize = 40;

/// The tag that names the target; else the subnet group does, else there must be only one.
const TARGET_TAG: &str = "backupd:target";

/// What a new cluster is to be.
struct Shape {
    shards: Option<usize>,
    slots: Vec<String>,
    /// `None`: as the snapshot was.
    cluster_mode: Option<bool>,
    replicas: usize,
}

/// What it is made of.
struct Input {
    snapshot_name: String,
    seeds: Vec<String>,
    repository: String,
}

pub(super) async fn create_group(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let id = call.form.required("ReplicationGroupId")?;
    let description = call.form.required("ReplicationGroupDescription")?;
    let shape = Shape::read(call.form)?;
    let id = check::new_id("ReplicationGroupId", id, ID_LEN_MAX)?;
    let known = create(call, &id, "group", description, shape).await?;
    let group = known.group(call, None);
    out.element("ReplicationGroup", |out| group.write(out));
    Ok(())
}

pub(super) async fn create_cluster(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let id = call.form.required("CacheClusterId")?;
    if call.form.number("NumCacheNodes")?.is_some_and(|count| count != 1) {
        return Err(Fault::value("NumCacheNodes must be 1 for this engine."));
    }
    let id = check::new_id("CacheClusterId", id, ID_LEN_MAX)?;
    if call.form.said("ReplicationGroupId").is_some() {
        return Err(Fault::combination(
            "A node cannot be added to a replication group here: ReplicationGroupId is not supported.",
        ));
    }
    let shape = Shape { shards: Some(1), slots: Vec::new(), cluster_mode: Some(false), replicas: 0 };
    let known = create(call, &id, "cluster", "", shape).await?;
    let cluster = super::clusters::one(call, &Node { known, id }).await?;
    out.element("CacheCluster", |out| cluster.write(out, false));
    Ok(())
}

async fn create(
    call: &Call<'_>,
    id: &str,
    made_as: &str,
    description: &str,
    shape: Shape,
) -> Result<super::super::known::Known, Fault> {
    let wanted = Wanted::read(call)?;
    let tags = check::tags(call.form)?.unwrap_or_default();
    check_security(call)?;
    let seeds = check::seeds(call.form)?;
    let snapshot = call.form.said("SnapshotName");
    let target = target(call, tags.iter().find(|tag| tag.key == TARGET_TAG).map(|tag| tag.value.as_str()))?;
    check_tls(call, &target)?;
    let (input, shape) = input(call, snapshot, seeds, made_as, shape).await?;
    check_absent(call, id, made_as).await?;
    let new = job(call, id, &target, &input, &shape)?;
    let mut row = DefinitionRow {
        made: 1,
        shape: made_as.to_owned(),
        description: description.to_owned(),
        repository: input.repository,
        target,
        job_id: new.job_id.clone(),
        tags: tags_text(tags),
        ..DefinitionRow::new(id, call.now_ms)
    };
    wanted.write(&mut row);
    let place = (row.repository.as_str(), id);
    // somebody else may make one of this name at the same moment
    let absent = |before: Option<DefinitionRow>| match before {
        Some(before) if before.is_made() => Err(Error::new(Class::Refused, "the name is taken")),
        _ => Ok(Some(row.clone())),
    };
    call.say(place, absent).await.map_err(|error| match error.class() {
        Class::Refused => taken(id, made_as),
        _ => error.into(),
    })?;
    let asked = crate::service::jobs::asked(call.caller, None, &[])?;
    if let Err(error) = call.query.services.submit(new, asked).await {
        call.say(place, |_| Ok(None)).await?;
        return Err(error.into());
    }
    let gone = || Fault::new(Code::InternalFailure, format!("{id} was removed while it was made."));
    call.known(id).await?.ok_or_else(gone)
}

/// What is refused rather than said to be there.
fn check_security(call: &Call<'_>) -> Result<(), Fault> {
    let form = call.form;
    if form.said("KmsKeyId").is_some() && form.flag("AtRestEncryptionEnabled")? != Some(true) {
        return Err(Fault::combination("Please enable encryption at rest to use Customer Managed CMK"));
    }
    if form.said("AuthToken").is_some() {
        return Err(Fault::combination("AuthToken cannot be set here: nodes have the password of their target."));
    }
    for name in ["ServerlessCacheSnapshotName", "PrimaryClusterId", "GlobalReplicationGroupId"] {
        if form.said(name).is_some() {
            return Err(Fault::combination(format!("{name} is not supported.")));
        }
    }
    Ok(())
}

/// That nobody is left to believe that nodes without TLS have it.
fn check_tls(call: &Call<'_>, target: &str) -> Result<(), Fault> {
    let may = call.config.target(target)?.kind.may_speak_tls();
    if call.form.flag("TransitEncryptionEnabled")? == Some(true) && !may {
        let message =
            format!("TransitEncryptionEnabled cannot be set here: nodes of the target {target} do not speak TLS.");
        return Err(Fault::combination(message));
    }
    Ok(())
}

async fn input(
    call: &Call<'_>,
    snapshot: Option<&str>,
    seeds: Vec<(String, String)>,
    made_as: &str,
    mut shape: Shape,
) -> Result<(Input, Shape), Fault> {
    match (snapshot, seeds.is_empty()) {
        (Some(_), false) => Err(Fault::combination("SnapshotName and SnapshotArns cannot be given together.")),
        (None, true) => {
            Err(Fault::combination("New nodes are filled from a snapshot here: give SnapshotName or SnapshotArns."))
        }
        (Some(name), true) => {
            let found = call.snapshot(name, Action::Restore).await?;
            let was_cluster = found.snapshot.mode == "cluster";
            if was_cluster && shape.cluster_mode == Some(false) {
                let message = match made_as {
                    "cluster" => "Cluster mode should be disabled in parameter group, but found it is enabled.",
                    _ => {
                        "A snapshot of a cluster mode enabled replication group cannot be restored into a cluster mode disabled one."
                    }
                };
                return Err(Fault::combination(message));
            }
            shape.cluster_mode = Some(shape.cluster_mode.unwrap_or(was_cluster));
            let snapshot_name = found.snapshot.name.clone();
            Ok((Input { snapshot_name, seeds: Vec::new(), repository: found.repository }, shape))
        }
        (None, false) => {
            call.allow_at_all(Action::Restore, "SnapshotArns").await?;
            if made_as == "cluster" && seeds.len() != 1 {
                return Err(Fault::value("Exactly one ARN must be given as SnapshotArns for a cache cluster."));
            }
            let seeds = seeds.iter().map(|(bucket, key)| seed(call, bucket, key)).collect::<Result<_, _>>()?;
            shape.cluster_mode = Some(shape.cluster_mode.unwrap_or(false));
            // without cluster mode there is one shard, whatever the files were
            if shape.cluster_mode == Some(false) {
                shape.shards = Some(1);
            }
            let first = call.config.repositories().next().map(|section| section.name.clone());
            Ok((Input { snapshot_name: String::new(), seeds, repository: first.unwrap_or_default() }, shape))
        }
    }
}

/// An object of a bucket that the configuration names, as a URL.
fn seed(call: &Call<'_>, bucket: &str, key: &str) -> Result<String, Fault> {
    call.config.exports().find_map(|export| export.object(bucket, key)).ok_or_else(|| {
        Fault::value(format!("The S3 bucket {bucket} is not a place that seeds may come from: name it in a section [exports.NAME] of the configuration."))
    })
}

async fn check_absent(call: &Call<'_>, id: &str, made_as: &str) -> Result<(), Fault> {
    if call.known(id).await?.is_some() || call.config.cluster(id).is_ok() && made(call, id).await?.is_none() {
        return Err(taken(id, made_as));
    }
    // one that was made and removed leaves its name
    if let Some(row) = made(call, id).await? {
        call.say((&row.repository, id), |_| Ok(None)).await?;
        call.query.watch.forget(id);
    }
    Ok(())
}

async fn made(call: &Call<'_>, id: &str) -> Result<Option<DefinitionRow>, Fault> {
    Ok(call.query.services.catalog.definition(id).await?.filter(DefinitionRow::is_made))
}

fn taken(id: &str, made_as: &str) -> Fault {
    match made_as {
        "cluster" => Fault::new(Code::CacheClusterAlreadyExists, format!("Cache cluster with id {id} already exists.")),
        _ => Fault::new(Code::ReplicationGroupAlreadyExists, format!("Replication group with id {id} already exists.")),
    }
}

fn tags_text(tags: Vec<Tag>) -> String {
    let tags: BTreeMap<String, Option<String>> = tags.into_iter().map(|tag| (tag.key, Some(tag.value))).collect();
    serde_json::json!(tags).to_string()
}

/// The target that nodes are taken from.
fn target(call: &Call<'_>, tag: Option<&str>) -> Result<String, Fault> {
    let names: Vec<&str> = call.config.targets().map(|target| target.name.as_str()).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if let Some(name) = tag.or_else(|| call.form.said("CacheSubnetGroupName").filter(|name| names.contains(name))) {
        return names
            .iter()
            .find(|known| **known == name)
            .map(|name| (*name).to_owned())
            .ok_or_else(|| Fault::value(format!("There is no target {name} in the configuration: there is {known}.")));
    }
    match *names.as_slice() {
        [one] => Ok(one.to_owned()),
        _ => Err(Fault::combination(format!(
            "New nodes come from a target of the configuration: name one as CacheSubnetGroupName or by the tag {TARGET_TAG}; there is {known}."
        ))),
    }
}

fn job(call: &Call<'_>, id: &str, target: &str, input: &Input, shape: &Shape) -> Result<NewJob, Fault> {
    let mode = shape.cluster_mode.map(|is| if is { "cluster" } else { "standalone" }.to_owned());
    let parameters = submit::RestoreParameters {
        target: target.to_owned(),
        name: id.to_owned(),
        shards: shape.shards,
        slots: shape.slots.clone(),
        mode,
        replicas: shape.replicas,
        seeds: input.seeds.clone(),
        ..submit::RestoreParameters::default()
    };
    parameters.check(&call.config)?;
    Ok(submit::of_snapshot(Kind::Restore, id, &input.repository, &input.snapshot_name, &parameters, call.now_ms)?)
}

impl Shape {
    fn read(form: &Form) -> Result<Self, Fault> {
        let number = |name: &str| -> Result<Option<usize>, Fault> {
            Ok(form.number(name)?.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
        };
        let count = number("NumNodeGroups")?;
        let per_group = number("ReplicasPerNodeGroup")?;
        let nodes = number("NumCacheClusters")?;
        let groups = form.list("NodeGroupConfiguration", "NodeGroupConfiguration")?;
        let mut slots: Vec<String> = Vec::new();
        let mut replicas = per_group.or_else(|| nodes.map(|count| count.saturating_sub(1))).unwrap_or(0);
        for group in &groups {
            slots.extend(group.said("Slots").map(str::to_owned));
            if let Some(count) = group.number("ReplicaCount")? {
                replicas = usize::try_from(count).unwrap_or(usize::MAX);
            }
        }
        if count == Some(0) || count.is_some_and(|count| count > policies::shards::SHARDS_MAX) {
            let message = format!("NumNodeGroups must be between 1 and {}.", policies::shards::SHARDS_MAX);
            return Err(Fault::new(Code::NodeGroupsPerReplicationGroupQuotaExceeded, message));
        }
        let is_other = |count: usize| !groups.is_empty() && count != groups.len();
        if count.is_some_and(is_other) {
            return Err(Fault::combination(
                "NumNodeGroups does not match the number of elements of NodeGroupConfiguration.",
            ));
        }
        if !slots.is_empty() && slots.len() != groups.len() {
            return Err(Fault::combination("Slots must be given for all node groups or for none."));
        }
        check_slots(&slots)?;
        let shards =
            if slots.is_empty() { count.or_else(|| (!groups.is_empty()).then_some(groups.len())) } else { None };
        let wants_mode = match form.said("ClusterMode") {
            None => form.said("CacheParameterGroupName").filter(|name| name.ends_with(".cluster.on")).map(|_| true),
            Some("enabled" | "compatible") => Some(true),
            Some("disabled") => Some(false),
            Some(_) => return Err(Fault::value("The parameter ClusterMode must be enabled, disabled or compatible.")),
        };
        let has_shards = slots.len().max(shards.unwrap_or(0)) > 1;
        if has_shards && wants_mode == Some(false) {
            return Err(Fault::combination("Several node groups need cluster mode."));
        }
        let cluster_mode = wants_mode.or_else(|| (has_shards || !slots.is_empty()).then_some(true));
        Ok(Self { shards, slots, cluster_mode, replicas })
    }
}

/// That all slots are given, each once.
fn check_slots(texts: &[String]) -> Result<(), Fault> {
    if texts.is_empty() {
        return Ok(());
    }
    let sets: Vec<SlotSet> = texts.iter().map(|text| check::slots(text)).collect::<Result<_, _>>()?;
    policies::shards::check_cover(&sets).map_err(|error| Fault::value(format!("Invalid Slots: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards, slots, cluster mode, replicas.
    type Read = (Option<usize>, Vec<String>, Option<bool>, usize);

    fn shape(text: &str) -> Result<Read, Fault> {
        let shape = Shape::read(&Form::parse(text.as_bytes()).unwrap())?;
        Ok((shape.shards, shape.slots, shape.cluster_mode, shape.replicas))
    }

    #[test]
    fn shapes_are_read_as_clients_give_them() {
        let group = |n: usize, what: &str| format!("NodeGroupConfiguration.NodeGroupConfiguration.{n}.{what}&");
        assert_eq!(shape(""), Ok((None, vec![], None, 0)));
        assert_eq!(shape("NumNodeGroups=3&ReplicasPerNodeGroup=1"), Ok((Some(3), vec![], Some(true), 1)));
        assert_eq!(shape("NumCacheClusters=2"), Ok((None, vec![], None, 1)));
        assert_eq!(shape("CacheParameterGroupName=default.redis7.cluster.on"), Ok((None, vec![], Some(true), 0)));
        let two = group(1, "Slots=0-99") + &group(2, "Slots=100-16383");
        assert_eq!(shape(&two), Ok((None, vec!["0-99".to_owned(), "100-16383".to_owned()], Some(true), 0)));
        let even = group(1, "ReplicaCount=0") + &group(2, "NodeGroupId=0002");
        assert_eq!(shape(&even), Ok((Some(2), vec![], Some(true), 0)));
        for (wrong, code) in [
            ("NumNodeGroups=0".to_owned(), Code::NodeGroupsPerReplicationGroupQuotaExceeded),
            (two.clone() + "NumNodeGroups=3", Code::InvalidParameterCombination),
            (two.clone() + "ClusterMode=disabled", Code::InvalidParameterCombination),
            (group(1, "Slots=0-16383") + &group(2, "NodeGroupId=2"), Code::InvalidParameterCombination),
            (group(1, "Slots=0-99") + &group(2, "Slots=99-16383"), Code::InvalidParameterValue),
            (group(1, "Slots=0-99"), Code::InvalidParameterValue),
            ("ClusterMode=on".to_owned(), Code::InvalidParameterValue),
        ] {
            assert_eq!(shape(&wrong).unwrap_err().code, code, "{wrong}");
        }
    }
}
