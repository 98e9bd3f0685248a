//! For EC2 without Amazon: an emulator of its API, and a hypervisor that boots a local cell for each instance it shows.

mod api;
mod calls;
mod cases;
mod network;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub(super) use self::cases::{CASES, FROM_OTHERS};
use super::Cloud;
use crate::command::cmd;
use crate::daemon::{Daemon, ended_as_told, tail, wait_until};
use crate::setup::{self, Machine};
use crate::{build, ui};

/// How long an emulator or the hypervisor may take to serve, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the fake EC2 lets calls go wrong: much more than the real one does, little enough that nothing takes for ever.
const FAULTS: [&str; 16] = [
    "--throttled",
    "40",
    "--internal-errors",
    "20",
    "--lost-replies",
    "40",
    "--lost-calls",
    "20",
    "--no-capacity",
    "100",
    "--lag",
    "300",
    "--boot",
    "200",
    "--shutdown",
    "500",
];

/// An emulator of EC2 and its machines. Dropping it ends both; cells are ended with their instances, before.
#[derive(Debug)]
pub(crate) struct Ec2 {
    hypervisor: Daemon,
    emulator: Daemon,
    /// Where the cells are.
    data: PathBuf,
    url: String,
    vpc: String,
    /// What provider.yaml says about the boot image.
    image: Value,
    /// How often Kip called what.
    calls: calls::Source,
}

impl Ec2 {
    /// Starts the emulator, makes a VPC in it where it has none, and starts the hypervisor, which keeps its cells in `data`.
    pub(crate) fn start(cloud: Cloud, machine: &Machine, folder: &Path, data: &Path) -> Result<Self> {
        let begin = Instant::now();
        let network = network::free()?;
        let hypervisor = build::example(build::Scope::Workspace, "kip-aws", "hypervisor")?;
        let (emulator, url, vpc, image, calls) = match cloud {
            Cloud::Local => bail!("the local cloud has no EC2"),
            Cloud::Moto => moto(folder, network)?,
            Cloud::FakeEc2 => fake(folder, network)?,
        };
        let agent = build::binary("kip-cell")?;
        let mut serve = cmd(
            &hypervisor,
            ["--endpoint", &url, "--network", &format!("{network}/20")],
        );
        serve
            .arg("--data-dir")
            .arg(data)
            .arg("--agent")
            .arg(agent)
            .arg("--image-archive")
            .arg(&machine.busybox);
        let log = folder.join("hypervisor.log");
        let mut hypervisor = Daemon::start("the hypervisor", &serve, &log, Signal::SIGTERM)?;
        wait_until("the hypervisor to serve", PATIENCE, || {
            hypervisor.check_alive()?;
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            Ok(said.contains("the hypervisor serves").then_some(()))
        })?;
        ui::ok(&format!(
            "{cloud} at {url}, with local cells as its machines ({})",
            ui::duration(begin.elapsed())
        ));
        Ok(Self {
            hypervisor,
            emulator,
            data: data.to_owned(),
            url,
            vpc,
            image,
            calls,
        })
    }

    /// `cloud` and `cells` of provider.yaml.
    pub(crate) fn settings(&self) -> (Value, Value) {
        let aws = json!({
            "region": "us-east-1",
            "accessKeyID": "AKIAKIP",
            "secretAccessKey": "secret",
            "vpcID": self.vpc,
            "endpointURL": self.url,
        });
        (json!({"aws": aws}), json!({"bootImageSpec": self.image}))
    }

