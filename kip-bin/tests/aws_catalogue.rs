//! `kip size` and `kip catalogue` over what is compiled in about EC2: no account, no credentials, no network.
#![cfg(feature = "aws")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `kip` with an environment that has nothing in it.
fn kip(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kip"))
        .args(args)
        .env_clear()
        .output()
        .expect("kip starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/ec2.yaml")
        .display()
        .to_string()
}

#[test]
fn what_a_pod_would_cost_on_ec2_is_told_without_an_account() {
    let example = example();
    let args = ["size", "-f", &example, "--cloud", "aws", "--region", "us-east-1"];
    let done = kip(&[&args[..], &["-o", "json"]].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    let items = answer["items"].as_array().unwrap();
    let found: Vec<(&str, &str)> = items
        .iter()
        .map(|item| {
            (
                item["offering"].as_str().unwrap(),
                item["pricePerHour"].as_str().unwrap(),
            )
        })
        .collect();
    let (offering, price) = found[2];
    assert!(
        offering.starts_with("g6.xlarge/") && price == "0.804800",
        "{found:?}"
    );
    let (offering, price) = found[3];
    assert!(
        offering.starts_with("m5.xlarge/") && price == "0.192000",
        "{found:?}"
    );
    assert!(found[1].0.ends_with("/spot"), "{found:?}");

    assert!(found[4].0.ends_with("/spot"), "{found:?}");
    let smaller = items[4]["smaller"].as_str().unwrap_or_default();
    assert!(smaller.contains("would cut the price"), "{}", items[4]);

    let done = kip(&args);
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert!(out.contains("is the cheapest that fits"), "{out}");
    let asks = "default/scratch: the pod asks for architecture amd64; capacity type on-demand or spot; labels \
                karpenter.k8s.aws/instance-cpu-manufacturer in (amd, intel) and karpenter.k8s.aws/instance-local-nvme > 99; a smaller size";
    assert!(out.contains(asks), "{out}");
    assert!(
        out.contains("not taken for default/web, what came closest first"),
        "{out}"
    );
    assert!(err.contains("2026-07-20; spot prices are estimates"), "{err}");
}

/// Every way to ask for what there is not, with the words that lead out of it.
#[test]
fn what_cannot_be_had_is_refused_before_it_costs_anything_with_what_would_work() {
    let folder = tempfile::tempdir().unwrap();
    let said = |name: &str, annotations: &str, selector: &str, limits: &str| {
        let file = folder.path().join(format!("{name}.yaml"));
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, annotations: {{{annotations}}}}}, \
             spec: {{nodeSelector: {{{selector}}}, containers: [{{name: c, image: i, resources: {{limits: {{{limits}}}}}}}]}}}}"
        );
        std::fs::write(&file, pod).unwrap();
        let file = file.display().to_string();
        let done = kip(&["size", "-f", &file, "--cloud", "aws", "--region", "us-east-1"]);
        (done.status.code(), text(&done.stdout))
    };
    for (name, annotations, selector, limits, part) in [
        (
            "no-such-type",
            "pod.elotl.co/instance-type: 'c77g.*'",
            "",
            "cpu: 1",
            "called c77g.*; there are c7a.*, ",
        ),
        (
            "not-in-zone",
            "pod.elotl.co/instance-type: m5.large",
            "topology.kubernetes.io/zone: us-east-1e",
            "cpu: 1",
            "it would fit in us-east-1a, us-east-1b",
        ),
        (
            "too-many-gpus",
            "",
            "",
            "nvidia.com/gpu: 99",
            "have too little nvidia.com/gpu (largest 8, needs 99)",
        ),
        (
            "no-such-gpu",
            "",
            "karpenter.k8s.aws/instance-gpu-name: t5",
            "nvidia.com/gpu: 1",
            "(others are A100, ",
        ),
        (
            "no-number",
            "pod.elotl.co/volume-size: big",
            "",
            "cpu: 1",
            "Annotation pod.elotl.co/volume-size: ",
        ),
        (
            "no-such-label",
            "",
            "karpenter.k8s.aws/instance-network-bandwidth: '100'",
            "cpu: 1",
            "which no instance has; there are karpenter.k8s.aws/instance-accelerator-count, ",
        ),
        (
            "at-odds",
            "pod.elotl.co/launch-type: spot",
            "karpenter.sh/capacity-type: on-demand",
            "cpu: 1",
            "Annotation pod.elotl.co/launch-type allows spot, but",
        ),
        (
            "mac",
            "pod.elotl.co/instance-type: mac2.metal",
            "",
            "cpu: 1",
            "runs macOS",
        ),
    ] {
        let (code, out) = said(name, annotations, selector, limits);
        assert_eq!(code, Some(1), "{name}: {out}");
        assert!(out.contains(part), "{name}: {out}");
    }
    let (code, out) = said("misspelled", "pod.elotl.co/instance-typ: m5.large", "", "cpu: 1");
    assert_eq!(code, Some(0), "it runs all the same: {out}");
    assert!(
        out.contains("warning: Annotation pod.elotl.co/instance-typ has no effect"),
        "{out}"
    );
}

