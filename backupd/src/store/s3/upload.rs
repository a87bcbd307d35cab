//! A large object being written to a bucket in parts.
//!
//! Memory: the part being filled and [`PARTS_IN_FLIGHT`] parts being sent, so part size × (parts in flight + 1).

use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::patience::Window;
use super::write::{Settled, TOKEN_NAME, new_token};
use super::{S3Store, connect, error, etag, key, length_of_body, unix_ms};
use crate::error::{Class, Error, Result};
use crate::store::{Unfinished, Upload};
use crate::traffic::traffic;

/// How many parts are sent at the same time, at most: fewer while the server fails or asks for patience.
const PARTS_IN_FLIGHT: usize = 3;

/// The longest wait before a part is sent again.
const PART_WAIT_MAX: Duration = Duration::from_secs(20);

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

/// What the server calls an upload that it does not have, or not any more.
const GONE: &str = "NoSuchUpload";

/// How often an upload that is given up is asked to go; a part that was on its way may arrive after the first time.
const ABORT_ATTEMPTS_MAX: u32 = 2;

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

/// A part that the server has.
pub(super) struct Sent {
    pub(super) part: CompletedPart,
    /// The MD5 of its bytes; `None` when they did not come from here.
    pub(super) md5: Option<[u8; 16]>,
}

/// An upload as the server knows it.
#[derive(Clone)]
pub(super) struct Remote {
    store: S3Store,
    key: String,
    /// Empty before the first part.
    pub(super) upload_id: String,
    token: String,
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
            self.remote()?.begin().await?;
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

impl Remote {
    pub(super) fn new(store: S3Store, key: &str) -> Result<Self> {
        Ok(Self { store, key: key.to_owned(), upload_id: String::new(), token: new_token()? })
    }

    fn place(&self) -> String {
        self.store.place(&self.key)
    }

    fn bucket(&self) -> &str {
        &self.store.url.bucket
    }

    pub(super) async fn begin(&mut self) -> Result<()> {
        let request = self.store.client.create_multipart_upload().bucket(self.bucket());
        let request = request.key(self.store.full(&self.key)).metadata(TOKEN_NAME, &self.token);
        let settings = &self.store.settings;
        let request = request.set_acl(settings.acl()).set_grant_read(settings.grant_read.clone());
        let request = request.set_server_side_encryption(settings.sse());
        let request = request.set_ssekms_key_id(settings.sse_kms_key_id.clone());
        let answer = request.send().await.map_err(|e| error::of("begin the upload of", &self.place(), &e))?;
        self.upload_id = answer.upload_id.unwrap_or_default();
        if self.upload_id.is_empty() {
            let message = format!("cannot begin the upload of {}: the server gave it no name", self.place());
            return Err(Error::new(Class::StoreUnavailable, message));
        }
        traffic().uploads_open.inc();
        Ok(())
    }

    /// Sends a part, again and again while the server or the way to it fails, until the deadline.
    async fn send_patiently(&self, number: u64, body: Bytes, window: &Window) -> Result<Sent> {
        let begun = Instant::now();
        let mut wait = self.store.patience.backoff;
        loop {
            let error = match self.send(number, body.clone()).await {
                Ok(sent) => {
                    window.grow();
                    return Ok(sent);
                }
                Err(error) => error,
            };
            window.shrink();
            if !error.is_retryable() {
                return Err(error);
            }
            if begun.elapsed().saturating_add(wait) > self.store.patience.deadline {
                let tried = begun.elapsed().as_secs();
                return Err(error.at(format!("given up after {tried} s of trying")));
            }
            tracing::warn!(number, error = %error, "a part is sent again");
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(PART_WAIT_MAX);
        }
    }

    async fn send(&self, number: u64, body: Bytes) -> Result<Sent> {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let (time, md5) = (connect::time_for(self.store.patience, length_of_body(&body)), etag::md5(&body));
        let request = self.store.client.upload_part().bucket(self.bucket()).key(self.store.full(&self.key));
        let request = request.upload_id(&self.upload_id).part_number(number).body(ByteStream::from(body));
        let answer = match request.customize().config_override(time).send().await {
            Ok(answer) => answer,
            // Garage ends the uploads of a key when an object is written there
            Err(e) if error::code(&e) == Some(GONE) && self.store.head(&self.key).await?.is_some() => {
                return Err(self.store.exists_already(&self.key));
            }
            Err(e) => return Err(error::of(&format!("send part {number} of"), &self.place(), &e)),
        };
        self.store.etags.check(&format!("part {number} of {}", self.place()), answer.e_tag(), &md5)?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag).build();
        Ok(Sent { part, md5: Some(md5) })
    }

