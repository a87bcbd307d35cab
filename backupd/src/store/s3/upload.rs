//! A large object being written to a bucket in parts.
//!
//! Memory: the part being filled and [`PARTS_IN_FLIGHT`] parts being sent, so part size × (parts in flight + 1).

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::patience::Window;
use super::remote::{Remote, Sent};
use super::{S3Store, length_of_body};
use crate::error::{Class, Error, Result};
use crate::store::Upload;

/// How many parts are sent at the same time, at most: fewer while the server fails or asks for patience.
const PARTS_IN_FLIGHT: usize = 3;

/// The size of a part in bytes unless the object needs larger ones. S3 refuses parts below 5 MiB.
const PART_BYTES: u64 = 8 << 20;

/// The most parts of an object, a limit of S3.
const PARTS_MAX: u64 = 10_000;

/// The largest part, a limit of S3.
const PART_BYTES_MAX: u64 = 5 << 30;

/// Part sizes are multiples of this.
const PART_BYTES_STEP: u64 = 1 << 20;

/// How many times larger than the guess an object may become.
const HINT_MARGIN: u64 = 2;

/// The part size for an object of about `size_hint_bytes`.
fn part_bytes(size_hint_bytes: u64) -> u64 {
    let needed = size_hint_bytes.saturating_mul(HINT_MARGIN).div_ceil(PARTS_MAX);
    needed.next_multiple_of(PART_BYTES_STEP).clamp(PART_BYTES, PART_BYTES_MAX)
}

/// An upload to a bucket. Nothing is sent before the first part is full and more bytes come, or are sure to come by the guess of the
/// size; an object of at most one part is created by one request.
pub(super) struct S3Upload {
    /// What is needed to send and to give up; `None` after the upload ended.
    remote: Option<Remote>,
    part_bytes: usize,
    /// How large the object was said to become, bytes.
    guess_bytes: u64,
    /// The part being filled.
    filling: BytesMut,
    /// Parts begun so far.
    begun: u64,
    window: Window,
    sending: JoinSet<Result<Sent>>,
    sent: Vec<Sent>,
    failed: bool,
}

impl S3Upload {
    pub(super) fn new(store: S3Store, key: &str, size_hint_bytes: u64) -> Result<Self> {
        let part_bytes = usize::try_from(part_bytes(size_hint_bytes)).unwrap_or(usize::MAX);
        Ok(Self {
            remote: Some(Remote::new(store, key)?),
            part_bytes,
            guess_bytes: size_hint_bytes,
            filling: BytesMut::new(),
            begun: 0,
            window: Window::new(PARTS_IN_FLIGHT),
            sending: JoinSet::new(),
            sent: Vec::new(),
            failed: false,
        })
    }

    fn remote(&mut self) -> Result<&mut Remote> {
        self.remote.as_mut().ok_or_else(|| Error::new(Class::Unforeseen, "the upload has ended"))
    }

