//! A store whose process "dies" at a chosen write: every call after it fails, as nothing more happens after `kill -9`.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backupd::error::{Class, Error, Result};
use backupd::repository::Repository;
use backupd::store::{LocalStore, Page, Stat, Store, Unfinished, Upload};
use bytes::Bytes;

/// Passes everything on until so many writes were made.
#[derive(Debug)]
pub(crate) struct Dying {
    store: LocalStore,
    left: Arc<AtomicU32>,
    /// What somebody else does right after an object with this in its name was created.
    meanwhile: Mutex<Option<Meanwhile>>,
}

type Deed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Meanwhile {
    after: String,
    does: Box<dyn FnOnce(Repository) -> Deed + Send>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {}", self.after)
    }
}

/// An upload whose end is one write.
struct DyingUpload {
    upload: Box<dyn Upload>,
    left: Arc<AtomicU32>,
}

#[async_trait]
impl Upload for DyingUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.upload.write(bytes).await
    }

    async fn complete(self: Box<Self>) -> Result<()> {
        count(&self.left)?;
        self.upload.complete().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Err(Error::new(Class::Unforeseen, "killed"))
    }
}

fn count(left: &AtomicU32) -> Result<()> {
    let count = |left| match left {
        DEAD => None,
        0 => Some(DEAD),
        left => Some(left - 1),
    };
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) {
        Ok(0) | Err(_) => Err(Error::new(Class::Unforeseen, "killed")),
        Ok(_) => Ok(()),
    }
}

impl Dying {
    /// Dies right after write number `writes`; 0: before the first.
    pub(crate) fn after(store: LocalStore, writes: u32) -> Arc<Self> {
        Arc::new(Self { store, left: Arc::new(AtomicU32::new(writes)), meanwhile: Mutex::default() })
    }

    /// Lives, and somebody else does something with the repository right after the first object with `after` in its name.
    pub(crate) fn never<F>(
        store: LocalStore,
        after: &str,
        does: impl FnOnce(Repository) -> F + Send + 'static,
    ) -> Arc<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let does = |repository| Box::pin(does(repository)) as Deed;
        let meanwhile = Meanwhile { after: after.to_owned(), does: Box::new(does) };
        Arc::new(Self { store, left: Arc::new(AtomicU32::new(DEAD - 1)), meanwhile: Mutex::new(Some(meanwhile)) })
    }

    /// Whether it died: the job wanted to write more.
    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) == DEAD
    }

    fn alive(&self) -> Result<()> {
        if self.is_dead() { Err(Error::new(Class::Unforeseen, "killed")) } else { Ok(()) }
    }

    fn write(&self) -> Result<()> {
        count(&self.left)
    }
}

const DEAD: u32 = u32::MAX;

#[async_trait]
impl Store for Dying {
    fn url(&self) -> String {
        self.store.url()
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<()> {
        self.write()?;
        self.store.create(key, body).await?;
        let meanwhile = self.meanwhile.lock().unwrap().take_if(|it| key.contains(&it.after));
        if let Some(meanwhile) = meanwhile {
            (meanwhile.does)(Repository::open(Arc::new(self.store.clone())).await.unwrap()).await;
        }
        Ok(())
    }

    async fn read(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        self.alive()?;
        self.store.read(key, size_bytes_max).await
    }

    async fn read_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        self.alive()?;
        self.store.read_range(key, offset, length).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>> {
        self.alive()?;
        self.store.stat(key).await
    }

    async fn list(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page> {
        self.alive()?;
        self.store.list(prefix, by_folder, after).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.write()?;
        self.store.delete(key).await
    }

    async fn upload(&self, key: &str, size_hint_bytes: u64) -> Result<Box<dyn Upload>> {
        self.alive()?;
        let upload = self.store.upload(key, size_hint_bytes).await?;
        Ok(Box::new(DyingUpload { upload, left: Arc::clone(&self.left) }))
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        self.alive()?;
        self.store.unfinished().await
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        self.write()?;
        self.store.discard(unfinished).await
    }
}
