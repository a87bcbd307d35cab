//! An upload in parts as the server knows it: begun, given parts, completed or aborted.
//!
//! What the server stored is proven by its CRC-32C of each part and of the whole (see `checksum`), else by ETags (see `etag`).

use std::time::{Duration, Instant};

use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadOutput as Begun;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::checksum::{Crc, check_whole};
use super::patience::Window;
use super::write::{Settled, TOKEN_NAME, new_token};
use super::{S3Store, connect, error, etag, key, length_of_body, unix_ms};
use crate::error::{Class, Error, Result};
use crate::store::Unfinished;
use crate::traffic::traffic;

/// The longest wait before a part is sent again.
const PART_WAIT_MAX: Duration = Duration::from_secs(20);

/// What the server calls an upload that it does not have, or not any more.
const GONE: &str = "NoSuchUpload";

/// How often an upload that is given up is asked to go; a part that was on its way may arrive after the first time.
const ABORT_ATTEMPTS_MAX: u32 = 2;

/// A part that the server has.
pub(super) struct Sent {
    pub(super) part: CompletedPart,
    /// What is known of its bytes; `None` when they did not come from here.
    pub(super) sum: Option<Sum>,
}

/// What a part was compared by.
#[derive(Clone, Copy)]
pub(super) enum Sum {
    /// The server's own CRC, which was the same.
    Crc(Crc),
    /// The ETag, where those are digests.
    Md5([u8; 16]),
}

/// An upload as the server knows it.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) store: S3Store,
    pub(super) key: String,
    /// Empty before the first part.
    pub(super) upload_id: String,
    token: String,
    /// Whether the server said that it knows CRC-32C.
    knows_crc: bool,
    /// Whether it said that it keeps that of the whole object.
    keeps_whole: bool,
}

impl Remote {
    pub(super) fn new(store: S3Store, key: &str) -> Result<Self> {
        Ok(Self {
            store,
            key: key.to_owned(),
            upload_id: String::new(),
            token: new_token()?,
            knows_crc: false,
            keeps_whole: false,
        })
    }

    pub(super) fn place(&self) -> String {
        self.store.place(&self.key)
    }

    fn bucket(&self) -> &str {
        &self.store.url.bucket
    }

    /// Begins it. `from_here`: the parts are sent from here, and not copied by the server, so that it is asked for a checksum.
    pub(super) async fn begin(&mut self, from_here: bool) -> Result<()> {
        let asks = from_here && self.store.checksums.are_known() != Some(false);
        let answer = match self.ask_to_begin(asks).await {
            // one that refuses what it does not know
            Err((_, Some(400 | 501))) if asks => {
                let without = self.ask_to_begin(false).await;
                if without.is_ok() {
                    self.store.checksums.learn(false);
                }
                without
            }
            answer => answer,
        };
        let answer = answer.map_err(|(error, _)| error)?;
        self.knows_crc = asks && answer.checksum_algorithm() == Some(&ChecksumAlgorithm::Crc32C);
        self.keeps_whole = answer.checksum_type() == Some(&ChecksumType::FullObject);
        if asks {
            self.store.checksums.learn(self.knows_crc);
        }
        self.upload_id = answer.upload_id.unwrap_or_default();
        if self.upload_id.is_empty() {
            let message = format!("cannot begin the upload of {}: the server gave it no name", self.place());
            return Err(Error::new(Class::StoreUnavailable, message));
        }
        traffic().uploads_open.inc();
        Ok(())
    }

    /// The answer, or why there is none and its status.
    async fn ask_to_begin(&self, with_crc: bool) -> std::result::Result<Begun, (Error, Option<u16>)> {
        let request = self.store.client.create_multipart_upload().bucket(self.bucket());
        let request = request.key(self.store.full(&self.key)).metadata(TOKEN_NAME, &self.token);
        let request = request.set_checksum_algorithm(with_crc.then_some(ChecksumAlgorithm::Crc32C));
        let request = request.set_checksum_type(with_crc.then_some(ChecksumType::FullObject));
        let settings = &self.store.settings;
        let request = request.set_acl(settings.acl()).set_grant_read(settings.grant_read.clone());
        let request = request.set_server_side_encryption(settings.sse());
        let request = request.set_ssekms_key_id(settings.sse_kms_key_id.clone());
        let failed = |e| (error::of("begin the upload of", &self.place(), &e), error::status(&e));
        request.send().await.map_err(failed)
    }

