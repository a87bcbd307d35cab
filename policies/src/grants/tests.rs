//! Policies: what they allow, and that nothing of others is changed.

use proptest::prelude::*;

use super::*;

fn grant(id: &str, name: &str) -> Grant {
    Grant {
        id: id.to_owned(),
        principal: Principal::Account("123456789012".to_owned()),
        bucket: "backups".to_owned(),
        prefix: "redis".to_owned(),
        scope: Scope::Snapshot {
            cluster: "orders".to_owned(),
            snapshot_id: "20261125T080000Z-0a1b2c3d".to_owned(),
            name: name.to_owned(),
        },
        way: Way::Policy,
    }
}

/// Foreign, with spaces, an order of members, a number and letters that no writer of ours would choose.
const FOREIGN: &str = r#" { "Id" : "theirs", "Statement" : [
   {"Sid": "A", "Effect": "Deny",  "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::backups/ü/*",
    "Condition": {"NumericLessThan": {"s3:TlsVersion": 1.20}}} ,
   { "Effect":"Allow","Sid":"backupdOther", "Principal": {"AWS": ["1","2"]}, "Action": ["s3:GetObject"], "Resource":"*" }
 ], "Version": "2012-10-17" }
"#;

#[test]
fn a_grant_is_two_statements_for_one_snapshot() {
    let policy = add(None, &grant("g1", "monday")).unwrap();
    assert_eq!(
        policy,
        concat!(
            r#"{"Version":"2012-10-17","Statement":[{"Action":"s3:GetObject","Effect":"Allow","#,
            r#""Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Resource":["#,
            r#""arn:aws:s3:::backups/redis/backupd-repository.json","#,
            r#""arn:aws:s3:::backups/redis/_names/monday/*","#,
            r#""arn:aws:s3:::backups/redis/orders/20261125T080000Z-0a1b2c3d/*"],"Sid":"backupdGrantg1Read"},"#,
            r#"{"Action":"s3:ListBucket","Condition":{"StringLike":{"s3:prefix":["redis/_names/monday/*","#,
            r#""redis/orders/20261125T080000Z-0a1b2c3d/*"]}},"Effect":"Allow","#,
            r#""Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Resource":"arn:aws:s3:::backups","#,
            r#""Sid":"backupdGrantg1List"}]}"#,
        )
    );
    assert_eq!(revoke(&policy, "g1"), Ok(None));
    assert_eq!(list(&policy).unwrap().iter().map(|stated| stated.grant_id.as_str()).collect::<Vec<_>>(), ["g1", "g1"]);
}

