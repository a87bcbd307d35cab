//! What users of ElastiCache do with snapshots, done by AWS's SDK for Rust against the endpoint of backupd.
//!
//! usage: story ENDPOINT GROUP BUCKET WINDOW     with credentials in the usual AWS variables, and a window that is not open now

use std::env;
use std::time::{Duration, Instant};

use aws_sdk_elasticache::Client;
use aws_sdk_elasticache::client::Waiters as _;
use aws_sdk_elasticache::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_elasticache::types::{NodeGroupConfiguration, ReplicationGroup, Snapshot, Tag};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// When something that does not come is given up.
const LIMIT: Duration = Duration::from_secs(120);

async fn snapshot(client: &Client, name: &str) -> Outcome<Snapshot> {
    let found = client.describe_snapshots().snapshot_name(name).show_node_group_config(true).send().await?;
    Ok(found.snapshots().first().ok_or(format!("{name} is not there"))?.clone())
}

async fn available(client: &Client, name: &str) -> Outcome<Snapshot> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let found = snapshot(client, name).await?;
        match found.snapshot_status() {
            Some("available") => return Ok(found),
            Some("failed") => return Err(format!("{found:?}").into()),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Err(format!("{name} is not available").into())
}

async fn group(client: &Client, id: &str) -> Outcome<ReplicationGroup> {
    let found = client.describe_replication_groups().replication_group_id(id).send().await?;
    Ok(found.replication_groups().first().ok_or(format!("{id} is not there"))?.clone())
}

async fn makes(client: &Client, source: &str) -> Outcome<()> {
    let tag = Tag::builder().key("by").value("rust & co").build();
    let create = || client.create_snapshot().replication_group_id(source).snapshot_name("rs-1").tags(tag.clone()).send();
    let made = create().await?;
    assert_eq!(made.snapshot().and_then(Snapshot::snapshot_status), Some("creating"));
    let found = available(client, "rs-1").await?;
    assert_eq!(found.snapshot_source(), Some("manual"), "{found:?}");
    assert!(found.cache_node_type().is_some_and(|it| it.starts_with("cache.")), "{found:?}");
    let nodes = found.node_snapshots();
    let slots = nodes.iter().filter_map(|node| node.node_group_configuration()?.slots()).count();
    assert!(slots == 3 && nodes.iter().all(|node| node.snapshot_create_time().is_some()), "{found:?}");
    let error = create().await.unwrap_err().into_service_error();
    assert!(error.is_snapshot_already_exists_fault(), "{error:?}");
    let tags = client.list_tags_for_resource().resource_name(found.arn().unwrap_or_default()).send().await?;
    assert!(tags.tag_list().contains(&tag), "{tags:?}");
    Ok(())
}

async fn is_refused(client: &Client) -> Outcome<()> {
    let error = client.describe_snapshots().snapshot_name("none").send().await.unwrap_err().into_service_error();
    assert!(error.is_snapshot_not_found_fault(), "{error:?}");
    let error = client.delete_snapshot().snapshot_name("none").send().await.unwrap_err().into_service_error();
    assert!(error.is_snapshot_not_found_fault(), "{error:?}");
    let asked = client.create_snapshot().replication_group_id("none").snapshot_name("s");
    let error = asked.send().await.unwrap_err().into_service_error();
    assert!(error.is_replication_group_not_found_fault(), "{error:?}");
    let error = client.describe_cache_clusters().cache_cluster_id("none-001").send().await.unwrap_err();
    assert!(error.into_service_error().is_cache_cluster_not_found_fault());
    Ok(())
}

async fn copies(client: &Client, bucket: &str) -> Outcome<()> {
    let copy = || client.copy_snapshot().source_snapshot_name("rs-1");
    copy().target_snapshot_name("rs-2").send().await?;
    available(client, "rs-2").await?;
    copy().target_snapshot_name("rs-out").target_bucket(bucket).send().await?;
    available(client, "rs-1").await?;
    Ok(())
}

async fn changes(client: &Client, source: &str, window: &str) -> Outcome<()> {
    let modify = client.modify_replication_group().replication_group_id(source).apply_immediately(true);
    let changed = modify.snapshot_window(window).snapshot_retention_limit(3).send().await?;
    assert_eq!(changed.replication_group().and_then(ReplicationGroup::snapshot_retention_limit), Some(3));
    let found = group(client, source).await?;
    assert_eq!((found.snapshot_window(), found.snapshot_retention_limit()), (Some(window), Some(3)));
    Ok(())
}