    /// Fails with the end of its log when a part has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.emulator.check_alive()?;
        self.hypervisor.check_alive()
    }

    /// The instances that cost something.
    pub(crate) fn instances(&self) -> Result<Vec<api::Instance>> {
        let mut all = api::instances(&self.url)?;
        all.retain(|instance| instance.state != "terminated");
        Ok(all)
    }

    /// Every instance there ever was of a pod.
    pub(crate) fn launched_for(&self, uid: &str) -> Result<Vec<api::Instance>> {
        let mut all = api::instances(&self.url)?;
        all.retain(|instance| {
            instance
                .tags
                .get("kip.elotl.co/pod-uid")
                .is_some_and(|of| of == uid)
        });
        Ok(all)
    }

    /// Terminates an instance as its owner could at any time.
    pub(crate) fn terminate(&self, id: &str) -> Result<()> {
        api::call(&self.url, "TerminateInstances", &[("InstanceId.1", id)]).map(|_| ())
    }

    /// Ends the machine of an instance from inside, as `poweroff` or a kernel panic would.
    pub(crate) fn shut_down(&self, id: &str) -> Result<()> {
        let folder = self.data.join("instances");
        let of_instance = |record: &Path| -> Option<bool> {
            let record: Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
            Some(record["tags"]["ec2/instance-id"] == id)
        };
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let cell = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|cell| of_instance(&cell.join("instance.json")) == Some(true))
            .with_context(|| format!("{id} has no cell"))?;
        let init = std::fs::read_to_string(cell.join("init.pid")).context("its cell has no first process")?;
        let pid = init
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .with_context(|| format!("its first process is {init:?}"))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("cannot end process {pid}"))
    }

    /// The end: no instance is left in EC2, and the hypervisor, told to end, ends.
    pub(crate) fn end(&mut self) -> Result<()> {
        let mut left = Vec::new();
        let none = wait_until("the last instance to be terminated", PATIENCE, || {
            left = self.instances()?;
            Ok(left.is_empty().then_some(()))
        });
        none.with_context(|| format!("left in EC2: {left:?}"))?;
        self.check_alive()?;
        let status = self.hypervisor.stop(Duration::from_secs(20))?;
        ensure!(ended_as_told(status), "the hypervisor ended with {status}");
        Ok(())
    }

    /// What Kip called, for the reader.
    pub(crate) fn report(&self) -> Result<String> {
        calls::report(&self.calls)
    }

    /// The end of the hypervisor's log, for messages.
    pub(crate) fn last_words(&self) -> String {
        tail(self.hypervisor.log(), 12)
    }
}

type Started = (Daemon, String, String, Value, calls::Source);

/// moto, with a VPC of two subnets in two zones.
fn moto(folder: &Path, network: std::net::Ipv4Addr) -> Result<Started> {
    let mut serve = cmd(setup::moto::provide()?, ["-H", "127.0.0.1", "-p", "0"]);
    let recording: PathBuf = folder.join("moto-calls");
    serve.env("MOTO_RECORDER_FILEPATH", &recording);
    let log = folder.join("moto.log");
    let mut daemon = Daemon::start("moto", &serve, &log, Signal::SIGKILL)?;
    let url = wait_until("moto to serve", PATIENCE, || {
        daemon.check_alive()?;
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Ok(said
            .lines()
            .find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned())))
    })?;
    let start = format!("{url}/moto-api/recorder/start-recording");
    crate::command::read(&mut cmd(
        "curl",
        ["--silent", "--fail", "--request", "POST", &start],
    ))?;
    let cidr = format!("{network}/20");
    let vpc = made(&api::call(&url, "CreateVpc", &[("CidrBlock", &cidr)])?, "vpcId")?;
    for (number, zone) in [(0, "us-east-1a"), (1, "us-east-1b")] {
        let subnet = format!("{}/22", network::nth_subnet(network, number));
        let params = [
            ("VpcId", vpc.as_str()),
            ("CidrBlock", &subnet),
            ("AvailabilityZone", zone),
        ];
        api::call(&url, "CreateSubnet", &params)?;
    }
    // One of those moto is born with. What it would boot does not matter here, its architecture does.
    let image = json!({"filters": "name=al2023-ami-ecs-hvm-* architecture=x86_64"});
    Ok((daemon, url, vpc, image, calls::Source::Recording(recording)))
}

/// Our fake, which has its subnets from birth, with faults on.
fn fake(folder: &Path, network: std::net::Ipv4Addr) -> Result<Started> {
    let mut serve = cmd(
        build::binary("kip-fake-ec2")?,
        ["--network", &network.to_string()],
    );
    serve.args(FAULTS);
    let log = folder.join("fake-ec2.log");
    let mut daemon = Daemon::start("kip-fake-ec2", &serve, &log, Signal::SIGKILL)?;
    let url = daemon.wait_for_line("kip-fake-ec2: serving ", PATIENCE)?;
    let calls = calls::Source::Url(format!("{url}/calls"));
    Ok((
        daemon,
        url,
        "vpc-1".to_owned(),
        json!({"imageIDs": "ami-0amd"}),
        calls,
    ))
}

fn made(xml: &str, element: &str) -> Result<String> {
    api::text(xml, element).with_context(|| format!("moto answers without {element}: {xml}"))
}
