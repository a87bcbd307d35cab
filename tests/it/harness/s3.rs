//! A fresh bucket on the S3 server of the tests.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ObjectLockLegalHold, ObjectLockLegalHoldStatus};

/// A bucket of its own for one test. It stays behind: the whole server is thrown away after the run.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    client: Client,
}

impl Bucket {
    /// Makes a bucket; `label` goes into its name (lowercase letters, digits, hyphens).
    ///
    /// Panics with what to do when there is no server.
    pub(crate) fn create(label: &str) -> Self {
        Self::create_in(label, "", false)
    }

    /// Makes a bucket whose objects can be locked; it keeps old versions then.
    pub(crate) fn create_locking(label: &str) -> Self {
        Self::create_in(label, "", true)
    }

    /// Puts a legal hold on an object, or takes it away.
    pub(crate) fn hold(&self, key: &str, on: bool) {
        let status = if on { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let hold = ObjectLockLegalHold::builder().status(status).build();
        block_on(self.client.put_object_legal_hold().bucket(&self.name).key(key).legal_hold(hold).send()).unwrap();
    }

    /// Makes a bucket in the second region: another server with users and buckets of its own.
    pub(crate) fn create_in_second_region(label: &str) -> Self {
        Self::create_in(label, "_2", false)
    }

    fn create_in(label: &str, region: &str, locks: bool) -> Self {
        let names = [&format!("ENDPOINT{region}"), &format!("REGION{region}"), "ACCESS_KEY", "SECRET_KEY"];
        Self::create_at(label, names.map(|name| variable(&format!("BACKUPD_TEST_S3_{name}"))), locks)
    }

    /// Makes a bucket on another server: its endpoint and region, and who asks there.
    pub(crate) fn create_at(label: &str, [endpoint, region, access_key, secret_key]: [String; 4], locks: bool) -> Self {
        let client = client(&endpoint, &region, &access_key, &secret_key);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let time = backupd::clock::now().timestamp_millis();
        let name = format!("{label}-{time:x}-{:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bucket = Self { name, endpoint, region, access_key, secret_key, client };
        let create = bucket.client.create_bucket().bucket(&bucket.name);
        block_on(create.set_object_lock_enabled_for_bucket(locks.then_some(true)).send()).unwrap();
        bucket
    }

    /// `s3://bucket/prefix?endpoint=…&region=…`: what `--repository` takes. Credentials go by [`Self::envs`].
    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}?endpoint={}&region={}", self.name, self.endpoint, self.region)
    }

    /// The credentials as AWS variables.
    pub(crate) fn envs(&self) -> [(&str, &str); 2] {
        [("AWS_ACCESS_KEY_ID", &self.access_key), ("AWS_SECRET_ACCESS_KEY", &self.secret_key)]
    }

    /// The credentials as the client of S3 takes them.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::new(&self.access_key, &self.secret_key, None, None, "tests")
    }

    /// A client with the credentials of the bucket's owner.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A client with other credentials.
    pub(crate) fn client_as(&self, access_key: &str, secret_key: &str) -> Client {
        client(&self.endpoint, &self.region, access_key, secret_key)
    }

    /// All keys below `prefix` with their sizes, in order.
    pub(crate) fn list(&self, prefix: &str) -> Vec<(String, u64)> {
        block_on(async {
            let mut pages =
                self.client.list_objects_v2().bucket(&self.name).prefix(prefix).into_paginator().page_size(1000).send();
            let mut found = Vec::new();
            while let Some(page) = pages.next().await {
                for object in page.unwrap().contents() {
                    found.push((object.key().unwrap().to_owned(), u64::try_from(object.size().unwrap()).unwrap()));
                }
            }
            found
        })
    }

    /// The bytes of an object.
    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        block_on(async {
            let object = self.client.get_object().bucket(&self.name).key(key).send().await.unwrap();
            object.body.collect().await.unwrap().to_vec()
        })
    }

    /// Writes an object over whatever is there.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let body = ByteStream::from(bytes.to_vec());
        block_on(self.client.put_object().bucket(&self.name).key(key).body(body).send()).unwrap();
    }

    /// Removes an object.
    pub(crate) fn delete(&self, key: &str) {
        block_on(self.client.delete_object().bucket(&self.name).key(key).send()).unwrap();
    }

    /// Multipart uploads that were neither finished nor aborted: their keys.
    pub(crate) fn unfinished_uploads(&self) -> Vec<String> {
        let reply = block_on(self.client.list_multipart_uploads().bucket(&self.name).send()).unwrap();
        reply.uploads().iter().map(|upload| upload.key().unwrap().to_owned()).collect()
    }
}

fn client(endpoint: &str, region: &str, access_key: &str, secret_key: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "tests"));
    Client::from_conf(config.build())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: this test needs the S3 server of the tests. Run `tests/run.sh`, or\n  \
             tests/setup.sh tests\n  tests/servers/radosgw.sh start target/servers/run/radosgw us-east-1 eu-west-1\n  \
             source target/servers/run/radosgw/env"
        )
    })
}

/// Runs a future to its end on a thread of its own, so that tests with and without a runtime can use it.
pub(crate) fn block_on<T: Send>(future: impl IntoFuture<Output = T, IntoFuture: Future<Output = T> + Send>) -> T {
    let future = future.into_future();
    thread::scope(|scope| {
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(run).join().unwrap()
    })
}
