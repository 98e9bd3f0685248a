//! Measures what the agent costs: a one-container pod by bare CRI calls, and the same pod through a ready agent, in turn
//! on the same runtime. Prints medians in milliseconds and their ratio as JSON.
//!
//! ```sh
//! cri_floor --socket /run/containerd/containerd.sock --image docker.io/library/busybox:1.35 --runs 20
//! ```
//!
//! Run it as root where the runtime runs (its mounts must be ours). It leaves nothing behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use hyper_util::rt::TokioIo;
use kip_cell::cri::v1::runtime_service_client::RuntimeServiceClient;
use kip_cell::cri::v1::{self, ContainerState};
use kip_cell::{Agent, CredentialProviders};
use kip_cell_api::BootConfig;
use kip_cell_api::v1::cell_client::CellClient;
use kip_cell_api::v1::{
    Container, DeployPodRequest, Pod, StopPodRequest, WatchStatusRequest, container_state::State,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// Compares the agent with the bare CRI calls.
#[derive(Debug, Parser)]
struct Args {
    /// Socket of the runtime.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    socket: PathBuf,
    /// Image with a shell; must be present.
    #[arg(long, default_value = "docker.io/library/busybox:1.35")]
    image: String,
    /// Pods of each kind.
    #[arg(long, default_value_t = 20)]
    runs: usize,
}

type Runtime = RuntimeServiceClient<Channel>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let mut runtime = connect_runtime(&args.socket);
    runtime
        .version(v1::VersionRequest::default())
        .await
        .context("the runtime does not answer")?;
    let (mut bare, mut agent) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        bare.push(bare_pod(&mut runtime, &args, folder.path(), run).await?);
        agent.push(agent_pod(&mut runtime, &args, folder.path(), run).await?);
    }
    let (bare, agent) = (median(bare), median(agent));
    let report = serde_json::json!({
        "runs": args.runs,
        "bareMs": bare.as_secs_f64() * 1e3,
        "agentMs": agent.as_secs_f64() * 1e3,
        "ratio": agent.as_secs_f64() / bare.as_secs_f64(),
    });
    #[expect(clippy::print_stdout, reason = "the report is this program's output")]
    {
        println!("{report}");
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The calls no agent can do without.
async fn bare_pod(runtime: &mut Runtime, args: &Args, folder: &Path, run: usize) -> Result<Duration> {
    let uid = format!("floor-bare-{}-{run}", std::process::id());
    let namespaces = Some(v1::NamespaceOption {
        pid: v1::NamespaceMode::Container.into(),
        ..Default::default()
    });
    let sandbox = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "floor".into(),
            uid: uid.clone(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "floor".into(),
        log_directory: folder.join(&uid).to_string_lossy().into_owned(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: namespaces.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: "main".into(),
            attempt: 0,
        }),
        image: Some(v1::ImageSpec {
            image: args.image.clone(),
            ..Default::default()
        }),
        command: vec!["sleep".into(), "9999".into()],
        log_path: "main.log".into(),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: namespaces,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let began = Instant::now();
    let request = v1::RunPodSandboxRequest {
        config: Some(sandbox.clone()),
        runtime_handler: String::new(),
    };
    let id = runtime
        .run_pod_sandbox(request)
        .await?
        .into_inner()
        .pod_sandbox_id;
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: id.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox),
    };
    let container_id = runtime.create_container(request).await?.into_inner().container_id;
    runtime
        .start_container(v1::StartContainerRequest {
            container_id: container_id.clone(),
        })
        .await?;
    let request = v1::ContainerStatusRequest {
        container_id,
        verbose: false,
    };
    let status = runtime
        .container_status(request)
        .await?
        .into_inner()
        .status
        .context("no status")?;
    let took = began.elapsed();
    if status.state() != ContainerState::ContainerRunning {
        bail!("the container does not run: {status:?}");
    }
    remove(runtime, &id).await?;
    Ok(took)
}

