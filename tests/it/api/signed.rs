//! Requests signed by AWS Signature Version 4, as AWS's own crate signs them.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde_json::{Value, json};

use super::{Answer, Served, exchange, token};

/// A key whose id tells its name; all have the same secret.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    pub(crate) id: String,
    pub(crate) secret: &'static str,
    pub(crate) service: &'static str,
    pub(crate) port: u16,
}

impl Signer {
    /// The bytes of a request that is signed now, with these headers besides those that must be there.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        let identity = Credentials::from_keys(&self.id, self.secret, None).into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-central-1")
            .name(self.service)
            .time(backupd::clock::now().into())
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        let signable = SignableRequest::new(method, uri, headers.iter().copied(), SignableBody::Bytes(body.as_bytes()));
        let (instructions, _) = sign(signable.unwrap(), &params.into()).unwrap().into_parts();
        let given = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let signed = instructions.headers().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = given.chain(signed).collect();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", self.port);
        format!("{head}{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let (kind, body) = match body {
            Value::Null => (None, String::new()),
            body => (Some(("content-type", "application/json")), body.to_string()),
        };
        exchange(self.port, &self.request(method, path, kind.as_slice(), &body))
    }
}

/// A section for a key; its id is made of its name.
pub(crate) fn key(name: &str, role: &str, more: &str) -> String {
    let id = id_of(name);
    format!("[api.keys.{name}]\nid = \"{id}\"\nsecret_file = \"secret\"\nrole = \"{role}\"\n{more}\n")
}

/// The id of the key of this name.
pub(crate) fn id_of(name: &str) -> String {
    format!("AKID{:0<16}", name.replace('-', "_"))
}

const SECRET: &str = "secret-of-all";

#[test]
fn signed_requests_are_answered_like_those_with_tokens_and_once() {
    let keys = key("ops", "operator", "") + &key("shop", "reader", "tags = { team = \"shop\" }");
    let fleet = crate::daemon::Fleet::new(1, &crate::daemon::sqlite(), "", "");
    std::fs::write(fleet.path("secret"), SECRET).unwrap();
    let served = Served::of(fleet, "", &(keys + &token("calm", "reader", "")));
    let signer = |name: &str| Signer { id: id_of(name), secret: SECRET, service: "backupd", port: served.port() };
    let ops = signer("ops");
    let whoami = ops.ask("GET", "/v1/whoami", &Value::Null).has(200).json();
    assert_eq!((whoami["name"].as_str(), whoami["role"].as_str()), (Some("key:ops"), Some("operator")));
    ops.ask("GET", "/v1/snapshots?cluster=c0&limit=5", &Value::Null).has(200);

    // who overheard a request and sends it again gets the job that there is
    let body = json!({"cluster": "c0", "name": "one"}).to_string();
    let create = ops.request("POST", "/v1/snapshots", &[("content-type", "application/json")], &body);
    let first = exchange(served.port(), &create).has(202);
    let again = exchange(served.port(), &create).has(202);
    assert_eq!(first.header("location"), again.header("location"));
    served.ended(first.header("location").unwrap());
    assert_eq!(served.get("/v1/jobs?kind=backup")["jobs"].as_array().unwrap().len(), 1);

    // what is changed on the way, or signed by others, is nobody's
    let text = String::from_utf8(create).unwrap();
    for (from, to) in
        [("\"one\"", "\"two\""), ("POST /v1/snapshots", "POST /v1/restores"), ("Signature=", "Signature=0")]
    {
        exchange(served.port(), text.replacen(from, to, 1).as_bytes()).has(401);
    }
    let late = text.replacen("Content-Length", "Idempotency-Key: mine\r\nContent-Length", 1);
    exchange(served.port(), late.as_bytes()).has(401);
    Signer { secret: "another", ..ops.clone() }.ask("GET", "/v1/whoami", &Value::Null).has(401);
    Signer { service: "s3", ..ops.clone() }.ask("GET", "/v1/whoami", &Value::Null).has(401);
    signer("nobody").ask("GET", "/v1/whoami", &Value::Null).has(401);

    // role and scope are those of the key
    ops.ask("DELETE", "/v1/snapshots/one", &Value::Null).has(403);
    let shop = signer("shop");
    let seen = || shop.ask("GET", "/v1/snapshots", &Value::Null).has(200).json()["snapshots"].clone();
    assert_eq!(seen(), json!([]));
    shop.ask("GET", "/v1/snapshots/one", &Value::Null).has(404);
    shop.ask("GET", "/v1/clusters/c0", &Value::Null).has(404);
    // tags count as they are now
    let tag = |name: &str, arn: &str| {
        let arn = format!("arn:aws:elasticache:us-east-1:000000000000:{arn}");
        let form = format!("Action={name}&Version=2015-02-02&ResourceName={arn}");
        let more = if name.starts_with("Add") {
            "&Tags.Tag.1.Key=team&Tags.Tag.1.Value=shop"
        } else {
            "&TagKeys.member.1=team"
        };
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let signer = Signer { service: "elasticache", ..ops.clone() };
        exchange(served.port(), &signer.request("POST", "/", &kind, &(form + more))).has(200);
    };
    tag("AddTagsToResource", "snapshot:one");
    assert_eq!(seen()[0]["name"], "one");
    shop.ask("GET", "/v1/snapshots/one", &Value::Null).has(200);
    shop.ask("GET", "/v1/clusters/c0", &Value::Null).has(404);
    tag("AddTagsToResource", "replicationgroup:c0");
    shop.ask("GET", "/v1/clusters/c0", &Value::Null).has(200);
    assert_eq!(shop.ask("GET", "/v1/jobs", &Value::Null).has(200).json()["jobs"].as_array().unwrap().len(), 1);
    tag("RemoveTagsFromResource", "snapshot:one");
    tag("RemoveTagsFromResource", "replicationgroup:c0");
    assert_eq!(seen(), json!([]));
    shop.ask("GET", "/v1/clusters/c0", &Value::Null).has(404);
}

