//! A resolved pod as the wire carries it.

use std::collections::{BTreeMap, HashMap};

use kip_cell_api::v1;

use crate::model::{
    ContainerManifest, ContainerResources, ContainerSecurity, EnvValue, EnvVar, Handler, PodManifest,
    PodSecurity, Probe, PullPolicy, RestartPolicy, Seccomp, VolumeManifest, VolumeSource,
};

/// The whole manifest.
pub(crate) fn pod(manifest: &PodManifest) -> v1::Pod {
    v1::Pod {
        uid: manifest.pod.uid.to_string(),
        namespace: manifest.pod.namespace.clone(),
        name: manifest.pod.name.clone(),
        generation: manifest.generation,
        labels: map(&manifest.labels),
        annotations: map(&manifest.annotations),
        hostname: manifest.hostname.clone(),
        restart_policy: match manifest.restart_policy {
            RestartPolicy::Always => "Always",
            RestartPolicy::OnFailure => "OnFailure",
            RestartPolicy::Never => "Never",
        }
        .into(),
        termination_grace_seconds: manifest.termination_grace_seconds,
        init_containers: manifest.init_containers.iter().map(container).collect(),
        containers: manifest.containers.iter().map(container).collect(),
        volumes: manifest.volumes.iter().map(volume).collect(),
        pull_secrets: manifest
            .pull_secrets
            .iter()
            .map(|secret| v1::PullSecret {
                registry: secret.registry.clone(),
                username: secret.username.clone(),
                password: secret.password.clone(),
                identity_token: secret.identity_token.clone(),
            })
            .collect(),
        dns: Some(v1::Dns {
            servers: manifest.dns.servers.clone(),
            searches: manifest.dns.searches.clone(),
            options: manifest.dns.options.clone(),
        }),
        host_aliases: manifest
            .host_aliases
            .iter()
            .map(|alias| v1::HostAlias {
                ip: alias.ip.clone(),
                hostnames: alias.hostnames.clone(),
            })
            .collect(),
        host_network: manifest.host_network,
        host_pid: manifest.host_pid,
        host_ipc: manifest.host_ipc,
        share_process_namespace: manifest.share_process_namespace,
        security: Some(pod_security(&manifest.security)),
        fqdn: manifest.fqdn.clone().unwrap_or_default(),
        host_ip: manifest.host_ip.clone(),
        active_deadline_seconds: manifest.active_deadline_seconds,
    }
}

