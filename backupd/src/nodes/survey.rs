//! What is in a file, to know it before anything is written: seen while the file is made, or read for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use policies::slot::{SlotSet, key_slot};
use rdbtools::scan::Scanner;
use rdbtools::{ErrorKind, Key, ModuleId, Sink};
use tokio::task::spawn_blocking;

use super::mark;
use crate::error::{Class, Error, Result};
use crate::task_failed;

/// A value above this is passed on while it is read; one below is held until its end, because a command
/// begins with the length of its value.
pub(super) const HELD_LEN_MAX: u64 = 1 << 20;

/// What surrounds a value in its payload, and a payload in its command, but for the name of the key.
const AROUND_LEN: u64 = 1 << 20;

/// How many bytes of a file are read at a time.
const READ_LEN: usize = 256 * 1024;

/// How many bytes of a key's name a message shows.
const NAME_SHOWN_MAX: usize = 120;

/// A value that is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Large {
    /// The number of its key, counted from 1.
    pub(super) number: u64,
    /// Its bytes in the file.
    pub(super) length: u64,
    /// Commands make it, one part after another: what the longest of them asks of the node.
    pub(super) in_parts: Option<Needs>,
}

/// What a node has to take, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The longest string: `proto-max-bulk-len`.
    pub(super) string: u64,
    /// The longest argument of a command: `client-query-buffer-limit`.
    pub(super) argument: u64,
}

impl Needs {
    /// What both need.
    pub(super) fn and(self, other: Self) -> Self {
        Self { string: self.string.max(other.string), argument: self.argument.max(other.argument) }
    }
}

impl Large {
    /// What a node has to take for it.
    pub(super) fn needs(&self) -> Needs {
        let payload = self.length.saturating_add(AROUND_LEN);
        self.in_parts.unwrap_or(Needs { string: payload, argument: payload })
    }
}

/// What a file holds, as far as sending it depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Its keys.
    pub(super) keys: u64,
    /// Keys with an expiry.
    pub(super) expires: u64,
    /// Some keys are in a database above 0.
    pub(super) has_databases: bool,
    /// Each value above [`HELD_LEN_MAX`].
    pub(super) large: VecDeque<Large>,
    /// It holds the mark of a restore that did not end.
    pub(super) is_marked: bool,
    /// Why no command carries all of it.
    pub(super) refused: Option<String>,
}

impl Survey {
    /// What a node has to take for the largest values.
    pub(super) fn needs(&self) -> Needs {
        self.large.iter().map(Large::needs).fold(Needs::default(), Needs::and)
    }

    /// The number of the key that asks the most of the node.
    pub(super) fn neediest(&self) -> Option<u64> {
        self.large.iter().max_by_key(|large| large.needs().string).map(|large| large.number)
    }

    /// The numbers of the keys whose values commands make.
    pub(super) fn in_parts(&self) -> VecDeque<u64> {
        self.large.iter().filter(|large| large.in_parts.is_some()).map(|large| large.number).collect()
    }
}

/// Surveys a file; with `slots`, every key must belong to them.
pub(super) async fn survey(path: PathBuf, slots: Option<SlotSet>) -> Result<Survey> {
    let read = move || scan_file(&path, scanner(slots), |_| Ok(())).map(|(_, sink)| sink.survey);
    spawn_blocking(read).await.map_err(task_failed)?
}

fn scanner(slots: Option<SlotSet>) -> Scanner<Surveyor> {
    let mark = mark::key(slots.as_ref());
    // who makes the file has scanned what it is made of
    Scanner::new(Surveyor { slots, mark, survey: Survey::default(), value_len: 0 }).deferring_compressed()
}

/// The survey of a file while it is made: another reading of all of it is spared.
#[derive(Debug)]
pub struct Surveying(Box<Scanner<Surveyor>>);

impl Surveying {
    /// As a survey of the file that is made; with `slots`, every key must belong to them.
    pub(crate) fn new(slots: Option<SlotSet>) -> Self {
        Self(Box::new(scanner(slots)))
    }

    /// Sees the next bytes of it.
    ///
    /// # Errors
    /// When what was made is no RDB.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> std::result::Result<(), rdbtools::ScanError> {
        self.0.feed(bytes).map(drop)
    }

    /// All of it was seen.
    ///
    /// # Errors
    /// When what was made ends too early.
    pub(crate) fn end(self) -> std::result::Result<Survey, rdbtools::ScanError> {
        self.0.finish().map(|(_, sink)| sink.survey)
    }
}

