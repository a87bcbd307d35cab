//! The commands that make what an RDB holds, as they are sent to a server (arrays of bulk strings). They are those that a
//! server writes when it rewrites its append-only file (`aof.c`).
//!
//! A [`Commands`] stands behind a [`Decoder`](crate::decode::Decoder) and writes to an [`Output`]. Values pass: what has to be
//! held is bounded, and what cannot be held ends the scan. What no command makes again is refused or counted.
//!
//! ```
//! use rdbtools::commands::{Commands, Output};
//! use rdbtools::decode::Decoder;
//! use rdbtools::{ScanError, Scanner};
//!
//! struct Text(Vec<u8>);
//!
//! impl Output for Text {
//!     fn put(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
//!         self.0.extend_from_slice(bytes);
//!         Ok(())
//!     }
//! }
//!
//! let mut scanner = Scanner::new(Decoder::new(Commands::new(Text(Vec::new()), false)));
//! scanner.feed(b"REDIS0003\xfe\x00\x00\x03foo\x03bar\xff")?;
//! let mut commands = scanner.finish()?.1.into_values();
//! assert_eq!(commands.out().0, b"*3\r\n$3\r\nSET\r\n$3\r\nfoo\r\n$3\r\nbar\r\n");
//! # Ok::<(), ScanError>(())
//! ```

mod held;
mod losses;
mod stream;

use crate::decode::{Part, StreamFacts, StreamId, Values};
use crate::error::{ErrorKind, ScanError};
use crate::sink::{Key, Sink};
use crate::structure::Role;
use crate::value::ModuleId;

pub use held::{HELD_MAX, Held};
use losses::Losses;

/// The most arguments of one command that adds elements, and about the most bytes of it. A longer element has a
/// command of its own, which is written as the element passes.
const BATCH_ARGUMENTS_MAX: usize = 128;
const BATCH_LEN_MAX: usize = 64 << 10;

/// A pending entry: its id, when it was delivered, how often.
type Delivery = (StreamId, u64, u64);

/// What happens to the string that is passing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Discarded,
    Held,
    Written,
}

/// Where commands go.
pub trait Output {
    /// Takes more bytes.
    ///
    /// # Errors
    /// Whatever ends the scan.
    fn put(&mut self, bytes: &[u8]) -> Result<(), ScanError>;

    /// A command begins: the bytes that follow are its own, and the one before is complete.
    fn begin_command(&mut self) {}

    /// No command makes what `message` names; `hint` says what can be done about it. The key is left out, unless a scan is to
    /// end here: then the next [`Self::put`] or [`Self::check`] says so.
    fn refuse(&mut self, message: String, hint: &str) {
        let _ = (message, hint);
    }

    /// Whether the scan goes on.
    ///
    /// # Errors
    /// Whatever ends the scan.
    fn check(&self) -> Result<(), ScanError> {
        Ok(())
    }
}

/// Writes commands.
#[derive(Debug)]
pub struct Commands<O> {
    out: O,
    skip_modules: bool,
    losses: Losses,
    db: u64,
    key: Vec<u8>,
    expires_at_ms: Option<i64>,
    /// The command that adds elements: RPUSH, SADD, ZADD, HSET, XADD; none for a string.
    word: &'static str,
    is_discarded: bool,
    /// Whether a command has made the key.
    is_made: bool,
    role: Role,
    passing: Passing,
    /// The string that is held, and the one before it: a field.
    current: Vec<u8>,
    field: Vec<u8>,
    /// Elements of the command under way, as they are written.
    batch: Vec<u8>,
    arguments: usize,
    shared: Held,
    next_shared: Option<usize>,
    facts: StreamFacts,
    group: Vec<u8>,
    pending: Vec<Delivery>,
    /// Entries of the stream, ascending; `None` where they are too many.
    live: Option<Vec<StreamId>>,
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Writes a command, or its first arguments where more follow.
fn command(out: &mut impl Output, arguments: &[&[u8]], more: u64) -> Result<(), ScanError> {
    out.begin_command();
    let mut text = format!("*{}\r\n", arguments.len() as u64 + more).into_bytes();
    arguments.iter().for_each(|argument| bulk(&mut text, argument));
    out.put(&text)
}

impl<O: Output> Commands<O> {
    /// Writes to `out`; what belongs to modules is refused, or left out without a word.
    pub fn new(out: O, skip_modules: bool) -> Self {
        Self {
            out,
            skip_modules,
            losses: Losses::default(),
            db: 0,
            key: Vec::new(),
            expires_at_ms: None,
            word: "",
            is_discarded: false,
            is_made: false,
            role: Role::Untold,
            passing: Passing::Discarded,
            current: Vec::new(),
            field: Vec::new(),
            batch: Vec::new(),
            arguments: 0,
            shared: Held::default(),
            next_shared: None,
            facts: StreamFacts::default(),
            group: Vec::new(),
            pending: Vec::new(),
            live: None,
        }
    }

