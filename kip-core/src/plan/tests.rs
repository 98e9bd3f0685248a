use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::ids::{ClusterUid, LaunchToken, NodeName, OfferingId, PodRef, Zone};
use crate::model::{CapacityType, CellPhase, Price, Replaced};
use crate::provider::tags;

const START: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn offering() -> OfferingId {
    OfferingId {
        instance_type: crate::ids::InstanceType::new("small"),
        zone: Zone::new("z1"),
        capacity_type: CapacityType::OnDemand,
    }
}

fn uid(n: u32) -> PodUid {
    PodUid::new(format!("pod-{n}"))
}

fn attempt_token(n: u32, attempt: u32) -> LaunchToken {
    let (cluster, node) = (ClusterUid::new("ours"), NodeName::new("kip"));
    LaunchToken::derive(&cluster, &node, &uid(n), attempt, &offering())
}

fn token(n: u32) -> LaunchToken {
    attempt_token(n, 1)
}

fn name(n: u32) -> CellName {
    CellName::of_pod(&uid(n))
}

fn id(n: u32) -> InstanceId {
    InstanceId::new(format!("i-{n}"))
}

fn instance(n: u32) -> Instance {
    let mut instance = Instance::new(
        InstanceId::new(format!("i-{n}")),
        format!("fake:///i-{n}"),
        offering(),
        at(-3600),
    );
    instance.phase = InstancePhase::Running;
    instance.token = Some(token(n));
    instance.tags.insert(tags::CLUSTER.into(), "ours".into());
    instance.tags.insert(tags::NODE.into(), "kip".into());
    instance.tags.insert(tags::POD_UID.into(), format!("pod-{n}"));
    instance.tags.insert(tags::ATTEMPT.into(), "1".into());
    instance.tags.insert(tags::TOKEN.into(), token(n).to_string());
    instance
}

/// The record of a later attempt, in the place of the first, as a newer controller wrote it.
fn newer(n: u32, attempt: u32) -> CellRecord {
    let mut newer = record(n);
    newer.attempt = attempt;
    newer.token = attempt_token(n, attempt);
    newer.instance = Some(again(n, attempt).id);
    newer.version = "2".into();
    newer
}

/// What is proved ours, of a later attempt for the same pod.
fn again(n: u32, attempt: u32) -> Instance {
    let mut instance = instance(n);
    instance.id = InstanceId::new(format!("i-{n}-{attempt}"));
    let token = attempt_token(n, attempt);
    instance.tags.insert(tags::ATTEMPT.into(), attempt.to_string());
    instance.tags.insert(tags::TOKEN.into(), token.to_string());
    instance.token = Some(token);
    instance
}

fn pod(n: u32) -> PodRef {
    PodRef {
        uid: uid(n),
        namespace: "default".into(),
        name: format!("pod-{n}"),
    }
}

fn record(n: u32) -> CellRecord {
    let mut record = CellRecord::intent(
        pod(n),
        NodeName::new("kip"),
        ClusterUid::new("ours"),
        1,
        token(n),
        offering(),
        Price(1),
        at(-3600),
    );
    record.phase = CellPhase::Booting;
    record.instance = Some(id(n));
    record.version = "1".into();
    record
}

fn world(instances: Vec<Instance>, cells: Vec<CellRecord>, pods: &[u32]) -> World {
    World {
        synced: true,
        instances: Some(instances),
        stored: Some(cells.into_iter().map(StoredCell::judge).collect()),
        pods: Some(pods.iter().map(|n| PodUid::new(format!("pod-{n}"))).collect()),
        ..World::new(ClusterUid::new("ours"), NodeName::new("kip"))
    }
}

fn sound(world: &World) -> impl Iterator<Item = &CellRecord> {
    world.stored.iter().flatten().filter_map(|stored| match stored {
        StoredCell::Sound(record) => Some(record),
        StoredCell::Damaged(_) => None,
    })
}

/// What a machine remembers that stored this record.
fn known(record: &CellRecord) -> KnownCell {
    KnownCell {
        pod: record.pod.uid.clone(),
        record: Some(Arc::new(record.clone())),
        version: record.version.clone(),
    }
}

/// Sweeps the same world again and again, a minute apart; the actions of each sweep.
fn sweeps(world: &World, count: usize) -> Vec<Vec<PlanAction>> {
    let mut world = world.clone();
    (0..count)
        .map(|i| {
            let plan = plan(
                &world,
                &Policy::default(),
                at(60 * i64::try_from(i).expect("small")),
            );
            world.suspects = plan.suspects;
            plan.actions
        })
        .collect()
}