/// Names with every byte, encoded once, twice and in lower case, and with signs that need no encoding.
#[test]
fn signed_paths_with_odd_bytes_arrive_as_they_were_signed() {
    let fleet = crate::daemon::Fleet::new(0, &crate::daemon::sqlite(), "", "");
    std::fs::write(fleet.path("secret"), SECRET).unwrap();
    let served = Served::of(fleet, "requests_per_second = 10000", &key("ops", "operator", ""));
    let ops = Signer { id: id_of("ops"), secret: SECRET, service: "backupd", port: served.port() };
    let bytes =
        (1..=255_u8).map(|byte| format!("a%{byte:02X}b")).chain((1..=255_u8).map(|byte| format!("%25{byte:02x}")));
    let signs = ["%c3%a9", "%C3%a9", "%2e%2E", "a!$&'()*+,;=:@-._~b", "%252F", "%25252F", "%2F..%2F", "*", "~"];
    for name in bytes.chain(signs.map(str::to_owned)) {
        let path = format!("/v1/snapshots/{name}?repository=main");
        let request = ops.request("GET", &path, &[], "");
        let answer = exchange(served.port(), &request);
        // what is no text in UTF-8 is no name
        assert!([400, 404].contains(&answer.status), "{name}: {answer:?}");
        assert!(answer.status == 404 || answer.body.contains("the path is not text"), "{name}: {answer:?}");
        // once more decoded or encoded on the way it is another request
        let text = String::from_utf8(request).unwrap();
        let other = if text.contains('%') {
            text.replacen('%', "%25", 1)
        } else {
            text.replacen(&format!("{name}?"), &format!("{name}x?"), 1)
        };
        exchange(served.port(), other.as_bytes()).has(401);
    }
}
