//! The flags and environment variables.

use clap::Command;

use super::{Found, Now, PAGE, assert_same, check, quoted, rows, table};
use crate::args;
use crate::config;

/// Every flag of the old Kip with a value as it was written then.
const FLAGS: [(&str, &str); 27] = [
    ("--provider", "kip"),
    ("--provider-config", "/etc/kip/provider.yaml"),
    ("--kubeconfig", "/etc/kubeconfig"),
    ("--namespace", "default"),
    ("--nodename", "kip-provider-0"),
    ("--cluster-dns", "10.96.0.10"),
    ("--cluster-domain", "example.local"),
    ("--metrics-addr", ":10255"),
    ("--taint", "example.com/kip"),
    ("--disable-taint", "t"),
    ("--pod-sync-workers", "10"),
    ("--debug-server", "true"),
    ("--network-agent-secret", "kube-system/kip-network-agent"),
    ("--network-agent-kubeconfig", "/kubeconfig"),
    ("--instance-data-path", "/etc/instance-data.json"),
    ("--os", "Windows"),
    ("--enable-node-lease", "true"),
    ("--full-resync-period", "1m"),
    ("--startup-timeout", "30s"),
    ("--kube-api-qps", "50"),
    ("--kube-api-burst", "100"),
    ("--klog.<flag>", "5"),
    ("--trace-exporter", "ocagent"),
    ("--trace-service-name", "kip"),
    ("--trace-tag", "a=b"),
    ("--trace-sample-rate", "always"),
    ("--trace-zpages-addr", "localhost:55680"),
];

/// Every environment variable of the old Kip and of its manifests, with a value as it was written then.
const VARIABLES: [(&str, &str); 34] = [
    ("KUBECONFIG", "/etc/kubeconfig"),
    ("DEFAULTNODE_NAME", "kip-provider-0"),
    ("KUBELET_PORT", "10251"),
    ("MASTER_URI", "https://10.0.0.1:6443"),
    ("VKUBELET_POD_IP", "10.0.0.2"),
    ("VKUBELET_TAINT_KEY", "example.com/kip"),
    ("VKUBELET_TAINT_VALUE", "yes"),
    ("VKUBELET_TAINT_EFFECT", "NoExecute"),
    ("APISERVER_CERT_LOCATION", "/kip.crt"),
    ("APISERVER_KEY_LOCATION", "/kip.key"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "hush"),
    ("HTTP_PROXY", "http://10.0.0.3:3128"),
    ("HTTPS_PROXY", "http://10.0.0.3:3128"),
    ("OCAGENT_ENDPOINT", "localhost:55678"),
    ("OCAGENT_INSECURE", "1"),
    ("MOCK_CLOUD_API", "true"),
    ("AZURE_TENANT_ID", "a"),
    ("AZURE_CLIENT_ID", "b"),
    ("AZURE_CLIENT_SECRET", "hush"),
    ("SUBSCRIPTION_ID", "c"),
    ("GOOGLE_CLOUD_PROJECT", "p"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "/key.json"),
    ("GCE_CLIENT_EMAIL", "a@example.com"),
    ("GCE_PRIVATE_KEY", "hush"),
    ("NODE_NAME", "a"),
    ("VKUBELET_NODE_NAME", "a"),
    ("CERT_DIR", "/pki"),
    ("CSR_NAME", "kip"),
    ("INTERNAL_IP", "10.0.0.4"),
    ("IAM_ACCESS_KEY_ID", "AKIAEXAMPLE"),
    ("IAM_SECRET_ACCESS_KEY", "hush"),
];

/// Read by the AWS SDK and by the HTTP client below it, not by a flag: tests of `kip-aws` hold these.
const OF_THE_SDK: [&str; 3] = ["AWS_SECRET_ACCESS_KEY", "HTTP_PROXY", "HTTPS_PROXY"];

/// What they mean is what is there anyway, so that nothing shows.
const UNSEEN: [&str; 1] = ["--provider"];

/// This Kip's own variables.
const NEW: [&str; 3] = ["KIP_LOG", "KIP_LOG_FORMAT", "POD_NAMESPACE"];

