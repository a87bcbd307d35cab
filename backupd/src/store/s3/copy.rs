//! Copies that the server makes by itself: no byte of the object passes through here.
//!
//! One request copies up to [`COPY_BYTES_MAX`]; a larger object goes in parts, of the size that the source's parts have where the
//! server tells it, so that the ETags of both can be compared.

use std::sync::Arc;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use policies::copying::{PartsWanted, part_ranges};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::remote::{Remote, Sent};
use super::{S3Store, connect, error, etag, length_of};
use crate::error::{Class, Error, Result};
use crate::store::key;

/// The largest object that one request copies, a limit of S3.
pub const COPY_BYTES_MAX: u64 = 5 << 30;

/// How many parts of one object are being copied at the same time.
const PART_COPIES_IN_FLIGHT: usize = 4;

/// What stays as it is in the name of a source.
const SOURCE_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What came of the wish that the server copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCopy {
    /// The object is there.
    Done {
        /// Whether the server's own digest says that it is what the source is.
        proven: bool,
    },
    /// The server cannot, or may not, do it between these two; why.
    Impossible(String),
}

/// The source as its own client sees it.
struct Original {
    /// `bucket/key`, escaped.
    name: String,
    etag: String,
    size_bytes: u64,
    /// The size of its parts, where it has several and the server tells.
    part_bytes: Option<u64>,
}

