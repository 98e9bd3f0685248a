//! A cell for tests: a private containerd with its own mounts and processes, an agent in it, and a client.
//!
//! Everything lives in one process namespace that dies with the test, so nothing is left whatever happens.

#![allow(dead_code, reason = "every test binary uses its own part of this")]

mod certs;
mod images;
pub(crate) mod imds;
pub(crate) mod registry;

use std::error::Error as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use kip_cell_api::BootConfig;
use kip_cell_api::v1::cell_client::CellClient;
use kip_cell_api::v1::container_state::State;
use kip_cell_api::v1::{
    Container, ContainerStatus, DeployPodRequest, Pod, ReadLogsRequest, StatusSnapshot, StopPodRequest,
    WatchStatusRequest,
};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

pub(crate) use certs::Certs;

/// How long anything in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The image every test uses.
pub(crate) const BUSYBOX: &str = "docker.io/library/busybox:1.35";

/// A private containerd and the agent's place beside it.
pub(crate) struct Cell {
    pub(crate) folder: tempfile::TempDir,
    init: Child,
    containerd: Child,
    pub(crate) certs: Certs,
    pub(crate) config: BootConfig,
    /// More arguments of the agent.
    pub(crate) args: Vec<String>,
    agent: Option<Child>,
    client: CellClient<Channel>,
    subnet: u8,
}

fn need(program: &str) {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "these tests need {program}: `cargo xtask test` installs it, or apt-get install containerd runc \
         containernetworking-plugins busybox-static util-linux"
    );
}

impl Cell {
    /// Starts containerd with the test images, and an agent.
    pub(crate) async fn start() -> Self {
        let mut cell = Self::without_agent();
        cell.start_agent();
        cell
    }