#[test]
fn when_everything_belongs_together_nothing_is_touched() {
    let world = world(vec![instance(1)], vec![record(1)], &[1]);
    assert_eq!(sweeps(&world, 5), vec![Vec::new(); 5]);
}

#[test]
fn an_instance_nobody_remembers_is_terminated_at_the_second_sweep_or_it_costs_money_for_ever() {
    let world = world(vec![instance(1), instance(2)], vec![record(1)], &[1]);
    let seen = sweeps(&world, 2);
    assert_eq!(seen[0], []);
    assert_eq!(
        seen[1],
        [PlanAction::TerminateInstance {
            instance: id(2),
            pod: uid(2),
        }]
    );
}

#[test]
fn an_instance_is_left_alone_unless_it_is_ours_old_and_alive() {
    type Change = fn(&mut Instance);
    let changes: [(&str, Change); 6] = [
        ("another cluster", |i| {
            i.tags.insert(tags::CLUSTER.into(), "theirs".into());
        }),
        ("another node", |i| {
            i.tags.insert(tags::NODE.into(), "kip-2".into());
        }),
        ("no cluster tag", |i| {
            i.tags.remove(tags::CLUSTER);
        }),
        ("no node tag", |i| {
            i.tags.remove(tags::NODE);
        }),
        ("leaving already", |i| i.phase = InstancePhase::Terminating),
        ("young", |i| i.launched_at = at(170)),
    ];
    for (why, change) in changes {
        let mut stray = instance(2);
        change(&mut stray);
        let world = world(vec![instance(1), stray], vec![record(1)], &[1]);
        assert_eq!(sweeps(&world, 5).concat(), [], "{why}");
    }
}

#[test]
fn a_second_instance_of_one_token_is_left_over_or_a_pod_would_run_twice() {
    let mut twin = instance(1);
    twin.id = InstanceId::new("i-twin");
    let world = world(vec![instance(1), twin], vec![record(1)], &[1]);
    assert_eq!(
        sweeps(&world, 2)[1],
        [PlanAction::TerminateInstance {
            instance: InstanceId::new("i-twin"),
            pod: uid(1),
        }]
    );
}

#[test]
fn a_launch_whose_answer_was_lost_keeps_its_instance() {
    let mut launching = record(1);
    launching.instance = None;
    launching.phase = CellPhase::Launching;
    // The token may be known to the provider, or only be in the tags.
    let mut by_tag = instance(1);
    by_tag.token = None;
    by_tag.tags.insert(tags::TOKEN.into(), token(1).to_string());
    for found in [instance(1), by_tag] {
        let world = world(vec![found], vec![launching.clone()], &[1]);
        assert_eq!(sweeps(&world, 5).concat(), []);
    }
}

#[test]
fn a_record_whose_pod_is_gone_is_retired_or_its_instance_runs_for_nobody() {
    let world = world(vec![instance(1), instance(2)], vec![record(1), record(2)], &[1]);
    let seen = sweeps(&world, 2);
    assert_eq!(seen[0], []);
    assert_eq!(
        seen[1],
        [PlanAction::RetireRecord {
            cell: name(2),
            pod: pod(2),
        }]
    );
}

#[test]
fn a_record_whose_instance_is_not_listed_is_asked_about_never_forgotten() {
    let world = world(vec![instance(1)], vec![record(1), record(2)], &[1, 2]);
    assert_eq!(
        sweeps(&world, 2)[1],
        [PlanAction::VerifyInstance {
            cell: name(2),
            pod: uid(2),
            instance: id(2),
        }]
    );
}

#[test]
fn records_of_another_node_are_not_ours_to_judge() {
    let mut other = record(2);
    other.node = NodeName::new("kip-2");
    other.token = LaunchToken::derive(&other.cluster, &other.node, &uid(2), 1, &offering());
    let world = world(vec![instance(1)], vec![record(1), other], &[1]);
    assert_eq!(sweeps(&world, 5).concat(), []);
}

#[test]
fn nothing_is_concluded_before_everything_was_read_or_a_restart_would_kill_every_pod() {
    let mut world = world(vec![instance(1)], vec![], &[]);
    world.synced = false;
    assert_eq!(sweeps(&world, 20).concat(), []);
}