#[test]
fn what_stands_in_the_policy_stays_to_the_byte() {
    let [read, list] = grant("g1", "monday").statements().unwrap();
    let added = add(Some(FOREIGN), &grant("g1", "monday")).unwrap();
    assert_eq!(added, FOREIGN.replacen(" }\n ], \"V", &format!(" }},{read},{list}\n ], \"V"), 1));
    assert_eq!(add(Some(&added), &grant("g1", "monday")), Ok(added.clone()), "a second time changes nothing");
    assert_eq!(revoke(&added, "g1").unwrap().as_deref(), Some(FOREIGN));
    assert_eq!(revoke(FOREIGN, "g1"), Err(GrantError::NotThere("g1".to_owned())));
    // a single object becomes a list, and is the same object in it
    let single = r#"{"Statement": {"Sid":"A" } }"#;
    let added = add(Some(single), &grant("g1", "monday")).unwrap();
    assert!(added.starts_with(r#"{"Statement": [{"Sid":"A" },{"#) && added.ends_with("}] }"), "{added}");
    assert_eq!(revoke(&added, "g1").unwrap().as_deref(), Some(r#"{"Statement": [{"Sid":"A" }] }"#));
}

#[test]
fn what_a_statement_is_for_is_read_back_from_it() {
    let of_cluster = |id: &str, cluster: &str| Grant {
        scope: Scope::Cluster { cluster: cluster.to_owned() },
        principal: Principal::Arn("arn:aws:iam::123456789012:role/restore".to_owned()),
        ..grant(id, "")
    };
    let by_id = Grant { principal: Principal::CanonicalId("abc".to_owned()), ..grant("g3", "tuesday") };
    for (given, prefix) in [(grant("g1", "monday"), "redis"), (of_cluster("g2", "orders"), ""), (by_id, "a/b")] {
        let given = Grant { prefix: prefix.to_owned(), ..given };
        let stated = list(&add(Some(FOREIGN), &given).unwrap()).unwrap();
        let scopes =
            |bucket: &str, prefix: &str| stated.iter().filter_map(|one| one.scope(bucket, prefix)).collect::<Vec<_>>();
        assert_eq!(scopes("backups", prefix), std::slice::from_ref(&given.scope), "the one that reads says it");
        assert!(stated.iter().all(|one| one.principal().as_ref() == Some(&given.principal)));
        // repositories of one bucket, and buckets of one policy's author, are told apart
        for (bucket, other) in [("backups", "other"), ("backups", "redis/orders"), ("other", prefix)] {
            assert!(scopes(bucket, other).is_empty(), "{bucket} {other}");
        }
        assert_eq!(scopes("backups", "").is_empty(), !prefix.is_empty());
    }
    for changed in ["*", "redis/*", "redis/_names/*", "redis/../x/*", "redis/orders/*/*"] {
        let text = json!({"Resource": [format!("arn:aws:s3:::backups/{changed}"), "arn:aws:s3:::backups/redis/backupd-repository.json"],
            "Principal": {"AWS": ["a", "b"]}});
        let stated = Stated { grant_id: "g1".to_owned(), text: text.to_string() };
        assert_eq!((stated.scope("backups", "redis"), stated.principal()), (None, None), "{changed}");
    }
}

#[test]
fn statements_that_others_changed_are_told() {
    let added = add(Some(FOREIGN), &grant("g1", "monday")).unwrap();
    let wider = added.replace("redis/orders/20261125T080000Z-0a1b2c3d/*\"]}}", "*\"]}}");
    assert_ne!(wider, added);
    assert_eq!(add(Some(&wider), &grant("g1", "monday")), Err(GrantError::Changed("g1".to_owned())));
    // it can be revoked all the same
    assert_eq!(revoke(&wider, "g1").unwrap().as_deref(), Some(FOREIGN));
    for foreign in
        ["", "[]", "{}", r#"{"Statement":[]}"#, r#"{"Statement":[{}],"Statement":[{}]}"#, r#"{"Statement":[{}]} x"#]
    {
        assert!(matches!(add(Some(foreign), &grant("g1", "monday")), Err(GrantError::Foreign(_))), "{foreign}");
    }
}

#[test]
fn what_could_match_more_than_it_says_is_refused() {
    let good = grant("g1", "monday");
    let of = |principal: Principal| Grant { principal, ..good.clone() };
    let arn = |arn: &str| of(Principal::Arn(arn.to_owned()));
    for bad in [
        of(Principal::Account("*".to_owned())),
        of(Principal::CanonicalId(String::new())),
        arn("*"),
        arn("arn:aws:iam::123456789012:*"),
        arn("arn:aws:iam::*:root"),
        arn("arn:aws:s3:::backups"),
        Grant { prefix: "a*".to_owned(), ..good.clone() },
        Grant { prefix: "${aws:username}".to_owned(), ..good.clone() },
        Grant { bucket: "*".to_owned(), ..good.clone() },
        Grant { id: "a-b".to_owned(), ..good.clone() },
        Grant { scope: Scope::Cluster { cluster: "*".to_owned() }, ..good.clone() },
        grant("g1", "a/../b"),
    ] {
        assert!(matches!(bad.statements(), Err(GrantError::Unsafe { .. })), "{bad:?}");
    }
    for good in [
        arn("arn:aws:iam::123456789012:role/a/b"),
        arn("arn:aws-cn:iam::123456789012:root"),
        arn("arn:aws:iam::RGW1:user/x"),
    ] {
        assert!(good.statements().is_ok(), "{good:?}");
    }
}

#[test]
fn a_policy_that_would_be_too_large_is_refused() {
    let mut policy = add(None, &grant("g0", "monday")).unwrap();
    for number in 1.. {
        match add(Some(&policy), &grant(&format!("g{number}"), "monday")) {
            Ok(added) => policy = added,
            Err(refused) => {
                assert!(matches!(refused, GrantError::TooLarge(bytes) if bytes > POLICY_BYTES_MAX) && number > 20);
                break;
            }
        }
    }
    assert!(policy.len() <= POLICY_BYTES_MAX);
}

/// Whether a policy lets an account do a thing, as S3 reads it: `*` is the only pattern that these policies have.
fn allows(policy: &str, action: &str, resource: &str, prefix: Option<&str>) -> bool {
    let fits = |pattern: &Value, text: &str| {
        let pattern = pattern.as_str().unwrap();
        pattern.strip_suffix('*').map_or(pattern == text, |begin| text.starts_with(begin))
    };
    let any = |value: &Value, text: &str| match value {
        Value::Array(patterns) => patterns.iter().any(|pattern| fits(pattern, text)),
        one => fits(one, text),
    };
    let policy: Value = serde_json::from_str(policy).unwrap();
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        let condition = statement.get("Condition").map(|condition| &condition["StringLike"]["s3:prefix"]);
        any(&statement["Action"], action)
            && any(&statement["Resource"], resource)
            && condition.is_none_or(|patterns| prefix.is_some_and(|prefix| any(patterns, prefix)))
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9._-]{0,6}"
}

proptest! {
    /// In a small world of names all keys around the granted ones are tried.
    #[test]
    fn no_grant_allows_more_than_it_says(
        folder in "[a-z]{0,2}(/[a-z]{1,2})?", names in prop::collection::vec(name(), 3), key in "[a-zA-Z0-9._/-]{0,12}", one: bool,
    ) {
        let folder = folder.trim_matches('/').to_owned();
        let [cluster, snapshot_id, name] = names.try_into().unwrap();
        let at = |key: &str| if folder.is_empty() { key.to_owned() } else { format!("{folder}/{key}") };
        let scope = match one {
            true => Scope::Snapshot { cluster: cluster.clone(), snapshot_id: snapshot_id.clone(), name: name.clone() },
            false => Scope::Cluster { cluster: cluster.clone() },
        };
        let policy = add(None, &Grant { prefix: folder.clone(), scope, ..grant("g1", "x") }).unwrap();
        let folders = match one {
            true => vec![at(&format!("_names/{name}/")), at(&format!("{cluster}/{snapshot_id}/"))],
            false => vec![at(&format!("{cluster}/"))],
        };
        let marker = at("backupd-repository.json");
        let mut keys = vec![key.clone(), at(&key), marker.clone(), format!("{marker}x"), String::new()];
        for folder in &folders {
            keys.extend([format!("{folder}{key}"), folder.trim_end_matches('/').to_owned() + &key, format!("{key}{folder}")]);
        }
        for key in keys {
            let inside = folders.iter().any(|folder| key.starts_with(folder));
            let object = format!("arn:aws:s3:::backups/{key}");
            prop_assert_eq!(allows(&policy, "s3:GetObject", &object, None), inside || key == marker, "{}", key);
            prop_assert_eq!(allows(&policy, "s3:ListBucket", "arn:aws:s3:::backups", Some(&key)), inside, "{}", key);
            for action in ["s3:PutObject", "s3:DeleteObject", "s3:GetBucketPolicy", "s3:ListBucketVersions"] {
                prop_assert!(!allows(&policy, action, &object, None));
            }
            let elsewhere = format!("arn:aws:s3:::backups2/{key}");
            prop_assert!(!allows(&policy, "s3:GetObject", &elsewhere, None));
        }
        prop_assert!(!allows(&policy, "s3:ListBucket", "arn:aws:s3:::backups", None), "not without a prefix");
    }

    /// Grants are added and revoked in any order; in the end the policy is what it was, and in between others' statements are.
    #[test]
    fn grants_in_any_order_end_where_they_began(
        count in 1_usize..6, order in prop::collection::vec(any::<prop::sample::Index>(), 12), foreign: bool,
    ) {
        let begin = foreign.then(|| FOREIGN.to_owned());
        let (mut policy, mut to_add, mut to_revoke) = (begin.clone(), (0..count).collect::<Vec<_>>(), Vec::new());
        for index in order.iter().cycle() {
            let total = to_add.len() + to_revoke.len();
            if total == 0 {
                break;
            }
            let index = index.index(total);
            if index < to_add.len() {
                let number = to_add.remove(index);
                policy = Some(add(policy.as_deref(), &grant(&format!("g{number}"), "monday")).unwrap());
                to_revoke.push(number);
            } else {
                let number = to_revoke.remove(index - to_add.len());
                policy = revoke(policy.as_deref().unwrap(), &format!("g{number}")).unwrap();
            }
            if foreign {
                let text = policy.as_deref().unwrap();
                let ours = list(text).unwrap().iter().fold(text.to_owned(), |text, stated| text.replacen(&format!(",{}", stated.text), "", 1));
                prop_assert_eq!(ours, FOREIGN);
            }
        }
        prop_assert_eq!(policy, begin);
    }

    #[test]
    fn no_policy_panics(text in "\\PC{0,60}", inner in "[\\[\\]{},\":a-z0-9 ]{0,30}") {
        for text in [text, format!("{{\"Statement\":{inner}}}"), format!("{{\"Statement\":[{inner}]}}")] {
            let _either = (add(Some(&text), &grant("g1", "monday")), revoke(&text, "g1"), list(&text));
            let stated = Stated { grant_id: "g1".to_owned(), text };
            let _either = (stated.scope("backups", "redis"), stated.principal());
        }
    }
}
