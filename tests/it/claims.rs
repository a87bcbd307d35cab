//! Names: who holds one, and what becomes of an attempt whose process is gone or only stood still.

use std::path::PathBuf;
use std::sync::Arc;

use backupd::canonical::{Proof, seal};
use backupd::error::Class;
use backupd::repository::claim::{Claim, Process};
use backupd::repository::{Place, Repository, new_snapshot_id};
use backupd::store::LocalStore;
use policies::job::Remains;

use crate::harness::s3::block_on;

struct Fixture {
    folder: tempfile::TempDir,
    repository: Repository,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(LocalStore::new(folder.path()));
        let repository = block_on(Repository::open_or_create(store)).unwrap();
        Self { folder, repository }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(key)
    }

    /// An object that an attempt to make a snapshot left.
    fn leave(&self, place: &Place) -> PathBuf {
        let path = self.path(&place.key("shard-0000-1.bkd"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "half").unwrap();
        path
    }
}

fn id() -> String {
    new_snapshot_id(backupd::clock::now()).unwrap()
}

#[test]
fn a_claim_of_another_job_with_the_same_number_is_not_ours() {
    let all = Fixture::new();
    let first = block_on(all.repository.claim("one", "c", &id())).unwrap();
    block_on(all.repository.check_held(&first)).unwrap();
    // the snapshot of this name was made, and deleted with its claims: numbers begin again
    std::fs::remove_dir_all(all.path("_names/one")).unwrap();
    block_on(all.repository.release(&first)).unwrap();
    let second = block_on(all.repository.claim("one", "c", &id())).unwrap();
    assert_eq!(first.claim.number, second.claim.number);
    assert_eq!(block_on(all.repository.check_held(&first)).unwrap_err().class(), Class::Busy);
    // nor does the first one end what the second holds
    block_on(all.repository.release(&first)).unwrap();
    block_on(all.repository.check_held(&second)).unwrap();
    block_on(all.repository.release(&second)).unwrap();
    assert_eq!(block_on(all.repository.check_held(&second)).unwrap_err().class(), Class::Busy);
}

#[test]
fn an_abandoned_attempt_never_publishes_and_its_objects_go_only_when_its_process_is_gone() {
    let all = Fixture::new();
    // the process that made it may be about to write the manifest: its objects stay for gc
    let held = block_on(all.repository.claim("alive", "c", &id())).unwrap();
    let object = all.leave(&held.place);
    assert_eq!(block_on(all.repository.abandon("alive", &held.place)).unwrap(), Remains::Unfinished);
    assert!(object.exists());
    assert_eq!(block_on(all.repository.check_held(&held)).unwrap_err().class(), Class::Busy);

    let held = block_on(all.repository.claim("gone", "c", &id())).unwrap();
    let object = all.leave(&held.place);
    let process = Process { started: held.claim.process.started + 1, ..held.claim.process.clone() };
    let claim = Claim { process, ..held.claim.clone() };
    std::fs::write(all.path("_names/gone/000001.json"), seal(&claim, Proof::Digest).unwrap()).unwrap();
    assert_eq!(block_on(all.repository.abandon("gone", &held.place)).unwrap(), Remains::Unfinished);
    assert!(!object.exists());

    // of a snapshot that another job makes under the name nothing is touched
    let other = block_on(all.repository.claim("other", "c", &id())).unwrap();
    let before = Place { cluster: "c".to_owned(), snapshot_id: id() };
    assert_eq!(block_on(all.repository.abandon("other", &before)).unwrap(), Remains::Nothing);
    block_on(all.repository.check_held(&other)).unwrap();
}
