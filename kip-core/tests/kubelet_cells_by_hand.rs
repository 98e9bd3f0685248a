//! What people do to Cell objects by hand: refused in words they understand, or noticed and put back.
#![cfg(feature = "kubelet")]

mod kubelet_support;

use jiff::Timestamp;
use kip_cluster::Cluster;
use kip_core::ErrorKind;
use kip_core::driver::{CellStore as _, StoredCell};
use kip_core::ids::{
    ClusterUid, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodRef, PodUid, Zone,
};
use kip_core::kubelet::{KubeCellStore, install_cells};
use kip_core::model::{CapacityType, CellPhase, CellRecord, Ending, Price};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

const PHASES: [CellPhase; 4] = [
    CellPhase::Launching,
    CellPhase::Booting,
    CellPhase::Running,
    CellPhase::Terminating,
];

fn intent(uid: &str) -> CellRecord {
    attempt(uid, 1, "small")
}

fn attempt(uid: &str, attempt: u32, instance_type: &str) -> CellRecord {
    let pod = PodRef {
        uid: PodUid::new(uid),
        namespace: "default".to_owned(),
        name: "p".to_owned(),
    };
    let (cluster, node) = (ClusterUid::new("c"), NodeName::new("kip"));
    let offering = OfferingId {
        instance_type: InstanceType::new(instance_type),
        zone: Zone::new("z1"),
        capacity_type: CapacityType::OnDemand,
    };
    let token = LaunchToken::derive(&cluster, &node, &pod.uid, attempt, &offering);
    CellRecord::intent(
        pod,
        node,
        cluster,
        attempt,
        token,
        offering,
        Price(5200),
        Timestamp::now(),
    )
}

/// The record as it is once it got to that phase.
fn at(mut record: CellRecord, phase: CellPhase) -> CellRecord {
    record.phase = phase;
    if phase != CellPhase::Launching {
        record.instance = Some(InstanceId::new(format!("i-{}", record.pod.uid)));
        record.addresses.pod = Some([10, 0, 0, 9].into());
    }
    if phase == CellPhase::Terminating {
        record.ending = Some(Ending::Again);
    }
    record
}

struct World {
    cluster: Cluster,
    store: KubeCellStore,
    cells: Api<DynamicObject>,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::builder().start().await.expect("a cluster");
        let client = kubelet_support::client(&cluster).await;
        install_cells(&client).await.expect("installed");
        let resource = ApiResource::erase::<kip_core::kubelet::Cell>(&());
        Self {
            cluster,
            store: KubeCellStore::new(client.clone(), NodeName::new("kip")),
            cells: Api::all_with(client, &resource),
        }
    }

    /// A stored record in that phase, which got there one write at a time.
    async fn stored(&self, uid: &str, phase: CellPhase) -> CellRecord {
        let mut stored = self.store.create(&intent(uid)).await.expect("created");
        for step in PHASES
            .into_iter()
            .filter(|step| *step > CellPhase::Launching && *step <= phase)
        {
            let version = stored.version.clone();
            let next = versioned(at(stored, step), &version);
            stored = self.store.update(&next).await.expect("updated");
        }
        stored
    }

    /// As `kubectl edit` does; `Err` is what the user is told.
    async fn edit(&self, record: &CellRecord, part: &str, patch: &Value) -> Result<(), String> {
        let (name, params, patch) = (record.name.as_str(), PatchParams::default(), Patch::Merge(patch));
        let edited = match part {
            "status" => self.cells.patch_status(name, &params, &patch).await,
            _ => self.cells.patch(name, &params, &patch).await,
        };
        edited.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn find(&self, record: &CellRecord) -> StoredCell {
        self.store
            .get(&record.name)
            .await
            .expect("read")
            .expect("it is there")
    }

    /// The driver writes what it has in memory over what it found.
    async fn put_back(&self, record: &CellRecord) {
        let found = self.find(record).await;
        assert!(matches!(found, StoredCell::Damaged(_)), "not noticed: {found:?}");
        let again = versioned(record.clone(), found.version());
        self.store.update(&again).await.expect("put back");
        let StoredCell::Sound(now) = self.find(record).await else {
            panic!("it is still damaged");
        };
        assert_eq!(versioned(now, &record.version.clone()), *record);
    }
}

