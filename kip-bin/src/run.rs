//! `kip run`: the controller of a cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use kip_core::cell::BootOptions;
use kip_core::ids::NodeName;
use kip_core::kubelet::{KubeletConfig, NodeTaint, ServingCertificate, install_cells};
use kube::Client;
use tokio::net::UdpSocket;

use crate::admin::Admin;
use crate::args::RunArgs;
use crate::config::{self, Config};
use crate::controller::{Controller, Parts};
use crate::office::{self, Office};
use crate::signals::Signals;
use crate::standing::Standing;
use crate::wire::{Connection, Home};
use crate::{boot, instance_data, system, wire};

/// What to do where the kubelet's certificate or key cannot be read.
const SERVING: &str = "the certificate of the kubelet's endpoint cannot be used: check --kubelet-certificate and --kubelet-key \
                       (APISERVER_CERT_LOCATION, APISERVER_KEY_LOCATION), or leave both away for a self-signed one";

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When something needed at the start is wrong or missing, or a part of the controller ends.
pub(crate) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    for warning in args.legacy.warnings() {
        tracing::warn!("{warning}");
    }
    refuse(&args.legacy.problems())?;
    let mut loaded = config::load(&args.provider_config)?;
    refuse(&args.aws.contradictions(&loaded.config.cloud))?;
    for warning in &loaded.warnings {
        tracing::warn!("{}: {warning}", args.provider_config.display());
    }
    if let Some(path) = &args.legacy.instance_data_path {
        instance_data::apply(path, args.aws.region(), &mut loaded.config.cloud)?;
    }
    let boot = boot::options(&loaded.config)?;
    wire::block_on(serve(args, loaded.config, boot))
}

/// Ends with all problems at once, if there are any.
fn refuse(problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    anyhow::bail!("{}", problems.join("\n"))
}

async fn serve(args: RunArgs, config: Config, boot: BootOptions) -> anyhow::Result<ExitCode> {
    let signals = Signals::listen()?;
    let kip_namespace = args
        .kip_namespace
        .clone()
        .or_else(wire::pod_namespace)
        .unwrap_or_else(|| system::NAMESPACE.to_owned());
    let identity = office::identity()?;
    let election = office::election(&args.leader, &kip_namespace, &args.nodename, &identity)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = args.nodename,
        identity,
        leader_election = election.is_some(),
        "kip run"
    );
    let standing = Standing::default();
    let _admin = match args.metrics_addr {
        Some(listen) => Some(Admin::bind(listen.0, standing.clone()).await?.serve()),
        None => None,
    };
    let connection = wire::client(args.kubeconfig.as_deref(), args.master.as_deref()).await?;
    let mut office = tokio::select! {
        office = Office::take(&connection.client, election) => office?,
        () = signals.end.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    standing.leads();
    let acting = Act {
        args: &args,
        config: &config,
        boot: &boot,
        connection: &connection,
        kip_namespace: &kip_namespace,
        signals: &signals,
        standing: &standing,
    };
    let outcome = tokio::select! {
        outcome = acting.until_told() => outcome,
        // What acted is dropped, as in a crash: another may act in a moment.
        why = office.lost() => Err(anyhow::Error::new(why)
            .context("this controller leads no longer and ends at once; the pods run on, and the next leader takes them over")),
    };
    // With the driver the cloud is let go, which another may need for itself.
    standing.stands_by();
    office.resign().await;
    outcome
}

/// What a process that leads works with.
struct Act<'a> {
    args: &'a RunArgs,
    config: &'a Config,
    boot: &'a BootOptions,
    connection: &'a Connection,
    kip_namespace: &'a str,
    signals: &'a Signals,
    standing: &'a Standing,
}

