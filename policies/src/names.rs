//! Names of snapshots and clusters.

/// The longest name, in bytes. Longer than the 50 characters that ElastiCache creates, within its read limit.
pub const NAME_LEN_MAX: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} name `{name}` is refused: {reason}")]
pub struct NameError {
    what: &'static str,
    name: String,
    reason: &'static str,
}

/// Checks the name of a snapshot or of a cluster (`what` says which, for the message).
///
/// A name begins with a letter or digit and holds letters, digits, `.`, `_` and `-`, at most
/// [`NAME_LEN_MAX`] bytes. It becomes part of object names, so nothing that a path or a URL treats
/// specially is allowed; `..` cannot begin a name and `/` cannot occur.
///
/// # Errors
/// The rule that the name breaks.
pub fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    let refuse = |reason| Err(NameError { what, name: name.chars().take(NAME_LEN_MAX).collect(), reason });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > NAME_LEN_MAX {
        return refuse("it is longer than 128 bytes");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refuse("it must begin with a letter or a digit");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return refuse("only letters, digits, `.`, `_` and `-` are allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "_names", "-x", "a b", "é", &"x".repeat(129)] {
            assert!(check("snapshot", name).is_err(), "{name}");
        }
        for name in ["nightly-1", "A.b_c", "20261123", &"x".repeat(128)] {
            assert!(check("snapshot", name).is_ok(), "{name}");
        }
    }
}