fn versioned(record: CellRecord, version: &str) -> CellRecord {
    let mut record = record;
    record.version = version.to_owned();
    record
}

#[tokio::test]
async fn a_change_no_controller_would_make_is_refused_in_words_a_user_understands() {
    let world = World::new().await;
    for phase in PHASES {
        let record = world.stored(&format!("u-{phase:?}"), phase).await;
        let other = json!("0123456789012345678901234567890123456789");
        for (patch, words) in [
            (
                json!({"spec": {"pod": {"uid": "another"}}}),
                "spec.pod cannot be changed",
            ),
            (
                json!({"spec": {"node": "another"}}),
                "spec.node cannot be changed",
            ),
            (
                json!({"spec": {"cluster": "another"}}),
                "spec.cluster cannot be changed",
            ),
            (
                json!({"spec": {"token": other}}),
                "together with a higher spec.attempt",
            ),
            (json!({"spec": {"token": "short"}}), "spec.token"),
            (json!({"spec": {"attempt": 0}}), "spec.attempt"),
            (
                json!({"spec": {"offering": {"instanceType": "huge"}}}),
                "together with a higher spec.attempt",
            ),
        ] {
            let told = world.edit(&record, "spec", &patch).await.expect_err("refused");
            assert!(told.contains(words), "{phase:?} {patch}: {told}");
        }
        let status = |phase: &str, instance: Option<&str>, ending: Option<&str>| json!({"status": {"attempt": 1, "phase": phase, "seal": "x", "instance": instance, "ending": ending}});
        let mut refused = vec![
            (status("Running", None, None), "has an instance"),
            (status("Terminating", Some("i"), None), "ending"),
            (status("Dead", Some("i"), None), "status.phase"),
            (
                json!({"status": {"attempt": 9, "phase": "Launching", "seal": "x"}}),
                "spec does not know",
            ),
        ];
        if phase > CellPhase::Launching {
            refused.extend([
                (
                    status("Terminating", Some("another"), Some("Again")),
                    "an attempt has one instance",
                ),
                (
                    status(
                        "Launching",
                        record.instance.as_ref().map(InstanceId::as_str),
                        None,
                    ),
                    "never goes back",
                ),
                (json!({"status": null}), "status cannot be removed"),
            ]);
        }
        for (patch, words) in refused {
            let told = world.edit(&record, "status", &patch).await.expect_err("refused");
            assert!(told.contains(words), "{phase:?} {patch}: {told}");
        }
        assert_eq!(world.find(&record).await, StoredCell::Sound(record));
    }
    world.cluster.shutdown().await;
}

#[tokio::test]
async fn a_change_the_api_takes_is_noticed_in_each_phase_and_can_be_put_back() {
    let world = World::new().await;
    for phase in PHASES {
        let record = world.stored(&format!("u-{phase:?}"), phase).await;
        let instance = record
            .instance
            .clone()
            .unwrap_or_else(|| InstanceId::new("i-made-up"));
        let ended = json!({"status": {"attempt": 1, "phase": "Terminating", "ending": "Over",
            "instance": instance.as_str(), "seal": "by hand"}});
        world.edit(&record, "status", &ended).await.expect("taken");
        world.put_back(&record).await;

        // Another attempt that nobody launched.
        let token = "0123456789012345678901234567890123456789";
        let next = json!({"spec": {"attempt": 3, "token": token}});
        world.edit(&record, "spec", &next).await.expect("taken");
        world.put_back(&record).await;
        assert_eq!(world.store.list().await.expect("a list").len(), 1, "{phase:?}");

        let found = world.find(&record).await;
        world
            .store
            .remove(&record.name, found.version())
            .await
            .expect("removed");
    }
    world.cluster.shutdown().await;
}

