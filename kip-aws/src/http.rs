//! How AWS is reached: TLS by rustls, through a proxy where there is one.

use aws_sdk_ec2::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};

/// The client of all calls. The proxy of the environment, `ProxyConfig::from_env`, is what `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
/// `NO_PROXY` say; the SDK's own client takes it, a client that is given to the SDK has to.
pub(crate) fn client(proxy: ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::Credentials;
    use aws_sdk_ec2::{Client, Config};
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// In a VPC without a way out but its proxy, Kip would reach nothing.
    #[tokio::test]
    async fn calls_to_aws_take_the_proxy() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", proxy.local_addr().unwrap());
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("id", "key", None, None, "test"))
            .http_client(client(ProxyConfig::all(url).unwrap()))
            .build();
        let ec2 = Client::from_conf(config);
        let asked = async {
            let (stream, _) = proxy.accept().await.unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await.unwrap();
            line
        };
        let line = tokio::select! {
            line = asked => line,
            answer = ec2.describe_vpcs().send() => panic!("not by the proxy: {answer:?}"),
        };
        assert_eq!(line.trim(), "CONNECT ec2.us-east-1.amazonaws.com:443 HTTP/1.1");
    }
}
