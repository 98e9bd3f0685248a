//! `kip preflight` as scripts see it: exit code, JSON, and what a person reads.
#![cfg(feature = "aws")]

use std::process::{Command, Output};

use serde_json::Value;

/// An endpoint at which nobody listens.
const CONFIG: &str = "
cloud:
  aws: {region: us-east-1, accessKeyID: AKIATEST, secretAccessKey: hush, vpcID: vpc-1, endpointURL: 'http://127.0.0.1:1'}
cells:
  bootImageSpec: {imageIDs: ami-1}
";

fn preflight(config: &str, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("provider.yaml");
    std::fs::write(&file, config).expect("it is written");
    Command::new(env!("CARGO_BIN_EXE_kip"))
        .args(["preflight", "--provider-config"])
        .arg(&file)
        .args(more)
        .env_clear()
        .env("HOME", dir.path())
        .output()
        .expect("kip starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A pipeline that rolls Kip out stops here, or pods find out.
#[test]
fn what_stands_in_the_way_ends_with_exit_code_1_and_says_what_to_do() {
    let done = preflight(CONFIG, &["-o", "json"]);
    assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    let checks = answer["checks"].as_array().unwrap();
    let of = |what: &str| checks.iter().find(|check| check["check"] == what).unwrap();
    assert_eq!(of("cluster")["result"], "unknown");
    assert_eq!(of("region")["found"], "us-east-1");
    assert_eq!(of("subnets")["result"], "failed");
    assert!(
        of("subnets")["remedy"].as_str().unwrap().contains("endpointURL"),
        "{answer}"
    );

    let done = preflight(CONFIG, &[]);
    let shown = text(&done.stdout);
    assert!(shown.starts_with("CHECK ") && shown.contains("FAILED"), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn a_cloud_without_checks_is_told_so() {
    let done = preflight("{cloud: {local: {}}}", &[]);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        text(&done.stderr).contains("cloud.local"),
        "{}",
        text(&done.stderr)
    );
}