    /// Where the commands go.
    pub fn out(&mut self) -> &mut O {
        &mut self.out
    }

    /// What could not be written: a line for each kind that occurred, with how often.
    pub fn losses(&self) -> Vec<String> {
        self.losses.told()
    }

    /// Adds arguments to the command under way.
    fn add(&mut self, arguments: &[&[u8]]) -> Result<(), ScanError> {
        if self.arguments + arguments.len() > BATCH_ARGUMENTS_MAX || self.batch.len() > BATCH_LEN_MAX {
            self.flush()?;
        }
        arguments.iter().for_each(|argument| bulk(&mut self.batch, argument));
        self.arguments += arguments.len();
        self.is_made = true;
        Ok(())
    }

    /// Writes the command under way.
    fn flush(&mut self) -> Result<(), ScanError> {
        if self.arguments == 0 {
            return Ok(());
        }
        command(&mut self.out, &[self.word.as_bytes(), &self.key], self.arguments as u64)?;
        self.out.put(&self.batch)?;
        self.batch.clear();
        self.arguments = 0;
        Ok(())
    }

    fn begin(&mut self, offset: u64, role: Role, length: u64) -> Result<(), ScanError> {
        self.role = role;
        self.passing = Passing::Held;
        self.current.clear();
        let is_short = length <= BATCH_LEN_MAX as u64;
        let is_stream = self.word == "XADD";
        match role {
            _ if self.is_discarded => self.passing = Passing::Discarded,
            Role::Producer | Role::ProducerId => self.passing = Passing::Discarded,
            Role::SharedField => return self.shared.begin(offset, length),
            Role::Text => {
                command(&mut self.out, &[b"SET", &self.key], 1)?;
                return self.write(length);
            }
            Role::Field if is_stream => return self.write(length),
            Role::FieldValue if is_stream => {
                self.write_shared()?;
                return self.write(length);
            }
            Role::Item | Role::Member if !is_short && self.word != "ZADD" => {
                self.flush()?;
                command(&mut self.out, &[self.word.as_bytes(), &self.key], 1)?;
                return self.write(length);
            }
            Role::FieldValue if !is_short => {
                self.flush()?;
                command(&mut self.out, &[b"HSET", &self.key, &self.field], 1)?;
                return self.write(length);
            }
            _ if length > HELD_MAX as u64 => {
                let message = format!("a member, field or name of {length} bytes: more than {HELD_MAX} cannot be held");
                return Err(ScanError { offset, kind: ErrorKind::Unsupported, message });
            }
            _ => {}
        }
        Ok(())
    }

    /// The string that is passing is written as it passes.
    fn write(&mut self, length: u64) -> Result<(), ScanError> {
        self.passing = Passing::Written;
        self.is_made = true;
        self.out.put(format!("${length}\r\n").as_bytes())
    }

    /// The field that the next value of a stream's entry belongs to, where the entry does not name it.
    fn write_shared(&mut self) -> Result<(), ScanError> {
        let Some(index) = self.next_shared else { return Ok(()) };
        self.next_shared = Some(index + 1);
        let mut text = Vec::new();
        bulk(&mut text, self.shared.strings.get(index).map_or(&[][..], Vec::as_slice));
        self.out.put(&text)
    }

    fn end(&mut self) -> Result<(), ScanError> {
        match self.passing {
            Passing::Discarded => return Ok(()),
            Passing::Written => return self.out.put(b"\r\n"),
            Passing::Held => {}
        }
        let current = std::mem::take(&mut self.current);
        let added = match self.role {
            Role::Item => self.add(&[&current]),
            Role::Member if self.word == "SADD" => self.add(&[&current]),
            Role::Member | Role::Field => {
                self.field.clone_from(&current);
                Ok(())
            }
            Role::FieldValue => {
                let field = std::mem::take(&mut self.field);
                let added = self.add(&[&field, &current]);
                self.field = field;
                added
            }
            Role::Group => {
                self.group.clone_from(&current);
                self.pending.clear();
                Ok(())
            }
            Role::Consumer => {
                self.field.clone_from(&current);
                command(&mut self.out, &[b"XGROUP", b"CREATECONSUMER", &self.key, &self.group, &current], 0)
            }
            _ => Ok(()),
        };
        self.current = current;
        added
    }

    fn field_expiry(&mut self, at: Option<u64>) -> Result<(), ScanError> {
        let Some(at) = at else { return Ok(()) };
        self.flush()?;
        let at = at.to_string();
        command(&mut self.out, &[b"HPEXPIREAT", &self.key, at.as_bytes(), b"FIELDS", b"1", &self.field], 0)
    }

