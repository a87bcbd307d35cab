//! Leases: one holder at a time, fencing numbers that only rise, the clock of the database.

use std::time::Duration;

use backupd::catalog::Lease;
use backupd::error::{Class, Result};

use super::Place;

const TTL: Duration = Duration::from_secs(10);

/// Takes the lease on connections of its own.
async fn take(place: Place, n: u32, now_unix_ms: u64) -> Result<Lease> {
    let catalog = place.open().await;
    catalog.acquire_lease("window", &format!("holder-{n}"), TTL, now_unix_ms).await
}

pub(super) async fn one_of_many_gets_a_lease_also_across_connections(place: &Place) {
    let catalog = place.open().await;
    for round in 0..10_u64 {
        let taking: tokio::task::JoinSet<_> = (0..8).map(|n| take(place.clone(), n, round * 10_000)).collect();
        let (got, refused): (Vec<_>, Vec<_>) = taking.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((got.len(), refused.len()), (1, 7));
        let lease = got.into_iter().next().unwrap().unwrap();
        assert_eq!((lease.fencing, lease.expires_unix_ms), (round + 1, (round + 1) * 10_000));
        for error in refused.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.class(), Class::Busy);
            assert!(error.message().contains(&lease.holder), "{error}");
        }
    }
    catalog.close().await;
}

pub(super) async fn a_lease_that_ran_out_is_taken_over_with_a_higher_number(place: &Place) {
    let catalog = place.open().await;
    let first = catalog.acquire_lease("job", "a", TTL, 1000).await.unwrap();
    assert_eq!((first.fencing, first.expires_unix_ms), (1, 11_000));
    assert_eq!(catalog.acquire_lease("job", "b", TTL, 10_999).await.unwrap_err().class(), Class::Busy);
    assert_eq!(catalog.acquire_lease("job", "a", TTL, 10_999).await.unwrap_err().class(), Class::Busy);
    let second = catalog.acquire_lease("job", "b", TTL, 11_000).await.unwrap();
    assert_eq!(second.fencing, 2);
    let error = catalog.renew_lease(&first, TTL, 11_001).await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (Class::Busy, false));
    catalog.release_lease(&first).await.unwrap();
    assert_eq!(catalog.acquire_lease("job", "c", TTL, 12_000).await.unwrap_err().class(), Class::Busy);
}

pub(super) async fn a_lease_is_renewed_and_released_by_its_holder(place: &Place) {
    let catalog = place.open().await;
    let lease = catalog.acquire_lease("job", "a", TTL, 0).await.unwrap();
    let late = catalog.renew_lease(&lease, TTL, 15_000).await.unwrap();
    assert_eq!((late.fencing, late.expires_unix_ms), (1, 25_000));
    assert_eq!(catalog.acquire_lease("job", "b", TTL, 20_000).await.unwrap_err().class(), Class::Busy);
    catalog.release_lease(&late).await.unwrap();
    assert_eq!(catalog.renew_lease(&late, TTL, 20_000).await.unwrap_err().class(), Class::Busy);
    assert_eq!(catalog.acquire_lease("job", "b", TTL, 20_000).await.unwrap().fencing, 2);
}
