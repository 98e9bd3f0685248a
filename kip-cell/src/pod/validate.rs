//! Refuses a pod the agent could not run as written, naming the field.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use kip_cell_api::v1::{Container, Handler, Pod, Probe, Volume, handler::Action, volume::Source};

/// Every problem of a pod, each with the path of its field; empty when it can be run.
pub(crate) fn problems(pod: &Pod) -> Vec<String> {
    let mut check = Check::default();
    check.name("uid", &pod.uid, 128);
    check.name("namespace", &pod.namespace, 63);
    check.name("name", &pod.name, 253);
    check.one_of(
        "restart_policy",
        &pod.restart_policy,
        &["Always", "OnFailure", "Never"],
    );
    if pod.containers.is_empty() {
        check.say("containers", "must not be empty");
    }
    check.volumes(&pod.volumes);
    let mut names = BTreeSet::new();
    let lists = [
        ("init_containers", &pod.init_containers),
        ("containers", &pod.containers),
    ];
    for (list, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            let at = format!("{list}[{i}]");
            if !names.insert(container.name.as_str()) {
                check.say(
                    &format!("{at}.name"),
                    &format!("{:?} is used twice", container.name),
                );
            }
            if container.sidecar && list == "containers" {
                check.say(&format!("{at}.sidecar"), "is for init containers only");
            }
            check.container(&at, container, pod);
        }
    }
    check.problems
}