#[test]
fn nothing_is_concluded_from_a_listing_that_failed() {
    for failed in ["instances", "cells", "pods"] {
        let mut world = world(
            vec![instance(1), instance(2)],
            vec![record(1), record(3)],
            &[1, 3],
        );
        let expected = match failed {
            "instances" => {
                world.instances = None;
                vec![]
            }
            "cells" => {
                world.stored = None;
                vec![]
            }
            _ => {
                world.pods = None;
                sweeps(&world, 2).remove(1) // the pods play no part in the two others
            }
        };
        let seen = sweeps(&world, 9);
        assert!(
            seen.iter().skip(1).all(|actions| *actions == expected),
            "{failed}: {seen:?}"
        );
        assert!(
            !seen
                .concat()
                .iter()
                .any(|a| matches!(a, PlanAction::RetireRecord { .. })),
            "{failed}"
        );
    }
}

#[test]
fn an_empty_listing_is_believed_only_after_more_sweeps_or_one_bad_answer_kills_every_pod() {
    let policy = Policy::default();
    for world in [
        world(vec![instance(1)], vec![record(1)], &[]),
        world(vec![instance(1)], vec![], &[1]),
    ] {
        let seen = sweeps(&world, 5);
        assert!(seen[..4].concat().is_empty(), "{seen:?}");
        assert_eq!(seen[4].len(), 1, "after {} sweeps", policy.sweeps_when_empty);
    }
}

#[test]
fn a_failed_listing_between_two_sweeps_neither_confirms_nor_forgets() {
    let good = world(vec![instance(1), instance(2)], vec![record(1)], &[1]);
    let policy = Policy::default();
    let first = plan(&good, &policy, at(0));
    let mut failed = good.clone();
    failed.instances = None;
    failed.suspects = first.suspects;
    let second = plan(&failed, &policy, at(60));
    assert_eq!(second.actions, []);
    let mut third = good;
    third.suspects = second.suspects;
    assert_eq!(plan(&third, &policy, at(120)).actions.len(), 1);
}

#[test]
fn two_sweeps_in_one_breath_are_not_two_opinions() {
    let mut world = world(vec![instance(1), instance(2)], vec![record(1)], &[1]);
    let policy = Policy::default();
    for second in [0, 1, 2, 3] {
        let plan = plan(&world, &policy, at(second));
        assert_eq!(plan.actions, [], "after {second} s");
        world.suspects = plan.suspects;
    }
    assert_eq!(plan(&world, &policy, at(10)).actions.len(), 1);
}

#[test]
fn what_turns_up_again_is_no_longer_suspected() {
    let missing = world(vec![instance(1), instance(2)], vec![record(1)], &[1, 2]);
    let policy = Policy::default();
    let first = plan(&missing, &policy, at(0));
    assert_eq!(first.suspects.len(), 1);
    let mut found = world(
        vec![instance(1), instance(2)],
        vec![record(1), record(2)],
        &[1, 2],
    );
    found.suspects = first.suspects;
    let second = plan(&found, &policy, at(60));
    assert!(second.suspects.is_empty());
    let mut missing = missing;
    missing.suspects = second.suspects;
    assert_eq!(plan(&missing, &policy, at(120)).actions, []);
}

#[test]
fn dry_run_says_what_it_would_do_and_does_nothing() {
    let mut world = world(vec![instance(1), instance(2)], vec![record(1)], &[1]);
    let policy = Policy::default().with_dry_run(true);
    world.suspects = plan(&world, &policy, at(0)).suspects;
    let plan = plan(&world, &policy, at(60));
    assert_eq!(plan.actions, []);
    assert_eq!(plan.withheld.len(), 1);
}

#[test]
fn what_a_newer_controller_launched_is_claimed_by_its_record_whatever_a_stale_one_remembers() {
    let stale = record(1);
    let mut world = world(vec![instance(1), again(1, 2)], vec![newer(1, 2)], &[1]);
    world.known = vec![known(&stale)];
    let seen = sweeps(&world, 5);
    assert_eq!(seen[0], []);
    let resync = PlanAction::Resync {
        cell: name(1),
        pod: uid(1),
    };
    assert_eq!(
        seen[1],
        [resync],
        "nothing dies, and the stale one learns that it is"
    );
}

#[test]
fn an_interrupted_instance_still_draining_is_claimed_by_the_attempt_that_replaces_it() {
    let mut newer = newer(1, 2);
    newer.replaces = Some(Replaced {
        attempt: 1,
        token: token(1),
        instance: id(1),
        address: None,
    });
    let world = world(vec![instance(1), again(1, 2)], vec![newer], &[1]);
    assert_eq!(sweeps(&world, 5).concat(), []);
}

