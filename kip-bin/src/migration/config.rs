//! The configuration keys.

use serde_norway::Value;

use super::{Found, assert_same, check, rows};
use crate::config::{self, Loaded, Problem, Problems};

/// A file that runs, for what is tried in it.
const AWS: &str = "{cloud: {aws: {region: us-east-1}}, cells: {bootImageSpec: {imageIDs: ami-1}}}";
pub(super) const GCE: &str = "{cloud: {gce: {}}}";
pub(super) const AZURE: &str = "{cloud: {azure: {subscriptionID: a, location: East US, resourceGroup: b}}}";

/// Every key the old Kip knew, with a value as it was written then.
const EXAMPLES: [(&str, &str); 64] = [
    ("apiVersion", "v1"),
    ("cloud.aws.region", "eu-west-1"),
    ("cloud.aws.accessKeyID", "AKIAEXAMPLE"),
    ("cloud.aws.secretAccessKey", "hush"),
    ("cloud.aws.vpcID", "vpc-1"),
    ("cloud.aws.subnetID", "subnet-1"),
    ("cloud.aws.ecsClusterName", "kip"),
    ("cloud.aws.endpointURL", "https://ec2.example.com"),
    ("cloud.aws.insecureTLSSkipVerify", "true"),
    ("cloud.gce.projectID", "p"),
    ("cloud.gce.credentialsFile", "/key.json"),
    ("cloud.gce.credentials.clientEmail", "a@example.com"),
    ("cloud.gce.credentials.privateKey", "hush"),
    ("cloud.gce.zone", "us-central1-a"),
    ("cloud.gce.vpcName", "default"),
    ("cloud.gce.subnetName", "default"),
    ("cloud.azure.subscriptionID", "a"),
    ("cloud.azure.location", "East US"),
    ("cloud.azure.resourceGroup", "b"),
    ("cloud.azure.tenantID", "c"),
    ("cloud.azure.clientID", "d"),
    ("cloud.azure.clientSecret", "hush"),
    ("cloud.azure.virtualNetworkName", "e"),
    ("cloud.azure.subnetName", "f"),
    ("etcd.internal.dataDir", "/opt/kip/data"),
    ("etcd.internal.configFile", "/etc/kip/etcd.yaml"),
    ("etcd.configFile", "/etc/kip/etcd.yaml"),
    ("etcd.client.endpoints", "[http://127.0.0.1:2379]"),
    ("etcd.client.certFile", "/a"),
    ("etcd.client.keyFile", "/b"),
    ("etcd.client.caFile", "/c"),
    ("cells.bootImageSpec.owners", "099720109477"),
    ("cells.bootImageSpec.executableUsers", "self"),
    ("cells.bootImageSpec.imageIDs", "ami-1 ami-2"),
    (
        "cells.bootImageSpec.filters",
        "name=kip-* architecture=x86_64,arm64",
    ),
    ("cells.bootImageSpec.project", "elotl-kip"),
    ("cells.bootImageSpec.image", "elotl-kip-latest"),
    ("cells.bootImageSpec.name", "elotl-kip-*"),
    ("cells.defaultInstanceType", "t3.nano"),
    ("cells.defaultVolumeSize", "20G"),
    (
        "cells.standbyCells",
        "[{instanceType: t3.nano, count: 1, spot: false}]",
    ),
    ("cells.cloudInitFile", "/etc/kip/cloudinit.yaml"),
    ("cells.itzo.version", "latest"),
    ("cells.itzo.url", "https://example.com"),
    ("cells.extraCIDRs", "[10.20.0.0/16]"),
    ("cells.extraSecurityGroups", "[sg-1]"),
    ("cells.nametag", "vk"),
    ("cells.statusInterval", "5"),
    ("cells.healthcheck.status.healthyTimeout", "90"),
    ("cells.healthcheck.cloudAPI.healthyTimeout", "180"),
    ("cells.healthcheck.cloudAPI.interval", "60"),
    ("cells.privateIPOnly", "true"),
    ("cells.cellConfig.imageCacheEndpoint", "nfs.example.com"),
    ("cells.cellConfig.imageCacheMountDir", "/cache"),
    ("cells.cellConfig.imageCacheMountOpts", "ro"),
    ("cells.cellConfig.itzoFlag-<flag>", "true"),
    (
        "cells.defaultIAMPermissions",
        "arn:aws:iam::123456789012:instance-profile/cell",
    ),
    ("cells.useCloudParameterStore", "true"),
    ("kubelet.capacity", "{nvidia.com/gpu: 4}"),
    ("kubelet.cpu", "100"),
    ("kubelet.memory", "512Gi"),
    ("kubelet.pods", "200"),
    ("kubelet.labels", "{node.elotl.co/gpu-nvidia-tesla-t4: ''}"),
    ("testing.controllerID", "abc"),
];

/// What must stand beside a key for it to make sense.
const BESIDE: [(&str, &str, &str); 5] = [
    ("cloud.aws.accessKeyID", "cloud.aws.secretAccessKey", "hush"),
    (
        "cloud.aws.secretAccessKey",
        "cloud.aws.accessKeyID",
        "AKIAEXAMPLE",
    ),
    ("cloud.azure.virtualNetworkName", "cloud.azure.subnetName", "f"),
    ("cloud.gce.credentials.clientEmail", "cloud.gce.projectID", "p"),
    ("cloud.gce.credentials.privateKey", "cloud.gce.projectID", "p"),
];

