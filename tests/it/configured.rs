//! With a configuration, clusters and repositories have names, and snapshots are noted in the catalog.

use backupd::catalog::{Catalog, SnapshotFilter};

use crate::fixture::Repo;
use crate::harness::cli::Cli;
use crate::harness::s3::block_on;
use crate::harness::server::{Options, Server};

#[test]
fn a_cluster_of_the_configuration_is_snapshotted_and_noted() {
    let server = Server::start(&Options::new().password("pw"));
    let repo = Repo::folder();
    let config = repo.path("backupd.toml");
    std::fs::write(repo.path("password"), "pw\n").unwrap();
    let text = format!(
        "[catalog]\npath = \"catalog/c.sqlite\"\n[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n\
         [clusters.orders]\nsources = [\"redis://127.0.0.1:{}\"]\npassword_file = \"password\"\nrepository = \"main\"\n\
         tags = {{ team = \"shop\" }}\n",
        repo.url,
        server.port()
    );
    std::fs::write(&config, text).unwrap();
    let cli = Cli::new().env("BACKUPD_CONFIG", &config);
    let made = cli.json(&["snapshot", "create", "orders", "--name", "one", "--tag", "why=test", "-o", "json"]);
    assert_eq!((made["cluster"].as_str(), made["tags"]["team"].as_str()), (Some("orders"), Some("shop")));
    assert_eq!(made["tags"]["why"], "test");
    // the only repository of the configuration needs no flag, and a name will do for one
    cli.run(&["snapshot", "verify", "one"]).ok();
    cli.run(&["snapshot", "show", "one", "--repository", "main"]).ok();
    assert_eq!(repo.list(), [("one".to_owned(), "available".to_owned())]);

    let rows = block_on(async {
        let catalog = Catalog::open(&repo.path("catalog/c.sqlite").into()).await.unwrap();
        (catalog.snapshots(&SnapshotFilter::default()).await.unwrap(), catalog.clusters().await.unwrap())
    });
    assert_eq!((rows.0.len(), rows.0[0].name.as_str(), rows.0[0].cluster.as_str()), (1, "one", "orders"));
    assert_eq!(rows.1[0].engine, "redis");

    // a broken catalog does not take the snapshot with it
    std::fs::write(repo.path("catalog/c.sqlite"), b"no database at all, but long enough to be looked at").unwrap();
    cli.run(&["snapshot", "create", "orders", "--name", "two"]).ok().says("catalog");
    cli.run(&["snapshot", "verify", "two"]).ok();

    // it is made again from the repository alone, and tells what it did not know
    cli.run(&["catalog", "check"]).exits(17);
    std::fs::remove_file(repo.path("catalog/c.sqlite")).unwrap();
    let catalog = |command: &str| cli.run(&["catalog", command, "-o", "json"]);
    let missing = catalog("check").exits(17).json();
    assert_eq!(missing["repositories"][0]["missing"], serde_json::json!(["one", "two"]));
    let rebuilt = catalog("rebuild").ok().json();
    assert_eq!(rebuilt["repositories"][0]["missing"], missing["repositories"][0]["missing"]);
    assert_eq!(catalog("check").ok().json()["repositories"][0]["snapshots"], 2);
    let again = block_on(async {
        let catalog = Catalog::open(&repo.path("catalog/c.sqlite").into()).await.unwrap();
        catalog
            .snapshots(&SnapshotFilter { cluster: Some("orders".into()), ..SnapshotFilter::default() })
            .await
            .unwrap()
    });
    assert_eq!(again.last(), rows.0.first(), "what was noted then is what is read now");

    // a deletion is noted; one that the catalog did not see is found, as is a snapshot that it wrongly takes for gone
    cli.run(&["snapshot", "delete", "two"]).ok();
    catalog("check").ok();
    cli.run(&["snapshot", "create", "orders", "--name", "three"]).ok();
    repo.run(&["snapshot", "delete", "three"]).ok();
    assert_eq!(catalog("check").exits(17).json()["repositories"][0]["stale"], serde_json::json!(["three"]));
    let id = made["snapshot_id"].as_str().unwrap();
    block_on(async {
        let catalog = Catalog::open(&repo.path("catalog/c.sqlite").into()).await.unwrap();
        assert!(catalog.mark_snapshot_removed(&again[0].repository_id, id, 1).await.unwrap());
    });
    assert_eq!(catalog("check").exits(17).json()["repositories"][0]["missing"], serde_json::json!(["one"]));
    catalog("rebuild").ok();
    catalog("check").ok();

    cli.run(&["snapshot", "create", "nobody"]).exits(10).says("orders");
    std::fs::write(&config, "[clusters.orders]\nsource = []\n").unwrap();
    cli.run(&["snapshot", "list"]).exits(19).says("backupd.toml:2:1");
}
