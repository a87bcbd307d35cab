//! A store in memory: to read the same snapshot many thousand times, each time with other damage.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use backupd::error::{Class, Error, Result};
use backupd::store::{ObjectEntry, Page, Stat, Store, Unfinished, Upload};
use bytes::Bytes;

/// Objects by key.
pub(crate) type Objects = BTreeMap<String, Bytes>;

/// Reads and lists like a bucket; what is written is kept, large objects cannot be.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Objects>);

impl Memory {
    pub(crate) fn new(objects: Objects) -> Self {
        Self(Mutex::new(objects))
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap()
    }

    fn found(&self, key: &str) -> Result<Bytes> {
        self.objects().get(key).cloned().ok_or_else(|| Error::new(Class::NotFound, format!("`{key}` does not exist")))
    }
}

#[async_trait]
impl Store for Memory {
    fn url(&self) -> String {
        "memory".to_owned()
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<()> {
        match self.objects().entry(key.to_owned()) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(body)),
            std::collections::btree_map::Entry::Occupied(_) => return Err(Error::new(Class::Busy, key)),
        }
        Ok(())
    }

    async fn read(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        let body = self.found(key)?;
        if body.len() as u64 > size_bytes_max { Err(Error::new(Class::Verification, key)) } else { Ok(body) }
    }

    async fn read_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        let (body, range) =
            (self.found(key)?, usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap());
        if range.end > body.len() { Err(Error::new(Class::Verification, key)) } else { Ok(body.slice(range)) }
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>> {
        Ok(self.objects().get(key).map(|body| Stat {
            size_bytes: body.len() as u64,
            modified_unix_ms: 0,
            locked_until_unix_ms: None,
        }))
    }

    async fn list(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page> {
        let mut page = Page::default();
        let after = after.unwrap_or_default();
        for (key, body) in self.objects().iter().filter(|(key, _)| key.starts_with(prefix)) {
            let folder = key.strip_prefix(prefix).unwrap().split_once('/').map(|(name, _)| format!("{prefix}{name}/"));
            match folder.filter(|_| by_folder) {
                Some(folder) if *folder > *after && page.folders.last() != Some(&folder) => page.folders.push(folder),
                None if **key > *after => {
                    page.objects.push(ObjectEntry { key: key.clone(), size_bytes: body.len() as u64 });
                }
                _ => {}
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }

    async fn upload(&self, _key: &str, _size_hint_bytes: u64) -> Result<Box<dyn Upload>> {
        Err(Error::new(Class::Refused, "this store takes no large objects"))
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        Ok(Vec::new())
    }

    async fn discard(&self, _unfinished: &Unfinished) -> Result<()> {
        Ok(())
    }
}
