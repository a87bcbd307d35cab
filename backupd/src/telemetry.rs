//! What is counted and measured: names of docs/daemon.md, in the text format of Prometheus.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use policies::job::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::catalog::{JobRow, ScheduleRow};
use crate::error::{Class, Error, Result};
use crate::manifest::Manifest;

/// Upper bounds of durations, s.
const SECONDS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    cluster: String,
    result: &'static str,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    cluster: String,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Destination {
    cluster: String,
    to: String,
}

/// How far the copies of a cluster lag behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyLag {
    /// The cluster.
    pub cluster: String,
    /// The repository with the copies.
    pub to: String,
    /// Since when the snapshot that waits for the longest time is available, ms; 0 when none waits.
    pub lag_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

type PerCluster = Family<Cluster, Gauge<f64, AtomicU64>>;

/// All of it.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    attempts: Family<Attempt, Counter>,
    duration: Family<Cluster, Histogram>,
    bytes: Family<Stage, Counter>,
    skew: PerCluster,
    verify: Family<Outcome, Counter>,
    verify_bytes: Counter,
    retention_deleted: Counter,
    retention_refused: Family<Reason, Counter>,
    last_success: PerCluster,
    last_verified: PerCluster,
    last_status: PerCluster,
    expected_interval: PerCluster,
    jobs: Family<State, Gauge>,
    passes: Counter,
    pass_seconds: Gauge<f64, AtomicU64>,
    catalog_up: Gauge,
    catalog_errors: Counter,
    hooks: Family<Outcome, Counter>,
    copy_lag: Family<Destination, Gauge<f64, AtomicU64>>,
    is_catalog_away: AtomicBool,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut made = Self {
            registry: Registry::with_prefix("backupd"),
            attempts: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            bytes: Family::default(),
            skew: Family::default(),
            verify: Family::default(),
            verify_bytes: Counter::default(),
            retention_deleted: Counter::default(),
            retention_refused: Family::default(),
            last_success: Family::default(),
            last_verified: Family::default(),
            last_status: Family::default(),
            expected_interval: Family::default(),
            jobs: Family::default(),
            passes: Counter::default(),
            pass_seconds: Gauge::default(),
            catalog_up: Gauge::default(),
            catalog_errors: Counter::default(),
            hooks: Family::default(),
            copy_lag: Family::default(),
            is_catalog_away: AtomicBool::new(false),
        };
        made.register();
        made
    }
}

