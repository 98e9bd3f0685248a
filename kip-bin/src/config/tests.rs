use kip_core::model::Bytes;

use super::*;

fn problems(text: &str) -> Vec<String> {
    match parse(text, "provider.yaml") {
        Ok(_) => Vec::new(),
        Err(problems) => problems.list.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_defaults_are_what_the_golden_file_says_so_a_change_is_seen_in_review() {
    let config = parse("cloud: {local: {}}", "provider.yaml").unwrap().config;
    assert_eq!(print(&config).unwrap(), include_str!("default.yaml"));
    assert_eq!(
        print(&Config::local(Local::default())).unwrap(),
        include_str!("default.yaml")
    );
}

#[test]
fn what_is_printed_can_be_read_again() {
    let text = "
apiVersion: v1
cloud:
  local:
    dataDir: /data
    imageArchives: [/a.tar]
    bootDelay: 250ms
    offerings:
    - {type: t.small, cpu: 500m, memory: 512Mi, price: 0.0052, spotPrice: 0.001}
cells: {defaultInstanceType: t.small, defaultVolumeSize: 10G, nametag: a-1, extraCIDRs: [10.0.0.0/8]}
kubelet: {capacity: {nvidia.com/gpu: 4}, pods: 200, labels: {team: 7}}
sizing: {basis: requests, reserve: {percent: 7.5, fixed: 100Mi}, families: {t: {fixed: 0}}, surplusCPUHour: 0.04,
  burstable: baseline, instanceTypes: [m5.*, c5.large]}
orphans: {grace: 5m, dryRun: true}
";
    let first = parse(text, "provider.yaml").unwrap();
    assert_eq!(first.warnings, []);
    let printed = print(&first.config).unwrap();
    let second = parse(&printed, "printed").unwrap();
    assert_eq!(print(&second.config).unwrap(), printed);
    assert_eq!(first.config.cells.default_volume_size, Bytes(10_000_000_000));
    assert_eq!(first.config.kubelet.capacity["pods"], "200");
    assert_eq!(
        first.config.kubelet.capacity["cpu"], "20",
        "the others keep their defaults"
    );
    assert_eq!(
        first.config.kubelet.labels["team"], "7",
        "scalars are coerced to text"
    );
    let policy = first.config.sizing.policy(None);
    assert_eq!(policy.reserve.permille, 75);
    assert_eq!(policy.families["t"].permille, 75);
    assert_eq!(policy.families["t"].fixed, Bytes(0));
    assert_eq!(policy.surplus_cpu_hour.0, 40_000);
    assert_eq!(policy.burstable, kip_core::sizing::Burstable::Baseline);
    assert_eq!(policy.instance_types, ["m5.*", "c5.large"]);
}

#[test]
fn all_problems_are_told_at_once_each_with_its_path_and_its_fix() {
    let text = "
apiVersion: v2
cloud:
  local: {dataDir: relative, bootDelay: soon, speed: high}
  lokal: {}
cells:
  nametag: Not-A-Label
  defaultVolumeSize: 5X
  extraCIDRs: [10.0.0.0/33]
  defaultInstancetype: small
kubelet:
  capacity: {cpu: lots}
  labels: [a]
sizing: {basis: both, reserve: {percent: 99}, burstable: always, instanceTypes: [a b]}
orphans: {dryRun: perhaps}
speed: fast
";
    assert_eq!(
        problems(text),
        [
            "apiVersion: must be v1",
            "cloud.local.bootDelay: `soon` is not a duration such as `2s`",
            "cloud.local.speed: unknown field `speed`, expected one of `dataDir`, `imageArchives`, `agentPath`, `subnet`, \
             `bridge`, `offerings`, `registries`, `nameservers`, `bootDelay`",
            "cloud.local.dataDir: `relative` must be an absolute path",
            "cloud.lokal: unknown key; did you mean local?",
            "cells.nametag: must be at most 24 of a-z, 0-9 and -, begin with a letter and not end with -",
            "cells.defaultVolumeSize: must be a quantity such as 5Gi, not \"5X\"",
            "cells.extraCIDRs[0]: is no network; write one such as 10.0.0.0/8",
            "cells.defaultInstancetype: unknown key; did you mean defaultInstanceType?",
            "kubelet.capacity.cpu: \"lots\" is no quantity; write one such as 100, 500m or 100Gi",
            "kubelet.labels: must be a mapping, not a list",
            "sizing.reserve.percent: must be a number from 0 to 50 with at most three decimals, not \"99\"",
            "sizing.basis: must be limits or requests, not \"both\"",
            "sizing.burstable: must be surplus or baseline or never, not \"always\"",
            "sizing.instanceTypes: \"a b\" is no instance type; write names such as m5.large, or patterns such as m5.*",
            "orphans.dryRun: must be true or false, not \"perhaps\"",
            "speed: unknown key; known here: apiVersion, cells, cloud, etcd, kubelet, orphans, sizing, testing",
        ]
    );
}

#[test]
fn exactly_one_cloud_that_this_build_has() {
    assert_eq!(
        problems(""),
        ["cloud: names no cloud: write one of local, aws, gce, azure under it, such as `local: {}`"]
    );
    assert_eq!(
        problems("cloud: {local: {}, gce: {}}")[0],
        "cloud: names local and gce: keep exactly one"
    );
    assert_eq!(
        problems("cloud: {gce: {projectID: p}}"),
        [
            "cloud.gce: Google Compute Engine is not supported yet, only aws is: keep the old Kip there for now"
        ]
    );
}

#[test]
fn a_template_that_was_not_filled_in_is_named_key_by_key() {
    let text = "cloud: {gce: {projectID: FILL_IN, vpcName: FILL_IN}}\ncells: {nametag: FILL_IN}";
    let fix = "still says FILL_IN: put your value there, or remove the key";
    assert_eq!(
        problems(text),
        [
            format!("cloud.gce.projectID: {fix}"),
            format!("cloud.gce.vpcName: {fix}"),
            "cloud.gce: Google Compute Engine is not supported yet, only aws is: keep the old Kip there for now".to_owned(),
            format!("cells.nametag: {fix}"),
        ]
    );
}

#[test]
fn an_old_file_is_understood_and_what_lost_its_meaning_is_said() {
    let text = "
apiVersion: v1
cloud:
  local: {}
etcd: {internal: {dataDir: /opt/kip/data}}
cells:
  standbyCells: [{instanceType: t3.nano, count: 1}]
  itzo: {url: https://example.com, version: latest}
  statusInterval: 5
  healthcheck: {status: {healthyTimeout: 90}}
  useCloudParameterStore: false
  bootImageSpec: {owners: 689494258501}
testing: {controllerID: abc}
";
    let loaded = parse(text, "provider.yaml").unwrap();
    assert_eq!(loaded.config.cells.boot_image_spec["owners"], "689494258501");
    let paths: Vec<_> = loaded.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "cells.standbyCells",
            "cells.itzo.url",
            "cells.itzo.version",
            "cells.statusInterval",
            "cells.healthcheck.status",
            "etcd",
            "testing"
        ]
    );
}

#[test]
fn secrets_are_never_printed_nor_debugged() {
    let text = "{secretAccessKey: hush, accessKeyID: quiet, region: us-east-1}";
    let findings = Findings::default();
    let cloud = cloud::read(
        Section::of(
            "cloud",
            &serde_norway::from_str(&format!("aws: {text}")).unwrap(),
            &findings,
        ),
        &findings,
    )
    .unwrap();
    let shown = format!("{}{cloud:?}", serde_norway::to_string(&cloud).unwrap());
    assert!(
        shown.contains("********") && !shown.contains("hush") && !shown.contains("quiet"),
        "{shown}"
    );
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    assert!(problems("cloud: [")[0].starts_with("is neither YAML nor JSON:"));
    assert_eq!(problems("just text")[0], "must be a mapping, not text");
    assert!(
        problems("{\"cloud\": {\"local\": {}}}").is_empty(),
        "JSON is fine"
    );
    assert!(problems("cloud: {local: {}}\n---\nsecond: document").is_empty());
}
