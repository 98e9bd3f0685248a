//! Joins the parts: the runtime, the cluster's client, and the cloud the configuration names.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kip_core::ids::{ClusterUid, NodeName};
use kip_core::provider::CloudProvider;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config as ClientConfig};

#[cfg(any(feature = "local", feature = "aws"))]
use crate::config::Cloud;
use crate::config::Config;
use crate::freshness::Freshness;
#[cfg(feature = "aws")]
use crate::freshness::Part;

/// Threads that run tasks. The work is waiting, so two are enough, and each costs memory.
const WORKERS: usize = 2;

/// Runs a future to its end on a new runtime, with the process's TLS provider installed.
///
/// # Errors
/// When the runtime cannot be made, or what the future answers.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Fails only when one is installed already, which is then the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let outcome = runtime.block_on(future);
    // Whoever leads no longer must be gone in a moment: nothing is waited for.
    runtime.shutdown_background();
    outcome
}

/// Whose instances a cloud is to launch, and from where they are controlled.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "aws"),
    expect(dead_code, reason = "only EC2 keeps anything for a node")
)]
pub(crate) struct Home {
    /// UID of the cluster.
    pub(crate) cluster: ClusterUid,
    /// Name of the virtual node.
    pub(crate) node: NodeName,
    /// This machine's address.
    pub(crate) address: IpAddr,
}

/// The cloud the configuration names, ready to launch, and how fresh what it sells is, where it tells.
///
/// # Errors
/// When it cannot work here: the message says what is missing and what to do.
#[cfg_attr(
    not(feature = "aws"),
    expect(unused_variables, reason = "only EC2 keeps anything for a node")
)]
pub(crate) async fn provider(
    config: &Config,
    home: &Home,
) -> anyhow::Result<(Arc<dyn CloudProvider>, Option<Freshness>)> {
    match &config.cloud {
        #[cfg(feature = "local")]
        Cloud::Local(local) => Ok((Arc::new(kip_local::LocalCloud::new(local.clone()).await?), None)),
        #[cfg(feature = "aws")]
        Cloud::Aws(aws) => {
            let settings = config.ec2(aws);
            // Boxed: the future that opens EC2 is large, and awaited once.
            let mut builder = kip_aws::AwsCloud::builder(settings).owner(&home.cluster, &home.node);
            match own_address(home.address) {
                Some(address) => builder = builder.controller(address),
                None => tracing::info!(
                    address = %home.address,
                    "the node's address is not this machine's: the agents' port is open to the whole VPC"
                ),
            }
            if let Some(facts) = &aws.facts {
                builder = builder.facts(facts.clone());
            }
            let cloud = Box::pin(builder.open()).await?;
            let freshness = aws_freshness(cloud.clone());
            Ok((Arc::new(cloud), Some(freshness)))
        }
        other => anyhow::bail!("this build has no {} support", other.name()),
    }
}

/// The address if packets of this machine can carry it. A node may be reached at another one, such as its host's or a load balancer's:
/// then what the cells see is somebody else's, and a rule for this one would lock the controller out of each of them.
#[cfg(feature = "aws")]
pub(crate) fn own_address(address: IpAddr) -> Option<IpAddr> {
    let can_send = std::net::UdpSocket::bind((address, 0)).is_ok();
    (can_send && !address.is_unspecified()).then_some(address)
}

#[cfg(feature = "aws")]
fn aws_freshness(cloud: kip_aws::AwsCloud) -> Freshness {
    Freshness::new(move |now| {
        let parts = cloud.catalogue_parts().into_iter();
        parts
            .map(|state| Part {
                name: state.part.as_str(),
                age: state.stamp.age_seconds(now),
                failures: state.failures,
            })
            .collect()
    })
}

/// A client of the cluster, and the address of its API server.
///
/// A kubeconfig that is named is used; else the service account when there is one; else `~/.kube/config`.
///
/// # Errors
/// When none of them can be used.
pub(crate) async fn client(kubeconfig: Option<&Path>, master: Option<&str>) -> anyhow::Result<Connection> {
    let in_cluster = Path::new(SERVICE_ACCOUNT).join("token").exists();
    let files: Vec<PathBuf> = kubeconfig
        .map(|paths| {
            std::env::split_paths(paths)
                .filter(|path| !path.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default();
    // The old Kip took the service account when the named file was not there.
    let missing = files.iter().all(|path| !path.exists());
    let mut config = match kubeconfig {
        Some(path) if !(missing && in_cluster) => read_kubeconfig(&files)
            .await
            .with_context(|| format!("cannot use the kubeconfig {}", path.display()))?,
        None if !in_cluster => ClientConfig::infer().await.context(
            "found no cluster: give --kubeconfig FILE, or set KUBECONFIG, or run in a pod with a service account",
        )?,
        _ => ClientConfig::incluster().context("cannot use the pod's service account")?,
    };
    if let Some(master) = master {
        config.cluster_url = master
            .parse()
            .with_context(|| format!("--master {master:?} is no URL"))?;
    }
    let server = config.cluster_url.clone();
    let client = Client::try_from(config).context("cannot make a client of the cluster")?;
    Ok(Connection { client, server })
}

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The namespace of the pod this process is in, if it is in one.
pub(crate) fn pod_namespace() -> Option<String> {
    let text = std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok()?;
    Some(text.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

/// A client and where it goes.
pub(crate) struct Connection {
    /// The client.
    pub(crate) client: Client,
    /// The API server's URL.
    pub(crate) server: http::Uri,
}

async fn read_kubeconfig(files: &[PathBuf]) -> anyhow::Result<ClientConfig> {
    let mut merged: Option<Kubeconfig> = None;
    for file in files {
        let next = Kubeconfig::read_from(file)?;
        merged = Some(match merged {
            None => next,
            Some(before) => before.merge(next)?,
        });
    }
    let kubeconfig = merged.context("no file is named")?;
    Ok(ClientConfig::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use super::*;

    /// With a rule for an address that this machine does not have every cell boots, cannot be reached, and is bought again for ever.
    #[test]
    fn only_an_address_of_this_machine_is_the_controllers() {
        let own: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(own_address(own), Some(own));
        // TEST-NET-1 of RFC 5737, which no machine has; and no address at all.
        for other in [[192, 0, 2, 1], [0, 0, 0, 0]] {
            assert_eq!(own_address(other.into()), None, "{other:?}");
        }
    }
}
