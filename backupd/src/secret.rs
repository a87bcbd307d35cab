//! Secrets: read from where they are said to be, when they are needed, and never shown.

use std::env::VarError;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Class, Error, Result};

/// The largest password file, bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// In this file.
    File(PathBuf),
    /// In this variable of the environment.
    Variable(String),
}

/// A password: never shown, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `text` as a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Reads a password from a file; a line end at its end is not part of it.
    ///
    /// # Errors
    /// `Config` when it cannot be read or is too long to be a password.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |why: String| {
            Error::new(Class::Config, format!("{}: the password file cannot be used: {why}", path.display()))
        };
        let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
        if size > PASSWORD_BYTES_MAX {
            return Err(fail(format!("it has {size} bytes, more than a password can have")));
        }
        let mut text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Ok(Self::new(text))
    }

    /// The password itself, for the one command that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secret that is there; `None` when none is named.
///
/// # Errors
/// `Config` when its file cannot be read or its variable is not set.
pub fn read(place: Option<&Password>) -> Result<Option<Secret>> {
    match place {
        None => Ok(None),
        Some(Password::File(path)) => Secret::read(path).map(Some),
        Some(Password::Variable(name)) => of_variable(name)?.map(Some).ok_or_else(|| {
            Error::new(Class::Config, format!("the variable {name} is not set, and the configuration names it"))
        }),
    }
}

/// A password in a variable of the environment, if it is set.
///
/// # Errors
/// `Config` when it is not UTF-8.
pub fn of_variable(variable: &str) -> Result<Option<Secret>> {
    match std::env::var(variable) {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Error::new(Class::Config, format!("the variable {variable} is not UTF-8"))),
    }
}
