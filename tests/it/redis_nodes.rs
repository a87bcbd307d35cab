//! Loading RDB files into running empty nodes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use backupd::error::{Class, Error, Result};
use backupd::nodes::{Form, LoadProgress, LoadedNode, Method, ShardFile, Target, Unfinished, finish, load};
use policies::shards;
use policies::slot::SlotSet;
use rdbtools::scan::Scanner;
use rdbtools::split::{SplitOptions, Splitter};
use tokio_util::sync::CancellationToken;

use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::keyspace::Keyspace;
use crate::harness::nodes::{self, Node};
use crate::harness::server::{Options, Server};
use crate::redis_server::{fill, options, save_rdb, server};

/// The data of `sources`, split into one file per element of `slots`.
pub(crate) fn split(sources: &[&Server], slots: &[SlotSet], dir: &Path) -> Vec<ShardFile> {
    let path = |index: usize| dir.join(format!("target-{index}.rdb"));
    let outputs: Vec<File> = (0..slots.len()).map(|index| File::create(path(index)).unwrap()).collect();
    let inputs: Vec<Vec<u8>> =
        sources.iter().map(|source| std::fs::read(save_rdb(source, dir, "source.rdb")).unwrap()).collect();
    let mut scanner = Scanner::new(());
    scanner.feed(&inputs[0]).unwrap();
    let version = scanner.version().unwrap();
    let mut splitter = Splitter::new(slots.to_vec(), outputs, SplitOptions::new(version)).unwrap();
    for bytes in inputs {
        splitter.begin_input("source.rdb").unwrap();
        splitter.feed(&bytes).unwrap();
        splitter.end_input().unwrap();
    }
    splitter.finish().unwrap();
    slots
        .iter()
        .enumerate()
        .map(|(index, slots)| ShardFile { slots: Some(slots.clone()), rdb: path(index), survey: None })
        .collect()
}

async fn inspect(urls: &[String]) -> Result<Target> {
    Target::inspect(&options(&urls.iter().map(String::as_str).collect::<Vec<_>>())).await
}

async fn run(urls: &[String], files: &[ShardFile]) -> Result<Vec<LoadedNode>> {
    let target = inspect(urls).await?;
    let options = options(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    let loaded = load(&target, files, &options, &|_| {}, &CancellationToken::new()).await?;
    finish(&target, files, &options).await?;
    Ok(loaded)
}

fn one_file(rdb: PathBuf) -> Vec<ShardFile> {
    vec![ShardFile { slots: None, rdb, survey: None }]
}

fn keys(server: &Server) -> u64 {
    nodes::command(&["DBSIZE"]).query(&mut server.connect()).unwrap()
}

#[tokio::test]
async fn a_standalone_gets_every_type_every_database_and_large_values() {
    let temporary = tempfile::tempdir().unwrap();
    let (source, target) = (server(&[]), server(&[]));
    Keyspace::new(3, 3000).load(&source.nodes());
    let script = "for i = 1, 40 do redis.call('RPUSH', 'huge', string.rep(redis.sha1hex(i), 20000)) end \
                  redis.call('SET', 'large', string.rep('x', 3000000) .. redis.sha1hex(1)) \
                  redis.call('SET', 'soon', 'x', 'PX', 1)";
    source.run(&["EVAL", script, "0"]);
    let mut other = nodes::connect(&format!("{}/5", source.url()));
    nodes::command(&["SET", "in five", "5"]).query::<()>(&mut other).unwrap();
    let files = one_file(save_rdb(&source, temporary.path(), "one.rdb"));

    let target_url = [target.url()];
    let mut found = inspect(&target_url).await.unwrap();
    found.method = Method::Restore;
    assert_eq!((found.form, found.nodes.len()), (Form::Standalone, 1));
    let seen = Mutex::new(Vec::new());
    let told = |progress: LoadProgress| seen.lock().unwrap().push(progress);
    let loaded = load(&found, &files, &options(&[&target.url()]), &told, &CancellationToken::new()).await.unwrap();
    finish(&found, &files, &options(&[&target.url()])).await.unwrap();
    // 3000 and the two big ones of the keyspace, three of ours; what expired by now is left out
    assert_eq!(loaded[0].keys, 3005);
    compare(&source.nodes(), &target.nodes()).assert_equal();
    let five = |server: &Server| vec![Node { url: format!("{}/5", server.url()), slots: SlotSet::full() }];
    compare(&five(&source), &five(&target)).assert_equal();
    let seen = seen.into_inner().unwrap();
    assert!(
        matches!(seen.last(), Some(LoadProgress::Loading { shard: 0, keys, .. }) if *keys > 3000),
        "{:?}",
        seen.last()
    );

    let again = run(&target_url, &files).await.unwrap_err();
    assert_eq!(again.class(), Class::Refused);
    assert!(again.message().contains(&target.address()) && again.message().contains("keys"), "{again}");
}

#[tokio::test]
async fn a_formed_cluster_keeps_its_slots_and_gets_the_keys_of_another_shape() {
    let temporary = tempfile::tempdir().unwrap();
    let source = Cluster::start(3, 0);
    Keyspace::new(4, 3000).load(&source.nodes());
    let target = Cluster::start(2, 1);
    let found = inspect(&[target.shards[1].replicas[0].url()]).await.unwrap();
    assert_eq!(found.form, Form::Formed);
    let slots = found.slots.clone().unwrap();
    assert_eq!(slots, shards::equal(2).unwrap());
    let sources: Vec<&Server> = source.servers().collect();
    let files = split(&sources, &slots, temporary.path());

    let wrong = [files[1].clone(), files[0].clone()];
    let error = run(&[target.url()], &wrong).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.message().contains("0-8191"), "{error}");

    let loaded = run(&[target.url()], &files).await.unwrap();
    let ports: Vec<u16> = loaded.iter().map(|node| node.port).collect();
    assert_eq!(ports, [target.shards[0].primary.port(), target.shards[1].primary.port()]);
    target.wait_replicas();
    compare(&source.nodes(), &target.nodes()).assert_equal();
}

