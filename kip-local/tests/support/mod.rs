//! What the tests with real instances share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(
    clippy::print_stderr,
    reason = "timings and problems belong in the test's output"
)]
#![allow(clippy::future_not_send, reason = "tests wait where they are")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use kip_core::cell::{CellAuthority, CellRuntime};
use kip_core::ids::{
    CellName, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodRef, PodUid, Zone,
};
use kip_core::model::{
    CapacityType, ContainerManifest, Instance, PodManifest, PullPolicy, RestartPolicy, RuntimeReport,
};
use kip_core::provider::{CloudProvider as _, LaunchRequest, UserData};
use kip_core::runtime::{BootRequest, CellEndpoint, PodRuntime as _};
use kip_local::{Leftovers, LocalCloud, LocalConfig, write_busybox_archive};

/// The image every real cell of the tests has.
pub const BUSYBOX: &str = "docker.io/library/busybox:1.35";
const APPLETS: [&str; 12] = [
    "sh", "sleep", "echo", "cat", "ls", "nc", "wget", "httpd", "ip", "ps", "env", "kill",
];

/// A data folder of one test's own. What the test leaves in it fails the test.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Result<Self> {
        if let Err(missing) = LocalCloud::check() {
            let text: Vec<_> = missing.iter().map(ToString::to_string).collect();
            anyhow::bail!(
                "this test needs a machine that can run instances: {}",
                text.join("; ")
            );
        }
        // Not /tmp, which may be a file system in memory.
        let folder = tempfile::Builder::new()
            .prefix("kip-local-test-")
            .tempdir_in("/var/tmp")?;
        Ok(Self { folder })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A configuration whose agent only waits: for tests of the cloud alone.
    pub fn bare(&self) -> Result<LocalConfig> {
        let agent = self.folder.path().join("agent");
        // Once: a program cannot be written while an instance starts it.
        if !agent.exists() {
            std::fs::write(&agent, "#!/bin/sh\nexec sleep 1000000\n")?;
            std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(LocalConfig {
            data_dir: self.data(),
            agent_path: Some(agent),
            ..LocalConfig::default()
        })
    }

    /// A configuration with the real agent and busybox.
    pub fn real(&self) -> Result<LocalConfig> {
        let archive = self.folder.path().join("busybox.tar");
        write_busybox_archive(&archive, Path::new("/bin/busybox"), BUSYBOX, &APPLETS)?;
        Ok(LocalConfig {
            data_dir: self.data(),
            agent_path: Some(agent()?),
            image_archives: vec![archive],
            ..LocalConfig::default()
        })
    }

    pub async fn nothing_left(&self) -> Result<()> {
        let left = Leftovers::of(&self.data()).await?;
        ensure!(left.is_empty(), "left on the machine: {left}");
        Ok(())
    }
}

impl Drop for Place {
    /// A failed test leaves its instances running, as a killed controller would.
    fn drop(&mut self) {
        let data = self.data();
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(Leftovers::remove(&data)))
        })
        .join();
        if !matches!(removed, Ok(Ok(Ok(())))) {
            eprintln!("cannot clean up after the test: {removed:?}");
        }
    }
}

/// Builds the agent and returns its path.
fn agent() -> Result<PathBuf> {
    static AGENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = AGENT.get_or_init(|| {
        let program = std::env::current_exe()
            .ok()
            .and_then(|test| Some(test.parent()?.parent()?.join("kip-cell")))
            .ok_or("where is this test?")?;
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "kip-cell"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .map_err(|error| error.to_string())?;
        if status.success() && program.exists() {
            Ok(program)
        } else {
            Err(format!(
                "`cargo build --package kip-cell` did not make {}",
                program.display()
            ))
        }
    });
    built.clone().map_err(|error| anyhow!(error))
}

pub fn offering(name: &str) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(name),
        zone: Zone::new("local-a"),
        capacity_type: CapacityType::OnDemand,
    }
}

/// A launch whose user-data is well-formed and means nothing.
pub fn bare_request(token: &str) -> LaunchRequest {
    let user_data = "#cloud-config\n{\"write_files\":[{\"path\":\"/etc/kip/cell.json\",\"permissions\":\"0600\",\"content\":\"{}\"}]}\n";
    LaunchRequest::new(
        LaunchToken::from_stored(token),
        offering("local.nano"),
        UserData::new(user_data),
    )
    .with_tag("test", token)
}

/// Waits for a level, with a bound.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        ensure!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What an instance said, for the message of a failed test.
pub fn console(cloud: &LocalCloud, id: &InstanceId) -> String {
    let folder = cloud.instance_dir(id);
    [
        "console.log",
        "root/var/log/containerd.log",
        "root/var/log/kip-cell.log",
    ]
    .map(|file| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!(
            "--- {file}\n{}",
            lines[lines.len().saturating_sub(25)..].join("\n")
        )
    })
    .join("\n")
}

/// The number of an instance's init.
pub fn init(cloud: &LocalCloud, id: &InstanceId) -> Result<i32> {
    let text = std::fs::read_to_string(cloud.instance_dir(id).join("init.pid"))?;
    let (pid, _) = text.split_once(' ').context("init.pid")?;
    Ok(pid.parse()?)
}

