//! Damage by the ten thousand: every bit of a small snapshot, and thousands of random damages of a larger one.
//!
//! The full matrix takes minutes, so it is asked for by name; docs/damage.md has its command and its last result. The tests that
//! always run do a part of the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use backupd::crypt::keyring::Keyring;
use backupd::error::{Class, Error};
use backupd::progress::Progress;
use backupd::repository::{Keys, Repository};
use backupd::snapshot::verify;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::fixture::Repo;
use crate::harness::cluster::Cluster;
use crate::harness::keyspace::Random;
use crate::harness::nodes;
use crate::harness::server::Server;
use crate::memory::{Memory, Objects};
use crate::snapshot_damage::frames;

/// The seed of the random damages.
const SEED: u64 = 20_261_125;

/// The objects of a repository in a folder.
fn objects(repo: &Repo) -> Objects {
    let key = |path: &std::path::Path| path.strip_prefix(repo.root()).unwrap().to_str().unwrap().to_owned();
    repo.files().into_iter().map(|(path, content)| (key(&path), Bytes::from(content))).collect()
}

/// Verifies snapshots of stores in memory.
struct Verifier {
    runtime: tokio::runtime::Runtime,
    keys: Keys,
}

impl Verifier {
    fn new(repo: &Repo) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime, keys: Keys::Keyring(Keyring::read(&repo.path("keys.json")).unwrap()) }
    }

    fn verify(&self, objects: Objects) -> Result<(), Error> {
        self.runtime.block_on(async {
            let repository = Repository::open(Arc::new(Memory::new(objects))).await?;
            let (progress, never) = (Progress::default(), CancellationToken::new());
            verify::examine(&repository, "one", &self.keys, &verify::Examination::default(), &progress, &never)
                .await
                .map(drop)
        })
    }

    /// The damage must be noticed, as damage or as a wrong key, and one of these objects named.
    fn assert_noticed(&self, objects: Objects, named: &[&str], what: &str) {
        let Err(error) = self.verify(objects) else { panic!("not noticed: {what} of {named:?}") };
        assert!(matches!(error.class(), Class::Verification | Class::Key), "{what} of {named:?}: {error:?}");
        let name = |key: &&str| error.message().contains(key.rsplit('/').next().unwrap());
        assert!(named.iter().any(name), "{what} of {named:?}: {error:?}");
    }
}

/// Flips every `step`-th bit of every object. Returns the flips.
fn flip_bits(step: usize) -> usize {
    let server = Server::standalone();
    redis::cmd("SET").arg("greeting").arg("hello").exec(&mut server.connect()).unwrap();
    redis::cmd("RPUSH").arg("list").arg(&["a", "b"]).exec(&mut server.connect()).unwrap();
    let repo = Repo::folder();
    repo.create(&server.url(), "one");
    let (whole, verifier) = (objects(&repo), Verifier::new(&repo));
    verifier.verify(whole.clone()).unwrap();
    assert_eq!(whole.len(), 5, "marker, claim, manifest, wrap, shard: {:?}", whole.keys());
    let flips: Vec<(&String, usize)> =
        whole.iter().flat_map(|(key, body)| (0..body.len() * 8).map(move |bit| (key, bit))).step_by(step).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let verifier = Verifier::new(&repo);
                while let Some((key, bit)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (mut damaged, mut body) = (whole.clone(), whole[*key].to_vec());
                    body[bit / 8] ^= 1 << (bit % 8);
                    damaged.insert((*key).clone(), Bytes::from(body));
                    verifier.assert_noticed(damaged, &[key], &format!("a flip of bit {bit}"));
                }
            });
        }
    });
    flips.len()
}

/// Three shards of several frames, an older snapshot of the same name, and another one.
struct Larger {
    repo: Repo,
    whole: Objects,
    /// Of the snapshot that had the name before, and of the other one: shards, manifest and wrap, in order.
    others: [Vec<Bytes>; 2],
}

/// The keys of one snapshot's objects: shards, manifest, wrap.
fn keys_of(objects: &Objects) -> Vec<String> {
    let mut keys: Vec<String> = objects.keys().filter(|key| key.starts_with("default/")).cloned().collect();
    keys.sort_by_key(|key| (!key.ends_with(".bkd"), key.contains("wrap-"), key.clone()));
    assert_eq!(keys.len(), 5, "{keys:?}");
    keys
}

