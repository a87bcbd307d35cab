//! How fast an object goes into the S3 server of the tests, beside the best client of S3 at hand, and what all stages of a capture reach together.
//!
//! Nothing is deleted, since a server gives room back hours later: it needs room for an object of each client in each run, and for two captures more.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backupd::bkd::{Cipher, Compression, Header};
use backupd::crypt::DataKey;
use backupd::error::Result;
use backupd::pipeline::spill::Spill;
use backupd::pipeline::write::{self, Target};
use backupd::pipeline::{CHUNKS_QUEUED, Flow, Meter};
use backupd::store::{LocalStore, Page, RepositoryUrl, S3Store, Stat, Store, Unfinished, Upload};
use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::harness::process;
use crate::harness::s3::Bucket;
use crate::{Asked, mb, shapes};

/// Parts of an upload of ours that are on their way at the same time, and their size; the other clients get the same.
const PARTS: &str = "4";
const PART_MIB: &str = "8";
/// Bytes of a chunk from a source.
const CHUNK: usize = 256 << 10;

/// Medians of a run of each by turns.
pub(crate) fn upload(asked: &Asked) {
    let bucket = Bucket::create("bench-upload");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut object = Vec::new();
    shapes::Shape::Large.write(asked.shard_bytes as u64, &mut object).unwrap();
    let file = asked.dir.join("object");
    std::fs::write(&file, &object).unwrap();
    let object = Bytes::from(object);
    let mut others: Vec<(Other, Vec<f64>)> =
        Other::installed(asked, &bucket).into_iter().map(|it| (it, vec![])).collect();
    let mut ours = Vec::new();
    for run in 0..asked.runs {
        for (other, times) in &mut others {
            times.push(timed(|| other.send(&file, &bucket, &format!("{}-{run}", other.name))));
        }
        ours.push(timed(|| runtime.block_on(send(open(&bucket), &object, &format!("ours-{run}"))).unwrap()));
    }
    println!(
        "\nupload of {:.0} MB in parts of {PART_MIB} MiB, {PARTS} at a time, {} runs: MB a second",
        mb(object.len() as u64),
        asked.runs
    );
    let row = |name: &str, times: &[f64]| {
        let rate = mb(object.len() as u64) / median(times);
        println!("{name:<12}{rate:>8.0}   {times:.2?} s");
        rate
    };
    let best = others.iter().map(|(other, times)| row(other.name, times)).fold(0.0, f64::max);
    let own = row("backupd", &ours);
    println!("ratio to the best {:.2}", own / best);
    drop(object);
    for shape in [shapes::Shape::Mixed, shapes::Shape::Large] {
        together(asked, &runtime, &bucket, shape, own);
    }
}

/// What scanning, compressing, sealing and digesting reach into nothing, and into the server.
fn together(asked: &Asked, runtime: &Runtime, bucket: &Bucket, shape: shapes::Shape, upload_rate: f64) {
    let mut rdb = Vec::new();
    shape.write(asked.shard_bytes as u64, &mut rdb).unwrap();
    let rdb = Bytes::from(rdb);
    let (mut alone, mut all, mut stored) = (Vec::new(), Vec::new(), 0);
    for run in 0..asked.runs {
        let nothing: Arc<dyn Store> = Arc::new(Nothing(LocalStore::new(&asked.dir)));
        for (store, times) in [(nothing, &mut alone), (open(bucket), &mut all)] {
            let key = format!("{}-{run}", shape.name());
            times.push(timed(|| stored = runtime.block_on(capture(asked, store, key, &rdb)).unwrap()));
        }
    }
    let size = mb(rdb.len() as u64);
    let (stage, sent) = (size / median(&alone), size / median(&all));
    let upload = upload_rate * size / mb(stored);
    println!(
        "{:<6} MB of RDB a second, {size:.0} MB, {:.0} stored: all but the upload {stage:.0}, upload alone {upload:.0}, all together {sent:.0}; \
         ratio to the slower {:.2}, to both one after another {:.2}",
        shape.name(),
        mb(stored),
        sent / stage.min(upload),
        sent * (1.0 / stage + 1.0 / upload)
    );
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn open(bucket: &Bucket) -> Arc<dyn Store> {
    let RepositoryUrl::Bucket(url) = bucket.url("bench").parse().unwrap() else { panic!("no bucket") };
    let credentials = bucket.credentials();
    Arc::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(S3Store::open(&url, Some(credentials)))
            .unwrap(),
    )
}

/// As a capture does: a frame at a time.
async fn send(store: Arc<dyn Store>, object: &Bytes, key: &str) -> Result<()> {
    let mut upload = store.upload(key, object.len() as u64).await?;
    for at in (0..object.len()).step_by(1 << 20) {
        upload.write(object.slice(at..object.len().min(at + (1 << 20)))).await?;
    }
    upload.complete().await
}

