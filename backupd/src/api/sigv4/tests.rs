//! The published cases of AWS, and requests that AWS's own crate signed.
//!
//! `BACKUPD_SIGNED_CASES=10000` is the full form of the properties.

use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// 2015-08-30T12:36:00Z, as all published cases have it.
const THEN: u64 = 1_440_938_160;

/// Request line, headers that are signed besides host and date, body, list and signature.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str, &'static str);

/// Cases of AWS's signing test suite.
const PUBLISHED: [Case; 18] = [
    ("GET /", &[], "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    (
        "GET /?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        &[],
        "",
        "host;x-amz-date",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    (
        "GET /",
        &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
        "",
        "host;my-header1;x-amz-date",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    (
        "GET /",
        &[("my-header1", "value4"), ("my-header1", "value1"), ("my-header1", "value3"), ("my-header1", "value2")],
        "",
        "host;my-header1;x-amz-date",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    ),
    (
        "GET /",
        &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
        "",
        "host;my-header1;my-header2;x-amz-date",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "GET /?Param2=value2&Param1=value1",
        &[],
        "",
        "host;x-amz-date",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "GET /?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        &[],
        "",
        "host;x-amz-date",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    (
        "GET /?%E1%88%B4=bar",
        &[],
        "",
        "host;x-amz-date",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    ("POST /", &[], "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    (
        "POST /",
        &[("my-header1", "value1")],
        "",
        "host;my-header1;x-amz-date",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    ("GET /ሴ", &[], "", "host;x-amz-date", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    (
        "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        &[],
        "",
        "host;x-amz-date",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    (
        "GET /example space/",
        &[],
        "",
        "host;x-amz-date",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    (
        "GET /?Param1=value1",
        &[],
        "",
        "host;x-amz-date",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    (
        "POST /?Param1=value1",
        &[],
        "",
        "host;x-amz-date",
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
    ),
    (
        "POST /",
        &[("my-header1", "VALUE1")],
        "",
        "host;my-header1;x-amz-date",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    ),
    (
        "POST /",
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("content-length", "13"),
            ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
        ],
        "Param1=value1",
        "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
        "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
    ),
    (
        "POST /",
        &[
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("content-length", "13"),
            ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
        ],
        "Param1=value1",
        "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
        "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
    ),
];

/// Cases of the suite whose paths are not what arrives at the end: signed after and before they are made normal, and refused both ways, so
/// that no proxy or router in between makes another request of them.
const PUBLISHED_AND_REFUSED: [(&str, &str); 11] = [
    ("//", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("//example//", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"),
    ("//example//", "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5"),
    ("/example/..", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("/example/..", "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282"),
    ("/example1/example2/../..", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("/./", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("/./", "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145"),
    ("/./example", "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"),
    ("/?ሴ=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
    ("/?Param=a b", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
];

fn check(arrived: &Arrived<'_>, services: &[&str], now: u64) -> Result<(), Refusal> {
    let authorization = Authorization::of(arrived.headers)?;
    if authorization.key_id != "AKIDEXAMPLE" {
        return Err(Refusal::unknown_key());
    }
    authorization.verify(arrived, SECRET, &Scope { region: None, services }, now)
}

#[test]
fn the_published_cases_are_signed_by_their_key() {
    for (line, headers, body, list, signature) in PUBLISHED {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut all = HeaderMap::new();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={list}, Signature={signature}"
        );
        let more = [
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", authorization.as_str()),
        ];
        for (name, value) in headers.iter().chain(&more) {
            all.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let arrived = Arrived { method, path, query, headers: &all, body: body.as_bytes() };
        assert_eq!(check(&arrived, &["service"], THEN), Ok(()), "{line} {list}");
        let code = |refused: Result<(), Refusal>| refused.unwrap_err().code;
        assert_eq!(code(check(&arrived, &SERVICES, THEN)), Code::SignatureDoesNotMatch, "another service");
        assert_eq!(check(&arrived, &["service"], THEN + SKEW_MAX_S), Ok(()));
        assert_eq!(code(check(&arrived, &["service"], THEN + SKEW_MAX_S + 1)), Code::RequestExpired);
        assert_eq!(code(check(&arrived, &["service"], THEN - SKEW_MAX_S - 1)), Code::RequestExpired);
        let other = Authorization::of(&all).unwrap();
        let scope = Scope { region: Some("eu-west-1"), services: &["service"] };
        assert_eq!(code(other.verify(&arrived, SECRET, &scope, THEN)), Code::SignatureDoesNotMatch, "another region");
        let scope = Scope { region: Some("us-east-1"), services: &["service"] };
        assert_eq!(other.verify(&arrived, SECRET, &scope, THEN), Ok(()));
        assert_eq!(code(other.verify(&arrived, "other", &scope, THEN)), Code::SignatureDoesNotMatch);
    }
}

#[test]
fn published_cases_that_would_be_another_request_on_their_way_are_refused() {
    for (target, signature) in PUBLISHED_AND_REFUSED {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}"
        );
        let mut headers = HeaderMap::new();
        headers.append("host", HeaderValue::from_static("example.amazonaws.com"));
        headers.append("x-amz-date", HeaderValue::from_static("20150830T123600Z"));
        headers.append("authorization", HeaderValue::from_str(&authorization).unwrap());
        let arrived = Arrived { method: "GET", path, query, headers: &headers, body: b"" };
        let refused = check(&arrived, &["service"], THEN).unwrap_err();
        assert!(refused.code == Code::SignatureDoesNotMatch && refused.message.contains(" must "), "{target}");
    }
}

/// `double-encode-path` and `double-url-encode` of the suite.
#[test]
fn a_path_is_encoded_once_more_than_it_arrives() {
    for (path, canonical) in [
        ("/test/@connections/JBDvjfGEIAMCERw%3D", "/test/%40connections/JBDvjfGEIAMCERw%253D"),
        (
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-west-2%3A892717189312%3Afunction%3Amy-rusty-fun/invocations",
            "/2015-03-31/functions/arn%253Aaws%253Alambda%253Aus-west-2%253A892717189312%253Afunction%253Amy-rusty-fun/invocations",
        ),
    ] {
        let arrived = Arrived { method: "POST", path, query: "", headers: &HeaderMap::new(), body: b"" };
        let text = String::from_utf8(canonical::request(&arrived, &[]).unwrap()).unwrap();
        assert_eq!(text.lines().nth(1), Some(canonical));
    }
}

/// A request that was signed, in parts that can be changed.
#[derive(Debug, Clone)]
struct Signed {
    service: String,
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Signed {
    fn check(&self) -> Result<(), Refusal> {
        self.check_for(&[&self.service])
    }

    fn check_for(&self, services: &[&str]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // what is no header does not come through the HTTP server
            let Ok(value) = HeaderValue::from_bytes(value) else {
                return Err(Refusal::new(Code::IncompleteSignature, "no header"));
            };
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        let (method, path, query) = (&self.method, &self.path, &self.query);
        check(&Arrived { method, path, query, headers: &headers, body: &self.body }, services, THEN)
    }

    /// With another byte in one of its parts; `None` where that is no request any more.
    fn with_other_byte(&self, part: usize, at: usize, byte: u8) -> Option<Self> {
        let mut other = self.clone();
        let change = |bytes: &mut Vec<u8>| {
            let at = at.checked_rem(bytes.len())?;
            (bytes[at] != byte).then(|| bytes[at] = byte)
        };
        let text = |bytes| String::from_utf8(bytes).ok();
        match part {
            0..3 => {
                let place = [&mut other.method, &mut other.path, &mut other.query].into_iter().nth(part)?;
                let mut bytes = place.clone().into_bytes();
                change(&mut bytes)?;
                *place = text(bytes)?;
            }
            3 => change(&mut other.body)?,
            _ => {
                let count = other.headers.len();
                change(&mut other.headers[(part - 4) % count].1)?;
            }
        }
        Some(other)
    }
}

fn signed_by_aws(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    body: &[u8],
    service: &str,
) -> Signed {
    let identity = Credentials::new("AKIDEXAMPLE", SECRET, None, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name(service)
        .time(UNIX_EPOCH + Duration::from_secs(THEN))
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let uri = format!("http://127.0.0.1:7070{target}");
    let given = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new(method, uri, given, SignableBody::Bytes(body)).unwrap();
    let (instructions, _) = sign(request, &SigningParams::V4(params)).unwrap().into_parts();
    let mut all: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    all.push(("host".to_owned(), b"127.0.0.1:7070".to_vec()));
    all.extend(instructions.headers().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
    Signed {
        service: service.to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: all,
        body: body.to_owned(),
    }
}

fn any_signed() -> impl Strategy<Value = Signed> {
    let pair = "[a-z]([A-Za-z0-9._~-]|%2F|%C3%A9|%20){0,8}=([A-Za-z0-9._~-]|%2B|%3D|%25){0,8}";
    let query = prop::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"));
    // any byte, encoded in either case or twice, and signs that need no encoding in a path
    let segment = "([A-Za-z0-9_~-]|[!$&'()*+,;=:@]|%[0-9A-F]{2}|%[0-9a-f]{2}|%25[0-9A-Fa-f]{2}|%2525|é|ሴ){1,10}";
    let end = prop::sample::select(vec!["", "/"]);
    let path = (prop::collection::vec(segment, 0..4), end).prop_map(|(segments, end)| match segments.as_slice() {
        [] => "/".to_owned(),
        segments => format!("/{}{end}", segments.join("/")),
    });
    let headers = prop::collection::btree_map("x-[a-z]{1,6}", "[!-~]([ -~]{0,20}[!-~])?", 0..4);
    let kind = prop::option::of(Just("application/x-www-form-urlencoded; charset=utf-8".to_owned()));
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "PATCH"]);
    let service = prop::sample::select([SERVICES.as_slice(), &SERVICES_REST].concat());
    (method, path, query, headers, kind, body, service).prop_map(
        |(method, path, query, headers, kind, body, service)| {
            let kind = kind.map(|kind| ("content-type".to_owned(), kind));
            let headers: Vec<(String, String)> = headers.into_iter().chain(kind).collect();
            signed_by_aws(method, &path, &query, &headers, &body, service)
        },
    )
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("BACKUPD_SIGNED_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_the_crate_of_aws_signs_is_accepted(signed in any_signed()) {
        prop_assert_eq!(signed.check(), Ok(()));
        for entrance in [SERVICES.as_slice(), &SERVICES_REST] {
            let is_for_it = entrance.contains(&signed.service.as_str());
            prop_assert_eq!(signed.check_for(entrance).is_ok(), is_for_it);
        }
    }

    #[test]
    fn what_has_another_byte_is_refused(
        signed in any_signed(),
        changes in prop::collection::vec((0_usize..10, any::<usize>(), any::<u8>()), 8),
    ) {
        for (part, at, byte) in changes {
            // letters and signs of their own are likelier to be a request still
            for byte in [byte, byte & 0x7f, b'a' + byte % 26, b"/%&=. +~09"[usize::from(byte) % 10]] {
                if let Some(other) = signed.with_other_byte(part, at, byte) {
                    prop_assert!(other.check().is_err(), "{:?}", other);
                }
            }
        }
    }
}

#[test]
fn what_is_not_wholly_signed_is_refused() {
    let headers = [("content-type".to_owned(), "text/plain".to_owned())];
    let signed = signed_by_aws("POST", "/", "", &headers, b"a=b", "elasticache");
    assert_eq!(signed.check(), Ok(()));
    let code = |change: &dyn Fn(&mut Signed)| {
        let mut other = signed.clone();
        change(&mut other);
        other.check().unwrap_err().code
    };
    let header = |from: &'static str, to: &'static str| {
        move |signed: &mut Signed| {
            let value = &mut signed.headers.iter_mut().find(|(name, _)| name == "authorization").unwrap().1;
            *value = String::from_utf8(value.clone()).unwrap().replace(from, to).into_bytes();
        }
    };
    let without = |gone: &'static str| move |signed: &mut Signed| signed.headers.retain(|(name, _)| name != gone);
    let with = |name: &'static str| move |signed: &mut Signed| signed.headers.push((name.to_owned(), b"x".to_vec()));
    assert_eq!(code(&without("authorization")), Code::MissingAuthenticationToken);
    assert_eq!(code(&with("authorization")), Code::MissingAuthenticationToken, "two");
    assert_eq!(code(&with("x-amz-security-token")), Code::InvalidClientTokenId);
    for change in [
        header("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        header("content-type;", ""),
        header("host;", ""),
        header(";x-amz-date", ""),
        header("content-type;host", "host;content-type"),
        header("content-type;host", "content-type;content-type;host"),
        header("host", "Host"),
        header("/aws4_request", ""),
        header("/elasticache", ""),
        header("Signature=", "Signature=0"),
        header("Signature=", "Signatur="),
        header("Credential=AKIDEXAMPLE", "Credential="),
    ] {
        assert_eq!(code(&change), Code::IncompleteSignature);
    }
    assert_eq!(code(&without("content-type")), Code::IncompleteSignature);
    assert_eq!(code(&header("20150830", "20150831")), Code::SignatureDoesNotMatch);
    assert_eq!(code(&header("AKIDEXAMPLE/20150830/eu", "AKIDEXAMPLE/20150830/us")), Code::SignatureDoesNotMatch);
    assert_eq!(code(&with("x-amz-content-sha256")), Code::SignatureDoesNotMatch);
    assert_eq!(code(&with("content-type")), Code::SignatureDoesNotMatch, "a second value");
}