impl S3Store {
    /// Whether one server has both buckets, as far as their URLs say.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.url.endpoint == other.url.endpoint
    }

    /// Asks the server to make the object `to` of this store from the object `from` of `source`, which has the SHA-256
    /// `sha256` (hex) and `size_bytes` bytes. Above `single_bytes_max` (at most [`COPY_BYTES_MAX`]) it goes in parts.
    /// `cancel` ends the wait; the server may finish a single request all the same.
    ///
    /// # Errors
    /// `Verification` when the source is not as large as it must be; `Unforeseen` when it was cancelled; what the store
    /// says.
    pub async fn copy_from(
        &self,
        source: &Self,
        from: &str,
        to: &str,
        (size_bytes, sha256): (u64, &str),
        single_bytes_max: u64,
        cancel: &CancellationToken,
    ) -> Result<ServerCopy> {
        key::check(from)?;
        key::check(to)?;
        if !self.is_beside(source) {
            return Ok(ServerCopy::Impossible("the two buckets are behind different endpoints".to_owned()));
        }
        let original = source.original(from).await?;
        if original.size_bytes != size_bytes {
            let what = format!("it has {} bytes, and must have {size_bytes}", original.size_bytes);
            return Err(Error::new(Class::Verification, format!("{}: {what}", source.place(from))));
        }
        let done = if size_bytes <= single_bytes_max.min(COPY_BYTES_MAX) {
            tokio::select! {
                done = self.copy_whole(&original, to, sha256) => done,
                () = cancel.cancelled() => Err(interrupted()),
            }
        } else {
            self.copy_parts(&original, to, single_bytes_max, cancel).await
        };
        let summed = match done {
            Ok(summed) => summed,
            Err(error) if is_impossible(&error) => return Ok(ServerCopy::Impossible(error.message().to_owned())),
            Err(error) => return Err(error),
        };
        match self.head(to).await? {
            Some(found) if found.stat.size_bytes == size_bytes => {
                let same = found.etag.as_deref().map(etag::bare) == Some(etag::bare(&original.etag));
                Ok(ServerCopy::Done { proven: summed || same })
            }
            _ => Err(Error::new(
                Class::StoreUnavailable,
                format!("{}: the server said that it was copied, and it is not there whole", self.place(to)),
            )),
        }
    }

    async fn original(&self, key: &str) -> Result<Original> {
        let full = self.full(key);
        let head = self.client.head_object().bucket(&self.url.bucket).key(&full).send().await;
        let head = head.map_err(|e| match error::status(&e) {
            Some(404) => self.missing(key),
            _ => error::of("look at", &self.place(key), &e),
        })?;
        let (size_bytes, etag) = (length_of(head.content_length), head.e_tag.unwrap_or_default());
        let mut part_bytes = None;
        if etag.contains('-') {
            let first = self.client.head_object().bucket(&self.url.bucket).key(&full).part_number(1).send().await;
            // a server that does not know of parts answers with the whole, or not at all
            part_bytes = first.ok().map(|part| length_of(part.content_length)).filter(|part| *part < size_bytes);
        }
        let name = format!("{}/{full}", self.url.bucket);
        Ok(Original { name: utf8_percent_encode(&name, SOURCE_ESCAPES).to_string(), etag, size_bytes, part_bytes })
    }

    /// Tells whether the server's SHA-256 of the copy is the one that is wanted; many servers do not compute it.
    async fn copy_whole(&self, original: &Original, to: &str, sha256: &str) -> Result<bool> {
        let request = self.client.copy_object().bucket(&self.url.bucket).key(self.full(to));
        let request = request.copy_source(&original.name).copy_source_if_match(&original.etag);
        let request = request.checksum_algorithm(ChecksumAlgorithm::Sha256).if_none_match("*");
        let sent =
            request.customize().config_override(connect::time_for(self.patience, original.size_bytes)).send().await;
        match sent {
            Ok(answer) => {
                let summed = answer.copy_object_result().and_then(|result| result.checksum_sha256());
                let wanted = hex::decode(sha256).map(|sum| BASE64.encode(sum)).unwrap_or_default();
                match summed {
                    Some(sum) if !sum.contains('-') && sum != wanted => Err(Error::new(
                        Class::Verification,
                        format!("{}: by the server's digest it is not what the manifest names", original.name),
                    )),
                    Some(sum) => Ok(sum == wanted),
                    None => Ok(false),
                }
            }
            // the answer to an earlier attempt was lost: what is there is looked at by the caller
            Err(failure) if error::status(&failure) == Some(412) && self.head(to).await?.is_some() => Ok(false),
            Err(failure) => Err(error::of("copy", &self.place(to), &failure)),
        }
    }

    async fn copy_parts(
        &self,
        original: &Original,
        to: &str,
        part_bytes_max: u64,
        cancel: &CancellationToken,
    ) -> Result<bool> {
        let wanted = PartsWanted { as_source: original.part_bytes, at_most: part_bytes_max };
        let ranges = part_ranges(original.size_bytes, wanted)
            .map_err(|error| Error::new(Class::Refused, error.to_string()).at(self.place(to)))?;
        let mut remote = Remote::new(self.clone(), to)?;
        remote.begin(false).await?;
        let copied = tokio::select! {
            copied = self.copy_ranges(original, &remote, to, ranges) => copied,
            () = cancel.cancelled() => Err(interrupted()),
        };
        let done = match copied {
            Ok(sent) => remote.complete(sent, original.size_bytes).await,
            Err(error) => Err(error),
        };
        if done.is_err()
            && let Err(left) = remote.abort().await
        {
            tracing::warn!(error = %left, "an upload of a failed copy stays until gc");
        }
        done.map(|()| false)
    }

    async fn copy_ranges(
        &self,
        original: &Original,
        remote: &Remote,
        to: &str,
        ranges: Vec<(u64, u64)>,
    ) -> Result<Vec<Sent>> {
        let (mut copying, mut sent) = (JoinSet::new(), Vec::new());
        let place = Arc::new(self.place(to));
        for (number, (first, last)) in (1_i32..).zip(ranges) {
            if copying.len() >= PART_COPIES_IN_FLIGHT {
                collect(&mut copying, &mut sent).await?;
            }
            let request = self.client.upload_part_copy().bucket(&self.url.bucket).key(self.full(to));
            let request = request.upload_id(&remote.upload_id).part_number(number).copy_source(&original.name);
            let request = request.copy_source_if_match(&original.etag);
            let request = request.copy_source_range(format!("bytes={first}-{last}"));
            let time = connect::time_for(self.patience, last.saturating_sub(first));
            let place = Arc::clone(&place);
            copying.spawn(async move {
                // radosgw wants the length of the empty body said
                let request = request.customize().config_override(time).mutate_request(|request| {
                    request.headers_mut().insert("content-length", "0");
                });
                let answer = request.send().await;
                let answer = answer.map_err(|e| error::of(&format!("copy part {number} of"), &place, &e))?;
                let etag = answer.copy_part_result.and_then(|part| part.e_tag);
                let part = CompletedPart::builder().part_number(number).set_e_tag(etag).build();
                Ok(Sent { part, sum: None })
            });
        }
        while !copying.is_empty() {
            collect(&mut copying, &mut sent).await?;
        }
        Ok(sent)
    }
}

async fn collect(copying: &mut JoinSet<Result<Sent>>, sent: &mut Vec<Sent>) -> Result<()> {
    if let Some(done) = copying.join_next().await {
        sent.push(done.map_err(crate::task_failed)??);
    }
    Ok(())
}

fn interrupted() -> Error {
    Error::new(Class::Unforeseen, "interrupted while the server copied")
}

/// The server refuses to look into the other bucket, does not find it, or does not know the request.
fn is_impossible(error: &Error) -> bool {
    matches!(error.class(), Class::StoreAuth | Class::NotFound | Class::Config)
}
