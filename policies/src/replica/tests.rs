use proptest::prelude::*;

use super::*;

fn node(id: &str, primary: bool) -> Candidate {
    Candidate { id: id.to_owned(), primary, link_up: true, save_is_harmless: Some(true), ..Candidate::default() }
}

fn wishes(primary_use: PrimaryUse) -> Wishes {
    Wishes { primary_use, ..Wishes::default() }
}

fn chosen(candidates: &[Candidate], wishes: &Wishes) -> Option<String> {
    let choice = choose(candidates, wishes);
    choice.chosen.map(|index| candidates[index].id.clone())
}

#[test]
fn the_most_up_to_date_healthy_replica_wins() {
    let late = Candidate { lag_bytes: 900, ..node("late", false) };
    let down = Candidate { link_up: false, ..node("down", false) };
    let busy = Candidate { syncing: true, ..node("busy", false) };
    let near = Candidate { lag_bytes: 3, ..node("near", false) };
    let all = [node("primary", true), late, down, busy, near];
    assert_eq!(chosen(&all, &Wishes::default()).as_deref(), Some("near"));
    assert_eq!(chosen(&all, &wishes(PrimaryUse::Prefer)).as_deref(), Some("primary"));
}

#[test]
fn each_ailment_is_told_and_gives_way_to_a_worse_but_healthy_replica() {
    let far = Candidate { lag_bytes: u64::MAX, child_running: true, failures: 1, ..node("far", false) };
    let memory = Memory { resident: 950, system: 1000, last_copied: 10, strict: None };
    for (ill, words) in [
        (Candidate { unreachable: Some("refused".to_owned()), ..node("ill", false) }, "unreachable: refused"),
        (Candidate { loading: true, ..node("ill", false) }, "loading"),
        (Candidate { syncing: true, ..node("ill", false) }, "full synchronisation"),
        (Candidate { link_up: false, ..node("ill", false) }, "link"),
        (Candidate { same_history: Some(false), ..node("ill", false) }, "history"),
        (Candidate { silence_seconds: 61, ..node("ill", false) }, "61 s"),
        (Candidate { failures: FAILURES_MAX, ..node("ill", false) }, "failed too often"),
        (Candidate { memory, ..node("ill", false) }, "no memory"),
    ] {
        let choice = choose(&[ill, far.clone()], &Wishes::default());
        assert_eq!(choice.chosen, Some(1), "{choice}");
        assert!(choice.verdicts[0].reason.contains(words), "{choice}");
    }
}

#[test]
fn between_replicas_that_are_level_wishes_decide_and_then_the_position() {
    let wish = Wishes { zone: Some("b".to_owned()), ..Wishes::default() };
    let zone = |id: &str, zone: &str, lag_bytes| Candidate {
        zone: Some(zone.to_owned()),
        lag_bytes,
        priority: 100,
        ..node(id, false)
    };
    let level = [zone("near", "a", 0), zone("far", "b", LEVEL_BYTES - 1)];
    assert_eq!(chosen(&level, &wish).as_deref(), Some("far"));
    assert_eq!(chosen(&level, &Wishes::default()).as_deref(), Some("near"));
    let behind = [zone("near", "a", 0), zone("far", "b", LEVEL_BYTES)];
    assert_eq!(chosen(&behind, &wish).as_deref(), Some("near"), "a zone is no reason for old data");
    let never = Candidate { priority: 0, ..zone("never", "a", 9) };
    let last = Candidate { priority: 200, ..zone("last", "a", 8) };
    assert_eq!(chosen(&[never.clone(), last.clone(), level[0].clone()], &Wishes::default()).as_deref(), Some("never"));
    assert_eq!(chosen(&[last, level[0].clone()], &Wishes::default()).as_deref(), Some("last"));
    let saving = Candidate { child_running: true, ..node("saving", false) };
    assert_eq!(chosen(&[saving, never], &Wishes::default()).as_deref(), Some("never"));
}

