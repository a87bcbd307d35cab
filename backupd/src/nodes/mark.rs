//! The mark on nodes that a restore has begun to fill: as long as it is there, they hold a part of the data.
//!
//! It is a key in a slot that the node serves, written before the first key of the data and removed when everything was
//! verified. So a node that was left half full by whatever end is never taken for a restored one, nor for a stranger's.

use ::redis::{Cmd, cmd};
use policies::slot::{SLOT_COUNT, SlotSet, key_slot};
use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};
use crate::redis::Client;

/// What every such key begins with; a number follows that puts it into a slot of its node.
pub(super) const PREFIX: &str = "backupd:restore-unfinished:";
/// Every slot is met long before this number.
const TRIES_MAX: u32 = 64 * 16384;

/// What becomes of nodes that an earlier restore left unfinished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unfinished {
    /// They are refused.
    #[default]
    Refuse,
    /// Shards that were sent whole stay, if it was the same restore; the others start over.
    Resume,
    /// They are emptied.
    Replace,
}

/// What the mark of a node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Which restore it was.
    pub(crate) restore: String,
    /// Whether all keys of the node were sent.
    pub(crate) is_sent: bool,
    /// How the node evicts keys when no restore fills it, where that was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) eviction: Option<String>,
    /// How the node loads what a primary sends it when no restore fills it, where that was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loading: Option<String>,
    /// By how many ms expiries were moved, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shift_ms: Option<i64>,
}

impl Mark {
    /// As it stands in the key.
    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::new(Class::Unforeseen, error.to_string()))
    }
}

/// The key of the mark of a node with these slots; `None`: without cluster mode.
pub(crate) fn key(slots: Option<&SlotSet>) -> String {
    numbered(PREFIX, slots)
}

/// A name that begins with `prefix` and ends with a number that puts it into one of these slots; `None`: any.
pub(super) fn numbered(prefix: &str, slots: Option<&SlotSet>) -> String {
    let name = |number| format!("{prefix}{number}");
    let belongs = |number: &u32| slots.is_none_or(|slots| slots.contains(key_slot(name(*number).as_bytes())));
    name((0..TRIES_MAX).find(belongs).unwrap_or(u32::from(SLOT_COUNT)))
}

/// Reads the mark of a node, if there is one.
pub(super) async fn read(client: &mut Client, key: &str) -> Result<Option<Mark>> {
    let text: Option<String> = client.query("GET", cmd("GET").arg(key)).await?;
    // whatever stands there, somebody began a restore
    let unreadable = || Mark { restore: String::new(), is_sent: false, eviction: None, loading: None, shift_ms: None };
    Ok(text.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| unreadable())))
}

pub(super) async fn write(client: &mut Client, key: &str, mark: &Mark) -> Result<()> {
    client.query("SET", cmd("SET").arg(key).arg(mark.text()?)).await
}

pub(super) async fn remove(client: &mut Client, key: &str) -> Result<()> {
    client.query("DEL", cmd("DEL").arg(key)).await
}

/// Removes all keys and functions of a node.
pub(super) async fn empty(client: &mut Client) -> Result<()> {
    client.query::<()>("FLUSHALL", &cmd("FLUSHALL")).await?;
    let functions: Cmd = cmd("FUNCTION").arg("FLUSH").to_owned();
    match client.query::<()>("FUNCTION FLUSH", &functions).await {
        // servers before 7.0 have no functions
        Err(error) if error.message().to_ascii_lowercase().contains("unknown command") => Ok(()),
        flushed => flushed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_mark_is_in_a_slot_of_its_node() {
        assert_eq!(key(None), format!("{PREFIX}0"));
        for slot in [0, 77, 16383] {
            let slots = SlotSet::range(slot, slot).unwrap();
            assert_eq!(key_slot(key(Some(&slots)).as_bytes()), slot);
        }
    }
}