impl Telemetry {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "backup_attempts",
            "Backups that ended, by result and class of the error",
            self.attempts.clone(),
        );
        registry.register("backup_duration_seconds", "How long backups took", self.duration.clone());
        registry.register("backup_bytes", "Bytes of snapshots made: plain RDB and stored", self.bytes.clone());
        registry.register(
            "snapshot_skew_seconds",
            "Between the first and the last shard of the newest snapshot",
            self.skew.clone(),
        );
        registry.register("verify", "Verifications that ended, by result", self.verify.clone());
        registry.register("verify_bytes", "Bytes of RDB that verifications read", self.verify_bytes.clone());
        registry.register("retention_deleted", "Snapshots that retention deleted", self.retention_deleted.clone());
        registry.register(
            "retention_refused",
            "Retention passes that were refused, by reason",
            self.retention_refused.clone(),
        );
        registry.register(
            "backup_last_success_timestamp_seconds",
            "When the newest snapshot became available",
            self.last_success.clone(),
        );
        registry.register(
            "backup_last_verified_timestamp_seconds",
            "When a snapshot was last read and whole",
            self.last_verified.clone(),
        );
        registry.register(
            "backup_last_status",
            "1 when the last backup succeeded, 0 when it did not",
            self.last_status.clone(),
        );
        registry.register(
            "schedule_expected_interval_seconds",
            "How far backups lie apart at most when all goes well",
            self.expected_interval.clone(),
        );
        registry.register(
            "copy_lag_seconds",
            "For how long the oldest snapshot waits that is to be copied",
            self.copy_lag.clone(),
        );
        registry.register("jobs", "Jobs in the catalog that have not ended, by state", self.jobs.clone());
        registry.register("scheduler_passes", "Passes of the scheduler", self.passes.clone());
        registry.register("scheduler_pass_seconds", "How long its last pass took", self.pass_seconds.clone());
        registry.register("catalog_up", "1 when the catalog answered the last time", self.catalog_up.clone());
        registry.register("catalog_errors", "How often the catalog did not answer", self.catalog_errors.clone());
        registry.register("hook_deliveries", "Events that hooks were told of, by result", self.hooks.clone());
    }

    /// Notes how a job ended, and how long it ran.
    pub fn job_ended(&self, row: &JobRow, error: Option<&Error>, was_stopped: bool, took: Duration) {
        let result = match error {
            None => "success",
            Some(_) if was_stopped => "stopped",
            Some(_) => "failure",
        };
        match row.kind() {
            Kind::Backup => {
                let class = error.filter(|_| !was_stopped).map_or("", |error| error.class().code());
                self.attempts.get_or_create(&Attempt { cluster: row.cluster.clone(), result, class }).inc();
                if error.is_none() {
                    self.duration.get_or_create(&Cluster { cluster: row.cluster.clone() }).observe(took.as_secs_f64());
                }
            }
            Kind::Verify => _ = self.verify.get_or_create(&Outcome { result }).inc(),
            Kind::Delete if error.is_none() => _ = self.retention_deleted.inc(),
            Kind::Delete | Kind::Remove | Kind::Copy | Kind::Export | Kind::Keep | Kind::Restore => {}
        }
    }

    /// Notes a snapshot that was made.
    pub fn snapshot_made(&self, manifest: &Manifest) {
        for (stage, bytes) in [("plain", manifest.plain_bytes()), ("stored", manifest.stored_bytes())] {
            self.bytes.get_or_create(&Stage { cluster: manifest.cluster.clone(), stage }).inc_by(bytes);
        }
        let skew = Duration::from_millis(manifest.skew_ms).as_secs_f64();
        self.skew.get_or_create(&Cluster { cluster: manifest.cluster.clone() }).set(skew);
    }

    /// Notes what a verification read.
    pub fn verified(&self, plain_bytes: u64) {
        self.verify_bytes.inc_by(plain_bytes);
    }

    /// Notes a snapshot that retention removed.
    pub fn retention_deleted(&self) {
        self.retention_deleted.inc();
    }

    /// Notes a retention pass that was refused.
    pub fn retention_refused(&self, reason: &str) {
        self.retention_refused.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// Notes whether a hook was told of an event.
    pub fn hook_told(&self, ok: bool) {
        let result = if ok { "success" } else { "failure" };
        self.hooks.get_or_create(&Outcome { result }).inc();
    }

    /// Notes how far all copies lag behind.
    pub fn copies_lag(&self, lags: &[CopyLag]) {
        self.copy_lag.clear();
        for CopyLag { cluster, to, lag_ms } in lags {
            let destination = Destination { cluster: cluster.clone(), to: to.clone() };
            self.copy_lag.get_or_create(&destination).set(Duration::from_millis(*lag_ms).as_secs_f64());
        }
    }

    /// Notes a pass of the scheduler.
    pub fn passed(&self, took: Duration) {
        self.passes.inc();
        self.pass_seconds.set(took.as_secs_f64());
    }

    /// Notes that the catalog did not answer; the first time in a row is logged.
    pub fn catalog_failed(&self, error: &Error) {
        self.catalog_errors.inc();
        self.catalog_up.set(0);
        if !self.is_catalog_away.swap(true, Ordering::Relaxed) {
            tracing::error!(class = error.class().code(), error = %error, "the catalog does not answer: nothing new begins until it does");
        }
    }

    /// Notes that the catalog answered.
    pub fn catalog_answered(&self) {
        self.catalog_up.set(1);
        if self.is_catalog_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the catalog answers again");
        }
    }

    /// Takes over what the catalog says of clusters and jobs.
    pub fn take_over(&self, schedules: &[ScheduleRow], jobs: &[(String, i64)]) {
        for family in [&self.last_success, &self.last_verified, &self.last_status, &self.expected_interval] {
            family.clear();
        }
        for row in schedules.iter().filter(|row| row.removed_ms.is_none()) {
            let cluster = Cluster { cluster: row.cluster.clone() };
            let seconds = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64();
            self.last_success.get_or_create(&cluster).set(row.last_success_ms.map_or(0.0, seconds));
            self.last_verified.get_or_create(&cluster).set(row.last_verified_ms.map_or(0.0, seconds));
            if !row.last_outcome.is_empty() {
                self.last_status.get_or_create(&cluster).set(if row.last_outcome == "succeeded" { 1.0 } else { 0.0 });
            }
            if row.expected_interval_s > 0 {
                let interval = Duration::from_secs(row.expected_interval_s).as_secs_f64();
                self.expected_interval.get_or_create(&cluster).set(interval);
            }
        }
        for state in ["queued", "running"] {
            let count = jobs.iter().find(|(known, _)| known == state).map_or(0, |(_, count)| *count);
            self.jobs.get_or_create(&State { state: state.to_owned() }).set(count);
        }
    }

    /// All of it as text.
    ///
    /// # Errors
    /// `Unforeseen` when it cannot be written.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry)
            .map_err(|error| Error::new(Class::Unforeseen, format!("metrics cannot be written: {error}")))?;
        Ok(text)
    }
}
