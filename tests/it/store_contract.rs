//! What every store must do, whatever it is made of.

use std::sync::Arc;

use backupd::error::{Class, Result};
use backupd::store::{PAGE_ENTRIES_MAX, Page, Store, Upload};
use bytes::Bytes;

/// What becomes of writers that want one name in the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Race {
    /// One of them wins, and the others are told.
    One,
    /// The server ignores conditions: several may be told that they won, and what is there is whole and from one of these.
    Several,
}

/// Runs every case below `root`, a folder of the store that nobody else uses.
pub(crate) async fn run(store: Arc<dyn Store>, root: &str, part_bytes: usize, race: Race) {
    small_objects(&*store, root).await;
    ranges(&*store, root).await;
    one_creator_wins(&store, root, race).await;
    keys_are_checked(&*store).await;
    listing_order(&*store, root).await;
    uploads_of_many_sizes(&*store, root, part_bytes).await;
    unfinished_uploads_are_invisible(&*store, root, part_bytes).await;
    unfinished_uploads_are_found_and_discarded(&*store, root, part_bytes).await;
    an_upload_never_overwrites(&*store, root, part_bytes).await;
    one_upload_wins(&store, root, part_bytes, race).await;
    long_listings(&store, root).await;
}

impl Race {
    fn check(self, winners: &[u8]) {
        let fits = if self == Self::One { winners.len() == 1 } else { !winners.is_empty() };
        assert!(fits, "{self:?}: {winners:?}");
    }
}