    /// Puts the parts together.
    pub(super) async fn complete(&self, mut sent: Vec<Sent>, size_bytes: u64) -> Result<()> {
        sent.sort_by_key(|sent| sent.part.part_number);
        let md5s: Option<Vec<[u8; 16]>> = sent.iter().map(|sent| sent.md5).collect();
        let parts = sent.into_iter().map(|sent| sent.part).collect();
        self.store.check_free(&self.key).await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.store.client.complete_multipart_upload().bucket(self.bucket());
        let request = request.key(self.store.full(&self.key)).upload_id(&self.upload_id).if_none_match("*");
        let request = request.multipart_upload(parts).customize().config_override(connect::time_to_complete());
        let failure = match request.send().await {
            Ok(answer) => {
                if md5s.is_some_and(|md5s| answer.e_tag().map(etag::bare) != Some(&etag::of_parts(&md5s))) {
                    self.store.etags.distrust();
                }
                traffic().uploads_open.dec();
                return Ok(());
            }
            Err(failure) => failure,
        };
        // An answer that was lost makes the next attempt find no upload, or the object: look who made it.
        let refused = matches!(error::status(&failure), Some(409 | 412));
        let unknown = error::code(&failure) == Some(GONE);
        if !refused && !unknown && !error::is_ambiguous(&failure) {
            return Err(error::of("complete", &self.place(), &failure));
        }
        match self.store.settle(&self.key, &self.token, size_bytes).await {
            Ok(Settled::Ours) => Ok(()),
            Ok(Settled::Theirs) => Err(self.store.exists_already(&self.key)),
            _ => Err(error::of("complete", &self.place(), &failure)
                .hint("whether the object appears later is not known; under this name nothing else was written")),
        }
    }

    pub(super) async fn abort(&self) -> Result<()> {
        if self.upload_id.is_empty() {
            return Ok(());
        }
        self.ask_to_abort().await?;
        traffic().uploads_open.dec();
        traffic().uploads_aborted.inc();
        Ok(())
    }

    async fn ask_to_abort(&self) -> Result<()> {
        for _ in 0..ABORT_ATTEMPTS_MAX {
            let request = self.store.client.abort_multipart_upload().bucket(self.bucket());
            let request = request.key(self.store.full(&self.key)).upload_id(&self.upload_id);
            match request.send().await {
                Ok(_) => {}
                Err(e) if error::status(&e) == Some(404) => return Ok(()),
                Err(e) => {
                    return Err(error::of("abort the upload of", &self.place(), &e)
                        .hint("its parts stay in the bucket until a lifecycle rule removes incomplete uploads"));
                }
            }
        }
        Ok(())
    }
}

/// The uploads that the server still holds parts of, below the prefix of the repository and under keys of ours.
pub(super) async fn unfinished(store: &S3Store) -> Result<Vec<Unfinished>> {
    let mut found = Vec::new();
    let (mut key_marker, mut id_marker) = (None, None);
    loop {
        let request = store.client.list_multipart_uploads().bucket(&store.url.bucket).prefix(store.full(""));
        let request = request.set_key_marker(key_marker.take()).set_upload_id_marker(id_marker.take());
        let answer = request.send().await.map_err(|e| error::of("list the uploads in", &store.place(""), &e))?;
        for upload in answer.uploads() {
            let key = upload.key().and_then(|full| store.relative(full)).filter(|key| key::is_valid(key));
            let (Some(key), Some(id)) = (key, upload.upload_id()) else { continue };
            let modified_unix_ms = unix_ms(upload.initiated().copied());
            found.push(Unfinished { key: Some(key.to_owned()), id: id.to_owned(), modified_unix_ms });
        }
        if !answer.is_truncated().unwrap_or(false) || answer.next_key_marker().is_none() {
            return Ok(found);
        }
        (key_marker, id_marker) = (answer.next_key_marker, answer.next_upload_id_marker);
    }
}

/// Aborts one of them.
pub(super) async fn discard(store: &S3Store, unfinished: &Unfinished) -> Result<()> {
    let key = unfinished.key.clone().unwrap_or_default();
    let (upload_id, token) = (unfinished.id.clone(), String::new());
    Remote { store: store.clone(), key, upload_id, token }.abort().await
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
