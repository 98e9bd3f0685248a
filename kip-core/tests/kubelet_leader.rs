//! Leader election against a Kubernetes API: whoever leads, only one does.
#![cfg(feature = "kubelet")]

mod kubelet_support;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kip_cluster::Cluster;
use kip_core::ErrorKind;
use kip_core::kubelet::{Leader, LeaderConfig, LeaderElection};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kubelet_support::PATIENCE;
use serde_json::json;

const LEASE: Duration = Duration::from_secs(2);
const RENEW: Duration = Duration::from_millis(1200);
const RETRY: Duration = Duration::from_millis(200);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(3);

async fn cluster() -> (Cluster, kube::Client) {
    let cluster = Cluster::builder().start().await.expect("a cluster");
    let client = kubelet_support::client(&cluster).await;
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some("kip".to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .expect("a namespace");
    (cluster, client)
}

fn candidate(client: &kube::Client, identity: &str) -> LeaderElection {
    let config = LeaderConfig::new("kip", "kip-n", identity).with_times(LEASE, RENEW, RETRY);
    LeaderElection::new(client.clone(), config).expect("a good configuration")
}

async fn leads(candidate: LeaderElection) -> Leader {
    tokio::time::timeout(PATIENCE, candidate.lead())
        .await
        .expect("it leads some time")
        .expect("the API answers")
}

async fn holder(client: &kube::Client) -> String {
    let lease: Lease = Api::namespaced(client.clone(), "kip")
        .get("kip-n")
        .await
        .expect("a lease");
    lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .unwrap_or_default()
}

#[tokio::test]
async fn one_leads_while_it_lives_and_another_once_it_is_gone() {
    let (cluster, client) = cluster().await;
    let mut first = leads(candidate(&client, "first")).await;
    let standby = tokio::spawn(leads(candidate(&client, "second")));

    // Far longer than the lease: it is renewed, and not taken.
    tokio::select! {
        why = first.lost() => panic!("{why}"),
        () = tokio::time::sleep(2 * LEASE) => {}
    }
    assert!(!standby.is_finished(), "two lead");
    assert_eq!(holder(&client).await, "first");

    // A crash: nobody releases it.
    drop(first);
    let killed = Instant::now();
    let second = standby.await.expect("no panic");
    assert!(
        killed.elapsed() >= LEASE - RETRY - Duration::from_millis(100),
        "it was taken too early: {:?}",
        killed.elapsed()
    );
    assert!(
        killed.elapsed() <= LEASE + 2 * RETRY + SLACK,
        "it took {:?}",
        killed.elapsed()
    );
    assert_eq!(holder(&client).await, "second");

    // A clean end: at once.
    let third = tokio::spawn(leads(candidate(&client, "third")));
    tokio::time::sleep(2 * RETRY).await;
    second.release().await.expect("released");
    let released = Instant::now();
    let third = third.await.expect("no panic");
    assert!(released.elapsed() < LEASE, "it took {:?}", released.elapsed());
    third.release().await.expect("released");
    assert_eq!(holder(&client).await, "");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_leader_whose_lease_is_given_to_another_hears_of_it() {
    let (cluster, client) = cluster().await;
    let mut leader = leads(candidate(&client, "first")).await;
    let api: Api<Lease> = Api::namespaced(client.clone(), "kip");

    // Deleted by hand: it is made again, and nobody stops.
    api.delete("kip-n", &DeleteParams::default())
        .await
        .expect("deleted");
    let again = tokio::time::timeout(PATIENCE, async {
        while api.get_opt("kip-n").await.expect("an answer").is_none() {
            tokio::task::yield_now().await;
        }
    });
    tokio::select! {
        why = leader.lost() => panic!("{why}"),
        again = again => again.expect("it is made again"),
    }
    assert_eq!(holder(&client).await, "first");

    let patch = json!({"spec": {"holderIdentity": "an administrator"}});
    api.patch("kip-n", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("edited");
    let why = tokio::time::timeout(PATIENCE, leader.lost())
        .await
        .expect("it hears");
    assert!(why.to_string().contains("an administrator"), "{why}");
    assert!(
        leader.lost().await.to_string().contains("before"),
        "asking again does no harm"
    );
    leader.release().await.expect("nothing to release");
    assert_eq!(holder(&client).await, "an administrator");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_leader_without_its_api_stops_before_another_may_start() {
    let (cluster, client) = cluster().await;
    let mut leader = leads(candidate(&client, "first")).await;
    let gone = Instant::now();
    cluster.shutdown().await;
    let why = tokio::time::timeout(PATIENCE, leader.lost())
        .await
        .expect("it stops");
    assert!(gone.elapsed() < LEASE, "it acted for {:?}", gone.elapsed());
    assert!(why.to_string().contains("could not be renewed"), "{why}");
}

#[tokio::test]
async fn what_can_never_work_is_told_at_the_start_and_does_not_wait_for_ever() {
    let (cluster, client) = cluster().await;
    let config = LeaderConfig::new("nowhere", "kip-n", "me").with_times(LEASE, RENEW, RETRY);
    let election = LeaderElection::new(client.clone(), config).expect("a good configuration");
    let error = tokio::time::timeout(PATIENCE, election.lead())
        .await
        .expect("an answer")
        .expect_err("there is no such namespace");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("namespace"), "{error}");

    cluster.shutdown().await;
    let error = tokio::time::timeout(PATIENCE, candidate(&client, "me").lead())
        .await
        .expect("an answer")
        .expect_err("the API is gone");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
