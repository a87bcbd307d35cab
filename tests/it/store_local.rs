//! A folder as a store.

use backupd::store::{self, RepositoryUrl};
use bytes::Bytes;

use crate::store_contract::{self, Race};

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_contract_of_a_store() {
    let root = tempfile::tempdir().unwrap();
    let store = store::open(&RepositoryUrl::Folder(root.path().join("repository"))).await.unwrap();
    store_contract::run(store.clone(), "contract", 1 << 20, Race::One).await;
    // Dropped uploads are cleaned up by their threads, which nothing waits for; a new folder shows the end state.
    drop(store);
    let left = || walk(root.path()).into_iter().filter(|name| name.contains(".tmp-")).count();
    while left() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn temporary_files_of_a_dead_writer_do_no_harm() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join(".tmp-00112233445566778899aabbccddeeff"), "half an object").unwrap();
    let store = store::open(&RepositoryUrl::Folder(root.path().into())).await.unwrap();
    store.create("a", Bytes::from_static(b"1")).await.unwrap();
    let page = store.list("", true, None).await.unwrap();
    assert_eq!(page.objects.len(), 1);
    assert!(page.folders.is_empty());
}

/// The names of all files below a folder.
fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(walk(&path));
        } else {
            names.push(path.display().to_string());
        }
    }
    names
}