/// Scans a whole file; `after_piece` is called after each piece and can end it.
pub(super) fn scan_file<S: Sink>(
    path: &Path,
    mut scanner: Scanner<S>,
    mut after_piece: impl FnMut(&mut Scanner<S>) -> Result<()>,
) -> Result<(rdbtools::Summary, S)> {
    let unreadable = |error: std::io::Error| Error::new(Class::NotFound, format!("{}: {error}", path.display()));
    let damaged = |error: rdbtools::ScanError| {
        let class = if error.kind == ErrorKind::Unsupported { Class::Version } else { Class::Verification };
        Error::new(class, format!("{}: {error}", path.display()))
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut buffer = vec![0; READ_LEN];
    while !scanner.is_done() {
        let count = file.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            break;
        }
        scanner.feed(buffer.get(..count).unwrap_or_default()).map_err(damaged)?;
        after_piece(&mut scanner)?;
    }
    scanner.finish().map_err(damaged)
}

#[derive(Debug)]
struct Surveyor {
    slots: Option<SlotSet>,
    /// The key of the mark of the node that gets the file.
    mark: String,
    survey: Survey,
    value_len: u64,
}

impl Surveyor {
    fn refuse(&mut self, message: String) {
        self.survey.refused.get_or_insert(message);
    }
}

impl Sink for Surveyor {
    fn function_pre_ga(&mut self, name: &[u8]) {
        self.refuse(format!("the function library {} is in a form that no released server loads", shown(name)));
    }

    fn module_aux(&mut self, module: ModuleId, _when: u64) {
        self.refuse(format!(
            "data of the module type {} outside of keys cannot be sent to a running node",
            module.name()
        ));
    }

    fn key(&mut self, key: &Key<'_>) {
        self.survey.keys += 1;
        self.survey.expires += u64::from(key.expires_at_ms.is_some());
        self.value_len = 0;
        self.survey.has_databases |= key.db != 0;
        self.survey.is_marked |= key.db == 0 && key.name == self.mark.as_bytes();
        if !key.meta.is_empty() {
            self.refuse(format!("key {}: metadata of modules cannot be sent to a running node", shown(key.name)));
        }
        if let Some(slots) = &self.slots {
            let slot = key_slot(key.name);
            if key.db != 0 {
                self.refuse(format!("key {} is in database {}, a cluster has only 0", shown(key.name), key.db));
            } else if !slots.contains(slot) {
                self.refuse(format!("key {} is in slot {slot}, which is not in {slots}", shown(key.name)));
            }
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.value_len = self.value_len.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    fn key_end(&mut self, _bytes: u64) {
        if self.value_len > HELD_LEN_MAX {
            let (number, length) = (self.survey.keys, self.value_len);
            self.survey.large.push_back(Large { number, length, in_parts: None });
        }
    }
}

/// The name of a key by its number, as a message shows it. Names are not noted, since few are ever asked for: the file is read for one.
pub(super) async fn name_of(path: PathBuf, number: u64) -> Result<String> {
    let wanted = Named { left: number, name: String::new() };
    let read = move || scan_file(&path, Scanner::new(wanted).deferring_compressed(), |_| Ok(())).map(|(_, it)| it.name);
    spawn_blocking(read).await.map_err(task_failed)?
}

/// The key that comes when none is left before it.
struct Named {
    left: u64,
    name: String,
}

impl Sink for Named {
    fn key(&mut self, key: &Key<'_>) {
        self.left = self.left.wrapping_sub(1);
        if self.left == 0 {
            self.name = shown(key.name);
        }
    }
}

/// A key's name as a message shows it.
pub(super) fn shown(name: &[u8]) -> String {
    let cut = name.get(..NAME_SHOWN_MAX).unwrap_or(name);
    format!("`{}`", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `db 0: a = "b"`, `db 2: foo = 2 MiB` with an expiry, RDB version 3.
    fn file() -> Vec<u8> {
        let head = b"REDIS0003\xfe\x00\x00\x01a\x01b\xfe\x02\xfc\xe8\x03\x00\x00\x00\x00\x00\x00\x00\x03foo\x80\x00\x20\x00\x00";
        [head, &vec![b'v'; 2 << 20][..], b"\xff"].concat()
    }

    #[tokio::test]
    async fn a_file_is_the_same_seen_while_it_is_made_and_read_afterwards() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, file()).unwrap();
        for slots in [None, Some(SlotSet::range(0, 100).unwrap())] {
            let read = survey(path.path().to_owned(), slots.clone()).await.unwrap();
            assert_eq!((read.keys, read.expires, read.has_databases), (2, 1, true));
            assert_eq!(read.large, [Large { number: 2, length: (2 << 20) + 5, in_parts: None }]);
            assert_eq!(read.refused.is_some(), slots.is_some(), "{:?}", read.refused);
            for piece in [1, 1000, 3 << 20] {
                let mut surveying = Surveying::new(slots.clone());
                file().chunks(piece).for_each(|piece| surveying.feed(piece).unwrap());
                assert_eq!(surveying.end().unwrap(), read);
            }
        }
        let mut surveying = Surveying::new(None);
        surveying.feed(&file()[..1000]).unwrap();
        surveying.end().unwrap_err();
    }
}
