//! `kip size --live` and `kip catalogue --live`, which ask EC2: here the fake one.
#![cfg(feature = "aws")]

use std::path::PathBuf;
use std::process::Output;

use kip_testkit::ec2::{Ec2Fault, FakeEc2, Size};
use serde_json::Value;
use tempfile::TempDir;

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i, \
                   resources: {limits: {cpu: '3', memory: 4Gi}}}]}}";

/// A fake EC2 with a type that no list knows, a configuration that leads there, and a pod.
struct Setting {
    ec2: FakeEc2,
    folder: TempDir,
}

impl Setting {
    async fn new() -> Self {
        let ec2 = FakeEc2::start().await.expect("the fake EC2 starts");
        let size = Size {
            architecture: "x86_64",
            vcpus: 4,
            mib: 8192,
            burstable: false,
            gpus: None,
        };
        ec2.state()
            .market
            .sell("m99.xlarge", size, "0.0500000000", "0.020000");
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "cloud: {{aws: {{region: us-east-1, accessKeyID: AKIATEST, secretAccessKey: s, vpcID: vpc-1, subnetIDs: [subnet-b], \
             endpointURL: '{url}', pricingEndpointURL: '{url}'}}}}\ncells: {{bootImageSpec: {{imageIDs: ami-0amd}}}}\n",
            url = ec2.url()
        );
        std::fs::write(folder.path().join("provider.yaml"), config).expect("written");
        std::fs::write(folder.path().join("pod.yaml"), POD).expect("written");
        Self { ec2, folder }
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.display().to_string()
    }

    async fn kip(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kip"));
        command
            .args(args)
            .args(["--provider-config", &self.file("provider.yaml")]);
        command
            .env_clear()
            .kill_on_drop(true)
            .output()
            .await
            .expect("kip starts")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_pod_is_sized_by_what_the_configured_subnets_images_and_prices_allow() {
    let setting = Setting::new().await;
    let pod = setting.file("pod.yaml");
    let done = setting.kip(&["size", "-f", &pod, "--live", "-o", "json"]).await;
    let notes = text(&done.stderr);
    assert!(done.status.success(), "{notes}");
    let answer: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let item = &answer["items"][0];
    assert_eq!(
        item["offering"], "m99.xlarge/us-east-1b/on-demand",
        "the one subnet is there"
    );
    assert_eq!(item["pricePerHour"], "0.050000");
    let all: Vec<&str> = item["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["offering"].as_str())
        .collect();
    assert!(
        all.iter()
            .all(|id| id.contains("/us-east-1b/") && !id.starts_with("t4g.")),
        "{all:?}"
    );
    assert!(
        notes.contains("as EC2 says now about us-east-1: instance types, "),
        "{notes}"
    );
    assert!(!notes.contains("assumed"), "{notes}");
    assert!(setting.ec2.calls("RunInstances").is_empty());
}

/// Who reads a price must know whose it is, and what was not looked at.
#[tokio::test]
async fn without_asking_it_says_whose_prices_these_are_and_what_is_assumed() {
    let setting = Setting::new().await;
    let done = setting.kip(&["size", "-f", &setting.file("pod.yaml")]).await;
    let notes = text(&done.stderr);
    assert!(done.status.success(), "{notes}");
    assert!(notes.contains("compiled in: EC2's types of "), "{notes}");
    assert!(
        notes.contains("all zones of us-east-1 and all architectures are assumed: --live asks EC2"),
        "{notes}"
    );
    assert!(setting.ec2.calls("DescribeSubnets").is_empty());
}

#[tokio::test]
async fn what_is_new_at_ec2_is_told_and_what_it_did_not_tell_too() {
    let setting = Setting::new().await;
    let args = ["catalogue", "--cloud", "aws", "--region", "us-east-1", "--live"];
    let done = setting.kip(&[&args[..], &["-o", "json"]].concat()).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    let answer: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let told = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    assert!(
        told("typesNow").starts_with("4 types, 1 of them new; "),
        "{answer}"
    );
    assert!(
        told("pricesNow").starts_with("4 prices, 1 of them new, "),
        "{answer}"
    );

    let done = setting.kip(&[&args[..], &["--types", "m99.*"]].concat()).await;
    let out = text(&done.stdout);
    assert!(
        out.contains("m99.xlarge") && out.contains("$0.0500/h") && out.contains("$0.0200/h"),
        "{out}"
    );

    setting
        .ec2
        .fail("GetProducts", [Ec2Fault::Refused("AccessDeniedException", 400)]);
    let done = setting.kip(&args).await;
    let notes = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{notes}");
    assert!(
        notes.contains("on-demand prices are not of now but of 2026-07-20"),
        "{notes}"
    );
    assert!(notes.contains("AccessDeniedException"), "{notes}");
    assert!(text(&done.stdout).contains("4 types"), "the rest is told");
}

#[tokio::test]
async fn credentials_that_are_refused_are_named() {
    let setting = Setting::new().await;
    let config = std::fs::read_to_string(setting.file("provider.yaml")).expect("read");
    let config = config.replace("AKIATEST", "AKIAEXPIRED");
    std::fs::write(setting.file("provider.yaml"), config).expect("written");
    let done = setting
        .kip(&["size", "-f", &setting.file("pod.yaml"), "--live"])
        .await;
    assert_eq!(done.status.code(), Some(1));
    assert!(
        text(&done.stderr).contains("RequestExpired"),
        "{}",
        text(&done.stderr)
    );
}