#[test]
fn a_clock_that_differs_is_told_of_and_decides_nothing() {
    let ahead = |id: &str, ahead| Candidate { clock_ahead_ms: ahead, ..node(id, false) };
    let choice = choose(&[ahead("a", Some(-60_000)), ahead("b", Some(5_000)), ahead("c", None)], &Wishes::default());
    assert_eq!(choice.chosen, Some(0), "{choice}");
    let told: Vec<bool> = choice.verdicts.iter().map(|verdict| verdict.reason.contains("clock")).collect();
    assert_eq!(told, [true, false, false], "{choice}");
    assert!(choice.verdicts[0].reason.ends_with("; its clock is 60.0 s behind ours"), "{choice}");
}

#[test]
fn what_failed_is_tried_after_the_others_and_an_allowed_primary_last() {
    let failed = |id: &str, failures| Candidate { failures, ..node(id, false) };
    let all = |a, b| [node("primary", true), failed("a", a), failed("b", b)];
    let fallback = wishes(PrimaryUse::Fallback);
    assert_eq!(chosen(&all(1, 0), &fallback).as_deref(), Some("b"));
    assert_eq!(chosen(&all(1, 2), &fallback).as_deref(), Some("a"), "a primary is not risked while a replica is left");
    assert_eq!(chosen(&all(2, 2), &fallback).as_deref(), Some("primary"));
    let mut tried = all(0, 1);
    tried[0].failures = 1;
    assert_eq!(chosen(&tried, &wishes(PrimaryUse::Prefer)).as_deref(), Some("a"));
}

#[test]
fn a_primary_is_never_risked_without_being_asked() {
    let down = Candidate { link_up: false, ..node("down", false) };
    let with_replica = [node("primary", true), down];
    let choice = choose(&with_replica, &Wishes::default());
    assert!(choice.chosen.is_none() && choice.forbidden);
    assert!(choice.verdicts[0].reason.contains("`--primary fallback`"), "{choice}");
    assert_eq!(chosen(&with_replica, &wishes(PrimaryUse::Fallback)).as_deref(), Some("primary"));
    for (harmless, expected) in [(Some(true), Some("alone")), (Some(false), None), (None, None)] {
        let alone = [Candidate { save_is_harmless: harmless, ..node("alone", true) }];
        assert_eq!(chosen(&alone, &Wishes::default()).as_deref(), expected);
        assert_eq!(chosen(&alone, &wishes(PrimaryUse::Never)), None);
        assert_eq!(chosen(&alone, &wishes(PrimaryUse::Fallback)).as_deref(), Some("alone"));
    }
}

#[test]
fn a_named_node_is_used_or_refused_with_its_reason() {
    let nodes = [node("primary", true), node("a", false), Candidate { loading: true, ..node("b", false) }];
    let named = |id: &str| Wishes { node: Some(id.to_owned()), ..Wishes::default() };
    assert_eq!(choose(&nodes, &named("a")).chosen, Some(1));
    let choice = choose(&nodes, &named("b"));
    assert_eq!(choice.chosen, None);
    assert!(choice.verdicts[2].reason.contains("loading"));
}