fn map(from: &BTreeMap<String, String>) -> HashMap<String, String> {
    from.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn container(from: &ContainerManifest) -> v1::Container {
    v1::Container {
        name: from.name.clone(),
        image: from.image.clone(),
        pull_policy: match from.pull_policy {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
        .into(),
        command: from.command.clone(),
        args: from.args.clone(),
        working_dir: from.working_dir.clone(),
        env: from.env.iter().map(env).collect(),
        mounts: from
            .mounts
            .iter()
            .map(|mount| v1::VolumeMount {
                volume: mount.volume.clone(),
                mount_path: mount.mount_path.clone(),
                sub_path: mount.sub_path.clone(),
                read_only: mount.read_only,
                propagation: mount.propagation.clone(),
            })
            .collect(),
        resources: Some(resources(&from.resources)),
        security: Some(container_security(&from.security)),
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        termination_message_path: from.termination_message_path.clone(),
        termination_message_policy: if from.termination_message_from_logs {
            "FallbackToLogsOnError"
        } else {
            "File"
        }
        .into(),
        sidecar: from.sidecar,
        liveness: from.liveness.as_ref().map(probe),
        readiness: from.readiness.as_ref().map(probe),
        startup: from.startup.as_ref().map(probe),
        post_start: from.post_start.as_ref().map(handler),
        pre_stop: from.pre_stop.as_ref().map(handler),
        config_error: from.config_error.clone().unwrap_or_default(),
    }
}

fn env(from: &EnvVar) -> v1::EnvVar {
    let (value, field) = match &from.value {
        EnvValue::Text(text) => (text.clone(), ""),
        EnvValue::PodIp => (String::new(), "status.podIP"),
        EnvValue::PodIps => (String::new(), "status.podIPs"),
    };
    v1::EnvVar {
        name: from.name.clone(),
        value,
        field: field.into(),
    }
}

fn volume(from: &VolumeManifest) -> v1::Volume {
    let source = match &from.source {
        VolumeSource::EmptyDir(dir) => v1::volume::Source::EmptyDir(v1::EmptyDir {
            medium: if dir.memory {
                "Memory".into()
            } else {
                String::new()
            },
            size_limit_bytes: dir.size_limit.0,
        }),
        VolumeSource::Files(files) => v1::volume::Source::Files(v1::Files {
            files: files
                .files
                .iter()
                .map(|file| v1::File {
                    path: file.path.clone(),
                    content: file.content.clone(),
                    mode: file.mode,
                })
                .collect(),
            secret: files.secret,
        }),
        VolumeSource::HostPath(path) => v1::volume::Source::HostPath(v1::HostPath {
            path: path.path.clone(),
            r#type: path.kind.clone(),
        }),
    };
    v1::Volume {
        name: from.name.clone(),
        source: Some(source),
    }
}

fn resources(from: &ContainerResources) -> v1::Resources {
    v1::Resources {
        cpu_request_millis: from.cpu_request.0,
        cpu_limit_millis: from.cpu_limit.0,
        memory_request_bytes: from.memory_request.0,
        memory_limit_bytes: from.memory_limit.0,
        extended: from
            .extended
            .iter()
            .map(|(name, count)| (name.clone(), *count))
            .collect(),
    }
}

fn pod_security(from: &PodSecurity) -> v1::PodSecurity {
    v1::PodSecurity {
        run_as_user: from.run_as_user,
        run_as_group: from.run_as_group,
        run_as_non_root: from.run_as_non_root,
        fs_group: from.fs_group,
        supplemental_groups: from.supplemental_groups.clone(),
        sysctls: map(&from.sysctls),
        seccomp: from.seccomp.as_ref().map(seccomp),
    }
}

fn container_security(from: &ContainerSecurity) -> v1::ContainerSecurity {
    v1::ContainerSecurity {
        run_as_user: from.run_as_user,
        run_as_group: from.run_as_group,
        run_as_non_root: from.run_as_non_root,
        privileged: from.privileged,
        allow_privilege_escalation: from.allow_privilege_escalation,
        read_only_root_filesystem: from.read_only_root_filesystem,
        add_capabilities: from.add_capabilities.clone(),
        drop_capabilities: from.drop_capabilities.clone(),
        seccomp: from.seccomp.as_ref().map(seccomp),
    }
}

fn seccomp(from: &Seccomp) -> v1::Seccomp {
    let (kind, profile) = match from {
        Seccomp::RuntimeDefault => ("RuntimeDefault", ""),
        Seccomp::Unconfined => ("Unconfined", ""),
        Seccomp::Localhost(profile) => ("Localhost", profile.as_str()),
    };
    v1::Seccomp {
        r#type: kind.into(),
        localhost_profile: profile.into(),
    }
}

fn probe(from: &Probe) -> v1::Probe {
    v1::Probe {
        handler: Some(handler(&from.handler)),
        initial_delay_seconds: from.initial_delay_seconds,
        period_seconds: from.period_seconds,
        timeout_seconds: from.timeout_seconds,
        success_threshold: from.success_threshold,
        failure_threshold: from.failure_threshold,
        termination_grace_seconds: from.termination_grace_seconds,
    }
}

fn handler(from: &Handler) -> v1::Handler {
    let action = match from {
        Handler::Exec { command } => v1::handler::Action::Exec(v1::ExecAction {
            command: command.clone(),
        }),
        Handler::HttpGet {
            host,
            port,
            path,
            https,
            headers,
        } => v1::handler::Action::HttpGet(v1::HttpGetAction {
            host: host.clone(),
            port: u32::from(*port),
            path: path.clone(),
            scheme: if *https { "HTTPS" } else { "HTTP" }.into(),
            headers: headers
                .iter()
                .map(|header| v1::HttpHeader {
                    name: header.name.clone(),
                    value: header.value.clone(),
                })
                .collect(),
        }),
        Handler::Tcp { host, port } => v1::handler::Action::Tcp(v1::TcpAction {
            host: host.clone(),
            port: u32::from(*port),
        }),
        Handler::Grpc { port, service } => v1::handler::Action::Grpc(v1::GrpcAction {
            port: u32::from(*port),
            service: service.clone(),
        }),
        Handler::Sleep { seconds } => v1::handler::Action::Sleep(v1::SleepAction { seconds: *seconds }),
    };
    v1::Handler { action: Some(action) }
}
