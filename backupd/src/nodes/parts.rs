//! Values that are longer than a node takes as one argument, made by commands, one part after another.
//!
//! Such a value grows under a temporary name in the slot of its key, which is random, so it is nobody's, and gets its own name
//! (`RENAMENX`) and its expiry when it is whole. A node on which a part is left is marked as unfinished and bears the
//! mark until it was emptied. What no command makes again is found out before: that needs `RESTORE`.

use std::collections::VecDeque;
use std::path::PathBuf;

use policies::slot::{SlotSet, key_slot};
use rdbtools::commands::{Commands, Output};
use rdbtools::decode::{Decoder, Part, Values};
use rdbtools::scan::Scanner;
use rdbtools::structure::Role;
use rdbtools::{Key, ModuleId, ScanError, Sink};
use tokio::task::spawn_blocking;

use super::STRING_TYPE;
use super::batch::{BATCH_LEN, Made, Of, Piece};
use super::limits::Limits;
use super::mark::numbered;
use super::survey::{Large, Needs, Survey, scan_file, shown};
use crate::crypt;
use crate::error::{Class, Result};
use crate::redis::put_command;
use crate::task_failed;

/// What the name of every value that is not whole begins with; random digits and a number follow.
const PREFIX: &str = "backupd:restore-part:";
/// Random bytes of such names.
const RANDOM_LEN: usize = 8;
/// A command is in a server's query buffer with what was read behind it.
const BEHIND_LEN: u64 = 1 << 20;

/// Finds out for each value that the node does not take whether commands make it, and notes that in the survey.
pub(super) async fn plan(mut survey: Survey, file: PathBuf, limits: Limits) -> Result<Survey> {
    let too_large = |large: &&mut Large| !limits.take(large.needs());
    let numbers: VecDeque<u64> = survey.large.iter_mut().filter(too_large).map(|large| large.number).collect();
    if numbers.is_empty() {
        return Ok(survey);
    }
    let databases = survey.has_databases;
    let look = move || {
        let mut parts = Parts::new(numbers, databases, 0)?;
        parts.is_rehearsal = true;
        let mut found = Vec::new();
        let scanned = scan_file(&file, Scanner::new(Decoder::new(parts)), |scanner| {
            let parts = scanner.sink_mut().values_mut();
            parts.take();
            found.append(&mut parts.rehearsed);
            Ok(())
        });
        match scanned {
            Ok((_, sink)) => found.append(&mut sink.into_values().rehearsed),
            // a part of a value is too long to be held: this one and those behind it go as they are
            Err(error) if error.class() == Class::Version => tracing::debug!(%error, "not in parts"),
            Err(error) => return Err(error),
        }
        Ok(found)
    };
    for (number, needs) in spawn_blocking(look).await.map_err(task_failed)?? {
        if let Some(large) = survey.large.iter_mut().find(|large| large.number == number) {
            large.in_parts = Some(needs);
        }
    }
    Ok(survey)
}

/// Makes the commands of the values with these numbers, and leaves out all others.
pub(super) struct Parts {
    numbers: VecDeque<u64>,
    number: u64,
    has_databases: bool,
    now_unix_ms: i64,
    prefix: String,
    commands: Commands<Buffer>,
    made: Vec<Made>,
    passing: Option<Passing>,
    /// Nothing is sent: it is to be known what the commands need.
    is_rehearsal: bool,
    /// The numbers of the values that commands make, and what these need.
    rehearsed: Vec<(u64, Needs)>,
}

/// The value that passes.
struct Passing {
    name: Vec<u8>,
    temporary: String,
    expires_at_ms: Option<i64>,
    is_string: bool,
    /// Bytes of the string that were written.
    written: u64,
    needs: Needs,
    /// What was lost of all values before.
    lost_before: Vec<String>,
    is_possible: bool,
}

/// Commands that are not handed over yet.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// How many commands have begun, and how many replies were announced.
    begun: u64,
    announced: u64,
    is_refused: bool,
}

impl Output for Buffer {
    fn put(&mut self, bytes: &[u8]) -> std::result::Result<(), ScanError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn begin_command(&mut self) {
        self.begun += 1;
    }

    fn refuse(&mut self, _message: String, _hint: &str) {
        self.is_refused = true;
    }
}

impl Buffer {
    fn command(&mut self, words: &[&[u8]]) {
        self.begin_command();
        put_command(&mut self.bytes, words);
    }

    /// What is there, of which the last `open` commands are not whole.
    fn piece(&mut self, open: u64, of: Of) -> Piece {
        let ended = self.begun - open;
        let replies = ended - std::mem::replace(&mut self.announced, ended);
        Piece { bytes: std::mem::take(&mut self.bytes), replies, keys: 0, of }
    }
}

