//! The test a kube-rs controller's author would start from: a cluster of one's own, in this process, real HTTPS.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kip_cluster::Cluster;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{wait, watcher};
use kube::{Client, Config, CustomResource, CustomResourceExt as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Everything here must happen at once; this only bounds a broken test.
const SOON: Duration = Duration::from_secs(20);

#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[kube(
    group = "example.com",
    version = "v1",
    kind = "Widget",
    namespaced,
    status = "WidgetStatus"
)]
struct WidgetSpec {
    size: u32,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct WidgetStatus {
    ready: Option<bool>,
}

async fn client_for(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn start() -> (Cluster, Client) {
    // kube's client takes the process's TLS provider; tests that run at once share it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::builder().start().await.unwrap();
    let client = client_for(&cluster.kubeconfig()).await;
    (cluster, client)
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the API: {other}"),
    }
}

fn configmap(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value}})).unwrap()
}

/// Broken, a controller's custom resources cannot be used against this API at all.
#[tokio::test]
async fn a_custom_resource_lives_its_life() {
    let (cluster, client) = start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &Widget::crd())
        .await
        .unwrap();
    let established = wait::await_condition(
        definitions,
        "widgets.example.com",
        wait::conditions::is_crd_established(),
    );
    tokio::time::timeout(SOON, established).await.unwrap().unwrap();

    let widgets: Api<Widget> = Api::default_namespaced(client.clone());
    let mut widget = Widget::new("w", WidgetSpec { size: 1 });
    widget.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    let created = widgets.create(&PostParams::default(), &widget).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));

    // A stale write is refused, a fresh one is taken.
    let mut fresh = created.clone();
    fresh.spec.size = 2;
    let updated = widgets
        .replace("w", &PostParams::default(), &fresh)
        .await
        .unwrap();
    assert_eq!(updated.metadata.generation, Some(2));
    assert_eq!(
        code(
            &widgets
                .replace("w", &PostParams::default(), &fresh)
                .await
                .unwrap_err()
        ),
        409
    );

    // Status is written apart from spec.
    let status = json!({"status": {"ready": true}, "spec": {"size": 99}});
    let patched = widgets
        .patch_status("w", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
    assert_eq!(
        (patched.spec.size, patched.status.unwrap().ready),
        (2, Some(true))
    );
    assert_eq!(patched.metadata.generation, Some(2));

    // What the schema forbids is refused.
    let bad = json!({"spec": {"size": -1}});
    assert_eq!(
        code(
            &widgets
                .patch("w", &PatchParams::default(), &Patch::Merge(&bad))
                .await
                .unwrap_err()
        ),
        422
    );

    // The finalizer holds it until it is taken away.
    widgets.delete("w", &DeleteParams::default()).await.unwrap();
    let held = widgets.get("w").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let release = json!({"metadata": {"finalizers": null}});
    widgets
        .patch("w", &PatchParams::default(), &Patch::Merge(&release))
        .await
        .unwrap();
    assert!(widgets.get_opt("w").await.unwrap().is_none());
    cluster.shutdown().await;
}

/// Broken, reflectors drift from the truth or miss their start.
#[tokio::test]
async fn watchers_see_what_happens() {
    let (_cluster, client) = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    for streaming in [false, true] {
        let config = watcher::Config::default().fields("metadata.name=seen");
        let config = if streaming {
            config.streaming_lists()
        } else {
            config
        };
        let mut events = watcher(maps.clone(), config).boxed();
        let mut next = async || {
            tokio::time::timeout(SOON, events.try_next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
        };
        while !matches!(next().await, watcher::Event::InitDone) {}
        maps.create(&PostParams::default(), &configmap("unseen", "0"))
            .await
            .unwrap();
        maps.create(&PostParams::default(), &configmap("seen", "1"))
            .await
            .unwrap();
        let watcher::Event::Apply(map) = next().await else {
            panic!("expected the new object")
        };
        assert_eq!(map.name_any(), "seen");
        for name in ["unseen", "seen"] {
            maps.delete(name, &DeleteParams::default()).await.unwrap();
        }
        assert!(matches!(next().await, watcher::Event::Delete(_)));
    }
}

/// Broken, a watch that fell behind waits for ever instead of listing again.
#[tokio::test]
async fn a_watch_from_the_forgotten_past_is_gone() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::builder().history(2).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client_for(&cluster.kubeconfig()).await);
    for index in 0..5 {
        maps.create(&PostParams::default(), &configmap(&format!("m{index}"), "x"))
            .await
            .unwrap();
    }
    let mut events = maps.watch(&WatchParams::default(), "2").await.unwrap().boxed();
    let first = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap();
    match first {
        Ok(WatchEvent::Error(status)) => assert_eq!(status.code, 410),
        other => panic!("expected 410, got {other:?}"),
    }
}

