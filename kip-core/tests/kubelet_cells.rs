//! Cell records as custom resources, against a Kubernetes API.
#![cfg(feature = "kubelet")]

mod kubelet_support;

use jiff::Timestamp;
use kip_cluster::Cluster;
use kip_core::ErrorKind;
use kip_core::driver::{CellStore as _, StoredCell};
use kip_core::ids::{
    ClusterUid, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodRef, PodUid, Zone,
};
use kip_core::kubelet::{Cell, KubeCellStore, install_cells};
use kip_core::model::{CapacityType, CellPhase, CellRecord, Price};
use kube::api::{Api, DeleteParams};

fn record(node: &str, pod: &str) -> CellRecord {
    let offering = OfferingId {
        instance_type: InstanceType::new("small"),
        zone: Zone::new("z1"),
        capacity_type: CapacityType::OnDemand,
    };
    let pod = PodRef {
        uid: PodUid::new(pod),
        namespace: "default".to_owned(),
        name: "p".to_owned(),
    };
    let (cluster, node) = (ClusterUid::new("c"), NodeName::new(node));
    let token = LaunchToken::derive(&cluster, &node, &pod.uid, 1, &offering);
    CellRecord::intent(
        pod,
        node,
        cluster,
        1,
        token,
        offering,
        Price(5200),
        Timestamp::now(),
    )
}

/// A record that is lost, or changed by two at once, is an instance nobody pays attention to, or two for one pod.
#[tokio::test]
async fn records_are_kept_compared_and_removed() {
    let cluster = Cluster::builder().start().await.expect("a cluster");
    let client = kubelet_support::client(&cluster).await;
    let store = KubeCellStore::new(client.clone(), NodeName::new("kip"));

    let error = store.list().await.expect_err("the resource is not there yet");
    assert!(error.to_string().contains("kubectl apply"), "{error}");

    install_cells(&client).await.expect("installed");
    install_cells(&client)
        .await
        .expect("installing twice is harmless");
    assert!(store.list().await.expect("a list").is_empty());

    let created = store.create(&record("kip", "u-1")).await.expect("created");
    assert_eq!(
        store.list().await.expect("a list"),
        [StoredCell::Sound(created.clone())]
    );
    let again = store
        .create(&record("kip", "u-1"))
        .await
        .expect_err("it is there");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);

    let mut changed = created.clone();
    changed.phase = CellPhase::Booting;
    changed.instance = Some(InstanceId::new("i-1"));
    changed.marks.launched_at = Some(Timestamp::now());
    let updated = store.update(&changed).await.expect("updated");
    assert_ne!(updated.version, created.version);
    assert_eq!(
        store.list().await.expect("a list"),
        [StoredCell::Sound(updated.clone())]
    );
    let stale = store.update(&changed).await.expect_err("somebody was first");
    assert_eq!(stale.kind(), ErrorKind::Conflict);

    let other = KubeCellStore::new(client.clone(), NodeName::new("other"));
    other.create(&record("other", "u-2")).await.expect("created");
    assert_eq!(store.list().await.expect("a list").len(), 1, "only this node's");

    // A user deletes the object: it stays until the instance is gone.
    let cells: Api<Cell> = Api::all(client.clone());
    cells
        .delete(updated.name.as_str(), &DeleteParams::default())
        .await
        .expect("accepted");
    assert_eq!(store.list().await.expect("a list").len(), 1);

    let behind = store.remove(&updated.name, &updated.version).await;
    assert_eq!(
        behind.expect_err("it was changed").kind(),
        ErrorKind::Conflict,
        "what somebody else wrote meanwhile must not be removed with it"
    );
    let newest = store.get(&updated.name).await.expect("read").expect("there");
    for removal in ["removed", "removing twice is harmless"] {
        store
            .remove(&updated.name, newest.version())
            .await
            .expect(removal);
    }
    assert!(store.list().await.expect("a list").is_empty());
    let gone = store.update(&updated).await.expect_err("it is gone");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let second = record("other", "u-2").name;
    let newest = other.get(&second).await.expect("read").expect("there");
    other.remove(&second, newest.version()).await.expect("removed");
    assert!(
        cells
            .list(&kube::api::ListParams::default())
            .await
            .expect("a list")
            .items
            .is_empty()
    );
    cluster.shutdown().await;
}
