//! Commands on their way to a node.

use tokio::sync::mpsc;

use super::survey::shown;

/// Commands are sent when so many bytes of them are ready.
pub(super) const BATCH_LEN: usize = 256 * 1024;

/// Commands, or a part of one.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// How many commands end within it, which are so many replies.
    pub(super) replies: u64,
    /// Keys that the node has taken when it has answered all of them.
    pub(super) keys: u64,
    pub(super) of: Of,
}

/// What a piece is for.
#[derive(Debug)]
pub(super) enum Of {
    /// Whole commands, for some keys: no reply may be 0.
    Keys,
    /// A part of what makes the key that a message calls so.
    Key(String),
    /// The key gets its name: no reply may be 0.
    Naming(String),
}

impl Piece {
    /// What a message calls the key of a command, the first of which is number 0.
    pub(super) fn name(&self, number: u64) -> String {
        match &self.of {
            Of::Key(name) | Of::Naming(name) => name.clone(),
            Of::Keys => match self.words(number).as_slice() {
                [b"SELECT", db, ..] => format!("database {}", db.escape_ascii()),
                [b"FUNCTION", ..] => "a function library".to_owned(),
                [_, key, ..] => shown(key),
                _ => String::new(),
            },
        }
    }

    fn words(&self, number: u64) -> Vec<&[u8]> {
        commands(&self.bytes).nth(usize::try_from(number).unwrap_or(usize::MAX)).unwrap_or_default()
    }

    /// The keys of a command that makes several; the first is number 0.
    pub(super) fn keys_of(&self, number: u64) -> Vec<Vec<u8>> {
        self.words(number).into_iter().skip(1).step_by(2).map(<[u8]>::to_vec).collect()
    }
}

/// The words of the commands in these bytes, one command after another.
fn commands(mut bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    std::iter::from_fn(move || {
        let count = number(&mut bytes, b'*')?;
        (0..count).map(|_| word(&mut bytes)).collect()
    })
}

fn word<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(bytes, b'$')?;
    let (word, rest) = bytes.split_at_checked(length)?;
    *bytes = rest.strip_prefix(b"\r\n")?;
    Some(word)
}

fn number(bytes: &mut &[u8], mark: u8) -> Option<usize> {
    let rest = bytes.strip_prefix(&[mark])?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let (digits, rest) = rest.split_at_checked(end)?;
    *bytes = rest.strip_prefix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What one connection is given.
#[derive(Debug)]
pub(super) enum Batch {
    /// Whole commands.
    Whole(Piece),
    /// Pieces that have to go one after another over the same connection.
    Series(mpsc::Receiver<Piece>),
}

/// What whoever makes commands has ready.
#[derive(Debug)]
pub(super) enum Made {
    /// Whole commands.
    Whole(Piece),
    /// The next piece of a series, which begins with the first.
    Next(Piece),
    /// The series has ended.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::put_command;

    #[test]
    fn a_command_is_called_by_its_key() {
        let mut bytes = Vec::new();
        put_command(&mut bytes, &[b"FUNCTION", b"LOAD", b"*3\r\n$1\r\n"]);
        put_command(&mut bytes, &[b"SELECT", b"7"]);
        put_command(&mut bytes, &[b"RESTORE", b"a\r\n", b"0", b"payload\r\n*1\r\n"]);
        put_command(&mut bytes, &[b"RESTORE", b"", b"0", b""]);
        put_command(&mut bytes, &[b"MSETNX", b"one", b"1"]);
        put_command(&mut bytes, &[b"MSETNX", b"one", b"1", b"two", b"2", b"three", b"3"]);
        let piece = Piece { bytes, replies: 6, keys: 6, of: Of::Keys };
        let names: Vec<String> = (0..7).map(|number| piece.name(number)).collect();
        assert_eq!(names, ["a function library", "database 7", r"`a\r\n`", "``", "`one`", "`one`", ""]);
        assert_eq!(piece.keys_of(5), [&b"one"[..], b"two", b"three"]);
    }
}