impl Parts {
    pub(super) fn new(numbers: VecDeque<u64>, has_databases: bool, now_unix_ms: u64) -> Result<Self> {
        Ok(Self {
            numbers,
            number: 0,
            has_databases,
            now_unix_ms: i64::try_from(now_unix_ms).unwrap_or(i64::MAX),
            prefix: format!("{PREFIX}{}:", hex::encode(crypt::random::<RANDOM_LEN>()?)),
            commands: Commands::new(Buffer::default(), false),
            made: Vec::new(),
            passing: None,
            is_rehearsal: false,
            rehearsed: Vec::new(),
        })
    }

    /// Whether there is any such value.
    pub(super) fn has_any(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// What is ready.
    pub(super) fn take(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.made)
    }

    fn out(&mut self) -> &mut Buffer {
        self.commands.out()
    }

    fn hand_over(&mut self, open: u64, of: Of) {
        let piece = self.out().piece(open, of);
        if !self.is_rehearsal && (piece.replies > 0 || !piece.bytes.is_empty()) {
            self.made.push(Made::Next(piece));
        }
    }

    /// A string grows in its place, so that no argument is longer than a piece of it.
    fn string(&mut self, passing: &mut Passing, part: Part<'_>) {
        let temporary = passing.temporary.as_bytes();
        match part {
            Part::Begin { length, .. } => {
                let last = length.saturating_sub(1).to_string();
                self.out().command(&[b"SETRANGE", temporary, last.as_bytes(), b"\0"]);
            }
            Part::Piece(bytes) => {
                let at = passing.written.to_string();
                self.out().command(&[b"SETRANGE", temporary, at.as_bytes(), bytes]);
                passing.written += bytes.len() as u64;
            }
            _ => {}
        }
    }

    fn note_needs(passing: &mut Passing, part: &Part<'_>) {
        let Part::Begin { role, length } = *part else { return };
        // a string is written in pieces, every other one is an argument
        let argument = if passing.is_string || role == Role::Packed { 0 } else { length };
        let needs = Needs { string: length, argument: argument.saturating_add(BEHIND_LEN) };
        passing.needs = passing.needs.and(needs);
    }

    /// The value is whole: it gets its name and its expiry.
    fn end(&mut self, passing: Passing) {
        let is_lossless = self.commands.losses() == passing.lost_before && !self.out().is_refused;
        self.out().is_refused = false;
        if self.is_rehearsal {
            self.out().piece(0, Of::Keys);
            if is_lossless && passing.is_possible {
                self.rehearsed.push((self.number, passing.needs));
            }
            return;
        }
        let name = shown(&passing.name);
        self.hand_over(0, Of::Key(name.clone()));
        self.out().command(&[b"RENAMENX", passing.temporary.as_bytes(), &passing.name]);
        if let Some(at) = passing.expires_at_ms {
            self.out().command(&[b"PEXPIREAT", &passing.name, at.to_string().as_bytes()]);
        }
        let mut piece = self.out().piece(0, Of::Naming(name));
        piece.keys = 1;
        self.made.extend([Made::Next(piece), Made::End]);
    }
}

impl Sink for Parts {
    const TEMPLATES: bool = true;

    fn key(&mut self, key: &Key<'_>) {
        self.number += 1;
        let is_late = key.expires_at_ms.is_some_and(|at| at <= self.now_unix_ms);
        let is_asked = self.numbers.pop_front_if(|number| *number == self.number).is_some();
        if !is_asked || is_late {
            return;
        }
        let slots: SlotSet = [key_slot(key.name)].into_iter().collect();
        let temporary = numbered(&self.prefix, Some(&slots));
        if self.has_databases {
            self.out().command(&[b"SELECT", key.db.to_string().as_bytes()]);
        }
        let lost_before = self.commands.losses();
        self.commands.key(&Key {
            db: 0,
            name: temporary.as_bytes(),
            expires_at_ms: None,
            idle_s: None,
            frequency: None,
            ..*key
        });
        self.passing = Some(Passing {
            name: key.name.to_vec(),
            temporary,
            expires_at_ms: key.expires_at_ms,
            is_string: key.value_type.code() == STRING_TYPE,
            written: 0,
            needs: Needs::default(),
            lost_before,
            is_possible: true,
        });
    }

    fn module_value(&mut self, module: ModuleId) {
        if let Some(passing) = &mut self.passing {
            passing.is_possible = false;
            self.commands.module_value(module);
        }
    }

    fn key_end(&mut self, _bytes: u64) {
        if let Some(passing) = self.passing.take() {
            self.end(passing);
        }
    }
}

impl Values for Parts {
    fn part(&mut self, offset: u64, part: Part<'_>) -> std::result::Result<(), ScanError> {
        let Some(mut passing) = self.passing.take() else { return Ok(()) };
        Self::note_needs(&mut passing, &part);
        if matches!(part, Part::ArrayIndex(_) | Part::ArrayInsert(_)) {
            passing.is_possible = false;
        }
        if passing.is_string {
            self.string(&mut passing, part);
        } else if passing.is_possible {
            self.commands.part(offset, part)?;
        }
        if self.out().bytes.len() >= BATCH_LEN {
            let name = shown(&passing.name);
            self.hand_over(1, Of::Key(name));
        }
        self.passing = Some(passing);
        Ok(())
    }
}
