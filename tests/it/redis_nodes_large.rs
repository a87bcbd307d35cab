//! Values that are longer than a node takes, into running nodes.

use std::path::Path;
use std::sync::Mutex;

use backupd::error::Class;
use backupd::nodes::{LoadProgress, LoadedNode, Method, ShardFile, Target, Unfinished, finish, load};
use policies::slot::SlotSet;
use tokio_util::sync::CancellationToken;

use crate::harness::cluster::Cluster;
use crate::harness::compare::compare;
use crate::harness::nodes;
use crate::harness::server::{Engine, Options, Server};
use crate::redis_nodes::split;
use crate::redis_server::{ask, options, save_rdb, server};

/// A value of each kind, each of more than 1.5 MB in an RDB, and a string that is shorter than the limit and its payload not.
const VALUES: &str = "
    local function text(i) return redis.sha1hex(i) end
    for i = 1, 40000 do redis.call('RPUSH', 'large:list', text(i)) end
    redis.call('RPUSH', 'large:list', string.rep('one long item ', 30000))
    for i = 1, 40000 do redis.call('SADD', '{tag}large:set', text(i)) end
    for i = 1, 40000 do redis.call('ZADD', 'large:zset', i / 7, text(i)) end
    redis.call('ZADD', 'large:zset', '-inf', 'least', 'inf', 'most')
    for i = 1, 20000 do redis.call('HSET', 'large:hash', text(i), text(-i)) end
    for i = 1, 15000 do redis.call('XADD', 'large:stream', i .. '-1', 'a', text(i), 'b' .. i, text(-i)) end
    redis.call('XDEL', 'large:stream', '500-1')
    redis.call('SET', 'large:string', string.rep('x', 500000) .. text(1) .. string.rep('y', 400000))
    redis.call('PEXPIREAT', 'large:hash', 4102444800123)
    for i = 1, 500 do redis.call('SET', 'small:' .. i, text(i)) end";

/// A node whose limits are 1 and 2 MB, and on which nobody changes a setting.
fn strict() -> Options {
    let lines =
        ["proto-max-bulk-len 1mb", "client-query-buffer-limit 2mb", "user default on nopass ~* &* +@all -config|set"];
    lines.iter().fold(Options::new(), |options, line| options.line(*line))
}

/// What is pending with a group, with two consumers of which one has nothing.
fn read_by_a_group(source: &Server) {
    source.run(&["XGROUP", "CREATE", "large:stream", "readers", "0", "ENTRIESREAD", "0"]);
    source.run(&["XGROUP", "CREATECONSUMER", "large:stream", "readers", "idle"]);
    let read = ["XREADGROUP", "GROUP", "readers", "busy", "COUNT", "200", "STREAMS", "large:stream", ">"];
    nodes::command(&read).query::<redis::Value>(&mut source.connect()).unwrap();
}

async fn fill(target: &str, files: &[ShardFile]) -> backupd::error::Result<Vec<LoadedNode>> {
    let options = options(&[target]);
    let mut found = Target::inspect(&options).await?;
    found.method = Method::Restore;
    let loaded = load(&found, files, &options, &|_| {}, &CancellationToken::new()).await?;
    finish(&found, files, &options).await?;
    Ok(loaded)
}

fn one_file(source: &Server, dir: &Path) -> Vec<ShardFile> {
    vec![ShardFile { slots: None, rdb: save_rdb(source, dir, "one.rdb"), survey: None }]
}

/// A server with the values, its file in a folder that goes with the test, and a node that does not take them at once.
fn large_and_strict() -> (tempfile::TempDir, Server, Vec<ShardFile>, Server) {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&["rdbcompression no"]);
    source.run(&["EVAL", VALUES, "0"]);
    let files = one_file(&source, temporary.path());
    (temporary, source, files, Server::start(&strict()))
}

fn parts_on(server: &Server) -> Vec<String> {
    nodes::command(&["KEYS", "backupd:restore-part:*"]).query(&mut server.connect()).unwrap()
}

#[tokio::test]
async fn values_longer_than_a_node_takes_come_in_parts_and_no_limit_is_touched() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&["rdbcompression no"]);
    source.run(&["EVAL", VALUES, "0"]);
    read_by_a_group(&source);
    let target = Cluster::start_with(&strict(), policies::shards::equal(2).unwrap(), 0);
    let slots: Vec<SlotSet> = target.shards.iter().map(|shard| shard.slots.clone()).collect();
    let files = split(&[&source], &slots, temporary.path());
    let loaded = fill(&target.url(), &files).await.unwrap();
    assert_eq!(loaded.iter().map(|node| node.keys).sum::<u64>(), 506);
    compare(&source.nodes(), &target.nodes()).assert_equal();
}

