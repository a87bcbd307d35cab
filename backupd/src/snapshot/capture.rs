//! One shard, from a node's replication stream into an object.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::pipeline::write::{self, EndCheck, Target, Written};
use crate::pipeline::{CHUNKS_QUEUED, Meter};
use crate::redis::{Framing, Payload};

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
    let (tail_bytes, end_check) = end_of(framing);
    let (chunks, receiver) = mpsc::channel(CHUNKS_QUEUED);
    let store = write::shard(target, receiver, tail_bytes, end_check, meter);
    let (pumped, written) = tokio::join!(pump(payload, chunks, cancel), store);
    match (pumped, written) {
        (_, Ok(written)) => Ok(written),
        // the scanner only noticed that the bytes stopped; the connection knows why
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

/// Moves bytes from the connection to the scanner until it has enough.
async fn pump(mut payload: Payload, chunks: mpsc::Sender<Bytes>, cancel: &CancellationToken) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let count = tokio::select! {
            count = payload.next(&mut buffer) => count?,
            () = cancel.cancelled() => return Err(interrupted()),
            // the scanner has all it needs, or the store failed
            () = chunks.closed() => return Ok(()),
        };
        if count == 0 || chunks.send(buffer.split().freeze()).await.is_err() {
            return Ok(());
        }
    }
}

/// How many bytes follow the RDB, and what they and its length must be.
fn end_of(framing: Framing) -> (usize, EndCheck) {
    match framing {
        Framing::Length(length) => (
            0,
            Box::new(move |rdb_bytes, _| {
                if rdb_bytes == length {
                    Ok(())
                } else {
                    Err(bad_end(&format!("{rdb_bytes} bytes of the {length} announced")))
                }
            }),
        ),
        Framing::Mark(mark) => (
            mark.len(),
            Box::new(move |rdb_bytes, tail| {
                if tail == mark {
                    Ok(())
                } else {
                    Err(bad_end(&format!("{rdb_bytes} bytes without the server's end mark")))
                }
            }),
        ),
    }
}

fn bad_end(what: &str) -> Error {
    Error::new(Class::SourceUnavailable, format!("the node's stream held an RDB of {what}"))
        .hint("the transfer was cut short or disturbed; try again")
}

fn interrupted() -> Error {
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
