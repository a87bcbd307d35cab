//! What snapshots store, and what that costs.

use crate::fixture::Repo;
use crate::harness::server::Server;

#[test]
fn a_listing_tells_bytes_and_cost_by_cluster() {
    let server = Server::standalone();
    server.run(&["SET", "a", "1"]);
    let repo = Repo::folder();
    for (cluster, name) in [("orders", "one"), ("orders", "two"), ("users", "three")] {
        repo.json(&["snapshot", "create", "--source", &server.url(), "--cluster", cluster, "--name", name]);
    }
    let plain = repo.json(&["snapshot", "list"]);
    let sum = |cluster: &str| -> u64 {
        let lines = plain["snapshots"].as_array().unwrap().iter();
        lines.filter(|line| line["cluster"] == cluster).map(|line| line["stored_bytes"].as_u64().unwrap()).sum()
    };
    assert_eq!(plain["clusters"][0]["stored_bytes"], sum("orders"));
    assert_eq!(plain["clusters"][1]["stored_bytes"], sum("users"));
    assert!(sum("orders") > sum("users") && sum("users") > 0);
    assert!(plain["clusters"][0]["monthly_cost"].is_null() && plain["price_per_gb_month"].is_null());
    let priced = repo.json(&["snapshot", "list", "--price-per-gb-month", "1000"]);
    // 1000 per 2^30 bytes, rounded up to a millionth
    let cost = |bytes: u64| (u128::from(bytes) * 1_000_000_000).div_ceil(1 << 30);
    let told = priced["clusters"][0]["monthly_cost"].as_str().unwrap();
    let (whole, part) = told.split_once('.').unwrap();
    let millionths: u128 = format!("{whole}{part:0<6}").parse().unwrap();
    assert_eq!(millionths, cost(sum("orders")), "{priced}");
    let free = repo.json(&["snapshot", "list", "--price-per-gb-month", "1000", "--first-snapshot-free"]);
    assert_eq!(free["clusters"][1]["monthly_cost"], "0.00");
    assert!(free["clusters"][0]["billed_bytes"].as_u64().unwrap() < sum("orders"));
    repo.run(&["snapshot", "list", "--price-per-gb-month", "cheap"]).exits(2);
    // the configuration knows the price
    let config = repo.path("backupd.toml");
    let url = &repo.url;
    let text = format!(
        "[cost]\nprice_per_gb_month = \"0.085\"\nfirst_snapshot_free = true\n[repositories.main]\nurl = \"{url}\"\nkey_file = \"keys.json\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let list = repo.cli.json(&["snapshot", "list", "--config", config.to_str().unwrap(), "-o", "json"]);
    assert_eq!((&list["price_per_gb_month"], &list["clusters"][1]["monthly_cost"]), (&"0.085".into(), &"0.00".into()));
    std::fs::write(&config, "[cost]\nprice_per_gb_month = \"cheap\"\n").unwrap();
    repo.cli.run(&["snapshot", "list", "--config", config.to_str().unwrap()]).exits(19).says("backupd.toml:2:");
}
