//! A large object being written to a folder, by a thread of its own.

use std::fs::File;
use std::sync::mpsc as blocking;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::LocalStore;
use super::write::Aside;
use crate::error::{Class, Error, Result};
use crate::store::{Store, Upload};

/// How many writes wait for the disk. The memory of an upload is this many times the largest write, plus two.
const WRITES_IN_FLIGHT: usize = 4;

/// After how many bytes the disk is told to take them, so that the sync at the end is short. While one such
/// portion is synced the next one is written; no more than two are unsynced.
const SYNC_EVERY_BYTES: usize = 32 << 20;

enum Order {
    Write(Bytes),
    Publish,
}

/// An upload to a folder.
pub(super) struct LocalUpload {
    key: String,
    url: String,
    orders: mpsc::Sender<Order>,
    /// The thread that writes; `None` after it failed and its error was told.
    writer: Option<JoinHandle<Result<()>>>,
}

impl LocalUpload {
    /// Starts the thread. Its first file operation happens there, so a failure shows at a later call.
    pub(super) fn begin(store: LocalStore, key: &str) -> Self {
        let (orders, received) = mpsc::channel(WRITES_IN_FLIGHT);
        let (url, owned) = (store.url(), key.to_owned());
        let writer = tokio::task::spawn_blocking(move || write_all(&store, &owned, received));
        Self { key: key.to_owned(), url, orders, writer: Some(writer) }
    }

    /// The error that ended the thread, the first time; afterwards that there was one.
    async fn failure(&mut self) -> Error {
        let Some(writer) = self.writer.take() else {
            let message = format!("writing `{}` in {} failed before", self.key, self.url);
            return Error::new(Class::StoreUnavailable, message);
        };
        match writer.await {
            Ok(Err(e)) => e,
            Ok(Ok(())) => Error::new(Class::Unforeseen, format!("writing `{}` in {} ended early", self.key, self.url)),
            Err(e) => crate::task_failed(e).at(format!("writing `{}` in {}", self.key, self.url)),
        }
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self.orders.send(Order::Write(bytes)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    async fn complete(mut self: Box<Self>) -> Result<()> {
        if self.orders.send(Order::Publish).await.is_err() {
            return Err(self.failure().await);
        }
        match self.writer.take() {
            Some(writer) => match writer.await {
                Ok(done) => done,
                Err(e) => Err(crate::task_failed(e).at(format!("writing `{}` in {}", self.key, self.url))),
            },
            None => Err(self.failure().await),
        }
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { orders, writer, .. } = *self;
        drop(orders);
        if let Some(writer) = writer {
            // The error of a failed write was told, or is what led here; the file is gone either way.
            drop(writer.await);
        }
        Ok(())
    }
}

/// Runs on the thread: until the sender is gone (then nothing stays) or says to publish.
fn write_all(store: &LocalStore, key: &str, mut orders: mpsc::Receiver<Order>) -> Result<()> {
    let mut aside = Aside::begin(store, key)?;
    let handle = aside.handle()?;
    let mut publish = false;
    std::thread::scope(|scope| {
        let (portions, taken) = blocking::sync_channel::<()>(0);
        let syncer = scope.spawn(move || sync_portions(&handle, &taken));
        let mut unsynced = 0_usize;
        while let Some(order) = orders.blocking_recv() {
            let Order::Write(bytes) = order else {
                publish = true;
                break;
            };
            aside.write(&bytes)?;
            unsynced = unsynced.saturating_add(bytes.len());
            if unsynced >= SYNC_EVERY_BYTES {
                unsynced = 0;
                // Waits for the portion before. A syncer that is gone has failed, which its result tells.
                if portions.send(()).is_err() {
                    break;
                }
            }
        }
        drop(portions);
        match syncer.join() {
            Ok(synced) => synced.map_err(|e| aside.error(&e)),
            Err(_) => Err(Error::new(Class::Unforeseen, format!("the thread that syncs `{key}` ended early"))),
        }
    })?;
    if publish { aside.publish() } else { Ok(()) }
}

fn sync_portions(file: &File, portions: &blocking::Receiver<()>) -> std::io::Result<()> {
    while portions.recv().is_ok() {
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_write_fails_every_later_call() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("file");
        std::fs::write(&base, "in the way").unwrap();
        let mut upload = LocalStore::new(&base).upload("a", 0).await.unwrap();
        let mut first = None;
        while first.is_none() {
            first = upload.write(Bytes::from_static(b"x")).await.err();
        }
        assert_eq!(first.unwrap().class(), Class::Config);
        assert_eq!(upload.write(Bytes::new()).await.unwrap_err().class(), Class::StoreUnavailable);
        assert_eq!(upload.complete().await.unwrap_err().class(), Class::StoreUnavailable);
    }
}