    async fn append(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            if self.filling.len() == self.part_bytes {
                self.send_filled().await?;
            }
            // a whole part that more is sure to follow goes as it is, and is not copied
            if self.filling.is_empty()
                && bytes.len() >= self.part_bytes
                && self.filled_bytes().saturating_add(length_of_body(&bytes)) < self.guess_bytes
            {
                self.send_part(bytes.split_to(self.part_bytes)).await?;
                continue;
            }
            if self.filling.capacity() == 0 {
                self.filling.reserve(self.part_bytes);
            }
            let room = self.part_bytes.saturating_sub(self.filling.len());
            self.filling.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
        }
        if self.filling.len() == self.part_bytes && self.filled_bytes() < self.guess_bytes {
            self.send_filled().await?;
        }
        Ok(())
    }

    /// All bytes so far: full parts but for the one that is being filled.
    fn filled_bytes(&self) -> u64 {
        let begun = self.begun.saturating_mul(u64::try_from(self.part_bytes).unwrap_or(u64::MAX));
        begun.saturating_add(length_of_body(&self.filling))
    }

    async fn send_filled(&mut self) -> Result<()> {
        let body = std::mem::take(&mut self.filling).freeze();
        self.send_part(body).await
    }

    /// Hands a part to a task, after waiting for room.
    async fn send_part(&mut self, body: Bytes) -> Result<()> {
        if self.begun == 0 {
            self.remote()?.begin(true).await?;
        }
        if self.begun == PARTS_MAX {
            let size_bytes = PARTS_MAX.saturating_mul(u64::try_from(self.part_bytes).unwrap_or(u64::MAX));
            let place = self.remote()?.place();
            return Err(Error::new(Class::Refused, format!("{place} grew beyond {size_bytes} bytes"))
                .hint("its size was guessed too small for the number of parts that S3 allows"));
        }
        while self.sending.len() >= self.window.parts() {
            self.collect_one().await?;
        }
        self.begun = self.begun.saturating_add(1);
        let (remote, number, window) = (self.remote()?.clone(), self.begun, self.window.clone());
        self.sending.spawn(async move { remote.send_patiently(number, body, &window).await });
        Ok(())
    }

    async fn collect_one(&mut self) -> Result<()> {
        let part = match self.sending.join_next().await {
            None => return Ok(()),
            Some(Ok(part)) => part?,
            Some(Err(e)) => return Err(crate::task_failed(e)),
        };
        self.sent.push(part);
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        if self.begun == 0 {
            let body = std::mem::take(&mut self.filling).freeze();
            let remote = self.remote()?;
            return remote.store.put(&remote.key, body).await;
        }
        let size_bytes = self.filled_bytes();
        if !self.filling.is_empty() {
            self.send_filled().await?;
        }
        while !self.sending.is_empty() {
            self.collect_one().await?;
        }
        let parts = std::mem::take(&mut self.sent);
        self.remote()?.complete(parts, size_bytes).await
    }

    async fn give_up(&mut self) -> Result<()> {
        self.sending.shutdown().await;
        match self.remote.take() {
            Some(remote) => remote.abort().await,
            None => Ok(()),
        }
    }
}

impl Drop for S3Upload {
    /// Tells the server, without anybody waiting for it, when the runtime still runs.
    fn drop(&mut self) {
        let (Some(remote), Ok(runtime)) = (self.remote.take(), tokio::runtime::Handle::try_current()) else { return };
        if remote.upload_id.is_empty() {
            return;
        }
        let mut sending = std::mem::take(&mut self.sending);
        runtime.spawn(async move {
            sending.shutdown().await;
            if let Err(e) = remote.abort().await {
                tracing::warn!(error = %e, "a dropped upload was not aborted");
            }
        });
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.failed {
            let place = self.remote()?.place();
            return Err(Error::new(Class::StoreUnavailable, format!("writing {place} failed before")));
        }
        // Stays set when the caller drops this future in the middle: the part would be incomplete.
        self.failed = true;
        self.append(bytes).await?;
        self.failed = false;
        Ok(())
    }

    async fn complete(mut self: Box<Self>) -> Result<()> {
        let done = match self.write(Bytes::new()).await {
            Ok(()) => self.finish().await,
            Err(e) => Err(e),
        };
        match &done {
            Ok(()) => self.remote = None,
            // The first error is the one to tell.
            Err(_) => drop(self.give_up().await.inspect_err(|e| tracing::warn!(error = %e, "an upload stays"))),
        }
        done
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_twice_the_guess_fits_into_the_parts() {
        assert_eq!(part_bytes(0), PART_BYTES);
        assert_eq!(part_bytes(40_000 << 20), PART_BYTES);
        for guess in [1 << 36, (1 << 36) + 1, 1 << 40, 1 << 43] {
            let part = part_bytes(guess);
            assert!(part * PARTS_MAX >= guess * 2 && part.is_multiple_of(PART_BYTES_STEP), "{guess}: {part}");
        }
        assert_eq!(part_bytes(u64::MAX), PART_BYTES_MAX);
    }
}