/// Broken, two controllers overwrite each other's fields unseen.
#[tokio::test]
async fn server_side_apply_guards_fields() {
    let (_cluster, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let wanted =
        |value: &str| Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": value}}));
    maps.patch("m", &PatchParams::apply("alice"), &wanted("1"))
        .await
        .unwrap();
    assert_eq!(
        code(
            &maps
                .patch("m", &PatchParams::apply("bob"), &wanted("2"))
                .await
                .unwrap_err()
        ),
        409
    );
    let forced = maps
        .patch("m", &PatchParams::apply("bob").force(), &wanted("2"))
        .await
        .unwrap();
    assert_eq!(
        forced.data,
        Some(BTreeMap::from([("k".to_owned(), "2".to_owned())]))
    );
}

/// Broken, lists are cut short or mix two points in time.
#[tokio::test]
async fn pages_add_up_to_one_consistent_list() {
    let (_cluster, client) = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-node-lease");
    for index in 0..7 {
        maps.create(&PostParams::default(), &configmap(&format!("m{index}"), "x"))
            .await
            .unwrap();
    }
    let mut params = ListParams::default().limit(3);
    let (mut names, mut versions) = (Vec::new(), Vec::new());
    loop {
        let page = maps.list(&params).await.unwrap();
        names.extend(page.items.iter().map(|map| map.name_any()));
        versions.push(page.metadata.resource_version.clone());
        // What is created between two pages belongs to neither.
        let _ = maps
            .create(&PostParams::default(), &configmap("zz", "late"))
            .await;
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(
        names,
        ["kube-root-ca.crt", "m0", "m1", "m2", "m3", "m4", "m5", "m6"]
    );
    assert!(versions.windows(2).all(|pair| pair[0] == pair[1]), "{versions:?}");
}

/// Broken, pods wait for ever beside a node with room, or land where they do not fit.
#[tokio::test]
async fn pods_are_scheduled_and_deleted_with_grace() {
    let (_cluster, client) = start().await;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "5"},
                      "conditions": [{"type": "Ready", "status": "True"}]}});
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod = |name: &str, cpu: &str| -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}}))
        .unwrap()
    };
    pods.create(&PostParams::default(), &pod("small", "1"))
        .await
        .unwrap();
    pods.create(&PostParams::default(), &pod("large", "5"))
        .await
        .unwrap();
    let bound = |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone()).is_some();
    tokio::time::timeout(SOON, wait::await_condition(pods.clone(), "small", bound))
        .await
        .unwrap()
        .unwrap();
    let refused = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.conditions.clone())
            .into_iter()
            .flatten()
            .any(|condition| {
                condition.message.as_deref() == Some("0/1 nodes are available: 1 Insufficient cpu.")
            })
    };
    tokio::time::timeout(SOON, wait::await_condition(pods.clone(), "large", refused))
        .await
        .unwrap()
        .unwrap();

    pods.delete("small", &DeleteParams::default()).await.unwrap();
    assert_eq!(
        pods.get("small")
            .await
            .unwrap()
            .metadata
            .deletion_grace_period_seconds,
        Some(30)
    );
    pods.delete("small", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("small").await.unwrap().is_none());
    pods.delete("large", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("large").await.unwrap().is_none());
}

/// Broken, a deleted namespace leaves its contents behind or never goes.
#[tokio::test]
async fn a_namespace_ends_with_its_contents() {
    let (_cluster, client) = start().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "t"}})).unwrap();
    let created = namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "t");
    maps.create(&PostParams::default(), &configmap("m", "x"))
        .await
        .unwrap();
    namespaces.delete("t", &DeleteParams::default()).await.unwrap();
    let uid = created.uid().unwrap();
    let gone = wait::await_condition(namespaces, "t", wait::conditions::is_deleted(&uid));
    tokio::time::timeout(SOON, gone).await.unwrap().unwrap();
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

/// Broken, anybody who reaches the port may do anything, or a pod's token outlives the pod.
#[tokio::test]
async fn who_is_not_allowed_is_kept_out() {
    let (cluster, client) = start().await;
    let token = cluster.user_token("alice", &["dev"]);
    let config = cluster.kubeconfig().replace(cluster.admin_token(), &token);
    let alice: Api<Pod> = Api::default_namespaced(client_for(&config).await);
    assert_eq!(code(&alice.list(&ListParams::default()).await.unwrap_err()), 403);
    cluster.allow("dev");
    alice.list(&ListParams::default()).await.unwrap();
    let config = cluster.kubeconfig().replace(cluster.admin_token(), "wrong");
    let nobody: Api<Pod> = Api::default_namespaced(client_for(&config).await);
    assert_eq!(code(&nobody.list(&ListParams::default()).await.unwrap_err()), 401);

    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec!["me".to_owned()]),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let issued = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap();
    let review = |token: String| TokenReview {
        spec: TokenReviewSpec {
            token,
            audiences: Some(vec!["me".to_owned()]),
        },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client);
    let token = issued.status.unwrap().token.unwrap();
    let status = reviews
        .create(&PostParams::default(), &review(token.clone()))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(
        status.user.unwrap().username.as_deref(),
        Some("system:serviceaccount:default:default")
    );
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    let status = reviews
        .create(&PostParams::default(), &review(token))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_ne!(status.authenticated, Some(true));
}

/// Broken, a second server on the same port fails with a riddle.
#[tokio::test]
async fn a_taken_port_is_named() {
    let (cluster, _client) = start().await;
    let error = Cluster::builder()
        .listen(cluster.address())
        .start()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(&cluster.address().to_string()),
        "{error}"
    );
}
