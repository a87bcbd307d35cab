//! What one request may cost, and that those who take too much disturb nobody.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{SOON, Served, exchange};

#[test]
fn a_body_or_head_that_is_too_large_is_refused() {
    let served = Served::new(1, "body_max = \"4KiB\"", "");
    let tags = json!({"cluster": "c0", "name": "x", "tags": {"a": "v".repeat(5000)}});
    served.ask_as("admin", "POST", "/v1/snapshots", &tags).has(413);
    // one that does not tell its length is cut off when it is over
    let chunk = format!("{:x}\r\n{}\r\n", 1000, "x".repeat(1000));
    let head =
        "POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nTransfer-Encoding: chunked\r\n\r\n";
    exchange(served.port(), format!("{head}{}", chunk.repeat(5)).as_bytes()).has(413);
    let long = "x".repeat(40_000);
    served.request("GET", "/v1/whoami", &[("X-Long", &long)], "").has(431);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    exchange(served.port(), format!("GET /v1/whoami HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).has(431);
    served.get("/v1/whoami");
}

#[test]
fn requests_that_are_no_requests_are_told_so() {
    let served = Served::new(1, "", "");
    let ask = |method: &str, path: &str, body: &Value| served.ask_as("admin", method, path, body);
    ask("GET", "/v1/nothing", &Value::Null).has(404);
    ask("PATCH", "/v1/snapshots", &Value::Null).has(405);
    ask("GET", "/v1/snapshots?limit=0", &Value::Null).has(400);
    ask("GET", "/v1/snapshots?cursor=!", &Value::Null).has(400);
    ask("GET", "/v1/snapshots?nonsense=1", &Value::Null).has(400);
    ask("GET", "/v1/snapshots?cluster=%00", &Value::Null).has(400);
    ask("GET", "/v1/snapshots/%FF", &Value::Null).has(400);
    ask("GET", "/v1/jobs?kind=nap", &Value::Null).has(400);
    ask("POST", "/v1/snapshots", &json!({"cluster": "c0", "nmae": "x"})).has(400);
    ask("POST", "/v1/snapshots", &json!({"cluster": "c0", "name": "../x"})).has(400);
    ask("POST", "/v1/snapshots", &json!({"cluster": "c0", "tags": {"a": "\u{0}"}})).has(400);
    ask("POST", "/v1/snapshots", &json!([1])).has(400);
    ask("POST", "/v1/snapshots", &json!({"cluster": "nobody"})).has(404);
    let plain = "POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Length: 2\r\n\
                 Connection: close\r\nContent-Type: text/plain\r\n\r\n{}";
    let problem = exchange(served.port(), plain.as_bytes()).has(415);
    assert_eq!(problem.header("content-type"), Some("application/problem+json"));
    for member in ["type", "title", "status", "detail", "class", "code", "retryable"] {
        assert!(!problem.json()[member].is_null(), "{member}: {problem:?}");
    }
}

#[test]
fn clients_that_send_slowly_or_nothing_are_cut_off_and_hold_up_nobody() {
    // two at the same time: those who have sent half would take all turns if they took one
    let served = Served::new(1, "concurrency = 2\nrequest_time = \"3s\"", "");
    let connect = || TcpStream::connect(("127.0.0.1", served.port())).unwrap();
    let head =
        "POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Type: application/json\r\n";
    let mut slow: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
    for stream in &mut slow {
        write!(stream, "{head}Content-Length: 100\r\n\r\n{{").unwrap();
    }
    let mut half: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
    for stream in &mut half {
        stream.write_all(b"GET /v1/whoami HTTP/1.1\r\nHo").unwrap();
    }
    let _idle: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    served.get("/v1/whoami");
    for stream in slow.iter_mut().chain(&mut half) {
        // one byte a second, until it is told to go
        stream.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        let (mut text, began) = (Vec::new(), std::time::Instant::now());
        loop {
            let mut some = [0; 4096];
            match stream.read(&mut some) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&some[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    assert!(began.elapsed() < SOON, "a slow client is still connected");
                    let _gone = stream.write_all(b"x");
                }
                Err(_) => break,
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    }
    served.get("/v1/whoami");
}

#[test]
fn clients_that_only_take_places_keep_nobody_out() {
    // without making room every good request would wait until all before it were cut off, which takes minutes
    let served = Served::new(1, "connections = 50\nrequests_per_second = 100000", "");
    let connect = || TcpStream::connect(("127.0.0.1", served.port())).unwrap();
    let head = |bytes: u64| {
        format!(
            "POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer admin\r\nContent-Type: application/json\r\n\
             Content-Length: {bytes}\r\n\r\n"
        )
    };
    let slow_head = head(1 << 19);
    let slowly = || {
        let mut stream = connect();
        // who is sent away already comes again below
        let _closed = stream.write_all(slow_head.as_bytes());
        stream
    };
    let idle: Vec<TcpStream> = (0..1000).map(|_| connect()).collect();
    let mut slow: Vec<TcpStream> = (0..200).map(|_| slowly()).collect();
    // those who ask and never read the answers
    let deaf: Vec<TcpStream> = (0..60).map(|_| connect()).collect();
    let many = "GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    for mut stream in &deaf {
        stream.set_nonblocking(true).unwrap();
        let _full = stream.write_all(many.as_bytes());
    }
    let large = [head(1 << 30).into_bytes(), vec![b'x'; 64 << 10]].concat();
    for _ in 0..20 {
        served.get("/v1/snapshots");
        exchange(served.port(), &large).has(413);
        for stream in &mut slow {
            if stream.write_all(b"x").is_err() {
                *stream = slowly();
            }
        }
    }
    drop((idle, deaf));
}

#[test]
fn a_caller_that_asks_too_often_is_told_to_come_again_and_others_are_not() {
    let served = Served::new(1, "requests_per_second = 5", &super::token("calm", "reader", ""));
    let answers: Vec<u16> = (0..40).map(|_| served.ask_as("admin", "GET", "/v1/whoami", &Value::Null).status).collect();
    let refused = answers.iter().filter(|status| **status == 429).count();
    assert!(answers[..5].iter().all(|status| *status == 200) && refused > 0, "{answers:?}");
    served.ask_as("calm", "GET", "/v1/whoami", &Value::Null).has(200);
}
