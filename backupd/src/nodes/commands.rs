//! Turns a file into `RESTORE` commands, and short strings that do not expire into commands for several.

use std::io::Write as _;

use rdbtools::crc64::Crc64;
use rdbtools::{Key, Sink, short_string};

use super::STRING_TYPE;
use super::batch::{BATCH_LEN, Made, Of, Piece};
use super::groups::{Groups, STRING_LEN_MAX};
use super::survey::{Survey, shown};
use crate::redis::put_command;

/// A piece ends with the command that fills it, which is mostly a short one.
const PIECE_CAPACITY: usize = BATCH_LEN + BATCH_LEN / 8;

/// Makes commands of what a scanner tells: `SELECT`, `FUNCTION LOAD`, and for each key
/// `RESTORE key ttl payload ABSTTL`, or `MSETNX` for several ([`Groups`]).
///
/// A payload is the type byte, the value as it stands in the file, the file's RDB version (2 bytes, little
/// endian) and the CRC-64 of all that: what `DUMP` gives (`createDumpPayload` of the server).
#[derive(Debug)]
pub(super) struct Commands {
    /// Keys left out because their time is over.
    pub(super) skipped: u64,
    made: Vec<Made>,
    /// Commands that are not handed over yet.
    out: Vec<u8>,
    replies: u64,
    keys: u64,
    survey: Survey,
    rdb_version: [u8; 2],
    now_unix_ms: i64,
    number: u64,
    /// The database that the commands in `out` have chosen: each piece may go over another connection.
    db: Option<u64>,
    state: State,
    /// The database of the key that passes, and of all that the groups hold.
    key_db: u64,
    groups: Option<Groups>,
    /// The name of the key that passes, where it may go with others; and its text.
    name: Vec<u8>,
    text: Vec<u8>,
    /// The command of the key that passes, before its payload, the payload, and what follows it.
    head: Vec<u8>,
    payload: Vec<u8>,
    tail: Vec<u8>,
}

/// What happens with the value that passes.
#[derive(Debug)]
enum State {
    /// It is left out here.
    Skip,
    /// It is held, because its length is not known yet; the survey names every large one.
    Hold,
    /// The same for a string that may go with others.
    HoldString,
    /// Its length is known, so it is passed on; a message calls its key so.
    Pass(Box<Crc64>, String),
}

impl Commands {
    /// Strings go together where there are `groups`.
    pub(super) fn new(survey: Survey, groups: Option<Groups>, now_unix_ms: u64) -> Self {
        Self {
            skipped: 0,
            made: Vec::new(),
            out: Vec::with_capacity(PIECE_CAPACITY),
            replies: 0,
            keys: 0,
            survey,
            rdb_version: [0; 2],
            now_unix_ms: i64::try_from(now_unix_ms).unwrap_or(i64::MAX),
            number: 0,
            db: None,
            state: State::Skip,
            key_db: 0,
            groups,
            name: Vec::new(),
            text: Vec::new(),
            head: Vec::new(),
            payload: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// What is ready.
    pub(super) fn take(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.made)
    }

    /// The file has ended.
    pub(super) fn end(&mut self) {
        self.send_groups();
        self.cut();
    }

    /// Makes commands of the strings that wait for others.
    fn send_groups(&mut self) {
        let Some(mut groups) = self.groups.take() else { return };
        groups.drain(|group| {
            self.select(self.key_db);
            group.put(&mut self.out);
            self.replies += 1;
            self.keys += group.keys();
            self.cut_when_full();
        });
        self.groups = Some(groups);
    }

    fn command(&mut self, words: &[&[u8]]) {
        put_command(&mut self.out, words);
        self.replies += 1;
    }

    fn piece(&mut self, of: Of) -> Piece {
        let bytes = std::mem::replace(&mut self.out, Vec::with_capacity(PIECE_CAPACITY));
        Piece { bytes, replies: std::mem::take(&mut self.replies), keys: std::mem::take(&mut self.keys), of }
    }

    /// Hands over the commands that are whole.
    fn cut(&mut self) {
        if !self.out.is_empty() {
            let piece = self.piece(Of::Keys);
            self.made.push(Made::Whole(piece));
        }
        self.db = None;
    }

    /// The string that has passed waits for others, if it is a short one.
    fn grouped(&mut self) -> bool {
        let (Some(groups), Some((_, raw))) = (&mut self.groups, self.payload.split_first()) else { return false };
        self.text.clear();
        if !short_string(raw, STRING_LEN_MAX, &mut self.text) {
            return false;
        }
        if groups.add(&self.name, &self.text) {
            self.send_groups();
        }
        true
    }

    fn cut_when_full(&mut self) {
        if self.out.len() >= BATCH_LEN {
            self.cut();
        }
    }

    /// Hands over a part of the command of a large value.
    fn next(&mut self, name: String) {
        let piece = self.piece(Of::Key(name));
        self.made.push(Made::Next(piece));
    }

    fn select(&mut self, db: u64) {
        if self.survey.has_databases && self.db != Some(db) {
            self.db = Some(db);
            self.command(&[b"SELECT", db.to_string().as_bytes()]);
        }
    }

    /// The command of a key up to its payload, and what follows that: the expiry is a moment, and how much the key was used.
    fn begin(&mut self, name: &[u8], expires_at_ms: Option<i64>, used: Option<(&str, u64)>) {
        self.tail.clear();
        put_word(&mut self.tail, b"ABSTTL");
        if let Some((option, number)) = used {
            put_word(&mut self.tail, option.as_bytes());
            put_word(&mut self.tail, number.to_string().as_bytes());
        }
        self.head.clear();
        let start: &[u8] = if used.is_some() { b"*7\r\n$7\r\nRESTORE\r\n" } else { b"*5\r\n$7\r\nRESTORE\r\n" };
        self.head.extend_from_slice(start);
        put_word(&mut self.head, name);
        match expires_at_ms {
            None => self.head.extend_from_slice(b"$1\r\n0\r\n"),
            Some(at) => put_word(&mut self.head, at.to_string().as_bytes()),
        }
    }
}

/// Appends a word of a command.
pub(super) fn put_word(out: &mut Vec<u8>, word: &[u8]) {
    put_length(out, word.len() as u64);
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    // writing to a Vec cannot fail
    let _infallible = write!(out, "${length}\r\n");
}

impl Sink for Commands {
    fn header(&mut self, version: rdbtools::RdbVersion) {
        self.rdb_version = version.number.to_le_bytes();
    }