    fn value_end(&mut self) -> Result<(), ScanError> {
        self.flush()?;
        match self.expires_at_ms {
            Some(at) if self.is_made => {
                command(&mut self.out, &[b"PEXPIREAT", &self.key, at.to_string().as_bytes()], 0)
            }
            _ => Ok(()),
        }
    }
}

impl<O: Output> Values for Commands<O> {
    fn part(&mut self, offset: u64, part: Part<'_>) -> Result<(), ScanError> {
        self.out.check()?;
        match part {
            Part::Begin { role, length } => self.begin(offset, role, length),
            Part::Piece(bytes) if self.role == Role::SharedField => {
                self.shared.add(bytes);
                Ok(())
            }
            Part::Piece(bytes) => match self.passing {
                Passing::Discarded => Ok(()),
                Passing::Written => self.out.put(bytes),
                Passing::Held => {
                    self.current.extend_from_slice(bytes);
                    Ok(())
                }
            },
            Part::End => self.end(),
            Part::Score(score) => {
                let member = std::mem::take(&mut self.field);
                // the shortest text that reads as the same number
                let added = self.add(&[format!("{score:?}").as_bytes(), &member]);
                self.field = member;
                added
            }
            Part::FieldExpiry(at) => self.field_expiry(at),
            Part::Node(_) => {
                self.shared.clear();
                Ok(())
            }
            Part::Entry { id, deleted, shared, fields } => self.entry(id, deleted, shared, fields),
            Part::EntryEnd => {
                self.is_discarded = false;
                Ok(())
            }
            Part::Stream(facts) => self.stream(facts),
            Part::Group { last_id, entries_read } => self.group(last_id, entries_read),
            Part::Pending { id, delivered_ms, deliveries } => self.delivery(offset, (id, delivered_ms, deliveries)),
            Part::ConsumerPending(id) => self.claim(offset, id),
            Part::Nacked(_) => {
                self.losses.nacked += 1;
                Ok(())
            }
            Part::ArrayIndex(_) | Part::ArrayInsert(_) => {
                let message = format!(
                    "key \"{}\" is an array (Redis 8.8), for which no command is known here",
                    self.key.escape_ascii()
                );
                self.out.refuse(message, "use --format json");
                self.out.check()
            }
            Part::Count { role: Role::Producer, count } => {
                self.losses.idempotence += u64::from(count > 0);
                Ok(())
            }
            Part::ValueEnd => self.value_end(),
            Part::Count { .. }
            | Part::NodeEnd
            | Part::Consumer { .. }
            | Part::Idempotence { .. }
            | Part::ProducerEntry(_)
            | Part::ModuleNumber(_) => Ok(()),
        }
    }
}

impl<O: Output> Sink for Commands<O> {
    fn function(&mut self, source: &[u8]) {
        // an error of the output is kept there
        let _ = command(&mut self.out, &[b"FUNCTION", b"LOAD", source], 0);
    }

    fn function_pre_ga(&mut self, name: &[u8]) {
        let name = name.escape_ascii();
        let message = format!("the function library \"{name}\" is in a form that no released server loads");
        self.out.refuse(message, "the release candidates of Redis 7.0 wrote it; nothing decodes it");
    }

    fn module_aux(&mut self, module: ModuleId, _when: u64) {
        self.losses.module_data += 1;
        if !self.skip_modules {
            let message = format!("the module {} keeps data that no command makes", module.name());
            self.out.refuse(message, "leave it out with --skip-modules");
        }
    }

    fn key(&mut self, key: &Key<'_>) {
        if self.db != key.db {
            self.db = key.db;
            let _ = command(&mut self.out, &[b"SELECT", key.db.to_string().as_bytes()], 0);
        }
        self.key.clear();
        self.key.extend_from_slice(key.name);
        self.expires_at_ms = key.expires_at_ms;
        self.word = match key.value_type.code() {
            0 | 7 => "",
            1 | 10 | 14 | 18 => "RPUSH",
            2 | 11 | 20 => "SADD",
            3 | 5 | 12 | 17 => "ZADD",
            _ if key.value_type.name().starts_with("stream") => "XADD",
            _ => "HSET",
        };
        self.is_discarded = false;
        self.is_made = false;
        let mut live = self.live.take().unwrap_or_default();
        live.clear();
        self.live = Some(live);
        self.losses.metadata += u64::from(!key.meta.is_empty());
        self.losses.attributes += u64::from(key.idle_s.is_some() || key.frequency.is_some());
    }

    fn module_value(&mut self, module: ModuleId) {
        self.is_discarded = true;
        self.losses.modules += 1;
        if !self.skip_modules {
            let (name, key) = (module.name(), self.key.escape_ascii());
            let message = format!("key \"{key}\" belongs to the module {name}: no command makes it");
            self.out.refuse(message, "leave out what modules keep with --skip-modules, or use --format json");
        }
    }
}
