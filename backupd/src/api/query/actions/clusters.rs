//! `DescribeCacheClusters` and `ModifyCacheCluster`.

use policies::access::Action;

use super::super::call::{Call, page};
use super::super::check;
use super::super::error::{Code, Fault};
use super::super::known::{Known, Node};
use super::super::shapes::CacheCluster;
use super::super::xml::Writer;
use super::groups::{Wanted, define};

/// The most nodes of a page.
const RECORDS_MAX: u32 = 100;

pub(super) async fn describe(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let count = check::max_records(call.form, RECORDS_MAX)?;
    let with_nodes = call.form.flag("ShowCacheNodeInfo")?.unwrap_or(false);
    let only_single = call.form.flag("ShowCacheClustersNotInReplicationGroups")?.unwrap_or(false);
    let (clusters, marker) = match call.form.said("CacheClusterId") {
        Some(id) => (vec![one(call, &call.node(id, Action::ReadClusters).await?).await?], None),
        None => many(call, only_single, count).await?,
    };
    out.some("Marker", marker.as_deref());
    out.list("CacheClusters", "CacheCluster", &clusters, |out, cluster| cluster.write(out, with_nodes));
    Ok(())
}

/// Nodes are ordered by their clusters' names first, so that no more clusters are looked at than the page needs.
async fn many(call: &Call<'_>, only_single: bool, count: usize) -> Result<(Vec<CacheCluster>, Option<String>), Fault> {
    let marker = call.form.said("Marker");
    let (from, behind) = marker.map_or(("", ""), |marker| marker.split_once(' ').unwrap_or((marker, "")));
    let mut clusters: Vec<(String, CacheCluster)> = Vec::new();
    for name in call.cluster_names().await?.into_iter().filter(|name| name.as_str() >= from) {
        let Some(known) = call.known(&name).await?.filter(|known| !only_single || known.is_single()) else { continue };
        let all = known.cache_clusters(call, call.nodes(&known).await.as_deref());
        let marker = (name == from).then_some(behind);
        let (some, _) = page(all, marker, usize::MAX, |cluster| &cluster.id);
        clusters.extend(some.into_iter().map(|cluster| (name.clone(), cluster)));
        if clusters.len() > count {
            break;
        }
    }
    let is_more = clusters.len() > count;
    clusters.truncate(count);
    let next = clusters.last().filter(|_| is_more).map(|(name, cluster)| format!("{name} {}", cluster.id));
    Ok((clusters.into_iter().map(|(_, cluster)| cluster).collect(), next))
}

/// The shape of a node.
pub(super) async fn one(call: &Call<'_>, node: &Node) -> Result<CacheCluster, Fault> {
    let all = node.known.cache_clusters(call, call.nodes(&node.known).await.as_deref());
    let absent = || Fault::new(Code::CacheClusterNotFound, format!("CacheCluster not found: {}", node.id));
    all.into_iter().find(|cluster| cluster.id.eq_ignore_ascii_case(&node.id)).ok_or_else(absent)
}

pub(super) async fn modify(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let id = call.form.required("CacheClusterId")?;
    call.form.flag("ApplyImmediately")?;
    let wanted = Wanted::read(call)?;
    if call.form.number("NumCacheNodes")?.is_some_and(|count| count != 1) {
        return Err(Fault::value("NumCacheNodes must be 1."));
    }
    let Node { known, id } = call.node(id, Action::ModifyCluster).await?;
    if wanted.is_nothing() {
        return Err(Fault::combination("No modifications were requested"));
    }
    let known: Known = define(call, known, |row| wanted.write(row)).await?;
    let cluster = one(call, &Node { known, id }).await?;
    out.element("CacheCluster", |out| cluster.write(out, true));
    Ok(())
}
