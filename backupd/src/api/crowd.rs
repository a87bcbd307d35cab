//! Connections that are open at the same time. When there is no place for another, the one goes that has waited longest for its client: for a
//! request, for the rest of a body, or for an answer to be read. So whoever opens connections and leaves them idle, or sends and reads slowly,
//! keeps nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long one that was sent away may take to go, before another is.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections, and how many there may be.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Those that wait for their clients, the longest first.
#[derive(Debug, Default)]
struct Waiting {
    count: u64,
    ends: BTreeMap<u64, CancellationToken>,
}

/// The place of a connection; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    waiting: Arc<Mutex<Waiting>>,
    /// Its number among those that wait; 0 while it is worked on.
    number: Mutex<u64>,
    end: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Crowd {
    /// At most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), waiting: Arc::default() }
    }

    /// A place for another, which waits for its client from now on. Somebody is sent away where there is none; when none waits for its
    /// client, the first that ends or does so makes room.
    pub(super) async fn enter(&self) -> Arc<Place> {
        loop {
            let places = Arc::clone(&self.places);
            if places.available_permits() == 0 {
                self.send_away();
            }
            // it is never closed
            let Ok(Ok(permit)) = timeout(PAUSE, places.acquire_owned()).await else { continue };
            let (waiting, end) = (Arc::clone(&self.waiting), CancellationToken::new());
            let place = Place { waiting, number: Mutex::new(0), end, _permit: permit };
            place.waits();
            return Arc::new(place);
        }
    }

    fn send_away(&self) {
        if let Some((_, end)) = locked(&self.waiting).ends.pop_first() {
            tracing::debug!("too many connections: the one that waited longest for its client is closed");
            end.cancel();
        }
    }
}

impl Place {
    /// Its request is worked on: it is not sent away.
    pub(super) fn works(&self) {
        let number = std::mem::take(&mut *locked(&self.number));
        locked(&self.waiting).ends.remove(&number);
    }

    /// It waits for its client, from now on.
    pub(super) fn waits(&self) {
        self.works();
        let mut waiting = locked(&self.waiting);
        waiting.count += 1;
        let number = waiting.count;
        waiting.ends.insert(number, self.end.clone());
        *locked(&self.number) = number;
    }

    /// Ends when somebody else is to have the place.
    pub(super) async fn is_wanted(&self) {
        self.end.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.works();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_that_waited_longest_makes_room_and_none_that_is_worked_on() {
        let crowd = Crowd::new(3);
        let (a, b, c) = (crowd.enter().await, crowd.enter().await, crowd.enter().await);
        b.works();
        a.works();
        // it begins to wait again, behind c
        a.waits();
        let entering = tokio::spawn({
            let crowd = crowd.clone();
            async move { crowd.enter().await }
        });
        c.is_wanted().await;
        assert!(!a.end.is_cancelled() && !b.end.is_cancelled());
        drop(c);
        let d = entering.await.unwrap();
        // when all are worked on, the first that is not makes room
        a.works();
        d.works();
        let mut entering = tokio::spawn({
            let crowd = crowd.clone();
            async move { crowd.enter().await }
        });
        assert!(timeout(PAUSE * 3, &mut entering).await.is_err() && !a.end.is_cancelled());
        b.waits();
        b.is_wanted().await;
        drop(b);
        let e = entering.await.unwrap();
        assert!(!a.end.is_cancelled() && !d.end.is_cancelled() && !e.end.is_cancelled());
        drop((a, d, e));
        assert_eq!((crowd.places.available_permits(), locked(&crowd.waiting).ends.len()), (3, 0));
    }
}
