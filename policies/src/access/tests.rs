use super::*;

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn principal(role: Role) -> Principal {
    Principal { name: "token:t".to_owned(), role, scope: Scope::default(), expires_unix_ms: Some(1_000) }
}

#[test]
fn a_role_may_what_weaker_ones_may_and_no_more() {
    for action in Action::ALL {
        for role in Role::ALL {
            let decision = decide(&principal(role), action, Resource::Service, 0);
            let expected =
                if role >= action.least_role() { Decision::Allowed } else { Decision::Role(action.least_role()) };
            assert_eq!(decision, expected, "{role} {action:?}");
        }
    }
}

#[test]
fn what_takes_away_or_opens_data_is_for_admins() {
    for action in [
        Action::DeleteSnapshot,
        Action::ReleaseSnapshot,
        Action::ExportSnapshot,
        Action::RemoveCluster,
        Action::AddGrant,
        Action::RevokeGrant,
    ] {
        assert_eq!(action.least_role(), Role::Admin, "{action:?}");
    }
    assert!(Action::ALL.into_iter().all(|action| action.changes() == (action.least_role() != Role::Reader)));
}

#[test]
fn nothing_is_allowed_from_the_moment_of_expiry_on() {
    assert!(decide(&principal(Role::Admin), Action::Describe, Resource::Service, 999).is_allowed());
    assert_eq!(decide(&principal(Role::Admin), Action::Describe, Resource::Service, 1_000), Decision::Expired);
}

#[test]
fn a_scope_hides_other_clusters_and_other_tags() {
    let mut who = principal(Role::Admin);
    who.scope.clusters = vec!["orders".to_owned(), "shop-*".to_owned()];
    who.scope.tags = tags(&[("team", "shop")]);
    let (right, wrong) = (tags(&[("team", "shop"), ("x", "y")]), tags(&[("team", "other")]));
    for (cluster, tags, expected) in [
        ("orders", &right, Decision::Allowed),
        ("shop-eu", &right, Decision::Allowed),
        ("orders2", &right, Decision::Cluster),
        ("shop", &right, Decision::Cluster),
        ("orders", &wrong, Decision::Tags),
        ("orders", &BTreeMap::new(), Decision::Tags),
    ] {
        let decision = decide(&who, Action::ReadSnapshots, Resource::Of { cluster, tags }, 0);
        assert_eq!(decision, expected, "{cluster} {tags:?}");
        assert_eq!(decision.hides(), !decision.is_allowed());
    }
    assert_eq!(decide(&who, Action::ReadJobs, Resource::Unknown, 0), Decision::Cluster);
    assert!(decide(&principal(Role::Reader), Action::ReadJobs, Resource::Unknown, 0).is_allowed());
}

#[test]
fn actions_can_be_read_again() {
    assert!(Action::ALL.into_iter().all(|action| Action::of(action.as_str()) == Some(action)));
    assert_eq!(Action::of("snapshot.eat"), None);
}
