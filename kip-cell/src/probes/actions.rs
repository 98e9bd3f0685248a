//! The single question or hook: run a command, fetch a URL, open a connection, ask a gRPC health service, wait.

use std::sync::Arc;
use std::time::Duration;

use kip_cell_api::v1::{GrpcAction, Handler, HttpGetAction, handler::Action};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cri::Runtime;

/// Most bytes of an answer read or shown.
const MAX_BODY: u64 = 10 * 1024;
/// A hook without an end of its own: bounded by the grace period before a stop, by this after a start.
const HOOK_LIMIT: Duration = Duration::from_secs(600);

/// Whom to ask.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) runtime: Runtime,
    pub(crate) container_id: String,
    pub(crate) pod_ip: String,
}

/// Runs a lifecycle hook; the error says what it answered.
pub(crate) async fn run_hook(target: &Target, hook: &Handler) -> Result<(), String> {
    act(target, Some(hook), HOOK_LIMIT).await
}

/// Asks once, within `timeout`.
pub(super) async fn run_probe(
    target: &Target,
    handler: Option<&Handler>,
    timeout: Duration,
) -> Result<(), String> {
    act(target, handler, timeout).await
}

async fn act(target: &Target, handler: Option<&Handler>, timeout: Duration) -> Result<(), String> {
    let Some(action) = handler.and_then(|handler| handler.action.as_ref()) else {
        return Err("the handler has no action this agent knows".into());
    };
    let asked = async {
        match action {
            Action::Exec(exec) => return run_command(target, exec.command.clone(), timeout).await,
            Action::HttpGet(http) => fetch(target, http).await,
            Action::Tcp(tcp) => {
                let host = if tcp.host.is_empty() {
                    &target.pod_ip
                } else {
                    &tcp.host
                };
                connect(host, tcp.port).await.map(drop)
            }
            Action::Grpc(grpc) => ask_health(target, grpc).await,
            Action::Sleep(sleep) => {
                tokio::time::sleep(Duration::from_secs(u64::from(sleep.seconds))).await;
                Ok(())
            }
        }
    };
    // The runtime enforces a command's own timeout and says so; the margin lets its words through.
    let limit = if matches!(action, Action::Exec(_)) {
        timeout + Duration::from_secs(5)
    } else {
        timeout
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

async fn run_command(target: &Target, command: Vec<String>, timeout: Duration) -> Result<(), String> {
    match target
        .runtime
        .exec_sync(&target.container_id, command.clone(), timeout)
        .await
    {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => {
            let mut said = answer.stdout;
            said.extend_from_slice(&answer.stderr);
            said.truncate(usize::try_from(MAX_BODY).unwrap_or(usize::MAX));
            let said = String::from_utf8_lossy(&said).into_owned();
            Err(if said.is_empty() {
                format!("command exited with {}", answer.exit_code)
            } else {
                said
            })
        }
        Err(error) if error.is_timeout() => Err(format!(
            "command {command:?} timed out after {} s",
            timeout.as_secs()
        )),
        Err(error) => Err(error.to_string()),
    }
}

async fn connect(host: &str, port: u32) -> Result<TcpStream, String> {
    let port = u16::try_from(port).map_err(|_| format!("{port} is not a port"))?;
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

async fn fetch(target: &Target, http: &HttpGetAction) -> Result<(), String> {
    let host = if http.host.is_empty() {
        &target.pod_ip
    } else {
        &http.host
    };
    let stream = connect(host, http.port).await?;
    if http.scheme == "HTTPS" {
        let name = ServerName::try_from(host.clone()).map_err(|error| format!("host {host:?}: {error}"))?;
        let tls = tokio_rustls::TlsConnector::from(Arc::new(trusting_config()?));
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS with {host}: {error}"))?;
        exchange(stream, host, http).await
    } else {
        exchange(stream, host, http).await
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    host: &str,
    http: &HttpGetAction,
) -> Result<(), String> {
    let path = if http.path.starts_with('/') {
        http.path.clone()
    } else {
        format!("/{}", http.path)
    };
    let authority = if host.contains(':') {
        format!("[{host}]:{}", http.port)
    } else {
        format!("{host}:{}", http.port)
    };
    let mut request = format!("GET {path} HTTP/1.1\r\n");
    let given = |name: &str| {
        http.headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case(name))
    };
    let defaults = [
        ("Host", authority.as_str()),
        ("User-Agent", "kube-probe/1.0"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ];
    for (name, value) in defaults.into_iter().filter(|(name, _)| !given(name)) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    for header in &http.headers {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("\r\n");
    let broken = |error: std::io::Error| format!("Get \"{path}\": {error}");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    // A server that cuts the connection after its answer has still answered.
    let ended = stream.take(MAX_BODY).read_to_end(&mut answer).await;
    let Some(status) = status_code(&answer) else {
        return Err(match ended {
            Err(error) => broken(error),
            Ok(_) => format!("Get \"{path}\": not an HTTP answer"),
        });
    };
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {status}"))
    }
}

fn status_code(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r' || *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

async fn ask_health(target: &Target, grpc: &GrpcAction) -> Result<(), String> {
    let authority = if target.pod_ip.contains(':') {
        format!("[{}]", target.pod_ip)
    } else {
        target.pod_ip.clone()
    };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{authority}:{}", grpc.port));
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| format!("dial {authority}:{}: {error}", grpc.port))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let request = tonic::Request::new(HealthRequest {
        service: grpc.service.clone(),
    });
    let codec: tonic_prost::ProstCodec<HealthRequest, HealthResponse> = tonic_prost::ProstCodec::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let answer = client
        .unary(request, path, codec)
        .await
        .map_err(|status| status.message().to_owned())?;
    match answer.into_inner().status {
        SERVING => Ok(()),
        other => Err(format!("service unhealthy (health status {other})")),
    }
}

/// `SERVING` of the gRPC health protocol.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// A probe asks whether a server answers, not who it is: certificates are not checked, as on a kubelet.
fn trusting_config() -> Result<rustls::ClientConfig, String> {
    let provider: CryptoProvider = ring::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms)))
        .with_no_client_auth())
}

#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 500 Oops"), Some(500));
        assert_eq!(status_code(b"SSH-2.0-x"), None);
    }
}
