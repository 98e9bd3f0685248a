use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use super::*;
use crate::model::{EnvValue, Handler, VolumeSource};

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "uid": "u-1", "namespace": "shop", "name": "web-0",
            "labels": { "app": "web" }, "annotations": { "note": "hello \"you\"" } },
        "spec": spec,
    }))
    .expect("a pod")
}

fn one(container: Value) -> Pod {
    let mut container = container;
    container["name"] = json!("main");
    container["image"] = json!("registry.example/app:1");
    pod(json!({ "containers": [container], "nodeName": "kip", "serviceAccountName": "robot" }))
}

fn config_map(data: Value) -> Fetched<ConfigMap> {
    Fetched::Found(serde_json::from_value(json!({ "metadata": {}, "data": data })).expect("a ConfigMap"))
}

fn secret(entries: &[(&str, &str)]) -> Fetched<Secret> {
    Fetched::Found(Secret {
        data: Some(
            entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                .collect(),
        ),
        ..Secret::default()
    })
}

fn objects() -> Resolved {
    Resolved {
        config_maps: [
            (
                "settings".to_owned(),
                config_map(json!({ "COLOUR": "red", "SIZE": "1", "bad=key": "x" })),
            ),
            ("gone".to_owned(), Fetched::Missing),
            ("broken".to_owned(), Fetched::Failed("forbidden".to_owned())),
        ]
        .into(),
        secrets: [
            ("keys".to_owned(), secret(&[("SIZE", "2"), ("token", "t0p")])),
            ("gone".to_owned(), Fetched::Missing),
        ]
        .into(),
        services: vec![
            serde_json::from_value(json!({ "metadata": { "name": "db" },
                "spec": { "clusterIP": "10.0.0.5", "ports": [{ "port": 5432 }] } }))
            .expect("a service"),
        ],
        ..Resolved::default()
    }
}

fn built(pod: &Pod, resolved: &Resolved) -> Outcome {
    let facts = CellFacts {
        host_ip: Some("10.9.0.1".parse().expect("an address")),
        pod_ip: None,
        size: Some((CpuMillis(2000), Bytes::gib(4))),
    };
    build(pod, resolved, &PodsConfig::default(), &facts)
}

fn env(outcome: &Outcome) -> BTreeMap<String, String> {
    outcome.manifest.containers[0]
        .env
        .iter()
        .map(|variable| {
            let value = match &variable.value {
                EnvValue::Text(text) => text.clone(),
                EnvValue::PodIp => "<podIP>".to_owned(),
                EnvValue::PodIps => "<podIPs>".to_owned(),
            };
            (variable.name.clone(), value)
        })
        .collect()
}

fn reasons(outcome: &Outcome) -> Vec<&str> {
    outcome
        .notices
        .iter()
        .map(|notice| notice.reason.as_str())
        .collect()
}

