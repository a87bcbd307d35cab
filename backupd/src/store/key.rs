//! What a key may look like, the same in every store.

use crate::error::{Class, Error, Result};

/// The longest key in bytes, with the prefix of the repository: the limit of S3.
pub const KEY_LEN_MAX: usize = 1024;

/// The longest part of a key in bytes: the limit of most file systems.
pub const PART_LEN_MAX: usize = 255;

/// How much of a refused key an error shows.
const SHOWN_CHARS_MAX: usize = 100;

/// Checks a key: parts of ASCII letters, digits, `.`, `_` and `-`, joined by `/`. No part is empty or begins with
/// `.`, so a key cannot leave its folder, and the temporary files of a folder cannot be named.
///
/// # Errors
/// `Usage`, with the rule that the key breaks.
pub fn check(key: &str) -> Result<()> {
    verdict(key).map_err(|reason| refusal("object key", key, reason))
}

/// Checks the prefix of a listing: the beginning of a key, possibly empty, possibly ending within a part.
///
/// # Errors
/// As [`check`].
pub fn check_prefix(prefix: &str) -> Result<()> {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() {
        return Ok(());
    }
    verdict(whole).map_err(|reason| refusal("key prefix", prefix, reason))
}

/// Whether [`check`] accepts the key.
#[must_use]
pub fn is_valid(key: &str) -> bool {
    verdict(key).is_ok()
}

fn refusal(what: &str, key: &str, reason: &str) -> Error {
    let shown: String = key.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_default).collect();
    Error::new(Class::Usage, format!("{what} `{shown}` is refused: {reason}"))
}

fn verdict(key: &str) -> Result<(), &'static str> {
    if key.len() > KEY_LEN_MAX {
        return Err("it is longer than 1024 bytes");
    }
    key.split('/').try_for_each(part_verdict)
}

fn part_verdict(part: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("it has an empty part");
    }
    if part.starts_with('.') {
        return Err("a part begins with `.`");
    }
    if part.len() > PART_LEN_MAX {
        return Err("a part is longer than 255 bytes");
    }
    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err("only letters, digits, `.`, `_` and `-` are allowed in its parts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_would_leave_the_store_are_refused() {
        let long_part = "x".repeat(PART_LEN_MAX + 1);
        let long = "x/".repeat(KEY_LEN_MAX / 2) + "x";
        let bad = ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.tmp-1", "a b", "a\0", "é", "a\\b"];
        for key in bad.into_iter().chain([long_part.as_str(), long.as_str()]) {
            assert_eq!(check(key).unwrap_err().class(), Class::Usage, "{key}");
        }
        for key in ["a", "a/b..c/d-e_f.json", "20261123T080000Z-1f2e3d4c/manifest.json", "-", "_"] {
            check(key).unwrap();
        }
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_key() {
        for prefix in ["", "a", "a/", "a/b", "a/b/"] {
            check_prefix(prefix).unwrap();
        }
        for prefix in ["/", "//", "../", "a//", "a/.", "é"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }
}