#[tokio::test]
async fn nodes_that_know_nobody_become_a_cluster_of_the_planned_slots() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&[]);
    Keyspace::new(5, 2000).load(&source.nodes());
    let targets: Vec<Server> = (0..3).map(|_| Server::start(&Options::new().cluster())).collect();
    let urls: Vec<String> = targets.iter().map(Server::url).collect();
    assert_eq!(inspect(&urls).await.unwrap().form, Form::Unjoined);
    let slots: Vec<SlotSet> = ["0-99,16000-16383", "100-9999", "10000-15999"].map(|it| it.parse().unwrap()).into();
    let files = split(&[&source], &slots, temporary.path());
    let loaded = run(&urls, &files).await.unwrap();
    assert!(loaded.iter().zip(&slots).all(|(node, slots)| node.slots.as_ref() == Some(slots) && node.keys > 0));
    let found = nodes::discover(&urls[2]);
    assert_eq!(found.len(), 3);
    compare(&source.nodes(), &found).assert_equal();
}

#[tokio::test]
async fn what_cannot_take_the_data_is_refused_before_anything_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&[]);
    source.run(&["SET", "a", "1"]);
    let rdb = save_rdb(&source, temporary.path(), "one.rdb");
    let (target, replica) = (server(&[]), server(&[]));
    let files = one_file(rdb.clone());
    let refused = |error: Error, class: Class, word: &str| {
        assert_eq!(error.class(), class, "{error}");
        assert!(error.message().contains(word), "{word} in {error}");
        assert_eq!(keys(&target), 0);
    };
    refused(run(&[source.url()], &files).await.unwrap_err(), Class::Refused, "it holds 1 keys");
    refused(run(&[target.url(), source.url()], &files).await.unwrap_err(), Class::Refused, "without cluster mode");
    let mixed = [target.url(), Server::start(&Options::new().cluster()).url()];
    assert!(run(&mixed, &files).await.is_err());
    let two = [files[0].clone(), files[0].clone()];
    refused(run(&[target.url()], &two).await.unwrap_err(), Class::Refused, "2 shards cannot go to 1 nodes");
    let bytes = std::fs::read(&rdb).unwrap();
    for (bytes, class, word) in [
        (&bytes[..bytes.len() - 3], Class::Verification, "bad.rdb"),
        (b"REDIS0099\xff", Class::Version, "99"),
        (b"not an rdb", Class::Verification, "not an RDB"),
    ] {
        let bad = temporary.path().join("bad.rdb");
        std::fs::write(&bad, bytes).unwrap();
        refused(run(&[target.url()], &one_file(bad)).await.unwrap_err(), class, word);
    }
    replica.replicate(&target);
    refused(run(&[replica.url()], &files).await.unwrap_err(), Class::Refused, "is a replica");
}