#[test]
fn the_environment_is_what_a_kubelet_makes_of_it() {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let pod = one(json!({
        "envFrom": [
            { "configMapRef": { "name": "settings" } },
            { "prefix": "S_", "secretRef": { "name": "keys" } },
            { "secretRef": { "name": "keys" } },
        ],
        "env": [
            { "name": "COLOUR", "value": "blue" },
            { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } },
            { "name": "ALL", "value": "$(COLOUR)-$(TOKEN)-$(DB_SERVICE_HOST)-$(NOT_YET)-$$(COLOUR)" },
            { "name": "NOT_YET", "value": "later" },
            { "name": "NAME", "valueFrom": field("metadata.name") },
            { "name": "UID", "valueFrom": field("metadata.uid") },
            { "name": "LABEL", "valueFrom": field("metadata.labels['app']") },
            { "name": "NODE", "valueFrom": field("spec.nodeName") },
            { "name": "ACCOUNT", "valueFrom": field("spec.serviceAccountName") },
            { "name": "HOST", "valueFrom": field("status.hostIP") },
            { "name": "IP", "valueFrom": field("status.podIP") },
            { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
            { "name": "CPU_MILLIS", "valueFrom": { "resourceFieldRef": { "resource": "requests.cpu", "divisor": "1m" } } },
            { "name": "MEMORY_MIB", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
            { "name": "EMPTY" },
            { "name": "OPTIONAL", "valueFrom": { "configMapKeyRef": { "name": "gone", "key": "k", "optional": true } } },
        ],
        "resources": { "requests": { "cpu": "250m" }, "limits": { "cpu": "1500m" } },
        "command": ["run", "$(COLOUR)"],
        "args": ["$(NOPE)", "$(SIZE)"],
    }));
    let outcome = built(&pod, &objects());
    let container = &outcome.manifest.containers[0];
    assert_eq!(container.config_error, None);
    let env = env(&outcome);
    for (name, value) in [
        ("COLOUR", "blue"),
        ("SIZE", "2"),
        ("S_SIZE", "2"),
        ("TOKEN", "t0p"),
        ("ALL", "blue-t0p-10.0.0.5-$(NOT_YET)-$(COLOUR)"),
        ("NAME", "web-0"),
        ("UID", "u-1"),
        ("LABEL", "web"),
        ("NODE", "kip"),
        ("ACCOUNT", "robot"),
        ("HOST", "10.9.0.1"),
        ("IP", "<podIP>"),
        ("CPUS", "2"),
        ("CPU_MILLIS", "250"),
        ("MEMORY_MIB", "4096"),
        ("EMPTY", ""),
        ("DB_SERVICE_PORT", "5432"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!env.contains_key("OPTIONAL") && !env.contains_key("bad=key"));
    assert_eq!(container.command, ["run", "blue"]);
    assert_eq!(container.args, ["$(NOPE)", "2"]);
    assert_eq!(
        reasons(&outcome),
        ["InvalidEnvironmentVariableNames", "OptionalConfigMapNotFound"]
    );
    assert!(
        !format!("{:?}", outcome.manifest).contains("t0p"),
        "secrets stay out of logs"
    );
}

#[test]
fn what_is_missing_holds_its_container_back_and_says_so() {
    let key = |kind: &str, name: &str, key: &str, optional: bool| json!({ "env": [{ "name": "X", "valueFrom": { kind: { "name": name, "key": key, "optional": optional } } }] });
    for (container, reason, waits, retry) in [
        (
            key("configMapKeyRef", "gone", "k", false),
            "MandatoryConfigMapNotFound",
            true,
            false,
        ),
        (
            key("configMapKeyRef", "gone", "k", true),
            "OptionalConfigMapNotFound",
            false,
            false,
        ),
        (
            key("configMapKeyRef", "settings", "k", false),
            "MandatoryConfigMapKeyNotFound",
            true,
            false,
        ),
        (
            key("configMapKeyRef", "settings", "k", true),
            "OptionalConfigMapKeyNotFound",
            false,
            false,
        ),
        (
            key("configMapKeyRef", "broken", "k", false),
            "FailedToReadMandatoryConfigMap",
            true,
            true,
        ),
        (
            key("configMapKeyRef", "broken", "k", true),
            "FailedToReadOptionalConfigMap",
            false,
            true,
        ),
        (
            key("secretKeyRef", "gone", "k", false),
            "MandatorySecretNotFound",
            true,
            false,
        ),
        (
            key("secretKeyRef", "keys", "k", false),
            "MandatorySecretKeyNotFound",
            true,
            false,
        ),
        (
            key("secretKeyRef", "keys", "k", true),
            "OptionalSecretKeyNotFound",
            false,
            false,
        ),
        (
            json!({ "envFrom": [{ "secretRef": { "name": "gone" } }] }),
            "MandatorySecretNotFound",
            true,
            false,
        ),
        (
            json!({ "envFrom": [{ "secretRef": { "name": "gone", "optional": true } }] }),
            "OptionalSecretNotFound",
            false,
            false,
        ),
    ] {
        let outcome = built(&one(container.clone()), &objects());
        assert_eq!(reasons(&outcome), [reason], "{container}");
        assert_eq!(
            outcome.manifest.containers[0].config_error.is_some(),
            waits,
            "{container}"
        );
        assert_eq!(outcome.retry, retry, "{container}");
    }
    let outcome = built(
        &one(
            json!({ "env": [{ "name": "X", "valueFrom": { "fieldRef": { "fieldPath": "status.phase" } } }] }),
        ),
        &objects(),
    );
    let problem = outcome.manifest.containers[0]
        .config_error
        .clone()
        .expect("an error");
    assert!(problem.contains("status.phase"), "{problem}");
}

#[test]
fn volumes_become_files_with_their_modes_or_software_finds_no_settings() {
    let mut resolved = objects();
    let wish = TokenWish {
        audience: None,
        expiration_seconds: 3607,
    };
    resolved.tokens = [(wish, Fetched::Found("jwt".to_owned()))].into();
    let pod = pod(json!({
        "containers": [{ "name": "main", "image": "i", "volumeMounts": [
            { "name": "all", "mountPath": "/all", "readOnly": true, "subPathExpr": "x-$(COLOUR)" } ],
            "env": [{ "name": "COLOUR", "value": "red" }] }],
        "volumes": [
            { "name": "some", "configMap": { "name": "settings", "items": [{ "key": "SIZE", "path": "a/size", "mode": 0o400 }] } },
            { "name": "all", "projected": { "defaultMode": 0o640, "sources": [
                { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
                { "secret": { "name": "keys", "items": [{ "key": "token", "path": "key" }] } },
                { "configMap": { "name": "gone", "optional": true } },
                { "downwardAPI": { "items": [
                    { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                    { "path": "note", "fieldRef": { "fieldPath": "metadata.annotations" } } ] } },
            ] } },
            { "name": "tmp", "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } },
            { "name": "host", "hostPath": { "path": "/var/data", "type": "DirectoryOrCreate" } },
        ],
    }));
    let outcome = built(&pod, &resolved);
    let files = |at: usize| match &outcome.manifest.volumes[at].source {
        VolumeSource::Files(files) => files.clone(),
        other => panic!("{other:?}"),
    };
    let listed = |at: usize| -> Vec<(String, String, u32)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        files(at)
            .files
            .into_iter()
            .map(|file| (file.path, text(file.content), file.mode))
            .collect()
    };
    assert_eq!(listed(0), [("a/size".to_owned(), "1".to_owned(), 0o400)]);
    assert_eq!(
        listed(1),
        [
            ("token".to_owned(), "jwt".to_owned(), 0o640),
            ("key".to_owned(), "t0p".to_owned(), 0o640),
            ("labels".to_owned(), "app=\"web\"".to_owned(), 0o640),
            ("note".to_owned(), "note=\"hello \\\"you\\\"\"".to_owned(), 0o640),
        ]
    );
    assert!(files(1).secret && !files(0).secret);
    let mount = &outcome.manifest.containers[0].mounts[0];
    assert_eq!((mount.sub_path.as_str(), mount.read_only), ("x-red", true));
    assert!(matches!(&outcome.manifest.volumes[2].source,
        VolumeSource::EmptyDir(empty) if empty.memory && empty.size_limit == Bytes::mib(64)));
}

#[test]
fn a_volume_that_cannot_be_filled_holds_back_only_who_mounts_it() {
    let pod = pod(json!({
        "containers": [
            { "name": "needs", "image": "i", "volumeMounts": [{ "name": "v", "mountPath": "/v" }] },
            { "name": "free", "image": "i" },
        ],
        "volumes": [{ "name": "v", "configMap": { "name": "gone" } }],
    }));
    let outcome = built(&pod, &objects());
    let [needs, free] = &outcome.manifest.containers[..] else {
        panic!("two containers")
    };
    assert!(
        needs
            .config_error
            .as_ref()
            .expect("an error")
            .contains("\"gone\" not found")
    );
    assert_eq!(free.config_error, None);
    assert_eq!(reasons(&outcome), ["MandatoryConfigMapNotFound", "FailedMount"]);
}

#[test]
fn a_path_out_of_the_volume_is_refused_or_a_pod_could_write_to_its_host() {
    for path in ["../x", "/x", "a/../../x", ""] {
        let pod = pod(json!({
            "containers": [{ "name": "main", "image": "i" }],
            "volumes": [{ "name": "v", "configMap": { "name": "settings", "items": [{ "key": "SIZE", "path": path }] } }],
        }));
        assert!(built(&pod, &objects()).manifest.volumes.is_empty(), "{path}");
    }
}

#[test]
fn registry_credentials_are_read_in_both_forms() {
    let config = r#"{"auths":{"registry.example":{"auth":"dXNlcjpwYTpzcw=="},"other":{"username":"u","password":"p"}}}"#;
    let mut resolved = objects();
    resolved.pull_secrets = ["new", "old", "gone", "keys"].map(str::to_owned).into();
    resolved
        .secrets
        .insert("new".to_owned(), secret(&[(".dockerconfigjson", config)]));
    let old = r#"{"old.example":{"username":"a","password":"b","email":"c"}}"#;
    resolved
        .secrets
        .insert("old".to_owned(), secret(&[(".dockercfg", old)]));
    let outcome = built(&one(json!({})), &resolved);
    let found: Vec<_> = outcome
        .manifest
        .pull_secrets
        .iter()
        .map(|secret| {
            (
                secret.registry.as_str(),
                secret.username.as_str(),
                secret.password.as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("other", "u", "p"),
            ("registry.example", "user", "pa:ss"),
            ("old.example", "a", "b")
        ]
    );
    assert_eq!(
        outcome.notices.len(),
        2,
        "one for the missing, one for the one of another kind"
    );
}

#[test]
fn names_are_resolved_as_the_pod_asks() {
    let config = PodsConfig {
        cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
        ..PodsConfig::default()
    };
    let manifest = |spec: Value| {
        let mut spec = spec;
        spec["containers"] = json!([]);
        build(&pod(spec), &Resolved::default(), &config, &CellFacts::default()).manifest
    };
    let first = manifest(json!({ "subdomain": "sub", "dnsConfig": {
        "searches": ["extra"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } }));
    assert_eq!(first.dns.servers, ["10.96.0.10"]);
    assert_eq!(
        first.dns.searches,
        [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "extra"
        ]
    );
    assert_eq!(first.dns.options, ["ndots:2", "edns0"]);
    assert_eq!(first.fqdn.as_deref(), Some("web-0.sub.shop.svc.cluster.local"));
    assert_eq!(first.hostname, "web-0");
    assert!(manifest(json!({ "dnsPolicy": "Default" })).dns.servers.is_empty());
    assert!(manifest(json!({ "hostNetwork": true })).dns.servers.is_empty());
    let with_host = manifest(json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }));
    assert_eq!(with_host.dns.servers, ["10.96.0.10"]);
    let none = manifest(json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.1.1.1"] } }));
    assert_eq!(none.dns.servers, ["1.1.1.1"]);
    assert!(none.dns.searches.is_empty());
}

#[test]
fn probes_hooks_and_security_reach_the_host() {
    let outcome = built(
        &one(json!({
            "ports": [{ "name": "web", "containerPort": 8080 }],
            "livenessProbe": { "httpGet": { "port": "web", "path": "live" }, "periodSeconds": 3 },
            "readinessProbe": { "tcpSocket": { "port": 8080 } },
            "lifecycle": { "preStop": { "sleep": { "seconds": 5 } } },
            "securityContext": { "runAsUser": 7, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
                "seccompProfile": { "type": "RuntimeDefault" } },
        })),
        &objects(),
    );
    let container = &outcome.manifest.containers[0];
    let liveness = container.liveness.as_ref().expect("a probe");
    assert!(matches!(&liveness.handler, Handler::HttpGet { port: 8080, path, .. } if path == "/live"));
    assert_eq!(
        (
            liveness.period_seconds,
            liveness.timeout_seconds,
            liveness.failure_threshold
        ),
        (3, 1, 3)
    );
    assert_eq!(container.pre_stop, Some(Handler::Sleep { seconds: 5 }));
    assert_eq!(container.security.run_as_user, Some(7));
    assert_eq!(container.security.drop_capabilities, ["ALL"]);
    assert!(container.security.read_only_root_filesystem);

    let bad = built(
        &one(json!({ "livenessProbe": { "tcpSocket": { "port": "nope" } } })),
        &objects(),
    );
    assert!(
        bad.manifest.containers[0]
            .config_error
            .as_ref()
            .expect("an error")
            .contains("nope")
    );
}

#[test]
fn everything_a_pod_refers_to_is_found_or_it_would_start_without() {
    let pod = pod(json!({
        "containers": [{ "name": "main", "image": "i",
            "envFrom": [{ "configMapRef": { "name": "a" } }, { "secretRef": { "name": "b" } }],
            "env": [
                { "name": "X", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } },
                { "name": "Y", "valueFrom": { "secretKeyRef": { "name": "d", "key": "k" } } } ] }],
        "initContainers": [{ "name": "first", "image": "i", "envFrom": [{ "configMapRef": { "name": "e" } }] }],
        "imagePullSecrets": [{ "name": "f" }],
        "volumes": [
            { "name": "v1", "configMap": { "name": "g" } },
            { "name": "v2", "secret": { "secretName": "h" } },
            { "name": "v3", "projected": { "sources": [
                { "configMap": { "name": "i" } }, { "secret": { "name": "j" } },
                { "serviceAccountToken": { "path": "t", "audience": "vault", "expirationSeconds": 600 } } ] } } ],
    }));
    let refs = References::of(&pod);
    let names = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join("");
    assert_eq!(
        (names(&refs.config_maps).as_str(), names(&refs.secrets).as_str()),
        ("acegi", "bdfhj")
    );
    assert_eq!(refs.service_account, "default");
    assert_eq!(refs.tokens.len(), 1);
}
