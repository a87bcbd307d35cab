//! A KMS (moto, from PyPI, which `tests/setup.sh tests` installs) and a proxy in front of it that refuses what a script says.
//!
//! Moto keeps keys per region, knows aliases and compares encryption contexts. It does not ask who calls, opens with keys that are disabled
//! and gives grants no effect: what depends on that is shown by the proxy's answers.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};

use super::faults;
use super::process::{self, Running, wait_for};
use super::s3::block_on;
use super::server::{Port, servers_dir};

/// Longest wait for the server to answer, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running KMS; gone when dropped.
#[derive(Debug)]
pub(crate) struct Kms {
    /// What to use as endpoint, also as one of S3.
    pub(crate) endpoint: String,
    running: Running,
    _port: Port,
}

impl Kms {
    /// Starts one without keys.
    pub(crate) fn start() -> Self {
        let program = servers_dir().join("moto/bin/moto_server");
        assert!(program.is_file(), "{} is not there: run tests/setup.sh tests", program.display());
        let port = Port::reserve();
        let mut command = process::command(program);
        command.args(["-H", "127.0.0.1", "-p", &port.number.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = process::spawn(command);
        wait_for("moto", START_LIMIT, || {
            TcpStream::connect(("127.0.0.1", port.number)).map(drop).map_err(|error| error.to_string())
        });
        Self { endpoint: format!("http://127.0.0.1:{}", port.number), running, _port: port }
    }

    /// Ends it, with all of its keys.
    pub(crate) fn stop(mut self) {
        self.running.kill();
    }

    /// A client of a region.
    pub(crate) fn client(&self, region: &str) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(&self.endpoint)
            .credentials_provider(Credentials::new("k", "s", None, None, "tests"));
        Client::from_conf(config.build())
    }

    /// Makes a key in a region; its ARN.
    pub(crate) fn key(&self, region: &str) -> String {
        let made = block_on(self.client(region).create_key().send()).unwrap();
        made.key_metadata().unwrap().arn().unwrap().to_owned()
    }
}

/// What the proxy does instead of passing a request on: HTTP status and code of the error.
type Refusal = (u16, &'static str);

/// Decides on each request by its operation.
type Script = dyn FnMut(&str) -> Option<Refusal> + Send;

/// A running proxy; it ends with the process.
#[derive(Debug)]
pub(crate) struct Scripted {
    /// What to use as endpoint.
    pub(crate) endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Starts one in front of `kms`. The script is asked for every request by its operation, such as `Decrypt`.
    pub(crate) fn start(kms: &Kms, script: impl FnMut(&str) -> Option<Refusal> + Send + 'static) -> Self {
        let upstream = kms.endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(Mutex::new(script)), Arc::clone(&asked));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (script, log, upstream) = (Arc::clone(&script), Arc::clone(&log), upstream.clone());
                // a client that went away is its own business
                thread::spawn(move || drop(serve(client.unwrap(), &upstream, &*script, &log)));
            }
        });
        Self { endpoint, asked }
    }

    /// The operations that were asked for so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut client: TcpStream,
    upstream: &str,
    script: &Mutex<Script>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if faults::read_some(&mut client, &mut bytes)? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    };
    let body_len: usize = field("content-length").parse().unwrap_or(0);
    while bytes.len() < head_len + body_len {
        if faults::read_some(&mut client, &mut bytes)? == 0 {
            return Ok(());
        }
    }
    let operation = field("x-amz-target").rsplit('.').next().unwrap_or_default();
    log.lock().unwrap().push(operation.to_owned());
    let refusal = (script.lock().unwrap())(operation);
    let answer = match refusal {
        None => faults::forward(upstream, &head, &bytes[head_len..])?,
        Some((status, code)) => {
            let body = format!("{{\"__type\":\"{code}\",\"message\":\"as the script says\"}}");
            let kind = "Content-Type: application/x-amz-json-1.1";
            let length = body.len();
            format!(
                "HTTP/1.1 {status} Scripted\r\n{kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes()
        }
    };
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Write)
}
