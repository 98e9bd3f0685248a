//! Serves a cluster until SIGINT or SIGTERM: `cargo run -p kip-cluster --example serve -- --kubeconfig kubeconfig`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// A Kubernetes API in one process, with a small scheduler.
#[derive(Debug, Parser)]
struct Args {
    /// Address to serve on; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to write the kubeconfig.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// A user or group that may do everything, beside the administrator whose kubeconfig is written. May be repeated.
    #[arg(long)]
    allow: Vec<String>,
    /// Leave pending pods alone.
    #[arg(long)]
    no_scheduler: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let builder = kip_cluster::Cluster::builder()
        .listen(args.listen)
        .scheduler(!args.no_scheduler);
    let builder = args.allow.into_iter().fold(builder, kip_cluster::Builder::allow);
    let cluster = builder.start().await?;
    cluster.write_kubeconfig(&args.kubeconfig)?;
    writeln!(std::io::stdout(), "kip-cluster: serving {}", cluster.url())
        .context("standard output is closed")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cluster.shutdown().await;
    Ok(())
}
