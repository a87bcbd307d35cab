//! Short strings that are sent together: one `MSETNX` for several keys of a slot costs a server much less than a `RESTORE` for each.
//!
//! `MSETNX` makes all of its keys, or none when one is there already, and a string that it makes is what `RESTORE` would make of it:
//! servers choose the encoding of a string by its text alone (`tryObjectEncoding`, `src/object.c`), for both.

use std::ops::Range;

use ::redis::cmd;
use policies::slot::key_slot;

use super::commands::put_word;
use super::survey::shown;
use super::{ShardFile, mark_key, refusal};
use crate::error::{Class, Error, Result};
use crate::redis::{Client, Node, SourceOptions, connect};

/// What makes several strings at once.
pub(super) const COMMAND: &[u8] = b"MSETNX";
/// Longer strings go alone, in bytes.
pub(super) const STRING_LEN_MAX: u64 = 1024;
/// The most keys of one command.
const KEYS_MAX: usize = 64;
/// Bytes that are held until they are sorted: enough that a slot has several keys among them.
const HELD_LEN: usize = 8 << 20;

/// Keys and values that wait for others of their slot.
#[derive(Debug)]
pub(super) struct Groups {
    /// Without cluster mode all keys go together.
    has_slots: bool,
    /// Key and value of each, as they stand in a command.
    bytes: Vec<u8>,
    held: Vec<Held>,
}

/// A key that waits.
#[derive(Debug)]
struct Held {
    slot: u16,
    /// Where its key and value are.
    words: Range<usize>,
}

impl Groups {
    pub(super) fn new(has_slots: bool) -> Self {
        Self { has_slots, bytes: Vec::new(), held: Vec::new() }
    }

    /// Whether `node` takes such commands from us. It bears its mark, so this one changes nothing.
    ///
    /// # Errors
    /// `Refused` when the mark is gone.
    pub(super) async fn probe(node: &Node, client: &mut Client, file: &ShardFile) -> Result<Option<Self>> {
        let mark = mark_key(file.slots.as_ref());
        match client.query::<i64>("MSETNX", cmd("MSETNX").arg(&mark).arg("")).await {
            Ok(0) => Ok(Some(Self::new(file.slots.is_some()))),
            Ok(_) => {
                let message = format!("{}: its mark {mark} is gone: the node was not left alone", node.address);
                Err(Error::new(Class::Refused, message))
            }
            Err(error) => {
                tracing::info!(node = %node.address, %error, "every string gets a RESTORE of its own");
                Ok(None)
            }
        }
    }

    /// That one of these keys was there already; which, where that is still to be seen.
    pub(super) async fn taken(node: &Node, options: &SourceOptions, keys: &[Vec<u8>]) -> Error {
        let mut found = None;
        if let Ok(mut client) = connect(&node.address, options).await {
            for key in keys {
                if matches!(client.query("EXISTS", cmd("EXISTS").arg(key)).await, Ok(1)) {
                    found = Some(shown(key));
                    break;
                }
            }
        }
        let first = || keys.first().map(|key| shown(key)).unwrap_or_default();
        let name = found.unwrap_or_else(|| format!("{} or one of {} more", first(), keys.len().saturating_sub(1)));
        refusal::taken(&node.address.to_string(), &name)
    }

    /// Takes a key; whether it is time to send what is held.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let begin = self.bytes.len();
        put_word(&mut self.bytes, name);
        put_word(&mut self.bytes, value);
        let slot = if self.has_slots { key_slot(name) } else { 0 };
        self.held.push(Held { slot, words: begin..self.bytes.len() });
        self.bytes.len() >= HELD_LEN
    }

    /// Gives up what is held: `put` gets each command and how many keys it makes.
    pub(super) fn drain(&mut self, mut put: impl FnMut(Group<'_>)) {
        self.held.sort_unstable_by_key(|held| (held.slot, held.words.start));
        let slots = self.held.chunk_by(|one, other| one.slot == other.slot);
        for keys in slots.flat_map(|slot| slot.chunks(KEYS_MAX)) {
            put(Group { bytes: &self.bytes, keys });
        }
        self.held.clear();
        self.bytes.clear();
    }
}

/// Keys of one slot.
pub(super) struct Group<'a> {
    bytes: &'a [u8],
    keys: &'a [Held],
}

impl Group<'_> {
    /// How many they are.
    pub(super) fn keys(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Appends the command that makes them.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("*{}\r\n", 1 + 2 * self.keys.len()).as_bytes());
        put_word(out, COMMAND);
        for held in self.keys {
            out.extend_from_slice(self.bytes.get(held.words.clone()).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(groups: &mut Groups) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        groups.drain(|group| {
            let mut out = Vec::new();
            group.put(&mut out);
            all.push((group.keys(), out.escape_ascii().to_string()));
        });
        all
    }

    #[test]
    fn keys_of_a_slot_go_together_and_no_others() {
        let names: Vec<String> = (0..200).map(|number| format!("{{{}}}{number}", number % 3)).collect();
        let mut groups = Groups::new(true);
        names.iter().for_each(|name| assert!(!groups.add(name.as_bytes(), b"value")));
        let all = drained(&mut groups);
        // 67, 67, 66 keys of three slots, of which a command takes 64
        assert_eq!(all.iter().map(|(keys, _)| *keys).collect::<Vec<_>>().len(), 6);
        assert_eq!(all.iter().map(|(keys, _)| keys).sum::<u64>(), 200);
        for name in &names {
            let word = format!(r"\r\n{name}\r\n$5\r\nvalue");
            let found: Vec<_> = all.iter().filter(|(_, text)| text.contains(&word)).collect();
            let slot = |text: &str| (0..3).filter(|tag| text.contains(&format!("{{{tag}}}"))).count();
            assert_eq!(found.iter().map(|(_, text)| slot(text)).collect::<Vec<_>>(), [1], "{name}");
        }
        assert_eq!(drained(&mut groups), []);
    }

    #[test]
    fn without_slots_all_keys_go_together() {
        let mut groups = Groups::new(false);
        groups.add(b"a", b"1");
        groups.add(b"b", b"");
        let text = r"*5\r\n$6\r\nMSETNX\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$0\r\n\r\n";
        assert_eq!(drained(&mut groups), [(2, text.to_owned())]);
        assert!(groups.add(b"c", &vec![b'x'; HELD_LEN]));
    }
}
