//! One of the connections over which a node gets its commands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::batch::{Batch, Of, Piece};
use super::refusal::{refused, taken};
use crate::error::{Error, Result};
use crate::redis::{Incoming, Outgoing, Said, Wire};

/// How long a piece may take to be sent, and a reply to come: a large value is a lot of work for a server.
const STALL_WAIT: Duration = Duration::from_secs(120);

/// Pieces that may be sent over it and not answered.
const PIECES_AHEAD: usize = 32;

/// A batch was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) lane: usize,
    /// Keys that the node took.
    pub(super) keys: u64,
    /// Bytes that it took.
    pub(super) bytes: u64,
    /// How long it took since the batch was given to the lane; `None` where that tells nothing of the node.
    pub(super) took: Option<Duration>,
}

/// Why a connection took no more.
#[derive(Debug)]
pub(super) enum Stop {
    /// It failed.
    Failed(Error),
    /// One of these keys is there already, and none was made.
    Taken(Vec<Vec<u8>>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What is waited for: the replies to a piece, and whether it is a batch of its own.
struct Sent {
    piece: Arc<Piece>,
    given: Option<Instant>,
}

/// Sends what comes and reads what is answered, until nothing comes any more.
pub(super) async fn run(
    lane: usize,
    wire: Wire,
    node: String,
    mut batches: mpsc::Receiver<(Batch, Instant)>,
    answers: mpsc::Sender<Answer>,
) -> Result<(), Stop> {
    let (mut outgoing, incoming) = wire.split();
    let (sent, to_read) = mpsc::channel(PIECES_AHEAD);
    let writing = async move {
        while let Some((batch, given)) = batches.recv().await {
            match batch {
                Batch::Whole(piece) => write(&mut outgoing, &sent, piece, Some(given)).await?,
                Batch::Series(mut pieces) => {
                    while let Some(piece) = pieces.recv().await {
                        write(&mut outgoing, &sent, piece, None).await?;
                    }
                }
            }
        }
        Ok::<_, Error>(())
    };
    let mut reading = std::pin::pin!(read(lane, incoming, to_read, &node, answers));
    tokio::select! {
        answered = &mut reading => answered,
        // sending fails when the server has closed the connection: what it said before is the cause
        written = writing => {
            reading.await?;
            Ok(written?)
        }
    }
}

async fn write(outgoing: &mut Outgoing, sent: &mpsc::Sender<Sent>, piece: Piece, given: Option<Instant>) -> Result<()> {
    let piece = Arc::new(piece);
    // the reader has failed when it does not take it, and says why
    if sent.send(Sent { piece: Arc::clone(&piece), given }).await.is_err() {
        return Ok(());
    }
    outgoing.write(&piece.bytes, STALL_WAIT).await
}

async fn read(
    lane: usize,
    mut incoming: Incoming,
    mut sent: mpsc::Receiver<Sent>,
    node: &str,
    answers: mpsc::Sender<Answer>,
) -> Result<(), Stop> {
    while let Some(Sent { piece, given }) = sent.recv().await {
        let mut answered = 0;
        while answered < piece.replies {
            answered += incoming.take_good(piece.replies - answered);
            if answered == piece.replies {
                break;
            }
            match (incoming.reply(STALL_WAIT).await?, &piece.of) {
                (Said::Refused(text), _) => return Err(refused(node, &piece.name(answered), &text).into()),
                (Said::Number(0), Of::Naming(name)) => return Err(taken(node, name).into()),
                // none of the keys of a command was made, because one was there
                (Said::Number(0), Of::Keys) => return Err(Stop::Taken(piece.keys_of(answered))),
                _ => answered += 1,
            }
        }
        let took = given.map(|given| given.elapsed());
        let answer = Answer { lane, keys: piece.keys, bytes: piece.bytes.len() as u64, took };
        // whoever waits for it has given up when it is not taken
        if answers.send(answer).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
