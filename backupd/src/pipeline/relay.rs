//! From the sealed frames to the store, past the spill when the store is slow.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::spill::{Frame, Queue, Spill};
use super::write::Sealing;
use crate::error::Result;
use crate::task_failed;

/// How long frames may wait for the store, all in all, before they go to the spill.
const GRACE: Duration = Duration::from_millis(250);

/// And this part of the time so far: one in twenty. A store that is hardly slower than the source needs no disk.
const GRACE_PART: u32 = 20;

/// Moves frames from `frames` to `out` in their order until all are through, or nobody takes them any more.
///
/// A store that lets frames wait for longer than a twentieth of the time is relieved by the spill, so that the source
/// is read at its own speed; only when that is full does the source wait.
///
/// # Errors
/// `StoreUnavailable` when the spill is full and the store takes nothing for as long as it allows; `Config` when the
/// spill cannot be written; what sealing a frame says.
pub(super) async fn relay(
    mut frames: mpsc::Receiver<Sealing>,
    out: mpsc::Sender<Frame>,
    spill: &Arc<Spill>,
) -> Result<()> {
    let mut queue = Queue::new(spill)?;
    let (begun, mut waited) = (Instant::now(), Duration::ZERO);
    // the frame that is next for the queue or the store, whether there was no room for it, and since when it waits
    let (mut held, mut full, mut since): (Option<Frame>, bool, Instant) = (None, false, begun);
    let mut open = true;
    loop {
        if let Some(frame) = held.take_if(|_| !queue.is_empty() && !full) {
            held = queue.push(frame).await?;
            full = held.is_some();
            continue;
        }
        let grace = GRACE.saturating_add(begun.elapsed() / GRACE_PART).saturating_sub(waited);
        let patience = if full { spill.wait } else { grace };
        tokio::select! {
            biased;
            permit = out.reserve(), if held.is_some() || !queue.is_empty() => {
                let Ok(permit) = permit else { return Ok(()) };
                if queue.is_empty() {
                    waited = waited.saturating_add(since.elapsed());
                }
                let oldest = match queue.pop().await? {
                    Some(frame) => Some(frame),
                    None => held.take(),
                };
                if let Some(frame) = oldest {
                    permit.send(frame);
                }
                full = false;
            }
            sealing = frames.recv(), if open && held.is_none() => match sealing {
                Some(sealing) => {
                    (held, since) = (Some(sealing.await.map_err(task_failed)??), Instant::now());
                }
                None => open = false,
            },
            () = sleep(patience), if held.is_some() => {
                if full {
                    return Err(spill.is_full());
                }
                waited = waited.saturating_add(since.elapsed());
                if let Some(frame) = held.take() {
                    held = queue.push(frame).await?;
                    full = held.is_some();
                }
            }
            else => break,
        }
    }
    if queue.count() > 0 {
        tracing::warn!(frames = queue.count(), "the store was slower than the source: frames went through the spill");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bkd::Kind;
    use crate::error::Class;

    /// Feeds `count` frames of a kilobyte into a relay.
    fn feed(count: u32) -> mpsc::Receiver<Sealing> {
        let (sender, frames) = mpsc::channel(2);
        tokio::spawn(async move {
            for number in 0..count {
                let sealing =
                    tokio::spawn(
                        async move { Ok(Frame { kind: Kind::Data, plain_bytes: number, stored: vec![1; 1000] }) },
                    );
                if sender.send(sealing).await.is_err() {
                    return;
                }
            }
        });
        frames
    }

    async fn take(mut from: mpsc::Receiver<Frame>, count: u32) {
        for number in 0..count {
            assert_eq!(from.recv().await.unwrap().plain_bytes, number);
        }
        assert!(from.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_store_that_stands_still_does_not_hold_the_source_and_gets_all_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let spill = Spill::new(folder.path(), 1 << 20, Duration::from_secs(3600)).unwrap();
        let (frames, (out, taken)) = (feed(500), mpsc::channel(1));
        let relayed = tokio::spawn({
            let spill = Arc::clone(&spill);
            async move { relay(frames, out, &spill).await }
        });
        // nothing is taken before all but the one in the channel lie in the spill
        while spill.used_bytes() < 499 * 1016 {
            sleep(Duration::from_millis(1)).await;
        }
        take(taken, 500).await;
        relayed.await.unwrap().unwrap();
        assert_eq!(spill.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_spill_waits_for_a_slow_store_and_gives_up_on_one_that_stands_still() {
        for bytes_max in [0, 5000] {
            let spill = Spill::new(Path::new("/tmp"), bytes_max, Duration::from_secs(3600)).unwrap();
            let (frames, (out, taken)) = (feed(100), mpsc::channel(1));
            let (relayed, ()) = tokio::join!(relay(frames, out, &spill), take(taken, 100));
            relayed.unwrap();

            let spill = Spill::new(Path::new("/tmp"), bytes_max, Duration::from_millis(20)).unwrap();
            let (frames, (out, taken)) = (feed(100), mpsc::channel(1));
            let error = relay(frames, out, &spill).await.unwrap_err();
            assert_eq!(error.class(), Class::StoreUnavailable);
            assert!(error.message().contains("the spill is full"), "{error}");
            drop(taken);
        }
    }
}