#[tokio::test]
async fn a_key_that_came_in_between_is_never_overwritten() {
    let temporary = tempfile::tempdir().unwrap();
    let (source, target) = (server(&[]), server(&[]));
    Keyspace::new(6, 500).load(&source.nodes());
    source.run(&["SET", "mine", "theirs"]);
    let files = one_file(save_rdb(&source, temporary.path(), "one.rdb"));
    let urls = [target.url()];
    let mut found = inspect(&urls).await.unwrap();
    target.run(&["SET", "mine", "precious"]);
    let error = load(&found, &files, &options(&[&urls[0]]), &|_| {}, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.message().contains("1 keys came in between"), "{error}");
    found.method = Method::Restore;
    let error = load(&found, &files, &options(&[&urls[0]]), &|_| {}, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.message().contains("`mine`") && error.advice().unwrap().contains("--replace"), "{error}");
    let kept: String = nodes::command(&["GET", "mine"]).query(&mut target.connect()).unwrap();
    assert_eq!(kept, "precious");
}

/// How often the server was asked for this.
fn calls(server: &Server, command: &str) -> u64 {
    let said = server.info(&format!("cmdstat_{command}"));
    said.map_or(0, |text| text.trim_start_matches("calls=").split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn short_strings_go_together_where_the_node_allows_it() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&[]);
    let script = "for i = 1, 30000 do redis.call('SET', 'string:' .. i, i % 3 == 0 and i or string.rep('abc ', i % 200)) end \
                  for i = 1, 100 do redis.call('RPUSH', 'list:' .. i, i) redis.call('SET', 'short:' .. i, i, 'EX', 10000) end";
    source.run(&["EVAL", script, "0"]);
    nodes::command(&["SET", "in five", "5"]).query::<()>(&mut nodes::connect(&format!("{}/5", source.url()))).unwrap();
    let encoding = |server: &Server, key: &str| -> String {
        nodes::command(&["OBJECT", "ENCODING", key]).query(&mut server.connect()).unwrap()
    };
    let files = one_file(save_rdb(&source, temporary.path(), "one.rdb"));
    for allowed in [true, false] {
        let target = server(&[]);
        let rules: &[&str] = if allowed { &[] } else { &["-msetnx"] };
        let words = [&["ACL", "SETUSER", "filler", "on", ">pw", "~*", "&*", "+@all"], rules].concat();
        target.run(&words);
        let url = target.url().replace("redis://", "redis://filler:pw@");
        let mut found = inspect(std::slice::from_ref(&url)).await.unwrap();
        found.method = Method::Restore;
        load(&found, &files, &options(&[&url]), &|_| {}, &CancellationToken::new()).await.unwrap();
        finish(&found, &files, &options(&[&url])).await.unwrap();
        compare(&source.nodes(), &target.nodes()).assert_equal();
        let (together, alone) = (calls(&target, "msetnx"), calls(&target, "restore"));
        assert_eq!(alone, if allowed { 200 } else { 30_201 });
        // 64 keys at a time at most, and the question whether that is allowed
        assert!(if allowed { (470..500).contains(&together) } else { together == 0 }, "{together}");
        for key in ["string:3", "string:5", "string:199"] {
            assert_eq!(encoding(&target, key), encoding(&source, key), "{key}");
        }
    }
}

#[tokio::test]
async fn a_node_that_dies_while_it_is_loaded_is_exit_15() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&[]);
    Keyspace::new(8, 20_000).load(&source.nodes());
    let files = one_file(save_rdb(&source, temporary.path(), "one.rdb"));
    let target = Mutex::new(server(&[]));
    let url = target.lock().unwrap().url();
    let found = inspect(std::slice::from_ref(&url)).await.unwrap();
    let kill = |progress: LoadProgress| {
        if matches!(progress, LoadProgress::Loading { .. }) {
            target.lock().unwrap().kill();
        }
    };
    let error = load(&found, &files, &options(&[&url]), &kill, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::SourceUnavailable, "{error}");
}

