//! A stand-in for the agent: the real TLS and gRPC server, answers made up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use kip_cell_api::BootConfig;
use kip_cell_api::v1;
use kip_cell_api::v1::cell_server::{Cell, CellServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::cell::{CellAuthority, CellRuntime};
use crate::ids::{CellName, LaunchToken, NodeName, PodUid};
use crate::provider::UserData;
use crate::runtime::{BootRequest, CellEndpoint};

pub(super) fn authority() -> Arc<CellAuthority> {
    Arc::new(CellAuthority::generate("test", Timestamp::now()).unwrap())
}

pub(super) fn boot_request(token: &str) -> BootRequest {
    let token = LaunchToken::from_stored(token);
    BootRequest {
        cell: token.host_name(),
        node: NodeName::new("kip"),
        pod: PodUid::new("u-1"),
        token,
        issued_at: Timestamp::now(),
    }
}

/// What a booting cell reads out of its user-data.
pub(super) fn boot_config(user_data: &UserData) -> BootConfig {
    let text = std::str::from_utf8(user_data.as_bytes()).unwrap();
    let body = text.strip_prefix("#cloud-config\n").unwrap();
    let cloud: serde_json::Value = serde_json::from_str(body).unwrap();
    let file = &cloud["write_files"][0];
    assert_eq!(
        (&file["path"], &file["permissions"]),
        (&"/etc/kip/cell.json".into(), &"0600".into())
    );
    serde_json::from_str(file["content"].as_str().unwrap()).unwrap()
}

/// A served agent; it stops when dropped.
pub(super) struct Agent {
    pub(super) address: SocketAddr,
    pub(super) calls: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// Serves with the identity in this boot configuration.
    pub(super) async fn serve(boot: &BootConfig) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::serve_on(listener, boot)
    }

    pub(super) fn serve_on(listener: TcpListener, boot: &BootConfig) -> Self {
        let address = listener.local_addr().unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&boot.certificate_pem, &boot.private_key_pem))
            .client_ca_root(Certificate::from_pem(&boot.ca_pem));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let service = CellServer::new(Service {
            calls: Arc::clone(&calls),
        });
        let server = Server::builder().tls_config(tls).unwrap().add_service(service);
        let task = tokio::spawn(async move {
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self { address, calls, task }
    }

    /// A runtime that dials this agent, and the name it expects there.
    pub(super) fn dial(&self, authority: &Arc<CellAuthority>, cell: &str) -> (CellRuntime, CellEndpoint) {
        let runtime = CellRuntime::new(Arc::clone(authority)).with_port(self.address.port());
        let endpoint = CellEndpoint {
            cell: CellName::new(cell),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        (runtime, endpoint)
    }
}

/// An agent that holds no pod.
struct Service {
    calls: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Cell for Service {
    type WatchStatusStream = BoxStream<'static, Result<v1::StatusSnapshot, Status>>;
    type ReadLogsStream = BoxStream<'static, Result<v1::LogChunk, Status>>;
    type TunnelStream = BoxStream<'static, Result<v1::TunnelFrame, Status>>;
    type StatsStream = BoxStream<'static, Result<v1::StatsSample, Status>>;

    async fn get_info(&self, _: Request<v1::GetInfoRequest>) -> Answer<v1::GetInfoResponse> {
        Ok(Response::new(v1::GetInfoResponse::default()))
    }

    async fn deploy_pod(&self, request: Request<v1::DeployPodRequest>) -> Answer<v1::DeployPodResponse> {
        let uid = request.into_inner().pod.unwrap_or_default().uid;
        self.note(format!("deploy {uid}"));
        if uid == "other" {
            return Err(Status::failed_precondition("this cell holds pod u-1"));
        }
        Ok(Response::new(v1::DeployPodResponse {}))
    }

    async fn update_pod(&self, _: Request<v1::UpdatePodRequest>) -> Answer<v1::UpdatePodResponse> {
        Err(Status::not_found("no pod"))
    }

    async fn stop_pod(&self, request: Request<v1::StopPodRequest>) -> Answer<v1::StopPodResponse> {
        let request = request.into_inner();
        self.note(format!(
            "stop {} {} {}",
            request.pod_uid, request.grace_seconds, request.reason
        ));
        Ok(Response::new(v1::StopPodResponse {}))
    }

    async fn watch_status(&self, _: Request<v1::WatchStatusRequest>) -> Answer<Self::WatchStatusStream> {
        let snapshot = v1::StatusSnapshot {
            boot_id: "b-1".into(),
            sequence: 1,
            ..Default::default()
        };
        let first = futures::stream::once(async move { Ok(snapshot) });
        Ok(Response::new(first.chain(futures::stream::pending()).boxed()))
    }

    async fn read_logs(&self, _: Request<v1::ReadLogsRequest>) -> Answer<Self::ReadLogsStream> {
        let chunks = ["a\n", "b\n"].map(|text| Ok(v1::LogChunk { data: text.into() }));
        Ok(Response::new(futures::stream::iter(chunks).boxed()))
    }

    async fn prepare_stream(
        &self,
        _: Request<v1::PrepareStreamRequest>,
    ) -> Answer<v1::PrepareStreamResponse> {
        Ok(Response::new(v1::PrepareStreamResponse {
            path: "/exec/x".into(),
        }))
    }

    /// Sends back what it gets, and hangs up when the other side does.
    async fn tunnel(&self, request: Request<Streaming<v1::TunnelFrame>>) -> Answer<Self::TunnelStream> {
        Ok(Response::new(request.into_inner().boxed()))
    }

    async fn stats(&self, _: Request<v1::StatsRequest>) -> Answer<Self::StatsStream> {
        let sample = v1::StatsSample {
            at: Some(crate::cell::convert::timestamp(Timestamp::UNIX_EPOCH)),
            network_rx_bytes: 7,
            ..Default::default()
        };
        Ok(Response::new(futures::stream::iter([Ok(sample)]).boxed()))
    }
}

/// Longer than anything here takes, shorter than anybody waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// For attempts that must fail.
pub(super) const SHORT: Duration = Duration::from_millis(400);
