//! The commands of the README work as they stand there, with addresses and folders of the test put in.

use crate::fixture::{Launched, Repo};
use crate::harness::server::Server;

#[test]
fn the_commands_of_the_readme_work() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, section) = readme.split_once("## Use\n").unwrap();
    let block = section.split("```").nth(1).unwrap();
    let server = Server::standalone();
    server.run(&["SET", "a", "1"]);
    let repo = Repo::folder();
    let launched = Launched { dir: repo.path("new") };
    let stand_ins = [
        ("redis://10.0.0.1:6379", server.url()),
        ("s3://bucket/backups", repo.url.clone()),
        ("s3://elsewhere/backups", format!("file://{}", repo.path("elsewhere").display())),
        ("backup.key", repo.path("backup.key").display().to_string()),
        ("/srv/plain", repo.path("plain").display().to_string()),
        ("/srv/new", launched.dir.display().to_string()),
    ];
    let mut ran = 0;
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let line = stand_ins.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("backupd"), "{line}");
        repo.cli.run(&words.collect::<Vec<_>>()).ok();
        ran += 1;
    }
    assert!(ran >= 5, "{block}");
}
