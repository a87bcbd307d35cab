//! How servers treat whoever speaks replication: what the capture relies on, and why it never acknowledges and never asks to
//! go on from a position. Raw sockets, no code of ours.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::server::Server;
use crate::redis_server::{ask, server, wait_until};

/// When a read is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection that speaks replication.
struct Raw(BufReader<TcpStream>);

impl Raw {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Goes on from what `server` has now: the answer.
    fn continue_at(server: &Server, replid: &str, offset: u64) -> (Self, String) {
        let mut raw = Self::connect(server);
        raw.say(&["PSYNC", replid, &(offset + 1).to_string()]);
        let answer = raw.line();
        (raw, answer)
    }

    fn say(&mut self, words: &[&str]) {
        let bulks: Vec<String> = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        let text = format!("*{}\r\n{}", words.len(), bulks.concat());
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The name of the next command of the stream; bulks of it are read.
    fn command(&mut self) -> String {
        let count: usize = self.line().trim_start_matches('*').parse().unwrap();
        let words: Vec<String> = (0..count)
            .map(|_| {
                self.line();
                self.line()
            })
            .collect();
        words[0].to_uppercase()
    }

    /// Waits until the server has closed it.
    fn wait_closed(mut self) {
        let mut rest = Vec::new();
        // a reset is an end as well
        if let Err(error) = self.0.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}

/// A primary that sends nothing by itself, with a replica that has everything.
fn pair() -> (Server, Server) {
    let quiet = ["repl-ping-replica-period 3600"];
    let (primary, replica) = (server(&quiet), server(&quiet));
    replica.replicate(&primary);
    primary.run(&["SET", "a", "1"]);
    replica.wait_caught_up(&primary);
    (primary, replica)
}

fn position(server: &Server) -> (String, u64) {
    let offset = server.info("master_repl_offset").unwrap();
    (server.info("master_replid").unwrap(), offset.parse().unwrap())
}

#[test]
fn going_on_from_a_position_costs_no_child_and_selects_no_database() {
    let (primary, replica) = pair();
    let (replid, offset) = position(&primary);
    for server in [&primary, &replica] {
        let forks = server.info("total_forks");
        let (mut raw, answer) = Raw::continue_at(server, &replid, offset);
        assert!(answer.starts_with("+CONTINUE"), "{answer}");
        assert_eq!(server.info("total_forks"), forks);
        primary.run(&["SET", "b", "2"]);
        assert_eq!(raw.command(), "SET", "whoever goes on has to know the database himself");
    }
    let (_raw, answer) = Raw::continue_at(&primary, &"0".repeat(40), offset);
    assert!(answer.starts_with("+FULLRESYNC"), "another history: {answer}");
}

#[test]
fn a_client_that_acknowledges_everything_is_taken_for_the_next_primary() {
    for (behind, role) in [(0, "slave"), (1, "master")] {
        let (primary, replica) = pair();
        replica.pause();
        primary.run(&["SET", "b", "2"]);
        let (replid, offset) = position(&primary);
        let (mut raw, answer) = Raw::continue_at(&primary, &replid, offset);
        assert!(answer.starts_with("+CONTINUE"), "{answer}");
        raw.say(&["REPLCONF", "ACK", &(offset - behind).to_string()]);
        ask(&primary, &["FAILOVER", "TIMEOUT", "3000"]);
        wait_until("the failover is over", || {
            primary.info("role").as_deref() == Some("slave")
                || primary.info("master_failover_state").as_deref() == Some("no-failover")
        });
        assert_eq!(primary.info("role").as_deref(), Some(role), "{behind} bytes behind");
        if behind == 0 {
            // it follows a port where nobody can be: the client announced none
            assert_eq!(primary.info("master_port").as_deref(), Some("0"));
        }
    }
}

#[test]
fn a_client_that_goes_on_and_never_acknowledges_is_cut_off() {
    let (primary, replica) = (server(&["repl-timeout 5"]), server(&["repl-timeout 60"]));
    replica.replicate(&primary);
    replica.wait_caught_up(&primary);
    let (replid, offset) = position(&primary);
    let (raw, answer) = Raw::continue_at(&primary, &replid, offset);
    assert!(answer.starts_with("+CONTINUE"), "{answer}");
    raw.wait_closed();
    assert_eq!(primary.info("connected_slaves").as_deref(), Some("1"), "a real replica stays");
}

#[test]
fn a_client_of_a_replica_that_is_promoted_is_cut_off_and_may_go_on_there() {
    let (primary, replica) = pair();
    let (replid, offset) = position(&primary);
    let (raw, answer) = Raw::continue_at(&replica, &replid, offset);
    assert!(answer.starts_with("+CONTINUE"), "{answer}");
    replica.run(&["REPLICAOF", "NO", "ONE"]);
    raw.wait_closed();
    // the new history begins where the old one ended, and still knows its name
    let (_raw, answer) = Raw::continue_at(&replica, &replid, offset);
    assert!(answer.starts_with("+CONTINUE"), "{answer}");
    assert_ne!(position(&replica).0, replid);
}
