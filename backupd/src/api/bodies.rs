//! Memory for bodies. The first bytes of every body have room; what a body has beyond them comes out of a sum that all requests share, as it
//! arrives: who only says that it will send much, or sends it slowly, takes nothing from others before.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So much of each body has room, bytes: more than any request that does not carry lists or certificates.
const FREE_BYTES: usize = 16 << 10;

/// What is left for bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    left: Arc<Semaphore>,
    most: usize,
}

/// A body, with the room that it takes.
#[derive(Debug)]
pub(super) struct Held {
    /// What was sent.
    pub(super) bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It has more bytes than one may have.
    TooLarge,
    /// Others take all that there is for bodies.
    NoRoom,
    /// It ended before its time.
    Broken,
}

impl Bodies {
    /// At most `one` bytes of each, and `all` of all beyond the first ones.
    #[must_use]
    pub(super) fn new(one: usize, all: usize) -> Self {
        Self { left: Arc::new(Semaphore::new(all.max(one).min(Semaphore::MAX_PERMITS))), most: one }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn read(&self, mut body: Body) -> Result<Held, Unread> {
        let mut held = Held { bytes: Vec::new(), room: None };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            let size = held.bytes.len().saturating_add(data.len());
            if size > self.most {
                return Err(Unread::TooLarge);
            }
            if size > held.bytes.capacity() {
                let capacity = held.bytes.capacity().saturating_mul(2).clamp(size, self.most);
                self.take(&mut held, capacity)?;
                held.bytes.reserve_exact(capacity - held.bytes.len());
            }
            held.bytes.extend_from_slice(&data);
        }
        Ok(held)
    }

    /// Takes the room that so many bytes need.
    fn take(&self, held: &mut Held, capacity: usize) -> Result<(), Unread> {
        let has = held.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = capacity.saturating_sub(FREE_BYTES).saturating_sub(has);
        let more = u32::try_from(more).map_err(|_| Unread::NoRoom)?;
        if more == 0 {
            return Ok(());
        }
        let room = Arc::clone(&self.left).try_acquire_many_owned(more).map_err(|_| Unread::NoRoom)?;
        match &mut held.room {
            Some(before) => before.merge(room),
            none => *none = Some(room),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn body(chunk: usize, count: usize) -> Body {
        let chunks = (0..count).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; chunk])));
        Body::from_stream(tokio_stream::iter(chunks))
    }

    #[tokio::test]
    async fn large_bodies_share_a_sum_and_small_ones_always_have_room() {
        let bodies = Bodies::new(100_000, 150_000);
        let large = bodies.read(body(1000, 100)).await.unwrap();
        assert_eq!(large.bytes.len(), 100_000);
        assert_eq!(bodies.read(body(1000, 100)).await.unwrap_err(), Unread::NoRoom);
        assert_eq!(bodies.read(body(1024, 16)).await.unwrap().bytes.len(), FREE_BYTES);
        // what was given up left nothing behind, and what ends gives its room back
        assert_eq!(bodies.left.available_permits(), 150_000 - (100_000 - FREE_BYTES));
        drop(large);
        assert_eq!(bodies.left.available_permits(), 150_000);
        assert_eq!(bodies.read(body(100_001, 1)).await.unwrap_err(), Unread::TooLarge);
        let failing = tokio_stream::iter([Ok(Bytes::from("x")), Err(std::io::Error::other("gone"))]);
        assert_eq!(bodies.read(Body::from_stream(failing)).await.unwrap_err(), Unread::Broken);
    }
}
