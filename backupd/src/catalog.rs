//! The catalog: an index of the repositories, and what jobs share while they run: leases, jobs, windows, events.
//!
//! It answers quickly what the repositories answer slowly. No snapshot depends on it: a snapshot exists
//! when its manifest exists, and an object is ours when a conditional write says so. Deleting it loses
//! history and no snapshot. It is a SQLite file, which serves one machine and belongs on a local disk, or a PostgreSQL
//! database. All queries are written once, for both.
//!
//! Times are given by the caller in milliseconds since 1970, so that every decision of it can be tested; who shares it
//! with other machines takes them from [`Catalog::now_unix_ms`].

mod audit;
mod beside;
mod beyond;
mod clusters;
mod definitions;
mod error;
mod events;
mod grants;
mod holdings;
mod jobs;
mod leases;
mod location;
mod offers;
mod requests;
mod schedules;
mod snapshots;
mod tags;
mod taken;

use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _};

pub use self::audit::AuditRow;
pub use self::beside::Beside;
pub use self::clusters::{ClusterRow, NodeCapabilityRow};
pub use self::definitions::DefinitionRow;
pub use self::events::{Code, EVENTS_MAX, EventFilter, EventRow, NewEvent, TELL_FOR_MS};
pub use self::grants::GrantRow;
pub use self::jobs::{Added, Asked, Beat, JOBS_MAX, JobFilter, JobRow, Limits, NewJob, StepRow, Why, Worker};
pub use self::leases::Lease;
pub use self::location::{Location, Postgres};
pub use self::offers::{OfferKey, OfferRow};
pub use self::requests::RequestRow;
pub use self::schedules::{Decision, Mark, NewSchedule, Outcome, ScheduleRow};
pub use self::snapshots::{ListedRow, ROWS_MAX, ShardRow, SnapshotFilter, SnapshotRow};
pub use self::tags::changed as changed_tags;
use crate::crypt::random;
use crate::error::{Class, Error, Result};
use error::{REBUILD_HINT, error_of};

/// The migrations, which are part of the program.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Connections of one process.
const CONNECTIONS_MAX: u32 = 8;

/// How long a caller waits for a connection of the process, or for PostgreSQL to answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often opening is tried. Processes that open a new file at the same time get in each other's way: SQLite does
/// not wait when it changes the journal mode, and each may see a migration missing that another is making.
const OPEN_ATTEMPTS_MAX: u32 = 8;

/// The wait before opening again; twice as long each time.
const OPEN_WAIT: Duration = Duration::from_millis(20);

/// What each connection to SQLite is told. A write waits ten seconds for the writer before it. A crash of the machine
/// may lose the last rows and damages nothing.
const SQLITE_PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;";

/// What each connection to PostgreSQL is told: no statement and no lock is waited for without end.
const POSTGRES_SETTINGS: &str = "SET statement_timeout = '60s'; SET lock_timeout = '10s'";

/// An open catalog. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    pool: AnyPool,
    location: Location,
}

impl Catalog {
    /// Opens the catalog and brings its tables up to date. A SQLite file and its folder are made when they are missing.
    ///
    /// # Errors
    /// `Config` when the file cannot be made or opened or the database is not there, `Verification` when it is no
    /// catalog, `Version` when a newer program made it, `Busy` when another process holds it for too long, `StoreAuth`
    /// and `StoreUnavailable` when PostgreSQL refuses us or is not there.
    pub async fn open(location: &Location) -> Result<Self> {
        if let Location::Sqlite(path) = location
            && let Some(folder) = path.parent()
        {
            tokio::fs::create_dir_all(folder).await.map_err(|e| {
                let what = format!("the folder of the catalog {} cannot be made: {e}", path.display());
                Error::new(Class::Config, what).hint("set another path in the section [catalog] of the configuration")
            })?;
        }
        let mut wait = OPEN_WAIT;
        for _ in 1..OPEN_ATTEMPTS_MAX {
            match Self::open_once(location).await {
                Err(e) if e.class() == Class::Busy => tokio::time::sleep(wait).await,
                other => return other,
            }
            wait = wait.saturating_mul(2);
        }
        Self::open_once(location).await
    }

