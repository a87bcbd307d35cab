//! The one error of the program: what happened, where, whether retrying can help, and what to do.
//!
//! The class decides the exit code (DESIGN: "Command-line contract"); the table is [`Class::exit_code`].

use std::fmt;

/// What kind of failure it is. Each class has one exit code and one text code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not foreseen: a bug, or an environment we did not think of.
    Unforeseen,
    /// The command line is wrong.
    Usage,
    /// The named thing does not exist.
    NotFound,
    /// Somebody else holds it, or our lease was lost.
    Busy,
    /// The key is missing or is not the right one.
    Key,
    /// The source refused our credentials or permissions.
    SourceAuth,
    /// The store refused our credentials or permissions.
    StoreAuth,
    /// The source cannot be reached, or left in the middle.
    SourceUnavailable,
    /// The store cannot be reached, or failed in the middle.
    StoreUnavailable,
    /// Bytes are not what they must be.
    Verification,
    /// Policy or state forbids it.
    Refused,
    /// The configuration is wrong.
    Config,
    /// A format or engine version that does not fit.
    Version,
}

impl Class {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        self.row().0
    }

    /// The stable text code, as in `error.class` of the JSON form.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// The class of a text code.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        let all = [
            Self::Unforeseen,
            Self::Usage,
            Self::NotFound,
            Self::Busy,
            Self::Key,
            Self::SourceAuth,
            Self::StoreAuth,
            Self::SourceUnavailable,
            Self::StoreUnavailable,
            Self::Verification,
            Self::Refused,
            Self::Config,
            Self::Version,
        ];
        all.into_iter().find(|class| class.code() == code)
    }

    const fn row(self) -> (u8, &'static str) {
        match self {
            Self::Unforeseen => (1, "unforeseen"),
            Self::Usage => (2, "usage"),
            Self::NotFound => (10, "not_found"),
            Self::Busy => (11, "busy"),
            Self::Key => (12, "key"),
            Self::SourceAuth => (13, "source_auth"),
            Self::StoreAuth => (14, "store_auth"),
            Self::SourceUnavailable => (15, "source_unavailable"),
            Self::StoreUnavailable => (16, "store_unavailable"),
            Self::Verification => (17, "verification"),
            Self::Refused => (18, "refused"),
            Self::Config => (19, "config"),
            Self::Version => (20, "version"),
        }
    }
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its class, its place, and advice.
///
/// Messages are lowercase fragments without a full stop, and name the thing concerned (node, object, key,
/// byte offset). Secrets never enter a message.
pub struct Error(Box<Inner>);

struct Inner {
    class: Class,
    message: String,
    hint: Option<String>,
    retryable: bool,
}

impl Error {
    /// An error of `class`. Unavailable sources and stores and busy things are retryable, the rest is not.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        let retryable = matches!(class, Class::Busy | Class::SourceUnavailable | Class::StoreUnavailable);
        Self(Box::new(Inner { class, message: message.into(), hint: None, retryable }))
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// States whether trying again can help, where the class alone does not tell.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Puts `place` in front of the message: `place: message`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What happened, where.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The JSON form of the command-line contract.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"error": {
            "class": self.class().code(),
            "code": self.class().exit_code(),
            "message": self.message(),
            "hint": self.advice(),
            "retryable": self.is_retryable(),
        }})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.class().code())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_has_the_fields_of_the_contract() {
        let error = Error::new(Class::Key, "no key k1").hint("give --key-file").at("wrap-k1.json");
        let json = error.to_json();
        assert_eq!(json["error"]["code"], 12);
        assert_eq!(json["error"]["class"], "key");
        assert_eq!(json["error"]["message"], "wrap-k1.json: no key k1");
        assert_eq!(json["error"]["hint"], "give --key-file");
        assert_eq!(json["error"]["retryable"], false);
    }
}
