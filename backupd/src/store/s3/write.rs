//! Writes that never overwrite: conditional, and settled by a token where the answer does not say who wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::{ATTEMPT_WAIT, S3Store, connect, error, etag, length_of_body};
use crate::error::{Class, Error, Result};
use crate::store::Store as _;

/// The metadata that says which write made an object.
pub(super) const TOKEN_NAME: &str = "backupd-write";

/// How often a write is sent that the server calls in conflict with another request, with nothing there afterwards.
const CONFLICT_ATTEMPTS_MAX: u32 = 4;

/// Nothing is known of the conditions of a server yet.
const UNKNOWN: u8 = 0;
/// It keeps to them.
const KEPT: u8 = 1;
/// It writes over what is there.
const IGNORED: u8 = 2;

/// Whether a server was seen to keep to conditions.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions(Arc<AtomicU8>);

impl Conditions {
    fn are_unknown(&self) -> bool {
        self.0.load(Ordering::Relaxed) == UNKNOWN
    }

    pub(super) fn are_ignored(&self) -> bool {
        self.0.load(Ordering::Relaxed) == IGNORED
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }
}

/// What became of a conditional write.
pub(super) enum Settled {
    /// The object is there and is what we wrote.
    Ours,
    /// Another object is there.
    Theirs,
    /// Nothing is there.
    Absent,
}

impl S3Store {
    pub(super) async fn settle(&self, key: &str, token: &str, size_bytes: u64) -> Result<Settled> {
        Ok(match self.head(key).await? {
            None => Settled::Absent,
            Some(found) if found.token.as_deref() == Some(token) && found.stat.size_bytes == size_bytes => {
                Settled::Ours
            }
            Some(_) => Settled::Theirs,
        })
    }

    /// Creates an object with one request. Also used for uploads smaller than a part.
    pub(super) async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.check_free(key).await?;
        let token = new_token()?;
        self.put_once(key, &token, body.clone()).await?;
        if self.conditions.are_unknown() {
            self.learn_conditions(key, &token, body).await;
        }
        Ok(())
    }

    /// Looks before a write where the server does not: then only two jobs in the same moment can write over each other, and
    /// whoever lost finds that out before it publishes, because it reads its claim again.
    pub(super) async fn check_free(&self, key: &str) -> Result<()> {
        if self.conditions.are_ignored() && self.head(key).await?.is_some() {
            return Err(self.exists_already(key));
        }
        Ok(())
    }

    /// A conditional write with everything that the configuration wants of new objects.
    fn conditional(&self, key: &str, token: &str, body: Bytes) -> PutObjectFluentBuilder {
        let request = self.client.put_object().bucket(&self.url.bucket).key(self.full(key)).if_none_match("*");
        let request = request.metadata(TOKEN_NAME, token).body(ByteStream::from(body));
        let request = request.set_acl(self.settings.acl()).set_grant_read(self.settings.grant_read.clone());
        let request = request.set_server_side_encryption(self.settings.sse());
        request.set_ssekms_key_id(self.settings.sse_kms_key_id.clone())
    }

    /// Sends an object that was just created once more, as the same write: a server that keeps to the condition refuses, and
    /// on another one nothing changes. Where another write has been at work meanwhile nothing is sent.
    async fn learn_conditions(&self, key: &str, token: &str, body: Bytes) {
        let size_bytes = length_of_body(&body);
        // the object was created, whatever becomes of the question
        if !matches!(self.settle(key, token, size_bytes).await, Ok(Settled::Ours)) {
            return;
        }
        let request = self.conditional(key, token, body).customize();
        match request.config_override(connect::time_for(self.patience, size_bytes)).send().await {
            Ok(_) => {
                tracing::warn!(url = self.url(), "this server ignores If-None-Match: every write looks first");
                self.conditions.set(IGNORED);
            }
            Err(e) if matches!(error::status(&e), Some(409 | 412)) => self.conditions.set(KEPT),
            // the object is there; the next write asks again
            Err(e) => {
                tracing::debug!(error = %error::of("probe", &self.place(key), &e), "conditions are not known yet");
            }
        }
    }

    async fn put_once(&self, key: &str, token: &str, body: Bytes) -> Result<()> {
        let size_bytes = length_of_body(&body);
        let mut wait = ATTEMPT_WAIT;
        for attempt in 1.. {
            let request = self.conditional(key, token, body.clone()).customize();
            let failure = match request.config_override(connect::time_for(self.patience, size_bytes)).send().await {
                Ok(answer) => return self.etags.check(&self.place(key), answer.e_tag(), &etag::md5(&body)),
                Err(failure) => failure,
            };
            let refused = matches!(error::status(&failure), Some(409 | 412));
            if !refused && !error::is_ambiguous(&failure) {
                return Err(error::of("create", &self.place(key), &failure));
            }
            match (self.settle(key, token, size_bytes).await, refused) {
                (Ok(Settled::Ours), _) => return Ok(()),
                (Ok(Settled::Theirs), _) => return Err(self.exists_already(key)),
                (Ok(Settled::Absent), true) if attempt < CONFLICT_ATTEMPTS_MAX => {
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
                (Err(e), true) => return Err(e),
                _ => return Err(error::of("create", &self.place(key), &failure)),
            }
        }
        Ok(())
    }
}

pub(super) fn new_token() -> Result<String> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|e| Error::new(Class::Unforeseen, format!("no random numbers: {e}")))?;
    Ok(hex::encode(random))
}
