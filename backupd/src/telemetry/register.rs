//! The names of all metrics, and what they mean. They are part of what users rely on: `docs/daemon/metrics.txt` has them all.

use super::Telemetry;
use crate::traffic::traffic;

impl Telemetry {
    pub(super) fn register(&mut self) {
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

    pub(super) fn register_costs(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "shard_capture_seconds",
            "From the moment that a shard's node began to serve until its object was whole",
            self.shard_seconds.clone(),
        );
        registry.register(
            "source_lag_bytes",
            "How far the furthest node behind was that the newest snapshot was read from",
            self.lag_bytes.clone(),
        );
        registry.register(
            "source_cow_bytes",
            "The most that a server's child copied during the last backup",
            self.copied_bytes.clone(),
        );
        registry.register(
            "stall_seconds",
            "How long captures waited for their source, and for what is behind it",
            self.stalls.clone(),
        );
        registry.register("backups_count", "Snapshots in the catalog, by state", self.snapshots.clone());
        registry.register("leases_held", "Leases in the catalog that are held", self.leases.clone());
        registry.register(
            "tls_not_after_seconds",
            "Until when the certificate of the API is valid",
            self.certificates.clone(),
        );
        registry.register(
            "catalog_drift_objects",
            "Snapshots that the last comparison of catalog and repositories found missing on one side, and noted",
            self.drift.clone(),
        );
    }

    pub(super) fn register_restores_and_stores(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "restore_attempts",
            "Restores that ended, by result and class of the error",
            self.restores.clone(),
        );
        registry.register("restore_duration_seconds", "How long restores took", self.restore_duration.clone());
        registry.register("restore_bytes", "Bytes of RDB that restores read", self.restore_bytes.clone());
        let traffic = traffic();
        registry.register(
            "store_requests",
            "Requests to buckets, by operation and HTTP status",
            traffic.requests.clone(),
        );
        registry.register("store_retries", "Requests to buckets that repeated another one", traffic.retries.clone());
        registry.register("multipart_open", "Multipart uploads that are open", traffic.uploads_open.clone());
        registry.register("multipart_aborted", "Multipart uploads that were aborted", traffic.uploads_aborted.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Attempt, Cluster, Destination, Name, Outcome, Reason, Side, Stage, State};
    use super::*;
    use crate::traffic::Request;

    /// Families without a sample are not answered, so each gets one.
    fn sampled() -> Telemetry {
        let made = Telemetry::default();
        let cluster = Cluster { cluster: "c".into() };
        let attempt = Attempt { cluster: "c".into(), result: "success", class: "" };
        made.attempts.get_or_create(&attempt).inc();
        made.restores.get_or_create(&attempt).inc();
        for family in [&made.duration, &made.shard_seconds, &made.restore_duration] {
            family.get_or_create(&cluster).observe(1.0);
        }
        made.bytes.get_or_create(&Stage { cluster: "c".into(), stage: "plain" }).inc();
        for family in [
            &made.skew,
            &made.lag_bytes,
            &made.copied_bytes,
            &made.last_success,
            &made.last_verified,
            &made.last_status,
            &made.expected_interval,
        ] {
            family.get_or_create(&cluster).set(1.0);
        }
        made.verify.get_or_create(&Outcome { result: "success" }).inc();
        made.hooks.get_or_create(&Outcome { result: "success" }).inc();
        made.retention_refused.get_or_create(&Reason { reason: "plan".into() }).inc();
        made.stalls.get_or_create(&Side { side: "source" }).inc_by(1.0);
        made.snapshots.get_or_create(&State { state: "available".into() }).set(1);
        made.jobs.get_or_create(&State { state: "queued".into() }).set(1);
        made.certificates.get_or_create(&Name { name: "api" }).set(1);
        made.copy_lag.get_or_create(&Destination { cluster: "c".into(), to: "t".into() }).set(1.0);
        traffic().requests.get_or_create(&Request { op: "GetObject".into(), code: "200".into() }).inc();
        made
    }

    /// A sample without its value and the values of its labels.
    fn shape(line: &str) -> String {
        let (name, labels) = line.split_once('{').unwrap_or_else(|| line.split_once(' ').unwrap());
        let labels = line.contains('{').then(|| labels.split('}').next().unwrap_or_default());
        let keys: Vec<&str> =
            labels.into_iter().flat_map(|all| all.split("\",")).filter_map(|one| one.split('=').next()).collect();
        if keys.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", keys.join(",")) }
    }

    #[test]
    fn names_types_and_labels_are_kept() {
        let (text, mut told, mut samples) = (sampled().text().unwrap(), String::new(), BTreeSet::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            let shown = if line.starts_with('#') { line.to_owned() } else { shape(line) };
            if line.starts_with('#') || samples.insert(shown.clone()) {
                told = told + &shown + "\n";
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/daemon/metrics.txt");
        if std::env::var_os("BACKUPD_WRITE_METRICS").is_some() {
            std::fs::write(path, &told).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == told,
            "docs/daemon/metrics.txt is not what is told: run this test with BACKUPD_WRITE_METRICS=1\n{told}"
        );
    }
}