#[test]
fn what_only_looks_like_ours_is_reported_and_never_touched_or_somebody_elses_machine_dies() {
    type Change = fn(&mut Instance);
    let changes: [(&str, Change); 6] = [
        ("no pod", |i| {
            i.tags.remove(tags::POD_UID);
        }),
        ("no attempt", |i| {
            i.tags.remove(tags::ATTEMPT);
        }),
        ("an attempt that is no number", |i| {
            i.tags.insert(tags::ATTEMPT.into(), "first".into());
        }),
        ("no token", |i| {
            i.tags.remove(tags::TOKEN);
            i.token = None;
        }),
        ("a token of another pod", |i| {
            i.tags.insert(tags::POD_UID.into(), "pod-9".into());
        }),
        ("another offering", |i| i.offering.zone = Zone::new("z2")),
    ];
    for (why, change) in changes {
        let mut stray = instance(2);
        change(&mut stray);
        let world = world(vec![instance(1), stray], vec![record(1)], &[1]);
        assert_eq!(sweeps(&world, 9).concat(), [], "{why}");
        let foreign = plan(&world, &Policy::default(), at(0)).foreign;
        assert_eq!(foreign.len(), 1, "{why}");
        assert_eq!(foreign[0].instance, id(2), "{why}");
    }
}

fn damaged(record: &CellRecord) -> StoredCell {
    StoredCell::Damaged(DamagedCell::of(record, "it does not match its seal"))
}

#[test]
fn a_damaged_record_claims_what_it_names_and_all_that_was_launched_for_its_pod() {
    let mut edited = record(1);
    edited.instance = Some(id(7));
    edited.pod.uid = uid(8); // The name still says whose it was.
    let mut world = world(
        vec![instance(1), again(1, 2), instance(7), instance(8)],
        vec![],
        &[1],
    );
    world.stored = Some(vec![damaged(&edited)]);
    let policy = Policy::default();
    assert_eq!(sweeps(&world, 9).concat(), []);
    let plan = plan(&world, &policy, at(0));
    assert_eq!(plan.damaged.len(), 1, "and it is reported");
}

#[test]
fn a_record_removed_or_changed_by_hand_is_restored_by_the_machine_that_stored_it() {
    let (kept, removed, edited) = (record(1), record(2), record(3));
    let mut world = world(
        vec![instance(1), instance(2), instance(3)],
        vec![kept.clone()],
        &[1, 2, 3],
    );
    world.stored.get_or_insert_default().push(damaged(&edited));
    world.known = vec![known(&kept), known(&removed), known(&edited)];
    let seen = sweeps(&world, 2);
    assert_eq!(seen[0], []);
    let mut restored: Vec<CellName> = [name(2), name(3)].into();
    let mut found: Vec<CellName> = seen[1]
        .iter()
        .map(|action| match action {
            PlanAction::RestoreRecord { cell, .. } => cell.clone(),
            other => panic!("{other}"),
        })
        .collect();
    restored.sort();
    found.sort();
    assert_eq!(found, restored);
    let dry = Policy::default().with_dry_run(true);
    world.suspects = plan(&world, &dry, at(0)).suspects;
    let plan = plan(&world, &dry, at(60));
    assert_eq!((plan.actions.len(), plan.withheld.len()), (0, 2));
}

#[test]
fn a_record_that_was_never_stored_is_not_missed() {
    let mut launching = record(1);
    launching.version.clear();
    let mut world = world(vec![instance(1)], vec![], &[1]);
    world.known = vec![known(&launching)];
    assert_eq!(sweeps(&world, 9).concat(), [], "and what it names is claimed");
}

