//! What a server stored of an upload is compared by its CRC-64, where it knows that, and else by its ETags.

use std::sync::Arc;

use aws_sdk_s3::config::Credentials;
use backupd::error::{Class, Result};
use backupd::store::{BucketUrl, RepositoryUrl, S3Store, Store};
use bytes::Bytes;

use crate::harness::faults::{Fault, Faulty, Operation, Script, first};
use crate::harness::s3::Bucket;

/// The part size of an upload whose size is not known.
const PART_BYTES: usize = 8 << 20;

/// The CRC-64/NVME of a part of zeros, and of two parts of zeros and a byte, by another program (awscrt 0.38.1).
const CRC_OF_PART: &str = "of12kAisj10=";
const CRC_OF_WHOLE: &str = "9Wxun9QV7lQ=";

/// The header that names the checksum, and what a server that does not know it might send in its place.
const ALGORITHM: Fault = Fault::Rewrite("x-amz-checksum-algorithm:", "x-amz-nothing:");

async fn through(bucket: &Bucket, script: impl Script + 'static) -> (Arc<dyn Store>, Faulty) {
    let proxy = Faulty::start(&bucket.endpoint, script);
    let RepositoryUrl::Bucket(url) = bucket.url("some/prefix").parse().unwrap() else { unreachable!("an s3 URL") };
    let url = BucketUrl { endpoint: Some(proxy.endpoint.clone()), ..url };
    let credentials = Credentials::new(&bucket.access_key, &bucket.secret_key, None, None, "tests");
    (Arc::new(S3Store::open(&url, Some(credentials)).await.unwrap()), proxy)
}

/// Two parts of zeros, and a byte.
async fn upload(store: &Arc<dyn Store>, key: &str) -> Result<()> {
    let size_bytes = 2 * PART_BYTES + 1;
    // whether ETags are digests is learnt from what is written before
    store.create(&format!("{key}-claim"), Bytes::from_static(b"1")).await?;
    let mut upload = store.upload(key, 0).await?;
    let written = upload.write(vec![0; size_bytes].into()).await;
    match written {
        Ok(()) => upload.complete().await?,
        Err(error) => {
            upload.abort().await?;
            return Err(error);
        }
    }
    assert!(store.read(key, size_bytes as u64).await?.iter().all(|byte| *byte == 0));
    Ok(())
}

fn begun(proxy: &Faulty) -> usize {
    proxy.asked().iter().filter(|line| line.starts_with("POST") && line.contains("uploads")).count()
}

fn is_part(operation: Operation) -> bool {
    matches!(operation, Operation::Part(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_the_whole_are_compared_by_the_servers_own_crc() {
    let bucket = Bucket::create("crc");
    let other = Fault::Rewrite(CRC_OF_PART, "AAAAAAAAAAA=");
    // sent again, since bytes can change on their way
    let (store, proxy) = through(&bucket, first(1, |o| o == Operation::Part(2), other)).await;
    upload(&store, "part").await.unwrap();
    assert_eq!(proxy.struck(), [(Operation::Part(2), other)]);
    assert!(store.proves_writes());

    let other = Fault::Rewrite(CRC_OF_WHOLE, "AAAAAAAAAAA=");
    let (store, proxy) = through(&bucket, first(1, |o| o == Operation::Complete, other)).await;
    let error = upload(&store, "whole").await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (Class::StoreUnavailable, false), "{error}");
    assert!(error.message().contains("`whole`") && error.message().contains(CRC_OF_WHOLE), "{error}");
    assert_eq!(proxy.struck(), [(Operation::Complete, other)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_the_crc_is_asked_once() {
    let bucket = Bucket::create("no-crc");
    // it says nothing of it
    let (store, proxy) = through(&bucket, first(1, |o| o == Operation::Begin, ALGORITHM)).await;
    upload(&store, "silent").await.unwrap();
    upload(&store, "again").await.unwrap();
    assert_eq!((begun(&proxy), store.proves_writes()), (2, true));
    // it refuses to be asked
    let refusal = Fault::Answer(400, "InvalidRequest");
    let (store, proxy) = through(&bucket, first(1, |o| o == Operation::Begin, refusal)).await;
    upload(&store, "refused").await.unwrap();
    upload(&store, "not-asked").await.unwrap();
    assert_eq!((begun(&proxy), store.proves_writes()), (3, true));
    // a refusal for another reason is no answer to the question
    let (store, proxy) = through(&bucket, first(2, |o| o == Operation::Begin, refusal)).await;
    assert_eq!(upload(&store, "failed").await.unwrap_err().class(), Class::Config);
    let other = Fault::Rewrite(CRC_OF_PART, "AAAAAAAAAAA=");
    assert_eq!((begun(&proxy), bucket.unfinished_uploads().len()), (2, 0));
    let script = {
        let mut refuse = first(2, |o| o == Operation::Begin, refusal);
        let mut change = first(1, |o| o == Operation::Part(1), other);
        move |operation| refuse(operation).or_else(|| change(operation))
    };
    let (store, proxy) = through(&bucket, script).await;
    assert_eq!(upload(&store, "failed-too").await.unwrap_err().class(), Class::Config);
    upload(&store, "asked-again").await.unwrap();
    assert_eq!(proxy.struck().last(), Some(&(Operation::Part(1), other)), "the CRC of the part was not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_without_the_crc_that_was_announced_are_compared_by_their_etags() {
    let bucket = Bucket::create("lost-crc");
    let silent = Fault::Rewrite("x-amz-checksum-crc64nvme:", "x-amz-nothing:");
    let (store, proxy) = through(&bucket, first(usize::MAX, is_part, silent)).await;
    upload(&store, "k").await.unwrap();
    assert_eq!((proxy.struck().len(), store.proves_writes()), (3, true));
    // some of them
    let both = |o| match o {
        Operation::Part(1) => Some(Fault::Rewrite("x-amz-checksum-crc64nvme:", "x-amz-nothing:")),
        _ => None,
    };
    let (store, _proxy) = through(&bucket, both).await;
    upload(&store, "mixed").await.unwrap();
    assert!(store.proves_writes());
}