/// What becomes of a command line of the old Kip with one more flag.
fn found(name: &str, flag: &str) -> Found {
    let line = |flags: &[&str]| {
        let config = ["--provider-config", "/provider.yaml"];
        let config = if name == "--provider-config" {
            &[][..]
        } else {
            &config[..]
        };
        args::run_args(&[config, flags].concat())
    };
    let run = match line(&[flag]) {
        Ok(run) => run,
        Err(error) => return Found::Refused(error.to_string()),
    };
    let name = name.split_once('<').map_or(name, |(before, _)| before);
    let mine = |all: Vec<String>| all.into_iter().find(|text| text.starts_with(name));
    if let Some(text) = mine(run.legacy.problems()) {
        return Found::Refused(text);
    }
    if let Some(text) = mine(run.legacy.warnings()) {
        return Found::Warned(text);
    }
    let shows = line(&[]).map_or(true, |without| format!("{without:?}") != format!("{run:?}"));
    if shows || UNSEEN.contains(&name) {
        Found::Taken
    } else {
        Found::Unseen
    }
}

fn command() -> Command {
    let all = args::command();
    all.find_subcommand("run").expect("kip run").clone()
}

#[test]
fn every_flag_of_the_old_command_is_treated_as_the_page_says() {
    let rows = rows("Flags");
    assert_same(&rows, FLAGS.map(|(name, _)| name));
    check(&rows, |row| {
        let (name, value) = FLAGS
            .iter()
            .find(|(name, _)| *name == row.name)
            .expect("compared");
        let flag = format!("{}={value}", name.replace("<flag>", "v"));
        found(name, &flag)
    });
}

#[test]
fn every_variable_of_the_old_deployment_is_treated_as_the_page_says() {
    let rows = rows("Environment variables");
    assert_same(&rows, VARIABLES.map(|(name, _)| name));
    let run = command();
    check(&rows, |row| {
        let (name, value) = VARIABLES
            .iter()
            .find(|(name, _)| *name == row.name)
            .expect("compared");
        let reader = run
            .get_arguments()
            .find(|arg| arg.get_env().is_some_and(|env| env == *name));
        match reader.and_then(clap::Arg::get_long) {
            // The endpoint's key and certificate are needed together.
            Some("kubelet-certificate" | "kubelet-key") => Found::Taken,
            Some(long) => found(name, &format!("--{long}={value}")),
            None if OF_THE_SDK.contains(name) => Found::Taken,
            None if row.now == Now::Refused => of_another_cloud(&row.remark),
            None => Found::Unseen,
        }
    });
}

/// The section of the file that a remark names is refused, so its variables are never read.
fn of_another_cloud(remark: &str) -> Found {
    let text = match quoted(remark).next() {
        Some("cloud.azure") => super::config::AZURE,
        Some("cloud.gce") => super::config::GCE,
        other => panic!("{other:?} is no section of a cloud"),
    };
    match config::parse(text, "provider.yaml") {
        Ok(_) => Found::Taken,
        Err(problems) => Found::Refused(problems.to_string()),
    }
}

#[test]
fn a_flag_that_help_does_not_show_is_on_the_page() {
    let rows = [rows("Flags"), rows("Environment variables")].concat();
    let is_there = |name: &str| rows.iter().any(|row| row.name == name);
    for arg in command().get_arguments() {
        let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
        let long = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
        assert!(
            env.as_deref()
                .is_none_or(|env| is_there(env) || NEW.contains(&env)),
            "{env:?}"
        );
        let told = env.is_some() || is_there(&long) || long == "--dropped-log-flags";
        assert!(!arg.is_hide_set() || told, "{long}");
    }
}

#[test]
fn switches_are_taken_in_every_way_go_programs_take_them() {
    for (flag, expected) in [
        ("--disable-taint", true),
        ("--disable-taint=1", true),
        ("--disable-taint=True", true),
        ("--disable-taint=f", false),
    ] {
        let run = args::run_args(&["--provider-config", "x", flag]).unwrap();
        assert_eq!(run.disable_taint, expected, "{flag}");
    }
}

/// Whether this is a command line of today.
fn is_command(line: &str) -> bool {
    args::command()
        .try_get_matches_from(line.split_whitespace())
        .is_ok()
}

#[test]
fn a_command_that_the_page_names_in_place_of_kipctl_is_one() {
    for cells in table("kipctl") {
        let [old, new] = cells[..] else {
            panic!("{cells:?}")
        };
        assert!(quoted(old).all(|text| text.starts_with("kipctl")), "{old}");
        for line in quoted(new).filter(|line| line.starts_with("kip ")) {
            assert!(is_command(line), "{line}");
        }
    }
}

#[test]
fn the_commands_of_the_three_steps_are_commands() {
    let lines = PAGE
        .lines()
        .map(|line| line.split('#').next().expect("a beginning").trim())
        .flat_map(|line| line.split(" | "))
        .map(str::trim)
        .filter(|line| line.starts_with("kip "));
    let wrong: Vec<&str> = lines.clone().filter(|line| !is_command(line)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(lines.count() >= 2);
}