impl Act<'_> {
    /// Acts until a signal, and ends in good order.
    async fn until_told(&self) -> anyhow::Result<ExitCode> {
        let starting = self.start();
        let mut controller = tokio::select! {
            started = starting => started?,
            // Nothing runs yet, and whatever was launched before is in its record.
            () = self.signals.end.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        let outcome = tokio::select! {
            ended = until_ended(&mut controller) => Err(ended),
            () = self.signals.end.cancelled() => Ok(ExitCode::SUCCESS),
        };
        controller.stop(&self.signals.hurry).await;
        outcome
    }

    async fn start(&self) -> anyhow::Result<Controller> {
        let Self {
            args,
            config,
            connection,
            ..
        } = self;
        let client = connection.client.clone();
        let node_ip = match args.node_ip {
            Some(ip) => ip,
            None => route_to(&connection.server).await.context(
                "cannot tell at which address the API server reaches this process; give --node-ip",
            )?,
        };
        install_cells(&client).await?;
        let kubelet = kubelet_config(args, config, &client, node_ip).await?;
        let authority = system::cell_authority(&client, self.kip_namespace).await?;
        let home = Home {
            cluster: system::cluster_uid(&client).await?,
            node: NodeName::new(&args.nodename),
            address: node_ip,
        };
        let (provider, freshness) = wire::provider(config, &home).await?;
        Controller::start(Parts {
            client,
            kubelet,
            provider,
            freshness,
            authority,
            boot: self.boot.clone(),
            config,
            workers: args.pod_sync_workers.max(1),
            standing: self.standing.clone(),
        })
        .await
    }
}

/// Says when the node is ready, then waits for the end that should not come.
async fn until_ended(controller: &mut Controller) -> anyhow::Error {
    match controller.ready().await {
        Ok(()) => tracing::info!("the node is Ready"),
        Err(error) => tracing::warn!("{error:#}"),
    }
    controller.ended().await
}

async fn kubelet_config(
    args: &RunArgs,
    config: &Config,
    client: &Client,
    node_ip: IpAddr,
) -> anyhow::Result<KubeletConfig> {
    let mut kubelet = KubeletConfig::new(NodeName::new(&args.nodename), node_ip);
    kubelet.node.capacity = config.kubelet.capacity.clone();
    kubelet.node.labels = config.kubelet.labels.clone();
    kubelet.node.taint = (!args.disable_taint).then(|| NodeTaint {
        key: args.taint.clone(),
        value: args.taint_value.clone(),
        effect: args.taint_effect.clone(),
    });
    kubelet.pods.namespace = args.namespace.clone();
    kubelet.pods.basis = config.sizing.basis.into();
    kubelet.pods.cluster_domain = args.cluster_domain.clone();
    kubelet.pods.cluster_dns = if args.cluster_dns.is_empty() {
        system::cluster_dns(client).await?
    } else {
        args.cluster_dns.clone()
    };
    if kubelet.pods.cluster_dns.is_empty() {
        tracing::warn!("the cluster has no DNS service kube-system/kube-dns: pods use their cell's resolver");
    } else if args.cluster_dns.is_empty() && config.cloud.name() != "local" {
        tracing::warn!(addresses = ?kubelet.pods.cluster_dns,
            "pods get the cluster address of kube-system/kube-dns, which instances do not reach: give --cluster-dns one they do, \
             or write dnsPolicy: Default in pods");
    }
    let any: IpAddr = if node_ip.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    kubelet.endpoint.listen = SocketAddr::new(any, args.kubelet_port);
    if let (Some(certificate), Some(key)) = (&args.kubelet_certificate, &args.kubelet_key) {
        kubelet.endpoint.certificate = ServingCertificate::Given {
            certificate: read(certificate).context(SERVING)?,
            key: read(key).context(SERVING)?,
        };
    }
    kubelet.endpoint.client_ca = match &args.client_ca {
        Some(file) => Some(read(file)?),
        None => system::client_ca(client).await?,
    };
    if kubelet.endpoint.client_ca.is_none() {
        tracing::warn!("no client CA is known: logs and exec work only for clients with a bearer token");
    }
    Ok(kubelet)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// This machine's address on the way to a server. Sends nothing.
async fn route_to(server: &http::Uri) -> anyhow::Result<IpAddr> {
    let host = server.host().context("the API server's URL has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let target = tokio::net::lookup_host((host, server.port_u16().unwrap_or(443)))
        .await
        .with_context(|| format!("cannot resolve {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    let any: IpAddr = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await.context("cannot make a socket")?;
    socket
        .connect(target)
        .await
        .with_context(|| format!("there is no route to {target}"))?;
    Ok(socket.local_addr().context("the socket has no address")?.ip())
}
