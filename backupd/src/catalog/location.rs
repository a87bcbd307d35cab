//! Where a catalog is: a SQLite file on this machine, or a PostgreSQL database that several share.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use url::Url;

use crate::error::{Class, Error, Result};
use crate::secret::{self, Password};

/// What stays as it is in the path of a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// Where a catalog is. It is printed without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file, for one machine.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Postgres),
}

/// How a PostgreSQL database is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// `postgres://user@host:port/database?options`, without a password.
    url: Url,
    password: Option<Password>,
}

impl Postgres {
    /// The database of a URL. A server that is not on this machine is reached by TLS, and its certificate is checked, unless the
    /// URL says otherwise (`sslmode`).
    ///
    /// # Errors
    /// `Config` when it is no URL of PostgreSQL, or holds a password.
    pub fn new(url: &str, password: Option<Password>) -> Result<Self> {
        let wrong = |reason: String| Error::new(Class::Config, reason);
        let mut url: Url = url.parse().map_err(|error| wrong(format!("it is no URL: {error}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong(format!(
                "`{}` is no catalog: give postgres://user@host/database, or a path",
                url.scheme()
            )));
        }
        if url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password") {
            return Err(
                wrong("the URL holds a password".to_owned()).hint("put it into a file and name that as password_file")
            );
        }
        let said = |name: &str| url.query_pairs().any(|(known, _)| known == name);
        if !is_local(&url) && !said("sslmode") && !said("ssl-mode") && !said("host") {
            url.query_pairs_mut().append_pair("sslmode", "verify-full");
        }
        Ok(Self { url, password })
    }

    fn with_password(&self) -> Result<Url> {
        let mut url = self.url.clone();
        let Some(password) =
            secret::read(self.password.as_ref()).map_err(|error| error.at("the password of the catalog"))?
        else {
            return Ok(url);
        };
        url.set_password(Some(password.reveal()))
            .map_err(|()| Error::new(Class::Config, format!("the URL {} can hold no password", self.url)))?;
        Ok(url)
    }
}

/// Whether the server is on this machine: a socket, or an address that loops back.
fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.is_empty() || host == "localhost" || host.starts_with("%2F") || address.is_ok_and(|it| it.is_loopback())
}

impl Location {
    /// The URL for the driver, with the password. It must not be printed.
    ///
    /// # Errors
    /// `Config` when the password cannot be read.
    pub(super) fn url(&self) -> Result<Url> {
        match self {
            Self::Postgres(postgres) => postgres.with_password(),
            Self::Sqlite(path) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                let url = format!("sqlite://{}?mode=rwc", percent_encode(bytes, PATH));
                url.parse().map_err(|error| Error::new(Class::Config, format!("{}: {error}", path.display())))
            }
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(postgres) => write!(f, "{}", postgres.url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_is_reached_by_tls_and_no_url_holds_a_password() {
        let url = |text: &str| Postgres::new(text, None).map(|it| it.url.to_string());
        assert_eq!(url("postgres://u@db.internal/c").unwrap(), "postgres://u@db.internal/c?sslmode=verify-full");
        assert_eq!(url("postgres://u@db/c?sslmode=prefer").unwrap(), "postgres://u@db/c?sslmode=prefer");
        for local in [
            "postgres://u@127.0.0.1:1/c",
            "postgres://u@[::1]/c",
            "postgres://localhost/c",
            "postgres:///c?host=/run/postgresql",
        ] {
            assert_eq!(url(local).unwrap(), local);
        }
        for wrong in ["postgres://u:secret@db/c", "postgres://db/c?password=secret", "mysql://db/c", "what"] {
            let error = url(wrong).unwrap_err();
            assert_eq!(error.class(), Class::Config);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_password_comes_from_its_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        std::fs::write(&path, "p@ss/w\n").unwrap();
        let location =
            Location::Postgres(Postgres::new("postgres://u@localhost/c", Some(Password::File(path))).unwrap());
        assert_eq!(location.url().unwrap().password(), Some("p%40ss%2Fw"));
        assert_eq!(location.to_string(), "postgres://u@localhost/c");
    }

    #[test]
    fn a_path_of_any_characters_is_a_url() {
        let url = Location::Sqlite("/a b/ü?#%.sqlite".into()).url().unwrap();
        assert_eq!(url.as_str(), "sqlite:///a%20b/%C3%BC%3F%23%25.sqlite?mode=rwc");
    }
}
