//! One container: image, command, mounts, resources, security, probes and hooks.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, PodSpec,
    Probe as ApiProbe, ResourceRequirements, SeccompProfile, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Context, env};
use crate::kubelet::demand::is_sidecar;
use crate::kubelet::quantity;
use crate::model::{
    Bytes, ContainerManifest, ContainerResources, ContainerSecurity, CpuMillis, Handler, HttpHeader,
    PodSecurity, Probe, PullPolicy, Seccomp, VolumeMount,
};

/// Converts a container. What cannot be resolved is its `config_error`; `broken` are volumes that cannot be mounted, with why.
pub(super) fn container(
    context: &mut Context<'_>,
    container: &Container,
    broken: &BTreeMap<String, String>,
) -> ContainerManifest {
    let mut result = ContainerManifest {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        pull_policy: pull_policy(container),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        termination_message_path: container
            .termination_message_path
            .clone()
            .unwrap_or_else(|| "/dev/termination-log".to_owned()),
        termination_message_from_logs: container.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError"),
        sidecar: is_sidecar(container),
        security: security(container),
        ..ContainerManifest::default()
    };
    if let Err(problem) = fill(context, container, broken, &mut result) {
        result.config_error = Some(problem);
    }
    result
}

fn fill(
    context: &mut Context<'_>,
    container: &Container,
    broken: &BTreeMap<String, String>,
    result: &mut ContainerManifest,
) -> Result<(), String> {
    result.resources = resources(container.resources.as_ref())?;
    let environment = env::environment(context, container)?;
    let expanded = |texts: &Option<Vec<String>>| {
        texts
            .iter()
            .flatten()
            .map(|text| environment.expand(text))
            .collect()
    };
    result.command = expanded(&container.command);
    result.args = expanded(&container.args);
    for mount in container.volume_mounts.iter().flatten() {
        if let Some(problem) = broken.get(&mount.name) {
            return Err(problem.clone());
        }
        let sub_path = match &mount.sub_path_expr {
            Some(expression) => environment.expand(expression),
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        result.mounts.push(VolumeMount {
            volume: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            sub_path,
            read_only: mount.read_only.unwrap_or(false),
            propagation: mount.mount_propagation.clone().unwrap_or_default(),
        });
    }
    result.env = environment.into_variables();
    result.liveness = probe(container, container.liveness_probe.as_ref())?;
    result.readiness = probe(container, container.readiness_probe.as_ref())?;
    result.startup = probe(container, container.startup_probe.as_ref())?;
    if let Some(lifecycle) = &container.lifecycle {
        result.post_start = hook(container, lifecycle.post_start.as_ref())?;
        result.pre_stop = hook(container, lifecycle.pre_stop.as_ref())?;
    }
    Ok(())
}

/// The API fills the policy in; without it the tag decides, as there.
fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(_) => PullPolicy::IfNotPresent,
        None => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let untagged = !last.contains(':') && !last.contains('@');
            if untagged || last.ends_with(":latest") {
                PullPolicy::Always
            } else {
                PullPolicy::IfNotPresent
            }
        }
    }
}

fn resources(resources: Option<&ResourceRequirements>) -> Result<ContainerResources, String> {
    let mut result = ContainerResources::default();
    let Some(resources) = resources else {
        return Ok(result);
    };
    for (is_limit, list) in [(false, &resources.requests), (true, &resources.limits)] {
        for (name, amount) in list.iter().flatten() {
            let failed = |error| format!("resource {name}: {error}");
            match (name.as_str(), is_limit) {
                ("cpu", false) => {
                    result.cpu_request = CpuMillis(quantity::millis(&amount.0).map_err(failed)?);
                }
                ("cpu", true) => result.cpu_limit = CpuMillis(quantity::millis(&amount.0).map_err(failed)?),
                ("memory", false) => {
                    result.memory_request = Bytes(quantity::whole(&amount.0).map_err(failed)?);
                }
                ("memory", true) => result.memory_limit = Bytes(quantity::whole(&amount.0).map_err(failed)?),
                ("ephemeral-storage", _) => {}
                (_, _) => {
                    let count = quantity::whole(&amount.0).map_err(failed)?;
                    result.extended.insert(name.clone(), count);
                }
            }
        }
    }
    Ok(result)
}

fn seccomp(profile: Option<&SeccompProfile>) -> Option<Seccomp> {
    let profile = profile?;
    Some(match profile.type_.as_str() {
        "Unconfined" => Seccomp::Unconfined,
        "Localhost" => Seccomp::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        _ => Seccomp::RuntimeDefault,
    })
}

