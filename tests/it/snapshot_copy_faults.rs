//! A copy whose process is killed, or whose stores fail: the same command again finishes it, and nothing is left behind.

use std::time::Duration;

use crate::fixture::Repo;
use crate::harness::cli::Outcome;
use crate::harness::faults::{Fault, Faulty, Operation, Script, first, random};
use crate::harness::process::wait_for;
use crate::harness::s3::Bucket;
use crate::snapshot_copy::{copy_to, words};
use crate::store_faults::{PASSING, impatient, incompressible};

/// The words of a copy whose requests to one side, or to both, go through a proxy.
fn through(words: &[String], endpoint: &str, proxy: &Faulty) -> Vec<String> {
    words.iter().map(|word| word.replace(endpoint, &proxy.endpoint)).collect()
}

/// Kills the program with signal 9 when its n-th write of these is on its way, for every n until none is left.
fn kill_at_every_write(label: &str, more: &[&str], writes_min: usize, wanted: fn(Operation) -> bool) {
    let from = Repo::bucket(&format!("{label}-from"));
    from.create(&incompressible(18).url(), "one");
    let endpoint = from.bucket.as_ref().unwrap().endpoint.clone();
    let mut reused = 0;
    for number in 0.. {
        let to = Repo::bucket(&format!("{label}-{number}"));
        let words = words(&from, &to, more);
        let mut seen = 0;
        let proxy = Faulty::start(&endpoint, move |operation| {
            seen += usize::from(wanted(operation));
            (wanted(operation) && seen == number + 1).then_some(Fault::Stall)
        });
        let mut job = from.cli.spawn(&through(&words, &endpoint, &proxy));
        wait_for("the write, or the end", Duration::from_secs(120), || {
            if proxy.struck().is_empty() && job.running.is_alive() { Err("neither".to_owned()) } else { Ok(()) }
        });
        if proxy.struck().is_empty() {
            job.wait(Duration::from_secs(10)).ok();
            assert!(number >= writes_min, "{number} writes");
            break;
        }
        job.running.kill();
        // whatever is listed as available is whole
        if to.cli.run(&to.args(&["snapshot", "show", "one"])).code == Some(0) {
            to.json(&["snapshot", "verify", "one"]);
        }
        let again = from.cli.run(&words);
        assert!(matches!(again.code, Some(0 | 18)), "write {number}, {:?}: {again}", proxy.struck());
        if again.code == Some(0) {
            reused += again.json()["reused_bytes"].as_u64().unwrap();
        }
        to.json(&["gc", "apply", "--older-than", "0s"]);
        assert_eq!(to.bucket.as_ref().unwrap().unfinished_uploads(), [""; 0], "write {number}");
        to.json(&["snapshot", "verify", "one"]);
    }
    assert!(reused > 0, "what had arrived was used again");
}

#[test]
fn killed_at_every_write_of_a_streamed_copy() {
    kill_at_every_write("killed-stream", &["--transfer", "stream"], 15, Operation::is_write);
}

#[test]
fn killed_at_every_write_of_a_copy_by_the_server() {
    let more = ["--transfer", "server", "--copy-object-max", "8388608"];
    // the other writes are those of every copy
    kill_at_every_write("killed-server", &more, 6, |operation| {
        operation.is_write() && !matches!(operation, Operation::Put | Operation::Delete)
    });
}

/// Copies with this script between the program and the destination, or the source.
fn assert_survives(from: &Repo, at_source: bool, what: &str, more: &[&str], script: impl Script + 'static) {
    let to = Repo::in_bucket(match more.contains(&"server") {
        true => Bucket::create("copy-faults"),
        false => Bucket::create_in_second_region("copy-faults"),
    });
    let side = if at_source { from } else { &to };
    let endpoint = side.bucket.as_ref().unwrap().endpoint.clone();
    let proxy = Faulty::start(&endpoint, script);
    let outcome = from.cli.run(&through(&words(from, &to, more), &endpoint, &proxy));
    assert!(!proxy.struck().is_empty(), "{what} did not happen");
    assert_eq!(outcome.code, Some(0), "{what}, {:?}: {outcome}", proxy.struck());
    to.json(&["snapshot", "verify", "one"]);
    to.json(&["gc", "apply", "--older-than", "0s"]);
    assert_eq!(to.bucket.as_ref().unwrap().unfinished_uploads(), [""; 0], "{what}");
}

