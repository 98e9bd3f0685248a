//! The endpoint over real TLS, with a scripted runtime behind it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CellName, NodeName, PodUid};
use crate::kubelet::config::{EndpointConfig, ServingCertificate};
use crate::model::{PodManifest, PodReport, RuntimeReport};
use crate::provider::UserData;
use crate::runtime::{
    BootRequest, ByteDuplex, ByteSink, CellEndpoint, LogRequest, PodRuntime, PodStats, StreamKind, Upgrade,
};

#[derive(Debug, Default)]
struct Host {
    opened: Mutex<Vec<StreamKind>>,
}

struct Pipe(tokio::io::WriteHalf<tokio::io::DuplexStream>);

#[async_trait]
impl ByteSink for Pipe {
    async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.0
            .write_all(&bytes)
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "send", e.to_string()))
    }
    async fn close(&mut self) -> Result<()> {
        self.0
            .shutdown()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "close", e.to_string()))
    }
}

/// A streaming server as a runtime has one: takes the upgrade, echoes until half-close, then says goodbye.
async fn streaming_server(mut io: tokio::io::DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a request"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    assert!(head.starts_with("post /exec/token http/1.1\r\n"), "{head}");
    assert!(
        head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
        "{head}"
    );
    assert!(
        !head.contains("authorization"),
        "the client's credentials must not reach the cell: {head}"
    );
    io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        .await
        .expect("writes");
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.expect("reads to half-close");
    io.write_all(&all).await.expect("echoes");
    io.write_all(b"bye").await.expect("writes");
}

#[async_trait]
impl PodRuntime for Host {
    fn user_data(&self, _: &BootRequest) -> Result<UserData> {
        unreachable!("the endpoint boots nothing")
    }
    async fn watch(
        &self,
        _: &CellEndpoint,
        _: Duration,
    ) -> Result<BoxStream<'static, Result<RuntimeReport>>> {
        unreachable!("the endpoint watches nothing")
    }
    async fn deploy(&self, _: &CellEndpoint, _: &PodManifest) -> Result<()> {
        unreachable!("the endpoint deploys nothing")
    }
    async fn update(&self, _: &CellEndpoint, _: &PodManifest) -> Result<()> {
        unreachable!("the endpoint updates nothing")
    }
    async fn stop(&self, _: &CellEndpoint, _: &PodUid, _: Duration, _: &str) -> Result<()> {
        unreachable!("the endpoint stops nothing")
    }
    async fn logs(
        &self,
        _: &CellEndpoint,
        _: &PodUid,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Vec<u8>>>> {
        let lines = futures::stream::iter([Ok(b"one\n".to_vec()), Ok(b"two\n".to_vec())]);
        // Following never ends here: the client must get its headers and lines all the same.
        Ok(if request.follow {
            lines.chain(futures::stream::pending()).boxed()
        } else {
            lines.boxed()
        })
    }
    async fn open(&self, _: &CellEndpoint, _: &PodUid, kind: StreamKind) -> Result<Upgrade> {
        self.opened.lock().expect("no panic").push(kind);
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(streaming_server(far));
        let (read, write) = tokio::io::split(near);
        let from_host = futures::stream::unfold(read, |mut read| async move {
            let mut buffer = vec![0; 1024];
            match read.read(&mut buffer).await {
                Ok(0) | Err(_) => None,
                Ok(n) => {
                    buffer.truncate(n);
                    Some((Ok(buffer), read))
                }
            }
        });
        let io = ByteDuplex {
            from_host: from_host.boxed(),
            to_host: Box::new(Pipe(write)),
        };
        Ok(Upgrade {
            path: "/exec/token".into(),
            io,
        })
    }
    async fn stats(&self, _: &CellEndpoint, _: &PodUid) -> Result<PodStats> {
        Err(Error::new(ErrorKind::Unavailable, "stats", "no statistics"))
    }
}

/// One running pod `web`, one waiting pod `slow`, one ended pod `done`.
#[derive(Debug)]
struct Pods(Vec<Arc<Pod>>);

fn pod(name: &str) -> Arc<Pod> {
    let value = serde_json::json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") },
        "spec": { "containers": [{ "name": "main", "image": "busybox" }] },
    });
    Arc::new(serde_json::from_value(value).expect("a pod"))
}

impl PodDirectory for Pods {
    fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let named = |pod: &&Arc<Pod>| {
            pod.metadata.name.as_deref() == Some(name) && pod.metadata.namespace.as_deref() == Some(namespace)
        };
        self.0.iter().find(named).cloned()
    }
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.0.clone()
    }
    fn endpoint(&self, pod: &PodUid) -> Option<CellEndpoint> {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        (pod.as_str() == "uid-web").then(|| CellEndpoint {
            cell: CellName::new("cell-1"),
            address,
        })
    }
    fn report(&self, _: &PodUid) -> Option<PodReport> {
        None
    }
    fn kept_logs(&self, pod: &PodUid, _: &str) -> Option<Arc<Vec<u8>>> {
        (pod.as_str() == "uid-done").then(|| Arc::new(b"2026-01-01T00:00:01Z 42\n".to_vec()))
    }
}

#[derive(Debug)]
struct OneUser;

#[async_trait]
impl Reviewer for OneUser {
    async fn authenticate(&self, token: &str) -> Result<Option<Identity>> {
        let identity = Identity {
            user: "admin".into(),
            uid: String::new(),
            groups: Vec::new(),
            extra: Vec::new(),
        };
        Ok((token == "good").then_some(identity))
    }
    async fn allows(&self, identity: &Identity, _: &str, _: &str) -> Result<bool> {
        Ok(identity.user == "admin" || identity.groups.contains(&"system:masters".to_owned()))
    }
}

