//! Providers that are real programs: shell scripts that answer as they are told.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::CredentialProviders;

const RESPONSE: &str =
    r#"{"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse""#;

/// A folder with a configuration of these providers: name, pattern, and the script's body.
pub(crate) fn providers(folder: &Path, plugins: &[(&str, &str, String)]) -> CredentialProviders {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).expect("folder");
    let mut config =
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n".to_owned();
    for (name, pattern, body) in plugins {
        let program = bin.join(name);
        std::fs::write(&program, format!("#!/bin/sh\n{body}\n")).expect("write");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
        config.push_str(&format!(
            "- name: {name}\n  matchImages: [\"{pattern}\"]\n  defaultCacheDuration: 1h\n  \
             apiVersion: credentialprovider.kubelet.k8s.io/v1\n  args: [get]\n  env: [{{name: WHO, value: {name}}}]\n"
        ));
    }
    let file = folder.join("config.yaml");
    std::fs::write(&file, config).expect("write");
    CredentialProviders::load(&file, &bin)
}

/// A script that keeps its request in a file and answers with a login for a pattern.
pub(crate) fn answering(folder: &Path, pattern: &str, user: &str) -> String {
    format!(
        "cat >> {}/asked; echo >> {0}/asked; echo '{RESPONSE}, \"cacheKeyType\": \"Image\", \"auth\": {{\"{pattern}\": \
         {{\"username\": \"{user}\", \"password\": \"p\"}}}}}}'",
        folder.display()
    )
}

fn asked(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("asked")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a request"))
        .collect()
}

#[tokio::test]
async fn a_plugin_is_asked_once_for_an_image_and_its_login_used() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    let body = answering(path, "*.dkr.ecr.*.amazonaws.com", "AWS");
    let providers = providers(path, &[("ecr", "*.dkr.ecr.*.amazonaws.com", body)]);
    let image = "1.dkr.ecr.us-east-1.amazonaws.com/team/app";
    for _ in 0..3 {
        let found = providers.find(&format!("{image}:v1")).await;
        let auth = found.auth.expect("a login");
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("AWS", "p"));
        assert_eq!(auth.server_address, "https://1.dkr.ecr.us-east-1.amazonaws.com");
        assert_eq!(found.problems, [""; 0]);
    }
    let requests = asked(path);
    assert_eq!(requests.len(), 1, "its answer holds for an hour: {requests:?}");
    assert_eq!(requests[0]["kind"], "CredentialProviderRequest");
    assert_eq!(requests[0]["apiVersion"], "credentialprovider.kubelet.k8s.io/v1");
    assert_eq!(requests[0]["image"], image, "without its tag");
    let other = providers.find("docker.io/library/busybox").await;
    assert!(other.auth.is_none() && other.problems.is_empty());
    assert_eq!(asked(path).len(), 1, "nobody is asked about another registry");
}

/// Of two logins that fit the one made for this path is meant, whoever gives it.
#[tokio::test]
async fn the_most_specific_login_wins_and_the_earlier_among_equals() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    let plugins = [
        ("wide", "*.io", answering(path, "r.io", "wide")),
        (
            "narrow",
            "r.io/team",
            answering(path, "https://r.io/team", "narrow"),
        ),
        ("late", "r.io", answering(path, "r.io", "late")),
        (
            "foreign",
            "r.io",
            answering(path, "another.example.com", "foreign"),
        ),
    ];
    let providers = providers(path, &plugins);
    let user = async |image: &str| providers.find(image).await.auth.map(|auth| auth.username);
    assert_eq!(user("r.io/team/app").await.as_deref(), Some("narrow"));
    assert_eq!(user("r.io/other").await.as_deref(), Some("wide"));
    assert_eq!(user("s.io/other").await, None);
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_and_hides_no_other() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    let plugins = [
        (
            "denied",
            "r.io",
            "echo 'not authorized to perform: ecr:GetAuthorizationToken' >&2; exit 3".to_owned(),
        ),
        ("garbage", "r.io", "echo hello".to_owned()),
        ("good", "r.io", answering(path, "r.io", "good")),
    ];
    let found = providers(path, &plugins).find("r.io/app").await;
    assert_eq!(found.auth.expect("a login").username, "good");
    assert_eq!(found.problems.len(), 2, "{:?}", found.problems);
    assert!(found.problems[0].contains("denied") && found.problems[0].contains("not authorized"));
    assert!(found.problems[1].contains("garbage"), "{:?}", found.problems);
}

/// The image of a cell may be wrong; its pods must say so rather than never come up.
#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_told_with_the_image_it_is_missed_for() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "apiVersion: v9").expect("write");
    let found = CredentialProviders::load(&file, folder.path())
        .find("r.io/app")
        .await;
    assert!(found.auth.is_none());
    assert!(found.problems[0].contains("config.yaml"), "{:?}", found.problems);
    let none = CredentialProviders::default().find("r.io/app").await;
    assert!(none.auth.is_none() && none.problems.is_empty());
}
