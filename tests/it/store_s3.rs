//! A bucket of a real S3 server as a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::config::Credentials;
use backupd::error::Class;
use backupd::store::{BucketUrl, Patience, RepositoryUrl, S3Store, Store};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::s3::Bucket;
use crate::store_contract::{self, Race};

/// The part size of an upload whose size is not known.
const PART_BYTES: usize = 8 << 20;

fn url(bucket: &Bucket) -> BucketUrl {
    match bucket.url("some/prefix").parse().unwrap() {
        RepositoryUrl::Bucket(url) => url,
        RepositoryUrl::Folder(_) => unreachable!("an s3 URL is a bucket"),
    }
}

async fn open_as(bucket: &Bucket, url: &BucketUrl, secret: &str) -> Arc<dyn Store> {
    let credentials = Credentials::new(&bucket.access_key, secret, None, None, "tests");
    // what is sent again in vain is given up long before the five minutes that a real bucket gets
    let patience = Patience { deadline: Duration::from_secs(5), ..Patience::default() };
    Arc::new(S3Store::open_with(url, Some(credentials), patience).await.unwrap())
}

/// The store of a URL with the credentials of the bucket's owner.
async fn open(bucket: &Bucket, url: &BucketUrl) -> Arc<dyn Store> {
    open_as(bucket, url, &bucket.secret_key).await
}

/// A store whose requests go through a proxy.
async fn open_through(bucket: &Bucket, proxy: &Proxy) -> Arc<dyn Store> {
    open(bucket, &BucketUrl { endpoint: Some(proxy.endpoint.clone()), ..url(bucket) }).await
}

