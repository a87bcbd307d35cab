//! Hooks against a real receiver: told at least once, signed, again after a refusal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use super::{Fleet, LIMIT, sqlite};
use crate::harness::process::wait_for;

/// What was received: the head, and the body.
type Request = (Vec<String>, Vec<u8>);

/// A receiver that answers with 503 to the first request, and with 200 to the rest.
fn receiver() -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_owned());
            }
            let length = header(&head, "content-length").unwrap().parse().unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let status = if number == 0 { "503 Later" } else { "200 Heard" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if sender.send((head, body)).is_err() {
                return;
            }
        }
    });
    (port, received)
}

fn header(head: &[String], name: &str) -> Option<String> {
    head.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.eq_ignore_ascii_case(name)).then(|| value.trim().to_owned())
    })
}

/// As a receiver in a shell would check it.
fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut openssl = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(format!("{timestamp}.").as_bytes()).unwrap();
    input.write_all(body).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256={}", text.trim().rsplit(' ').next().unwrap())
}

#[test]
fn hooks_are_told_of_events_until_they_heard() {
    let (port, received) = receiver();
    let fleet = Fleet::new(1, &sqlite(), "lease = \"2s\"\nstop_wait = \"0s\"", "snapshot_retention_limit = 0");
    let config = std::fs::read_to_string(fleet.path("backupd.toml")).unwrap();
    let told = fleet.path("told");
    let hooks = format!(
        "[hooks.ops]\nurl = \"http://127.0.0.1:{port}/in?x=1\"\nsecret_file = \"secret\"\nevents = [\"backup.*\"]\n\
         [hooks.local]\ncommand = [\"sh\", \"-c\", \"cat >> {}; echo >> {}\"]\nevents = [\"backup.succeeded\"]\n",
        told.display(),
        told.display()
    );
    std::fs::write(fleet.path("backupd.toml"), config + &hooks).unwrap();
    std::fs::write(fleet.path("secret"), "s3cret\n").unwrap();
    let daemon = fleet.daemon();
    fleet.wait_job(&fleet.ask("c0", "one"), &["succeeded"]);

    let first = received.recv_timeout(LIMIT).unwrap();
    let second = received.recv_timeout(LIMIT).unwrap();
    assert_eq!(first.1, second.1, "what was refused is told again");
    let (head, body) = second;
    assert!(head[0].starts_with("POST /in?x=1 "), "{head:?}");
    let event: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((event["code"].as_str(), event["snapshot_name"].as_str()), (Some("backup.succeeded"), Some("one")));
    assert_eq!(header(&head, "x-backupd-event").as_deref(), Some("backup.succeeded"));
    assert_eq!(header(&head, "x-backupd-delivery").as_deref(), event["event_id"].as_str());
    let timestamp = header(&head, "x-backupd-timestamp").unwrap();
    assert_eq!(header(&head, "x-backupd-signature"), Some(signature("s3cret", &timestamp, &body)));

    let line = wait_for("the command", LIMIT, || match std::fs::read_to_string(&told) {
        Ok(text) if text.ends_with('\n') && text.trim().len() > 1 => Ok(text),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(serde_json::from_str::<Value>(line.trim()).unwrap(), event);
    daemon.running.signal("TERM");
    let log = daemon.wait(LIMIT).ok().stderr;
    assert!(!log.contains("s3cret"), "secrets are in no log");
}

#[test]
fn a_hook_that_never_answers_holds_up_no_other_and_no_end() {
    // connections are taken, and nothing is ever said
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let fleet = Fleet::new(0, &sqlite(), "", "");
    let (config, told) = (std::fs::read_to_string(fleet.path("backupd.toml")).unwrap(), fleet.path("told"));
    let hooks = format!(
        "[hooks.a]\nurl = \"http://{}/\"\nsecret_file = \"secret\"\n\
         [hooks.b]\ncommand = [\"touch\", \"{}\"]\nevents = [\"daemon.started\"]\n",
        silent.local_addr().unwrap(),
        told.display()
    );
    std::fs::write(fleet.path("backupd.toml"), config + &hooks).unwrap();
    std::fs::write(fleet.path("secret"), "s3cret\n").unwrap();
    let daemon = fleet.daemon();
    let (_connection, _) = silent.accept().unwrap();
    wait_for("the other hook", LIMIT, || if told.exists() { Ok(()) } else { Err(String::new()) });
    daemon.running.signal("TERM");
    let ended = daemon.wait(LIMIT).ok();
    assert!(!ended.stderr.contains("a hook was not told"), "the first was still being told: {ended}");
}
