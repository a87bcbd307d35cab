//! Errors of the databases in our words.

use super::Location;
use crate::error::{Class, Error};

pub(super) const REBUILD_HINT: &str =
    "move it away, then `backupd catalog rebuild`: the catalog is an index of the repositories";

/// An error of the database in our words. The codes are SQLite's primary result codes, <https://www.sqlite.org/rescode.html>,
/// and PostgreSQL's SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn error_of(location: &Location, operation: &str, error: &sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    let (class, hint, retryable) = match location {
        Location::Sqlite(_) => of_sqlite(&code, error),
        Location::Postgres(_) => of_postgres(&code, error),
    };
    let made = Error::new(class, format!("cannot {operation} the catalog {location}: {error}")).retryable(retryable);
    if hint.is_empty() { made } else { made.hint(hint) }
}

type Meaning = (Class, &'static str, bool);

fn of_sqlite(code: &str, error: &sqlx::Error) -> Meaning {
    match (code.parse::<u32>().map_or(0, |code| code & 0xff), error) {
        (5 | 6, _) | (_, sqlx::Error::PoolTimedOut) => (Class::Busy, "another process is writing to it", true),
        (11 | 26, _) => (Class::Verification, REBUILD_HINT, false),
        (3 | 8 | 14, _) => {
            (Class::Config, "its folder and file must be writable: see [catalog] in the configuration", false)
        }
        (10, _) => (Class::StoreUnavailable, "its disk does not answer as it should", true),
        (13, _) => (Class::StoreUnavailable, "its disk is full: make room, and work goes on by itself", true),
        _ => (Class::Unforeseen, "", false),
    }
}

fn of_postgres(code: &str, error: &sqlx::Error) -> Meaning {
    let away = "PostgreSQL is not there: work goes on when it is back";
    match (code.get(..2).unwrap_or_default(), code, error) {
        (_, _, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_)) | ("08" | "57", ..) => {
            (Class::StoreUnavailable, away, true)
        }
        (_, _, sqlx::Error::Tls(_)) => {
            (Class::StoreAuth, "see sslmode and sslrootcert in the URL of the section [catalog]", false)
        }
        ("28", ..) => (Class::StoreAuth, "see url, password_file and password_env of the section [catalog]", false),
        (_, "3D000", _) => (Class::Config, "make the database first: `createdb`", false),
        (_, "53300", _) => (Class::Busy, "it has no connection left for us: see max_connections", true),
        ("53", ..) => (Class::StoreUnavailable, "PostgreSQL lacks room: work goes on when it has some", true),
        ("40", ..) | (_, "55P03", _) => (Class::Busy, "another process is writing to it", true),
        ("42", ..) => (Class::Config, "the user must own the tables of the catalog", false),
        _ => (Class::Unforeseen, "", false),
    }
}
