//! Turns a file into commands.

use rdbtools::crc64::Crc64;
use rdbtools::{Key, Sink};

use super::survey::{Survey, shown};
use crate::redis::put_command;

/// Makes commands of what a scanner tells: `SELECT`, `FUNCTION LOAD`, and for each key
/// `RESTORE key ttl payload ABSTTL`.
///
/// A payload is the type byte, the value as it stands in the file, the file's RDB version (2 bytes, little
/// endian) and the CRC-64 of all that: what `DUMP` gives (`createDumpPayload` of the server).
#[derive(Debug)]
pub(super) struct Commands {
    /// Bytes to send.
    pub(super) out: Vec<u8>,
    /// For each command that ends within `out`, what a message calls it.
    pub(super) names: Vec<String>,
    /// Keys left out because their time is over.
    pub(super) skipped: u64,
    survey: Survey,
    rdb_version: [u8; 2],
    now_unix_ms: i64,
    number: u64,
    db: u64,
    name: String,
    state: State,
    /// What follows the payload in the command of the key that passes.
    tail: Vec<u8>,
}

/// What happens with the value that passes.
#[derive(Debug)]
enum State {
    /// It is left out.
    Skip,
    /// It is held, because its length is not known yet; the survey names every large one.
    Hold { head: Vec<u8>, payload: Vec<u8> },
    /// Its length is known, so it is passed on.
    Pass(Box<Crc64>),
}

impl Commands {
    pub(super) fn new(survey: Survey, now_unix_ms: u64) -> Self {
        Self {
            out: Vec::new(),
            names: Vec::new(),
            skipped: 0,
            survey,
            rdb_version: [0; 2],
            now_unix_ms: i64::try_from(now_unix_ms).unwrap_or(i64::MAX),
            number: 0,
            db: 0,
            name: String::new(),
            state: State::Skip,
            tail: Vec::new(),
        }
    }

    fn command(&mut self, name: String, words: &[&[u8]]) {
        put_command(&mut self.out, words);
        self.names.push(name);
    }
}

/// Options after the payload: the expiry is a moment, and how much the key was used.
fn options(key: &Key<'_>) -> Vec<Vec<u8>> {
    let mut options = vec![b"ABSTTL".to_vec()];
    if let Some(idle_s) = key.idle_s {
        options.extend([b"IDLETIME".to_vec(), idle_s.to_string().into_bytes()]);
    } else if let Some(frequency) = key.frequency {
        options.extend([b"FREQ".to_vec(), frequency.to_string().into_bytes()]);
    }
    options
}

fn put_word(out: &mut Vec<u8>, word: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

impl Sink for Commands {
    fn header(&mut self, version: rdbtools::RdbVersion) {
        self.rdb_version = version.number.to_le_bytes();
    }

    fn function(&mut self, source: &[u8]) {
        self.command("a function library".to_owned(), &[b"FUNCTION", b"LOAD", source]);
    }

    fn key(&mut self, key: &Key<'_>) {
        self.number += 1;
        let large = self.survey.large.pop_front_if(|(number, _)| *number == self.number);
        self.state = State::Skip;
        // RESTORE takes 0 for "no expiry", so what expired is left out here
        if key.expires_at_ms.is_some_and(|at| at <= self.now_unix_ms) {
            self.skipped += 1;
            return;
        }
        if key.db != self.db {
            self.db = key.db;
            let db = key.db.to_string();
            self.command(format!("database {db}"), &[b"SELECT", db.as_bytes()]);
        }
        self.name = shown(key.name);
        let options = options(key);
        self.tail.clear();
        options.iter().for_each(|option| put_word(&mut self.tail, option));
        let mut head = format!("*{}\r\n", 4 + options.len()).into_bytes();
        put_word(&mut head, b"RESTORE");
        put_word(&mut head, key.name);
        put_word(&mut head, key.expires_at_ms.unwrap_or(0).to_string().as_bytes());
        let code = [key.value_type.code()];
        self.state = match large {
            None => State::Hold { head, payload: code.to_vec() },
            Some((_, value_len)) => {
                // type byte, version, checksum
                head.extend_from_slice(format!("${}\r\n", value_len + 1 + 2 + 8).as_bytes());
                head.extend_from_slice(&code);
                self.out.extend_from_slice(&head);
                let mut crc = Crc64::new();
                crc.update(&code);
                State::Pass(Box::new(crc))
            }
        };
    }

    fn raw(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Skip => {}
            State::Hold { payload, .. } => payload.extend_from_slice(bytes),
            State::Pass(crc) => {
                crc.update(bytes);
                self.out.extend_from_slice(bytes);
            }
        }
    }

    fn key_end(&mut self, _bytes: u64) {
        match std::mem::replace(&mut self.state, State::Skip) {
            State::Skip => return,
            State::Hold { head, mut payload } => {
                payload.extend_from_slice(&self.rdb_version);
                let mut crc = Crc64::new();
                crc.update(&payload);
                payload.extend_from_slice(&crc.value().to_le_bytes());
                self.out.extend_from_slice(&head);
                put_word(&mut self.out, &payload);
            }
            State::Pass(mut crc) => {
                crc.update(&self.rdb_version);
                self.out.extend_from_slice(&self.rdb_version);
                self.out.extend_from_slice(&crc.value().to_le_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.out.extend_from_slice(&self.tail);
        self.names.push(std::mem::take(&mut self.name));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rdbtools::scan::Scanner;

    use super::*;

    /// `db 0: a = "b"`, `db 2: foo = "bar"` with expiry 1000 ms, RDB version 3.
    const FILE: &[u8] =
        b"REDIS0003\xfe\x00\x00\x01a\x01b\xfe\x02\xfc\xe8\x03\x00\x00\x00\x00\x00\x00\x00\x03foo\x03bar\xff";

    fn commands(survey: Survey, now: u64, piece: usize) -> Commands {
        let mut scanner = Scanner::new(Commands::new(survey, now));
        for piece in FILE.chunks(piece) {
            scanner.feed(piece).unwrap();
        }
        scanner.finish().unwrap().1
    }

    #[test]
    fn a_value_is_the_same_command_whether_it_is_held_or_passed_on() {
        let held = commands(Survey::default(), 0, 1000);
        let text = held.out.escape_ascii().to_string();
        assert!(text.starts_with(r"*5\r\n$7\r\nRESTORE\r\n$1\r\na\r\n$1\r\n0\r\n$13\r\n\x00\x01b\x03\x00"), "{text}");
        assert!(text.contains(r"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n*5\r\n$7\r\nRESTORE\r\n$3\r\nfoo\r\n$4\r\n1000\r\n"));
        assert_eq!(held.names, ["`a`", "database 2", "`foo`"]);
        let large = || Survey { keys: 2, expires: 1, large: VecDeque::from([(1, 2), (2, 4)]), ..Survey::default() };
        for piece in [1, 2, 1000] {
            assert_eq!(commands(large(), 0, piece).out, held.out);
            assert_eq!(commands(Survey::default(), 0, piece).out, held.out);
        }
    }

    #[test]
    fn a_key_whose_time_is_over_is_left_out() {
        let late = commands(Survey::default(), 1000, 1000);
        assert_eq!((late.skipped, late.names), (1, vec!["`a`".to_owned()]));
    }
}