struct Server {
    address: std::net::SocketAddr,
    host: Arc<Host>,
    ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    _stop: oneshot::Sender<()>,
}

async fn serve() -> Server {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let ca = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
    let mut config = EndpointConfig::new("127.0.0.1:0".parse().expect("an address"));
    config.certificate = ServingCertificate::SignedBy {
        ca_certificate: ca.pem(),
        ca_key: ca.key().serialize_pem(),
    };
    config.client_ca = Some(ca.pem());
    let host = Arc::new(Host::default());
    let directory = Arc::new(Pods(vec![pod("web"), pod("slow"), pod("done")]));
    let node = NodeName::new("kip");
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let runtime = Arc::clone(&host) as Arc<dyn PodRuntime>;
    let server = EndpointServer::bind(&config, &node, ip, Box::new(OneUser), directory, runtime)
        .await
        .expect("binds");
    let address = server.address();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    Server {
        address,
        host,
        ca,
        _stop: stop,
    }
}

impl Server {
    /// Connects, optionally with a client certificate of this name.
    async fn connect(&self, client: Option<&str>) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
                params
                    .distinguished_name
                    .push(rcgen::DnType::OrganizationName, "system:masters");
                let key = rcgen::KeyPair::generate().expect("a key");
                let leaf = params.signed_by(&key, &self.ca).expect("a certificate");
                let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes());
                builder
                    .with_client_auth_cert(vec![leaf.der().clone()], key.expect("a key"))
                    .expect("a client")
            }
        };
        let socket = TcpStream::connect(self.address).await.expect("connects");
        let name = ServerName::try_from("kip").expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
            .expect("a handshake")
    }

    async fn request(&self, head: &str) -> String {
        let mut stream = self.connect(None).await;
        let request = format!(
            "{head} HTTP/1.1\r\nHost: kip\r\nAuthorization: Bearer good\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn exec_is_relayed_byte_for_byte_until_both_sides_have_ended() {
    let server = serve().await;
    let mut stream = server.connect(Some("kube-apiserver-kubelet-client")).await;
    let head = "POST /exec/default/web/main?command=cat&input=1&output=1 HTTP/1.1\r\nHost: kip\r\n\
        Authorization: Bearer secret\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
        X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let payload = vec![7; 300_000];
    stream.write_all(&payload).await.expect("writes");
    stream.shutdown().await.expect("half-closes");
    let mut echoed = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut echoed))
        .await
        .expect("the session ends");
    read.expect("reads");
    assert!(
        echoed.len() == payload.len() + 3 && echoed.ends_with(b"bye"),
        "{} bytes came back",
        echoed.len()
    );
    let opened = server.host.opened.lock().expect("no panic").clone();
    assert!(
        matches!(&opened[..], [StreamKind::Exec { command, .. }] if command == &["cat"]),
        "{opened:?}"
    );
}

#[tokio::test]
async fn every_answer_without_a_session_is_the_kubelets() {
    let server = serve().await;
    for (head, status, text) in [
        ("GET /healthz", 200, "ok"),
        ("GET /containerLogs/default/web/main", 200, "two\n"),
        ("GET /containerLogs/default/done/main", 200, "42\n"),
        (
            "GET /containerLogs/default/web/main?tailLines=-1",
            422,
            "tailLines",
        ),
        ("GET /containerLogs/default/web/other", 404, "container \"other\""),
        ("GET /containerLogs/default/nobody/main", 404, "default/nobody"),
        (
            "GET /containerLogs/default/slow/main",
            400,
            "container \"main\" in pod \"slow\" is waiting to start: ContainerCreating",
        ),
        (
            "POST /exec/default/web/main?command=sh&output=1",
            400,
            "Upgrade request required",
        ),
        ("DELETE /exec/default/web/main", 405, "GET, POST"),
        ("GET /checkpoint/a/b/c", 501, "checkpoint"),
        ("GET /nothing", 404, "not found"),
        ("GET /pods", 200, "uid-slow"),
        ("GET /runningpods/", 200, "uid-web"),
        ("GET /stats/summary", 200, "\"nodeName\":\"kip\""),
        ("GET /metrics/resource", 200, "resource_scrape_error 0"),
    ] {
        let answer = tokio::time::timeout(SOON, server.request(head))
            .await
            .expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head}: {answer}"
        );
        assert!(answer.contains(text), "{head}: {answer}");
    }
}

#[tokio::test]
async fn following_a_quiet_container_answers_at_once_or_kubectl_logs_would_hang() {
    let server = serve().await;
    let mut stream = server.connect(Some("reader")).await;
    let head = "GET /containerLogs/default/web/main?follow=true HTTP/1.1\r\nHost: kip\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut seen = String::new();
    while !seen.contains("two\n") {
        let mut buffer = [0; 256];
        let n = tokio::time::timeout(SOON, stream.read(&mut buffer))
            .await
            .expect("bytes")
            .expect("reads");
        assert!(n > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(buffer.get(..n).expect("in bounds")));
    }
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
}

#[tokio::test]
async fn a_client_nobody_knows_gets_nothing() {
    let server = serve().await;
    let mut stream = server.connect(None).await;
    stream
        .write_all(b"GET /pods HTTP/1.1\r\nHost: kip\r\nConnection: close\r\n\r\n")
        .await
        .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}
