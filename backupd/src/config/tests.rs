use super::*;

fn parse(text: &str) -> Result<Config> {
    Config::parse(Path::new("/etc/b/backupd.toml"), text)
}

const GOOD: &str = r#"
[repositories.main]
url = "s3://backups/redis"
key_file = "main.key"

[clusters.orders]
sources = ["redis://10.0.0.1:6379"]
repository = "main"
"#;

#[test]
fn the_reference_is_valid_with_and_without_its_examples() {
    let defaults = parse(DEFAULT_TOML).unwrap();
    assert_eq!(defaults.repositories().count() + defaults.clusters().count(), 0);
    assert_eq!(defaults.catalog, Location::Sqlite("/var/lib/backupd/catalog.sqlite".into()));
    let example = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let all = parse(&DEFAULT_TOML.lines().map(example).collect::<String>()).unwrap();
    let orders = all.cluster("orders").unwrap();
    assert_eq!((orders.sources.len(), orders.tags.len()), (2, 2));
    let automation = &orders.automation;
    assert_eq!(automation.window.as_ref().map(ToString::to_string), Some("03:00-05:00".to_owned()));
    assert_eq!((automation.on, automation.policy.limit_days, automation.policy.monthly), (true, 7, 12));
    assert_eq!(automation.verify, Some(automation::Verify { boot: true, every_ms: 604_800_000 }));
    assert_eq!((defaults.capture.spill_bytes_max, defaults.capture.budget.seconds_max), (4 << 30, Some(86_400)));
    assert_eq!((defaults.capture.limits.per_host_max, defaults.capture.source_rate_max), (None, None));
    assert_eq!((all.capture.limits.per_host_max, all.capture.source_rate_max), (Some(2), Some(200 << 20)));
    assert_eq!(all.repository("main").unwrap().encryption, Encryption::KeyFile("/etc/backupd/main.key".into()));
    assert_eq!(all.repository("scratch").unwrap().encryption, Encryption::None);
    let cloud = &all.repository("cloud").unwrap().encryption;
    assert!(
        matches!(cloud, Encryption::Kms { key, endpoint: Some(url) } if key.contains(":key/1234abcd") && url == "https://kms.internal")
    );
    let copies = &orders.copies[0];
    assert_eq!((copies.to.as_str(), copies.manual, copies.retention.weekly), ("cloud", false, 8));
    assert_eq!(orders.encryption, Some(Encryption::KeyFile("/etc/backupd/orders.key".into())));
}

#[test]
fn the_reference_is_in_the_documentation() {
    assert!(include_str!("../../docs/config.md").contains(DEFAULT_TOML), "copy config/default.toml to docs/config.md");
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = parse(&format!("{GOOD}password_file = \"p\"\n[catalog]\npath = \"c.sqlite\"")).unwrap();
    assert_eq!(config.catalog, Location::Sqlite("/etc/b/c.sqlite".into()));
    assert_eq!(config.cluster("orders").unwrap().password, Some(Password::File("/etc/b/p".into())));
    assert_eq!(config.repository("main").unwrap().encryption, Encryption::KeyFile("/etc/b/main.key".into()));
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, place, words) in [
        ("[repositories.a]\nurl = 1", ":2:7:", "string"),
        ("x = 1", ":1:1:", "unknown field `x`"),
        ("[catalog]\n\npth = 'x'", ":3:1:", "unknown field `pth`"),
        ("[capture]\nspill_max = '1 MB'", ":2:13:", "`1 MB`: a size is"),
        ("[capture]\ntime_max = '5'", ":2:12:", "no length of time"),
        ("[catalog]\npath = 'x", ":2:", ""),
        ("[catalog]\npath = 'x'\nurl = 'postgres://h/d'", ":3:7:", "both"),
        ("[catalog]\nurl = 'postgres://u:hidden@h/d'", ":2:7:", "password"),
        ("[catalog]\nurl = 'mysql://h/d'", ":2:7:", "`mysql`"),
        ("[repositories.a]\nkey_file = 'k'", ":1:1:", "missing field `url`"),
        ("[repositories.a]\nurl = 'file:///x'", ":1:15:", "has no key_file"),
        ("[repositories.a]\nurl = 'file:///x'\nkey_file = 'k'\nno_encryption = true", ":1:15:", "both"),
        ("[repositories.a]\nurl = 'file:///x'\nkms_key = 'alias/k'\nkey_file = 'k'", ":1:15:", "both"),
        ("[repositories.a]\nurl = 'file:///x'\nkms_key = 'a b'", ":3:11:", "no name of a KMS key"),
        ("[repositories.a]\nurl = 'file:///x'\nkey_file = 'k'\nkms_endpoint = 'http://x'", ":4:16:", "without kms_key"),
        (&format!("{GOOD}copies = [{{ to = 'nowhere' }}]"), ":9:18:", "[repositories.nowhere]"),
        (&format!("{GOOD}copies = [{{ to = 'main' }}]"), ":9:18:", "already"),
        ("[repositories.'a b']\nurl = 'file:///x'\nno_encryption = true", ":1:15:", "`a b`"),
        ("[repositories.a]\nno_encryption = true\nurl = 'ftp://x'", ":3:7:", "`ftp`"),
        ("[repositories.a]\nurl = 'file:///x'\n[repositories.a]", ":3:", "duplicate"),
        ("[clusters.c]\nsources = []\nrepository = 'r'", ":2:11:", "no source"),
        ("[clusters.c]\nsources = ['redis://h', 'http://h']\nrepository = 'r'", ":2:25:", "`http`"),
        ("[clusters.c]\nsources = ['redis://u:hidden@h']\nrepository = 'r'", ":2:12:", "password"),
        ("[clusters.c]\nsources = ['redis://h']\nrepository = 'r'", ":3:14:", "[repositories.r]"),
        ("[clusters.c]\nsources = ['redis://h']\nrepository = 'r'\ntls_ca = 'x'", ":1:11:", "rediss://"),
        ("[clusters.c]\nsources = ['rediss://h']\nrepository = 'r'\ntls_key = 'x'", ":1:11:", "tls_cert"),
        (
            "[clusters.c]\nsources = ['redis://h']\nrepository = 'r'\npassword_file = 'x'\npassword_env = 'x'",
            ":1:11:",
            "both",
        ),
        ("[clusters.c]\nsources = ['redis://h']\nrepositroy = 'r'", ":3:1:", "`repositroy`"),
        ("[clusters.c]\nsources = ['redis://h']\nrepository = 'r'\nwindow = '03:00-03:30'", ":4:10:", "60 minutes"),
        ("[clusters.c]\nsources = ['redis://h']\nrepository = 'r'\nmissed = 'no'", ":4:10:", "`catch-up`"),
        (
            "[clusters.c]\nsources = ['redis://h']\nrepository = 'r'\nsnapshot_retention_limit = 36",
            ":4:28:",
            "at most 35",
        ),
        ("[clusters.c]\nsources = ['redis://h']\nrepository = 'r'\nretention = { dayly = 1 }", ":4:15:", "`dayly`"),
        ("[clusters.c]\nsources = ['redis://h']\nrepository = 'r'\nverify = 'boot hourly'", ":4:10:", "`weekly`"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((error.class(), error.is_retryable()), (Class::Config, false), "{text}");
        let message = error.message();
        assert!(message.starts_with(&format!("/etc/b/backupd.toml{place}")), "{text}\n{message}");
        assert!(message.contains(words) && !message.contains('\n') && !message.contains("hidden"), "{text}\n{message}");
    }
}

