//! The REST API of `backupd serve`, from outside: a real daemon, real servers, real HTTP.

mod access;
mod document;
mod grants;
mod limits;
mod pages;
mod resumed;
pub(crate) mod signed;
mod story;
mod targets;
mod tls;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::daemon::{Fleet, LIMIT, sqlite};
use crate::harness::cli::Spawned;
use crate::harness::process::wait_for;

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Everything before the body.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no answer: {text:?}")),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// Its body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Panics unless it has this status.
    pub(crate) fn has(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// Sends bytes and reads until the other side closes.
pub(crate) fn exchange(port: u16, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // who is refused early may not read all of it
    let _refused = stream.write_all(bytes);
    let mut text = Vec::new();
    // a reset after the answer takes nothing from what came
    let _reset = stream.read_to_end(&mut text);
    Answer::parse(&String::from_utf8_lossy(&text))
}

/// A daemon with an API, and somebody who asks it.
pub(crate) struct Served {
    pub(crate) fleet: Fleet,
    daemon: Spawned,
}

/// The SHA-256 of a token, as it stands in the configuration.
pub(crate) fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// A section for a token that is its own name.
pub(crate) fn token(name: &str, role: &str, more: &str) -> String {
    let sha256 = digest(name);
    format!(
        "[api.tokens.{name}]\nsha256 = \"{sha256}\"\nexpires = \"2099-01-01T00:00:00Z\"\nrole = \"{role}\"\n{more}\n"
    )
}

impl Served {
    /// `count` servers; `api` goes into the section `[api]`, `more` behind it.
    pub(crate) fn new(count: usize, api: &str, more: &str) -> Self {
        Self::of(Fleet::new(count, &sqlite(), "", "snapshot_retention_limit = 0"), api, more)
    }

    /// The same for a fleet that there is.
    pub(crate) fn of(fleet: Fleet, api: &str, more: &str) -> Self {
        Self::leased(fleet, "5s", api, more)
    }

    /// The same, where a worker may say nothing for so long.
    pub(crate) fn leased(fleet: Fleet, lease: &str, api: &str, more: &str) -> Self {
        let daemon = format!(
            "listen = \"\"\njobs_per_host = 8\nlease = \"{lease}\"\nstop_wait = \"0s\"\n[api]\nlisten = \"127.0.0.1:{}\"\n{api}\n{}\n{more}\n",
            fleet.port.number,
            token("admin", "admin", ""),
        );
        fleet.configure(&sqlite(), &daemon, "snapshot_retention_limit = 0");
        let served = Self { daemon: fleet.daemon(), fleet };
        wait_for("the API", LIMIT, || TcpStream::connect(("127.0.0.1", served.port())).map_err(|it| it.to_string()));
        served
    }

    pub(crate) fn port(&self) -> u16 {
        self.fleet.port.number
    }

    /// A request with these headers.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (port, length) = (self.port(), body.len());
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}{kind}");
        exchange(port, format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())
    }

    /// A request of a caller whose token is its name.
    pub(crate) fn ask_as(&self, who: &str, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(method, path, &[("Authorization", &format!("Bearer {who}"))], &body)
    }

    /// `GET` of the admin, which succeeds.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.ask_as("admin", "GET", path, &Value::Null).has(200).json()
    }

    /// A request of the admin that becomes a job: the job when it has ended.
    pub(crate) fn job(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask_as("admin", method, path, body).has(202);
        let location = answer.header("location").unwrap().to_owned();
        self.ended(&location)
    }

    /// The job at `location`, when it has ended.
    pub(crate) fn ended(&self, location: &str) -> Value {
        wait_for(location, LIMIT, || {
            let job = self.get(location)["job"].clone();
            let is_final = ["succeeded", "failed", "canceled"].contains(&job["state"].as_str().unwrap());
            if is_final { Ok(job) } else { Err(job.to_string()) }
        })
    }

    /// The same, and it succeeded.
    pub(crate) fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let job = self.job(method, path, body);
        assert_eq!(job["state"], "succeeded", "{job}");
        job
    }

    /// Makes a snapshot.
    pub(crate) fn snapshot(&self, cluster: &str, name: &str) -> Value {
        self.done("POST", "/v1/snapshots", &json!({"cluster": cluster, "name": name}))
    }
}

/// Long enough for anything that is to come at once.
pub(crate) const SOON: Duration = Duration::from_secs(60);
