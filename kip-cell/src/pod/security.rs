//! Whom a container runs as and what it may do: pod and container security contexts merged, as CRI wants them.

use kip_cell_api::v1::{Container, ContainerSecurity, Pod, PodSecurity, Seccomp};

use super::model::Image;
use crate::cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SecurityProfile, security_profile::ProfileType,
};

/// Security context of the sandbox.
pub(crate) fn sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let security = pod.security.clone().unwrap_or_default();
    let privileged = |c: &Container| c.security.as_ref().is_some_and(|security| security.privileged);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: security.run_as_user.map(int),
        run_as_group: security.run_as_user.and(security.run_as_group).map(int),
        supplemental_groups: groups(&security),
        privileged: pod.containers.iter().chain(&pod.init_containers).any(privileged),
        seccomp: Some(profile(security.seccomp.as_ref())),
        ..Default::default()
    }
}

/// Security context of a container, or why it must not be started.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
) -> Result<LinuxContainerSecurityContext, String> {
    let pod_security = pod.security.clone().unwrap_or_default();
    let own = container.security.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod_security.run_as_user);
    verify_non_root(pod, container, &own, &pod_security, user, image)?;
    // Without a user from the pod the image's own is named, so that a group alone can be set.
    let run_as_user = user.or(image.uid);
    let run_as_username = if run_as_user.is_none() {
        image.username.clone()
    } else {
        String::new()
    };
    let run_as_group = own.run_as_group.or(pod_security.run_as_group);
    let seccomp = own.seccomp.as_ref().or(pod_security.seccomp.as_ref());
    Ok(LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: own.add_capabilities.clone(),
            drop_capabilities: own.drop_capabilities.clone(),
            ..Default::default()
        }),
        privileged: own.privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: run_as_user.map(int),
        run_as_group: run_as_group.map(int),
        run_as_username,
        readonly_rootfs: own.read_only_root_filesystem,
        supplemental_groups: groups(&pod_security),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp: Some(profile(seccomp)),
        ..Default::default()
    })
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    own: &ContainerSecurity,
    pod_security: &PodSecurity,
    user: Option<i64>,
    image: &Image,
) -> Result<(), String> {
    if own.run_as_non_root.or(pod_security.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let whom = format!(
        "(pod: \"{}_{}({})\", container: {})",
        pod.name, pod.namespace, pod.uid, container.name
    );
    match (user, image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {whom}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!(
            "container has runAsNonRoot and image will run as root {whom}"
        )),
        (None, None) if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whom}",
            image.username
        )),
        // An image without any user runs as root.
        (None, None) => Err(format!(
            "container has runAsNonRoot and image will run as root {whom}"
        )),
        (None, Some(_)) => Ok(()),
    }
}

fn namespaces(pod: &Pod) -> NamespaceOption {
    let node_or_pod = |host: bool| {
        if host {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        }
    };
    let pid = match (pod.host_pid, pod.share_process_namespace) {
        (true, _) => NamespaceMode::Node,
        (false, true) => NamespaceMode::Pod,
        (false, false) => NamespaceMode::Container,
    };
    NamespaceOption {
        network: node_or_pod(pod.host_network).into(),
        ipc: node_or_pod(pod.host_ipc).into(),
        pid: pid.into(),
        ..Default::default()
    }
}

fn groups(security: &PodSecurity) -> Vec<i64> {
    let mut groups = security.supplemental_groups.clone();
    groups.extend(security.fs_group);
    groups
}

/// Unset means unconfined, as on a kubelet without `seccompDefault`.
fn profile(seccomp: Option<&Seccomp>) -> SecurityProfile {
    let Some(seccomp) = seccomp else {
        return SecurityProfile {
            profile_type: ProfileType::Unconfined.into(),
            localhost_ref: String::new(),
        };
    };
    let profile_type = match seccomp.r#type.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: seccomp.localhost_profile.clone(),
    }
}

fn int(value: i64) -> Int64Value {
    Int64Value { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::fixtures;

    fn image(uid: Option<i64>, username: &str) -> Image {
        Image {
            name: "i".into(),
            id: "sha256:1".into(),
            uid,
            username: username.into(),
        }
    }

    /// A pod that says it must not be root is never started as root, and the user reads the kubelet's words.
    #[test]
    fn non_root_is_verified() {
        let mut pod = fixtures::pod("Always", &["c"]);
        pod.security = Some(PodSecurity {
            run_as_non_root: Some(true),
            ..Default::default()
        });
        let mut try_with = |user: Option<i64>, image: &Image| {
            pod.containers[0].security = Some(ContainerSecurity {
                run_as_user: user,
                ..Default::default()
            });
            container(&pod, &pod.containers[0], image).map(|_| ())
        };
        let text = |result: Result<(), String>| result.expect_err("refused");
        assert!(text(try_with(None, &image(Some(0), ""))).starts_with(
            "container has runAsNonRoot and image will run as root (pod: \"pod_ns(uid)\", container: c)"
        ));
        assert!(text(try_with(None, &image(None, "app"))).contains("non-numeric user (app)"));
        assert!(text(try_with(Some(0), &image(Some(5), ""))).contains("runAsUser breaks non-root policy"));
        assert_eq!(try_with(Some(1000), &image(Some(0), "")), Ok(()));
        assert_eq!(try_with(None, &image(Some(5), "")), Ok(()));
    }

    #[test]
    fn container_overrides_pod() {
        let mut pod = fixtures::pod("Always", &["c"]);
        pod.security = Some(PodSecurity {
            run_as_user: Some(1),
            fs_group: Some(7),
            ..Default::default()
        });
        pod.containers[0].security = Some(ContainerSecurity {
            run_as_user: Some(2),
            allow_privilege_escalation: Some(false),
            seccomp: Some(Seccomp {
                r#type: "RuntimeDefault".into(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let got = container(&pod, &pod.containers[0], &image(Some(0), "")).expect("allowed");
        assert_eq!(got.run_as_user.map(|user| user.value), Some(2));
        assert_eq!(got.supplemental_groups, [7]);
        assert!(got.no_new_privs);
        assert_eq!(
            got.seccomp.map(|s| s.profile_type()),
            Some(ProfileType::RuntimeDefault)
        );
    }
}