    /// Starts containerd with the test images.
    pub(crate) fn without_agent() -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "these tests need root: they run real containers"
        );
        ["containerd", "runc", "unshare", "nsenter", "busybox", "ctr"]
            .iter()
            .for_each(|program| need(program));
        let folder = tempfile::Builder::new()
            .prefix("kip-cell-")
            .tempdir()
            .expect("folder");
        let root = folder.path().to_path_buf();
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--propagation",
            "private",
            "--kill-child",
        ]);
        let init = unshare.args(["sleep", "2147483647"]).spawn().expect("unshare");
        let inner = child_of(init.id());
        // The runtime names network namespaces by files in here: they must not outlive the test on the machine.
        let _ = std::fs::create_dir_all("/run/netns");
        let hide = Command::new("nsenter")
            .args([
                "-t",
                &inner.to_string(),
                "-m",
                "--",
                "mount",
                "-t",
                "tmpfs",
                "tmpfs",
                "/run/netns",
            ])
            .status();
        assert!(hide.is_ok_and(|status| status.success()), "a private /run/netns");
        // Two tests at once must not hand out the same addresses: the subnet is the port of a socket nobody else has.
        let port = free_port();
        let subnet = u8::try_from(port % 250 + 1).expect("small");
        let config = write_containerd_config(&root, port);
        let containerd = spawn_containerd(inner, &config, &root);
        let certs = Certs::new();
        let (certificate_pem, private_key_pem) = certs.server("test-cell");
        let boot = BootConfig {
            version: 1,
            cell: "test-cell".into(),
            node: "test-node".into(),
            pod_uid: String::new(),
            ca_pem: certs.authority(),
            certificate_pem,
            private_key_pem,
            listen: format!("127.0.0.1:{}", free_port()),
            runtime_socket: root.join("containerd.sock").to_string_lossy().into_owned(),
            state_dir: root.join("agent").to_string_lossy().into_owned(),
            cgroup_parent: format!("/kip-test-{}", std::process::id()),
            metadata: None,
        };
        let client = certs.client(&boot.listen);
        let mut cell = Self {
            folder,
            init,
            containerd,
            certs,
            config: boot,
            args: Vec::new(),
            agent: None,
            client,
            subnet,
        };
        cell.import_images();
        cell
    }

    fn import_images(&mut self) {
        let archive = self.folder.path().join("images.tar");
        images::write(&archive);
        until("containerd answers", || {
            let out = self
                .enter(&["ctr", "-a", &self.config.runtime_socket, "version"])
                .output()
                .expect("ctr");
            out.status.success().then_some(())
        });
        let import = [
            "ctr",
            "-a",
            &self.config.runtime_socket,
            "-n",
            "k8s.io",
            "images",
            "import",
        ];
        let out = self.enter(&import).arg(&archive).output().expect("ctr");
        assert!(
            out.status.success(),
            "import: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// A command inside the cell's mounts.
    pub(crate) fn enter(&self, command: &[&str]) -> Command {
        let mut enter = Command::new("nsenter");
        enter
            .args(["-t", &child_of(self.init.id()).to_string(), "-m", "--"])
            .args(command);
        enter
    }

    /// A command inside the cell's mounts and processes.
    pub(crate) fn enter_all(&self, command: &[&str]) -> Command {
        let mut enter = Command::new("nsenter");
        enter
            .args(["-t", &child_of(self.init.id()).to_string(), "-m", "-p", "--"])
            .args(command);
        enter
    }

    /// Starts the agent as a process of its own.
    pub(crate) fn start_agent(&mut self) {
        let path = self.folder.path().join("cell.json");
        fs::write(&path, serde_json::to_vec(&self.config).expect("json")).expect("config");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("agent.log"));
        let mut agent = self.enter_all(&[env!("CARGO_BIN_EXE_kip-cell"), "--config"]);
        let agent = agent
            .arg(&path)
            .args(&self.args)
            .env("RUST_LOG", "info")
            .stderr(log.expect("log"));
        self.agent = Some(agent.spawn().expect("agent"));
    }

    /// `kill -9` of the agent.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            kill_child_of(&agent);
            agent.wait().expect("wait");
        }
    }

    /// The agent's process id.
    pub(crate) fn agent_pid(&self) -> u32 {
        child_of(self.agent.as_ref().expect("runs").id())
    }

    /// `kill -9` of containerd.
    pub(crate) fn kill_containerd(&mut self) {
        kill_child_of(&self.containerd);
        self.containerd.wait().expect("wait");
    }

    /// Starts containerd again.
    pub(crate) fn restart_containerd(&mut self) {
        let root = self.folder.path();
        self.containerd = spawn_containerd(child_of(self.init.id()), &root.join("containerd.toml"), root);
    }

    /// A client with a good certificate; connects by itself, again after the agent restarted.
    pub(crate) fn client(&self) -> CellClient<Channel> {
        self.client.clone()
    }

    /// Calls DeployPod, waiting for the agent to listen.
    pub(crate) async fn deploy(&self, pod: &Pod) {
        if let Err(status) = self.try_deploy(pod).await {
            panic!("deploy: {status:?}\n{}", self.agent_log());
        }
    }

    /// The agent's answer to DeployPod, waiting for the agent to listen.
    pub(crate) async fn try_deploy(&self, pod: &Pod) -> Result<(), tonic::Status> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = DeployPodRequest {
                pod: Some(pod.clone()),
            };
            match self.client().deploy_pod(request).await {
                Ok(_) => return Ok(()),
                // An error with a source is the connection's, not the agent's answer.
                Err(status)
                    if (status.code() == tonic::Code::Unavailable || status.source().is_some())
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// Watches the status until it satisfies `condition`.
    pub(crate) async fn wait(
        &self,
        what: &str,
        condition: impl Fn(&StatusSnapshot) -> bool + Send + Sync,
    ) -> StatusSnapshot {
        let mut last = None;
        let watch = async {
            loop {
                let Ok(stream) = self.client().watch_status(WatchStatusRequest {}).await else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                let mut stream = stream.into_inner();
                while let Ok(Some(status)) = stream.message().await {
                    if condition(&status) {
                        return status;
                    }
                    last = Some(status);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, watch).await {
            Ok(status) => status,
            Err(_) => panic!(
                "waited in vain until {what}; last: {last:#?}\n{}",
                self.agent_log()
            ),
        }
    }

    /// Waits until all containers run.
    pub(crate) async fn wait_running(&self) -> StatusSnapshot {
        self.wait("all containers run", |status| {
            !status.containers.is_empty()
                && status
                    .containers
                    .iter()
                    .all(|c| matches!(state(c), Some(State::Running(_))))
        })
        .await
    }

    /// Stops the pod and waits until it has ended.
    pub(crate) async fn stop(&self, pod: &Pod, grace_seconds: u32) -> StatusSnapshot {
        let request = StopPodRequest {
            pod_uid: pod.uid.clone(),
            grace_seconds,
            reason: "Deleted".into(),
        };
        self.client().stop_pod(request).await.expect("stop");
        self.wait("the pod has ended", |status| status.finished).await
    }

    /// All of a container's log.
    pub(crate) async fn logs(&self, request: ReadLogsRequest) -> Result<String, tonic::Status> {
        let mut stream = self.client().read_logs(request).await?.into_inner();
        let mut out = Vec::new();
        while let Some(chunk) = stream.message().await? {
            out.extend(chunk.data);
        }
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Ids of everything that runs in containerd, sandboxes included.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let list = [
            "ctr",
            "-a",
            &self.config.runtime_socket,
            "-n",
            "k8s.io",
            "tasks",
            "ls",
        ];
        let out = self.enter(&list).output().expect("ctr");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.lines()
            .filter(|line| line.contains("RUNNING"))
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    /// What the agent wrote, for failure messages.
    pub(crate) fn agent_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // The first process of the namespace takes the agent, containerd, its shims and all containers with it.
        drop(self.init.kill());
        drop(self.init.wait());
        drop(self.containerd.wait());
        drop(self.agent.as_mut().map(Child::wait));
        remove_cgroups(&self.config.cgroup_parent);
    }
}

/// The one child of `unshare` or `nsenter`.
fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    until("the namespace has its first process", || {
        let children = fs::read_to_string(&path).ok()?;
        let child: u32 = children.split_whitespace().next()?.parse().ok()?;
        // The child is the command only once it was executed.
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (!["unshare", "nsenter"].contains(&name.trim())).then_some(child)
    })
}

fn kill_child_of(parent: &Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child_of(parent.id())).expect("pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
}

fn spawn_containerd(inner: u32, config: &Path, root: &Path) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(root.join("containerd.log"))
        .expect("log");
    let mut command = Command::new("nsenter");
    command
        .args([
            "-t",
            &inner.to_string(),
            "-m",
            "-p",
            "--",
            "containerd",
            "--config",
        ])
        .arg(config);
    command
        .stderr(log)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("containerd")
}