    fn function(&mut self, source: &[u8]) {
        self.command(&[b"FUNCTION", b"LOAD", source]);
    }

    fn key(&mut self, key: &Key<'_>) {
        self.number += 1;
        if key.db != self.key_db {
            self.send_groups();
            self.key_db = key.db;
        }
        let large = self.survey.large.pop_front_if(|large| large.number == self.number);
        self.state = State::Skip;
        // RESTORE takes 0 for "no expiry", so what expired is left out here
        if key.expires_at_ms.is_some_and(|at| at <= self.now_unix_ms) {
            self.skipped += 1;
            return;
        }
        let used = match (key.idle_s, key.frequency) {
            (Some(idle_s), _) => Some(("IDLETIME", idle_s)),
            (None, Some(frequency)) => Some(("FREQ", u64::from(frequency))),
            (None, None) => None,
        };
        match large {
            None => {
                self.payload.clear();
                self.payload.push(key.value_type.code());
                let is_plain = key.value_type.code() == STRING_TYPE && (key.expires_at_ms, used) == (None, None);
                if is_plain && self.groups.is_some() {
                    self.name.clear();
                    self.name.extend_from_slice(key.name);
                    self.state = State::HoldString;
                } else {
                    self.begin(key.name, key.expires_at_ms, used);
                    self.state = State::Hold;
                }
            }
            Some(large) if large.in_parts.is_some() => {}
            Some(large) => {
                self.cut();
                self.begin(key.name, key.expires_at_ms, used);
                self.select(key.db);
                let code = [key.value_type.code()];
                self.out.append(&mut self.head);
                // type byte, version, checksum
                put_length(&mut self.out, large.length + 1 + 2 + 8);
                self.out.extend_from_slice(&code);
                let mut crc = Crc64::new();
                crc.update(&code);
                self.state = State::Pass(Box::new(crc), shown(key.name));
            }
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Skip => {}
            State::Hold | State::HoldString => self.payload.extend_from_slice(bytes),
            State::Pass(crc, name) => {
                crc.update(bytes);
                self.out.extend_from_slice(bytes);
                if self.out.len() >= BATCH_LEN {
                    let name = name.clone();
                    self.next(name);
                }
            }
        }
    }