#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn say(&mut self, field: &str, problem: &str) {
        self.problems.push(format!("{field}: {problem}"));
    }

    /// Names become parts of paths, so nothing else may be in them.
    fn name(&mut self, field: &str, value: &str, longest: usize) {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if value.is_empty() {
            self.say(field, "must be set");
        } else if value.len() > longest {
            self.say(field, &format!("is longer than {longest} characters"));
        } else if !value.bytes().all(good) || value.starts_with('.') {
            self.say(
                field,
                &format!("{value:?} may only hold letters, digits, '-', '_' and '.', not first '.'"),
            );
        }
    }

    fn one_of(&mut self, field: &str, value: &str, words: &[&str]) {
        if !words.contains(&value) {
            self.say(field, &format!("{value:?} is none of {}", words.join(", ")));
        }
    }

    fn volumes(&mut self, volumes: &[Volume]) {
        let mut names = BTreeSet::new();
        for (i, volume) in volumes.iter().enumerate() {
            let at = format!("volumes[{i}]");
            self.name(&format!("{at}.name"), &volume.name, 253);
            if !names.insert(volume.name.as_str()) {
                self.say(&format!("{at}.name"), &format!("{:?} is used twice", volume.name));
            }
            match &volume.source {
                None => self.say(&at, "has no source this agent knows"),
                Some(Source::EmptyDir(dir)) => {
                    self.one_of(&format!("{at}.empty_dir.medium"), &dir.medium, &["", "Memory"])
                }
                Some(Source::HostPath(host)) => {
                    self.absolute(&format!("{at}.host_path.path"), &host.path);
                    let types = [
                        "",
                        "Directory",
                        "DirectoryOrCreate",
                        "File",
                        "FileOrCreate",
                        "Socket",
                    ];
                    self.one_of(&format!("{at}.host_path.type"), &host.r#type, &types);
                }
                Some(Source::Files(files)) => {
                    for (j, file) in files.files.iter().enumerate() {
                        self.file_path(&format!("{at}.files[{j}].path"), &file.path);
                    }
                }
            }
        }
    }

    fn file_path(&mut self, field: &str, path: &str) {
        self.relative(field, path);
        // The volume's own bookkeeping (`..data`) uses these names.
        if path.starts_with("..") {
            self.say(field, &format!("{path:?} must not start with \"..\""));
        }
    }

    fn relative(&mut self, field: &str, path: &str) {
        let plain = !path.is_empty()
            && Path::new(path)
                .components()
                .all(|c| matches!(c, Component::Normal(_)));
        if !plain || path.contains('\0') {
            self.say(field, &format!("{path:?} must be a relative path without \"..\""));
        }
    }

    fn absolute(&mut self, field: &str, path: &str) {
        let parts = Path::new(path)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::RootDir));
        if !path.starts_with('/') || !parts || path.contains('\0') {
            self.say(
                field,
                &format!("{path:?} must be an absolute path without \"..\""),
            );
        }
    }

    fn container(&mut self, at: &str, container: &Container, pod: &Pod) {
        self.name(&format!("{at}.name"), &container.name, 63);
        if container.config_error.is_empty() && container.image.is_empty() {
            self.say(&format!("{at}.image"), "must be set");
        }
        self.one_of(
            &format!("{at}.pull_policy"),
            &container.pull_policy,
            &["", "Always", "IfNotPresent", "Never"],
        );
        let policies = ["", "File", "FallbackToLogsOnError"];
        self.one_of(
            &format!("{at}.termination_message_policy"),
            &container.termination_message_policy,
            &policies,
        );
        if !container.termination_message_path.is_empty() {
            self.absolute(
                &format!("{at}.termination_message_path"),
                &container.termination_message_path,
            );
        }
        for (i, variable) in container.env.iter().enumerate() {
            let field = format!("{at}.env[{i}]");
            if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
                self.say(
                    &format!("{field}.name"),
                    &format!("{:?} is not a name", variable.name),
                );
            }
            self.one_of(
                &format!("{field}.field"),
                &variable.field,
                &["", "status.podIP", "status.podIPs"],
            );
        }
        let mut paths = BTreeSet::new();
        for (i, mount) in container.mounts.iter().enumerate() {
            let field = format!("{at}.mounts[{i}]");
            self.absolute(&format!("{field}.mount_path"), &mount.mount_path);
            if !paths.insert(mount.mount_path.as_str()) {
                self.say(
                    &format!("{field}.mount_path"),
                    &format!("{:?} is used twice", mount.mount_path),
                );
            }
            if !mount.sub_path.is_empty() {
                self.relative(&format!("{field}.sub_path"), &mount.sub_path);
            }
            if !pod.volumes.iter().any(|volume| volume.name == mount.volume) {
                self.say(
                    &format!("{field}.volume"),
                    &format!("there is no volume {:?}", mount.volume),
                );
            }
            let words = ["", "None", "HostToContainer", "Bidirectional"];
            self.one_of(&format!("{field}.propagation"), &mount.propagation, &words);
        }
        if let Some(seccomp) = container
            .security
            .as_ref()
            .and_then(|security| security.seccomp.as_ref())
        {
            let words = ["RuntimeDefault", "Unconfined", "Localhost"];
            self.one_of(&format!("{at}.security.seccomp.type"), &seccomp.r#type, &words);
        }
        let probes = [
            ("liveness", &container.liveness),
            ("readiness", &container.readiness),
            ("startup", &container.startup),
        ];
        for (word, probe) in probes {
            if let Some(probe) = probe {
                self.probe(&format!("{at}.{word}"), probe);
            }
        }
        for (word, hook) in [
            ("post_start", &container.post_start),
            ("pre_stop", &container.pre_stop),
        ] {
            if let Some(hook) = hook {
                self.handler(&format!("{at}.{word}"), hook);
            }
        }
    }

    fn probe(&mut self, at: &str, probe: &Probe) {
        match &probe.handler {
            None => self.say(&format!("{at}.handler"), "must be set"),
            Some(handler) if matches!(handler.action, Some(Action::Sleep(_))) => {
                self.say(&format!("{at}.handler"), "a probe cannot sleep");
            }
            Some(handler) => self.handler(&format!("{at}.handler"), handler),
        }
    }

    fn handler(&mut self, at: &str, handler: &Handler) {
        let port = |port: u32| (1..=65535).contains(&port);
        match &handler.action {
            None => self.say(at, "has no action this agent knows"),
            Some(Action::Exec(exec)) if exec.command.is_empty() => {
                self.say(&format!("{at}.exec.command"), "must not be empty");
            }
            Some(Action::HttpGet(http)) => {
                if !port(http.port) {
                    self.say(
                        &format!("{at}.http_get.port"),
                        &format!("{} is not a port", http.port),
                    );
                }
                self.one_of(
                    &format!("{at}.http_get.scheme"),
                    &http.scheme,
                    &["", "HTTP", "HTTPS"],
                );
            }
            Some(Action::Tcp(tcp)) if !port(tcp.port) => {
                self.say(&format!("{at}.tcp.port"), &format!("{} is not a port", tcp.port));
            }
            Some(Action::Grpc(grpc)) if !port(grpc.port) => {
                self.say(
                    &format!("{at}.grpc.port"),
                    &format!("{} is not a port", grpc.port),
                );
            }
            Some(Action::Exec(_) | Action::Tcp(_) | Action::Grpc(_) | Action::Sleep(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use kip_cell_api::v1::{EmptyDir, File, Files, VolumeMount};

    use super::*;
    use crate::pod::fixtures;

    #[test]
    fn a_plain_pod_is_fine() {
        assert_eq!(
            problems(&fixtures::pod("Always", &["a", "b"])),
            Vec::<String>::new()
        );
    }

    /// Whatever reaches the agent must not make it write or mount outside its folders; all problems come at once.
    #[test]
    fn every_problem_names_its_field() {
        let mut pod = fixtures::pod("Sometimes", &["a", "a"]);
        pod.uid = "../x".into();
        pod.volumes = vec![
            Volume {
                name: "v".into(),
                source: Some(Source::EmptyDir(EmptyDir {
                    medium: "Tape".into(),
                    ..Default::default()
                })),
            },
            Volume {
                name: "f".into(),
                source: Some(Source::Files(Files {
                    files: vec![File {
                        path: "../etc/passwd".into(),
                        ..Default::default()
                    }],
                    secret: false,
                })),
            },
            Volume {
                name: "n".into(),
                source: None,
            },
        ];
        pod.containers[0].mounts = vec![
            VolumeMount {
                volume: "v".into(),
                mount_path: "relative".into(),
                ..Default::default()
            },
            VolumeMount {
                volume: "v".into(),
                mount_path: "/x".into(),
                sub_path: "a/../..".into(),
                ..Default::default()
            },
            VolumeMount {
                volume: "gone".into(),
                mount_path: "/y".into(),
                ..Default::default()
            },
        ];
        pod.containers[1].image = String::new();
        let all = problems(&pod);
        for field in [
            "uid: ",
            "restart_policy: ",
            "volumes[0].empty_dir.medium: ",
            "volumes[1].files[0].path: ",
            "volumes[2]: ",
            "containers[0].mounts[0].mount_path: ",
            "containers[0].mounts[1].sub_path: ",
            "containers[0].mounts[2].volume: ",
            "containers[1].name: ",
            "containers[1].image: ",
        ] {
            assert!(
                all.iter().any(|problem| problem.starts_with(field)),
                "{field} not in {all:#?}"
            );
        }
    }
}
