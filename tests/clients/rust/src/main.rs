//! What users of ElastiCache do with snapshots, done by AWS's SDK for Rust against the endpoint of backupd.
//!
//! usage: story ENDPOINT GROUP BUCKET     with credentials in the usual AWS variables

use std::env;
use std::time::Duration;

use aws_sdk_elasticache::Client;
use aws_sdk_elasticache::client::Waiters as _;
use aws_sdk_elasticache::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_elasticache::types::{NodeGroupConfiguration, Snapshot, Tag};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

async fn snapshot(client: &Client, name: &str) -> Outcome<Snapshot> {
    let found = client.describe_snapshots().snapshot_name(name).show_node_group_config(true).send().await?;
    Ok(found.snapshots().first().ok_or(format!("{name} is not there"))?.clone())
}

async fn available(client: &Client, name: &str) -> Outcome<Snapshot> {
    loop {
        let found = snapshot(client, name).await?;
        match found.snapshot_status() {
            Some("available") => return Ok(found),
            Some("failed") => return Err(format!("{found:?}").into()),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn makes(client: &Client, group: &str) -> Outcome<()> {
    let tag = Tag::builder().key("by").value("rust").build();
    let create = || client.create_snapshot().replication_group_id(group).snapshot_name("rs-1").tags(tag.clone()).send();
    let made = create().await?;
    assert_eq!(made.snapshot().and_then(|it| it.snapshot_status()), Some("creating"));
    let found = available(client, "rs-1").await?;
    let slots = found.node_snapshots().iter().filter_map(|node| node.node_group_configuration()?.slots()).count();
    assert_eq!(slots, 3, "{found:?}");
    let error = create().await.unwrap_err().into_service_error();
    assert!(error.is_snapshot_already_exists_fault(), "{error:?}");
    let error = client.delete_snapshot().snapshot_name("none").send().await.unwrap_err().into_service_error();
    assert!(error.is_snapshot_not_found_fault(), "{error:?}");
    let tags = client.list_tags_for_resource().resource_name(found.arn().unwrap_or_default()).send().await?;
    assert!(tags.tag_list().contains(&tag), "{tags:?}");
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

async fn restores(client: &Client, group: &str) -> Outcome<()> {
    let modify = client.modify_replication_group().replication_group_id(group).apply_immediately(true);
    let changed = modify.snapshot_window("04:00-06:00").snapshot_retention_limit(3).send().await?;
    assert_eq!(changed.replication_group().and_then(|it| it.snapshot_retention_limit()), Some(3));
    let shard = |slots: &str| NodeGroupConfiguration::builder().slots(slots).build();
    client
        .create_replication_group()
        .replication_group_id("rs-new")
        .replication_group_description("new")
        .snapshot_name("rs-1")
        .node_group_configuration(shard("0-99,200-9999"))
        .node_group_configuration(shard("100-199,10000-16383"))
        .send()
        .await?;
    let wait = client.wait_until_replication_group_available().replication_group_id("rs-new");
    wait.wait(Duration::from_secs(120)).await?;
    let delete = client.delete_replication_group().replication_group_id("rs-new");
    delete.final_snapshot_identifier("rs-last").send().await?;
    let wait = client.wait_until_replication_group_deleted().replication_group_id("rs-new");
    wait.wait(Duration::from_secs(120)).await?;
    available(client, "rs-last").await?;
    let found = client.describe_replication_groups().replication_group_id("rs-new").send().await;
    assert!(found.unwrap_err().into_service_error().is_replication_group_not_found_fault());
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
    assert!(seeded == 120 && count >= 7, "{count} pages: {names:?}");
    let events = client.describe_events().duration(60).send().await?;
    let told = events.events().iter().filter_map(|event| event.message());
    assert!(told.into_iter().any(|text| text.contains("'rs-1'")), "{events:?}");
    client.delete_snapshot().snapshot_name("rs-2").send().await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [endpoint, group, bucket] = words.as_slice() else { return Err("usage: story ENDPOINT GROUP BUCKET".into()) };
    let (id, secret) = (env::var("AWS_ACCESS_KEY_ID")?, env::var("AWS_SECRET_ACCESS_KEY")?);
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(id, secret, None, None, "story"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let client = Client::from_conf(config);
    makes(&client, group).await?;
    copies(&client, bucket).await?;
    restores(&client, group).await?;
    lists(&client).await?;
    println!("ok: story of the SDK for Rust");
    Ok(())
}
