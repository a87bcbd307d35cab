//! Secrets: read from where the configuration says that they are, when they are needed.

use std::env::VarError;

use super::Password;
use crate::error::{Class, Error, Result};
use crate::redis::Secret;

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