/// Keys that name what is there anyway, so that nothing shows.
const UNSEEN: [&str; 1] = ["apiVersion"];

fn value(text: &str) -> Value {
    serde_norway::from_str(text).expect("an example is YAML")
}

/// Puts a value where a path says.
fn set(document: &mut Value, path: &str, new: Value) {
    let mut at = document;
    for key in path.split('.') {
        if !at.is_mapping() {
            *at = Value::Mapping(serde_norway::Mapping::new());
        }
        let mapping = at.as_mapping_mut().expect("just made one");
        at = mapping.entry(key.into()).or_insert(Value::Null);
    }
    *at = new;
}

fn parse(document: &Value) -> Result<Loaded, Problems> {
    let text = serde_norway::to_string(document).expect("a document");
    config::parse(&text, "provider.yaml")
}

/// Whether a finding is about a key: about itself, something in it, or all it is in.
fn is_about(finding: &Problem, key: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(&finding.path, key) || within(key, &finding.path)
}

/// What happens to a key with this value.
fn found(name: &str, text: &str) -> Found {
    let key = name.replace("<flag>", "use-anka");
    let base = match key.split('.').nth(1) {
        Some("gce") => GCE,
        Some("azure") => AZURE,
        _ => AWS,
    };
    let mut without = value(base);
    for (_, path, beside) in BESIDE.iter().filter(|(of, _, _)| *of == name) {
        set(&mut without, path, value(beside));
    }
    let mut with = without.clone();
    set(&mut with, &key, value(text));
    match parse(&with) {
        Err(problems) => {
            let strangers: Vec<_> = problems.list.iter().filter(|p| !is_about(p, &key)).collect();
            assert!(strangers.is_empty(), "{name}: {strangers:?}");
            let about = problems.list.first().expect("a problem");
            assert!(!about.message.contains("unknown key"), "{name}: {about}");
            Found::Refused(about.message.clone())
        }
        Ok(loaded) => match loaded.warnings.iter().find(|warning| is_about(warning, &key)) {
            Some(warning) => Found::Warned(warning.message.clone()),
            None if shows(&loaded, &without) || UNSEEN.contains(&name) => Found::Taken,
            None => Found::Unseen,
        },
    }
}

/// Whether the effective configuration differs from that of a document without the key.
fn shows(loaded: &Loaded, without: &Value) -> bool {
    let printed = config::print(&loaded.config).expect("it prints");
    match parse(without) {
        Ok(before) => config::print(&before.config).expect("it prints") != printed,
        // It makes good what is incomplete without it.
        Err(_) => true,
    }
}

#[test]
fn every_key_of_an_old_file_is_treated_as_the_page_says() {
    let rows = rows("Configuration keys");
    assert_same(&rows, EXAMPLES.map(|(name, _)| name));
    check(&rows, |row| {
        let (_, text) = EXAMPLES
            .iter()
            .find(|(name, _)| *name == row.name)
            .expect("compared");
        found(&row.name, text)
    });
}

#[test]
fn the_images_of_the_old_kip_and_no_image_at_all_are_refused_with_the_way_to_one() {
    for spec in ["{owners: 689494258501, filters: name=elotl-kip-*}", "{}"] {
        let Found::Refused(message) = found("cells.bootImageSpec", spec) else {
            panic!("{spec} is accepted");
        };
        assert!(message.contains("imageIDs: ami-0abc"), "{message}");
    }
}

#[test]
fn the_default_vpc_is_named_as_before() {
    assert_eq!(found("cloud.aws.vpcID", "default"), Found::Taken);
}

/// Sections of the file, for their lists of known keys.
const SECTIONS: [(&str, &str); 7] = [
    ("", AWS),
    ("cloud", AWS),
    ("cloud.aws", AWS),
    ("cloud.gce", GCE),
    (
        "cloud.gce.credentials",
        "{cloud: {gce: {projectID: p, credentials: {}}}}",
    ),
    ("cloud.azure", AZURE),
    ("cells", AWS),
];

#[test]
fn a_key_that_is_read_is_on_the_page_or_in_the_documentation() {
    let documented = [
        include_str!("../../../docs/configuration.md"),
        include_str!("../../../docs/ec2.md"),
    ]
    .concat();
    for (section, base) in SECTIONS {
        let join = |key: &str| match section {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        };
        let mut document = value(base);
        set(&mut document, &join("qqqqqqqqqq"), value("1"));
        let problems = parse(&document).expect_err("the key is unknown");
        let known = problems
            .list
            .iter()
            .find_map(|problem| problem.message.strip_prefix("unknown key; known here: "))
            .unwrap_or_else(|| panic!("{section}: {problems}"));
        for key in known.split(", ") {
            let key = join(key);
            let is_old = EXAMPLES
                .iter()
                .any(|(name, _)| *name == key || name.starts_with(&format!("{key}.")));
            let short = key.rsplit('.').next().expect("a name");
            let is_new =
                documented.contains(&format!("`{key}")) || documented.contains(&format!("`{short}`"));
            assert!(is_old || is_new, "{key} is nowhere described");
        }
    }
}
