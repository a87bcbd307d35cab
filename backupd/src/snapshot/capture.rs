//! One shard, from a node's replication stream or the file of its save into an object.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::pipeline::rate::Rate;
use crate::pipeline::write::{self, EndCheck, Target, Written};
use crate::pipeline::{CHUNKS_QUEUED, Meter};
use crate::redis::{EndVerdict, Framing, Payload, Saved, check_end};

/// How much of a file is read at once, in bytes.
const FILE_READ_LEN: usize = 512 * 1024;

/// Takes the payload that follows a `+FULLRESYNC` and stores it.
///
/// The capture counts only when the RDB came to its own end (EOF opcode and checksum) and what follows is what
/// the framing demands: the exact length, or the server's 40-byte mark. A closed connection before that is a
/// failure, whatever the server says of its save.
///
/// # Errors
/// `SourceUnavailable` when the node leaves, what the pipeline says otherwise.
pub async fn shard(
    mut payload: Payload,
    target: Target,
    meter: Arc<Meter>,
    cancel: &CancellationToken,
) -> Result<Written> {
    let framing = tokio::select! {
        framing = payload.framing() => framing?,
        () = cancel.cancelled() => return Err(interrupted()),
    };
    store(Coming::Stream(payload), framing, target, meter, cancel).await
}

/// Stores the file of a save.
///
/// # Errors
/// `SourceUnavailable` when it cannot be read to its end, what the pipeline says otherwise.
pub async fn file(saved: &Saved, target: Target, meter: Arc<Meter>, cancel: &CancellationToken) -> Result<Written> {
    let file = tokio::fs::File::from_std(saved.file.try_clone().map_err(unreadable)?);
    store(Coming::File(file), Framing::Length(saved.bytes), target, meter, cancel).await
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(Class::SourceUnavailable, format!("the RDB file: {error}"))
}

/// Where the bytes of an RDB come from.
enum Coming {
    Stream(Payload),
    File(tokio::fs::File),
}

impl Coming {
    /// Appends the next bytes to `buffer`, and returns how many; 0: no more come.
    async fn next(&mut self, buffer: &mut BytesMut) -> Result<usize> {
        match self {
            Self::Stream(payload) => payload.next(buffer).await,
            Self::File(file) => {
                buffer.reserve(FILE_READ_LEN);
                file.read_buf(buffer).await.map_err(unreadable)
            }
        }
    }
}

/// Stores what comes.
async fn store(
    coming: Coming,
    framing: Framing,
    target: Target,
    meter: Arc<Meter>,
    cancel: &CancellationToken,
) -> Result<Written> {
    let (tail_bytes, end_check) = end_of(framing);
    let (chunks, receiver) = mpsc::channel(CHUNKS_QUEUED);
    let rate = target.flow.source_rate.clone();
    let waits = Arc::clone(&meter);
    let store = write::shard(target, receiver, tail_bytes, end_check, meter);
    let (pumped, written) = tokio::join!(pump(coming, chunks, rate, &waits, cancel), store);
    match (pumped, written) {
        (_, Ok(written)) => Ok(written),
        // the scanner only noticed that the bytes stopped; who reads them knows why
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

/// Moves bytes to the scanner until it has enough.
async fn pump(
    mut coming: Coming,
    chunks: mpsc::Sender<Bytes>,
    rate: Option<Arc<Rate>>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let begun = Instant::now();
        let count = tokio::select! {
            count = coming.next(&mut buffer) => count?,
            () = cancel.cancelled() => return Err(interrupted()),
            // the scanner has all it needs, or the store failed
            () = chunks.closed() => return Ok(()),
        };
        meter.waited_for_source(begun.elapsed());
        if let Some(rate) = &rate {
            rate.pass(count).await;
        }
        let begun = Instant::now();
        if count == 0 || chunks.send(buffer.split().freeze()).await.is_err() {
            return Ok(());
        }
        meter.waited_for_store(begun.elapsed());
    }
}

/// How many bytes behind the RDB are needed to judge its end, and the judgement.
fn end_of(framing: Framing) -> (usize, EndCheck) {
    let tail_bytes = match framing {
        Framing::Length(_) => 0,
        Framing::Mark(mark) => mark.len(),
    };
    let judge = move |rdb_bytes, tail: &[u8]| match check_end(&framing, Some(rdb_bytes), tail, true) {
        EndVerdict::Complete => Ok(()),
        EndVerdict::Bad(why) => Err(bad_end(&why)),
        EndVerdict::NeedMore => Err(bad_end("it has no end")),
    };
    (tail_bytes, Box::new(judge))
}

fn bad_end(why: &str) -> Error {
    Error::new(Class::SourceUnavailable, format!("the node's stream was disturbed: {why}")).hint("try again")
}

pub(super) fn interrupted() -> Error {
    Error::new(Class::Unforeseen, "interrupted").hint("nothing was published; run the command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_length_or_the_mark_ends_a_capture() {
        let (tail, check) = end_of(Framing::Length(10));
        assert_eq!(tail, 0);
        check(10, b"").unwrap();
        assert!(end_of(Framing::Length(10)).1(9, b"").is_err());
        let mark = [b'm'; 40];
        assert_eq!(end_of(Framing::Mark(mark)).0, 40);
        end_of(Framing::Mark(mark)).1(10, &mark).unwrap();
        assert!(end_of(Framing::Mark(mark)).1(10, &mark[..39]).is_err());
        assert!(end_of(Framing::Mark(mark)).1(10, &[b'x'; 40]).is_err());
    }
}