#[test]
fn the_first_file_that_is_named_or_found_is_read() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = root.path().join(name);
        std::fs::write(&path, GOOD).unwrap();
        path
    };
    let (flag, variable, found) = (write("flag"), write("variable"), write("found"));
    let absent = root.path().join("absent");
    let searched: [&Path; 2] = [&absent, &found];
    let load = |flag, variable, searched| Config::load_from(flag, variable, searched).unwrap().file;
    assert_eq!(load(Some(&flag), Some(variable.as_os_str()), &searched), Some(flag.clone()));
    assert_eq!(load(None, Some(variable.as_os_str()), &searched), Some(variable.clone()));
    assert_eq!(load(None, Some(OsStr::new("")), &searched), Some(found.clone()));
    assert_eq!(load(None, None, &[&absent]), None);

    for named in [(Some(&*absent), None), (None, Some(absent.as_os_str()))] {
        let error = Config::load_from(named.0, named.1, &searched).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert!(error.message().contains("does not exist"), "{error}");
    }
    let error = Config::load_from(None, None, &[root.path()]).unwrap_err();
    assert_eq!(error.class(), Class::Config, "a file that is there and cannot be read is not passed over: {error}");
}

#[test]
fn unknown_names_are_told_with_the_known_ones() {
    let config = parse(GOOD).unwrap();
    let error = config.cluster("order").unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert!(error.to_string().contains("`order`") && error.to_string().contains("has: orders"), "{error}");
    assert!(Config::defaults().unwrap().repository("x").unwrap_err().to_string().contains("BACKUPD_CONFIG"));
}

#[test]
fn automated_backups_are_on_unless_they_are_switched_off() {
    for (keys, on, limit_days, daily) in [
        ("", true, automation::LIMIT_DAYS, 0),
        ("retention = { daily = 3 }", true, 0, 3),
        ("snapshot_retention_limit = 35\nretention = { daily = 3 }", true, 35, 3),
        ("snapshot_retention_limit = 0\nretention = { daily = 3 }", false, 0, 3),
        ("retention = {}", false, 0, 0),
    ] {
        let automation = parse(&format!("{GOOD}{keys}")).unwrap().cluster("orders").unwrap().automation.clone();
        assert_eq!(
            (automation.on, automation.policy.limit_days, automation.policy.daily),
            (on, limit_days, daily),
            "{keys}"
        );
    }
}

#[test]
fn limits_are_taken_away_by_a_zero_and_the_rest_stays() {
    let capture =
        parse("[capture]\nspill_dir = 's'\nspill_max = '0'\ntime_max = '0s'\nmemory_percent_max = 0").unwrap().capture;
    assert_eq!((capture.spill_folder.as_path(), capture.spill_bytes_max), (Path::new("/etc/b/s"), 0));
    assert_eq!((capture.budget.seconds_max, capture.budget.memory_percent_max), (None, None));
    assert_eq!(capture.spill_wait.as_secs(), 45);
}