fn security(container: &Container) -> ContainerSecurity {
    let Some(context) = &container.security_context else {
        return ContainerSecurity::default();
    };
    let list = |of: fn(&Capabilities) -> &Option<Vec<String>>| {
        let names = context
            .capabilities
            .as_ref()
            .and_then(|capabilities| of(capabilities).clone());
        names.unwrap_or_default()
    };
    ContainerSecurity {
        run_as_user: context.run_as_user,
        run_as_group: context.run_as_group,
        run_as_non_root: context.run_as_non_root,
        privileged: context.privileged.unwrap_or(false),
        allow_privilege_escalation: context.allow_privilege_escalation,
        read_only_root_filesystem: context.read_only_root_filesystem.unwrap_or(false),
        add_capabilities: list(|capabilities| &capabilities.add),
        drop_capabilities: list(|capabilities| &capabilities.drop),
        seccomp: seccomp(context.seccomp_profile.as_ref()),
    }
}

/// Security settings of the pod.
pub(super) fn pod_security(spec: &PodSpec) -> PodSecurity {
    let Some(context) = &spec.security_context else {
        return PodSecurity::default();
    };
    PodSecurity {
        run_as_user: context.run_as_user,
        run_as_group: context.run_as_group,
        run_as_non_root: context.run_as_non_root,
        fs_group: context.fs_group,
        supplemental_groups: context.supplemental_groups.clone().unwrap_or_default(),
        sysctls: context
            .sysctls
            .iter()
            .flatten()
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect(),
        seccomp: seccomp(context.seccomp_profile.as_ref()),
    }
}

fn probe(container: &Container, probe: Option<&ApiProbe>) -> Result<Option<Probe>, String> {
    let Some(probe) = probe else { return Ok(None) };
    let Some(handler) = handler(
        container,
        probe.exec.as_ref(),
        probe.http_get.as_ref(),
        probe.tcp_socket.as_ref(),
        probe.grpc.as_ref(),
    )?
    else {
        return Err(
            "a probe has no action that is supported; use exec, httpGet, tcpSocket or grpc".to_owned(),
        );
    };
    let number = |value: Option<i32>, default: u32| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .filter(|value| *value > 0)
            .unwrap_or(default)
    };
    Ok(Some(Probe {
        handler,
        initial_delay_seconds: number(probe.initial_delay_seconds, 0),
        period_seconds: number(probe.period_seconds, 10),
        timeout_seconds: number(probe.timeout_seconds, 1),
        success_threshold: number(probe.success_threshold, 1),
        failure_threshold: number(probe.failure_threshold, 3),
        termination_grace_seconds: probe
            .termination_grace_period_seconds
            .map(|seconds| super::seconds(Some(seconds), 0)),
    }))
}

fn hook(container: &Container, hook: Option<&LifecycleHandler>) -> Result<Option<Handler>, String> {
    let Some(hook) = hook else { return Ok(None) };
    if let Some(sleep) = &hook.sleep {
        return Ok(Some(Handler::Sleep {
            seconds: super::seconds(Some(sleep.seconds), 0),
        }));
    }
    handler(
        container,
        hook.exec.as_ref(),
        hook.http_get.as_ref(),
        hook.tcp_socket.as_ref(),
        None,
    )
}

fn handler(
    container: &Container,
    exec: Option<&ExecAction>,
    http: Option<&HTTPGetAction>,
    tcp: Option<&TCPSocketAction>,
    grpc: Option<&GRPCAction>,
) -> Result<Option<Handler>, String> {
    if let Some(exec) = exec {
        return Ok(Some(Handler::Exec {
            command: exec.command.clone().unwrap_or_default(),
        }));
    }
    if let Some(http) = http {
        let path = http.path.clone().unwrap_or_default();
        return Ok(Some(Handler::HttpGet {
            host: http.host.clone().unwrap_or_default(),
            port: port(container, &http.port)?,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            https: http.scheme.as_deref() == Some("HTTPS"),
            headers: http
                .http_headers
                .iter()
                .flatten()
                .map(|header| HttpHeader {
                    name: header.name.clone(),
                    value: header.value.clone(),
                })
                .collect(),
        }));
    }
    if let Some(tcp) = tcp {
        return Ok(Some(Handler::Tcp {
            host: tcp.host.clone().unwrap_or_default(),
            port: port(container, &tcp.port)?,
        }));
    }
    if let Some(grpc) = grpc {
        return Ok(Some(Handler::Grpc {
            port: port(container, &IntOrString::Int(grpc.port))?,
            service: grpc.service.clone().unwrap_or_default(),
        }));
    }
    Ok(None)
}

/// A port by number, or by the name a container gives it.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| match port {
            IntOrString::Int(number) => format!("{number} is no port"),
            IntOrString::String(name) => format!("container {:?} has no port named {name:?}", container.name),
        })
}
