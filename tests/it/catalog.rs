//! The catalog: the same cases on SQLite and on PostgreSQL.

mod clusters;
mod definitions;
mod grants;
mod jobs;
mod leases;
mod opening;
mod schedules;
mod snapshots;

use backupd::catalog::{Catalog, Location};

pub(crate) use self::opening::connect;
use crate::harness::postgres::Postgres;
use crate::harness::s3::block_on;

/// Where a catalog of a case is, at first empty.
#[derive(Debug, Clone)]
pub(crate) struct Place(pub(crate) Location);

impl Place {
    pub(crate) async fn open(&self) -> Catalog {
        Catalog::open(&self.0).await.unwrap()
    }
}

/// The location of a database of a server.
pub(crate) fn location(postgres: &Postgres, database: &str) -> Location {
    Location::Postgres(backupd::catalog::Postgres::new(&postgres.url(database), None).unwrap())
}

/// Runs each case on an empty catalog of its own.
macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        #[test]
        fn on_sqlite() {
            $({
                let folder = tempfile::tempdir().unwrap();
                println!("{}::{}", stringify!($module), stringify!($case));
                block_on($module::$case(&Place(folder.path().join("a/catalog.sqlite").into())));
            })*
        }

        #[test]
        fn on_postgres() {
            let postgres = Postgres::start();
            $({
                println!("{}::{}", stringify!($module), stringify!($case));
                block_on($module::$case(&Place(location(&postgres, &postgres.database()))));
            })*
        }
    };
}

cases! {
    opening::many_may_open_a_new_one_at_once,
    opening::a_newer_catalog_is_refused,
    opening::a_populated_catalog_of_any_earlier_migration_is_brought_up_to_date,
    opening::its_clock_is_the_time,
    clusters::a_cluster_is_as_it_was_last_seen,
    clusters::what_a_node_can_do_is_replaced_as_a_whole,
    definitions::what_was_said_last_of_a_cluster_holds_whatever_comes_late,
    definitions::tags_of_a_snapshot_are_given_and_taken_and_stay_when_it_is_recorded_again,
    grants::a_grant_is_as_it_was_noted_last_and_goes_with_its_snapshot,
    leases::one_of_many_gets_a_lease_also_across_connections,
    leases::a_lease_that_ran_out_is_taken_over_with_a_higher_number,
    leases::a_lease_is_renewed_and_released_by_its_holder,
    snapshots::recording_twice_is_recording_once,
    snapshots::a_snapshot_without_all_its_shards_is_not_recorded,
    snapshots::removal_is_final,
    snapshots::lists_are_newest_first_and_in_pages,
    snapshots::the_newest_is_that_of_one_repository,
    jobs::a_job_is_claimed_once_by_however_many_workers,
    jobs::limits_hold_over_all_workers,
    jobs::a_lost_job_is_another_worker_s_and_its_first_worker_is_told,
    jobs::a_heartbeat_in_time_keeps_a_job_from_who_takes_it_for_lost,
    jobs::cancel_ends_what_waits_and_tells_who_works,
    schedules::an_occurrence_is_decided_once_by_however_many_schedulers,
    jobs::hooks_are_told_until_they_heard,
    jobs::a_worker_that_comes_back_under_its_name_is_another,
    jobs::what_the_limits_hold_back_hides_nothing_else,
    jobs::the_outcome_of_a_backup_is_noted_however_it_ends,
    jobs::a_changed_audit_line_is_noticed,
    schedules::a_whole_fleet_is_noted_by_several_schedulers_at_once,
    schedules::what_a_clock_that_was_ahead_has_missed_still_fires_once,
    schedules::a_removed_cluster_is_taken_up_again,
    schedules::the_times_of_a_schedule_come_up_to_what_is_known_of_its_snapshots,
    snapshots::a_copy_that_nobody_has_seen_counts_as_gone_until_somebody_does,
    schedules::a_schedule_keeps_its_times_and_begins_anew_with_another_window,
}