    async fn open_once(location: &Location) -> Result<Self> {
        static DRIVERS: std::sync::Once = std::sync::Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        // statements are not logged: they hold names of users' things
        let options = AnyConnectOptions::from_url(&location.url()?)
            .map_err(|e| error_of(location, "open", &e))?
            .disable_statement_logging();
        let setting = match location {
            Location::Sqlite(_) => SQLITE_PRAGMAS,
            Location::Postgres(_) => POSTGRES_SETTINGS,
        };
        probe(&options, setting).await.map_err(|e| error_of(location, "open", &e))?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection: &mut AnyConnection, _| {
                Box::pin(async move { connection.execute(setting).await.map(drop) })
            });
        let pool = pool.connect_with(options).await.map_err(|e| error_of(location, "open", &e))?;
        let catalog = Self { pool, location: location.clone() };
        catalog.migrate().await?;
        Ok(catalog)
    }

    /// Closes the connections; a SQLite file is then whole without its side files.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The time of the database, ms since 1970: the same for all machines that share it. Leases are measured by it. A time that was
    /// read a moment ago only makes a lease shorter and its taking over later, so a machine that stood still does no harm.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn now_unix_ms(&self) -> Result<u64> {
        let query = match self.location {
            Location::Sqlite(_) => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Location::Postgres(_) => "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        };
        let now: i64 =
            sqlx::query_scalar(query).fetch_one(&self.pool).await.map_err(|e| self.error("read the clock of", &e))?;
        Ok(unsigned(now))
    }

    async fn migrate(&self) -> Result<()> {
        let location = &self.location;
        match MIGRATIONS.run(&self.pool).await {
            Ok(()) => Ok(()),
            Err(MigrateError::VersionMissing(version)) => {
                let message = format!("the catalog {location} is newer than this program: it has migration {version}");
                Err(Error::new(Class::Version, message).hint("use the backupd that made it, or a newer one"))
            }
            // Another process may have made the same tables in between.
            Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => {
                let error = self.error("bring up to date", &e);
                let again = matches!(error.class(), Class::Unforeseen) && e.as_database_error().is_some();
                Err(if again { Error::new(Class::Busy, error.message()) } else { error })
            }
            Err(other) => {
                let message = format!("the catalog {location} cannot be brought up to date: {other}");
                Err(Error::new(Class::Version, message).hint(REBUILD_HINT))
            }
        }
    }

    fn error(&self, operation: &str, error: &sqlx::Error) -> Error {
        error_of(&self.location, operation, error)
    }
}

/// Connects once, since a pool would take what is wrong for a server that is about to come, and try until its time is over.
async fn probe(options: &AnyConnectOptions, setting: &'static str) -> sqlx::Result<()> {
    let probed = async {
        let mut connection = AnyConnection::connect_with(options).await?;
        connection.execute(setting).await?;
        connection.close().await
    };
    tokio::time::timeout(ACQUIRE_TIMEOUT, probed).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// A new id of a job or an event: the second, and twelve random hex digits, so that ids sort by time.
///
/// # Errors
/// When no randomness is to be had.
pub fn new_id(now_unix_ms: u64) -> Result<String> {
    let time = chrono::DateTime::from_timestamp_millis(signed(now_unix_ms)).unwrap_or_default();
    Ok(format!("{}-{}", time.format("%Y%m%dT%H%M%SZ"), hex::encode(random::<6>()?)))
}

/// A time of the catalog for people and names: RFC 3339, UTC, to the second.
#[must_use]
pub fn time_text(unix_ms: u64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(signed(unix_ms)).unwrap_or_default();
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time after so long, ms.
fn later(unix_ms: u64, by: Duration) -> u64 {
    unix_ms.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX))
}

/// A number as the database has it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as we have it; the database holds no negative one of ours.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
