//! `kip dev`: a Kubernetes API, the controller and a cloud, all in this process and on this machine.

mod apply;
mod summary;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Namespace;
use kip_cluster::Cluster;
use kip_core::ids::NodeName;
use kip_core::kubelet::{KubeletConfig, install_cells};
use kip_local::{LocalCloud, LocalConfig};
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::admin::Admin;
use crate::args::DevArgs;
use crate::config::Config;
use crate::controller::{Controller, Parts};
use crate::signals::Signals;
use crate::standing::Standing;
use crate::{boot, output, system, wire};

/// How long the pods of `-f` may take until they run or have ended.
const PODS_PATIENCE: Duration = Duration::from_secs(300);

/// Runs the command.
///
/// # Errors
/// When this machine lacks something, something is taken, or the cells' leftovers cannot be removed: the message says what to do.
pub(crate) fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    if let Err(missing) = LocalCloud::check() {
        bail!("{}", lacks(&missing));
    }
    wire::block_on(serve(args))
}

fn lacks(missing: &[kip_local::Missing]) -> String {
    let mut text = "this machine cannot run cells yet; it lacks:".to_owned();
    for one in missing {
        text.push_str(&format!("\n  {one}"));
    }
    let mut packages: Vec<&str> = missing.iter().filter_map(|one| one.package).collect();
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        text.push_str(&format!(
            "\nOn Debian or Ubuntu: apt-get install {}",
            packages.join(" ")
        ));
    }
    text
}

async fn serve(args: DevArgs) -> anyhow::Result<ExitCode> {
    let signals = Signals::listen()?;
    // Manifests with mistakes are better refused before anything starts.
    let objects = crate::manifest::read(&args.manifests)?;
    if let Some(path) = &args.kubeconfig {
        keep_foreign(path)?;
    }
    let data_dir = make_data_dir(&args.data_dir)?;
    let local = LocalConfig {
        data_dir: data_dir.join("cells"),
        image_archives: args.image_archives.clone(),
        agent_path: args.agent.clone(),
        boot_delay: args.boot_delay,
        ..LocalConfig::default()
    };
    let cloud = tokio::select! {
        cloud = LocalCloud::new(local.clone()) => cloud.with_context(|| format!("in {}", data_dir.display()))?,
        // It may be unpacking images, for long; the next start clears up what that left.
        () = signals.end.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let left = cloud
        .purge()
        .await
        .context("cannot remove what an earlier kip dev left")?;
    if !left.is_empty() {
        output::note(&format!(
            "kip dev: removed {} cells an earlier one left",
            left.len()
        ));
    }
    let kubeconfig = args
        .kubeconfig
        .clone()
        .unwrap_or_else(|| data_dir.join("kubeconfig"));

    let config = Config::local(local);
    let standing = Standing::default();
    let _admin = match args.metrics_addr {
        Some(listen) => Some(Admin::bind(listen, standing.clone()).await?.serve()),
        None => None,
    };
    let written = OnceLock::new();
    let outcome = Session {
        written: &written,
        args: &args,
        config: &config,
        cloud: &cloud,
        kubeconfig: &kubeconfig,
        signals: &signals,
        standing: &standing,
    }
    .play(&objects)
    .await;
    // Whatever happened: nothing is left behind.
    let purged = cloud
        .purge()
        .await
        .context("cannot remove every cell; run kip dev again to retry");
    if let Some(written) = written.get() {
        remove_kubeconfig(&kubeconfig, written);
    }
    purged?;
    outcome
}

fn make_data_dir(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| {
        format!(
            "cannot make the folder {}; choose another --data-dir",
            path.display()
        )
    })?;
    path.canonicalize()
        .with_context(|| format!("cannot use the folder {}", path.display()))
}

/// Refuses to write over a kubeconfig of another cluster: it would be lost.
fn keep_foreign(path: &Path) -> anyhow::Result<()> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.contains("kip-cluster") => anyhow::bail!(
            "--kubeconfig {}: the file is there already and is not one of kip dev's; name one that is not there",
            path.display()
        ),
        _ => Ok(()),
    }
}

/// Removes the kubeconfig, if it is still the one that was written.
fn remove_kubeconfig(path: &Path, written: &str) {
    if std::fs::read_to_string(path).is_ok_and(|text| text != written) {
        return;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot remove the kubeconfig");
        }
        _ => {}
    }
}

struct Session<'a> {
    args: &'a DevArgs,
    config: &'a Config,
    cloud: &'a LocalCloud,
    kubeconfig: &'a Path,
    /// What was written there, once it was.
    written: &'a OnceLock<String>,
    signals: &'a Signals,
    standing: &'a Standing,
}