fn larger() -> Larger {
    let cluster = Cluster::start(3, 0);
    let mut random = Random::new(SEED);
    for index in 0..15 {
        // does not compress, so that frames are of equal length
        let value: Vec<u8> = (0..700_000).map(|_| random.byte()).collect();
        let key = format!("key-{index}");
        let slot = policies::slot::key_slot(key.as_bytes());
        let owner = cluster.nodes().into_iter().find(|node| node.slots.contains(slot)).unwrap();
        redis::cmd("SET").arg(key).arg(value).exec(&mut nodes::connect(&owner.url)).unwrap();
    }
    let repo = Repo::folder();
    let take = |name: &str| {
        repo.create(&cluster.url(), name);
        let objects = objects(&repo);
        let bodies = keys_of(&objects).iter().map(|key| objects[key].clone()).collect();
        repo.json(&["snapshot", "delete", name]);
        bodies
    };
    let others = [take("one"), take("other")];
    repo.create(&cluster.url(), "one");
    let whole = objects(&repo);
    Larger { repo, whole, others }
}

/// One random damage; the objects that may be named for it, and what it is.
fn damage(larger: &Larger, random: &mut Random) -> (Objects, Vec<String>, &'static str) {
    let (mut objects, keys) = (larger.whole.clone(), keys_of(&larger.whole));
    let count = |random: &mut Random, most: usize| usize::try_from(random.below(most as u64)).unwrap();
    let pick = count(random, keys.len());
    let key = &keys[pick];
    let mut body = objects[key].to_vec();
    let what = match random.below(7) {
        0 => {
            let bit = count(random, body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            "a flip"
        }
        1 => {
            body.truncate(count(random, body.len()));
            "a cut"
        }
        2 => {
            let more = 1 + count(random, 1000);
            body.extend((0..more).map(|_| random.byte()));
            "an extension"
        }
        3 => {
            let other = &larger.others[count(random, 2)][pick];
            body = other.to_vec();
            "an exchange for the same object of another snapshot"
        }
        4 => {
            objects.remove(key);
            // of a wrap that is missing the key is not known
            return (objects, vec![key.clone(), "wrap-".to_owned()], "a removal");
        }
        5 => {
            let other = (pick + 1 + count(random, keys.len() - 1)) % keys.len();
            let (a, b) = (objects[key].clone(), objects[&keys[other]].clone());
            objects.insert(key.clone(), b);
            objects.insert(keys[other].clone(), a);
            return (objects, vec![key.clone(), keys[other].clone()], "an exchange of two objects");
        }
        _ => {
            let shard = count(random, 3);
            let mut body = objects[&keys[shard]].to_vec();
            let places = frames(&body);
            let (first, second) = (count(random, places.len()), count(random, places.len() - 1));
            let second = (first + 1 + second) % places.len();
            let (a, b) = (places[first.min(second)].clone(), places[first.max(second)].clone());
            let reordered =
                [&body[..a.start], &body[b.clone()], &body[a.end..b.start], &body[a.clone()], &body[b.end..]].concat();
            assert_eq!(reordered.len(), body.len());
            body.copy_from_slice(&reordered);
            objects.insert(keys[shard].clone(), Bytes::from(body));
            return (objects, vec![keys[shard].clone()], "an exchange of two frames");
        }
    };
    assert!(body != objects[key], "{what} changed nothing");
    objects.insert(key.clone(), Bytes::from(body));
    (objects, vec![key.clone()], what)
}

/// Random damages of the larger snapshot, counted by kind.
fn damages(count: usize) -> BTreeMap<&'static str, usize> {
    let larger = larger();
    let verifier = Verifier::new(&larger.repo);
    verifier.verify(larger.whole.clone()).unwrap();
    let (mut random, mut kinds) = (Random::new(SEED), BTreeMap::new());
    for _ in 0..count {
        let (objects, named, what) = damage(&larger, &mut random);
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        // without its manifest a snapshot does not exist, and no damage can be told from that
        match objects.keys().any(|key| key.ends_with("manifest.json")) {
            true => verifier.assert_noticed(objects, &named, what),
            false => assert_eq!(verifier.verify(objects).unwrap_err().class(), Class::NotFound),
        }
        *kinds.entry(what).or_default() += 1;
    }
    kinds
}

#[test]
fn many_flips_and_many_random_damages_are_noticed() {
    assert!(flip_bits(37) > 500);
    assert_eq!(damages(60).values().sum::<usize>(), 60);
}

#[test]
#[ignore = "minutes: the full matrix of docs/damage.md"]
fn full_damage_matrix() {
    let begun = Instant::now();
    let flips = flip_bits(1);
    println!("{flips} bits flipped, one at a time: all noticed, in {:?}", begun.elapsed());
    let begun = Instant::now();
    let kinds = damages(2000);
    println!("2000 random damages with seed {SEED}: all noticed, in {:?}: {kinds:?}", begun.elapsed());
}
