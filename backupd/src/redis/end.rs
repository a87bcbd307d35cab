//! Whether a payload is whole.

use super::replication::{Framing, MARK_LEN};

/// What can be said of the end of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndVerdict {
    /// More bytes must come before anything can be said.
    NeedMore,
    /// The payload is whole.
    Complete,
    /// The payload is damaged or cut short, and why.
    Bad(String),
}

/// Judges the end of a payload. Nothing but the end of the RDB itself together with the exact length or the
/// mark is accepted: a server's child that dies closes the connection just as an ended one does.
///
/// - `rdb_len`: how long the RDB was, once the scanner has seen its last byte (checksum included);
///   `None` while it has not.
/// - `rest`: the payload bytes after the RDB. What follows a mark (newlines of some servers, commands for
///   clients that asked for them) does not matter.
/// - `closed`: the server closed the connection, or all announced bytes came.
#[must_use]
pub fn check_end(framing: &Framing, rdb_len: Option<u64>, rest: &[u8], closed: bool) -> EndVerdict {
    let Some(rdb_len) = rdb_len else {
        return if closed {
            EndVerdict::Bad("the stream ended before the RDB did".to_owned())
        } else {
            EndVerdict::NeedMore
        };
    };
    match framing {
        Framing::Length(announced) if *announced == rdb_len && rest.is_empty() => EndVerdict::Complete,
        Framing::Length(announced) => {
            EndVerdict::Bad(format!("the RDB ended after {rdb_len} bytes of the {announced} announced"))
        }
        Framing::Mark(mark) => {
            let seen = rest.get(..MARK_LEN).unwrap_or(rest);
            if !mark.starts_with(seen) {
                EndVerdict::Bad("what follows the RDB is not the end mark".to_owned())
            } else if seen.len() == MARK_LEN {
                EndVerdict::Complete
            } else if closed {
                EndVerdict::Bad(format!("the stream ended after {} bytes of the end mark", seen.len()))
            } else {
                EndVerdict::NeedMore
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Framing = Framing::Mark([b'm'; MARK_LEN]);

    #[test]
    fn the_exact_length_and_nothing_else_ends_a_payload_of_known_length() {
        let length = Framing::Length(10);
        assert_eq!(check_end(&length, None, b"", false), EndVerdict::NeedMore);
        assert_eq!(check_end(&length, Some(10), b"", false), EndVerdict::Complete);
        assert_eq!(check_end(&length, Some(10), b"", true), EndVerdict::Complete);
        for (rdb_len, rest, closed) in
            [(None, &b""[..], true), (Some(9), b"", true), (Some(9), b"x", true), (Some(9), b"", false)]
        {
            let verdict = check_end(&length, rdb_len, rest, closed);
            assert!(matches!(verdict, EndVerdict::Bad(_)), "{rdb_len:?} {closed}: {verdict:?}");
        }
    }

    #[test]
    fn the_mark_ends_a_payload_wherever_reads_cut_it() {
        let whole = [b'm'; MARK_LEN];
        for count in 0..MARK_LEN {
            assert_eq!(check_end(&MARK, Some(5), &whole[..count], false), EndVerdict::NeedMore);
            assert!(matches!(check_end(&MARK, Some(5), &whole[..count], true), EndVerdict::Bad(_)));
        }
        assert_eq!(check_end(&MARK, Some(5), &whole, true), EndVerdict::Complete);
        let with_newlines = [&whole[..], b"\n\n"].concat();
        assert_eq!(check_end(&MARK, Some(5), &with_newlines, false), EndVerdict::Complete);
        assert!(matches!(check_end(&MARK, Some(5), b"\nmmm", false), EndVerdict::Bad(_)));
        assert!(matches!(check_end(&MARK, None, b"", true), EndVerdict::Bad(_)));
        assert_eq!(check_end(&MARK, None, b"", false), EndVerdict::NeedMore);
    }
}
