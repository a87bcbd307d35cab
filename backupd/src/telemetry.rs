//! What is counted and measured: names of docs/daemon.md, in the text format of Prometheus.

mod register;

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
use crate::progress::Cost;

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Side {
    side: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: &'static str,
}

/// What the catalog says as a whole.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Of clusters.
    pub schedules: Vec<ScheduleRow>,
    /// Jobs that have not ended, by state.
    pub jobs: Vec<(String, i64)>,
    /// Snapshots that are available, and those of them that were verified.
    pub snapshots: (i64, i64),
    /// Leases that are held.
    pub leases: i64,
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
    shard_seconds: Family<Cluster, Histogram>,
    lag_bytes: PerCluster,
    copied_bytes: PerCluster,
    stalls: Family<Side, Counter<f64, AtomicU64>>,
    restores: Family<Attempt, Counter>,
    restore_duration: Family<Cluster, Histogram>,
    restore_bytes: Counter,
    snapshots: Family<State, Gauge>,
    leases: Gauge,
    certificates: Family<Name, Gauge>,
    drift: Gauge,
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
            shard_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            lag_bytes: Family::default(),
            copied_bytes: Family::default(),
            stalls: Family::default(),
            restores: Family::default(),
            restore_duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            restore_bytes: Counter::default(),
            snapshots: Family::default(),
            leases: Gauge::default(),
            certificates: Family::default(),
            drift: Gauge::default(),
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
        made.register_costs();
        made.register_restores_and_stores();
        made
    }
}

impl Telemetry {
    /// Notes what captures of a cluster cost, as far as they got.
    pub fn captured(&self, cluster: &str, cost: &Cost) {
        self.copied_bytes.get_or_create(&Cluster { cluster: cluster.to_owned() }).set(as_f64(cost.copied_bytes));
        self.stalls.get_or_create(&Side { side: "source" }).inc_by(cost.source_waited.as_secs_f64());
        self.stalls.get_or_create(&Side { side: "store" }).inc_by(cost.store_waited.as_secs_f64());
    }

    /// Notes what a job cost, as far as it got.
    pub fn job_cost(&self, row: &JobRow, cost: &Cost) {
        match row.kind() {
            Kind::Backup | Kind::Remove => self.captured(&row.cluster, cost),
            Kind::Restore => _ = self.restore_bytes.inc_by(cost.plain_bytes),
            Kind::Verify | Kind::Delete | Kind::Copy | Kind::Export | Kind::Keep => {}
        }
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
            Kind::Restore => {
                let class = error.filter(|_| !was_stopped).map_or("", |error| error.class().code());
                self.restores.get_or_create(&Attempt { cluster: row.cluster.clone(), result, class }).inc();
                if error.is_none() {
                    let cluster = Cluster { cluster: row.cluster.clone() };
                    self.restore_duration.get_or_create(&cluster).observe(took.as_secs_f64());
                }
            }
            Kind::Verify => _ = self.verify.get_or_create(&Outcome { result }).inc(),
            Kind::Delete if error.is_none() => _ = self.retention_deleted.inc(),
            Kind::Delete | Kind::Remove | Kind::Copy | Kind::Export | Kind::Keep => {}
        }
    }

    /// Notes a snapshot that was made.
    pub fn snapshot_made(&self, manifest: &Manifest) {
        for (stage, bytes) in [("plain", manifest.plain_bytes()), ("stored", manifest.stored_bytes())] {
            self.bytes.get_or_create(&Stage { cluster: manifest.cluster.clone(), stage }).inc_by(bytes);
        }
        let skew = Duration::from_millis(manifest.skew_ms).as_secs_f64();
        let cluster = Cluster { cluster: manifest.cluster.clone() };
        self.skew.get_or_create(&cluster).set(skew);
        let lag_bytes = manifest.shards.iter().map(|shard| shard.node.lag_bytes).max().unwrap_or(0);
        self.lag_bytes.get_or_create(&cluster).set(as_f64(lag_bytes));
        let time = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
        for shard in &manifest.shards {
            if let (Some(taken), Some(stored)) = (time(&shard.taken_at), time(&shard.stored_at)) {
                let took = (stored - taken).to_std().unwrap_or_default();
                self.shard_seconds.get_or_create(&cluster).observe(took.as_secs_f64());
            }
        }
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

    /// Notes how many snapshots a comparison of catalog and repositories found missing on one side.
    pub fn drifted(&self, snapshots: usize) {
        self.drift.set(i64::try_from(snapshots).unwrap_or(i64::MAX));
    }

    /// Notes until when the certificate of the API is valid, seconds since 1970.
    pub fn certificate(&self, not_after: i64) {
        self.certificates.get_or_create(&Name { name: "api" }).set(not_after);
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

    /// Takes over what the catalog says.
    pub fn take_over(&self, known: &Known) {
        let Known { schedules, jobs, snapshots, leases } = known;
        for (state, count) in [("available", snapshots.0), ("verified", snapshots.1)] {
            self.snapshots.get_or_create(&State { state: state.to_owned() }).set(count);
        }
        self.leases.set(*leases);
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

/// Bytes as a metric has them; what is beyond 2⁵³ loses its last digits.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
