//! The definition of the Cell resource: the file administrators apply, its installation and its upgrades.
#![cfg(feature = "kubelet")]

mod kubelet_support;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kip_cluster::Cluster;
use kip_core::ErrorKind;
use kip_core::kubelet::{SCHEMA_ANNOTATION, cells_crd_yaml, install_cells};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const NAME: &str = "cells.kip.elotl.co";

/// Regenerate the file with: `cargo run -p kip-bin -- crd > kip-core/tests/golden/cells.kip.elotl.co.yaml`
#[test]
fn the_file_administrators_apply_is_what_this_version_needs() {
    let golden = include_str!("golden/cells.kip.elotl.co.yaml");
    assert_eq!(
        cells_crd_yaml().trim_end(),
        golden.trim_end(),
        "the definition changed: grow SCHEMA in kip-core/src/kubelet/cells/definition.rs if it is a new version, then run \
         `cargo run -p kip-bin -- crd > kip-core/tests/golden/cells.kip.elotl.co.yaml`"
    );
}

async fn cluster() -> (Cluster, kube::Client, Api<CustomResourceDefinition>) {
    let cluster = Cluster::builder().start().await.expect("a cluster");
    let client = kubelet_support::client(&cluster).await;
    let api = Api::all(client.clone());
    (cluster, client, api)
}

fn schema_of(crd: &CustomResourceDefinition) -> Option<&str> {
    let annotations = crd.metadata.annotations.as_ref()?;
    annotations.get(SCHEMA_ANNOTATION).map(String::as_str)
}

#[tokio::test]
async fn a_definition_of_an_older_kip_is_upgraded() {
    let (cluster, client, api) = cluster().await;
    // As the first version of Kip made it: no rules, fewer fields, no version.
    let mut old: CustomResourceDefinition = parsed(&cells_crd_yaml());
    old.metadata.annotations = None;
    for version in &mut old.spec.versions {
        version.schema = serde_json::from_value(json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"token": {"type": "string"}}},
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}}}))
        .expect("a schema");
    }
    api.create(&PostParams::default(), &old).await.expect("created");

    install_cells(&client).await.expect("upgraded");
    let now = api.get(NAME).await.expect("a definition");
    let wanted: CustomResourceDefinition = parsed(&cells_crd_yaml());
    assert_eq!(schema_of(&now), schema_of(&wanted));
    assert_eq!(now.spec.versions[0].schema, wanted.spec.versions[0].schema);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_definition_of_a_newer_or_unknown_kip_is_left_alone_and_named() {
    for newer in ["7", "next"] {
        let (cluster, client, api) = cluster().await;
        install_cells(&client).await.expect("installed");
        let patch = json!({"metadata": {"annotations": {SCHEMA_ANNOTATION: newer}}});
        let params = PatchParams::default();
        let before = api
            .patch(NAME, &params, &Patch::Merge(&patch))
            .await
            .expect("marked");
        install_cells(&client).await.expect("it serves what is needed");
        let after = api.get(NAME).await.expect("a definition");
        assert_eq!(
            after.metadata.resource_version, before.metadata.resource_version,
            "it was written"
        );

        let patch = json!({"spec": {"versions": [
            served("v2", true), served("v1alpha1", false)]}});
        api.patch(NAME, &params, &Patch::Merge(&patch))
            .await
            .expect("moved on");
        let error = install_cells(&client).await.expect_err("v1alpha1 is gone");
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        assert!(
            error.to_string().contains(newer) && error.to_string().contains("v1alpha1"),
            "{error}"
        );
        cluster.shutdown().await;
    }
}

fn served(name: &str, newest: bool) -> Value {
    json!({"name": name, "served": newest, "storage": newest, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
}

fn parsed(yaml: &str) -> CustomResourceDefinition {
    serde_norway::from_str(yaml).expect("a definition")
}
