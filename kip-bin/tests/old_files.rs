//! Configurations in the shape the old Kip's manifests had, and the command that checks them.
#![cfg(feature = "aws")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/samples")
        .join(name)
}

/// Runs `kip` with an environment that has nothing in it but these.
fn kip(args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kip"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("kip starts")
}

fn check(file: &Path) -> Output {
    kip(
        &[
            "config",
            "check",
            "--provider-config",
            &file.display().to_string(),
        ],
        &[],
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The keys that `kip config check` says have no effect.
fn warned(done: &Output) -> Vec<String> {
    text(&done.stderr)
        .lines()
        .map(|line| {
            let warning = line.strip_prefix("warning: ").expect("only warnings");
            let (key, why) = warning
                .split_once(": has no effect: ")
                .expect("a key without effect");
            assert!(
                why.split_whitespace().count() >= 4,
                "{key} says nothing of what to do: {why}"
            );
            key.to_owned()
        })
        .collect()
}

#[test]
fn an_old_file_is_accepted_as_it_is_and_what_lost_its_meaning_is_named() {
    let eks = check(&sample("eks.yaml"));
    assert!(eks.status.success(), "{}", text(&eks.stderr));
    assert_eq!(
        warned(&eks),
        [
            "cells.standbyCells",
            "cells.itzo.url",
            "cells.itzo.version",
            "cells.statusInterval",
            "cells.healthcheck.status",
            "etcd",
        ]
    );

    let json = check(&sample("json.json"));
    assert!(
        json.status.success() && json.stderr.is_empty(),
        "{}",
        text(&json.stderr)
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("provider.yaml");
    let old = std::fs::read_to_string(sample("cloud-init.yaml")).unwrap();
    let cloud_init = sample("cloud-init-file.yaml").display().to_string();
    std::fs::write(&file, old.replace("CLOUD_INIT", &cloud_init)).unwrap();
    let done = check(&file);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let keys = warned(&done);
    for key in [
        "cloud.aws.ecsClusterName",
        "cells.healthcheck.cloudAPI",
        "cells.cellConfig.imageCacheEndpoint",
        "cells.cellConfig.itzoFlag-use-overlayfs",
        "etcd",
        "testing",
    ] {
        assert!(keys.iter().any(|warned| warned == key), "{key} {keys:?}");
    }
}

#[test]
fn a_template_that_was_never_filled_in_is_told_all_it_lacks_at_once() {
    let done = check(&sample("template.yaml"));
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stdout.is_empty(), "{}", text(&done.stdout));
    let said = text(&done.stderr);
    for part in [
        "4 problems in ",
        "cloud.aws.vpcID: still says FILL_IN",
        "cloud.aws.subnetID: still says FILL_IN",
        "cells.extraSecurityGroups[0]: still says FILL_IN",
        "cells.bootImageSpec: name the boot image",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn a_start_that_would_ignore_what_was_asked_for_ends_with_every_reason() {
    let json = sample("json.json").display().to_string();
    let done = kip(
        &[
            "--provider",
            "kip",
            "--provider-config",
            &json,
            "--os",
            "Windows",
            "--debug-server",
        ],
        &[
            ("MOCK_CLOUD_API", "true"),
            ("OCAGENT_ENDPOINT", "localhost:55678"),
            ("KUBELET_PORT", ""),
        ],
    );
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stderr);
    for part in [
        "--os cannot be honoured",
        "MOCK_CLOUD_API cannot be honoured",
        "--debug-server has no effect",
        "OCAGENT_ENDPOINT has no effect",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }

    let done = kip(
        &["run", "--provider-config", &json],
        &[("AWS_DEFAULT_REGION", "eu-west-1"), ("MOCK_CLOUD_API", "false")],
    );
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stderr);
    let done = kip(
        &["preflight", "--provider-config", &json],
        &[
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ],
    );
    assert_eq!(done.status.code(), Some(1));
    assert!(
        text(&done.stdout).contains("AWS_DEFAULT_REGION says eu-west-1"),
        "{}",
        text(&done.stdout)
    );
    assert!(
        said.contains("AWS_DEFAULT_REGION says eu-west-1, cloud.aws.region says us-east-1"),
        "{said}"
    );
}