/// Waits until the server knows of no unfinished upload; a dropped upload is aborted in the background.
async fn no_unfinished_uploads(bucket: &Bucket) {
    for _ in 0..600 {
        if bucket.unfinished_uploads().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("unfinished uploads stay in {}: {:?}", bucket.name, bucket.unfinished_uploads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_contract_of_a_store() {
    let bucket = Bucket::create("contract");
    store_contract::run(open(&bucket, &url(&bucket)).await, "contract", PART_BYTES, Race::One).await;
    no_unfinished_uploads(&bucket).await;
}

#[tokio::test]
async fn a_store_shows_only_what_is_under_its_prefix() {
    let bucket = Bucket::create("prefix");
    let store = open(&bucket, &url(&bucket)).await;
    store.create("a/b", Bytes::from_static(b"1")).await.unwrap();
    for foreign in ["outside", "some/prefix-not", "some/prefix/", "some/prefix/with space", "some/prefix/a//c"] {
        bucket.put(foreign, b"x");
    }
    let page = store.list("", false, None).await.unwrap();
    assert_eq!(page.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
    assert_eq!(store.list("", true, None).await.unwrap().folders, ["a/"]);
    let whole = open(&bucket, &BucketUrl { prefix: String::new(), ..url(&bucket) }).await;
    let page = whole.list("some/", false, None).await.unwrap();
    assert_eq!(page.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["some/prefix-not", "some/prefix/a/b"]);
}

#[tokio::test]
async fn refusals_have_their_class_and_name_the_object() {
    let bucket = Bucket::create("refusals");
    let wrong = open_as(&bucket, &url(&bucket), "not-the-secret").await;
    let results = [
        wrong.create("c/k", Bytes::from_static(b"1")).await.err(),
        wrong.read("c/k", 1).await.err(),
        wrong.read_range("c/k", 0, 1).await.err(),
        wrong.size("c/k").await.err(),
        wrong.list("c/k", false, None).await.err(),
        wrong.delete("c/k").await.err(),
    ];
    for error in results.map(Option::unwrap) {
        assert_eq!((error.class(), error.is_retryable()), (Class::StoreAuth, false), "{error}");
        assert!(error.message().contains("c/k") && error.message().contains(&bucket.name), "{error}");
        assert!(!error.to_string().contains("not-the-secret"), "{error}");
    }
    let mut upload = wrong.upload("c/k", 0).await.unwrap();
    upload.write(vec![0; PART_BYTES].into()).await.unwrap();
    assert_eq!(upload.write(Bytes::from_static(b"1")).await.unwrap_err().class(), Class::StoreAuth);
    assert_eq!(upload.write(Bytes::from_static(b"1")).await.unwrap_err().class(), Class::StoreUnavailable);

    let nowhere = open(&bucket, &BucketUrl { bucket: "there-is-no-such-bucket".into(), ..url(&bucket) }).await;
    for error in
        [nowhere.list("", false, None).await.err(), nowhere.create("k", Bytes::new()).await.err()].map(Option::unwrap)
    {
        assert_eq!(error.class(), Class::NotFound, "{error}");
        assert!(error.advice().unwrap().contains("bucket"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_not_a_lost_object() {
    for (request, size) in [("PUT", 10), ("PUT", 0), ("POST", PART_BYTES + 1)] {
        let bucket = Bucket::create("lost-answer");
        let proxy = Proxy::start(&bucket, Fault::LoseAnswer, request).await;
        let store = open_through(&bucket, &proxy).await;
        let body = Bytes::from(vec![7; size]);
        if size > PART_BYTES {
            let mut upload = store.upload("k", 0).await.unwrap();
            upload.write(body.clone()).await.unwrap();
            proxy.strike_next();
            upload.complete().await.unwrap();
        } else {
            proxy.strike_next();
            store.create("k", body.clone()).await.unwrap();
        }
        assert_eq!(proxy.left(), 0, "no answer was lost");
        assert!(store.read("k", size as u64).await.unwrap() == body);
        // The next one is a conflict again, also when its answer is lost.
        proxy.strike_next();
        let error = store.create("k", body).await.unwrap_err();
        assert_eq!(error.class(), Class::Busy, "{error}");
        no_unfinished_uploads(&bucket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_changed_on_its_way_is_refused_by_the_server() {
    for size in [100_000, PART_BYTES + 100_000] {
        let bucket = Bucket::create("changed-body");
        let proxy = Proxy::start(&bucket, Fault::ChangeBody, "PUT").await;
        let store = open_through(&bucket, &proxy).await;
        let mut upload = store.upload("k", 0).await.unwrap();
        proxy.strike_next();
        upload.write(vec![7; size].into()).await.unwrap();
        let outcome = upload.complete().await;
        assert_eq!(proxy.left(), 0, "no body was changed");
        if size > PART_BYTES {
            // a part is sent again
            outcome.unwrap();
            assert!(store.read("k", size as u64).await.unwrap() == vec![7; size]);
        } else {
            let error = outcome.unwrap_err();
            assert_eq!(error.class(), Class::StoreUnavailable, "{error}");
            assert_eq!(store.size("k").await.unwrap(), None);
        }
        no_unfinished_uploads(&bucket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_makes_the_store_unavailable() {
    let bucket = Bucket::create("gone");
    let proxy = Proxy::start(&bucket, Fault::LoseAnswer, "PUT").await;
    let store = open_through(&bucket, &proxy).await;
    let mut upload = store.upload("c/k", 0).await.unwrap();
    upload.write(vec![0; PART_BYTES + 1].into()).await.unwrap();
    proxy.stop().await;
    let error = upload.complete().await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (Class::StoreUnavailable, true), "{error}");
    assert!(error.message().contains("c/k") && error.message().contains(&bucket.name), "{error}");
    for error in [store.create("c/k", Bytes::new()).await.err(), store.read("c/k", 1).await.err()].map(Option::unwrap) {
        assert_eq!(error.class(), Class::StoreUnavailable, "{error}");
    }
    assert_eq!(open(&bucket, &url(&bucket)).await.size("c/k").await.unwrap(), None);
}

/// What the proxy does to a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The server answers, and the client sees its connection closed.
    LoseAnswer,
    /// One byte of the body changes.
    ChangeBody,
}

/// Stands between the client and the server and can do one thing wrong.
struct Proxy {
    endpoint: String,
    /// How many requests of the method are to meet the fault.
    armed: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start(bucket: &Bucket, fault: Fault, method: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = bucket.endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let armed = Arc::new(AtomicUsize::new(0));
        let counter = armed.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, server.clone(), fault, method, counter.clone()));
            }
        });
        Self { endpoint, armed, task }
    }

    fn strike_next(&self) {
        self.armed.store(1, Ordering::SeqCst);
    }

    fn left(&self) -> usize {
        self.armed.load(Ordering::SeqCst)
    }

    /// Closes all connections and the port.
    async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Copies both ways until a side closes or an answer is to be lost.
async fn forward(mut client: TcpStream, server: String, fault: Fault, method: &str, armed: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut request, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut matches = false;
    let strikes = |now| now && armed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &mut request[..length];
                let head = bytes.split(|b| *b == b'\r').next().filter(|line| line.ends_with(b"HTTP/1.1"));
                let is_body = head.is_none();
                if let Some(line) = head {
                    matches = line.starts_with(method.as_bytes());
                }
                if strikes(matches && is_body && fault == Fault::ChangeBody) {
                    bytes[length - 1] ^= 1;
                }
                server.write_all(bytes).await.unwrap();
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &answer[..length];
                let final_answer = !bytes.starts_with(b"HTTP/1.1 100");
                if strikes(matches && final_answer && fault == Fault::LoseAnswer)
                    || client.write_all(bytes).await.is_err()
                {
                    return;
                }
            }
        }
    }
}