fn class<T>(result: Result<T>) -> Class {
    result.err().expect("this must fail").class()
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Bytes {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

async fn small_objects(store: &dyn Store, root: &str) {
    let key = format!("{root}/small/a.json");
    assert_eq!(class(store.read(&key, 10).await), Class::NotFound);
    assert_eq!(store.size(&key).await.unwrap(), None);
    store.create(&key, Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(store.read(&key, 10).await.unwrap(), "0123456789");
    assert_eq!(store.size(&key).await.unwrap(), Some(10));
    let error = store.read(&key, 9).await.unwrap_err();
    assert_eq!(error.class(), Class::Verification);
    assert!(error.message().contains(&key), "{error}");

    let error = store.create(&key, Bytes::from_static(b"other")).await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (Class::Busy, false), "{error}");
    assert!(error.message().contains(&key), "{error}");
    assert_eq!(store.read(&key, 10).await.unwrap(), "0123456789");

    let empty = format!("{root}/small/empty");
    store.create(&empty, Bytes::new()).await.unwrap();
    assert_eq!(store.read(&empty, 0).await.unwrap(), "");
    assert_eq!(store.size(&empty).await.unwrap(), Some(0));

    for key in [&key, &key, &empty] {
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.size(&key).await.unwrap(), None);
    assert!(everything(store, &format!("{root}/small/"), false).await.objects.is_empty());
    store.create(&key, Bytes::from_static(b"again")).await.unwrap();
    assert_eq!(store.read(&key, 100).await.unwrap(), "again");
}

async fn ranges(store: &dyn Store, root: &str) {
    let key = format!("{root}/ranges");
    let body = pattern(10_000);
    store.create(&key, body.clone()).await.unwrap();
    for (offset, length) in [(0, 10_000), (0, 1), (9_999, 1), (1, 9_998), (0, 0), (5_000, 0), (10_000, 0)] {
        let end = offset + length;
        let read = store.read_range(&key, offset as u64, length as u64).await.unwrap();
        assert_eq!(read, body.slice(offset..end), "{offset}+{length}");
    }
    for (offset, length) in [(0, 10_001), (9_999, 2), (10_000, 1), (10_001, 0), (u64::MAX, 1), (1, u64::MAX)] {
        let error = store.read_range(&key, offset, length).await.unwrap_err();
        assert_eq!(error.class(), Class::Verification, "{offset}+{length}: {error}");
        assert!(error.message().contains(&key), "{error}");
    }
    assert_eq!(class(store.read_range(&format!("{root}/missing"), 0, 1).await), Class::NotFound);
    assert_eq!(class(store.read_range(&format!("{root}/missing"), 0, 0).await), Class::NotFound);
}

async fn one_creator_wins(store: &Arc<dyn Store>, root: &str, race: Race) {
    let key = format!("{root}/race/name");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..12_u8 {
        let (store, key) = (store.clone(), key.clone());
        tasks.spawn(async move { (n, store.create(&key, vec![n; 1000].into()).await) });
    }
    let mut winners = Vec::new();
    for (n, result) in tasks.join_all().await {
        match result {
            Ok(()) => winners.push(n),
            Err(e) => assert_eq!(e.class(), Class::Busy, "{e}"),
        }
    }
    race.check(&winners);
    let there = store.read(&key, 1000).await.unwrap();
    assert!(winners.iter().any(|n| there == vec![*n; 1000]), "{winners:?}");
}

async fn keys_are_checked(store: &dyn Store) {
    for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".hidden", "a b", "caf\u{e9}"] {
        assert_eq!(class(store.create(key, Bytes::new()).await), Class::Usage, "{key}");
        assert_eq!(class(store.read(key, 1).await), Class::Usage, "{key}");
        assert_eq!(class(store.read_range(key, 0, 1).await), Class::Usage, "{key}");
        assert_eq!(class(store.size(key).await), Class::Usage, "{key}");
        assert_eq!(class(store.delete(key).await), Class::Usage, "{key}");
        assert_eq!(class(store.upload(key, 0).await), Class::Usage, "{key}");
    }
    for prefix in ["/", "../", "a//", "a b"] {
        assert_eq!(class(store.list(prefix, false, None).await), Class::Usage, "{prefix}");
    }
}

fn keys(page: &Page) -> Vec<String> {
    page.objects.iter().map(|o| o.key.clone()).collect()
}

/// All pages, one after another.
async fn everything(store: &dyn Store, prefix: &str, by_folder: bool) -> Page {
    let mut all = Page::default();
    loop {
        let page = store.list(prefix, by_folder, all.next.as_deref()).await.unwrap();
        assert!(page.objects.len() + page.folders.len() <= PAGE_ENTRIES_MAX);
        all.objects.extend(page.objects);
        all.folders.extend(page.folders);
        if page.next.is_none() {
            return all;
        }
        assert!(page.next > all.next, "a listing must go forward: {:?}", page.next);
        all.next = page.next;
    }
}

async fn listing_order(store: &dyn Store, root: &str) {
    let at = |names: &[&str]| names.iter().map(|name| format!("{root}/ls/{name}")).collect::<Vec<_>>();
    // In the order of their bytes: `-` and `.` come before `/`, digits and letters after it.
    let all = at(&["a-b/x", "a.txt", "a/b/c", "a/b0", "a0", "aB", "b/x", "c"]);
    for (n, key) in all.iter().rev().enumerate() {
        store.create(key, pattern(n)).await.unwrap();
    }
    let list = |prefix: &str, by_folder, after: Option<&str>| {
        let (prefix, after) = (format!("{root}/ls/{prefix}"), after.map(|after| format!("{root}/ls/{after}")));
        async move { store.list(&prefix, by_folder, after.as_deref()).await.unwrap() }
    };
    let whole = list("", false, None).await;
    assert_eq!(keys(&whole), all);
    assert_eq!(whole.objects.iter().map(|o| o.size_bytes).collect::<Vec<_>>(), [7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!((whole.folders, whole.next), (vec![], None));

    let folders = list("", true, None).await;
    assert_eq!(folders.folders, at(&["a-b/", "a/", "b/"]));
    assert_eq!(keys(&folders), at(&["a.txt", "a0", "aB", "c"]));
    let inner = list("a/", true, None).await;
    assert_eq!((keys(&inner), inner.folders.clone()), (at(&["a/b0"]), at(&["a/b/"])));

    assert_eq!(keys(&list("a", false, None).await), at(&["a-b/x", "a.txt", "a/b/c", "a/b0", "a0", "aB"]));
    assert_eq!(keys(&list("a/b", false, None).await), at(&["a/b/c", "a/b0"]));
    assert!(list("zz", false, None).await.objects.is_empty());
    for (n, key) in all.iter().enumerate() {
        assert_eq!(keys(&store.list(&format!("{root}/ls/"), false, Some(key)).await.unwrap()), all[n + 1..], "{key}");
    }
    let after = list("", true, Some("a-b/")).await;
    assert_eq!((after.folders.clone(), keys(&after)), (at(&["a/", "b/"]), at(&["a.txt", "a0", "aB", "c"])));
    let after = list("", true, Some("a/")).await;
    assert_eq!((after.folders.clone(), keys(&after)), (at(&["b/"]), at(&["a0", "aB", "c"])));
}

async fn long_listings(store: &Arc<dyn Store>, root: &str) {
    let count = PAGE_ENTRIES_MAX + 7;
    let names: Vec<_> = (0..count).map(|n| format!("{root}/long/{n:05}/x")).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for share in names.chunks(count / 8 + 1) {
        let (store, share) = (store.clone(), share.to_vec());
        tasks.spawn(async move {
            for key in share {
                store.create(&key, Bytes::from_static(b"x")).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let first = store.list(&format!("{root}/long/"), false, None).await.unwrap();
    assert_eq!(first.objects.len(), PAGE_ENTRIES_MAX);
    assert!(first.next.is_some());
    assert_eq!(keys(&everything(&**store, &format!("{root}/long/"), false).await), names);
    let folders = everything(&**store, &format!("{root}/long/"), true).await;
    assert_eq!(folders.folders, names.iter().map(|key| key.trim_end_matches('x').to_owned()).collect::<Vec<_>>());
    assert!(folders.objects.is_empty());
    let exact = store.list(&format!("{root}/long/"), true, Some(&folders.folders[6])).await.unwrap();
    assert_eq!((exact.folders.len(), exact.next), (PAGE_ENTRIES_MAX, None), "a full last page has no next one");
}

/// Writes a body in pieces of `piece` bytes.
async fn write(upload: &mut Box<dyn Upload>, body: &Bytes, piece: usize) {
    let mut rest = body.clone();
    while !rest.is_empty() {
        upload.write(rest.split_to(piece.min(rest.len()))).await.unwrap();
    }
}

async fn uploads_of_many_sizes(store: &dyn Store, root: &str, part: usize) {
    for (n, (size, piece)) in [
        (0, 1),
        (1, 1),
        (1000, 7),
        (part - 1, part),
        (part, 1 << 20),
        (part + 1, 1 << 20),
        (2 * part, 2 * part),
        (5 * part + 12_345, 777_777),
        (3 * part + 1, 3 * part + 1),
        // whole parts, sent before it is known that none follows
        (2 * part, part),
        (part + 1, part),
        (2 * part, part),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("{root}/up/{n}");
        let body = pattern(size);
        // The hint only chooses the size of parts: a wrong one does no harm.
        let hint = [0, size as u64, 1, 10 * size as u64][n % 4];
        let mut upload = store.upload(&key, hint).await.unwrap();
        write(&mut upload, &body, piece).await;
        assert_eq!(store.size(&key).await.unwrap(), None, "visible before it is complete");
        upload.complete().await.unwrap();
        assert_eq!(store.size(&key).await.unwrap(), Some(size as u64));
        assert!(store.read(&key, size as u64).await.unwrap() == body, "{size} bytes in pieces of {piece}");
        let (offset, length) = (size / 2, size / 3);
        let range = store.read_range(&key, offset as u64, length as u64).await.unwrap();
        assert!(range == body.slice(offset..offset + length), "{length} bytes at {offset} of {size}");
    }
}

async fn unfinished_uploads_are_invisible(store: &dyn Store, root: &str, part: usize) {
    for (n, size) in [0, 10, 2 * part + 1].into_iter().enumerate() {
        for abort in [true, false] {
            let key = format!("{root}/unfinished/{n}-{abort}");
            let mut upload = store.upload(&key, 0).await.unwrap();
            write(&mut upload, &pattern(size), 1 << 20).await;
            if abort {
                upload.abort().await.unwrap();
            } else {
                drop(upload);
            }
            assert_eq!(store.size(&key).await.unwrap(), None);
        }
    }
    assert_eq!(store.list(&format!("{root}/unfinished"), true, None).await.unwrap(), Page::default());
}

async fn unfinished_uploads_are_found_and_discarded(store: &dyn Store, root: &str, part: usize) {
    let key = format!("{root}/left/shard");
    let now_ms = || backupd::clock::unix_ms(backupd::clock::now());
    let begun_ms = now_ms();
    let mut upload = store.upload(&key, 0).await.unwrap();
    write(&mut upload, &pattern(2 * part + 1), 1 << 20).await;
    // those that others left, or that are being given up in the background, are not asked about
    let of_ours = |found: &backupd::store::Unfinished| found.key.as_ref().is_none_or(|found| *found == key);
    let mut found = store.unfinished().await.unwrap();
    found.retain(of_ours);
    assert!(!found.is_empty());
    for unfinished in &found {
        let apart_ms = unfinished.modified_unix_ms.abs_diff(begun_ms);
        assert!(apart_ms < 300_000, "{unfinished:?} is {apart_ms} ms from now");
        store.discard(unfinished).await.unwrap();
        store.discard(unfinished).await.unwrap();
    }
    let mut left = store.unfinished().await.unwrap();
    left.retain(|unfinished| found.contains(unfinished));
    assert_eq!(left, []);
    // whoever wrote it fails, and nothing of it is seen
    upload.complete().await.unwrap_err();
    assert_eq!(store.size(&key).await.unwrap(), None);
    store.create(&key, Bytes::from_static(b"now")).await.unwrap();
    let stat = store.stat(&key).await.unwrap().unwrap();
    assert!(stat.size_bytes == 3 && stat.modified_unix_ms.abs_diff(now_ms()) < 300_000, "{stat:?}");
}

async fn an_upload_never_overwrites(store: &dyn Store, root: &str, part: usize) {
    for (n, size) in [0, 10, part + 1].into_iter().enumerate() {
        let key = format!("{root}/taken/{n}");
        let mut upload = store.upload(&key, 0).await.unwrap();
        write(&mut upload, &pattern(size), part).await;
        store.create(&key, Bytes::from_static(b"first")).await.unwrap();
        let error = upload.complete().await.unwrap_err();
        assert_eq!((error.class(), error.is_retryable()), (Class::Busy, false), "{size}: {error}");
        assert_eq!(store.read(&key, 5).await.unwrap(), "first");
    }
}

async fn one_upload_wins(store: &Arc<dyn Store>, root: &str, part: usize, race: Race) {
    let key = format!("{root}/up-race");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..3_u8 {
        let (store, key) = (store.clone(), key.clone());
        tasks.spawn(async move {
            let mut upload = store.upload(&key, 0).await.unwrap();
            upload.write(vec![n; part + 1 + usize::from(n)].into()).await.unwrap();
            (n, upload.complete().await)
        });
    }
    let mut winners = Vec::new();
    for (n, result) in tasks.join_all().await {
        match result {
            Ok(()) => winners.push(n),
            Err(e) => assert_eq!(e.class(), Class::Busy, "{e}"),
        }
    }
    race.check(&winners);
    let there = store.read(&key, 1 << 30).await.unwrap();
    assert!(winners.iter().any(|n| there == vec![*n; part + 1 + usize::from(*n)]), "{winners:?}");
}