fn some_world() -> impl Strategy<Value = World> {
    let instances = proptest::collection::vec((0..8u32, 0..7u8, 0..4000i64), 0..8);
    let cells = proptest::collection::vec((0..8u32, any::<bool>(), 0..4000i64), 0..8);
    let pods = proptest::collection::btree_set(0..8u32, 0..8);
    let known = (any::<bool>(), 0..8u8);
    (instances, cells, pods, known).prop_map(|(instances, cells, pods, (synced, failed))| {
        let instances = instances
            .into_iter()
            .map(|(n, kind, age)| {
                let mut i = instance(n);
                i.launched_at = at(-age);
                match kind {
                    0 => {
                        i.tags.insert(tags::CLUSTER.into(), "theirs".into());
                    }
                    1 => {
                        i.tags.remove(tags::NODE);
                    }
                    2 => i.phase = InstancePhase::Terminating,
                    3 => {
                        i.tags.insert(tags::TOKEN.into(), "forged".into());
                    }
                    _ => {}
                }
                i
            })
            .collect();
        let mut seen = BTreeSet::new();
        let cells = cells
            .into_iter()
            .filter(|(n, ..)| seen.insert(*n))
            .map(|(n, launched, age)| {
                let mut c = record(n);
                c.issued_at = at(-age);
                if !launched {
                    c.instance = None;
                    c.phase = CellPhase::Launching;
                }
                c
            })
            .collect();
        let pods: Vec<u32> = pods.into_iter().collect();
        let mut world = world(instances, cells, &pods);
        world.synced = synced;
        if failed & 1 != 0 {
            world.instances = None;
        }
        if failed & 2 != 0 {
            world.stored = None;
        }
        if failed & 4 != 0 {
            world.pods = None;
        }
        world
    })
}

proptest! {
    /// Whatever the sweeps show, an instance dies only if it is ours, old enough, unclaimed, and was so at least twice in
    /// complete listings; a record is retired only if its pod was missing. Otherwise a user loses a running pod.
    #[test]
    fn nothing_is_destroyed_without_two_complete_opinions(worlds in proptest::collection::vec(some_world(), 1..8)) {
        let policy = Policy::default();
        let mut suspects = Suspects::default();
        let mut opinions: BTreeMap<PlanAction, u32> = BTreeMap::new();
        for (i, mut world) in worlds.into_iter().enumerate() {
            let now = at(60 * i64::try_from(i).expect("small"));
            world.suspects = suspects;
            let plan = plan(&world, &policy, now);
            if !world.synced {
                prop_assert!(plan.actions.is_empty() && plan.suspects.is_empty());
                opinions.clear();
            }
            for action in &plan.actions {
                match action {
                    PlanAction::TerminateInstance { instance, .. } => {
                        let listed: Vec<_> = world.instances.iter().flatten().filter(|i| i.id == *instance).collect();
                        prop_assert!(!listed.is_empty());
                        prop_assert!(listed.iter().any(|i| i.tags.get(tags::CLUSTER).map(String::as_str) == Some("ours")
                            && i.tags.contains_key(tags::NODE)
                            && i.phase == InstancePhase::Running
                            && i.tags.get(tags::TOKEN).map(String::as_str) != Some("forged")
                            && elapsed(i.launched_at, now) >= policy.grace));
                        prop_assert!(world.stored.is_some(), "records were read");
                        prop_assert!(!sound(&world).any(|c| c.instance.as_ref() == Some(instance)));
                    }
                    PlanAction::RetireRecord { pod, .. } => {
                        prop_assert!(!world.pods.as_ref().expect("pods were read").contains(&pod.uid));
                    }
                    PlanAction::VerifyInstance { instance, .. } => {
                        prop_assert!(!world.instances.iter().flatten().any(|i| i.id == *instance));
                    }
                    PlanAction::RestoreRecord { .. } | PlanAction::Resync { .. } => {
                        prop_assert!(world.stored.is_some(), "records were read");
                    }
                }
                prop_assert!(opinions.get(action).copied().unwrap_or(0) >= 1, "first opinion acted on: {action}");
            }
            // An opinion of this sweep: what a policy that believes everything at once would do.
            let mut hasty = policy.clone().with_confirm_after(Duration::ZERO);
            hasty.sweeps = 1;
            hasty.sweeps_when_empty = 1;
            world.suspects = Suspects::default();
            for action in super::plan(&world, &hasty, now).actions {
                *opinions.entry(action).or_default() += 1;
            }
            suspects = plan.suspects;
        }
    }

    /// Once faults stop, everything left over is named: no orphan is overlooked.
    #[test]
    fn what_is_left_over_is_found_once_listings_are_complete(mut world in some_world()) {
        world.synced = true;
        world.instances.get_or_insert_default();
        world.stored.get_or_insert_default();
        world.pods.get_or_insert_default();
        let last = sweeps(&world, 8).pop().expect("eight sweeps");
        for record in sound(&world) {
            if !world.pods.as_ref().expect("set above").contains(&record.pod.uid) {
                let retired = last
                    .iter()
                    .any(|a| matches!(a, PlanAction::RetireRecord { cell, .. } if *cell == record.name));
                prop_assert!(retired, "overlooked: {}", record.name);
            }
        }
    }
}
