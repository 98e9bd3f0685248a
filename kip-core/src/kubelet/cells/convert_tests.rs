use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::model::{CapacityType, CellMarks, CellPhase, PodPhase};

fn raw(cell: &Cell) -> DynamicObject {
    let value = serde_json::to_value(cell).expect("JSON");
    serde_json::from_value(value).expect("an object")
}

fn sound(cell: &Cell) -> CellRecord {
    match stored(raw(cell)) {
        StoredCell::Sound(record) => record,
        StoredCell::Damaged(damaged) => panic!("{}", damaged.problem),
    }
}

fn problem(cell: &Cell) -> String {
    match stored(raw(cell)) {
        StoredCell::Sound(record) => panic!("taken for sound: {record:?}"),
        StoredCell::Damaged(damaged) => damaged.problem,
    }
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_i64, 0..1_000_000_000_i32)
        .prop_map(|(second, nano)| Timestamp::new(second, nano).expect("a time"))
}

fn address() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(Into::into),
        any::<[u8; 16]>().prop_map(Into::into)
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9./_-]{1,20}"
}

fn ending() -> impl Strategy<Value = Ending> {
    let verdict = (any::<bool>(), ".{0,9}", ".{0,30}", prop::option::of(".{0,30}")).prop_map(
        |(succeeded, reason, message, disruption)| Verdict {
            phase: if succeeded {
                PodPhase::Succeeded
            } else {
                PodPhase::Failed
            },
            reason,
            message,
            disruption,
        },
    );
    prop_oneof![
        Just(Ending::Again),
        prop::option::of(verdict).prop_map(Ending::Over)
    ]
}

/// Any record a controller may write.
fn records() -> impl Strategy<Value = CellRecord> {
    let identity = (word(), word(), word(), word(), word(), 1..u32::MAX - 1);
    let offering = (word(), word(), 0..3_usize, any::<u64>());
    let life = (
        0..4_usize,
        word(),
        prop::option::of(address()),
        prop::option::of(address()),
        ending(),
    );
    let marks = proptest::array::uniform6(prop::option::of(time()));
    let replaces = prop::option::of((1..u32::MAX, word(), prop::option::of(address())));
    let rest = (time(), prop::option::of(".{0,40}"), replaces);
    (identity, offering, life, marks, rest).prop_map(build)
}

type Identity = (String, String, String, String, String, u32);
type Offering = (String, String, usize, u64);
type Life = (
    usize,
    String,
    Option<std::net::IpAddr>,
    Option<std::net::IpAddr>,
    Ending,
);
type Rest = (
    Timestamp,
    Option<String>,
    Option<(u32, String, Option<std::net::IpAddr>)>,
);