fn write_containerd_config(root: &Path, port: u16) -> PathBuf {
    let net = root.join("net.d");
    fs::create_dir_all(&net).expect("folder");
    let (second, third) = (port / 250 % 250, port % 250);
    let network = format!(
        r#"{{"cniVersion":"0.4.0","name":"kip","plugins":[{{"type":"ptp","ipMasq":false,
        "ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.{second}.{third}.0/24"}}]],
        "routes":[{{"dst":"0.0.0.0/0"}}]}}}}]}}"#,
        root.join("ipam").display()
    );
    fs::write(net.join("10-kip.conflist"), network).expect("network");
    let text = format!(
        r#"version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:kip"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{net}"
"#,
        root = root.display(),
        net = net.display()
    );
    let path = root.join("containerd.toml");
    fs::write(&path, text).expect("config");
    path
}

fn remove_cgroups(parent: &str) {
    let roots = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let folder = root.join(parent.trim_start_matches('/'));
        if folder.is_dir() {
            // `rmdir` only removes empty groups: another test of this process may still use the parent.
            drop(
                Command::new("find")
                    .arg(&folder)
                    .args(["-depth", "-type", "d", "-delete"])
                    .stderr(Stdio::null())
                    .status(),
            );
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("port");
    listener
        .local_addr()
        .map(|address: SocketAddr| address.port())
        .expect("address")
}

/// Tries until something is there.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A pod of containers that run a shell script each.
pub(crate) fn pod(policy: &str, scripts: &[(&str, &str)]) -> Pod {
    Pod {
        uid: format!("uid-{}", free_port()),
        namespace: "default".into(),
        name: "test".into(),
        generation: 1,
        restart_policy: policy.into(),
        termination_grace_seconds: 5,
        containers: scripts.iter().map(|(name, script)| shell(name, script)).collect(),
        ..Default::default()
    }
}

/// A container that runs a shell script.
pub(crate) fn shell(name: &str, script: &str) -> Container {
    Container {
        name: name.into(),
        image: BUSYBOX.into(),
        pull_policy: "IfNotPresent".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        termination_message_path: "/dev/termination-log".into(),
        ..Default::default()
    }
}

/// A container's present state.
pub(crate) fn state(container: &ContainerStatus) -> Option<State> {
    container.state.clone().and_then(|state| state.state)
}

/// Reason of a waiting container, empty when it does not wait.
pub(crate) fn waiting(container: &ContainerStatus) -> String {
    match state(container) {
        Some(State::Waiting(waiting)) => waiting.reason,
        _ => String::new(),
    }
}

/// Exit code and reason of an ended container.
pub(crate) fn ended(container: &ContainerStatus) -> Option<(i32, String)> {
    match state(container) {
        Some(State::Terminated(terminated)) => Some((terminated.exit_code, terminated.reason)),
        _ => None,
    }
}

/// A channel over TLS as `certs` makes it.
fn channel(address: &str, connect: tokio_rustls::TlsConnector) -> Channel {
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (address, connect) = (address.clone(), connect.clone());
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::try_from("test-cell").map_err(std::io::Error::other)?;
            connect.connect(name, tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://test-cell").connect_with_connector_lazy(connector)
}