#[tokio::test]
async fn a_label_taken_off_does_not_hide_a_record_and_a_broken_one_hides_no_other() {
    let world = World::new().await;
    let (first, second) = (
        world.stored("u-1", CellPhase::Running).await,
        world.stored("u-2", CellPhase::Running).await,
    );
    let unlabelled = json!({"metadata": {"labels": null}});
    world.edit(&first, "spec", &unlabelled).await.expect("taken");
    let broken = json!({"status": {"podAddress": "nowhere", "seal": "x"}});
    world.edit(&second, "status", &broken).await.expect("taken");
    let found = world.store.list().await.expect("a list");
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .any(|cell| matches!(cell, StoredCell::Sound(record) if record.name == first.name))
    );
    let damaged = found.iter().find_map(|cell| match cell {
        StoredCell::Damaged(damaged) => Some(damaged),
        StoredCell::Sound(_) => None,
    });
    let damaged = damaged.expect("the broken one is told");
    assert_eq!(damaged.name, second.name);
    assert_eq!(
        (&damaged.pod, &damaged.instance),
        (&Some(second.pod.uid.clone()), &second.instance)
    );
    assert!(damaged.problem.contains("podAddress"), "{}", damaged.problem);
    world.cluster.shutdown().await;
}

#[tokio::test]
async fn an_object_deleted_by_hand_stays_until_its_pod_ends_in_each_phase() {
    let world = World::new().await;
    for phase in PHASES {
        let record = world.stored(&format!("u-{phase:?}"), phase).await;
        let name = record.name.as_str();
        world
            .cells
            .delete(name, &DeleteParams::default())
            .await
            .expect("accepted");
        let StoredCell::Sound(mut found) = world.find(&record).await else {
            panic!("{phase:?}: a deletion is no damage");
        };
        // The life goes on in it: on to the next attempt, and to its end.
        if phase < CellPhase::Terminating {
            let version = found.version.clone();
            let over = versioned(at(found, CellPhase::Terminating), &version);
            found = world.store.update(&over).await.expect("updated");
        }
        let next = versioned(attempt(record.pod.uid.as_str(), 2, "big"), &found.version);
        let again = world.store.update(&next).await.expect("the next attempt");
        assert_eq!((again.attempt, again.phase), (2, CellPhase::Launching));
        world
            .store
            .remove(&again.name, &again.version)
            .await
            .expect("removed");
        assert_eq!(world.store.get(&again.name).await.expect("read"), None);
    }
    world.cluster.shutdown().await;
}

#[tokio::test]
async fn an_object_whose_finalizer_was_stripped_is_written_again_with_all_it_said() {
    let world = World::new().await;
    for phase in PHASES {
        let record = world.stored(&format!("u-{phase:?}"), phase).await;
        let stripped = json!({"metadata": {"finalizers": null}});
        world.edit(&record, "spec", &stripped).await.expect("taken");
        let name = record.name.as_str();
        world
            .cells
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
        assert_eq!(world.store.get(&record.name).await.expect("read"), None);
        let gone = world.store.update(&record).await.expect_err("it is gone");
        assert_eq!(gone.kind(), ErrorKind::NotFound);

        let again = world.store.create(&record).await.expect("written again");
        assert_ne!(again.version, record.version);
        assert_eq!(
            versioned(again, &record.version.clone()),
            record,
            "a record that loses its instance leaks it"
        );
        let object = world.cells.get(name).await.expect("an object");
        assert_eq!(object.metadata.finalizers.unwrap_or_default().len(), 1);
    }
    world.cluster.shutdown().await;
}

#[tokio::test]
async fn a_controller_that_is_behind_follows_and_never_turns_back_what_a_newer_one_wrote() {
    let world = World::new().await;
    let booting = world.stored("u-1", CellPhase::Booting).await;
    let running = world
        .store
        .update(&versioned(
            at(booting.clone(), CellPhase::Running),
            &booting.version.clone(),
        ))
        .await
        .expect("updated");
    let behind = world.store.update(&at(booting.clone(), CellPhase::Running)).await;
    assert_eq!(behind.expect_err("an old version").kind(), ErrorKind::Conflict);
    // Even with the newest version in hand, back is no way.
    let back = versioned(booting, &running.version.clone());
    let refused = world.store.update(&back).await.expect_err("back is no way");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{refused}");
    assert!(refused.to_string().contains("never goes back"), "{refused}");
    assert_eq!(world.find(&running).await, StoredCell::Sound(running));
    world.cluster.shutdown().await;
}
