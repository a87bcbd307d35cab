//! A node that is being filled evicts nothing: neither the mark that says so, nor a part of the data.
//!
//! Its policy is noted in the mark and set aside as long as the mark is there, so whoever ends the restore, and be it another
//! process, puts it back.

use super::Target;
use super::mark::Mark;
use crate::error::{Class, Error, Result};
use crate::redis::{Client, Node};

const POLICY: &str = "maxmemory-policy";
/// The policy under which nothing goes.
pub(super) const NONE: &str = "noeviction";

/// How the node evicts keys when no restore fills it, where that has to be set aside.
pub(super) fn of(node: &Node, found: Option<&Mark>) -> Option<String> {
    let noted = found.and_then(|mark| mark.eviction.clone());
    noted.or_else(|| Some(node.maxmemory_policy.clone()).filter(|policy| node.maxmemory > 0 && policy != NONE))
}

/// Sets the policy of a node aside.
///
/// # Errors
/// When the node evicts any key and does not let us change that. One that evicts only keys with an expiry keeps the mark, and
/// what is missing is found when it is verified.
pub(super) async fn set_aside(target: &Target, index: usize, client: &mut Client) -> Result<()> {
    let Some((node, policy)) = target.nodes.get(index).zip(target.eviction(index)) else { return Ok(()) };
    match client.change_setting(POLICY, NONE).await {
        Ok(()) => Ok(()),
        Err(error) if policy.starts_with("allkeys") => {
            let why = error.message();
            let message = format!(
                "{}: it evicts any key when it is full ({policy}), the mark of an unfinished restore too, and does not let us change that: {why}",
                node.address
            );
            Err(Error::new(Class::Refused, message)
                .hint(format!("set {POLICY} of the node to {NONE} for the time of the restore")))
        }
        Err(error) => {
            tracing::warn!(node = %node.address, policy, %error, "it may evict keys while it is filled");
            Ok(())
        }
    }
}

/// Puts the policy of a node back.
///
/// # Errors
/// When the node does not let us, though it let us change it.
pub(super) async fn put_back(mark: &Mark, client: &mut Client) -> Result<()> {
    let Some(policy) = &mark.eviction else { return Ok(()) };
    match client.change_setting(POLICY, policy).await {
        Err(error) if !policy.starts_with("allkeys") => {
            tracing::warn!(policy, %error, "the node evicts as before, if that was set aside at all");
            Ok(())
        }
        put => put,
    }
}
