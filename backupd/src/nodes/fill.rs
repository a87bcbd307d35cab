//! What is done to one node: it is marked, gets its keys by the way that it allows, and is counted.

use tokio_util::sync::CancellationToken;

use super::groups::Groups;
use super::limits::Limits;
use super::primary::{Fed, Load};
use super::send::Sent;
use super::survey::Survey;
use super::{
    Form, Method, ShardFile, Target, Unfinished, eviction, interrupted, limits, mark, mark_key, parts, primary, send,
    survey,
};
use crate::error::{Class, Error, Result};
use crate::redis::{Node, Role, SourceOptions, connect};

/// Fills one node, unless it is full already; the number of its keys.
pub(super) async fn fill(
    target: &Target,
    (node, file): (&Node, &ShardFile),
    survey: Survey,
    options: &SourceOptions,
    (index, told): (usize, tokio::sync::mpsc::Sender<Sent>),
    stop: &CancellationToken,
) -> Result<u64> {
    if stop.is_cancelled() {
        return Err(interrupted());
    }
    if prepare(target, index, file, options).await? {
        return send::check_keys(node, options, &survey, 0).await;
    }
    if target.form == Form::Standalone && target.method != Method::Restore {
        let mut load = Load { file: &file.rdb, mark: target.mark(index, false) };
        match primary::feed(node, &mut load, options, &told, stop).await? {
            Fed::Loaded => {
                mark_sent(target, index, file, options).await?;
                return send::check_keys(node, options, &survey, 0).await;
            }
            Fed::NotPossible(why) if target.method == Method::Sync => {
                let message = format!("{}: it cannot be synchronised by us: {why}", node.address);
                return Err(Error::new(Class::Refused, message)
                    .hint("leave out --method sync: RESTORE needs no way back to us"));
            }
            Fed::NotPossible(why) => {
                tracing::warn!(node = %node.address, why, "filled by RESTORE: it cannot be synchronised by us");
            }
        }
    }
    if let Some(message) = survey.refused.clone() {
        return Err(Error::new(Class::Refused, message).hint("restore with --launch or --out instead"));
    }
    let mut client = connect(&node.address, options).await?;
    let limits = Limits::of(&mut client).await;
    let survey = parts::plan(survey, file.rdb.clone(), limits).await?;
    let groups = Groups::probe(node, &mut client, file).await?;
    let before = match limits::raise(&mut client, limits, survey.needs()).await {
        Ok(before) => before,
        Err(error) => return Err(name_neediest(error, &survey, file).await),
    };
    let sent = tokio::select! {
        sent = send::send(node, file, (survey, groups), options, index, told) => sent,
        () = stop.cancelled() => Err(interrupted()),
    };
    // whatever came of it
    let put_back = limits::put_back(&mut client, before).await;
    if let (Err(_), Err(left)) = (&sent, &put_back) {
        tracing::warn!(node = %node.address, error = %left, "its limits may stay raised");
    }
    let keys = sent?;
    put_back?;
    mark_sent(target, index, file, options).await?;
    Ok(keys)
}

/// Says which key it is that a node cannot take.
async fn name_neediest(error: Error, survey: &Survey, file: &ShardFile) -> Error {
    let Some(number) = survey.neediest() else { return error };
    match survey::name_of(file.rdb.clone(), number).await {
        Ok(name) => error.at(format!("key {name}")),
        Err(unknown) => {
            tracing::debug!(error = %unknown, "the name of the key is not known");
            error
        }
    }
}

async fn mark_sent(target: &Target, index: usize, file: &ShardFile, options: &SourceOptions) -> Result<()> {
    let Some(node) = target.nodes.get(index) else { return Ok(()) };
    let mut client = connect(&node.address, options).await?;
    mark::write(&mut client, &mark_key(file.slots.as_ref()), &target.mark(index, true)).await
}

/// Marks a node, and empties it if it holds what an earlier restore left; whether it holds all of its keys already.
async fn prepare(target: &Target, index: usize, file: &ShardFile, options: &SourceOptions) -> Result<bool> {
    let Some(node) = target.nodes.get(index) else { return Ok(false) };
    let key = mark_key(file.slots.as_ref());
    let mut client = connect(&node.address, options).await?;
    let found = target.marks.get(index).cloned().flatten();
    if let Some(found) = found {
        if found.is_sent && found.restore == target.restore && target.unfinished == Unfinished::Resume {
            eviction::set_aside(target, index, &mut client).await?;
            return Ok(true);
        }
        if node.role == Role::Replica || found.loading.is_some() {
            primary::free(&mut client, found.loading.as_deref()).await?;
        }
        mark::empty(&mut client).await?;
    }
    // the mark says what was set aside, so it comes first
    mark::write(&mut client, &key, &target.mark(index, false)).await?;
    eviction::set_aside(target, index, &mut client).await?;
    Ok(false)
}
