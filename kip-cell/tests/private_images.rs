//! Images of a registry that asks for a login, pulled by a real containerd.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kip_cell_api::v1::PullSecret;
use support::registry::{self, LOGIN};
use support::{Cell, pod, waiting};

/// Puts a credential provider plugin for this registry into a folder; answers the agent's arguments for it.
fn plugin(folder: &Path, registry: &str) -> Vec<String> {
    let bin = folder.join("plugins");
    std::fs::create_dir_all(&bin).expect("folder");
    let (user, password) = LOGIN;
    let answer = format!(
        r#"{{"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse", "cacheKeyType": "Registry",
        "auth": {{"{registry}": {{"username": "{user}", "password": "{password}"}}}}}}"#
    );
    let program = bin.join("test-provider");
    let script = format!("#!/bin/sh\ncat > /dev/null\ncat <<'END'\n{answer}\nEND\n");
    std::fs::write(&program, script).expect("write");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let config = folder.join("providers.yaml");
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: test-provider\n  \
         matchImages: [\"{registry}\"]\n  defaultCacheDuration: 1h\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n"
    );
    std::fs::write(&config, text).expect("write");
    let argument = |name: &str, path: &Path| vec![name.to_owned(), path.to_string_lossy().into_owned()];
    let mut arguments = argument("--image-credential-provider-config", &config);
    arguments.extend(argument("--image-credential-provider-bin-dir", &bin));
    arguments
}

/// The cell's own identity is the login: nobody has to make a secret and keep it fresh.
#[tokio::test]
async fn an_image_is_pulled_with_the_login_of_a_credential_provider() {
    let mut cell = Cell::without_agent();
    let folder = cell.folder.path().to_path_buf();
    let host = registry::serve(&folder.join("images.tar"), folder.join("registry")).await;
    cell.args = plugin(&folder, &host);
    cell.start_agent();
    let mut pod = pod("Always", &[("main", "while :; do sleep 1; done")]);
    pod.containers[0].image = format!("{host}/app:1");
    cell.deploy(&pod).await;
    cell.wait_running().await;
}

/// The same with a secret of the pod, and without any login not at all.
#[tokio::test]
async fn an_image_is_pulled_with_the_pods_secret_and_not_without() {
    let cell = Cell::start().await;
    let folder = cell.folder.path().to_path_buf();
    let host = registry::serve(&folder.join("images.tar"), folder.join("registry")).await;
    let mut pod = pod("Always", &[("main", "while :; do sleep 1; done")]);
    pod.containers[0].image = format!("{host}/app:1");
    cell.deploy(&pod).await;
    let is_refused = |reason: String| reason == "ErrImagePull" || reason == "ImagePullBackOff";
    cell.wait("the image is refused", |status| {
        status
            .containers
            .iter()
            .any(|container| is_refused(waiting(container)))
    })
    .await;
    let (user, password) = LOGIN;
    pod.pull_secrets = vec![PullSecret {
        registry: host,
        username: user.into(),
        password: password.into(),
        ..Default::default()
    }];
    pod.generation += 1;
    let request = kip_cell_api::v1::UpdatePodRequest { pod: Some(pod) };
    cell.client().update_pod(request).await.expect("takes it");
    cell.wait_running().await;
}