#[tokio::test]
async fn fields_that_expire_come_in_parts_and_every_database_gets_its_own() {
    for engine in ["redis-8", "valkey-9"].map(Engine::Extra) {
        if engine.is_recorded_as_unavailable() {
            println!("{engine:?} is recorded as unavailable here: not run");
            continue;
        }
        let temporary = tempfile::tempdir().unwrap();
        let source = Server::start(&Options::new().engine(engine.clone()).line("rdbcompression no"));
        let script = "redis.call('SELECT', 3)
            for i = 1, 20000 do redis.call('HSET', 'h', redis.sha1hex(i), redis.sha1hex(-i)) end
            for i = 1, 500 do redis.call('HPEXPIREAT', 'h', 4102444800000 + i, 'FIELDS', 1, redis.sha1hex(i)) end";
        source.run(&["EVAL", script, "0"]);
        source.run(&["SET", "in zero", "0"]);
        let target = Server::start(&strict().engine(engine.clone()));
        fill(&target.url(), &one_file(&source, temporary.path())).await.unwrap();
        let fields = |server: &Server| -> Vec<redis::Value> {
            let mut three = nodes::connect(&format!("{}/3", server.url()));
            let all = nodes::command(&["HGETALL", "h"]).query::<std::collections::BTreeMap<String, String>>(&mut three);
            let all = all.unwrap();
            assert_eq!(all.len(), 20_000);
            let mut times = nodes::command(&["HPEXPIRETIME", "h", "FIELDS", "20000"]);
            times.arg(all.keys().collect::<Vec<_>>());
            let values = all.values().map(|value| redis::Value::SimpleString(value.clone())).collect();
            vec![redis::Value::Array(values), times.query(&mut three).unwrap()]
        };
        assert_eq!(fields(&source), fields(&target), "{engine:?}");
        assert_eq!(ask(&target, &["GET", "in zero"]), "0");
    }
}

/// What no command makes again goes as it is, with the limits raised: an entry that is pending and gone.
#[tokio::test]
async fn a_value_that_no_commands_make_is_sent_whole_and_the_limits_are_put_back() {
    let temporary = tempfile::tempdir().unwrap();
    let source = server(&["rdbcompression no"]);
    source.run(&["EVAL", VALUES, "0"]);
    read_by_a_group(&source);
    source.run(&["XDEL", "large:stream", "10-1"]);
    let refusing = Server::start(&strict());
    let files = one_file(&source, temporary.path());
    let error = fill(&refusing.url(), &files).await.unwrap_err();
    assert!(error.advice().unwrap().contains("proto-max-bulk-len"), "{error}");
    assert!(error.message().contains("key `large:stream`: what makes a value is longer"), "{error}");
    let target = server(&["proto-max-bulk-len 1mb", "client-query-buffer-limit 2mb"]);
    fill(&target.url(), &files).await.unwrap();
    compare(&source.nodes(), &target.nodes()).assert_equal();
    let limits: Vec<String> =
        nodes::command(&["CONFIG", "GET", "proto-max-bulk-len"]).query(&mut target.connect()).unwrap();
    assert_eq!(limits[1], "1048576");
}

#[tokio::test]
async fn a_part_that_is_left_is_known_as_unfinished_and_goes_when_the_restore_goes_on() {
    let (_temporary, source, files, target) = large_and_strict();
    let options = options(&[&target.url()]);
    let found = async |unfinished| -> backupd::error::Result<Target> {
        let mut found = Target::inspect_for(&options, "this".to_owned(), unfinished).await?;
        found.method = Method::Restore;
        Ok(found)
    };
    let (cancel, seen) = (CancellationToken::new(), Mutex::new(0));
    let told = |progress: LoadProgress| {
        if matches!(progress, LoadProgress::Loading { .. }) && !parts_on(&target).is_empty() {
            *seen.lock().unwrap() += 1;
            cancel.cancel();
        }
    };
    let begun = found(Unfinished::Refuse).await.unwrap();
    let error = load(&begun, &files, &options, &told, &cancel).await.unwrap_err();
    assert!(error.message().contains("interrupted") && *seen.lock().unwrap() > 0, "{error}");
    let refused = found(Unfinished::Refuse).await.unwrap_err();
    assert!(refused.class() == Class::Refused && refused.message().contains("did not end"), "{refused}");
    let again = found(Unfinished::Resume).await.unwrap();
    load(&again, &files, &options, &|_| {}, &CancellationToken::new()).await.unwrap();
    finish(&again, &files, &options).await.unwrap();
    assert_eq!(parts_on(&target), Vec::<String>::new());
    compare(&source.nodes(), &target.nodes()).assert_equal();
}

#[tokio::test]
async fn a_key_that_is_there_already_is_not_replaced_by_its_parts() {
    let (_temporary, _source, files, target) = large_and_strict();
    let options = options(&[&target.url()]);
    let mut found = Target::inspect(&options).await.unwrap();
    found.method = Method::Restore;
    target.run(&["SET", "large:zset", "precious"]);
    let error = load(&found, &files, &options, &|_| {}, &CancellationToken::new()).await.unwrap_err();
    assert!(error.class() == Class::Refused && error.message().contains("`large:zset`: the key is there"), "{error}");
    assert_eq!(ask(&target, &["GET", "large:zset"]), "precious");
}
