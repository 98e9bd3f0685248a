//! The project's one vocabulary: `cargo xtask demo`, `test`, `ci`, `e2e`, `bench`, `control-plane`, each doing its own
//! set-up and saying what it installs.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a task runner is for"
)]

mod bench;
mod build;
mod catalogue;
mod ci;
mod cluster;
mod command;
mod control_plane;
mod daemon;
mod demo;
mod dev;
mod e2e;
mod interrupt;
mod leftovers;
mod paths;
mod processes;
mod setup;
mod sim;
mod soak;
mod ui;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Everything one does with this repository, one word each"
)]
enum Task {
    /// See real pods run on their own cells on this machine (needs root).
    #[command(after_help = "Example:\n  cargo xtask demo")]
    Demo,
    /// Run every test: unit, integration and doc tests, then the end-to-end suite on the in-process API (needs root).
    #[command(
        after_help = "Example:\n  cargo xtask test\n\nOne crate's tests alone need no task: cargo test -p kip-core"
    )]
    Test,
    /// Run everything a change must pass: tests, lints, documentation, budgets, both end-to-end suites, the demo.
    #[command(after_help = "Examples:\n  \
        cargo xtask ci                 # what .ci/run does; about an hour on a fresh machine\n  \
        cargo xtask ci --only clippy")]
    Ci {
        /// Only checks whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Measure what this project promises and write benches/README.md (needs root).
    #[command(after_help = "Example:\n  cargo xtask bench       # fails when a budget is exceeded")]
    Bench,
    /// Make the list of EC2's instance types and prices anew that kip-aws compiles in.
    #[command(
        after_help = "Example:\n  cargo xtask catalogue   # after a new moto or new prices; then commit kip-aws/data"
    )]
    Catalogue,
    /// Play stories in which everything goes wrong to the real driver, in virtual time.
    #[command(after_help = "Examples:\n  \
        cargo xtask sim --seeds 2000\n  \
        cargo xtask sim --seeds 500 --api   # over a simulated API server\n  \
        cargo xtask sim --seed 42 --trace\n  \
        cargo xtask sim --mutants           # prove that it finds deliberate defects\n  \
        cargo xtask sim -- --help           # all that kip-sim takes, once it is built")]
    Sim {
        /// Build in deliberate defects, and show that each is found.
        #[arg(long)]
        mutants: bool,
        /// What else `kip-sim` takes: `--seeds N`, `--from SEED`, `--seed SEED`, `--file FILE`, `--trace`, `--api`, `--keep FOLDER`,
        /// `--brief`, `--enough N`, `--threads N`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Provide a real Kubernetes control plane and print its folder.
    #[command(after_help = "Examples:\n  \
        cargo xtask control-plane\n  \
        KUBEBUILDER_ASSETS=/usr/local/kubebuilder/bin cargo xtask control-plane   # use these, build nothing")]
    ControlPlane {
        /// Also start it, and serve until Ctrl-C.
        #[arg(long)]
        serve: bool,
    },
    /// Run the end-to-end tests against a real or the in-process control plane (needs root).
    #[command(after_help = "Examples:\n  \
        cargo xtask e2e --control-plane real\n  \
        cargo xtask e2e --control-plane embedded --only exec\n  \
        cargo xtask e2e --cloud ec2      # EC2's API from moto and from a fake with faults on")]
    E2e {
        /// Which Kubernetes API the tests run against.
        #[arg(long, value_enum, default_value_t = cluster::Kind::Embedded)]
        control_plane: cluster::Kind,
        /// Whose instances the pods run on.
        #[arg(long, value_enum, default_value_t)]
        cloud: e2e::Choice,
        /// Only cases whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Only the API's answers: starts no cell.
        #[arg(long)]
        api_only: bool,
    },
    /// Kill controller, agents, containerd and cells at random while pods come and go; then look for what is left (needs root).
    #[command(after_help = "Examples:\n  \
        cargo xtask soak --minutes 5\n  \
        cargo xtask soak --minutes 1 --seed 42     # the blows of an earlier run")]
    Soak {
        /// How long things are broken for.
        #[arg(long, default_value_t = 5)]
        minutes: u64,
        /// What is drawn; each run prints its own.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let outcome = interrupt::install().and_then(|()| perform(Task::parse()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Demo => demo::run(),
        Task::Test => ci::test(),
        Task::Bench => bench::run(),
        Task::Catalogue => catalogue::run(),
        Task::Sim { mutants, args } => sim::run_with(mutants, &args),
        Task::Ci { only } => ci::checks(&only),
        Task::ControlPlane { serve } => {
            let folder = control_plane::provide()?;
            println!("{}", folder.display());
            if serve { serve_control_plane() } else { Ok(()) }
        }
        Task::E2e {
            control_plane,
            cloud,
            only,
            api_only,
        } => e2e::run(
            control_plane,
            &e2e::Options {
                only,
                api_only,
                cloud,
            },
        ),
        Task::Soak { minutes, seed } => soak::run(soak::Options { minutes, seed }),
    }
}

fn serve_control_plane() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("kip-control-plane-").tempdir()?;
    let kubectl = setup::kubectl::provide()?;
    let mut cluster = cluster::Cluster::start(
        cluster::Kind::Real,
        folder.path(),
        &kubectl,
        build::Scope::Package,
    )?;
    println!("   export KUBECONFIG={}", cluster.kubeconfig.display());
    println!("   Ctrl-C ends it");
    loop {
        std::thread::sleep(std::time::Duration::from_millis(200));
        if interrupt::check().is_err() {
            return Ok(());
        }
        cluster.check_alive()?;
    }
}