#[test]
fn memory_for_a_child_is_judged_by_what_the_last_one_needed_and_by_strictness() {
    let memory = |resident, last_copied, strict| Memory { resident, system: 1000, last_copied, strict };
    assert_eq!(memory(900, 0, None).lacks_room(), None);
    assert!(memory(910, 0, None).lacks_room().is_some());
    assert!(memory(600, 500, Some(false)).lacks_room().is_some());
    assert!(memory(600, 0, Some(true)).lacks_room().unwrap().contains("overcommit"));
    assert_eq!(memory(500, 0, Some(true)).lacks_room(), None);
    assert_eq!(Memory { system: 0, ..memory(910, 910, Some(true)) }.lacks_room(), None, "unknown is no reason");
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let states = (any::<[bool; 5]>(), 0..3_u32, prop::option::weighted(0.8, any::<bool>()));
    let places = (0..3 * LEVEL_BYTES, 0..90_u64, prop::option::of("[ab]"), 0..3_u64);
    let memory = (0..1000_u64, 0..200_u64, prop::option::of(any::<bool>()));
    (states, places, memory, prop::option::weighted(0.2, Just("away".to_owned()))).prop_map(
        |(([link_down, syncing, loading, child_running, primary], failures, known), place, memory, unreachable)| {
            let (lag_bytes, silence_seconds, zone, priority) = place;
            let (resident, last_copied, strict) = memory;
            Candidate {
                id: String::new(),
                primary,
                unreachable,
                link_up: !link_down,
                syncing,
                loading,
                child_running,
                lag_bytes,
                silence_seconds,
                same_history: known,
                memory: Memory { resident, system: 1000, last_copied, strict },
                priority,
                zone,
                failures,
                save_is_harmless: known,
                clock_ahead_ms: None,
            }
        },
    )
}

/// A shard: several nodes with ids of their own, at most one of them a primary.
fn shard() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(candidate(), 1..6).prop_map(|mut nodes| {
        let primary = nodes.iter().position(|node| node.primary);
        for (index, node) in nodes.iter_mut().enumerate() {
            node.id = format!("n{index}");
            node.primary = Some(index) == primary;
        }
        nodes
    })
}

fn any_wishes() -> impl Strategy<Value = Wishes> {
    let uses = [PrimaryUse::OnlyHarmless, PrimaryUse::Fallback, PrimaryUse::Prefer, PrimaryUse::Never];
    (prop::sample::select(uses.to_vec()), prop::option::weighted(0.2, "n[0-5]"), prop::option::of("[ab]"))
        .prop_map(|(primary_use, node, zone)| Wishes { primary_use, node, zone })
}

proptest! {
    #[test]
    fn the_order_of_the_candidates_changes_nothing(
        (nodes, shuffled) in shard().prop_flat_map(|nodes| (Just(nodes.clone()), Just(nodes).prop_shuffle())),
        wishes in any_wishes(),
    ) {
        prop_assert_eq!(chosen(&nodes, &wishes), chosen(&shuffled, &wishes));
        let reasons = |nodes: &[Candidate]| {
            let mut verdicts = choose(nodes, &wishes).verdicts;
            verdicts.sort_by(|a, b| a.id.cmp(&b.id));
            verdicts
        };
        prop_assert_eq!(reasons(&nodes), reasons(&shuffled));
    }

    #[test]
    fn a_chosen_node_is_healthy_and_allowed(nodes in shard(), wishes in any_wishes()) {
        let choice = choose(&nodes, &wishes);
        let marked = choice.verdicts.iter().filter(|verdict| verdict.chosen).count();
        prop_assert_eq!(marked, usize::from(choice.chosen.is_some()));
        prop_assert!(choice.verdicts.iter().all(|verdict| !verdict.reason.is_empty()));
        let Some(index) = choice.chosen else { return Ok(()) };
        let node = &nodes[index];
        prop_assert!(node.unreachable.is_none() && !node.loading && node.failures < FAILURES_MAX);
        prop_assert!(node.memory.resident + node.memory.last_copied <= node.memory.system);
        prop_assert!(wishes.node.as_ref().is_none_or(|named| *named == node.id));
        if node.primary {
            prop_assert!(wishes.primary_use != PrimaryUse::Never);
            let asked = wishes.primary_use != PrimaryUse::OnlyHarmless;
            prop_assert!(asked || (nodes.len() == 1 && node.save_is_harmless == Some(true)));
        } else {
            prop_assert!(node.link_up && !node.syncing && node.same_history != Some(false));
            prop_assert!(node.silence_seconds <= SILENCE_SECONDS_MAX);
        }
    }
}
