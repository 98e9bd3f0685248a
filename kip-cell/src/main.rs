//! The `kip-cell` command: reads the boot configuration and runs the agent until it is told to end.

mod args;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use kip_cell::{Agent, load_boot_config, prepare_network};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use args::{Args, LogFormat};

fn main() -> ExitCode {
    let args = Args::parse();
    start_logging(args.log_format);
    // One thread is enough for one pod, and keeps the agent small.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(KEEP_THREADS)
        .build();
    let result = runtime
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(run(&args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Threads that did blocking work go soon, with their stacks.
const KEEP_THREADS: std::time::Duration = std::time::Duration::from_secs(2);

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = load_boot_config(&args.config_path())?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let folder = args.root.join("etc/cni/net.d");
    if let Some(service) = config.metadata.clone() {
        // Beside everything else: a cell without its second address still runs pods in its own network.
        tokio::spawn(async move { prepare_network(&service, &folder).await });
    }
    let agent = Agent::bind(&config, args.credential_providers()).await?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    agent.run(shutdown).await?;
    Ok(())
}

fn start_logging(format: LogFormat) {
    // Targets rather than the full filter language: without its regular expressions the agent is a megabyte smaller.
    let wanted = std::env::var("RUST_LOG")
        .ok()
        .and_then(|filter| filter.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
}