/// Numbers of the machine's processes in an instance, its containers included, whose command line contains `text`.
pub fn processes(id: &InstanceId, text: &str) -> Vec<i32> {
    let group = id.as_str().replace("i-", "/");
    let read = |pid: &str, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|pid| pid.parse::<i32>().is_ok())
        .filter(|pid| String::from_utf8_lossy(&read(pid, "cgroup")).contains(&group))
        .filter(|pid| {
            String::from_utf8_lossy(&read(pid, "cmdline"))
                .replace('\0', " ")
                .contains(text)
        })
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

pub fn kill(pid: i32) -> Result<()> {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    ensure!(status.success(), "kill {pid}");
    Ok(())
}

/// A cell with a pod on it, made the way the controller makes one.
pub struct Cell {
    pub instance: Instance,
    pub endpoint: CellEndpoint,
    pub manifest: PodManifest,
    pub reports: BoxStream<'static, kip_core::Result<RuntimeReport>>,
    pub took: Duration,
}

/// The controller's half: a cloud and a runtime with their authority.
pub struct Bench {
    pub cloud: LocalCloud,
    pub runtime: CellRuntime,
}

impl Bench {
    pub async fn new(place: &Place) -> Result<Self> {
        Self::with(place.real()?).await
    }

    pub async fn with(config: LocalConfig) -> Result<Self> {
        let authority = CellAuthority::generate("test", Timestamp::now())?;
        Ok(Self {
            cloud: LocalCloud::new(config).await?,
            runtime: CellRuntime::new(Arc::new(authority)),
        })
    }

    pub fn request(&self, name: &str, offering_name: &str) -> Result<(LaunchRequest, PodRef)> {
        let pod = PodRef {
            uid: PodUid::new(format!("uid-{name}")),
            namespace: "default".into(),
            name: name.into(),
        };
        let token = LaunchToken::from_stored(format!("{name:0>12}"));
        let boot = BootRequest {
            cell: token.host_name(),
            node: NodeName::new("kip"),
            pod: pod.uid.clone(),
            token: token.clone(),
            issued_at: Timestamp::from_second(Timestamp::now().as_second())?,
        };
        let user_data = self.runtime.user_data(&boot)?;
        Ok((LaunchRequest::new(token, offering(offering_name), user_data), pod))
    }

    /// Launches a cell and waits until its pod runs (or has run).
    pub async fn run(&self, name: &str, script: &str) -> Result<Cell> {
        self.run_on(name, script, "local.micro").await
    }

    pub async fn run_on(&self, name: &str, script: &str, offering_name: &str) -> Result<Cell> {
        let (request, pod) = self.request(name, offering_name)?;
        let cell: CellName = request.cell.clone();
        let started = Instant::now();
        let instance = self.cloud.launch(request).await?;
        let launched = started.elapsed();
        let address = instance.addresses.management.context("no management address")?;
        let endpoint = CellEndpoint { cell, address };
        let reports = self.runtime.watch(&endpoint, Duration::from_secs(15)).await;
        let mut reports = reports.with_context(|| console(&self.cloud, &instance.id))?;
        let connected = started.elapsed();
        let manifest = manifest(pod, script);
        self.runtime.deploy(&endpoint, &manifest).await?;
        let report = wait(&mut reports, "the pod runs", |report| {
            report.marks.running_at.is_some()
        })
        .await
        .with_context(|| console(&self.cloud, &instance.id))?;
        let took = started.elapsed();
        eprintln!(
            "{name}: launched {launched:?}, connected {connected:?}, running {took:?}; sandbox {:?} after deploy",
            report
                .marks
                .sandbox_ready_at
                .zip(report.marks.deployed_at)
                .map(|(ready, deployed)| ready.duration_since(deployed))
        );
        Ok(Cell {
            instance,
            endpoint,
            manifest,
            reports,
            took,
        })
    }

    /// The first line the pod says, once it says it.
    pub async fn first_line(&self, cell: &Cell) -> Result<String> {
        let request = kip_core::runtime::LogRequest {
            container: "main".into(),
            follow: true,
            ..Default::default()
        };
        let mut chunks = self
            .runtime
            .logs(&cell.endpoint, &cell.manifest.pod.uid, request)
            .await?;
        let mut text = Vec::new();
        let reading = async {
            while let Some(chunk) = chunks.next().await {
                text.extend(chunk?);
                if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    return Ok(String::from_utf8(text[..end].to_vec())?);
                }
            }
            Err(anyhow!("the log ended"))
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .context("no line in the log")?
    }
}

pub fn manifest(pod: PodRef, script: &str) -> PodManifest {
    let mut manifest = PodManifest::new(pod);
    manifest.restart_policy = RestartPolicy::Never;
    manifest.containers.push(ContainerManifest {
        name: "main".into(),
        image: BUSYBOX.into(),
        pull_policy: PullPolicy::IfNotPresent,
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        termination_message_path: "/dev/termination-log".into(),
        ..ContainerManifest::default()
    });
    manifest
}

/// Reads reports until one is as wanted.
pub async fn wait(
    reports: &mut BoxStream<'static, kip_core::Result<RuntimeReport>>,
    what: &str,
    wanted: impl Fn(&RuntimeReport) -> bool,
) -> Result<RuntimeReport> {
    let mut last = None;
    let waiting = async {
        while let Some(report) = reports.next().await {
            let report = report?;
            if wanted(&report) {
                return Ok(report);
            }
            last = Some(report);
        }
        Err(anyhow!("the reports ended"))
    };
    let result = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    result
        .unwrap_or_else(|_| Err(anyhow!("waited in vain")))
        .with_context(|| format!("{what}; last report: {last:#?}"))
}