fn build(
    (identity, offering, life, marks, rest): (Identity, Offering, Life, [Option<Timestamp>; 6], Rest),
) -> CellRecord {
    let (cluster, node, uid, namespace, name, attempt) = identity;
    let (instance_type, zone, capacity, price) = offering;
    let (phase, instance, management, pod_ip, ending) = life;
    let (issued_at, reason, replaces) = rest;
    let offering = OfferingId {
        instance_type: InstanceType::new(instance_type),
        zone: Zone::new(zone),
        capacity_type: [CapacityType::OnDemand, CapacityType::Spot, CapacityType::Reserved][capacity],
    };
    let pod = PodRef {
        uid: PodUid::new(uid),
        namespace,
        name,
    };
    let (cluster, node) = (ClusterUid::new(cluster), NodeName::new(node));
    let token = LaunchToken::derive(&cluster, &node, &pod.uid, attempt, &offering);
    let mut record = CellRecord::intent(
        pod,
        node,
        cluster,
        attempt,
        token.clone(),
        offering,
        Price(price),
        issued_at,
    );
    record.phase = [
        CellPhase::Launching,
        CellPhase::Booting,
        CellPhase::Running,
        CellPhase::Terminating,
    ][phase];
    record.marks.seen_at = marks[0];
    record.replaces = replaces.map(|(attempt, instance, address)| Replaced {
        attempt,
        token,
        instance: InstanceId::new(instance),
        address,
    });
    if record.phase != CellPhase::Launching {
        record.instance = Some(InstanceId::new(instance));
        record.addresses = Addresses {
            management,
            pod: pod_ip,
        };
        record.marks = CellMarks {
            seen_at: marks[0],
            decided_at: marks[1],
            launched_at: marks[2],
            connected_at: marks[3],
            images_at: marks[4],
            running_at: marks[5],
            terminating_at: marks[1],
        };
        record.reason = reason;
    }
    if record.phase == CellPhase::Terminating {
        record.ending = Some(ending);
    }
    record
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_record_survives_the_way_through_the_api_or_a_restart_would_launch_with_another_token(original in records()) {
        let cell = object(&original);
        prop_assert_eq!(&sound(&cell), &original);
        if original.phase == CellPhase::Launching {
            // The API drops the status of a new object: the intent is in the spec.
            let created = Cell { status: None, ..cell };
            prop_assert_eq!(sound(&created), original);
        }
    }

    #[test]
    fn the_status_of_an_earlier_attempt_counts_for_nothing(before in records()) {
        let offering = before.offering.clone();
        let token = LaunchToken::derive(&before.cluster, &before.node, &before.pod.uid, before.attempt + 1, &offering);
        let (pod, node, cluster) = (before.pod.clone(), before.node.clone(), before.cluster.clone());
        let next = CellRecord::intent(pod, node, cluster, before.attempt + 1, token, offering, Price(7), before.issued_at);
        // What the API has after the spec was replaced.
        let stored = Cell { status: object(&before).status, ..object(&next) };
        prop_assert_eq!(sound(&stored), next);
    }

    #[test]
    fn a_change_by_hand_is_noticed_whatever_it_is(original in records(), word in word(), what in 0..7_usize) {
        let mut cell = object(&original);
        let has_status = original.phase != CellPhase::Launching;
        let status = cell.status.as_mut().expect("a status");
        let word = format!("x{word}");
        match what {
            0 => cell.spec.pod.uid = word,
            1 => cell.spec.node = word,
            2 => cell.spec.cluster = word,
            3 => cell.spec.offering.instance_type = word,
            4 => cell.spec.token = word,
            5 if has_status => status.instance = Some(word),
            _ => status.phase = if status.phase == CellPhase::Booting { CellPhase::Running } else { CellPhase::Booting },
        }
        if sound_or_not(&cell).is_some_and(|record| record == original) {
            // The word drawn was the word there.
            return Ok(());
        }
        prop_assert!(matches!(stored(raw(&cell)), StoredCell::Damaged(_)), "{cell:?}");
    }

    #[test]
    fn no_object_however_broken_makes_the_controller_panic(status in any_json(), spec in any_json()) {
        let object = serde_json::json!({
            "apiVersion": "kip.elotl.co/v1alpha1", "kind": "Cell",
            "metadata": {"name": "cell-x", "resourceVersion": "7"}, "spec": spec, "status": status,
        });
        let StoredCell::Damaged(damaged) = stored(serde_json::from_value(object).expect("an object")) else {
            panic!("nonsense was taken for a record");
        };
        prop_assert_eq!((damaged.name.as_str(), damaged.version.as_str()), ("cell-x", "7"));
        prop_assert!(!damaged.problem.is_empty());
    }
}

fn sound_or_not(cell: &Cell) -> Option<CellRecord> {
    stored(raw(cell)).sound()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop_oneof![
            Just("pod".to_owned()),
            Just("attempt".to_owned()),
            Just("instance".to_owned()),
            ".{0,5}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn running() -> Cell {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
    let text = |text: &str| text.to_owned();
    object(&build((
        (text("c"), text("n"), text("u"), text("ns"), text("p"), 2),
        (text("small"), text("z1"), 1, 5200),
        (2, text("i-1"), Some([10, 0, 0, 1].into()), None, Ending::Again),
        [Some(now); 6],
        (now, None, None),
    )))
}

#[test]
fn what_is_wrong_is_told_in_words_a_user_understands() {
    let mut cell = running();
    cell.status.as_mut().expect("a status").instance = Some("i-2".to_owned());
    assert!(problem(&cell).contains("seal"), "{}", problem(&cell));

    let mut cell = running();
    cell.status.as_mut().expect("a status").management_address = Some("here".to_owned());
    assert!(
        problem(&cell).contains("status.managementAddress"),
        "{}",
        problem(&cell)
    );

    let mut cell = running();
    cell.metadata.name = Some("another".to_owned());
    assert!(problem(&cell).contains("name"), "{}", problem(&cell));
}

#[test]
fn a_record_of_an_older_version_still_claims_its_pod_and_instance() {
    let mut old = serde_json::to_value(running()).expect("JSON");
    let status = old["status"].as_object_mut().expect("a status");
    status.remove("seal");
    status.remove("attempt");
    let StoredCell::Damaged(damaged) = stored(serde_json::from_value(old).expect("an object")) else {
        panic!("a record without a seal was taken for sound");
    };
    assert_eq!(damaged.pod, Some(PodUid::new("u")));
    assert_eq!(damaged.instance, Some(InstanceId::new("i-1")));
    assert!(damaged.problem.contains("attempt"), "{}", damaged.problem);
}
