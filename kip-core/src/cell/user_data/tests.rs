use proptest::prelude::*;
use serde_norway::Value;

use super::*;

fn config() -> BootConfig {
    serde_json::from_value(serde_json::json!({
        "version": 1, "cell": "c", "node": "n", "podUid": "u",
        "caPem": "ca", "certificatePem": "certificate", "privateKeyPem": "key",
    }))
    .unwrap()
}

fn download(name: &str) -> AgentDownload {
    AgentDownload::new(&format!("https://example.com/{name}"), &"0f".repeat(32)).unwrap()
}

fn made(options: &BootOptions) -> String {
    String::from_utf8(user_data(&config(), options).unwrap().as_bytes().to_vec()).unwrap()
}

/// The parts of an archive: type and content.
fn parts(text: &str) -> Vec<(String, String)> {
    assert!(text.is_ascii() && text.starts_with("#cloud-config-archive\n"));
    let parts: Vec<Value> = serde_norway::from_str(text).unwrap();
    let of = |part: &Value, key: &str| part[key].as_str().unwrap().to_owned();
    parts
        .iter()
        .map(|part| (of(part, "type"), of(part, "content")))
        .collect()
}

/// What images understand that have no full cloud-init.
#[test]
fn without_options_it_is_a_plain_cloud_config() {
    let text = made(&BootOptions::default());
    let body: serde_json::Value =
        serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    assert_eq!(body["write_files"][0]["path"], BOOT_CONFIG_PATH);
}

/// A user's command that fails or never ends must not keep the agent from its pod, nor may a user's file replace the cell's identity.
#[test]
fn the_agent_comes_before_the_users_part_and_kips_files_after_it() {
    let user = "#cloud-config\nruncmd: [exit 1]\n";
    let options = BootOptions {
        agent: BTreeMap::from([
            (Architecture::Amd64, download("a")),
            (Architecture::Arm64, download("b")),
        ]),
        cloud_init: Some(CloudInit::parse(user.as_bytes(), "x").unwrap()),
        ..BootOptions::default()
    };
    let parts = parts(&made(&options));
    let types: Vec<_> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        types,
        ["text/cloud-boothook", "text/cloud-config", "text/cloud-config"]
    );
    let script = &parts[0].1;
    assert!(
        script.starts_with("#cloud-boothook\n#!/bin/sh\n") && !script.contains('@'),
        "{script}"
    );
    for machine in [
        "x86_64 | amd64) url='https://example.com/a'",
        "aarch64 | arm64) url='https://example.com/b'",
    ] {
        assert!(script.contains(machine), "{script}");
    }
    assert_eq!(parts[1].1, user);
    let own: Value = serde_norway::from_str(&parts[2].1).unwrap();
    assert_eq!(own["merge_how"][0]["settings"][0].as_str(), Some("append"));
    assert_eq!(own["write_files"][0]["path"].as_str(), Some(BOOT_CONFIG_PATH));
}

proptest! {
    /// One odd character in the user's file must not cost a cell its identity, and a repeated launch must send the same bytes.
    #[test]
    fn any_file_arrives_as_it_was_written(comment in "\\PC*|[\u{1}-\u{ffff}]*") {
        let script = format!("#!/bin/sh\n{comment}");
        let options = BootOptions {
            cloud_init: Some(CloudInit::parse(script.as_bytes(), "x").unwrap()),
            ..BootOptions::default()
        };
        let text = made(&options);
        prop_assert_eq!(&made(&options), &text);
        let parts = parts(&text);
        prop_assert_eq!(&parts[0], &("text/x-shellscript".to_owned(), script));
        let own: Value = serde_norway::from_str(&parts[1].1).unwrap();
        let boot: BootConfig = serde_json::from_str(own["write_files"][0]["content"].as_str().unwrap()).unwrap();
        prop_assert!(boot == config());
    }
}

/// What is in a URL is put into a shell script that runs as root.
#[test]
fn an_agent_that_could_not_be_fetched_is_refused_by_its_field() {
    let sum = "0f".repeat(32);
    for (url, sha256, field) in [
        ("ftp://example.com/a", sum.as_str(), "url"),
        ("https://example.com/a'; reboot; '", &sum, "url"),
        ("https://example.com/a b", &sum, "url"),
        ("https://example.com/a", "abc", "sha256"),
        ("https://example.com/a", &"zz".repeat(32), "sha256"),
    ] {
        assert_eq!(
            AgentDownload::new(url, sha256).unwrap_err().0,
            field,
            "{url} {sha256}"
        );
    }
    assert_eq!(
        AgentDownload::new("http://x/a", &sum.to_uppercase())
            .unwrap()
            .sha256,
        sum
    );
}
