//! Audit lines of what is done on the command line: who, what, when; before it is done.

use serde_json::Value;

use crate::fixture::Repo;
use crate::harness::cli::Cli;
use crate::harness::server::Server;

fn configured(server: &Server) -> (Repo, Cli) {
    let repo = Repo::folder();
    let text = format!(
        "[catalog]\npath = \"c.sqlite\"\n[repositories.main]\nurl = \"{}\"\nkey_file = \"keys.json\"\n\
         [clusters.c]\nsources = [\"{}\"]\nrepository = \"main\"\n",
        repo.url,
        server.url()
    );
    std::fs::write(repo.path("backupd.toml"), text).unwrap();
    let cli = repo.cli.clone().env("BACKUPD_CONFIG", repo.path("backupd.toml")).env("USER", "alice");
    (repo, cli)
}

fn lines(cli: &Cli) -> Vec<Value> {
    cli.json(&["event", "audit", "-o", "json"])["lines"].as_array().unwrap().clone()
}

#[test]
fn deletions_restores_and_key_actions_leave_their_lines() {
    let server = Server::standalone();
    let (repo, cli) = configured(&server);
    let path = |name: &str| repo.path(name).to_str().unwrap().to_owned();
    for name in ["one", "two"] {
        cli.run(&["snapshot", "create", "c", "--name", name]).ok();
    }
    let old = cli.json(&["key", "list", "--key-file", &path("keys.json"), "-o", "json"])["keys"][0]["id"].clone();
    cli.run(&["restore", "one", "--out", &path("out")]).ok();
    cli.run(&["snapshot", "export", "one", "--to", &path("plain")]).ok();
    cli.run(&["snapshot", "keep", "one"]).ok();
    cli.run(&["snapshot", "delete", "one"]).exits(18);
    cli.run(&["snapshot", "delete", "two"]).ok();
    cli.run(&["key", "generate", &path("more.json")]).ok();
    cli.run(&["key", "rotate", "--key-file", &path("keys.json")]).ok();
    cli.run(&["key", "remove", old.as_str().unwrap(), "--key-file", &path("keys.json")]).ok();
    let lines = lines(&cli);
    let text = |line: &Value, member: &str| line[member].as_str().unwrap().to_owned();
    let told: Vec<_> = lines.iter().map(|line| (text(line, "action"), text(line, "subject"))).collect();
    let wanted = [
        ("snapshot.restore", "one"),
        ("snapshot.export", "one"),
        ("snapshot.delete", "one"),
        ("snapshot.delete.failed", "one"),
        ("snapshot.delete", "two"),
        ("key.generate", &path("more.json")),
        ("key.rotate", &path("keys.json")),
        ("key.remove", old.as_str().unwrap()),
    ];
    assert_eq!(told, wanted.map(|(action, subject)| (action.to_owned(), subject.to_owned())));
    assert!(lines.iter().all(|line| text(line, "who").starts_with("alice@") && line["at_ms"].as_u64().unwrap() > 0));
    assert!(text(&lines[0], "details").contains(&path("out")) && text(&lines[3], "details").contains("kept"));
    // what is named by its URL is in no catalog
    repo.run(&["snapshot", "keep", "one", "--release"]).ok();
    repo.run(&["snapshot", "delete", "one"]).ok();
    assert_eq!(self::lines(&cli).len(), wanted.len());
}

#[test]
fn nothing_is_destroyed_without_its_line_and_everything_can_be_restored_without_one() {
    let server = Server::standalone();
    let (repo, cli) = configured(&server);
    cli.run(&["snapshot", "create", "c", "--name", "one"]).ok();
    std::fs::remove_file(repo.path("c.sqlite")).unwrap();
    std::fs::create_dir(repo.path("c.sqlite")).unwrap();
    cli.run(&["snapshot", "delete", "one"]).exits(19).says("the audit line cannot be written");
    cli.run(&["restore", "one", "--out", repo.path("out").to_str().unwrap()]).ok().says("no audit line can be written");
    cli.run(&["snapshot", "verify", "one"]).ok();
    repo.run(&["snapshot", "delete", "one"]).ok();
}
