//! The virtual kubelet: a Kubernetes Node, its pods and its HTTPS endpoint.
//!
//! [`VirtualKubelet`] is the way in. It gives the driver its [`PodSource`](crate::driver::PodSource) and
//! [`CellStore`](crate::driver::CellStore), and feeds it with pods once it runs:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use kip_core::driver::Kip;
//! # use kip_core::ids::NodeName;
//! # use kip_core::kubelet::{KubeletConfig, VirtualKubelet, install_cells};
//! # use kip_core::provider::CloudProvider;
//! # use kip_core::runtime::PodRuntime;
//! # use tokio_util::sync::CancellationToken;
//! # async fn example(
//! #     client: kube::Client, cloud: Arc<dyn CloudProvider>, hosts: Arc<dyn PodRuntime>,
//! # ) -> kip_core::Result<()> {
//! let name = NodeName::new("kip");
//! let address = [10, 0, 0, 7].into();
//! let shutdown = CancellationToken::new();
//!
//! install_cells(&client).await?;
//! let kubelet = VirtualKubelet::new(client, KubeletConfig::new(name.clone(), address))?;
//! let cluster = kubelet.cluster_uid().await?;
//! let driver = Kip::builder(cloud)
//!     .identity(cluster, name)
//!     .runtime(hosts)
//!     .source(kubelet.source())
//!     .store(kubelet.store())
//!     .build()?;
//! let kubelet = kubelet.bind(Arc::new(driver.handle())).await?;
//! tokio::join!(
//!     driver.run(shutdown.clone().cancelled_owned()),
//!     kubelet.run(shutdown.clone()),
//! );
//! # Ok(())
//! # }
//! ```
//!
//! Nothing process-wide is installed: no TLS provider, no signal handler, no tracing subscriber. `kube` itself needs the process to have
//! a default rustls provider; that is for the binary to install.
//!
//! # What it needs to be allowed
//!
//! | API group | resources | verbs | for |
//! |---|---|---|---|
//! | core | `nodes` | get, list, watch, create, patch | the Node object |
//! | core | `nodes/status` | patch | its status |
//! | coordination.k8s.io | `leases` in `kube-node-lease` | get, create, update | its heartbeat |
//! | coordination.k8s.io | `leases` in Kip's own namespace | get, create, update | [`LeaderElection`], where there are several replicas |
//! | core | `pods` | get, list, watch, delete | the pods, and their release |
//! | core | `pods/status` | patch | their status |
//! | core | `configmaps`, `secrets` | get, list, watch | what they refer to, each by name |
//! | core | `services` | get, list | service variables |
//! | core | `serviceaccounts` | get | pull secrets of accounts; without it only the pods' own count |
//! | core | `serviceaccounts/token` | create | their tokens |
//! | core | `events` | create, patch | telling users |
//! | core | `namespaces` | get on `kube-system` | the cluster's UID |
//! | authentication.k8s.io | `tokenreviews` | create | who a client of the endpoint is |
//! | authorization.k8s.io | `subjectaccessreviews` | create | what it may do |
//! | kip.elotl.co | `cells` | get, list, create, update, patch, delete | the cells' records |
//! | kip.elotl.co | `cells/status` | update | where each is in its life |
//! | apiextensions.k8s.io | `customresourcedefinitions` | get; list, watch, create and patch if Kip is to install and upgrade it itself | [`install_cells`] |

pub mod api;
mod backoff;
mod cells;
mod client;
mod config;
mod controller;
mod demand;
mod directory;
mod errors;
mod events;
mod generation;
mod handle;
mod leader;
mod lease;
mod live;
mod manifest;
mod node;
mod pods;
mod quantity;
mod registry;
mod salvage;
mod source;
mod status;
mod virtual_kubelet;

pub use cells::{
    Cell, CellMarksFields, CellSpec, CellStatus, EndingField, KubeCellStore, OfferingFields, PodFields,
    ReplacesFields, SCHEMA_ANNOTATION, VerdictFields, crd_yaml as cells_crd_yaml, install as install_cells,
};
pub use config::{
    EndpointConfig, KubeletConfig, NodeConfig, NodeTaint, PodsConfig, ServingCertificate, SizingBasis,
    usual_architectures,
};
pub use controller::{ConnectedPods, PodController};
pub use demand::{Refusal, demand, warnings};
pub use handle::PodDriver;
pub use leader::{Leader, LeaderConfig, LeaderElection};
pub use source::KubePodSource;
pub use virtual_kubelet::{BoundKubelet, VirtualKubelet};