/// The same pod through an agent that is ready and watched.
async fn agent_pod(runtime: &mut Runtime, args: &Args, folder: &Path, run: usize) -> Result<Duration> {
    let uid = format!("floor-agent-{}-{run}", std::process::id());
    let certs = Certs::new()?;
    let config = certs.boot_config(&args.socket, &folder.join(&uid))?;
    let (ready, address) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    // The agent has a thread of its own, as it has a process of its own on a cell.
    let thread = std::thread::spawn(move || -> Result<()> {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        tokio.block_on(async {
            let agent = Agent::bind(&config, CredentialProviders::default()).await?;
            ready
                .send(agent.address())
                .map_err(|_| anyhow::anyhow!("nobody waits for the agent"))?;
            agent.run(async { drop(ended.await) }).await?;
            Ok(())
        })
    });
    let mut client = certs.client(address.await?.to_string())?;
    let mut status = client.watch_status(WatchStatusRequest {}).await?.into_inner();
    status.message().await?.context("no first status")?;
    let pod = Pod {
        uid: uid.clone(),
        namespace: "default".into(),
        name: "floor".into(),
        generation: 1,
        restart_policy: "Always".into(),
        containers: vec![Container {
            name: "main".into(),
            image: args.image.clone(),
            pull_policy: "IfNotPresent".into(),
            command: vec!["sleep".into(), "9999".into()],
            ..Default::default()
        }],
        ..Default::default()
    };
    let began = Instant::now();
    client.deploy_pod(DeployPodRequest { pod: Some(pod) }).await?;
    let took = loop {
        let status = status.message().await?.context("the agent ended")?;
        let state = status
            .containers
            .first()
            .and_then(|c| c.state.as_ref())
            .and_then(|state| state.state.as_ref());
        if matches!(state, Some(State::Running(_))) {
            break began.elapsed();
        }
        if !status.sandbox_error.is_empty() {
            bail!("{}", status.sandbox_error);
        }
    };
    client
        .stop_pod(StopPodRequest {
            pod_uid: uid.clone(),
            grace_seconds: 0,
            reason: "Done".into(),
        })
        .await?;
    while !status.message().await?.context("the agent ended")?.finished {}
    // Dropped, it tells the agent to end.
    drop(end);
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the agent panicked"))??;
    let filter = v1::PodSandboxFilter {
        label_selector: [("io.kubernetes.pod.uid".to_owned(), uid)].into(),
        ..Default::default()
    };
    let request = v1::ListPodSandboxRequest { filter: Some(filter) };
    for sandbox in runtime.list_pod_sandbox(request).await?.into_inner().items {
        remove(runtime, &sandbox.id).await?;
    }
    Ok(took)
}

async fn remove(runtime: &mut Runtime, id: &str) -> Result<()> {
    runtime
        .stop_pod_sandbox(v1::StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        })
        .await?;
    runtime
        .remove_pod_sandbox(v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        })
        .await?;
    Ok(())
}

fn connect_runtime(socket: &Path) -> Runtime {
    let socket = socket.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    RuntimeServiceClient::new(
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector),
    )
}

/// An authority for one run.
struct Certs {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certs {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self {
            authority: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    fn signed(&self, purpose: ExtendedKeyUsagePurpose) -> Result<(String, String)> {
        let mut params = CertificateParams::new(vec!["cell".to_owned()])?;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        Ok((
            params.signed_by(&key, &self.authority)?.pem(),
            key.serialize_pem(),
        ))
    }

    fn boot_config(&self, socket: &Path, state_dir: &Path) -> Result<BootConfig> {
        let (certificate_pem, private_key_pem) = self.signed(ExtendedKeyUsagePurpose::ServerAuth)?;
        Ok(BootConfig {
            version: 1,
            cell: "cell".into(),
            node: "node".into(),
            pod_uid: String::new(),
            ca_pem: self.authority.pem(),
            certificate_pem,
            private_key_pem,
            listen: "127.0.0.1:0".into(),
            runtime_socket: socket.to_string_lossy().into_owned(),
            state_dir: state_dir.to_string_lossy().into_owned(),
            cgroup_parent: String::new(),
            metadata: None,
        })
    }

    fn client(&self, address: String) -> Result<CellClient<Channel>> {
        let (certificate, key) = self.signed(ExtendedKeyUsagePurpose::ClientAuth)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connector = tower::service_fn(move |_: Uri| {
            let (address, tls) = (address.clone(), tls.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("cell").map_err(std::io::Error::other)?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        Ok(CellClient::new(
            Endpoint::from_static("http://cell").connect_with_connector_lazy(connector),
        ))
    }
}
