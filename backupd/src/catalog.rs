//! The catalog: an index of the repositories, and the leases and observations that jobs on this machine share.
//!
//! It answers quickly what the repositories answer slowly. Nothing depends on it for correctness: a snapshot exists
//! when its manifest exists, and an object is ours when a conditional write says so. Deleting the file loses
//! history and no snapshot. It is a SQLite file, so it serves one machine and belongs on a local disk.
//!
//! Times are given by the caller in milliseconds since 1970, so that every decision of it can be tested.

mod clusters;
mod leases;
mod snapshots;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub use self::clusters::{ClusterRow, NodeCapabilityRow};
pub use self::leases::Lease;
pub use self::snapshots::{ROWS_MAX, ShardRow, SnapshotFilter, SnapshotRow};
use crate::error::{Class, Error, Result};

/// The migrations, which are part of the program.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Connections of one process.
const CONNECTIONS_MAX: u32 = 4;

/// How long a write waits for the writer before it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a caller waits for a connection of the process.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often opening is tried. Processes that open a new file at the same time get in each other's way: SQLite does
/// not wait when it changes the journal mode, and each may see a migration missing that another is making.
const OPEN_ATTEMPTS_MAX: u32 = 8;

/// The wait before opening again; twice as long each time.
const OPEN_WAIT: Duration = Duration::from_millis(20);

/// An open catalog. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    pool: SqlitePool,
    path: PathBuf,
}

impl Catalog {
    /// Opens the SQLite file `path`, makes it and its folder when they are missing, and brings its tables up to date.
    ///
    /// # Errors
    /// `Config` when the file cannot be made or opened, `Verification` when it is no catalog, `Version` when a newer
    /// program made it, `Busy` when another process holds it for too long.
    pub async fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::new(Class::Config, format!("the folder of the catalog {} cannot be made: {e}", path.display()))
                .hint("set another path in the section [catalog] of the configuration")
        };
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        }
        let mut wait = OPEN_WAIT;
        for _ in 1..OPEN_ATTEMPTS_MAX {
            match Self::open_once(path).await {
                Err(e) if e.is_retryable() => tokio::time::sleep(wait).await,
                other => return other,
            }
            wait = wait.saturating_mul(2);
        }
        Self::open_once(path).await
    }

    async fn open_once(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A crash of the machine may lose the last rows and damages nothing.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = pool.connect_with(options).await.map_err(|e| error_of(path, "open", &e))?;
        let catalog = Self { pool, path: path.to_owned() };
        catalog.migrate().await?;
        Ok(catalog)
    }

    /// Closes the connections; the file is then whole without its side files.
    pub async fn close(self) {
        self.pool.close().await;
    }

    async fn migrate(&self) -> Result<()> {
        let path = self.path.display();
        match MIGRATIONS.run(&self.pool).await {
            Ok(()) => Ok(()),
            Err(MigrateError::VersionMissing(version)) => {
                let message = format!("the catalog {path} is newer than this program: it has migration {version}");
                Err(Error::new(Class::Version, message).hint("use the backupd that made it, or a newer one"))
            }
            // Another process may have made the same tables in between.
            Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => {
                Err(self.error("bring up to date", &e).retryable(true))
            }
            Err(other) => {
                let message = format!("the catalog {path} cannot be brought up to date: {other}");
                Err(Error::new(Class::Version, message).hint(REBUILD_HINT))
            }
        }
    }

    fn error(&self, operation: &str, error: &sqlx::Error) -> Error {
        error_of(&self.path, operation, error)
    }
}

const REBUILD_HINT: &str =
    "move the file away, then `backupd catalog rebuild`: the catalog is an index of the repositories";

/// An error of the database in our words. The codes are SQLite's primary result codes, <https://www.sqlite.org/rescode.html>.
fn error_of(path: &Path, operation: &str, error: &sqlx::Error) -> Error {
    let code = match error {
        sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff),
        _ => None,
    };
    let (class, hint) = match (code, error) {
        (Some(5 | 6), _) | (_, sqlx::Error::PoolTimedOut) => (Class::Busy, "another process is writing to it"),
        (Some(11 | 26), _) => (Class::Verification, REBUILD_HINT),
        (Some(3 | 8 | 14), _) => {
            (Class::Config, "its folder and file must be writable: see [catalog] in the configuration")
        }
        (Some(13), _) => (Class::Unforeseen, "the disk is full"),
        _ => (Class::Unforeseen, ""),
    };
    let made = Error::new(class, format!("cannot {operation} the catalog {}: {error}", path.display()));
    if hint.is_empty() { made } else { made.hint(hint) }
}

/// A number as the database has it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new catalog, and the folder that it lives in.
    pub(super) async fn new() -> (Catalog, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("a/catalog.sqlite")).await.unwrap();
        (catalog, folder)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_may_open_a_new_file_at_once() {
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("catalog.sqlite");
            let open = |path: PathBuf| async move { Catalog::open(&path).await };
            let opening: tokio::task::JoinSet<_> = (0..6).map(|_| open(path.clone())).collect();
            for opened in opening.join_all().await {
                opened.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_catalog_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.sqlite");
        std::fs::write(&path, "this is not a database, and it is longer than a header of one".repeat(100)).unwrap();
        let error = Catalog::open(&path).await.unwrap_err();
        assert_eq!(error.class(), Class::Verification, "{error}");
        assert!(error.message().contains("catalog.sqlite"), "{error}");
        let error = Catalog::open(folder.path()).await.unwrap_err();
        assert_eq!(error.class(), Class::Config, "{error}");
        let error = Catalog::open(&path.join("below/a/file")).await.unwrap_err();
        assert_eq!(error.class(), Class::Config, "{error}");
    }

    #[tokio::test]
    async fn a_newer_catalog_is_refused() {
        let (catalog, folder) = new().await;
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', 1, x'00', 1)";
        sqlx::query(newer).execute(&catalog.pool).await.unwrap();
        catalog.close().await;
        let error = Catalog::open(&folder.path().join("a/catalog.sqlite")).await.unwrap_err();
        assert_eq!(error.class(), Class::Version, "{error}");
    }
}
