//! What is kept stays, whoever deletes and whenever.

use backupd::error::Class;
use backupd::repository::removal::Despite;
use backupd::store::LocalStore;

use crate::dying::Dying;
use crate::fixture::Repo;
use crate::harness::s3::block_on;
use crate::removal::{loaded, names, open, place};

#[test]
fn a_note_that_cannot_be_read_may_say_that_a_snapshot_is_kept() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    repo.json(&["snapshot", "keep", "one"]);
    let is_note = |path: &std::path::Path| path.to_string_lossy().contains("fact-kept-");
    let (path, mut note) = repo.files().into_iter().find(|(path, _)| is_note(path)).unwrap();
    note[20] ^= 1;
    std::fs::write(path, note).unwrap();
    repo.run(&["snapshot", "delete", "one"]).exits(17).says("fact-kept-").says("--broken");
    repo.run(&["snapshot", "verify", "one"]).ok();
    repo.run(&["snapshot", "delete", "one", "--broken"]).ok();
    repo.run(&["snapshot", "show", "one"]).exits(10);
}

#[test]
fn a_kept_snapshot_is_refused_before_anything_is_written_and_one_that_is_kept_meanwhile_stays() {
    let server = loaded();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let one = place(&repo);
    repo.json(&["snapshot", "keep", "one"]);
    let before = repo.files();
    // the first write would be its end
    let dying = Dying::after(LocalStore::new(&repo.root()), 0);
    let error = block_on(async { open(dying.clone()).await.delete("one", Despite::default()).await.unwrap_err() });
    assert_eq!((error.class(), dying.is_dead()), (Class::Refused, false));
    assert_eq!(repo.files(), before);
    repo.json(&["snapshot", "keep", "one", "--release"]);

    // somebody keeps it between the first look and the tombstone
    let store = LocalStore::new(&repo.root());
    let meanwhile = Dying::never(store, "fact-tombstone-", move |repository| async move {
        repository.keep(&one, true, None).await.unwrap_err();
    });
    let error = block_on(async { open(meanwhile).await.delete("one", Despite::default()).await.unwrap_err() });
    assert_eq!(error.class(), Class::Refused, "{error}");
    repo.json(&["snapshot", "verify", "one", "--no-record"]);
    assert!(!names(&repo).iter().any(|name| name.contains("fact-tombstone-")), "nobody is kept from reading it");
    repo.run(&["snapshot", "delete", "one"]).exits(18).says("is kept");
}