/// A value longer than the node takes is sent all the same, and the node's limits are as before.
#[tokio::test]
async fn a_value_above_the_limit_of_the_protocol_is_taken() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&[]);
    source.run(&["SET", "large", &"0123456789abcdef".repeat(200_000)]);
    source.run(&["SET", "small", "x"]);
    let lines = ["proto-max-bulk-len 1mb", "client-query-buffer-limit 2mb"];
    let target =
        Server::start(&lines.iter().fold(Options::new().line("rdbcompression no").cluster(), |o, line| o.line(*line)));
    source.run(&["CONFIG", "SET", "rdbcompression", "no"]);
    let files = split(&[&source], &[SlotSet::full()], temporary.path());
    let loaded = run(&[target.url()], &files).await.unwrap();
    assert_eq!(loaded[0].keys, 2);
    let length: u64 = nodes::command(&["STRLEN", "large"]).query(&mut target.connect()).unwrap();
    assert_eq!(length, 3_200_000);
    let limit: Vec<String> =
        nodes::command(&["CONFIG", "GET", "proto-max-bulk-len"]).query(&mut target.connect()).unwrap();
    assert_eq!(limit[1], "1048576");
}

#[tokio::test]
async fn functions_alone_make_a_node_not_empty_whenever_they_came() {
    let temporary = tempfile::tempdir().unwrap();
    let (source, target) = (server(&[]), server(&[]));
    source.run(&["SET", "a", "1"]);
    let files = one_file(save_rdb(&source, temporary.path(), "one.rdb"));
    let found = inspect(&[target.url()]).await.unwrap();
    target.run(&["FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() return 1 end)"]);
    let error = inspect(&[target.url()]).await.unwrap_err();
    assert!(error.class() == Class::Refused && error.message().contains("1 libraries of functions"), "{error}");
    let error = load(&found, &files, &options(&[&target.url()]), &|_| {}, &CancellationToken::new()).await.unwrap_err();
    assert!(error.class() == Class::Refused && error.message().contains("came in between"), "{error}");
    assert_eq!(target.info("number_of_libraries").as_deref(), Some("1"));
}

/// Whoever interrupts a restore finds the settings of the node as they were.
#[tokio::test]
async fn limits_are_put_back_when_a_load_is_interrupted() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&["rdbcompression no"]);
    fill(&source, 100_000);
    source.run(&["SET", "large", &"0123456789abcdef".repeat(200_000)]);
    let lines = ["proto-max-bulk-len 1mb", "client-query-buffer-limit 2mb"];
    let target = Server::start(&lines.iter().fold(Options::new(), |options, line| options.line(*line)));
    let files = one_file(save_rdb(&source, temporary.path(), "one.rdb"));
    let mut found = inspect(&[target.url()]).await.unwrap();
    found.method = Method::Restore;
    let limit = || {
        nodes::command(&["CONFIG", "GET", "*-l*"])
            .query::<std::collections::HashMap<String, String>>(&mut target.connect())
            .unwrap()
    };
    let (before, raised, cancel) = (limit(), Mutex::new(false), CancellationToken::new());
    let told = |progress: LoadProgress| {
        if matches!(progress, LoadProgress::Loading { .. }) {
            *raised.lock().unwrap() |= limit() != before;
            cancel.cancel();
        }
    };
    let error = load(&found, &files, &options(&[&target.url()]), &told, &cancel).await.unwrap_err();
    assert!(error.message().contains("interrupted") && error.advice().unwrap().contains("--resume"), "{error}");
    assert!(*raised.lock().unwrap());
    assert_eq!(limit(), before);
}

#[tokio::test]
async fn a_node_that_was_sent_all_of_another_restore_is_sent_anew() {
    let temporary = tempfile::tempdir().unwrap();
    let (first, second, target) = (server(&[]), server(&[]), server(&[]));
    first.run(&["SET", "mine", "1"]);
    second.run(&["SET", "other", "2"]);
    let files = [&first, &second].map(|it| one_file(save_rdb(it, temporary.path(), &format!("{}.rdb", it.port()))));
    let options = options(&[&target.url()]);
    for (files, restore, unfinished) in
        [(&files[0], "first", Unfinished::Refuse), (&files[1], "second", Unfinished::Resume)]
    {
        let found = Target::inspect_for(&options, restore.to_owned(), unfinished).await.unwrap();
        load(&found, files, &options, &|_| {}, &CancellationToken::new()).await.unwrap();
    }
    let there: Vec<Option<String>> = nodes::command(&["MGET", "mine", "other"]).query(&mut target.connect()).unwrap();
    assert_eq!(there, [None, Some("2".to_owned())]);
}