#[test]
fn faults_that_pass_cost_no_copy() {
    let from = impatient(Repo::bucket("passing-from"));
    from.create(&incompressible(18).url(), "one");
    let places = [Operation::Part(2), Operation::Complete, Operation::Put, Operation::Manifest];
    for (index, place) in places.into_iter().enumerate() {
        let fault = PASSING[index + 1];
        let what = format!("{fault:?} at {place:?}");
        assert_survives(&from, false, &what, &[], first(1, move |o| o == place, fault));
    }
    for fault in [Fault::Answer(503, "SlowDown"), Fault::Reset, Fault::CutAnswer] {
        assert_survives(&from, true, &format!("{fault:?} at reads"), &[], first(2, |o| o == Operation::Read, fault));
    }
    // what was changed on its way is refused by the server, and sent again
    assert_survives(&from, false, "a changed part", &[], first(1, |o| o == Operation::Part(2), Fault::Change));
    let server = ["--transfer", "server"];
    let parts = ["--transfer", "server", "--copy-object-max", "8388608"];
    for (index, fault) in PASSING.into_iter().skip(2).enumerate() {
        let what = format!("{fault:?} at a copy by the server");
        match index % 2 {
            0 => assert_survives(&from, false, &what, &server, first(1, |o| o == Operation::Copy, fault)),
            _ => assert_survives(&from, false, &what, &parts, first(1, |o| o == Operation::PartCopy(2), fault)),
        }
    }
    assert_survives(&from, false, "5 % of all", &[], random(8_251, 5));
}

#[test]
fn faults_that_stay_end_it_and_the_next_attempt_goes_on() {
    let from = impatient(Repo::bucket("staying-from"));
    from.create(&incompressible(18).url(), "one");
    let to = Repo::in_bucket(Bucket::create_in_second_region("copy-staying"));
    let endpoint = to.bucket.as_ref().unwrap().endpoint.clone();
    let broken = Fault::Answer(500, "InternalError");
    for (place, fault, code) in [
        (Operation::Part(2), broken, 16),
        (Operation::Part(3), Fault::Answer(403, "AccessDenied"), 14),
        (Operation::Complete, Fault::ErrorIn200, 16),
        (Operation::Manifest, broken, 16),
    ] {
        let proxy = Faulty::start(&endpoint, first(usize::MAX, move |o| o == place, fault));
        let outcome = from.cli.run(&through(&words(&from, &to, &[]), &endpoint, &proxy));
        assert_eq!(outcome.code, Some(code), "{fault:?} at {place:?}: {outcome}");
        assert!(to.list().iter().all(|(_, status)| status != "available"), "{place:?}");
        assert_eq!(to.bucket.as_ref().unwrap().unfinished_uploads(), [""; 0], "{fault:?} at {place:?}");
    }
    let copied = copy_to(&from, &to, &[]).ok().json();
    assert_eq!(copied["reused_bytes"], copied["stored_bytes"], "only the manifest was missing: {copied}");
    to.json(&["snapshot", "verify", "one"]);
    from.json(&["snapshot", "verify", "one"]);
    // a server that may not look into the other bucket: the bytes go through here
    let to = Repo::bucket("copy-denied");
    let endpoint = to.bucket.as_ref().unwrap().endpoint.clone();
    let denied = Fault::Answer(403, "AccessDenied");
    let proxy = Faulty::start(&endpoint, first(usize::MAX, |o| o == Operation::Copy, denied));
    let copied = from.cli.run(&through(&words(&from, &to, &[]), &endpoint, &proxy)).ok().json();
    assert_eq!(copied["streamed_bytes"], copied["stored_bytes"], "{copied}");
}

/// Copies by the server while `meddle` is called once, when the server has copied and before the copy is looked at.
fn meddled(meddle: impl Fn(&Bucket) + Send + 'static) -> (Repo, Outcome) {
    let from = Repo::bucket("meddled-from");
    from.create(&incompressible(2).url(), "one");
    let to = Repo::bucket("meddled-to");
    let bucket = to.bucket.clone().unwrap();
    let endpoint = bucket.endpoint.clone();
    let (mut copied, mut done) = (false, false);
    let proxy = Faulty::start(&endpoint, move |operation| {
        copied |= operation == Operation::Copy;
        if copied && !done && operation == Operation::Read {
            done = true;
            meddle(&bucket);
        }
        None
    });
    let outcome = from.cli.run(&through(&words(&from, &to, &["--transfer", "server"]), &endpoint, &proxy));
    assert!(to.list().iter().all(|(_, status)| status != "available"), "{outcome}");
    (to, outcome)
}

#[test]
fn what_the_server_copied_counts_only_when_it_is_what_the_manifest_names() {
    let (to, outcome) = meddled(|bucket| {
        let (key, size) = bucket.list("").into_iter().find(|(key, _)| key.ends_with(".bkd")).unwrap();
        bucket.put(&key, &vec![7; usize::try_from(size).unwrap()]);
    });
    outcome.exits(17).says("shard-0000-1.bkd");
    // the next attempt must not meet it
    assert!(!to.bucket.as_ref().unwrap().list("").iter().any(|(key, _)| key.ends_with(".bkd")));
}

#[test]
fn a_copy_that_lost_its_claim_is_not_published() {
    let (_, outcome) = meddled(|bucket| bucket.put("some/prefix/_names/one/000001-released.json", b"{}"));
    outcome.exits(11).says("was lost to another job");
}