/// Stores an RDB as a capture does, and gives its stored bytes.
async fn capture(asked: &Asked, store: Arc<dyn Store>, key: String, rdb: &Bytes) -> Result<u64> {
    let spill = Spill::new(&asked.dir, 1 << 30, Duration::from_secs(60))?;
    let target = Target {
        store,
        file: key.clone(),
        key,
        header: Header::new(Cipher::Aes256Gcm, Compression::Zstd, "20261125T000000Z-00000000", 0, 1)?,
        data_key: Some(DataKey::random()?),
        level: 1,
        size_hint_bytes: rdb.len() as u64,
        flow: Flow { spill, source_rate: None, store_rate: None },
    };
    let (chunks, receiver) = tokio::sync::mpsc::channel(CHUNKS_QUEUED);
    let rdb = rdb.clone();
    let pump = async move {
        for at in (0..rdb.len()).step_by(CHUNK) {
            if chunks.send(rdb.slice(at..rdb.len().min(at + CHUNK))).await.is_err() {
                return;
            }
        }
    };
    let end = Box::new(|_, _: &[u8]| Ok(()));
    let (written, ()) = tokio::join!(write::shard(target, receiver, 0, end, Arc::new(Meter::default())), pump);
    written.map(|written| written.object.stored_bytes)
}

/// Another client.
struct Other {
    name: &'static str,
    program: &'static str,
    words: Vec<String>,
    envs: Vec<(&'static str, String)>,
}

impl Other {
    /// Those that are in the path.
    fn installed(asked: &Asked, bucket: &Bucket) -> Vec<Self> {
        let config = asked.dir.join("aws-config").display().to_string();
        let text = format!(
            "[default]\ns3 =\n  multipart_threshold = {PART_MIB}MB\n  multipart_chunksize = {PART_MIB}MB\n  max_concurrent_requests = {PARTS}\n  \
             preferred_transfer_client = classic\n"
        );
        std::fs::write(&config, text).unwrap();
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all = vec![
            Self {
                name: "rclone",
                program: "rclone",
                words: words(&[
                    "copyto",
                    "{file}",
                    ":s3:{to}",
                    "--s3-provider",
                    "Ceph",
                    "--s3-env-auth",
                    "--s3-endpoint",
                    &bucket.endpoint,
                    "--s3-region",
                    &bucket.region,
                    "--s3-chunk-size",
                    &format!("{PART_MIB}Mi"),
                    "--s3-upload-cutoff",
                    &format!("{PART_MIB}Mi"),
                    "--s3-upload-concurrency",
                    PARTS,
                    "--s3-no-check-bucket",
                ]),
                envs: vec![("RCLONE_CONFIG", asked.dir.join("none").display().to_string())],
            },
            Self {
                name: "s5cmd",
                program: "s5cmd",
                words: words(&[
                    "--endpoint-url",
                    &bucket.endpoint,
                    "cp",
                    "--part-size",
                    PART_MIB,
                    "--concurrency",
                    PARTS,
                    "{file}",
                    "s3://{to}",
                ]),
                envs: Vec::new(),
            },
            Self {
                name: "aws s3 cp",
                program: "aws",
                words: words(&["s3", "cp", "--quiet", "--endpoint-url", &bucket.endpoint, "{file}", "s3://{to}"]),
                envs: vec![("AWS_CONFIG_FILE", config)],
            },
        ];
        let is_there = |other: &Self| {
            let path = std::env::var_os("PATH").unwrap();
            std::env::split_paths(&path).any(|folder| folder.join(other.program).is_file())
        };
        let found: Vec<Self> = all.into_iter().filter(is_there).collect();
        assert!(!found.is_empty(), "no client of S3 to compare with: install rclone, s5cmd or the AWS command line");
        found
    }

    fn send(&self, file: &Path, bucket: &Bucket, key: &str) {
        let to = format!("{}/{key}", bucket.name);
        let mut command = process::command(self.program);
        let word = |word: &String| word.replace("{file}", &file.display().to_string()).replace("{to}", &to);
        command.args(self.words.iter().map(word)).env_remove("AWS_CA_BUNDLE");
        command.envs(bucket.envs()).env("AWS_REGION", &bucket.region);
        let done = command.envs(self.envs.iter().map(|(name, value)| (name, value))).output().unwrap();
        assert!(done.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&done.stderr));
    }
}

/// A store whose uploads go nowhere.
#[derive(Debug)]
struct Nothing(LocalStore);

struct Gone;

#[async_trait]
impl Upload for Gone {
    async fn write(&mut self, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn complete(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Store for Nothing {
    fn url(&self) -> String {
        "nowhere".to_owned()
    }

    async fn upload(&self, _: &str, _: u64) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Gone))
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<()> {
        self.0.create(key, body).await
    }

    async fn read(&self, key: &str, size_bytes_max: u64) -> Result<Bytes> {
        self.0.read(key, size_bytes_max).await
    }

    async fn read_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        self.0.read_range(key, offset, length).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>> {
        self.0.stat(key).await
    }

    async fn list(&self, prefix: &str, by_folder: bool, after: Option<&str>) -> Result<Page> {
        self.0.list(prefix, by_folder, after).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        self.0.unfinished().await
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        self.0.discard(unfinished).await
    }
}