async fn restores(client: &Client) -> Outcome<()> {
    let create = |id: &str| {
        let create = client.create_replication_group().replication_group_id(id);
        create.replication_group_description("new").snapshot_name("rs-1")
    };
    let slots = ["0-99,200-9999", "100-199,10000-16383"];
    let shard = |slots: &str| NodeGroupConfiguration::builder().slots(slots).build();
    let tag = Tag::builder().key("is").value("new").build();
    create("rs-even").num_node_groups(2).tags(tag.clone()).send().await?;
    let uneven = create("rs-slots").node_group_configuration(shard(slots[0])).node_group_configuration(shard(slots[1]));
    uneven.send().await?;
    for (id, wanted) in [("rs-even", ["0-8191", "8192-16383"]), ("rs-slots", slots)] {
        client.wait_until_replication_group_available().replication_group_id(id).wait(LIMIT).await?;
        let found = group(client, id).await?;
        assert_eq!(found.status(), Some("available"), "{found:?}");
        let mut got: Vec<&str> = found.node_groups().iter().filter_map(|it| it.slots()).collect();
        got.sort_unstable();
        assert_eq!(got, wanted, "{found:?}");
        if id == "rs-even" {
            let tags = client.list_tags_for_resource().resource_name(found.arn().unwrap_or_default()).send().await?;
            assert_eq!(tags.tag_list(), [tag.clone()]);
        }
    }
    Ok(())
}

async fn ends(client: &Client) -> Outcome<()> {
    let delete = |id: &str| client.delete_replication_group().replication_group_id(id);
    let deleted = delete("rs-even").final_snapshot_identifier("rs-last").send().await?;
    assert_eq!(deleted.replication_group().and_then(ReplicationGroup::status), Some("deleting"), "{deleted:?}");
    delete("rs-slots").send().await?;
    for id in ["rs-even", "rs-slots"] {
        client.wait_until_replication_group_deleted().replication_group_id(id).wait(LIMIT).await?;
        let found = client.describe_replication_groups().replication_group_id(id).send().await;
        assert!(found.unwrap_err().into_service_error().is_replication_group_not_found_fault());
    }
    assert_eq!(available(client, "rs-last").await?.num_node_groups(), Some(2));
    let deleted = client.delete_snapshot().snapshot_name("rs-2").send().await?;
    assert_eq!(deleted.snapshot().and_then(Snapshot::snapshot_status), Some("deleting"), "{deleted:?}");
    Ok(())
}

async fn lists(client: &Client) -> Outcome<()> {
    let mut pages = client.describe_snapshots().into_paginator().page_size(20).send();
    let (mut names, mut count) = (Vec::new(), 0);
    while let Some(page) = pages.next().await {
        names.extend(page?.snapshots().iter().filter_map(|it| it.snapshot_name().map(str::to_owned)));
        count += 1;
    }
    let seeded = names.iter().filter(|name| name.starts_with("seeded-")).count();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(seeded == 120 && count == all.div_ceil(20) && names.len() == all, "{count} pages: {names:?}");
    let events = client.describe_events().duration(60).send().await?;
    let mut told = events.events().iter().filter_map(|event| event.message());
    assert!(told.any(|text| text.starts_with("Snapshot succeeded for snapshot with ID 'rs-1'")), "{events:?}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [endpoint, source, bucket, window] = words.as_slice() else {
        return Err("usage: story ENDPOINT GROUP BUCKET WINDOW".into());
    };
    let (id, secret) = (env::var("AWS_ACCESS_KEY_ID")?, env::var("AWS_SECRET_ACCESS_KEY")?);
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(env::var("AWS_DEFAULT_REGION")?))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(id, secret, None, None, "story"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let client = Client::from_conf(config);
    makes(&client, source).await?;
    is_refused(&client).await?;
    copies(&client, bucket).await?;
    changes(&client, source, window).await?;
    restores(&client).await?;
    ends(&client).await?;
    lists(&client).await?;
    println!("ok: story of the SDK for Rust");
    Ok(())
}
