//! The machines of an EC2 that has none: for each instance that an emulator of EC2's API shows, a local cell is booted from the
//! user-data the emulator keeps, at the instance's private addresses; when the instance is terminated the cell ends.
//!
//! So all of Kip runs on EC2's API and on real containers at once: `cargo xtask e2e --cloud ec2` starts it. Needs root and what
//! `kip-local` needs. Killed and started again with the same data folder, it finds the cells it had.

mod ec2;
mod plan;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures::TryStreamExt as _;
use kip_core::ids::{InstanceId, InstanceType, LaunchToken, OfferingId, Zone};
use kip_core::model::CapacityType;
use kip_core::provider::{CloudProvider as _, LaunchRequest, ListOptions};
use kip_core::{Error, ErrorKind};
use kip_local::{LocalCloud, LocalConfig, LocalOffering};
use tokio::signal::unix::{SignalKind, signal};

use ec2::Ec2;
use plan::{Cell, Step};

/// Says on a cell which instance of EC2 it is.
const INSTANCE: &str = "ec2/instance-id";
/// What every cell is as a machine of `kip-local`. How large the pod's type is on EC2 does not matter here.
const MACHINE: &str = "ec2.machine";
const ZONE: &str = "here";
/// How often EC2 is asked: it has no call that waits.
const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Parser)]
#[command(about = "Boots a local cell for each instance that an emulator of EC2's API shows")]
struct Args {
    /// Where the emulator serves.
    #[arg(long)]
    endpoint: String,
    /// The network of the emulator's VPC, such as 100.96.0.0/20: the machine gets the first address of it.
    #[arg(long)]
    network: String,
    /// Where cells are kept.
    #[arg(long)]
    data_dir: PathBuf,
    /// The agent.
    #[arg(long)]
    agent: PathBuf,
    /// Images that every cell has from birth.
    #[arg(long)]
    image_archive: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let args = Args::parse();
    let config = LocalConfig {
        subnet: Some(args.network),
        agent_path: Some(args.agent),
        image_archives: args.image_archive,
        offerings: Some(vec![LocalOffering {
            instance_type: MACHINE.into(),
            cpu: "2".into(),
            memory: "1Gi".into(),
            price: 1.0,
            spot_price: None,
            zones: vec![ZONE.into()],
            capacity: None,
        }]),
        data_dir: args.data_dir,
        ..LocalConfig::default()
    };
    let booted = config.data_dir.join("booted");
    let cells = LocalCloud::new(config).await?;
    let hypervisor = Hypervisor {
        ec2: Ec2::open(&args.endpoint),
        cells,
        booted,
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tracing::info!("the hypervisor serves");
    tokio::select! {
        ended = hypervisor.serve() => ended,
        _ = terminate.recv() => Ok(()),
    }
}

struct Hypervisor {
    ec2: Ec2,
    cells: LocalCloud,
    /// The instances that ever had a cell, one a line: one whose cell ended by itself is not booted again.
    booted: PathBuf,
}

impl Hypervisor {
    async fn serve(&self) -> Result<()> {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(error) = self.turn().await {
                tracing::warn!("{error:#}");
            }
        }
    }

    /// Looks once, and does what has to be done. What fails is tried again at the next turn.
    async fn turn(&self) -> Result<()> {
        let shown = self.ec2.instances().await?;
        let cells: Vec<Cell> = self
            .cells
            .list(ListOptions::default())
            .map_ok(|cell| Cell {
                instance: cell.tags.get(INSTANCE).cloned().unwrap_or_default(),
                id: cell.id,
            })
            .try_collect()
            .await?;
        let steps = plan::steps(&shown, &cells, &read(&self.booted)?);
        // Side by side: a machine that boots keeps no other waiting.
        let done = steps.into_iter().map(|step| async {
            let what = step.to_string();
            if let Err(error) = self.take(step).await {
                tracing::warn!("{what}: {error:#}");
            }
        });
        futures::future::join_all(done).await;
        Ok(())
    }

    async fn take(&self, step: Step) -> Result<()> {
        match step {
            Step::AssignPodAddress(interface, address) => self.ec2.assign(&interface, address).await,
            Step::Boot(instance, at) => {
                let user_data = self.ec2.user_data(&instance).await?;
                note(&self.booted, &instance)?;
                let offering = OfferingId {
                    instance_type: InstanceType::new(MACHINE),
                    zone: Zone::new(ZONE),
                    capacity_type: CapacityType::OnDemand,
                };
                let request = LaunchRequest::new(LaunchToken::from_stored(&instance), offering, user_data)
                    .with_tag(INSTANCE, &instance);
                self.cells.launch_at(request, at).await?;
                tracing::info!(instance, address = %at.management, "booted");
                Ok(())
            }
            Step::End(id) => gone(self.cells.terminate(&id).await, &id),
            Step::Terminate(instance) => {
                tracing::info!(instance, "its machine has ended by itself");
                self.ec2.terminate(&instance).await
            }
        }
    }
}

fn gone(outcome: Result<(), Error>, id: &InstanceId) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => {
            tracing::info!(cell = %id, "ended");
            Ok(())
        }
    }
}

fn read(booted: &Path) -> Result<BTreeSet<String>> {
    match std::fs::read_to_string(booted) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        text => Ok(text
            .with_context(|| format!("cannot read {}", booted.display()))?
            .lines()
            .map(str::to_owned)
            .collect()),
    }
}

fn note(booted: &Path, instance: &str) -> Result<()> {
    use std::io::Write as _;
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(booted)
        .and_then(|mut file| file.write_all(format!("{instance}\n").as_bytes()));
    written.with_context(|| format!("cannot write {}", booted.display()))
}