#[test]
fn the_compatibility_mode_takes_what_the_old_kip_took() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod.yaml");
    std::fs::write(
        &file,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i, \
         resources: {limits: {cpu: '1', memory: 512Mi}}}]}}",
    )
    .unwrap();
    let file = file.display().to_string();
    let args = ["size", "-f", &file, "--cloud", "aws", "--region", "us-east-1"];
    let classic = kip(&[&args[..], &["--classic"]].concat());
    assert!(
        text(&classic.stdout).contains("m1.small/"),
        "{}",
        text(&classic.stdout)
    );
    let today = kip(&args);
    assert!(
        text(&today.stdout).contains("t3a.small/"),
        "{}",
        text(&today.stdout)
    );
}

#[test]
fn a_region_that_is_not_known_is_named_with_those_that_are() {
    let done = kip(&[
        "size",
        "-f",
        &example(),
        "--cloud",
        "aws",
        "--region",
        "us-east-9",
    ]);
    assert_eq!(done.status.code(), Some(1));
    let message = text(&done.stderr);
    assert!(message.contains("--region"), "{message}");
    assert!(
        message.contains("\"us-east-9\" is not known; known are af-south-1, "),
        "{message}"
    );

    let done = kip(&["size", "-f", &example(), "--cloud", "aws"]);
    assert_eq!(done.status.code(), Some(2), "the command line is wrong");
    assert!(text(&done.stderr).contains("--region"), "{}", text(&done.stderr));
}

#[test]
fn prices_of_another_region_are_not_passed_off_as_its_own() {
    let done = kip(&["catalogue", "--cloud", "aws", "--region", "eu-west-1"]);
    let message = text(&done.stderr);
    assert!(
        message.contains("prices of us-east-1, which are not this region's own"),
        "{message}"
    );
}

#[test]
fn the_catalogue_says_of_which_day_it_is_and_how_much_is_in_it() {
    let done = kip(&["catalogue", "--cloud", "aws", "-o", "json"]);
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(answer["typesOf"], "2026-10-27 (moto 5.2.5)");
    assert_eq!(answer["pricesOf"], "2026-07-20 (us-east-1)");
    assert_eq!(
        (&answer["instanceTypes"], &answer["withAPrice"]),
        (&"1386".into(), &"1340".into())
    );

    let list = ["catalogue", "--cloud", "aws", "--region", "us-east-1", "--types"];
    let done = kip(&[&list[..], &["m5.*"]].concat());
    let out = text(&done.stdout);
    assert!(
        out.contains("m5.large") && out.contains("$0.0960/h") && !out.contains("m5a.large"),
        "{out}"
    );
    let done = kip(&[&list[..], &["c99.*"]].concat());
    assert_eq!(done.status.code(), Some(1));
    assert!(
        text(&done.stderr).contains("no type of us-east-1 matches c99.*"),
        "{}",
        text(&done.stderr)
    );
}
