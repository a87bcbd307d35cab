//! Where a page of a list ends, as callers get it: opaque, so that it may mean something else in another release.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Class, Error, Result};

/// The longest cursor that is looked at, bytes.
const CURSOR_BYTES_MAX: usize = 512;

/// The cursor behind an entry of the list `list`, which orders by a time and an id.
#[must_use]
pub fn write(list: &str, at_ms: u64, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{at_ms}:{id}"))
}

/// The entry that a cursor of the list `list` stands behind.
///
/// # Errors
/// `Usage` when it is no cursor of that list.
pub fn read(list: &str, cursor: &str) -> Result<(u64, String)> {
    let wrong = || {
        Error::new(Class::Usage, "the cursor is not one of this list")
            .hint("give the one of the page before, as it was")
    };
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(wrong());
    }
    let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next().and_then(|ms| ms.parse().ok()), parts.next()) {
        // what a database takes
        (Some(of), Some(at_ms), Some(id)) if of == list && i64::try_from(at_ms).is_ok() && !id.contains('\0') => {
            Ok((at_ms, id.to_owned()))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_by_its_list() {
        let cursor = write("jobs", 12, "a:b");
        assert_eq!(read("jobs", &cursor).unwrap(), (12, "a:b".to_owned()));
        for wrong in [
            "",
            "x",
            "!!",
            cursor.get(1..).unwrap(),
            &"A".repeat(600),
            &write("jobs", u64::MAX, "x"),
            &write("jobs", 1, "\0"),
        ] {
            assert!(read("jobs", wrong).is_err(), "{wrong}");
        }
        assert!(read("events", &cursor).is_err());
    }
}