    fn key_end(&mut self, _bytes: u64) {
        let state = std::mem::replace(&mut self.state, State::Skip);
        match state {
            State::Skip => return,
            State::HoldString if self.grouped() => return,
            State::HoldString => {
                let name = std::mem::take(&mut self.name);
                self.begin(&name, None, None);
                self.name = name;
            }
            State::Hold | State::Pass(..) => {}
        }
        self.replies += 1;
        self.keys += 1;
        if let State::Pass(mut crc, name) = state {
            crc.update(&self.rdb_version);
            self.out.extend_from_slice(&self.rdb_version);
            self.out.extend_from_slice(&crc.value().to_le_bytes());
            self.out.extend_from_slice(b"\r\n");
            self.out.extend_from_slice(&self.tail);
            self.next(name);
            self.made.push(Made::End);
            self.db = None;
            return;
        }
        self.payload.extend_from_slice(&self.rdb_version);
        let mut crc = Crc64::new();
        crc.update(&self.payload);
        self.payload.extend_from_slice(&crc.value().to_le_bytes());
        self.select(self.key_db);
        self.out.extend_from_slice(&self.head);
        put_word(&mut self.out, &self.payload);
        self.out.extend_from_slice(&self.tail);
        self.cut_when_full();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rdbtools::scan::Scanner;

    use super::super::survey::Large;
    use super::*;

    /// `db 0: a = "b"`, `db 2: foo = "bar"` with expiry 1000 ms, RDB version 3.
    const FILE: &[u8] =
        b"REDIS0003\xfe\x00\x00\x01a\x01b\xfe\x02\xfc\xe8\x03\x00\x00\x00\x00\x00\x00\x00\x03foo\x03bar\xff";

    /// The bytes of all pieces, how many replies there will be, and how many keys were left out.
    fn commands(survey: Survey, now: u64, piece: usize) -> (String, u64, u64) {
        grouped(survey, None, FILE, now, piece)
    }

    fn grouped(survey: Survey, groups: Option<Groups>, file: &[u8], now: u64, piece: usize) -> (String, u64, u64) {
        let mut scanner = Scanner::new(Commands::new(survey, groups, now));
        for piece in file.chunks(piece) {
            scanner.feed(piece).unwrap();
        }
        let mut commands = scanner.finish().unwrap().1;
        commands.end();
        let (mut bytes, mut replies) = (Vec::new(), 0);
        for made in commands.take() {
            let (Made::Whole(piece) | Made::Next(piece)) = made else { continue };
            bytes.extend(piece.bytes);
            replies += piece.replies;
        }
        (bytes.escape_ascii().to_string(), replies, commands.skipped)
    }

    fn survey() -> Survey {
        Survey { keys: 2, expires: 1, has_databases: true, ..Survey::default() }
    }

    #[test]
    fn a_value_is_the_same_command_whether_it_is_held_or_passed_on() {
        let (text, replies, _) = commands(survey(), 0, 1000);
        let first =
            r"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*5\r\n$7\r\nRESTORE\r\n$1\r\na\r\n$1\r\n0\r\n$13\r\n\x00\x01b\x03\x00";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains(r"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n*5\r\n$7\r\nRESTORE\r\n$3\r\nfoo\r\n$4\r\n1000\r\n"));
        assert_eq!(replies, 4);
        let large = |number, length| Large { number, length, in_parts: None };
        let large = || Survey { large: VecDeque::from([large(1, 2), large(2, 4)]), ..survey() };
        for piece in [1, 2, 1000] {
            assert_eq!(commands(large(), 0, piece), (text.clone(), 4, 0));
            assert_eq!(commands(survey(), 0, piece), (text.clone(), 4, 0));
        }
    }

    #[test]
    fn a_key_whose_time_is_over_is_left_out() {
        let (text, replies, skipped) = commands(survey(), 1000, 1000);
        assert_eq!((replies, skipped), (2, 1));
        assert!(!text.contains("foo"));
    }

    /// Strings `a`, `n` (a number), `z` (compressed), a list, one that expires, one that is often used, one that is too long; `a` in database 2.
    fn strings() -> Vec<u8> {
        let mut file =
            b"REDIS0009\xfe\x00\x00\x01a\x01b\x00\x01n\xc1\x39\x30\x00\x01z\xc3\x04\x09\x00a\xc0\x00".to_vec();
        file.extend(b"\x01\x01l\x01\x01x\xfc\xe8\x03\x00\x00\x00\x00\x00\x00\x00\x01e\x01b\xf9\x05\x00\x01f\x01b");
        file.extend(b"\x00\x01t\x44\x01");
        file.extend([b't'; 1025]);
        file.extend(b"\xfe\x02\x00\x01a\x01c\xff\x00\x00\x00\x00\x00\x00\x00\x00");
        file
    }

    #[test]
    fn short_strings_without_expiry_go_together_per_database() {
        let survey = || Survey { keys: 8, expires: 1, has_databases: true, ..Survey::default() };
        let (text, replies, _) = grouped(survey(), Some(Groups::new(false)), &strings(), 0, 7);
        let restored = |name: &str| text.contains(&format!(r"$7\r\nRESTORE\r\n$1\r\n{name}\r\n"));
        assert_eq!(["l", "e", "f", "t", "a", "n", "z"].map(restored), [true, true, true, true, false, false, false]);
        let first =
            r"*7\r\n$6\r\nMSETNX\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nn\r\n$5\r\n12345\r\n$1\r\nz\r\n$9\r\naaaaaaaaa\r\n";
        let last = r"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n*3\r\n$6\r\nMSETNX\r\n$1\r\na\r\n$1\r\nc\r\n";
        assert!(text.starts_with(r"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n") && text.contains(first), "{text}");
        assert!(text.ends_with(&format!("{first}{last}")), "{text}");
        // four restored, two groups, two databases
        assert_eq!(replies, 8);
        let (text, replies, _) = grouped(survey(), None, &strings(), 0, 7);
        assert_eq!((text.contains("MSETNX"), replies), (false, 10));
    }
}
