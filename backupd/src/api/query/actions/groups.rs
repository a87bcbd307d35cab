//! `DescribeReplicationGroups` and `ModifyReplicationGroup`.

use policies::access::Action;

use super::super::call::{Call, page};
use super::super::check;
use super::super::error::Fault;
use super::super::known::Known;
use super::super::xml::Writer;
use crate::catalog::DefinitionRow;

/// The most groups of a page.
const RECORDS_MAX: u32 = 100;

pub(super) async fn describe(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let count = check::max_records(call.form, RECORDS_MAX)?;
    let (known, marker) = match call.form.said("ReplicationGroupId") {
        Some(id) => (vec![call.group(id, Action::ReadClusters).await?], None),
        None => {
            let mut known = Vec::new();
            let names = call.cluster_names().await?;
            let mut marker = call.form.said("Marker").map(str::to_owned);
            // what was removed leaves room for others on the page
            loop {
                let (some, next) = page(names.clone(), marker.as_deref(), count - known.len(), |name| name);
                for name in some {
                    known.extend(call.known(&name).await?.filter(|known| !known.is_single()));
                }
                marker = next;
                if known.len() == count || marker.is_none() {
                    break;
                }
            }
            (known, marker)
        }
    };
    let mut groups = Vec::new();
    for known in &known {
        groups.push(known.group(call, call.nodes(known).await.as_deref()));
    }
    out.some("Marker", marker.as_deref());
    out.list("ReplicationGroups", "ReplicationGroup", &groups, |out, group| group.write(out));
    Ok(())
}

pub(super) async fn modify(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let id = call.form.required("ReplicationGroupId")?;
    call.form.flag("ApplyImmediately")?;
    let wanted = Wanted::read(call)?;
    refuse_more(call)?;
    let description = call.form.said("ReplicationGroupDescription");
    let known = call.group(id, Action::ModifyCluster).await?;
    let snapshotting = call.form.said("SnapshottingClusterId").unwrap_or_default();
    if wanted.is_nothing() && description.is_none() && snapshotting.is_empty() {
        return Err(Fault::combination("No modifications were requested"));
    }
    let change = |row: &mut DefinitionRow| {
        wanted.write(row);
        if let Some(description) = description {
            description.clone_into(&mut row.description);
        }
        if !snapshotting.is_empty() {
            snapshotting.clone_into(&mut row.snapshotting);
        }
    };
    let known = define(call, known, change).await?;
    let group = known.group(call, call.nodes(&known).await.as_deref());
    out.element("ReplicationGroup", |out| group.write(out));
    Ok(())
}

/// What else AWS can change of a group: refused rather than said to be done.
fn refuse_more(call: &Call<'_>) -> Result<(), Fault> {
    let others = [
        "AuthToken",
        "AuthTokenUpdateStrategy",
        "AutomaticFailoverEnabled",
        "CacheNodeType",
        "CacheParameterGroupName",
        "Engine",
        "EngineVersion",
        "MultiAZEnabled",
        "TransitEncryptionEnabled",
    ];
    match others.iter().find(|name| call.form.said(name).is_some()) {
        Some(name) => {
            Err(Fault::combination(format!("{name} cannot be modified here: the nodes are not run by this service.")))
        }
        None => Ok(()),
    }
}

/// Windows and retention that somebody wants.
#[derive(Debug)]
pub(super) struct Wanted {
    window: Option<String>,
    retention_days: Option<u32>,
}

impl Wanted {
    pub(super) fn read(call: &Call<'_>) -> Result<Self, Fault> {
        let retention_days = check::retention(call.form)?;
        let window = call.form.said("SnapshotWindow").map(check::window).transpose()?;
        if let Some(maintenance) = call.form.said("PreferredMaintenanceWindow") {
            check::maintenance(maintenance, window.as_deref())?;
        }
        Ok(Self { window, retention_days })
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.window.is_none() && self.retention_days.is_none()
    }

    pub(super) fn write(&self, row: &mut DefinitionRow) {
        if let Some(window) = &self.window {
            row.window_text = Some(window.clone());
        }
        if let Some(days) = self.retention_days {
            row.retention_days = Some(i64::from(days));
        }
    }
}

/// Changes what is said of a cluster, so that it holds from now on.
pub(super) async fn define(call: &Call<'_>, known: Known, change: impl Fn(&mut DefinitionRow)) -> Result<Known, Fault> {
    call.say((known.repository(), &known.name), |before| {
        let mut row = before.unwrap_or_else(|| DefinitionRow::new(&known.name, call.now_ms));
        change(&mut row);
        Ok(Some(row))
    })
    .await?;
    let definition = call.query.services.catalog.definition(&known.name).await?;
    Ok(Known { definition, ..known })
}
