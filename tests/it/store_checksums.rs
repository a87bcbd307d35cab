//! What a server stored of an upload is compared by its CRC-32C, where it knows that, and else by its ETags.

use std::sync::Arc;

use aws_sdk_s3::config::Credentials;
use backupd::error::{Class, Result};
use backupd::store::{BucketUrl, RepositoryUrl, S3Store, Store};
use bytes::Bytes;

use crate::harness::faults::{Fault, Faulty, Operation, Script, first};
use crate::harness::s3::Bucket;

/// The part size of an upload whose size is not known.
const PART_BYTES: usize = 8 << 20;

/// The CRC-32C of a part of zeros, and of two parts of zeros and a byte, by another program (awscrt 0.38.1).
const CRC_OF_PART: &str = "HkU5Ug==";
const CRC_OF_WHOLE: &str = "8p6Vnw==";

/// The MD5 of a part of zeros.
const MD5_OF_PART: &str = "96995b58d4cbf6aaa9041b4f00c7f6ae";

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

fn sent(proxy: &Faulty, part: u64) -> usize {
    proxy.asked().iter().filter(|line| line.starts_with("PUT") && line.contains(&format!("partNumber={part}&"))).count()
}

/// One script, and then, for what it leaves alone, another.
fn both(mut one: impl Script, mut other: impl Script) -> impl Script {
    move |operation| one(operation).or_else(|| other(operation))
}

/// The first time that this part is answered it is told another CRC.
fn other_crc(part: u64) -> impl Script {
    first(1, move |o| o == Operation::Part(part), Fault::Rewrite(CRC_OF_PART, "AAAAAA=="))
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_the_whole_are_compared_by_the_servers_own_crc() {
    let bucket = Bucket::create("crc");
    // sent again, since bytes can change on their way
    let (store, proxy) = through(&bucket, other_crc(2)).await;
    upload(&store, "part").await.unwrap();
    assert_eq!((sent(&proxy, 1), sent(&proxy, 2), store.proves_writes()), (1, 2, true));

    // as S3 itself does; the server then compares the whole before it makes the object
    let told =
        Fault::Rewrite("x-amz-checksum-algorithm:", "x-amz-checksum-type: FULL_OBJECT\r\nx-amz-checksum-algorithm:");
    let (store, _proxy) = through(&bucket, first(1, |o| o == Operation::Begin, told)).await;
    upload(&store, "told").await.unwrap();

    let other = Fault::Rewrite(CRC_OF_WHOLE, "AAAAAA==");
    let (store, proxy) = through(&bucket, first(1, |o| o == Operation::Complete, other)).await;
    let error = upload(&store, "whole").await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (Class::StoreUnavailable, false), "{error}");
    assert!(error.message().contains("`whole`") && error.message().contains(CRC_OF_WHOLE), "{error}");
    assert_eq!(proxy.struck(), [(Operation::Complete, other)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_of_the_crc_is_asked_once_and_compared_by_its_etags() {
    let bucket = Bucket::create("no-crc");
    let silent = || first(1, |o| o == Operation::Begin, ALGORITHM);
    let other_etag = first(1, |o| o == Operation::Part(2), Fault::Rewrite(MD5_OF_PART, CRC_OF_PART));
    let (store, proxy) = through(&bucket, both(silent(), other_etag)).await;
    upload(&store, "silent").await.unwrap();
    assert_eq!((sent(&proxy, 1), sent(&proxy, 2), store.proves_writes()), (1, 2, true));

    let mut first_parts = 0;
    let second_time = move |operation| {
        first_parts += u32::from(operation == Operation::Part(1));
        if first_parts == 2 { other_crc(1)(operation) } else { None }
    };
    let (store, proxy) = through(&bucket, both(silent(), second_time)).await;
    for key in ["first", "second"] {
        upload(&store, key).await.unwrap();
    }
    assert_eq!((begun(&proxy), sent(&proxy, 1)), (2, 2), "nobody looks at a CRC");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_to_be_asked_for_the_crc_is_not_asked_again() {
    let bucket = Bucket::create("refused-crc");
    let refuse = |times| first(times, |o| o == Operation::Begin, Fault::Answer(400, "InvalidRequest"));
    let (store, proxy) = through(&bucket, both(refuse(1), other_crc(1))).await;
    for key in ["first", "second"] {
        upload(&store, key).await.unwrap();
    }
    assert_eq!((begun(&proxy), sent(&proxy, 1), store.proves_writes()), (3, 2, true));
    // a refusal for another reason is no answer to the question
    let (store, proxy) = through(&bucket, both(refuse(2), other_crc(1))).await;
    assert_eq!(upload(&store, "failed").await.unwrap_err().class(), Class::Config);
    assert_eq!((begun(&proxy), bucket.unfinished_uploads().len()), (2, 0));
    upload(&store, "asked-again").await.unwrap();
    assert_eq!((begun(&proxy), sent(&proxy, 1)), (3, 2), "the CRC is compared");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_without_the_crc_that_was_announced_are_compared_by_their_etags() {
    let bucket = Bucket::create("lost-crc");
    let silent = Fault::Rewrite("x-amz-checksum-crc32c:", "x-amz-nothing:");
    let all = move |o| matches!(o, Operation::Part(_)).then_some(silent);
    let one = move |o| (o == Operation::Part(1)).then_some(silent);
    let (store, _proxy) = through(&bucket, all).await;
    upload(&store, "all").await.unwrap();
    assert!(store.proves_writes());
    let (store, _proxy) = through(&bucket, one).await;
    upload(&store, "one").await.unwrap();
    assert!(store.proves_writes());
}
