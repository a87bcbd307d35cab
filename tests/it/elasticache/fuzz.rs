//! Forms that no client would send: whatever comes, the answer is XML with a code, and it comes.
//!
//! `BACKUPD_FUZZED_FORMS=20000` is the full form.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::Place;

/// When an answer is taken for hanging.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// After so many forms the daemon has what it needs.
const WARM: usize = 1000;

/// By how much its memory may grow after that, KiB: what the allocator keeps, and nothing that grows with the count.
const GROWTH_KIB_MAX: u64 = 32 << 10;

/// Forms that are near enough to right ones to come far.
const SEEDS: [&str; 14] = [
    "Action=CreateSnapshot&Version=2015-02-02&ReplicationGroupId=orders&SnapshotName=f-1&Tags.Tag.1.Key=a&Tags.Tag.1.Value=b",
    "Action=DescribeSnapshots&Version=2015-02-02&MaxRecords=20&ShowNodeGroupConfig=true&Marker=c25hcHNob3RzOjE6YQ",
    "Action=DescribeSnapshots&Version=2015-02-02&SnapshotSource=user&CacheClusterId=orders-0001-001",
    "Action=CopySnapshot&Version=2015-02-02&SourceSnapshotName=f-1&TargetSnapshotName=f-2&TargetBucket=b",
    "Action=DeleteSnapshot&Version=2015-02-02&SnapshotName=f-3",
    "Action=DescribeReplicationGroups&Version=2015-02-02&ReplicationGroupId=orders",
    "Action=DescribeCacheClusters&Version=2015-02-02&ShowCacheNodeInfo=true&MaxRecords=20&Marker=orders+orders-0001-001",
    "Action=CreateReplicationGroup&Version=2015-02-02&ReplicationGroupId=new&ReplicationGroupDescription=d&SnapshotName=f-9&\
     NodeGroupConfiguration.NodeGroupConfiguration.1.Slots=0-8191&NodeGroupConfiguration.NodeGroupConfiguration.2.Slots=8192-16383",
    "Action=CreateCacheCluster&Version=2015-02-02&CacheClusterId=one&SnapshotArns.SnapshotArn.1=arn%3Aaws%3As3%3A%3A%3Ab%2Fa.rdb",
    "Action=ModifyReplicationGroup&Version=2015-02-02&ReplicationGroupId=orders&SnapshotWindow=03:00-05:00&SnapshotRetentionLimit=3",
    "Action=DescribeEvents&Version=2015-02-02&Duration=60&StartTime=2026-01-02T03%3A04%3A05Z&SourceType=replication-group",
    "Action=AddTagsToResource&Version=2015-02-02&ResourceName=arn:aws:elasticache:e:0:replicationgroup:orders&Tags.Tag.1.Key=k",
    "Action=RemoveTagsFromResource&Version=2015-02-02&ResourceName=arn:aws:elasticache:e:0:cluster:orders-0001-001&TagKeys.member.1=k",
    "Action=GetCallerIdentity&Version=2011-06-15",
];

/// What is put into forms.
const BITS: [&str; 18] = [
    "&",
    "=",
    "%",
    "%00",
    "%ff",
    ".",
    "+",
    "Tags.Tag.9.Key=z",
    "&Marker=",
    "&Action=X",
    "4294967296",
    "-1",
    "%2e%2e%2f",
    "é",
    "Tag.1.",
    "&&",
    "member.1=",
    "\u{0}",
];

/// xorshift: the same forms every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }

    fn form(&mut self) -> Vec<u8> {
        let mut bytes = SEEDS[self.below(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => bytes.truncate(at),
                2 => bytes.splice(at..at, BITS[self.below(BITS.len())].bytes()).for_each(drop),
                3 => {
                    // a part of another form
                    let other = SEEDS[self.below(SEEDS.len())].as_bytes();
                    let from = self.below(other.len());
                    bytes.splice(at..at, other[from..].iter().copied()).for_each(drop);
                }
                _ => {
                    let long = "x".repeat(self.below(9000));
                    bytes.splice(at..at, long.bytes()).for_each(drop);
                }
            }
        }
        bytes
    }
}

/// Sends a body and gives the status, the type and the body of the answer.
fn post(port: u16, head: &str, body: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{head}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // a server that refuses by the head may close before all of the body is sent
    let _closed = stream.write_all(body);
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    (status, kind.unwrap_or_default(), body.to_owned())
}

pub(super) fn form(port: u16, body: &[u8]) -> (u16, String, String) {
    let head = format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", body.len());
    post(port, &head, body)
}

#[test]
fn whatever_is_sent_the_answer_is_xml() {
    let place = Place::without_keys("fuzz", 0);
    let daemon = place.daemon();
    let port = place.port.number;
    let count: usize = std::env::var("BACKUPD_FUZZED_FORMS").ok().and_then(|text| text.parse().ok()).unwrap_or(1500);
    let mut random = Random(0x5eed);
    let mut seen = std::collections::BTreeMap::<u16, usize>::new();
    let memory_kib = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.running.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let mut warm_kib = 0;
    for number in 0..count {
        if number == WARM {
            warm_kib = memory_kib();
        }
        let body = random.form();
        let (status, kind, text) = form(port, &body);
        let shown = String::from_utf8_lossy(&body);
        assert!(status < 500, "{number}: {shown}: {status} {text}");
        assert_eq!(kind, "text/xml", "{number}: {shown}: {text}");
        let is_whole = text.trim_end().ends_with("Response>") && text.contains("<RequestId>");
        assert!(is_whole, "{number}: {shown}: {text}");
        *seen.entry(status).or_default() += 1;
    }
    let end_kib = memory_kib();
    println!("{seen:?}; memory {warm_kib} KiB after {WARM} forms, {end_kib} KiB after {count}");
    assert!(end_kib < warm_kib + GROWTH_KIB_MAX, "memory grew from {warm_kib} KiB to {end_kib} KiB");
    assert!(seen[&200] > count / 50 && seen[&400] > count / 50, "the forms are all of one kind: {seen:?}");
    // what the layers around refuse is XML, too
    for (head, body, status) in [
        ("Content-Length: 99999999\r\n", &b""[..], 413),
        ("Content-Length: 0\r\nOrigin: http://elsewhere\r\n", b"", 403),
        ("Content-Length: 0\r\n", b"", 400),
    ] {
        let (found, kind, text) = post(port, head, body);
        assert_eq!((found, kind.as_str()), (status, "text/xml"), "{head}: {text}");
    }
    drop(daemon);
}