impl Session<'_> {
    async fn play(&self, objects: &[serde_json::Value]) -> anyhow::Result<ExitCode> {
        let begin = Instant::now();
        let cluster = tokio::select! {
            cluster = Cluster::builder().listen(self.args.listen).start() => cluster?,
            () = self.signals.end.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        let outcome = self.with_cluster(&cluster, objects, begin).await;
        // Whatever happened: nothing is left behind. The API answers until the last cell is gone.
        let purged = self.cloud.purge().await;
        cluster.shutdown().await;
        purged.context("cannot remove every cell; run kip dev again to retry")?;
        outcome
    }

    async fn with_cluster(
        &self,
        cluster: &Cluster,
        objects: &[serde_json::Value],
        begin: Instant,
    ) -> anyhow::Result<ExitCode> {
        cluster.write_kubeconfig(self.kubeconfig)?;
        // Written once a session: the cell is empty.
        let _ = self.written.set(cluster.kubeconfig());
        let client = client_of(cluster).await?;
        let mut controller = tokio::select! {
            started = self.start(client.clone()) => started?,
            () = self.signals.end.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        let outcome = tokio::select! {
            outcome = self.use_it(&mut controller, client, objects, begin) => outcome,
            () = self.signals.end.cancelled() => Ok(ExitCode::SUCCESS),
        };
        controller.stop(&self.signals.hurry).await;
        outcome
    }

    async fn start(&self, client: Client) -> anyhow::Result<Controller> {
        install_cells(&client).await?;
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(system::NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .context("cannot make the namespace for Kip itself")?;
        let authority = system::cell_authority(&client, system::NAMESPACE).await?;

        let mut kubelet = KubeletConfig::new(
            NodeName::new(&self.args.nodename),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        );
        // Not the machine's size: what fits is the cloud's question, and its answer says why not.
        for (name, amount) in [("cpu", "10000"), ("memory", "64Ti"), ("pods", "1000")] {
            kubelet.node.capacity.insert(name.to_owned(), amount.to_owned());
        }
        kubelet.endpoint.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        kubelet.endpoint.client_ca = system::client_ca(&client).await?;
        Controller::start(Parts {
            client,
            kubelet,
            provider: Arc::new(self.cloud.clone()),
            freshness: None,
            authority,
            boot: boot::options(self.config)?,
            config: self.config,
            workers: 16,
            standing: self.standing.clone(),
        })
        .await
    }

    async fn use_it(
        &self,
        controller: &mut Controller,
        client: Client,
        objects: &[serde_json::Value],
        begin: Instant,
    ) -> anyhow::Result<ExitCode> {
        controller.ready().await?;
        output::line(&format!(
            "kip dev: ready after {:.1} s: node {} in a Kubernetes API of its own",
            begin.elapsed().as_secs_f64(),
            self.args.nodename
        ))?;
        let pods = apply::apply(&client, objects).await?;
        if self.args.keep {
            output::print(&self.hints())?;
            return Err(controller.ended().await);
        }
        if pods.is_empty() {
            output::line("This machine can run cells. `kip dev --keep` serves until Ctrl-C.")?;
            return Ok(ExitCode::SUCCESS);
        }
        let settled = tokio::select! {
            settled = tokio::time::timeout(PODS_PATIENCE, apply::settled(&client, &pods)) => settled,
            ended = controller.ended() => return Err(ended),
        };
        output::print(&summary::table(
            &controller.driver().snapshot(),
            &controller.driver().offerings(),
        ))?;
        match settled {
            Ok(Ok(true)) => Ok(ExitCode::SUCCESS),
            Ok(Ok(false)) => Ok(ExitCode::FAILURE),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("not all pods ran after {} seconds", PODS_PATIENCE.as_secs()),
        }
    }

    fn hints(&self) -> String {
        let kubeconfig = self.kubeconfig.display();
        format!(
            "\nPoint kubectl at it:\n\
             \x20 export KUBECONFIG={kubeconfig}\n\
             \x20 kubectl run hello --image=docker.io/library/busybox:1.35 \
             --overrides='{{\"spec\":{{\"tolerations\":[{{\"operator\":\"Exists\"}}]}}}}' -- sh -c 'echo hello; sleep 600'\n\
             \x20 kubectl get pods -o wide; kubectl logs hello; kip get cells\n\
             Ctrl-C ends it and removes every cell.\n"
        )
    }
}

async fn client_of(cluster: &Cluster) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