    /// Sends a part, again and again while the server or the way to it fails, until the deadline.
    pub(super) async fn send_patiently(&self, number: u64, body: Bytes, window: &Window) -> Result<Sent> {
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
        let (time, crc) = (connect::time_for(self.store.patience, length_of_body(&body)), self.crc(&body));
        let request = self.store.client.upload_part().bucket(self.bucket()).key(self.store.full(&self.key));
        let request = request.upload_id(&self.upload_id).part_number(number);
        let request = request.set_checksum_crc32_c(crc.map(Crc::header)).body(ByteStream::from(body.clone()));
        let answer = match request.customize().config_override(time).send().await {
            Ok(answer) => answer,
            // Garage ends the uploads of a key when an object is written there
            Err(e) if error::code(&e) == Some(GONE) && self.store.head(&self.key).await?.is_some() => {
                return Err(self.store.exists_already(&self.key));
            }
            Err(e) => return Err(error::of(&format!("send part {number} of"), &self.place(), &e)),
        };
        let place = format!("part {number} of {}", self.place());
        let sum = match crc {
            Some(crc) if crc.check(&place, answer.checksum_crc32_c())? => Sum::Crc(crc),
            _ => {
                let md5 = etag::md5(&body);
                self.store.etags.check(&place, answer.e_tag(), &md5)?;
                Sum::Md5(md5)
            }
        };
        let part = CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag);
        let part = part.set_checksum_crc32_c(crc.map(Crc::header)).build();
        Ok(Sent { part, sum: Some(sum) })
    }

    fn crc(&self, body: &[u8]) -> Option<Crc> {
        self.knows_crc.then(|| Crc::of(body))
    }

    /// Puts the parts together. After an error it is still to be aborted.
    pub(super) async fn complete(&self, sent: Vec<Sent>, size_bytes: u64) -> Result<()> {
        self.put_together(sent, size_bytes).await?;
        traffic().uploads_open.dec();
        Ok(())
    }

    async fn put_together(&self, mut sent: Vec<Sent>, size_bytes: u64) -> Result<()> {
        sent.sort_by_key(|sent| sent.part.part_number);
        let (crcs, etag) = (crcs(&sent), whole_etag(&sent));
        let whole = crcs.as_ref().filter(|_| self.keeps_whole).map(|crcs| Crc::of_parts(crcs));
        let parts = sent.into_iter().map(|sent| sent.part).collect();
        self.store.check_free(&self.key).await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.store.client.complete_multipart_upload().bucket(self.bucket());
        let request = request.key(self.store.full(&self.key)).upload_id(&self.upload_id).if_none_match("*");
        let request = request.set_checksum_crc32_c(whole.map(Crc::header));
        let request = request.set_checksum_type(whole.map(|_| ChecksumType::FullObject));
        let request = request.multipart_upload(parts).customize().config_override(connect::time_to_complete());
        let failure = match request.send().await {
            Ok(answer) => {
                if etag.is_some_and(|etag| answer.e_tag().map(etag::bare) != Some(&etag)) {
                    self.store.etags.distrust();
                }
                return crcs.map_or(Ok(()), |crcs| check_whole(&crcs, &self.place(), answer.checksum_crc32_c()));
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

/// The CRCs of all parts, where each was compared by its own.
fn crcs(sent: &[Sent]) -> Option<Vec<Crc>> {
    sent.iter().map(|sent| if let Some(Sum::Crc(crc)) = sent.sum { Some(crc) } else { None }).collect()
}

/// The ETag that they make, where each was compared by its own.
fn whole_etag(sent: &[Sent]) -> Option<String> {
    let md5s: Option<Vec<[u8; 16]>> =
        sent.iter().map(|sent| if let Some(Sum::Md5(md5)) = sent.sum { Some(md5) } else { None }).collect();
    md5s.map(|md5s| etag::of_parts(&md5s))
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
    Remote { store: store.clone(), key, upload_id, token, knows_crc: false, keeps_whole: false }.abort().await
}
